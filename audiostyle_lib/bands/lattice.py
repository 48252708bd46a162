"""Paired training and test data from `bands`.

A group holds `size` scores in `size` styles, every combination rendered. A triplet takes two scores
A, B and two styles 1, 2 of one group: content = A in 1, style = B in 2, truth = A in 2. One group of
16 renderings gives 144 triplets. Notebook 07.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import AudioConfig
from ..signal import features
from ..signal.audio import to_level
from .arrange import Style, arrange, draw_style, reorchestrate
from .genres import GENRES, SPLITS
from .score import Score, compose, make_rng, split_seed
from .synth import Part, render_parts
from .workers import run_jobs

SECONDS = 8.0
ONSET_GAP_S = 0.03  # notes that begin closer together are one onset


@dataclass(frozen=True, eq=False)
class LatticeGroup:
    """Every one of a few scores in every one of a few styles.

    Parameters
    ----------
    index : int
    audio : np.ndarray [shape=(size, size, n_samples)]
        int16, full scale 32 768; axes score, style, sample. ``audio[i, j]`` and ``audio[i, k]`` are
        the same music in two styles.
    scores, styles : tuple of Score, tuple of Style
        What the two axes are; their seeds and genres are in them.
    starts : tuple of float
        Beat of each score at which its excerpts begin.
    siblings : tuple of (int, int)
        Style columns that differ in instruments only (tier 1); all others are tier 2.
    """

    index: int
    audio: np.ndarray
    scores: tuple[Score, ...]
    styles: tuple[Style, ...]
    starts: tuple[float, ...]
    siblings: tuple[tuple[int, int], ...]


def _column_soundfont(
    folders: tuple[Path, ...], seed: int, split: str, index: int, column: int
) -> Path | None:
    """What plays a style of a group: the default, None, as often as any folder."""
    rng = make_rng("soundfont", split, seed, index, column)
    return (None, *folders)[int(rng.integers(len(folders) + 1))]


def _lattice_group(
    index: int, seed: int, split: str, seconds: float, size: int, folders: tuple[Path, ...]
) -> LatticeGroup:
    rng = make_rng("lattice", split, seed, index)
    score_genres = [GENRES[k % 10] for k in rng.permutation(max(10, size))[:size]]
    style_genres = [GENRES[k % 10] for k in rng.permutation(max(10, size // 2))[: size // 2]]
    styles: list[Style] = []
    for genre in style_genres:
        style = draw_style(split_seed(rng, split), genre=genre, split=split)
        styles += [style, reorchestrate(style, split_seed(rng, split), split=split)]
    scores, starts, arrangements = [], [], []
    for genre in score_genres:
        score = compose(split_seed(rng, split), genre=genre, split=split, seconds=seconds + 40)
        n_beats = seconds * score.tempo / 60
        last_bar = int((score.n_bars * 4 - n_beats) // 4)
        start = 4.0 * int(rng.integers(0, min(last_bar, 16) + 1))
        arranged = [arrange(score, style) for style in styles]
        while any(_rests(parts, start, start + n_beats) for parts in arranged):
            start += 4.0  # an intro for instruments that one of the bands has not
        scores.append(score)
        starts.append(start)
        arrangements.append(arranged)
    audio = np.empty((size, size, round(seconds * 22050)), np.int16)
    for j, style in enumerate(styles):
        soundfont = _column_soundfont(folders, seed, split, index, j)
        for i, score in enumerate(scores):
            x = render_parts(
                arrangements[i][j], style.mix, tempo=score.tempo, seconds=seconds,
                start_beat=starts[i], soundfont=soundfont,
            )  # fmt: skip
            audio[i, j] = np.rint(x * 32767)
    pairs = tuple((k, k + 1) for k in range(0, size, 2))
    return LatticeGroup(index, audio, tuple(scores), tuple(styles), tuple(starts), pairs)


def _rests(parts: Sequence[Part], start: float, end: float) -> bool:
    """Whether no note begins between two beats."""
    return not any(start <= note.start < end for part in parts for note in part.notes)


def render_lattice(
    n_groups: int,
    *,
    seed: int,
    split: str,
    seconds: float = 8.0,
    size: int = 4,
    soundfonts: Sequence[Path] = (),
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[LatticeGroup]:
    """Render groups of paired excerpts for training a transfer model.

    Each group has `size` scores of different home genres and `size` styles: ``size / 2`` genres'
    bands, each followed by the same band on other instruments. All combinations are rendered at
    22 050 Hz, so a group holds tier 1 and tier 2 pairs.

    Parameters
    ----------
    n_groups : int
    seed : int
        Group ``k`` depends on `seed`, `split` and ``k`` only.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    seconds : float
        Length of every excerpt.
    size : int
        Even, 2 to 20.
    soundfonts : sequence of Path
        Folders that `bands_soundfonts.prepare` returned. Every style is played with one of them or
        the default, drawn by `seed`, `split`, group and column.
    workers : int, optional
        Processes; by default the CPUs this process may use.
    progress : callable, optional
        Called as ``progress(done, n_groups)``.

    Yields
    ------
    LatticeGroup
        In order of their index.

    Raises
    ------
    ValueError
        For an odd size, an unknown split or a length that is not positive.
    RuntimeError
        If a render fails, is silent or hangs; names group, program and note range.
    """
    if size % 2 or not 2 <= size <= 20:
        raise ValueError(f"size must be even and from 2 to 20, not {size!r}")
    if split not in SPLITS or not seconds > 0:
        raise ValueError(f"unknown split or no length: {split!r}, {seconds!r}")
    settings = (seed, split, float(seconds), size, tuple(soundfonts))
    return _lattice(n_groups, settings, workers, progress)


def _lattice(n_groups, settings, workers, progress) -> Iterator[LatticeGroup]:
    jobs = [(f"lattice group {k}", (k, *settings)) for k in range(n_groups)]
    for group in run_jobs(_lattice_group, jobs, workers=workers):
        if progress:
            progress(group.index + 1, n_groups)
        yield group


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
    genres : torch.Tensor (n_groups, style), indices into `GENRES`
    """
    log_mels, genres = [], []
    for group in render_lattice(
        n_groups, seed=seed, split=split, seconds=SECONDS, soundfonts=soundfonts, progress=progress
    ):
        audio = np.stack([[to_level(clip) for clip in row] for row in as_float(group.audio)])
        waveforms = torch.from_numpy(audio.reshape(-1, audio.shape[-1])).to(device)
        log_mel = features.log_mel(waveforms, config).clamp_min(features.FLOOR_DB).half()
        log_mels.append(log_mel.reshape(*audio.shape[:2], *log_mel.shape[1:]))
        genres.append([GENRES.index(style.genre) for style in group.styles])
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
    for group in render_lattice(n_groups, seed=seed, split=split, seconds=SECONDS):
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


def _notes_and_onsets(group: LatticeGroup, score: int, style: int):
    """What `Triplet.notes` and `Triplet.onsets` say of one rendering."""
    beat_s = 60 / group.scores[score].tempo
    rows = np.array(
        [
            ((n.start - group.starts[score]) * beat_s, (n.end - group.starts[score]) * beat_s,
             n.pitch, part.is_drum)
            for part in arrange(group.scores[score], group.styles[style])
            for n in part.notes
        ]
    )  # fmt: skip
    rows = rows[(rows[:, 0] < SECONDS) & (rows[:, 1] > 0)]
    begun = np.sort(rows[rows[:, 0] >= 0, 0])
    return rows[rows[:, 3] == 0, :3], begun[np.diff(begun, prepend=-1.0) > ONSET_GAP_S]
