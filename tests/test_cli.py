"""The command line as its user meets it: a subprocess, an exit code, one line, a file or none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import soundfile as sf

from audiostyle_lib import __main__, transfer, vocoding
from audiostyle_lib.signal import audio

RATE = 22_050


def audiostyle(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "audiostyle_lib", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **kwargs,
    )


def chord(seconds: float, rate: int, *frequencies: float) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    partials = [np.sin(2 * np.pi * f * k * t) / k for f in frequencies for k in range(1, 6)]
    envelope = np.exp(-3 * (t % 0.5))
    return (0.1 * envelope * np.sum(partials, axis=0)).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    sf.write(folder / "content.wav", chord(4.0, RATE, 220, 277.2, 329.6), RATE)
    sf.write(folder / "style.flac", chord(3.0, RATE, 110, 165), RATE)
    return folder


def make_bad(folder, kind: str):
    path = folder / f"{kind}.wav"
    tone = chord(1.0, RATE, 220)
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not audio, only called so\n" * 50)
    elif kind == "silence":
        sf.write(path, np.zeros(RATE), RATE)
    elif kind == "nan":
        tone[100] = np.nan
        sf.write(path, tone, RATE, subtype="FLOAT")
    elif kind == "too_short":
        sf.write(path, tone[: RATE // 20], RATE)
    elif kind == "folder":
        path.mkdir(exist_ok=True)
    elif kind == "ten_hours":
        sf.write(path, np.zeros(0), 1_000, subtype="PCM_U8")
        header = bytearray(path.read_bytes())
        header[header.index(b"data") + 4 :] = (36_000_000).to_bytes(4, "little")
        with path.open("wb") as file:
            file.write(header)
            file.truncate(36_000_000 + len(header))  # of which the disk holds nothing
    elif kind == "no_samples":
        sf.write(path, np.zeros(0), RATE)
    return path


BAD = {
    "missing": "no such file",
    "empty": "empty",
    "text": "not readable as audio",
    "silence": "silent",
    "nan": "not finite",
    "too_short": "shorter than one window",
    "folder": "folder",
    "ten_hours": "600 minutes",
    "no_samples": "no samples",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_with_one_line_and_no_file(clips, tmp_path, kind):
    bad, out = make_bad(tmp_path, kind), tmp_path / "out.wav"
    for pair in ((bad, clips / "style.flac"), (clips / "content.wav", bad)):
        result = audiostyle("transfer", *pair, "-o", out)
        assert result.returncode == 2, result.stderr
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1 and BAD[kind] in lines[0] and bad.name in lines[0]
        assert not out.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere/out.wav", "does not exist"), ("out.txt", "audio format"), (".", "folder")],
)
def test_unwritable_output_is_refused_before_any_work(clips, tmp_path, name, why):
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", tmp_path / name
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1 and why in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_output_that_fails_while_writing_is_one_line(clips):
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", "/proc/out.wav"
    )
    assert result.returncode == 2
    assert len(result.stderr.strip().splitlines()) == 1 and "/proc/out.wav" in result.stderr


@pytest.mark.parametrize(
    ("rate", "channels", "seconds", "suffix"),
    [(RATE, 1, 4.0, "wav"), (8_000, 1, 2.0, "wav"), (192_000, 2, 1.0, "flac"), (44_100, 8, 1.5, "wav"),
     (44_100, 2, 2.0, "mp3"), (RATE, 1, 0.1, "wav")],
)  # fmt: skip
def test_transfer_keeps_length_and_is_sound(clips, tmp_path, rate, channels, seconds, suffix):
    content, out = tmp_path / f"content.{suffix}", tmp_path / "out.wav"
    tone = chord(seconds, rate, 220, 330)
    sf.write(content, np.repeat(tone[:, None], channels, axis=1), rate)
    frames = sf.info(content).frames
    result = audiostyle("transfer", content, clips / "style.flac", "-o", out)
    assert result.returncode == 0, result.stderr
    made, made_rate = sf.read(out, always_2d=True)
    assert made_rate == rate and made.shape == (frames, channels)
    assert np.isfinite(made).all() and 1e-3 < np.abs(made).max() < 1.0


@pytest.mark.parametrize("arguments", [("--method", "ltas_eq"), ("--vocoder", "neural"),
                                       ("--vocoder", "content_phase"), ("--calibration", 1),
                                       ("--variance", 1)])  # fmt: skip
def test_methods_and_vocoders_change_the_sound(clips, tmp_path, arguments):
    out = tmp_path / "out.flac"
    content, _ = sf.read(clips / "content.wav")
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", out, *arguments
    )
    assert result.returncode == 0, result.stderr
    made, _ = sf.read(out)
    assert len(made) == len(content) and np.abs(made - content).max() > 0.01


def test_the_command_line_knows_every_vocoder():
    assert tuple(vocoding.VOCODERS) == __main__.VOCODERS


@pytest.mark.parametrize("corrections", [{}, {"calibration": 0.5, "variance": 0.6}])
def test_the_command_line_gives_what_python_gives(clips, tmp_path, corrections):
    out, files = tmp_path / "out.wav", (clips / "content.wav", clips / "style.flac")
    options = [text for name, value in corrections.items() for text in (f"--{name}", str(value))]
    assert (
        __main__.main(["transfer", *map(str, files), "-o", str(out), "--device", "cpu", *options])
        == 0
    )
    method = transfer.learned(transfer.load_model(), **corrections)
    expected = transfer.transfer(*map(audio.read_audio, files), method=method)
    found, _ = sf.read(out, dtype="float32")
    np.testing.assert_allclose(found, expected, atol=1 / 2**15)


@pytest.mark.parametrize("option", ["--calibration", "--variance"])
def test_a_correction_of_the_equaliser_is_refused_in_one_line(clips, tmp_path, option):
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", tmp_path / "o.wav",
        "--method", "ltas_eq", option, 0,
    )  # fmt: skip
    assert result.returncode == 2 and list(tmp_path.iterdir()) == []
    assert result.stderr == f"audiostyle: {option} is a correction of --method learned only\n"


def test_strength_zero_gives_the_content_back(clips, tmp_path):
    out = tmp_path / "out.wav"
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", out, "--strength", 0
    )
    assert result.returncode == 0, result.stderr
    content, _ = sf.read(clips / "content.wav")
    made, _ = sf.read(out)
    level = 10 * np.log10(np.mean(made**2) / np.mean(content**2))
    assert abs(level) < 0.1 and np.abs(made - content).max() < 1e-3


def run_here(capsys, *arguments) -> tuple[int, str, str]:
    """In this process, which has torch already: exit code, standard output and error."""
    code = __main__.main(["transfer", *map(str, arguments), "--device", "cpu"])
    return code, *capsys.readouterr()


def wide(path, rate=48_000, subtype="PCM_24", level=1.0):
    x = np.stack([chord(1.5, rate, 220, 330), 0.5 * chord(1.5, rate, 277)], axis=1)
    sf.write(path, level * x, rate, subtype)
    return path


def test_a_recording_keeps_its_format(clips, tmp_path, capsys):
    content, out = wide(tmp_path / "content.aiff"), tmp_path / "out.wav"
    code, printed, noted = run_here(
        capsys, content, clips / "style.flac", "-o", out, "--method", "ltas_eq"
    )
    assert (code, noted) == (0, "")
    assert printed == f"{out}: 1.50 s, 2 channels, 48000 Hz\n"
    info = sf.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (48_000, 2, "PCM_24")
    assert info.frames == sf.info(content).frames


def test_a_vocoder_that_makes_mono_says_so(clips, tmp_path, capsys):
    out, options = tmp_path / "out.wav", ("--method", "ltas_eq", "--vocoder", "griffin_lim")
    content = wide(tmp_path / "content.wav")
    code, printed, noted = run_here(capsys, content, clips / "style.flac", "-o", out, *options)
    assert code == 0 and printed.endswith("1.50 s, mono, 22050 Hz\n")
    assert noted == (
        "audiostyle: note: griffin_lim makes mono at 22050 Hz; gain would keep 2 channels at 48000 Hz\n"
    )
    assert (sf.info(out).channels, sf.info(out).samplerate) == (1, RATE)
    assert sf.info(out).subtype == "PCM_24"
    code, _, noted = run_here(
        capsys, clips / "content.wav", clips / "style.flac", "-o", out, *options
    )
    assert (code, noted) == (0, "")  # of a mono clip at that rate nothing is lost


def test_help_says_which_vocoders_keep_channels():
    text = " ".join(audiostyle("transfer", "--help").stdout.split())
    assert "keeps its channels and sample rate; the others make mono at 22050 Hz" in text


def test_a_quieter_result_is_noted(clips, tmp_path, capsys):
    content, out = tmp_path / "loud.wav", tmp_path / "out.wav"
    square = 0.98 * np.sign(np.sin(2 * np.pi * 100 * np.arange(2 * RATE) / RATE + 0.1))
    sf.write(content, square, RATE)
    code, _, noted = run_here(
        capsys, content, clips / "style.flac", "-o", out, "--method", "ltas_eq"
    )
    lost = 10 * np.log10(np.mean(square**2) / np.mean(sf.read(out)[0] ** 2))
    assert code == 0 and lost > 0.1
    assert noted == (
        f"audiostyle: note: {out}: {lost:.1f} dB quieter than {content}, "
        "to keep peaks below full scale\n"
    )


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize("way", ["itself", "symlink", "hard link", "other spelling"])
def test_an_input_is_replaced_only_when_that_is_asked_for(tmp_path, capsys, monkeypatch, role, way):
    content, style = wide(tmp_path / "a.wav"), wide(tmp_path / "b.wav", RATE)
    source = content if role == "content" else style
    out = tmp_path / "out.wav"
    if way == "symlink":
        out.symlink_to(source)
    elif way == "hard link":
        out.hardlink_to(source)
    elif way == "itself":
        out = source
    else:
        monkeypatch.chdir(tmp_path)
        out = f"./../{tmp_path.name}/{source.name}"
    before = source.read_bytes()
    command = (content, style, "-o", out, "--method", "ltas_eq")
    code, printed, error = run_here(capsys, *command)
    assert (code, printed) == (2, "")
    assert (
        error.count("\n") == 1 and "is an input; with --overwrite the result replaces it" in error
    )
    assert source.read_bytes() == before
    code, _, error = run_here(capsys, *command, "--overwrite")
    assert (code, error) == (0, "")
    assert sf.info(out).frames == 72_000
    if way == "symlink":
        assert out.is_symlink() and source.read_bytes() != before


def test_another_file_is_replaced_without_asking(clips, tmp_path, capsys):
    out = tmp_path / "out.wav"
    out.write_text("old")
    for content in ("c" * 300 + ".wav", "missing.wav"):
        code, _, error = run_here(capsys, tmp_path / content, clips / "style.flac", "-o", out)
        assert code == 2 and error.count("\n") == 1 and out.read_text() == "old"
    command = (clips / "content.wav", clips / "style.flac", "-o", out, "--method", "ltas_eq")
    assert run_here(capsys, *command)[0] == 0 and sf.info(out).frames == 4 * RATE


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "aiff"])
@pytest.mark.parametrize("role", ["content", "style"])
def test_a_file_that_is_cut_short_is_used_and_noted(clips, tmp_path, capfd, suffix, role):
    cut = tmp_path / f"cut.{suffix}"
    sf.write(cut, np.tile(chord(2.0, RATE, 196, 294), 3), RATE)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    pair = (cut, clips / "style.flac") if role == "content" else (clips / "content.wav", cut)
    out = tmp_path / "out.wav"
    code, _, noted = run_here(capfd, *pair, "-o", out, "--method", "ltas_eq")
    assert code == 0 and out.exists()
    assert noted.startswith(f"audiostyle: note: {cut}: cut short (truncated): ends after ")
    assert noted.endswith("s of the 6.0 s that its header promises\n") and noted.count("\n") == 1


def test_channels_that_a_format_does_not_take_are_refused_before_any_work(
    clips, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(transfer, "transfer_recording", lambda *a, **k: pytest.fail("worked"))
    content = tmp_path / "surround.wav"
    sf.write(content, np.repeat(chord(1.0, 44_100, 220)[:, None], 8, axis=1), 44_100)
    code, _, error = run_here(
        capsys, content, clips / "style.flac", "-o", tmp_path / "out.mp3", "--method", "ltas_eq"
    )
    assert code == 2 and "does not take 8 channels" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [content]


@pytest.mark.parametrize("option", ["--strength", "--calibration", "--variance"])
def test_shares_outside_their_range_are_refused(clips, tmp_path, option):
    result = audiostyle(
        "transfer", clips / "content.wav", clips / "style.flac", "-o", tmp_path / "o.wav",
        option, 1.5,
    )  # fmt: skip
    assert result.returncode == 2 and "between 0 and 1" in result.stderr


def test_transfer_of_real_clips(gtzan_subset, tmp_path):
    out = tmp_path / "out.wav"
    content = gtzan_subset / "jazz" / "jazz.00001.flac"
    style = gtzan_subset / "metal" / "metal.00002.flac"
    result = audiostyle("transfer", content, style, "-o", out)
    assert result.returncode == 0, result.stderr
    made, rate = sf.read(out)
    assert (len(made), rate) == (sf.info(content).frames, RATE)
    rms = 10 * np.log10(np.mean(made**2))
    original = 10 * np.log10(np.mean(sf.read(content)[0] ** 2))
    assert np.abs(made).max() < 1.0 and original - 6 < rms < original + 0.5


def test_data_check_prints_what_is_there_and_what_is_wrong(tmp_path):
    for genre, count in (("blues", 3), ("jazz", 2)):
        (tmp_path / genre).mkdir()
        for i in range(count):
            sf.write(
                tmp_path / genre / f"{genre}.{i:05d}.wav",
                chord(1.0, RATE, 200 + 10 * i + len(genre)),
                RATE,
            )
    (tmp_path / "jazz" / "jazz.00054.wav").write_bytes(b"garbage" * 100)
    result = audiostyle("data", "check", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "5 usable tracks" in result.stdout
    assert "jazz.00054: not readable" in result.stdout and "left out: 1" in result.stdout


def test_data_check_of_a_folder_without_genres(tmp_path):
    result = audiostyle("data", "check", tmp_path)
    assert result.returncode == 2 and "no genre folder" in result.stderr


def test_unknown_profile_and_notebook_are_refused():
    result = audiostyle("reproduce", "--profile", "huge")
    assert result.returncode == 2 and "smoke, quick, long, paper" in result.stderr
    result = audiostyle("reproduce", "--only", "42")
    assert result.returncode == 2 and "no notebook '42'" in result.stderr
