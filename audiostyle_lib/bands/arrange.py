"""Draw a style, a band of a genre, and let it play a score.

Shown in ``notebooks/01_data.ipynb``.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from .genres import DRUMS, FILLS, QUALITIES, ROLES, SCALES, SPLITS, TRAIN_PROGRAMS, Genre
from .score import (
    KEY_NAMES,
    Score,
    make_rng,
    nearest,
    parse_steps,
    pick,
    scale_over_chord,
    table_of,
)
from .synth import Mix, Note, Part

#: Level of each role in dB, before a genre's own and a style's own deviation.
_BASE_LEVELS = {
    "drums": 1.0,
    "bass": -0.5,
    "comp": -3.0,
    "color": -7.0,
    "pad": -8.0,
    "counter": -6.0,
    "lead": 0.0,
}


@dataclass(frozen=True)
class Style:
    """One band: how a genre plays whatever score it gets.

    Parameters
    ----------
    genre : str
        One of `GENRES`.
    seed : int
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    programs : dict of str to int
        General MIDI program by melodic role; a role that is missing does not play.
    kit : int or None
        General MIDI drum kit; None plays without drums.
    patterns : dict of str to int
        Which row of each of the genre's tables is played in the verse, by the table's name; the same
        with ``_b`` for the chorus.
    counter : str
        What the counter voice does: ``thirds``, ``guide``, ``stabs`` or ``fills``.
    harmony : str
        ``triad``, ``seventh``, ``jazz``, ``blues`` or ``power``.
    entry : dict of str to int
        Section energy (0 intro, 1 verse, 2 chorus) from which a role plays.
    swing : tuple of (float, float)
        Length in beats of the swung note value, and where in each pair the second one falls:
        0.5 is straight, 0.667 triplet swing.
    gate : float
        Sounding part of a chord's or melody note's length, 0 to 1.
    loose_ms : float
        Standard deviation of note times in milliseconds.
    lead_shift : int
        Semitones added to the melody, whole octaves.
    bass_low : int
        Lowest MIDI note for the bass's roots.
    levels, pans, drive : dict of str to float
        ``gain_db``, ``pan`` and ``drive`` of a `Part`, by role.
    mix : Mix
        Effects on the sum of all parts.
    """

    genre: str
    seed: int
    split: str
    programs: dict[str, int]
    kit: int | None
    patterns: dict[str, int]
    counter: str
    harmony: str
    entry: dict[str, int]
    swing: tuple[float, float]
    gate: float
    loose_ms: float
    lead_shift: int
    bass_low: int
    levels: dict[str, float]
    pans: dict[str, float]
    drive: dict[str, float]
    mix: Mix


def programs(genre: str, role: str, *, split: str = "train") -> tuple[int, ...]:
    """General MIDI programs that may play a role.

    Parameters
    ----------
    genre : str
    role : str
        ``"bass"``, ``"comp"``, ``"color"``, ``"pad"``, ``"counter"`` or ``"lead"``.
    split : str
        ``"train"`` and ``"valid"`` share their programs; ``"test"`` has its own.

    Returns
    -------
    tuple of int

    Raises
    ------
    ValueError
        For an unknown genre or split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    pool = table_of(genre).pools[role]
    return tuple(p for p in pool if (p in TRAIN_PROGRAMS) == (split != "test"))


def _draw_programs(table_genre: str, roles, split: str, rng, other: dict[str, int] | None = None):
    """A program for each role: never that of `other`, and none twice if the pool is large enough."""
    chosen: dict[str, int] = {}
    for role in roles:
        pool = programs(table_genre, role, split=split)
        if other:
            pool = tuple(p for p in pool if p != other.get(role))
        fresh = tuple(p for p in pool if p not in chosen.values())
        chosen[role] = int(pick(rng, fresh or pool))
    return chosen


def _draw_mix(table: Genre, rng) -> Mix:
    muffled = rng.random() < 0.12
    mid_hz = round(float(np.exp(rng.uniform(np.log(300), np.log(2500)))))
    return Mix(
        low_db=round(float(rng.uniform(*table.low_db)), 2),
        high_db=round(float(rng.uniform(*table.high_db)), 2),
        mid_db=round(float(rng.uniform(-4, 4)), 2),
        mid_hz=mid_hz,
        lowpass_hz=round(float(rng.uniform(3500, 7000))) if muffled else 0.0,
        reverb=round(float(rng.uniform(*table.reverb)), 3),
        reverb_s=round(float(rng.uniform(0.25, 1.2)), 2),
        echo=round(float(rng.uniform(0.15, 0.4)), 2) if rng.random() < table.echo else 0.0,
        echo_beats=float(pick(rng, (0.5, 0.75, 1.0))),
        level_db=round(float(rng.uniform(-21, -19)), 2),
    )


def draw_style(seed: int, *, genre: str, split: str = "train") -> Style:
    """Draw a band of a genre.

    Parameters
    ----------
    seed : int
        Non-negative. The same seed gives unrelated styles in different splits and genres.
    genre : str
        One of `GENRES`.
    split : str
        ``"train"`` and ``"valid"`` share instruments; ``"test"`` has others.

    Returns
    -------
    Style

    Raises
    ------
    ValueError
        For an unknown genre or split.
    """
    table = table_of(genre)
    rng = make_rng("style", split, seed, genre)
    roles = [r for r in ROLES if rng.random() < table.presence.get(r, 1.0)]
    if not {"comp", "pad"} & set(roles):
        roles.insert(1, "comp")  # something has to sound the chords
    has_drums = bool(table.grooves) and rng.random() < table.presence.get("drums", 1.0)
    patterns = {}
    for role in ("bass", "comp", "color", "pad"):
        n_rows = len(getattr(table, role))
        patterns[role], other = (int(k) for k in rng.integers(n_rows, size=2))
        patterns[role + "_b"] = other if rng.random() < 0.5 else patterns[role]
    if table.grooves:
        patterns["groove"], patterns["groove_b"] = (
            int(g) for g in rng.permutation(len(table.grooves))[:2]
        )
    patterns["fill"] = int(rng.integers(len(FILLS)))
    unit, low, high = pick(rng, table.swing)
    everyone = ["drums", *ROLES]
    entries = {"drums": (0, 0, 1), "bass": (0, 0, 1), "comp": (0,), "color": (0, 1, 2)}
    return Style(
        genre=genre,
        seed=int(seed),
        split=split,
        programs=_draw_programs(genre, roles, split, rng),
        kit=int(pick(rng, table.kits)) if has_drums else None,
        patterns=patterns,
        counter=pick(rng, table.counter),
        harmony=pick(rng, table.harmony),
        entry={r: int(pick(rng, entries.get(r, (0, 1, 1)))) for r in everyone},
        swing=(unit, round(float(rng.uniform(low, high)), 3)),
        gate=round(float(rng.uniform(*table.gate)), 3),
        loose_ms=round(float(rng.uniform(0, 9)), 1),
        lead_shift=int(pick(rng, table.lead_shift)),
        bass_low=int(pick(rng, (28, 31))),
        levels={
            r: round(_BASE_LEVELS[r] + table.levels.get(r, 0.0) + float(rng.uniform(-2.5, 2.5)), 2)
            for r in everyone
        },
        pans={r: round(float(rng.uniform(-0.8, 0.8)), 2) for r in everyone},
        drive={r: round(d * float(rng.uniform(0.5, 1.3)), 2) for r, d in table.drive.items()},
        mix=_draw_mix(table, rng),
    )


def reorchestrate(style: Style, seed: int, *, split: str = "train") -> Style:
    """Give the band other instruments (tier 1).

    Every melodic role gets a program other than its own from the split's pool. Notes, patterns,
    drums and effects stay: `arrange` gives the same notes for both.

    Parameters
    ----------
    style : Style
    seed : int
    split : str
        Whose instruments to use: ``"train"``, ``"valid"`` or ``"test"``.

    Returns
    -------
    Style
        `style` with other `programs`.
    """
    rng = make_rng("orchestra", split, seed, style.seed, style.genre)
    chosen = _draw_programs(style.genre, style.programs, split, rng, style.programs)
    return replace(style, programs=chosen)


def _feel(tempo: float, table: Genre) -> float:
    """Bars of pattern per bar of score: 0.5, 1 or 2, whichever comes nearest to the genre's tempo."""
    centre = np.sqrt(table.tempo[0] * table.tempo[1])
    if table.tempo[0] <= tempo <= table.tempo[1]:
        return 1.0
    return min((1.0, 0.5, 2.0), key=lambda f: abs(np.log(tempo * f / centre)))


class _Arranger:
    """Plays one score in one style, role by role, in straight time."""

    def __init__(self, score: Score, style: Style):
        self.score, self.style, self.table = score, style, table_of(style.genre)
        self.feel = _feel(score.tempo, self.table)
        self.bar = 4.0 / self.feel
        self.n_beats = 4.0 * score.n_bars
        self.starts = [c[0] for c in score.chords] + [self.n_beats]
        self.turns = [4.0 * first for _, first, _ in score.sections]
        self.energies = [{"intro": 0, "A": 1, "B": 2}[name] for name, _, _ in score.sections]
        tonic, mode = score.key.split()
        self.tonic = KEY_NAMES[mode].index(tonic)
        self.scale = {(self.tonic + s) % 12 for s in SCALES[mode]}

    def rng(self, role: str) -> np.random.Generator:
        score = self.score
        return make_rng(
            "arrange", self.style.split, self.style.seed, role, score.split, score.seed, score.genre
        )

    def energy(self, beat: float) -> int:
        """0 in the intro, 1 in a verse, 2 in a chorus."""
        return self.energies[max(0, bisect_right(self.turns, beat + 1e-6) - 1)]

    def chord_index(self, beat: float) -> int:
        return min(bisect_right(self.starts, beat + 1e-6) - 1, len(self.score.chords) - 1)

    def rows(self, role: str) -> tuple[str, str]:
        """The role's pattern in the verse and in the chorus."""
        table, chosen = getattr(self.table, role), self.style.patterns
        return table[chosen[role]], table[chosen[role + "_b"]]

    def slots(self, rows: tuple[str, str], role: str):
        """(start, end, token, chord index) of a verse and a chorus pattern over the whole score.

        A note held over a change of chord is struck anew on the new chord.
        """
        step = self.bar / 16
        verse, chorus = parse_steps(rows[0]), parse_steps(rows[1])
        for b in range(round(self.n_beats / self.bar)):
            for position, token, length in chorus if self.energy(b * self.bar) == 2 else verse:
                start = b * self.bar + position * step
                end = min(start + length * step, self.n_beats)
                if self.energy(start) < self.style.entry[role]:
                    continue
                while start < end - 1e-6:
                    k = self.chord_index(start)
                    stop = min(end, self.starts[k + 1])
                    yield start, stop, token, k
                    start = stop

    def accent(self, token: str, start: float) -> int:
        strong = start % 1 < 1e-6
        return {"X": 104}.get(token, 88 if strong else 80) + 4 * self.energy(start) - 4

    # Chords ----------------------------------------------------------------------------------

    def intervals(self, k: int) -> tuple[int, ...]:
        """Chord tones above the root as this style voices them."""
        _, root, quality = self.score.chords[k]
        tones = QUALITIES[quality]
        harmony = self.style.harmony
        if harmony == "power":
            return (0, 7, 12)
        if harmony == "triad":
            return tones if quality == "7" else tones[:3]
        if len(tones) == 3 and quality in ("maj", "min"):
            major_seventh = (root + 11) % 12 in self.scale and quality == "maj"
            tones = (*tones, 11 if major_seventh and harmony != "blues" else 10)
        if harmony == "jazz" and len(tones) == 4:
            ninth = 14 if (root + 2) % 12 in self.scale else 12
            return (*tones[1:], ninth)  # the bass has the root
        return tones

    def voicings(self, role: str) -> list[list[int]]:
        """Notes of every chord, close together and near the chord before."""
        low, high = self.table.window(role)
        near = low + 0.45 * (high - low)
        voiced = []
        for k, (_, root, _) in enumerate(self.score.chords):
            tones = self.intervals(k)
            if self.style.harmony == "power" and role != "pad":
                base = low + (root - low) % 12
                voiced.append([base, base + 7, base + 12])
                continue
            classes = sorted({(root + t) % 12 for t in tones})
            options = []
            for bottom in range(low, high - 11):
                if bottom % 12 in classes:
                    options.append(sorted(bottom + (c - bottom) % 12 for c in classes))
            best = min(options, key=lambda v: abs(sum(v) / len(v) - near))
            near = 0.7 * sum(best) / len(best) + 0.3 * (low + 0.45 * (high - low))
            voiced.append(best)
        return voiced

    def chordal(self, role: str) -> list[Note]:
        """Comping, colour and pad: chords and broken chords on a pattern."""
        voiced = self.voicings(role)
        high = self.table.window(role)[1]
        gate = 1.0 if role == "pad" else self.style.gate
        notes = []
        for start, end, token, k in self.slots(self.rows(role), role):
            chord = voiced[k]
            if token.isdigit():
                index = int(token)
                up = 12 * (index // len(chord))
                pitch = chord[index % len(chord)]
                picked = [pitch + up if pitch + up <= high else pitch]
            else:
                picked = chord
            stop = start + gate * (end - start)
            notes += [Note(start, stop, p, self.accent(token, start)) for p in picked]
        return notes

    # Single voices ---------------------------------------------------------------------------

    def bass(self) -> list[Note]:
        """Bass figure on the chords' roots, with approach notes and walking lines."""
        low, high = self.table.window("bass")
        rng = self.rng("bass")
        gate = 0.5 + 0.5 * self.style.gate
        notes: list[Note] = []
        for start, end, token, k in self.slots(self.rows("bass"), "bass"):
            root = self.style.bass_low + (self.score.chords[k][1] - self.style.bass_low) % 12
            fresh = start - self.starts[k] < 1e-6
            leaving = self.starts[k + 1] - end < 1e-6
            if token == "w":
                previous = notes[-1].pitch if notes else root
                pitch = self._walk(k, root, previous, fresh, leaving, rng)
            elif token == "a" and leaving:
                pitch = self._approach(k, root, rng)
            else:
                pitch = root + (0 if fresh and token != "8" else self._degree(token, k))
            while pitch > high:
                pitch -= 12
            while pitch < low:
                pitch += 12
            notes.append(
                Note(start, start + gate * (end - start), pitch, self.accent("x", start) + 6)
            )
        return notes

    def _degree(self, token: str, k: int) -> int:
        tones = QUALITIES[self.score.chords[k][2]]
        flat_seventh = tones[3] if len(tones) > 3 else 10
        by_token = {"3": tones[1], "5": tones[2], "6": 9, "7": flat_seventh, "8": 12, "a": tones[2]}
        return by_token.get(token, 0)

    def _approach(self, k: int, near: int, rng) -> int:
        following = self.score.chords[min(k + 1, len(self.score.chords) - 1)][1]
        target = nearest({following}, near, *self.table.window("bass"))
        return target + int(pick(rng, (-1, 1)))

    def _walk(self, k: int, root: int, previous: int, fresh: bool, leaving: bool, rng) -> int:
        if fresh:
            return root
        if leaving:
            return self._approach(k, previous, rng)
        _, chord_root, quality = self.score.chords[k]
        tones = {(chord_root + t) % 12 for t in QUALITIES[quality]} - {previous % 12}
        goal = previous + int(pick(rng, (-4, 3, 4)))
        return nearest(tones, goal, *self.table.window("bass"))

    def lead(self) -> list[Note]:
        low, high = self.table.window("lead")
        gate = 0.35 + 0.65 * self.style.gate
        notes = []
        for n in self.score.melody:
            pitch = n.pitch + self.style.lead_shift
            pitch += 12 * (pitch < low) - 12 * (pitch > high)
            notes.append(Note(n.start, n.start + gate * (n.end - n.start), pitch, n.velocity))
        return notes

    def counter(self) -> list[Note]:
        maker = {
            "thirds": self._thirds,
            "guide": self._guide,
            "stabs": self._stabs,
            "fills": self._fills,
        }[self.style.counter]
        entry = self.style.entry["counter"]
        return [n for n in maker() if self.energy(n.start) >= entry]

    def _thirds(self) -> list[Note]:
        """Second voice below the melody, on scale and chord tones."""
        low, high = self.table.window("counter")
        notes = []
        for n in self.lead():
            chord = self.score.chords[self.chord_index(n.start)]
            classes = scale_over_chord(self.scale, chord)
            below = [p for p in (n.pitch - 3, n.pitch - 4, n.pitch - 5) if p % 12 in classes]
            pitch = below[0] if below else n.pitch - 12
            pitch = nearest({pitch % 12}, min(max(pitch, low + 6), high - 6), low, high)
            notes.append(Note(n.start, n.end, pitch, max(1, n.velocity - 14)))
        return notes

    def _guide(self) -> list[Note]:
        """Long line of thirds and sevenths, moving as little as it can."""
        low, high = self.table.window("counter")
        pitch = (low + high) / 2
        notes = []
        for k, (start, root, quality) in enumerate(self.score.chords):
            tones = QUALITIES[quality]
            classes = {(root + tones[1]) % 12, (root + tones[-1]) % 12}
            pitch = nearest(classes, pitch, low, high)
            notes.append(Note(start, self.starts[k + 1] - 0.05, pitch, 76))
        return notes

    def _stabs(self) -> list[Note]:
        """Short two-note hits of a section, one rhythm for every two bars."""
        rng = self.rng("stabs")
        rhythm = pick(
            rng, ("--x-x-----------", "x-----x---------", "------------x-x-", "x---------x-x---")
        )
        low, high = self.table.window("counter")
        notes = []
        for start, _, _, k in self.slots((rhythm, rhythm), "counter"):
            if int(start // self.bar) % 2:
                continue
            _, root, quality = self.score.chords[k]
            tones = QUALITIES[quality]
            for tone in (tones[1], tones[2]):
                pitch = nearest({(root + tone) % 12}, low + 14, low, high)
                notes.append(Note(start, start + 0.3 / self.feel, pitch, 96))
        return notes

    def _fills(self) -> list[Note]:
        """Fill the melody's rests with short runs over the chord."""
        rng = self.rng("fills")
        low, high = self.table.window("counter")
        ends = [0.0, *(n.end for n in self.score.melody)]
        begins = [*(n.start for n in self.score.melody), self.n_beats]
        notes = []
        for gap, until in zip(ends, begins, strict=True):
            count = min(int((until - gap - 0.5) * 2), int(rng.integers(3, 6)))
            if count < 2:
                continue
            start = np.ceil(2 * gap) / 2 + 0.5 * int(rng.integers(0, 2))
            pitch = float(rng.uniform(low + 8, high - 6))
            direction = int(pick(rng, (-3, 3)))
            for k in range(count):
                at = start + 0.5 * k
                if at + 0.5 > until:
                    break
                _, root, quality = self.score.chords[self.chord_index(at)]
                classes = {(root + t) % 12 for t in QUALITIES[quality]}
                pitch = nearest(classes, pitch + direction, low, high)
                notes.append(Note(at, at + 0.5 * self.style.gate, int(pitch), 82))
        return notes

    # Drums -----------------------------------------------------------------------------------

    def drums(self) -> list[Note]:
        """Groove by section, a fill before every new section, a crash on its first beat."""
        rng = self.rng("drums")
        patterns = self.style.patterns
        step = self.bar / 16
        turns = {4.0 * (b + k) for _, b, k in self.score.sections}
        notes = []
        for b in range(round(self.n_beats / self.bar)):
            begin = b * self.bar
            energy = self.energy(begin)
            if energy < self.style.entry["drums"]:
                continue
            groove = self.table.grooves[patterns["groove_b" if energy == 2 else "groove"]]
            ends_section = begin + self.bar in turns
            small = b % 4 == 3 and rng.random() < 0.3
            fill = FILLS[patterns["fill"]] if ends_section else FILLS[2] if small else {}
            for position, name, token in _drum_hits(groove, fill):
                velocity = {"X": 112, "x": 90, "o": 48}[token] - 16 * (name in "hpobgqR")
                velocity += int(rng.integers(-6, 7)) + 3 * energy
                start = begin + position * step
                notes.append(Note(start, start + 0.25, DRUMS[name], min(max(velocity, 1), 127)))
            if self.table.crash and energy and begin + self.bar > self.bar and begin in turns:
                notes.append(Note(begin, begin + 1, DRUMS["C"], 100))
        return notes

    # All -------------------------------------------------------------------------------------

    def part(self, role: str) -> Part:
        maker = {"drums": self.drums, "bass": self.bass, "lead": self.lead, "counter": self.counter}
        notes = maker[role]() if role in maker else self.chordal(role)
        style = self.style
        drums = role == "drums"
        return Part(
            role=role,
            program=style.kit if drums else style.programs[role],
            is_drum=drums,
            notes=self.play(notes, role),
            gain_db=style.levels[role],
            pan=style.pans[role],
            drive=style.drive.get(role, 0.0),
        )

    def swung(self, beat: float) -> float:
        """Where a straight beat falls in this style's swing."""
        unit, second = self.style.swing
        pair = 2 * unit / self.feel
        whole, phase = divmod(beat, pair)
        phase /= pair
        bent = 2 * second * phase if phase < 0.5 else second + 2 * (1 - second) * (phase - 0.5)
        return (whole + bent) * pair

    def play(self, notes: list[Note], role: str) -> tuple[Note, ...]:
        """Swing, loosen and clean up: no note overlaps the next of its own pitch."""
        loose = self.style.loose_ms / 1000 * self.score.tempo / 60 * (0.5 if role == "drums" else 1)
        onsets = sorted({n.start for n in notes})
        rng = self.rng("play " + role)
        jitter = rng.normal(0, 1, len(onsets)).clip(-2, 2) * loose
        touch = dict(zip(onsets, rng.integers(-5, 6, len(onsets)).tolist(), strict=True))
        # Notes struck together stay together.
        moved = {
            t: max(0.0, self.swung(t) + j) for t, j in zip(onsets, jitter.tolist(), strict=True)
        }
        played = sorted(
            (moved[n.start], n.pitch, self.swung(n.end), n.velocity + touch[n.start]) for n in notes
        )
        following: dict[int, float] = {}
        clean = []
        for start, pitch, end, velocity in reversed(played):
            end = min(max(end, start + 0.08), following.get(pitch, np.inf) - 0.01)
            following[pitch] = start
            if end > start + 0.02:
                clean.append(
                    Note(round(start, 4), round(end, 4), pitch, min(max(velocity, 1), 127))
                )
        return tuple(reversed(clean))


def _drum_hits(groove: dict[str, str], fill: dict[str, str]):
    """(step, drum, token); a fill silences all but the kick from its first hit on."""
    from_step = min((row.index(h) for row in fill.values() for h in "Xxo" if h in row), default=16)
    for name, row in groove.items():
        for position, token in enumerate(row):
            if token != "." and (position < from_step or name == "k"):
                yield position, name, token
    for name, row in fill.items():
        for position, token in enumerate(row):
            if token != ".":
                yield position, name, token


def arrange(score: Score, style: Style) -> tuple[Part, ...]:
    """Play a score in a style; a style of another genre than the score's gives a pair of tier 2.

    Tempo, key, chords, melody and form are the score's; everything else is the style's. Where the
    tempo is far from the genre's own, the patterns run in half or double time. Programs have no
    influence on the notes.

    Parameters
    ----------
    score : Score
    style : Style

    Returns
    -------
    tuple of Part
        Drums first where there are any; parts without notes are left out.
    """
    arranger = _Arranger(score, style)
    roles = (["drums"] if style.kit is not None else []) + list(style.programs)
    parts = (arranger.part(role) for role in roles)
    return tuple(part for part in parts if part.notes)
