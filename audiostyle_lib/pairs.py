"""Paired training and test data from `bands`, and the training of the recombination on it.

A group holds `size` scores in `size` styles, every combination rendered. A triplet takes two scores
A, B and two styles 1, 2 of one group: content = A in 1, style = B in 2, truth = A in 2. One group of
16 renderings gives 144 triplets. Notebook 07.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import bands, features, training
from .audio import to_level
from .config import AudioConfig
from .models.recombine import GainTransfer, floored_difference, log_spectral_loss

SECONDS = 8.0
SEGMENT_FRAMES = 128  # about 3 s
STYLE_FRAMES = 256  # about 6 s
STEPS_PER_EPOCH = 50
ONSET_GAP_S = 0.03  # notes that begin closer together are one onset
BATCH_SIZE = 16


@dataclass(frozen=True)
class Triplet:
    """Waveforms (n_samples,) of one paired test item, and what is known about it."""

    content: np.ndarray
    style: np.ndarray
    truth: np.ndarray
    content_genre: str
    style_genre: str
    tier: int  # 1: the same notes on other instruments; 2: the song re-arranged in another genre
    notes: np.ndarray  # (n, 3) of the truth: start and end in s, MIDI pitch; without drums
    onsets: np.ndarray  # s, ascending, of the truth's notes and drums


def tier_of(style_a: int, style_b: int) -> int:
    """Columns 2 k and 2 k + 1 of a group are one arrangement on two sets of instruments."""
    return 1 if style_a // 2 == style_b // 2 else 2


def render_log_mels(
    n_groups: int,
    *,
    split: str,
    seed: int,
    config: AudioConfig,
    soundfonts: Sequence[Path] = (),
    device: str = "cpu",
    progress=None,
) -> Tensor:
    """Log-mels (n_groups, score, style, n_mels, T) in dB, half precision, of audio at -20 dBFS."""
    groups = []
    for group in bands.render_lattice(
        n_groups, seed=seed, split=split, seconds=SECONDS, soundfonts=soundfonts, progress=progress
    ):
        audio = np.stack([[to_level(clip) for clip in row] for row in as_float(group.audio)])
        log_mel = features.log_mel(torch.from_numpy(audio.reshape(-1, audio.shape[-1])), config)
        log_mel = log_mel.clamp_min(GainTransfer.FLOOR_DB).half()
        groups.append(log_mel.reshape(*audio.shape[:2], *log_mel.shape[1:]))
    return torch.stack(groups).to(device)


def as_float(samples: np.ndarray) -> np.ndarray:
    """16-bit samples as float32 in [-1, 1)."""
    return samples.astype(np.float32) / 32768.0 if samples.dtype == np.int16 else samples


def triplets(n_groups: int, *, split: str, seed: int, per_group: int, tier: int | None = None):
    """Held-out `Triplet`s, `per_group` of every group, drawn at random with both tiers mixed.

    Parameters
    ----------
    tier : 1 or 2 for only that tier, None for both in turn
    """
    rng = np.random.default_rng([seed, 7])
    result = []
    for group in bands.render_lattice(n_groups, seed=seed, split=split, seconds=SECONDS):
        audio, size = as_float(group.audio), group.audio.shape[0]
        ordered = list(permutations(range(size), 2))
        for k in range(per_group):
            wanted = tier or 1 + k % 2
            styles = [p for p in ordered if tier_of(*p) == wanted]
            a, b = ordered[rng.integers(len(ordered))]
            s, t = styles[rng.integers(len(styles))]
            result.append(
                Triplet(
                    audio[a, s],
                    audio[b, t],
                    audio[a, t],
                    group.styles[s].genre,
                    group.styles[t].genre,
                    wanted,
                    *_notes_and_onsets(group, a, t),
                )
            )
    return result


def _notes_and_onsets(group: bands.LatticeGroup, score: int, style: int):
    """What `Triplet.notes` and `Triplet.onsets` say of one rendering."""
    beat_s = 60 / group.scores[score].tempo
    rows = np.array(
        [
            ((n.start - group.starts[score]) * beat_s, (n.end - group.starts[score]) * beat_s,
             n.pitch, part.is_drum)
            for part in bands.arrange(group.scores[score], group.styles[style])
            for n in part.notes
        ]
    )  # fmt: skip
    rows = rows[(rows[:, 0] < SECONDS) & (rows[:, 1] > 0)]
    begun = np.sort(rows[rows[:, 0] >= 0, 0])
    return rows[rows[:, 3] == 0, :3], begun[np.diff(begun, prepend=-1.0) > ONSET_GAP_S]


def random_equalizer(n: int, n_mels: int, generator: torch.Generator) -> Tensor:
    """Smooth random equaliser curves in dB, (n, n_mels, 1): microphones and rooms never heard."""
    knots = 4.0 * torch.randn(n, 1, 6, generator=generator)
    curve = torch.nn.functional.interpolate(knots, n_mels, mode="linear", align_corners=True)
    return curve.transpose(1, 2)


def draw_other_style(style: Tensor, n_styles: int, generator: torch.Generator) -> Tensor:
    """For each of `style` (B,) another column: as often its sibling (tier 1) as any of the rest.

    Drawn evenly, tier 1 would be a third, and its errors, which are smaller, would hardly count.
    """
    sibling = style ^ 1  # columns 2 k and 2 k + 1
    if n_styles == 2:
        return sibling
    step = torch.randint(2, n_styles, style.shape, generator=generator)
    elsewhere = (style // 2 * 2 + step) % n_styles
    return torch.where(torch.rand(style.shape, generator=generator) < 0.5, sibling, elsewhere)


def sample_batch(log_mels: Tensor, *, generator: torch.Generator, batch_size: int = BATCH_SIZE):
    """Random triplets for one step, in dB.

    Content and truth are the same excerpt, (B, n_mels, SEGMENT_FRAMES); the style clip, of another
    score, and the content's own surroundings are (B, n_mels, STYLE_FRAMES). A random equaliser is
    laid over the content, and another over style and truth alike. Half of the triplets are of tier 1.

    Returns
    -------
    content, own, style, truth : torch.Tensor
    """
    n_groups, n_scores, n_styles, n_mels, n_frames = log_mels.shape

    def draw(high: int) -> Tensor:
        return torch.randint(high, (batch_size,), generator=generator)

    group, score, style = draw(n_groups), draw(n_scores), draw(n_styles)
    other_score = (score + 1 + draw(n_scores - 1)) % n_scores
    other_style = draw_other_style(style, n_styles, generator)
    long_start, style_start = (draw(n_frames - STYLE_FRAMES + 1) for _ in range(2))
    start = long_start + draw(STYLE_FRAMES - SEGMENT_FRAMES + 1)

    def crop(scores: Tensor, styles: Tensor, starts: Tensor, length: int, eq: Tensor) -> Tensor:
        items = zip(*(x.tolist() for x in (group, scores, styles, starts)), strict=True)
        cut = [log_mels[g, a, s, :, i : i + length] for g, a, s, i in items]
        return torch.stack(cut).float() + eq

    own_eq, style_eq = (
        random_equalizer(batch_size, n_mels, generator).to(log_mels.device) for _ in range(2)
    )
    return (
        crop(score, style, start, SEGMENT_FRAMES, own_eq),
        crop(score, style, long_start, STYLE_FRAMES, own_eq),
        crop(other_score, other_style, style_start, STYLE_FRAMES, style_eq),
        crop(score, other_style, start, SEGMENT_FRAMES, style_eq),
    )


def gain_transfer_step(model, batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-spectral loss in dB to the true rendering; L1 of the model and of copying the content."""
    content, own, style, truth = batch
    difference = floored_difference(model(content, style, own), truth)
    copy = floored_difference(content.clamp_min(GainTransfer.FLOOR_DB), truth)
    metrics = {"l1": difference.abs().mean(), "copy_l1": copy.abs().mean()}
    return log_spectral_loss(difference), metrics


def train_gain_transfer(
    log_mels: Tensor,
    *,
    steps: int,
    path: Path,
    config: AudioConfig,
    seed: int = 0,
    device: str = "cpu",
    lr: float = 1e-3,
    provenance: dict | None = None,
    soundfonts: Sequence[str] = (),
    **sizes: int,
) -> tuple[GainTransfer, dict[str, list[float]]]:
    """Train `GainTransfer` on paired renderings (n_groups, score, style, n_mels, T).

    `soundfonts` names those that the renderings were made with besides the default; a checkpoint of
    others is not continued.

    Returns the model in evaluation mode and the curves of `training.fit`.
    """
    torch.manual_seed(seed)
    model = GainTransfer(n_mels=config.n_mels, **sizes)
    model.standardize.fit(log_mels[:64].flatten(0, 2).float())
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(steps_per_epoch):
            yield sample_batch(log_mels, generator=generator)

    recipe = {"model": {"n_mels": config.n_mels, **sizes}, "groups": len(log_mels)}
    recipe |= {"soundfonts": list(soundfonts)} if soundfonts else {}
    curves = training.fit(
        model, step=gain_transfer_step, batches=batches, steps_per_epoch=steps_per_epoch,
        epochs=max(1, steps // steps_per_epoch), path=path, recipe=recipe, config=config, seed=seed,
        device=device, lr=lr, label="gain transfer", provenance=provenance,
    )  # fmt: skip
    return model, curves
