"""The ten genres as tables: instruments, grooves, bass and chord figures, harmony, tempo, mix.

One `Genre` each in `GENRE_TABLE`; code that reads them is in `score` and `arrange`. Every rhythm is a
string of 16 steps, one bar of sixteenth notes. In all but the drums ``.`` holds a note and ``-`` is a
rest. The other characters are:

- drums: ``X`` accent, ``x`` hit, ``o`` ghost note, ``.`` nothing
- bass: ``r`` root, ``3 5 6 7`` degrees of the chord, ``8`` octave, ``a`` chromatic approach to the next
  chord, ``w`` a step of a walking line
- chords: ``X`` accented chord, ``x`` chord, a digit for that one note of the chord
- melody: ``x`` starts a note
"""

from __future__ import annotations

from dataclasses import dataclass, field

SPLITS = ("train", "valid", "test")
ROLES = ("bass", "comp", "color", "pad", "counter", "lead")

#: General MIDI programs heard in training (and validation); every other program in a pool is
#: heard in the test split only. The two sides never share an instrument.
TRAIN_PROGRAMS = frozenset({
    0, 3, 4, 6, 7, 9, 11, 16, 18, 19, 22, 25, 26, 28, 30, 32, 33, 36, 38, 40, 42, 44, 46, 48, 50,
    52, 54, 56, 60, 61, 63, 64, 69, 71, 73, 75, 80, 84, 88, 91, 95, 105, 110,
})  # fmt: skip

#: Sounding range of each role as (lowest, highest) MIDI note. Every program in a role's pool is
#: natural over the whole window, so instruments can be swapped without changing one note.
WINDOWS = {
    "bass": (28, 52),
    "comp": (48, 74),
    "color": (55, 79),
    "pad": (50, 76),
    "counter": (52, 76),
    "lead": (60, 81),
}

#: Semitones above the root.
QUALITIES = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "dim": (0, 3, 6),
    "min7b5": (0, 3, 6, 10),
    "sus4": (0, 5, 7),
}

SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "major pentatonic": (0, 2, 4, 7, 9),
    "minor pentatonic": (0, 3, 5, 7, 10),
    "blues": (0, 3, 5, 6, 7, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}

#: General MIDI drum notes by the one-letter name used in the grooves.
DRUMS = {
    "k": 36, "s": 38, "r": 37, "c": 39, "h": 42, "p": 44, "o": 46, "R": 51, "B": 53, "C": 49,
    "t": 45, "m": 47, "T": 50, "f": 41, "b": 54, "w": 56, "g": 63, "l": 64, "q": 70, "S": 40,
}  # fmt: skip

#: One-bar fills; only the part from the step where they start to sound replaces the groove.
FILLS = (
    {"s": "........x.xxX.xx"},
    {
        "s": "........xx......",
        "T": "..........xx....",
        "m": "............xx..",
        "f": "..............xX",
    },
    {"s": "............xxXX"},
    {"T": "........X.x.....", "m": "..........x.x...", "f": "............x.XX"},
    {"s": "........x..x..x."},
    {"s": "x.x.x.xxx.xxXxXx"},
    {"s": "....X...x.x.X...", "T": "......xx........", "m": "..............xx"},
)


@dataclass(frozen=True)
class Genre:
    """What composing and arranging in one genre draws from.

    Tuples of strings list alternatives, of which a score or style picks one (of ``grooves``, two).
    Pairs of numbers are the ends of a range: ``tempo`` in beats per minute, ``gate`` the sounding share
    of a note's length, ``low_db`` and ``high_db`` in dB, ``reverb`` as in `Mix`. A row of ``swing`` is
    the swung note value in beats and the range of the second number in `Style.swing`. ``presence`` is
    the chance that a role plays, ``pools`` its General MIDI programs, ``windows`` its lowest and highest
    MIDI note where they differ from `WINDOWS`, ``levels`` its level in dB and ``drive`` its saturation;
    ``echo`` is the chance of an echo.
    """

    tempo: tuple[int, int]
    modes: tuple[str, ...]
    scales: dict[str, str]
    progressions: dict[str, tuple[str, ...]]
    rhythms: tuple[str, ...]
    section_bars: int
    grooves: tuple[dict[str, str], ...]
    kits: tuple[int, ...]
    bass: tuple[str, ...]
    comp: tuple[str, ...]
    color: tuple[str, ...]
    pad: tuple[str, ...]
    counter: tuple[str, ...]
    pools: dict[str, tuple[int, ...]]
    presence: dict[str, float]
    harmony: tuple[str, ...] = ("triad",)
    swing: tuple[tuple[float, float, float], ...] = ((0.5, 0.5, 0.5),)
    gate: tuple[float, float] = (0.8, 1.0)
    windows: dict[str, tuple[int, int]] = field(default_factory=dict)
    lead_shift: tuple[int, ...] = (0,)
    levels: dict[str, float] = field(default_factory=dict)
    drive: dict[str, float] = field(default_factory=dict)
    low_db: tuple[float, float] = (-2.0, 3.0)
    high_db: tuple[float, float] = (-5.0, 4.0)
    reverb: tuple[float, float] = (0.04, 0.25)
    echo: float = 0.0
    crash: bool = True

    def window(self, role: str) -> tuple[int, int]:
        """Lowest and highest MIDI note of a role in this genre."""
        return self.windows.get(role, WINDOWS[role])


_BLUES_12 = "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7"

GENRE_TABLE: dict[str, Genre] = {
    "blues": Genre(
        tempo=(72, 122),
        modes=("major",),
        scales={"major": "blues"},
        progressions={
            "major": (
                _BLUES_12,
                "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 I7",
                "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7",
            )
        },
        rhythms=(
            "--x.x.x.x...----",
            "x.x.x...--x.x...",
            "--x.x.x.x.x.x...",
            "x...x.x.x.......",
            "----x.x.x.x.x...",
        ),
        section_bars=12,
        grooves=(
            {"k": "X.......x.......", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X.....x.x.......", "s": "....X.....o.X...", "R": "X.x.X.x.X.x.X.x."},
            {"k": "X...x...X...x...", "s": "o.o.X.o.o.o.X.o.", "h": "x.x.x.x.x.x.x.x."},
            {
                "k": "X.........x.....",
                "s": "....X.......X..o",
                "p": "....x.......x...",
                "R": "X...x.x.x...x.x.",
            },
        ),
        kits=(0, 8, 32, 40),
        bass=(
            "r...3...5...6...",
            "r.r.5.5.6.6.5.5.",
            "r.....r.5.....a.",
            "r...8...7...5...",
            "r.r.3.3.5.5.6.6.",
        ),
        comp=(
            "x-x-x-x-x-x-x-x-",
            "----x-------x---",
            "--x-----x-x-----",
            "x...--x.....----",
            "----x-x-----x-x-",
        ),
        color=("x...............", "------x-------x-", "x.......--x.x---"),
        pad=("x...............", "x.......x......."),
        counter=("fills", "stabs"),
        pools={
            "bass": (32, 33, 34, 35),
            "comp": (0, 26, 3, 25, 1, 27, 2, 5),
            "color": (16, 18, 4, 17, 20, 5),
            "pad": (16, 18, 17, 20),
            "counter": (61, 22, 16, 66, 57, 27),
            "lead": (22, 26, 64, 30, 27, 66, 29, 21),
        },
        presence={"drums": 1, "comp": 1, "color": 0.5, "pad": 0.25, "counter": 0.5},
        harmony=("blues",),
        swing=((0.5, 0.6, 0.68),),
        gate=(0.7, 0.95),
        drive={"lead": 1.5},
        high_db=(-7.0, 1.0),
    ),
    "classical": Genre(
        tempo=(66, 132),
        modes=("major", "minor"),
        scales={"major": "major", "minor": "minor"},
        progressions={
            "major": (
                "I V7 I IV I ii,V7 I,IV I",
                "I vi IV V7 I ii V7 I",
                "I IV V7 I vi ii V7 I",
                "I V vi iii IV I ii,V7 I",
                "V7 I V7 vi IV,ii I V7 I",
            ),
            "minor": (
                "i V7 i iv i iio,V7 i i",
                "i iv bVII bIII bVI iio V7 i",
                "i bVI iv V7 i iv,V7 i i",
                "i V i iv V7 bVI iio,V7 i",
            ),
        },
        rhythms=(
            "x...x...x...x...",
            "x.......x...x...",
            "x.....x.x...x...",
            "x...x.x.x...x...",
            "x.x.x.x.x...x...",
            "x...x.x.x.x.x.x.",
        ),
        section_bars=8,
        grooves=(),
        kits=(),
        bass=(
            "r...............",
            "r.......5.......",
            "r-------r-------",
            "r...5...8...5...",
            "r...3...5...8...",
        ),
        comp=(
            "0.2.1.2.0.2.1.2.",
            "0-xx--xx0-xx--xx",
            "0.1.2.3.2.1.2.1.",
            "----x---x---x---",
            "0123210101232101",
            "x-x-x-x-x-x-x-x-",
        ),
        color=("3...2...1...2...", "x---x---x---x---", "0.1.2.3.0.1.2.3.", "x.......x......."),
        pad=("x...............", "x.......x.......", "x...x...x...x..."),
        counter=("guide", "thirds", "fills"),
        pools={
            "bass": (42, 32, 43, 70, 35),
            "comp": (0, 6, 46, 48, 1, 24, 12, 49),
            "color": (46, 71, 73, 8, 45, 68),
            "pad": (48, 44, 52, 60, 49, 53, 51),
            "counter": (71, 60, 42, 69, 70, 41, 68),
            "lead": (40, 73, 71, 0, 46, 68, 41, 74, 1),
        },
        presence={"drums": 0, "comp": 0.85, "color": 0.4, "pad": 0.7, "counter": 0.55},
        gate=(0.75, 1.0),
        reverb=(0.15, 0.45),
        high_db=(-6.0, 2.0),
    ),
    "country": Genre(
        tempo=(92, 138),
        modes=("major",),
        scales={"major": "major pentatonic"},
        progressions={
            "major": (
                "I I IV I I V7 I I",
                "I IV I V7 I IV V7 I",
                "I I7 IV IV I V7 I V7",
                "I V vi IV I V7 I I",
                "IV I V7 I IV I V7 I",
            )
        },
        rhythms=(
            "x...x.x.x...x...",
            "x.x.x...x.x.x...",
            "--x.x.x.x.......",
            "x.x.x.x.x...----",
            "x.....x.x...x.x.",
        ),
        section_bars=8,
        grooves=(
            {"k": "X.......x.......", "s": "o.o.X.ooo.o.X.oo"},
            {"k": "X.......X.......", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X.......X.....x.", "r": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X.......X.......", "s": "..x.X.x...x.X.x.", "b": "....x.......x..."},
        ),
        kits=(0, 8, 40),
        bass=(
            "r...----5...----",
            "r.......5.......",
            "r...----5...--a.",
            "r...3...5...6...",
            "r.......5...3.a.",
        ),
        comp=(
            "----x-------x---",
            "----x-x-----x-x-",
            "x.x-x.xxx.x-x.xx",
            "0-2-1-2-0-2-1-2-",
            "0.x-2.x-0.x-2.x-",
        ),
        color=("0.2.3.2.1.2.3.2.", "----x-------x---", "x...............", "0123123201231232"),
        pad=("x...............",),
        counter=("fills", "thirds", "guide"),
        pools={
            "bass": (32, 33, 34, 35),
            "comp": (25, 0, 105, 24, 1, 27),
            "color": (105, 3, 26, 27, 2, 24),
            "pad": (48, 16, 49, 17, 20),
            "counter": (110, 22, 25, 40, 21, 27, 41),
            "lead": (110, 25, 22, 0, 27, 21, 24, 41),
        },
        presence={"drums": 0.95, "comp": 1, "color": 0.6, "pad": 0.25, "counter": 0.55},
        swing=((0.5, 0.5, 0.5), (0.5, 0.5, 0.58)),
        gate=(0.7, 1.0),
        high_db=(-2.0, 5.0),
    ),
    "disco": Genre(
        tempo=(110, 128),
        modes=("minor", "major"),
        scales={"major": "major pentatonic", "minor": "dorian"},
        progressions={
            "minor": (
                "i7 i7 iv7 iv7 i7 i7 bVII bVII",
                "i bVII bVI bVII i bVII bVI V7",
                "i7 iv7 bVII bIII bVI iv7 V7 V7",
                "i7 iv7 i7 iv7 bVI bVII i7 V7",
            ),
            "major": (
                "Imaj7 vi7 ii7 V7 Imaj7 vi7 ii7 V7",
                "I IV I IV ii V7 I V7",
                "IVmaj7 iii7 ii7 I IVmaj7 iii7 ii7 V7",
            ),
        },
        rhythms=(
            "x..x..x.x...----",
            "--x.x.x.x..x..x.",
            "x.x.--x.x.x.x...",
            "x...x..xx.......",
            "x.xx.xx.x...x...",
        ),
        section_bars=8,
        grooves=(
            {
                "k": "X...X...X...X...",
                "s": "....X.......X...",
                "o": "..x...x...x...x.",
                "h": "x...x...x...x...",
            },
            {
                "k": "X...X...X...X...",
                "c": "....X.......X...",
                "h": "x.oxx.oxx.oxx.ox",
                "o": "..x...x...x...x.",
            },
            {
                "k": "X...X...X...X...",
                "s": "....X.......X..o",
                "h": "xxxxxxxxxxxxxxxx",
                "b": "x.xxx.xxx.xxx.xx",
            },
            {
                "k": "X...X...X...X...",
                "s": "....X.......X...",
                "o": "..X...X...X...X.",
                "g": "x..x..x...x.x...",
                "l": "......x.......xx",
            },
        ),
        kits=(0, 16, 24, 25),
        bass=(
            "r.8.r.8.r.8.r.8.",
            "r-r8-8r-r-r8-8a-",
            "r...--8-r-5-7-8-",
            "r.r.8.8.5.5.7.7.",
            "r--r8-r-r--r8-5-",
        ),
        comp=(
            "--x---x---x---x-",
            "x-x--x-xx-x--x-x",
            "xx-xx-x-xx-xx-x-",
            "--xx--xx--xx--xx",
            "x.....x.....x...",
        ),
        color=("x-------x-x-----", "3-2-1-2-3-2-1-2-", "------x---x-----", "0123321001233210"),
        pad=("x...............", "x.......x......."),
        counter=("stabs", "guide", "fills"),
        pools={
            "bass": (33, 36, 38, 34, 37, 39),
            "comp": (28, 7, 4, 0, 27, 5, 1, 90),
            "color": (61, 63, 7, 62, 90, 81),
            "pad": (48, 50, 88, 49, 51, 89),
            "counter": (61, 50, 63, 62, 57, 51),
            "lead": (80, 56, 73, 64, 48, 81, 66, 49, 87),
        },
        presence={"drums": 1, "comp": 1, "color": 0.6, "pad": 0.75, "counter": 0.6},
        harmony=("seventh", "triad"),
        gate=(0.6, 0.95),
        low_db=(0.0, 4.0),
        high_db=(-2.0, 5.0),
    ),
    "hiphop": Genre(
        tempo=(80, 104),
        modes=("minor",),
        scales={"minor": "minor pentatonic"},
        progressions={
            "minor": (
                "i7 i7 bVImaj7 V7 i7 i7 bVImaj7 V7",
                "i7 iv7 i7 iv7 i7 iv7 bVI V7",
                "i bVI i bVII i bVI i bVII",
                "i7 i7 i7 i7 iv7 iv7 i7 V7",
            )
        },
        rhythms=(
            "x..x..x.--------",
            "--x..xx.x...----",
            "x..xx...--x.x...",
            "----x.xxx..x----",
            "xx.x..x.x.--x.x.",
        ),
        section_bars=8,
        grooves=(
            {"k": "X......x..x.....", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X..x......x..x..", "s": "....X.......X...", "h": "x.xxx.x.x.xxx.x."},
            {
                "k": "X.x.......xx....",
                "c": "....X.......X...",
                "h": "xxxxxxxxxxxxxxxx",
                "o": "..............x.",
            },
            {
                "k": "X.....x...x.....",
                "c": "....X.......X...",
                "h": "x.x.xxx.x.x.x.xx",
                "w": "..x.....x.......",
            },
            {
                "k": "X..x..x.........",
                "s": "........X.......",
                "h": "x.xxx.x.xxx.x.xx",
                "c": "........x.......",
            },
        ),
        kits=(25, 24, 16, 0),
        bass=(
            "r......r..r.....",
            "r.....------r...",
            "r..r------r..5..",
            "r.........r.8-5-",
            "r.......--------",
        ),
        comp=(
            "x.......--------",
            "x-----x---x-----",
            "x..x..x.--------",
            "0.2.1.3.0.2.1.3.",
            "--x---x-----x---",
        ),
        color=("3-2-1---3-2-1---", "--------x-------", "3..3..2.........", "x-x-x-x-x-x-x-x-"),
        pad=("x...............",),
        counter=("fills", "guide", "stabs"),
        pools={
            "bass": (38, 33, 32, 39, 35, 37),
            "comp": (4, 0, 11, 26, 5, 1, 12, 24),
            "color": (11, 46, 9, 61, 8, 45, 12),
            "pad": (50, 91, 54, 88, 51, 89, 53),
            "counter": (56, 61, 54, 59, 57, 62),
            "lead": (80, 73, 11, 75, 22, 81, 66, 59, 12),
        },
        presence={"drums": 1, "comp": 0.9, "color": 0.55, "pad": 0.45, "counter": 0.3},
        harmony=("seventh", "triad"),
        swing=((0.25, 0.52, 0.64),),
        gate=(0.6, 1.0),
        levels={"bass": 4.0, "drums": 3.0, "lead": -1.5},
        low_db=(2.0, 7.0),
        high_db=(-9.0, 2.0),
        crash=False,
    ),
    "jazz": Genre(
        tempo=(104, 176),
        modes=("major", "minor"),
        scales={"major": "major", "minor": "dorian"},
        progressions={
            "major": (
                "Imaj7 vi7 ii7 V7 Imaj7 vi7 ii7 V7",
                "ii7 V7 Imaj7 Imaj7 ii7 V7 Imaj7 VI7",
                "Imaj7 VI7 ii7 V7 iii7,VI7 ii7,V7 Imaj7 ii7,V7",
                "Imaj7 Imaj7 iv7 bVII7 iii7 VI7 ii7 V7",
            ),
            "minor": (
                "i7 iih7,V7 i7 i7 iv7 bVII7 bIIImaj7 iih7,V7",
                "iih7 V7 i7 i7 iih7 V7 i7 V7",
                "i7 i7 iv7 iv7 i7 iih7 V7 i7",
            ),
        },
        rhythms=(
            "--x.x.x.x.x.x...",
            "x.x.x.x.x...--x.",
            "x.....x.--x.x.x.",
            "--x.....x.x.x.x.",
            "x.x.--x.x...----",
            "x...x.x.--x.x...",
        ),
        section_bars=8,
        grooves=(
            {
                "R": "X...x.x.X...x.x.",
                "p": "....x.......x...",
                "k": "o.......o.......",
                "s": "......o........o",
            },
            {
                "R": "X...x.x.X...x.x.",
                "p": "....x.......x...",
                "k": "o...o...o...o...",
                "s": "..........o.....",
            },
            {
                "R": "X.x.x.x.X.x.x.x.",
                "p": "....x.......x...",
                "r": "............x...",
                "k": "x.............x.",
            },
            {
                "h": "X...x.x.X...x.x.",
                "p": "....x.......x...",
                "s": "o..oo..oo..oo..o",
                "k": "o.......o.......",
            },
        ),
        kits=(32, 40, 0),
        bass=("w...w...w...w...", "r...w...5...a...", "r.......5.......", "w...w...w...w.a."),
        comp=(
            "x.....x-----x---",
            "--x-------x-----",
            "x--x------x--x--",
            "----x-------x---",
            "x-------------x-",
            "x---x---x---x---",
        ),
        color=("------x---------", "x...............", "3.....2.....1..."),
        pad=("x...............",),
        counter=("fills", "guide", "thirds"),
        pools={
            "bass": (32, 33, 35, 34),
            "comp": (0, 26, 4, 1, 27, 5, 24),
            "color": (11, 16, 12, 17),
            "pad": (48, 16, 49, 17),
            "counter": (61, 71, 60, 66, 57, 59),
            "lead": (64, 56, 11, 71, 0, 59, 66, 12, 1),
        },
        presence={"drums": 0.92, "comp": 0.95, "color": 0.25, "pad": 0.15, "counter": 0.35},
        harmony=("jazz",),
        swing=((0.5, 0.6, 0.68),),
        gate=(0.65, 0.95),
        high_db=(-6.0, 2.0),
        crash=False,
    ),
    "metal": Genre(
        tempo=(112, 180),
        modes=("minor",),
        scales={"minor": "minor"},
        progressions={
            "minor": (
                "i i bVI bVII i i bVI V",
                "i i i bVII bVI bVI bVII bVII",
                "i bII i bII i bII bVI bVII",
                "i bVII bVI bVII i bVII bVI V",
                "i,bIII iv,bVI i,bIII V i,bIII iv,bVI bVII V",
            )
        },
        rhythms=(
            "x.x.x.x.x.x.x.x.",
            "x...x.x.x...x.x.",
            "xxxxx.x.xxxxx.x.",
            "x.......x...x...",
            "x.xxx.xxx...x...",
        ),
        section_bars=8,
        grooves=(
            {"k": "XxXxXxXxXxXxXxXx", "s": "....X.......X...", "h": "X...X...X...X..."},
            {"k": "X.xxX.xxX.xxX.xx", "s": "....X.......X...", "R": "X...X...X...X..."},
            {"k": "X.X.X.X.X.X.X.X.", "s": ".x.x.x.x.x.x.x.x", "R": "X.X.X.X.X.X.X.X."},
            {"k": "X.xx..x.X.xx..x.", "s": "........X.......", "C": "X...X...X...X..."},
            {"k": "XxX...XxX.X...xx", "s": "....X.......X...", "o": "X.X.X.X.X.X.X.X."},
        ),
        kits=(16, 0, 8),
        bass=(
            "rrrrrrrrrrrrrrrr",
            "r.rrr.rrr.rrr.rr",
            "r.r.r.r.r.r.r.r.",
            "r...r.r.r...r.rr",
        ),
        comp=(
            "X-xxX-xxX-xxX-xx",
            "XxxxXxxxXxxxXxxx",
            "X.......X.......",
            "X.x.X.x.X.x.X.x.",
            "X..X..X.X..X..X.",
            "X---xxX---xxX-xx",
        ),
        color=("X.......X.......", "X-xxX-xxX-xxX-xx", "0.2.0.1.0.2.0.1."),
        pad=("x...............",),
        counter=("thirds", "guide"),
        pools={
            "bass": (33, 36, 38, 34, 37, 39),
            "comp": (30, 84, 29, 87),
            "color": (30, 84, 29, 81),
            "pad": (50, 52, 19, 51, 53, 49),
            "counter": (30, 84, 29, 81),
            "lead": (30, 84, 80, 29, 81, 87),
        },
        presence={"drums": 1, "comp": 1, "color": 0.5, "pad": 0.3, "counter": 0.4},
        harmony=("power",),
        gate=(0.7, 1.0),
        windows={"comp": (40, 66), "color": (45, 69), "lead": (48, 81)},
        lead_shift=(0, -12),
        levels={"comp": 2.5, "drums": 3.0},
        drive={"comp": 5.0, "color": 5.0, "lead": 3.0, "counter": 3.0, "bass": 1.5},
        low_db=(0.0, 5.0),
        high_db=(-2.0, 6.0),
        reverb=(0.02, 0.15),
    ),
    "pop": Genre(
        tempo=(92, 128),
        modes=("major", "minor"),
        scales={"major": "major pentatonic", "minor": "minor pentatonic"},
        progressions={
            "major": (
                "I V vi IV I V vi IV",
                "vi IV I V vi IV I V",
                "I vi IV V I vi IV V",
                "IV V iii vi IV V I I",
                "I iii IV V vi IV ii V",
            ),
            "minor": ("i bVI bIII bVII i bVI bIII bVII", "i bVII bVI bVII i bVII iv V"),
        },
        rhythms=(
            "x..x..x.x...x...",
            "--x.x.x.x..x..x.",
            "x.x.x..x..x.----",
            "x.x.x.x.x...----",
            "x.....x.x.......",
            "----x.x.x.x.x.x.",
        ),
        section_bars=8,
        grooves=(
            {"k": "X.......X.x.....", "s": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X...X...X...X...", "c": "....X.......X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X..x....X..x....", "s": "....X.......X...", "h": "xxxxxxxxxxxxxxxx"},
            {
                "k": "X.....x.x.x.....",
                "s": "....X.......X..o",
                "q": "xxxxxxxxxxxxxxxx",
                "o": "..............x.",
            },
        ),
        kits=(0, 8, 24, 25, 16),
        bass=(
            "r.r.r.r.r.r.r.r.",
            "r.....r.r.......",
            "r..r..r.r..r..a.",
            "r.......r...5...",
            "r...--r-8.5.r.--",
        ),
        comp=(
            "x...x...x...x...",
            "x..x..x.x..x..x.",
            "x.xxx.xxx.xxx.xx",
            "0.1.2.1.0.1.2.1.",
            "x.......x.......",
            "--x---x---x---x-",
        ),
        color=("3.2.1.2.3.2.1.2.", "0123012301230123", "--x---x---x---x-", "x..x..x-x..x..x-"),
        pad=("x...............", "x.......x......."),
        counter=("guide", "thirds", "fills"),
        pools={
            "bass": (33, 38, 36, 34, 39, 35),
            "comp": (0, 4, 25, 16, 1, 5, 27, 24, 90),
            "color": (11, 80, 46, 26, 12, 81, 45, 8),
            "pad": (48, 50, 88, 95, 91, 49, 51, 89, 90),
            "counter": (52, 48, 60, 53, 49, 62),
            "lead": (80, 73, 54, 0, 40, 81, 74, 53, 1),
        },
        presence={"drums": 0.95, "comp": 1, "color": 0.6, "pad": 0.7, "counter": 0.45},
        gate=(0.7, 1.0),
        high_db=(-2.0, 6.0),
    ),
    "reggae": Genre(
        tempo=(66, 92),
        modes=("major", "minor"),
        scales={"major": "major pentatonic", "minor": "minor pentatonic"},
        progressions={
            "major": (
                "I IV I IV I IV I V",
                "I V vi IV I V vi IV",
                "I I ii ii I I ii V",
                "I IV V IV I IV V IV",
            ),
            "minor": ("i iv i iv i iv bVII i", "i bVII i bVII i bVII bVI V", "i i iv i i i iv V"),
        },
        rhythms=(
            "--x.x.x.x...----",
            "x..x..x.--------",
            "x.x.x...--x.x...",
            "----x.x.x.x.x...",
            "x...--x.x.x.----",
        ),
        section_bars=8,
        grooves=(
            {"k": "........X.......", "r": "........X.......", "h": "x.x.x.x.x.x.x.x."},
            {"k": "........X.......", "s": "........X.......", "h": "X.xxX.xxX.xxX.xx"},
            {"k": "X...X...X...X...", "r": "........X.......", "h": "..X...X...X...X."},
            {
                "k": "X.......X.......",
                "r": "........X..x....",
                "h": "x.x.x.x.x.x.x.x.",
                "g": "......x...x.....",
            },
        ),
        kits=(0, 8, 16),
        bass=(
            "r...r.--3.5.----",
            "----r.r.5...3...",
            "r.....--r.r.5.3.",
            "r.--r.--5.5.8.--",
            "--r.r.3.5.----5.",
        ),
        comp=(
            "--X---X---X---X-",
            "----X-------X---",
            "--Xx--Xx--Xx--Xx",
            "--X---X---X---Xx",
        ),
        color=("-x-xx-xx-x-xx-xx", "--x---x---x---x-", "x-------x-------", "-xx--xx--xx--xx-"),
        pad=("x...............",),
        counter=("stabs", "fills", "guide"),
        pools={
            "bass": (33, 32, 38, 34, 35, 39),
            "comp": (28, 26, 0, 4, 27, 1, 5),
            "color": (16, 18, 7, 17, 20),
            "pad": (16, 18, 48, 17, 49),
            "counter": (61, 56, 63, 57, 66, 59),
            "lead": (22, 64, 73, 16, 56, 21, 66, 17, 59),
        },
        presence={"drums": 1, "comp": 1, "color": 0.7, "pad": 0.2, "counter": 0.5},
        swing=((0.25, 0.5, 0.6),),
        gate=(0.35, 0.8),
        levels={"bass": 2.5, "comp": 2.0, "drums": 1.0},
        low_db=(1.0, 6.0),
        high_db=(-6.0, 2.0),
        reverb=(0.06, 0.3),
        echo=0.6,
        crash=False,
    ),
    "rock": Genre(
        tempo=(104, 152),
        modes=("major", "minor"),
        scales={"major": "major pentatonic", "minor": "minor pentatonic"},
        progressions={
            "major": (
                "I bVII IV I I bVII IV I",
                "I IV V IV I IV V V",
                "I V IV IV I V IV V",
                "I I IV IV bVII bVII I V",
            ),
            "minor": (
                "i bVII bVI bVII i bVII bVI V",
                "i bIII bVII IV i bIII bVII IV",
                "i i bVI bVII i i bVI bVII",
            ),
        },
        rhythms=(
            "x.x.x.x.x...----",
            "--x.x.x.x.x.x...",
            "x...x...x.x.x...",
            "x..x..x.x.......",
            "x.x.--x.x.x.x.x.",
        ),
        section_bars=8,
        grooves=(
            {"k": "X.......X.X.....", "s": "....X.......X...", "h": "X.x.X.x.X.x.X.x."},
            {"k": "X.....X.X.......", "s": "....X.......X...", "R": "X.x.X.x.X.x.X.x."},
            {"k": "X.x...x.X.x.....", "s": "....X.......X...", "o": "X...X...X...X..."},
            {"k": "X...X...X...X...", "s": "X...X...X...X...", "h": "x.x.x.x.x.x.x.x."},
            {"k": "X..x..x..x..X...", "s": "....X.......X..o", "R": "X...X...X...X..."},
        ),
        kits=(0, 8, 16),
        bass=(
            "r.r.r.r.r.r.r.r.",
            "r.....r.r.r.....",
            "r...r...r...r.a.",
            "r.r.8.r.r.r.5.r.",
            "r.......r.......",
        ),
        comp=(
            "X.x.x.x.X.x.x.x.",
            "X.......X.......",
            "X...x.x-X...x.x-",
            "X..X..X...X.....",
            "X-x-X-x-X-x-X-x-",
            "x.xxx.xxx.xxx.xx",
        ),
        color=("x.......x.......", "0.1.2.3.2.1.2.1.", "x...x...x...x...", "X..X..X...X....."),
        pad=("x...............",),
        counter=("thirds", "guide", "fills"),
        pools={
            "bass": (33, 36, 34, 35),
            "comp": (30, 25, 26, 29, 27, 24),
            "color": (18, 0, 16, 25, 17, 1, 27, 20),
            "pad": (16, 50, 18, 17, 51, 20),
            "counter": (30, 26, 18, 29, 27, 17),
            "lead": (30, 84, 26, 18, 29, 27, 87),
        },
        presence={"drums": 1, "comp": 1, "color": 0.5, "pad": 0.3, "counter": 0.4},
        harmony=("power", "triad"),
        gate=(0.75, 1.0),
        windows={"comp": (43, 69), "lead": (48, 81)},
        lead_shift=(0, -12),
        levels={"comp": 1.0, "drums": 2.0},
        drive={"comp": 2.5, "lead": 2.5, "counter": 2.0},
        reverb=(0.03, 0.22),
    ),
}

GENRES: tuple[str, ...] = tuple(sorted(GENRE_TABLE))
