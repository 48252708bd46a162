"""Training of the benchmark's judges, on tracks and instruments that no benchmark item comes from.

`evaluation.judges` loads and asks them. Used by ``notebooks/09_evaluation.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from .batches import crops, draw_other_style, epoch_generator, random_equalizer

CROP_FRAMES = 256  # 6 s
STEPS_PER_EPOCH = 50


def _random_crops(log_mels: Tensor, which: Tensor, generator: torch.Generator) -> Tensor:
    """Random excerpts (B, n_mels, CROP_FRAMES) of clips `which` (B,) of (N, n_mels, T)."""
    n_frames = min(CROP_FRAMES, log_mels.shape[2])
    last = log_mels.shape[2] - n_frames
    starts = torch.randint(last + 1, (len(which),), generator=generator)
    return crops(log_mels, which, starts, n_frames)


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
    """Train a `GenreNet` on random crops with random equalisers.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(N, n_mels, T)]
        In dB, of clips at -20 dBFS.
    labels : torch.Tensor [shape=(N,)]
        Index of each clip's genre in `corpora.GENRES`.
    steps, path, config, lr, seed, device
        As in `loop.fit`.
    corpus : str
        What the clips are, as a hash or a sentence.
    batch_size : int
    **sizes : int
        Arguments of `GenreNet`.

    Returns
    -------
    net : GenreNet
        In evaluation mode.
    curves : dict of str to list of float
        As `loop.fit`, with ``train_accuracy``.
    """
    torch.manual_seed(seed)
    sizes = {"n_genres": len(GENRES), "n_mels": config.n_mels, **sizes}
    model = GenreNet(**sizes)
    model.standardize.fit(
        log_mels[:: max(1, len(log_mels) // 200)].float().clamp_min(features.FLOOR_DB)
    )

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(len(log_mels), (batch_size,), generator=generator)
        equalizer = random_equalizer(batch_size, config.n_mels, generator)
        excerpts = _random_crops(log_mels, which, generator) + equalizer
        return excerpts.to(device), labels[which].to(device)

    curves = _fit(
        model, _genre_step, batch, steps=steps, path=path, arguments=sizes, config=config,
        data={"corpus": corpus, "batch_size": batch_size}, seed=seed, device=device, lr=lr,
        label="genre judge",
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
    """Train a `TimbreNet` on paired renderings.

    Anchor and positive are two scores in one style; the negative is the anchor's or the positive's
    score in another style, as often on other instruments only as in another genre. So the notes do not
    tell positive and negative apart.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
        In dB.
    centred : bool
        Train on cepstra without their mean over time, so that an equaliser makes no difference.
    steps, path, config, lr, seed, device
        As in `loop.fit`.
    corpus : str
        What the renderings are, as a hash or a sentence.
    batch_size : int
        Triplets.

    Returns
    -------
    net : TimbreNet
        In evaluation mode.
    curves : dict of str to list of float
        As `loop.fit`, with ``train_triplets_right``, the share in which the positive is nearer.
    """
    torch.manual_seed(seed)
    model = TimbreNet()
    n_groups, n_scores, n_styles = log_mels.shape[:3]
    flat = log_mels.flatten(0, 2)

    def batch(generator: torch.Generator) -> tuple[Tensor, ...]:
        def draw(high: int) -> Tensor:
            return torch.randint(high, (batch_size,), generator=generator)

        group, score, style = draw(n_groups), draw(n_scores), draw(n_styles)
        other_score = (score + 1 + draw(n_scores - 1)) % n_scores
        other_style = draw_other_style(style, n_styles, generator)
        negative_score = torch.where(draw(2) == 0, score, other_score)
        chosen = ((score, style), (other_score, style), (negative_score, other_style))
        clips = (
            _random_crops(flat, (group * n_scores + a) * n_styles + s, generator) for a, s in chosen
        )
        return tuple(timbre_input(x.to(device), config, centred=centred) for x in clips)

    curves = _fit(
        model, _timbre_step, batch, steps=steps, path=path, arguments={}, config=config,
        data={"corpus": corpus, "batch_size": batch_size, "centred": centred}, seed=seed,
        device=device, lr=lr, label="timbre judge",
    )  # fmt: skip
    return model, curves


def _timbre_step(model: TimbreNet, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    anchor, positive, negative = batch
    loss = triplet_hinge_loss(model, anchor, positive, negative)
    with torch.no_grad():
        right = model.distance(anchor, positive) < model.distance(anchor, negative)
    return loss, {"triplets_right": right.float().mean()}


def _fit(
    model, step, batch: Callable[[torch.Generator], tuple], *, steps: int, seed: int, **settings
):
    """`loop.fit` on batches that `batch` draws."""
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)

    def batches(epoch: int):
        generator = epoch_generator(seed, epoch)
        return (batch(generator) for _ in range(steps_per_epoch))

    return loop.fit(
        model, step=step, batches=batches, steps=steps, steps_per_epoch=steps_per_epoch, seed=seed,
        **settings,
    )  # fmt: skip


def labelled(log_mels: Tensor, genres: Tensor) -> tuple[Tensor, Tensor]:
    """Paired renderings as clips with a genre each.

    The genre is the arrangement's, whichever genre the score is from. Trained on tracks only, in which
    score and arrangement agree, a judge would listen to the score as well.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
    genres : torch.Tensor [shape=(n_groups, n_styles)]

    Returns
    -------
    log_mels : torch.Tensor [shape=(N, n_mels, T)]
    labels : torch.Tensor [shape=(N,)]
    """
    labels = genres[:, None].expand(log_mels.shape[:3])
    return log_mels.flatten(0, 2), labels.flatten()


def labelled_log_mels(
    tracks: Sequence[Track], *, seconds: float, config: AudioConfig
) -> tuple[Tensor, Tensor]:
    """Read tracks as log-mels with a genre each.

    Parameters
    ----------
    tracks : sequence of Track
    seconds : float
        Of each track, in s.
    config : AudioConfig

    Returns
    -------
    log_mels : torch.Tensor [shape=(N, n_mels, T)]
        In dB, of clips at -20 dBFS, in half precision.
    labels : torch.Tensor [shape=(N,)]
        Index of the genre in `corpora.GENRES`.
    """
    log_mels = []
    for track in tracks:
        clip = read_clip(track, config=config, seconds=seconds)
        log_mel = features.log_mel_at_level(clip, config)[0]
        log_mels.append(log_mel.clamp_min(features.FLOOR_DB).half())
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
    """The pretrained judges; on another corpus than `bands` with a genre judge of its own tracks.

    A judge that has heard rendered music only guesses on recordings. So one is trained on the corpus's
    training tracks.

    Parameters
    ----------
    corpus : Corpus
    steps : int
        Of the training.
    seconds : float
        Of each track, in s.
    path : Path
        Checkpoint of the training, where the judge is found the next time.
    config : AudioConfig
    device : str

    Returns
    -------
    Judges
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
