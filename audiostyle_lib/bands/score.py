"""Compose a score: chords, melody and form of a piece, before a band plays it.

Shown in ``notebooks/01_data.ipynb``.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from .genres import GENRE_TABLE, GENRES, QUALITIES, SCALES, SPLITS, Genre
from .synth import Note

KEY_NAMES = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
_MELODY_RANGE = (60, 81)


@dataclass(frozen=True)
class Score:
    """The content of a piece, independent of how it is played.

    Parameters
    ----------
    seed : int
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    genre : str
        One of `GENRES`, whose harmony, melody and tempo the piece was composed with.
    key : str
        For example ``"A minor"``.
    tempo : float
        Beats (quarter notes) per minute.
    n_bars : int
        Bars of four beats.
    chords : tuple of (float, int, str)
        Start in beats, root pitch class (C = 0), quality (a key of `genres.QUALITIES`).
    melody : tuple of Note
        With straight times, without swing.
    sections : tuple of (str, int, int)
        Name (``"intro"``, ``"A"``, ``"B"``), first bar, number of bars.
    """

    seed: int
    split: str
    genre: str
    key: str
    tempo: float
    n_bars: int
    chords: tuple[tuple[float, int, str], ...]
    melody: tuple[Note, ...]
    sections: tuple[tuple[str, int, int], ...]


def make_rng(purpose: str, split: str, *seeds: int | str) -> np.random.Generator:
    """Generator for one purpose in one split; another purpose or split gives unrelated numbers."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    words = [zlib.crc32(s.encode()) if isinstance(s, str) else int(s) for s in (purpose, split)]
    for seed in seeds:
        words.append(zlib.crc32(seed.encode()) if isinstance(seed, str) else int(seed))
    return np.random.default_rng(np.random.SeedSequence(words))


def table_of(genre: str) -> Genre:
    if genre not in GENRE_TABLE:
        raise ValueError(f"genre must be one of {GENRES}, not {genre!r}")
    return GENRE_TABLE[genre]


def pick(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


_NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
_CHORD = re.compile(r"(b?)([iv]+|[IV]+)(maj7|h7|7|o|sus)?$")


def _parse_chord(symbol: str, tonic: int) -> tuple[int, str]:
    """Root pitch class and quality of a Roman numeral such as ``bVII`` or ``ii7``."""
    flat, numeral, suffix = _CHORD.match(symbol).groups()
    root = (tonic + _NUMERALS[numeral.lower()] - len(flat)) % 12
    minor = numeral.islower()
    quality = {
        None: "min" if minor else "maj",
        "7": "min7" if minor else "7",
        "maj7": "maj7",
        "o": "dim",
        "h7": "min7b5",
        "sus": "sus4",
    }[suffix]
    return root, quality


def _section_chords(progression: str, n_bars: int, tonic: int) -> list[tuple[float, int, str]]:
    bars = progression.split()
    chords = []
    for bar in range(n_bars):
        symbols = bars[bar % len(bars)].split(",")
        for k, symbol in enumerate(symbols):
            chords.append((4.0 * (bar + k / len(symbols)), *_parse_chord(symbol, tonic)))
    return chords


def chord_at(chords, beat: float):
    return chords[max(0, bisect_right(chords, beat + 1e-6, key=lambda c: c[0]) - 1)]


def parse_steps(pattern: str) -> list[tuple[int, str, int]]:
    """(step, token, length in steps) of every note in a pattern string."""
    found = []
    for match in re.finditer(r"([^.\-])(\.*)", pattern):
        found.append((match.start(), match.group(1), len(match.group(0))))
    return found


def scale_over_chord(scale: set[int], chord) -> set[int]:
    """The scale with the chord's tones in place of those a semitone beside them."""
    tones = {(chord[1] + i) % 12 for i in QUALITIES[chord[2]]}
    foreign = tones - scale
    return {p for p in scale if not {(p + 1) % 12, (p - 1) % 12} & foreign} | tones


def nearest(pitch_classes, target: float, low: int, high: int) -> int:
    """The pitch of given classes nearest to a target inside a range of at least an octave."""
    candidates = [p for p in range(low, high + 1) if p % 12 in pitch_classes]
    return min(candidates, key=lambda p: (abs(p - target), p))


def _move(pitch: int, steps: int, classes: set[int]) -> int:
    """A number of scale steps from a pitch, turning round at the ends of the melody's range."""
    low, high = _MELODY_RANGE
    ladder = [p for p in range(low, high + 1) if p % 12 in classes]
    here = min(range(len(ladder)), key=lambda k: abs(ladder[k] - pitch))
    there = here + steps
    if not 0 <= there < len(ladder):
        there = here - steps
    return ladder[min(max(there, 0), len(ladder) - 1)]


@dataclass(frozen=True)
class _Motif:
    rhythm: tuple[tuple[int, str, int], ...]
    contour: tuple[int, ...]


def _draw_motifs(table: Genre, rng: np.random.Generator) -> list[_Motif]:
    """Two motifs and a cadence; a phrase is built from their repeats."""
    order = rng.permutation(len(table.rhythms))[:2]
    rhythms = [table.rhythms[k] for k in order]
    rhythms.append(pick(rng, ("x.......--------", "x...x.......----", "x.x.x.......----")))
    motifs = []
    for rhythm in rhythms:
        notes = tuple(parse_steps(rhythm))
        contour = rng.choice([-2, -1, -1, 0, 1, 1, 2], size=len(notes))
        motifs.append(_Motif(notes, tuple(int(c) for c in contour)))
    return motifs


def _section_melody(chords, n_bars: int, scale: set[int], table: Genre, rng) -> list[Note]:
    """Melody of one section in beats from its start, phrased in fours of bars."""
    motifs = _draw_motifs(table, rng)
    plan = pick(rng, ((0, 1, 0, 2), (0, 0, 1, 2), (0, 1, 1, 2), (0, 2, 0, 2)))
    centre, arc = rng.uniform(66, 73), rng.uniform(2, 6)
    pitch = round(centre)
    notes = []
    for bar in range(n_bars):
        motif = motifs[plan[bar % 4]]
        line = centre + arc * np.sin(np.pi * (bar % 4 + 0.5) / 4)
        pitch = round(0.5 * pitch + 0.5 * line)
        for k, (step, _, length) in enumerate(motif.rhythm):
            start = 4.0 * bar + step / 4
            chord = chord_at(chords, start)
            tones = {(chord[1] + i) % 12 for i in QUALITIES[chord[2]]}
            last = bar % 4 == 3 and k == len(motif.rhythm) - 1
            if k:
                pitch = _move(pitch, motif.contour[k], scale_over_chord(scale, chord))
            if k == 0 or step % 8 == 0 or last:
                pitch = nearest(tones, pitch, *_MELODY_RANGE)
            velocity = 84 + 14 * (step % 8 == 0) + 6 * (step % 4 == 0) + int(rng.integers(-5, 6))
            notes.append(Note(start, start + length / 4, int(pitch), velocity))
    return notes


def _vary(notes: list[Note], chords, scale: set[int], rng) -> list[Note]:
    """Vary a repeated section: some unaccented notes move by one step of the scale."""
    varied = []
    for note in notes:
        if note.start % 2 and rng.random() < 0.15:
            classes = scale_over_chord(scale, chord_at(chords, note.start))
            note = replace(note, pitch=_move(note.pitch, int(pick(rng, (-1, 1))), classes))
        varied.append(note)
    return varied


def compose(seed: int, *, genre: str, split: str = "train", seconds: float = 30.0) -> Score:
    """Compose a piece.

    Parameters
    ----------
    seed : int
        Non-negative. The same seed gives unrelated pieces in different splits and genres.
    genre : str
        One of `GENRES`.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    seconds : float
        The score is at least this long, in whole sections. A longer score of the same seed
        starts with the shorter one.

    Returns
    -------
    Score

    Raises
    ------
    ValueError
        For an unknown genre or split, or a length that is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, not {seconds!r}")
    table = table_of(genre)
    rng = make_rng("score", split, seed, genre)
    tempo = round(float(rng.uniform(*table.tempo)), 1)
    mode = pick(rng, table.modes)
    tonic = int(rng.integers(12))
    scale = {(tonic + s) % 12 for s in SCALES[table.scales[mode]]}
    pool = table.progressions[mode]
    first, second = rng.permutation(len(pool))[:2]
    progressions = {"intro": pool[first], "A": pool[first], "B": pool[second]}
    form = pick(rng, ("AB", "AAB", "ABB"))
    material: dict[str, list[Note]] = {}

    chords: list[tuple[float, int, str]] = []
    melody: list[Note] = []
    sections: list[tuple[str, int, int]] = []
    n_bars, turn = 0, 0
    while n_bars * 4 * 60 / tempo < seconds or turn == 0:
        name = "intro" if not sections else form[turn % len(form)]
        length = (2 if tempo < 108 else 4) if name == "intro" else table.section_bars
        own = _section_chords(progressions[name], length, tonic)
        sections.append((name, n_bars, length))
        chords += [(4.0 * n_bars + start, root, quality) for start, root, quality in own]
        if name != "intro":
            if name not in material:
                material[name] = _section_melody(
                    own, length, scale, table, make_rng("melody", split, seed, genre, name)
                )
                notes = material[name]
            else:
                notes = _vary(
                    material[name], own, scale, make_rng("vary", split, seed, genre, turn)
                )
            shift = 4.0 * n_bars
            melody += [replace(n, start=n.start + shift, end=n.end + shift) for n in notes]
            turn += 1
        n_bars += length
    return Score(
        seed=int(seed),
        split=split,
        genre=genre,
        key=f"{KEY_NAMES[mode][tonic]} {mode}",
        tempo=tempo,
        n_bars=n_bars,
        chords=tuple(chords),
        melody=tuple(melody),
        sections=tuple(sections),
    )


def split_seed(rng: np.random.Generator, split: str) -> int:
    """Draw a seed whose remainder modulo 3 is the split's index, so that no two splits share a seed."""
    return 3 * int(rng.integers(2**40)) + SPLITS.index(split)
