"""Paired training and test data from `bands`.

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

from . import bands, features
from .audio import to_level
from .config import AudioConfig
from .models.recombine import GainTransfer

SECONDS = 8.0
ONSET_GAP_S = 0.03  # notes that begin closer together are one onset


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
) -> tuple[Tensor, Tensor]:
    """Paired renderings for training, each of `SECONDS` at -20 dBFS.

    Returns
    -------
    log_mels : torch.Tensor (n_groups, score, style, n_mels, T), in dB, half precision
    genres : torch.Tensor (n_groups, style), indices into `bands.GENRES`
    """
    log_mels, genres = [], []
    for group in bands.render_lattice(
        n_groups, seed=seed, split=split, seconds=SECONDS, soundfonts=soundfonts, progress=progress
    ):
        audio = np.stack([[to_level(clip) for clip in row] for row in as_float(group.audio)])
        waveforms = torch.from_numpy(audio.reshape(-1, audio.shape[-1])).to(device)
        log_mel = features.log_mel(waveforms, config).clamp_min(GainTransfer.FLOOR_DB).half()
        log_mels.append(log_mel.reshape(*audio.shape[:2], *log_mel.shape[1:]))
        genres.append([bands.GENRES.index(style.genre) for style in group.styles])
    return torch.stack(log_mels), torch.tensor(genres)


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
