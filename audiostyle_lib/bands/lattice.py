"""Paired renderings of the embedded corpus: a few scores, each in every one of a few styles.

A group is a lattice of four scores and four styles, 16 renderings. A triplet takes two scores A, B and
two styles 1, 2 of one group: content = A in 1, style = B in 2, truth = A in 2. Of tier 1 are triplets
whose styles are one band on two sets of instruments, so that content and truth have the same notes; of
tier 2 are those whose styles are bands of two genres. A group gives 144 triplets. Used by notebooks
``07_recombination.ipynb`` to ``10_future_work.ipynb``.
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
from .genres import GENRES
from .score import Score, compose, make_rng, split_seed
from .synth import Part, render_parts
from .workers import run_jobs

SECONDS = 8.0
SIZE = 4  # scores and styles of a group; even
ONSET_GAP_S = 0.03  # notes that begin closer together are one onset


@dataclass(frozen=True, eq=False)
class LatticeGroup:
    """Every one of a few scores in every one of a few styles.

    Parameters
    ----------
    index : int
    audio : np.ndarray [shape=(SIZE, SIZE, n_samples)]
        int16, full scale 32 768; axes score, style, sample. ``audio[i, j]`` and ``audio[i, k]`` are
        the same music in two styles.
    scores : tuple of Score
        Rows of `audio`.
    styles : tuple of Style
        Columns of `audio`. Columns 2 k and 2 k + 1 differ in instruments only.
    starts : tuple of float
        Beat of each score at which its excerpts begin.
    """

    index: int
    audio: np.ndarray
    scores: tuple[Score, ...]
    styles: tuple[Style, ...]
    starts: tuple[float, ...]


def _column_soundfont(
    folders: tuple[Path, ...], seed: int, split: str, index: int, column: int
) -> Path | None:
    """The folder of instruments that play a style of a group; None, the default, as often as each."""
    rng = make_rng("soundfont", split, seed, index, column)
    return (None, *folders)[int(rng.integers(len(folders) + 1))]


def _lattice_group(
    index: int, seed: int, split: str, seconds: float, sample_rate: int, folders: tuple[Path, ...]
) -> LatticeGroup:
    rng = make_rng("lattice", split, seed, index)
    score_genres = [GENRES[k] for k in rng.permutation(10)[:SIZE]]
    style_genres = [GENRES[k] for k in rng.permutation(10)[: SIZE // 2]]
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
    audio = np.empty((SIZE, SIZE, round(seconds * sample_rate)), np.int16)
    for j, style in enumerate(styles):
        soundfont = _column_soundfont(folders, seed, split, index, j)
        for i, score in enumerate(scores):
            x = render_parts(
                arrangements[i][j], style.mix, tempo=score.tempo, seconds=seconds,
                sample_rate=sample_rate, start_beat=starts[i], soundfont=soundfont,
            )  # fmt: skip
            audio[i, j] = np.rint(x * 32767)
    return LatticeGroup(index, audio, tuple(scores), tuple(styles), tuple(starts))


def _rests(parts: Sequence[Part], start: float, end: float) -> bool:
    """Whether no note begins between two beats."""
    return not any(start <= note.start < end for part in parts for note in part.notes)


def render_lattice(
    n_groups: int | range,
    *,
    seed: int,
    split: str,
    seconds: float = SECONDS,
    sample_rate: int = AudioConfig.sample_rate,
    soundfonts: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[LatticeGroup]:
    """Render groups of paired excerpts.

    Each group has four scores of different home genres and four styles: the bands of two genres, each
    followed by the same band on other instruments.

    Parameters
    ----------
    n_groups : int or range
        How many, from group 0 on, or which.
    seed : int
        Group ``k`` depends on `seed`, `split` and ``k`` only.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    seconds : float
        Length of every excerpt.
    sample_rate : int
        In Hz.
    soundfonts : sequence of Path
        Folders that `instruments.prepare` returned. Every style is played with one of them or the
        default, drawn by `seed`, `split`, group and column.
    progress : callable, optional
        Called as ``progress(done, n_groups)``.

    Yields
    ------
    LatticeGroup

    Raises
    ------
    RuntimeError
        If a render fails, is silent or hangs; names group, program and note range.
    """
    settings = (seed, split, float(seconds), sample_rate, tuple(soundfonts))
    which = range(n_groups) if isinstance(n_groups, int) else n_groups
    jobs = [(f"lattice group {k}", (k, *settings)) for k in which]
    for done, group in enumerate(run_jobs(_lattice_group, jobs), start=1):
        if progress:
            progress(done, len(which))
        yield group


@dataclass(frozen=True)
class Triplet:
    """One item of a test: a content, a style clip, and where it is known what should come out.

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,)]
        float32, mono; the two need not be equally long.
    truth : np.ndarray [shape=(n_samples,)] or None
        The content's score in the style clip's style; None where nobody has recorded that.
    content_genre, style_genre : str
        Of `GENRES`; empty where they are not known.
    tier : int
        1: the same notes on other instruments; 2: the song re-arranged in another genre; 0: without a
        truth.
    notes : np.ndarray [shape=(n_notes, 3)] or None
        Of the truth, without drums: start and end in s, MIDI pitch. None where they are not known.
    onsets : np.ndarray [shape=(n_onsets,)]
        In s, ascending, of the truth's notes and drums, or as detected in the audio.
    """

    content: np.ndarray
    style: np.ndarray
    truth: np.ndarray | None
    content_genre: str
    style_genre: str
    tier: int
    notes: np.ndarray | None
    onsets: np.ndarray


def tier_of(style_a: int, style_b: int) -> int:
    """Tier of two style columns: 2 k and 2 k + 1 are one arrangement on two sets of instruments."""
    return 1 if style_a // 2 == style_b // 2 else 2


def render_log_mels(
    n_groups: int | range,
    *,
    split: str,
    seed: int,
    config: AudioConfig,
    soundfonts: Sequence[Path] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-mels of paired renderings for training, each of `SECONDS` and at -20 dBFS.

    Parameters
    ----------
    n_groups, split, seed, soundfonts, progress
        See `render_lattice`.
    config : AudioConfig
        The front end; the excerpts are rendered at its sample rate.
    device : str
        Where the log-mels are computed and stay.

    Returns
    -------
    log_mels : torch.Tensor [shape=(n_groups, SIZE, SIZE, n_mels, T)]
        In dB, half precision, not below `features.FLOOR_DB`; axes group, score, style, band, frame.
    genres : torch.Tensor [shape=(n_groups, SIZE)]
        Of the styles, as indices into `GENRES`.
    """
    log_mels, genres = [], []
    for group in render_lattice(
        n_groups, seed=seed, split=split, sample_rate=config.sample_rate, soundfonts=soundfonts,
        progress=progress,
    ):  # fmt: skip
        audio = np.stack([[to_level(clip) for clip in row] for row in as_float(group.audio)])
        waveforms = torch.from_numpy(audio.reshape(-1, audio.shape[-1])).to(device)
        log_mel = features.log_mel(waveforms, config).clamp_min(features.FLOOR_DB).half()
        log_mels.append(log_mel.reshape(*audio.shape[:2], *log_mel.shape[1:]))
        genres.append([GENRES.index(style.genre) for style in group.styles])
    return torch.stack(log_mels), torch.tensor(genres)


def as_float(samples: np.ndarray) -> np.ndarray:
    """Convert 16-bit samples to float32 in [-1, 1); other samples are returned as they are."""
    return samples.astype(np.float32) / 32768.0 if samples.dtype == np.int16 else samples


def triplets(
    n_groups: int,
    *,
    split: str,
    seed: int,
    per_group: int,
    tier: int | None = None,
    sample_rate: int = AudioConfig.sample_rate,
) -> list[Triplet]:
    """Draw triplets of `SECONDS` from rendered groups.

    Parameters
    ----------
    n_groups, split, seed, sample_rate
        See `render_lattice`.
    per_group : int
        Triplets of every group, drawn with replacement.
    tier : int, optional
        1 or 2 for only that tier; without it both take turns.

    Returns
    -------
    list of Triplet
        ``n_groups * per_group``, in the order of the groups.
    """
    rng = np.random.default_rng([seed, 7])
    result = []
    for group in render_lattice(n_groups, seed=seed, split=split, sample_rate=sample_rate):
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


def _notes_and_onsets(group: LatticeGroup, score: int, style: int) -> tuple[np.ndarray, np.ndarray]:
    """`Triplet.notes` and `Triplet.onsets` of one rendering."""
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
