"""The judges of the benchmark: trained, loaded, asked. Notebook 09.

`GenreNet` hears genres and lends its features to two distances; `TimbreNet` compares timbres. Both are
trained on tracks and instruments that no benchmark item comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import checkpoint, features, pairs, peers, training
from .audio import to_level
from .config import AudioConfig
from .corpora import GENRES, Corpus, Track, read_clip
from .models.judge import GenreNet, TimbreNet, triplet_hinge_loss
from .paths import PRETRAINED

GENRE_MODEL = PRETRAINED / "judge_genre.safetensors"
TIMBRE_MODELS = {
    False: PRETRAINED / "judge_timbre.safetensors",
    True: PRETRAINED / "judge_timbre_centred.safetensors",
}
CROP_FRAMES = 256  # 6 s
STEPS_PER_EPOCH = 50


@dataclass(frozen=True)
class Judges:
    """Networks in evaluation mode."""

    genre: GenreNet  # scores of `corpora.GENRES`
    timbre: TimbreNet
    timbre_centred: TimbreNet

    @torch.inference_mode()
    def genre_heard(self, waveform: np.ndarray, config: AudioConfig) -> str:
        """Genre with the highest score for a waveform (n_samples,)."""
        return GENRES[int(self.genre(self._log_mel(waveform, config)).argmax())]

    @torch.inference_mode()
    def timbre_distance(
        self, a: np.ndarray, b: np.ndarray, config: AudioConfig, *, centred: bool = False
    ) -> float:
        """1 - cosine of the timbre embeddings of waveforms (lower).

        `centred` embeds cepstra without their mean over time, which is all that a static equaliser
        changes.
        """
        net = self.timbre_centred if centred else self.timbre
        first, second = (
            timbre_input(self._log_mel(x, config), config, centred=centred) for x in (a, b)
        )
        return float(net.distance(first, second))

    @torch.inference_mode()
    def gram_distance(self, a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
        """Distance of Gram matrices of the genre network's features, a share of `b`'s norm (lower).

        Mean over stages of ||G_a - G_b|| / ||G_b||, G the products of channels, mean over time and
        frequency (Gatys, Ecker & Bethge, CVPR 2016). What sounds together, not when.
        """
        shares = []
        for x, y in zip(*self._stages(a, b, config), strict=True):
            gram_a, gram_b = (peers.gram_matrix(z[0].flatten(1)) for z in (x, y))
            shares.append(float((gram_a - gram_b).norm() / gram_b.norm()))
        return float(np.mean(shares))

    @torch.inference_mode()
    def perceptual_distance(self, a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
        """Learned perceptual distance, built as LPIPS is, of clips that play the same score (lower).

        Squared difference of the genre network's features, each position's channels of unit length;
        mean over positions, mean over stages (Zhang et al., CVPR 2018, without their tuned weights).
        """
        n = min(len(a), len(b))
        distances = []
        for x, y in zip(*self._stages(a[:n], b[:n], config), strict=True):
            difference = _unit(x) - _unit(y)
            distances.append(float(difference.square().sum(dim=1).mean()))
        return float(np.mean(distances))

    def _stages(self, a: np.ndarray, b: np.ndarray, config: AudioConfig):
        return [self.genre.stage_outputs(self._log_mel(x, config)) for x in (a, b)]

    def _log_mel(self, waveform: np.ndarray, config: AudioConfig) -> Tensor:
        return _log_mel(waveform, config).to(self.genre.head.weight.device)


def _unit(stage: Tensor) -> Tensor:
    return stage / stage.norm(dim=1, keepdim=True).clamp_min(1e-6)


def _log_mel(waveform: np.ndarray, config: AudioConfig) -> Tensor:
    """(1, n_mels, T) in dB of a waveform at -20 dBFS."""
    return features.log_mel(torch.from_numpy(to_level(waveform))[None], config)


def timbre_input(log_mel: Tensor, config: AudioConfig, *, centred: bool) -> Tensor:
    """MFCC 1 to 12 (B, 12, T) of log-mels in dB (B, n_mels, T), in units of 10; centred over time."""
    cepstra = features.mfcc(log_mel, config)[:, 1:13] / 10
    return cepstra - cepstra.mean(dim=2, keepdim=True) if centred else cepstra


# Training -----------------------------------------------------------------------------------------


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
        log_mels[:: max(1, len(log_mels) // 200)].float().clamp_min(model.FLOOR_DB)
    )
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(steps_per_epoch):
            which = torch.randint(len(log_mels), (batch_size,), generator=generator)
            equalizer = pairs.random_equalizer(batch_size, config.n_mels, generator)
            crops = _crops(log_mels, which, generator) + equalizer
            yield crops.to(device), labels[which].to(device)

    curves = training.fit(
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
            other_style = pairs.draw_other_style(style, n_styles, generator)
            negative_score = torch.where(draw(2) == 0, score, other_score)
            chosen = ((score, style), (other_score, style), (negative_score, other_style))
            clips = (
                _crops(flat, (group * n_scores + a) * n_styles + s, generator) for a, s in chosen
            )
            yield tuple(timbre_input(x.to(device), config, centred=centred) for x in clips)

    curves = training.fit(
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
        log_mels.append(_log_mel(clip, config)[0].clamp_min(GenreNet.FLOOR_DB).half())
        if progress is not None:
            progress(i + 1, len(tracks))
    return torch.stack(log_mels), torch.tensor([GENRES.index(t.genre) for t in tracks])


@torch.inference_mode()
def accuracy(net: GenreNet, log_mels: Tensor, labels: Tensor) -> float:
    """Share of clips, each as a whole, whose genre the judge hears."""
    device = net.head.weight.device
    heard = [int(net(x[None].float().to(device)).argmax()) for x in log_mels]
    return float((torch.tensor(heard) == labels).float().mean())


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


@lru_cache(maxsize=2)
def load(config: AudioConfig, device: str = "cpu") -> Judges:
    """The pretrained judges, in evaluation mode."""
    settings = {"config": config, "device": device}
    return Judges(
        checkpoint.load_model(GENRE_MODEL, build=GenreNet, **settings),
        *(
            checkpoint.load_model(TIMBRE_MODELS[c], build=TimbreNet, **settings)
            for c in (False, True)
        ),
    )
