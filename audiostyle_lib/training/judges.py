"""Training of the benchmark's judges, on tracks and instruments that no benchmark item comes from.

`evaluation.judges` loads and asks them. Notebook 09.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import AudioConfig
from ..corpora import GENRES, Corpus, Track, read_clip
from ..evaluation.judges import Judges, load, timbre_input
from ..models.judge import GenreNet, TimbreNet, triplet_hinge_loss
from ..signal import features
from . import loop

CROP_FRAMES = 256  # 6 s
STEPS_PER_EPOCH = 50


def _crops(log_mels: Tensor, which: Tensor, generator: torch.Generator) -> Tensor:
    """Random crops (B, n_mels, CROP_FRAMES) of clips `which` (B,) of (N, n_mels, T)."""
    n = min(CROP_FRAMES, log_mels.shape[2])
    starts = torch.randint(log_mels.shape[2] - n + 1, (len(which),), generator=generator)
    cuts = zip(which.tolist(), starts.tolist(), strict=True)
    return torch.stack([log_mels[i, :, s : s + n] for i, s in cuts]).float()


def train_genre(
    log_mels: Tensor,
    labels: Tensor,
    *,
    steps: int,
    path: Path,
    config: AudioConfig,
    corpus: str,
    batch_size: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    **sizes: int,
) -> tuple[GenreNet, dict[str, list[float]]]:
    """Train a `GenreNet` on log-mels (N, n_mels, T) in dB at -20 dBFS and labels (N,).

    Random crops under random equalisers. `corpus` says what of, a hash or a sentence: a checkpoint of
    another is not continued. Returns it in evaluation mode, and the curves.
    """
    torch.manual_seed(seed)
    sizes = {"n_genres": len(GENRES), "n_mels": config.n_mels, **sizes}
    model = GenreNet(**sizes)
    model.standardize.fit(
        log_mels[:: max(1, len(log_mels) // 200)].float().clamp_min(features.FLOOR_DB)
    )
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(steps_per_epoch):
            which = torch.randint(len(log_mels), (batch_size,), generator=generator)
            equalizer = batches.random_equalizer(batch_size, config.n_mels, generator)
            crops = _crops(log_mels, which, generator) + equalizer
            yield crops.to(device), labels[which].to(device)

    curves = loop.fit(
        model, step=_genre_step, batches=batches, steps_per_epoch=steps_per_epoch,
        epochs=max(1, steps // steps_per_epoch), path=path,
        recipe={"model": sizes, "corpus": corpus}, config=config, seed=seed, device=device,
        lr=lr, label="genre judge",
    )  # fmt: skip
    return model, curves


def _genre_step(model: GenreNet, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    log_mel, label = batch
    scores = model(log_mel)
    loss = torch.nn.functional.cross_entropy(scores, label, label_smoothing=0.1)
    return loss, {"accuracy": (scores.argmax(dim=1) == label).float().mean()}


def train_timbre(
    log_mels: Tensor,
    *,
    centred: bool,
    steps: int,
    path: Path,
    config: AudioConfig,
    corpus: str,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[TimbreNet, dict[str, list[float]]]:
    """Train a `TimbreNet` on paired renderings (n_groups, score, style, n_mels, T).

    Anchor and positive are two scores in one style; the negative is the anchor's or the positive's
    score in another style, as often on other instruments only as in another genre: what tells them
    apart is not the notes. With `centred` cepstra a random equaliser on each makes no difference.
    """
    torch.manual_seed(seed)
    model = TimbreNet()
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)
    n_groups, n_scores, n_styles = log_mels.shape[:3]
    flat = log_mels.flatten(0, 2)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)

        def draw(high: int) -> Tensor:
            return torch.randint(high, (batch_size,), generator=generator)

        for _ in range(steps_per_epoch):
            group, score, style = draw(n_groups), draw(n_scores), draw(n_styles)
            other_score = (score + 1 + draw(n_scores - 1)) % n_scores
            other_style = batches.draw_other_style(style, n_styles, generator)
            negative_score = torch.where(draw(2) == 0, score, other_score)
            chosen = ((score, style), (other_score, style), (negative_score, other_style))
            clips = (
                _crops(flat, (group * n_scores + a) * n_styles + s, generator) for a, s in chosen
            )
            yield tuple(timbre_input(x.to(device), config, centred=centred) for x in clips)

    curves = loop.fit(
        model, step=_timbre_step, batches=batches, steps_per_epoch=steps_per_epoch,
        epochs=max(1, steps // steps_per_epoch), path=path,
        recipe={"model": {}, "corpus": corpus, "centred": centred}, config=config, seed=seed,
        device=device, lr=lr, label="timbre judge",
    )  # fmt: skip
    return model, curves


def _timbre_step(model: TimbreNet, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    anchor, positive, negative = batch
    loss = triplet_hinge_loss(model, anchor, positive, negative)
    with torch.no_grad():
        right = model.distance(anchor, positive) < model.distance(anchor, negative)
    return loss, {"triplets_right": right.float().mean()}


def labelled(log_mels: Tensor, genres: Tensor) -> tuple[Tensor, Tensor]:
    """Clips (N, n_mels, T) and genres (N,) of paired renderings (n_groups, score, style, n_mels, T).

    The label (n_groups, style) is the arrangement's genre, whatever genre the score is from: a judge
    of tracks only, whose scores and arrangements agree, hears the score as well.
    """
    labels = genres[:, None].expand(log_mels.shape[:3])
    return log_mels.flatten(0, 2), labels.flatten()


def labelled_log_mels(
    tracks: Sequence[Track], *, seconds: float, config: AudioConfig, progress=None
) -> tuple[Tensor, Tensor]:
    """Log-mels (N, n_mels, T) in dB of tracks at -20 dBFS, half precision, and genres (N,)."""
    log_mels = []
    for i, track in enumerate(tracks):
        clip = read_clip(track, config=config, seconds=seconds)
        log_mel = features.log_mel_at_level(clip, config)[0]
        log_mels.append(log_mel.clamp_min(features.FLOOR_DB).half())
        if progress is not None:
            progress(i + 1, len(tracks))
    return torch.stack(log_mels), torch.tensor([GENRES.index(t.genre) for t in tracks])


def for_corpus(
    corpus: Corpus,
    *,
    steps: int,
    seconds: float,
    path: Path,
    config: AudioConfig,
    device: str = "cpu",
) -> Judges:
    """The pretrained judges, on another corpus than bands with a genre judge of its own tracks.

    A judge that only ever heard rendered music guesses on recordings; so one is trained on the corpus's
    training tracks, at `path`, and found there the next time.
    """
    pretrained = load(config, device)
    if corpus.name == "bands":
        return pretrained
    log_mels, labels = labelled_log_mels(corpus.split("train"), seconds=seconds, config=config)
    genre, _ = train_genre(
        log_mels, labels, steps=steps, path=path, config=config, corpus=corpus.sha256,
        device=device,
    )  # fmt: skip
    return replace(pretrained, genre=genre)
