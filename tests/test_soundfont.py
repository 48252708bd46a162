"""SoundFonts taken apart: each program sounds as in the whole, in tune, and nothing unusable is kept."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pretty_midi
import pytest
import soundfile

from audiostyle_lib import __main__, paths
from audiostyle_lib.bands import genres, instruments, lattice, soundfont, synth
from audiostyle_lib.bands.genres import TRAIN_PROGRAMS

pytest.importorskip("symusic")

RATE = 22_050
WHOLE = Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
NAME = b"a tone".ljust(20, b"\0")


def played(program: int, pitch: int, folder: Path | None) -> np.ndarray:
    part = synth.Part("lead", program, False, (synth.Note(0, 1.2, pitch, 90),))
    return synth.synthesize(
        part, tempo=60, start_beat=0, seconds=1.5, sample_rate=RATE, soundfont=folder
    )


def written(folder: Path, **programs: bytes) -> Path:
    """A folder as `prepare` leaves it, from program_025=..."""
    folder.mkdir(parents=True)
    for name, data in programs.items():
        (folder / f"{name.replace('_', '-')}.sf").write_bytes(data)
    (folder / instruments.FAULTS).write_text("{}")
    return folder


def tone_font(
    program: int, *, root: int = 69, level: float = 0.5, loop: tuple = (0, 88_000), zone: tuple = ()
) -> bytes:
    """A compressed SoundFont of one preset, a sine of 440 Hz with generators of its own."""
    n_samples = 2 * 44_100
    sine = level * np.sin(2 * np.pi * 440 * np.arange(n_samples) / 44_100)
    file = io.BytesIO()
    soundfile.write(file, sine, 44_100, format="OGG", subtype="VORBIS")
    body = file.getvalue()
    header = (NAME, 0, len(body), *loop, 44_100, root, 0, 0, 0x11)
    samples = soundfont._Samples(body, compressed=True)
    samples.add(0, header, (0, 127), header, {})
    whole = [*zone, (54, 1), (soundfont.SAMPLE_ID, 0)]
    about = {b"ifil": bytes([3, 0, 1, 0])}
    return soundfont._written(about, samples, [0], whole, (NAME, program, 0))


@pytest.mark.parametrize("program", [6, 25, 38, 71])
def test_an_extracted_program_sounds_as_in_the_whole_soundfont(program, tmp_path):
    part = soundfont.extract_preset(WHOLE.read_bytes(), 0, program)
    assert len(part) < 100_000
    folder = written(tmp_path / "programs", **{f"program_{program:03d}": part})
    assert soundfont.instrument(folder, program, False).parent == folder
    for pitch in (48, 60, 67):
        assert np.array_equal(played(program, pitch, folder), played(program, pitch, None))


def test_a_missing_program_is_played_by_the_default(tmp_path):
    folder = written(tmp_path / "programs")
    assert soundfont.instrument(folder, 25, False) == soundfont.path()
    assert np.array_equal(played(25, 60, folder), played(25, 60, None))
    assert soundfont.extract_preset(WHOLE.read_bytes(), 1, 25) is None


def test_compressed_samples_play_and_zones_are_in_tune(tmp_path, peak_hz):
    data = tone_font(25)
    folder = written(tmp_path / "programs", program_025=soundfont.extract_preset(data, 0, 25))
    assert peak_hz(played(25, 69, folder)) == pytest.approx(440, rel=0.003)
    assert peak_hz(played(25, 57, folder)) == pytest.approx(220, rel=0.003)


@pytest.mark.parametrize(
    ("zone", "hertz"),
    [
        (((soundfont.OVERRIDING_ROOT_KEY, 57),), 880),
        (((soundfont.COARSE_TUNE, 12),), 880),
        (((soundfont.SCALE_TUNING, 0),), 440),
    ],
)
def test_what_a_zone_says_of_its_pitch_is_heard(zone, hertz, tmp_path, peak_hz):
    part = soundfont.extract_preset(tone_font(25, zone=zone), 0, 25)
    folder = written(tmp_path / "programs", program_025=part)
    assert peak_hz(played(25, 69, folder)) == pytest.approx(hertz, rel=0.003)
    if zone[0][0] == soundfont.SCALE_TUNING:  # the same on all keys
        assert peak_hz(played(25, 60, folder)) == pytest.approx(hertz, rel=0.003)


def test_loops_end_before_their_sample_does():
    body = bytes(200)
    header = (NAME, 0, 100, 20, 98, 44_100, 60, 0, 0, 1)
    assert soundfont._sample(body, header, False)[1:] == (14, 92)
    header = (NAME, 0, 100, 20, 80, 44_100, 60, 0, 0, 1)
    assert soundfont._sample(body, header, False)[1:] == (20, 80)


def test_what_hangs_is_silent_or_out_of_tune_is_not_kept(tmp_path, monkeypatch):
    tones = {
        3: tone_font(3),
        4: tone_font(4, level=0),
        6: tone_font(6, root=66),
        7: tone_font(7, loop=(40_000, 40_000)),  # an empty loop is repeated for ever
        9: None,
        11: tone_font(11),
    }
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    monkeypatch.setattr(instruments, "_LIMIT_S", 2.0)
    monkeypatch.setattr(
        instruments, "_ranges", lambda: {(program, False): [60] for program in tones}
    )
    monkeypatch.setattr(soundfont, "extract_preset", lambda data, bank, program: tones[program])
    source = tmp_path / "tones.sf3"
    source.write_bytes(tones[3])
    folder = instruments.prepare(source)
    digest = soundfont.digest(tones[3], soundfont, genres, synth, instruments)
    assert folder == paths.data() / "bands" / f"tones-{digest}"
    assert sorted(f.name for f in folder.glob("*.sf")) == ["program-003.sf", "program-011.sf"]
    faults = json.loads((folder / instruments.FAULTS).read_text())
    reasons = {4: "silent", 6: "3.0 semitones out of tune", 7: "no progress", 9: "missing"}
    assert all(reason in faults[f"program-{p:03d}.sf"] for p, reason in reasons.items())
    assert len(faults) == len(reasons)
    assert instruments.prepare(folder) == folder


@pytest.fixture
def tuned_path(tmp_path, monkeypatch):
    """Call `soundfont.path` as a new process would, with a SoundFont of this content in pretty_midi."""
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(pretty_midi, "__file__", str(tmp_path / "pretty_midi.py"))

    def path(content: bytes) -> Path:
        (tmp_path / "TimGM6mb.sf2").write_bytes(content)
        soundfont.path.cache_clear()
        return soundfont.path()

    yield path
    soundfont.path.cache_clear()


def test_another_soundfont_in_pretty_midi_is_tuned_anew(tuned_path):
    first, other = tone_font(25), tone_font(25, zone=((soundfont.COARSE_TUNE, 12),))
    tuned = tuned_path(first)
    assert tuned.read_bytes() == soundfont.tuned(first)
    changed = tuned.stat().st_mtime_ns
    assert tuned_path(first) == tuned and tuned.stat().st_mtime_ns == changed, "made once"
    assert tuned_path(other).read_bytes() == soundfont.tuned(other)


def edited(folder: Path, *, comment: bool) -> ModuleType:
    """`soundfont` as it would be after an edit of its code or of nothing but its text."""
    source = Path(soundfont.__file__).read_text()
    text = "# a comment\n" + source.replace('"""Move every', '"""Put every', 1)
    code = source.replace("GUARD = 8", "GUARD = 9", 1)
    file = folder / "edited.py"
    file.write_text(text if comment else code)
    assert text != "# a comment\n" + source and code != source
    spec = importlib.util.spec_from_file_location("edited", file)
    return importlib.util.module_from_spec(spec)


def test_code_that_changed_makes_another_name_and_a_comment_does_not(tmp_path):
    data = tone_font(25)
    name = soundfont.digest(data, soundfont)
    assert soundfont.digest(data, edited(tmp_path, comment=True)) == name
    assert soundfont.digest(data, edited(tmp_path, comment=False)) != name
    assert soundfont.digest(data + b" ", soundfont) != name


def test_what_is_no_soundfont_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    text = tmp_path / "text.sf2"
    text.write_text("not a SoundFont")
    short = tmp_path / "short.sf2"
    short.write_bytes(WHOLE.read_bytes()[:10_000])
    for wrong in (text, short, tmp_path):
        with pytest.raises(ValueError, match=str(wrong)):
            instruments.prepare(wrong)
    assert not [f for f in (tmp_path / "data").rglob("*") if f.name != "bands"]


def test_a_soundfont_that_is_not_there_is_one_line(tmp_path, capsys):
    weights = str(tmp_path / "a.safetensors")
    command = ["pretrain", "transfer", "--soundfont", "nowhere.sf2", "-o", weights]
    assert __main__.main(command) == 2
    assert capsys.readouterr().err == "audiostyle: no SoundFont at nowhere.sf2\n"


def test_every_training_program_and_kit_is_checked_and_no_other():
    ranges = instruments._ranges()
    assert {p for p, is_drum in ranges if not is_drum} == TRAIN_PROGRAMS
    assert {0, 8, 25} <= {p for p, is_drum in ranges if is_drum}
    assert ranges[33, False][0] == 28 and ranges[0, False][-1] == 81


def test_a_style_is_played_from_one_soundfont_and_others_stay_as_they_were(tmp_path):
    tones = {f"program_{program:03d}": tone_font(program) for program in TRAIN_PROGRAMS}
    folder = written(tmp_path / "sines", **tones)
    settings = {"seed": 1, "split": "train", "seconds": 1.0}
    drawn = [lattice._column_soundfont((folder,), 1, "train", 0, column) for column in range(4)]
    assert set(drawn) == {None, folder}
    (plain,) = lattice.render_lattice(1, **settings)
    (mixed,) = lattice.render_lattice(1, soundfonts=[folder], **settings)
    assert plain.styles == mixed.styles and plain.scores == mixed.scores
    for column, source in enumerate(drawn):
        for score in range(4):
            same = np.array_equal(plain.audio[score, column], mixed.audio[score, column])
            assert same == (source is None)


def test_soundfonts_are_drawn_alike_whatever_else_is_drawn():
    folders = (Path("a"), Path("b"))
    draws = [
        lattice._column_soundfont(folders, 5, "train", index, column)
        for index in range(50)
        for column in range(4)
    ]
    assert draws == [
        lattice._column_soundfont(folders, 5, "train", index, column)
        for index in range(50)
        for column in range(4)
    ]
    assert all(40 < draws.count(choice) < 95 for choice in (None, *folders))
