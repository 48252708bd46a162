"""Any readable file becomes mono at 22 050 Hz; anything else is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostyle_lib.config import AudioConfig
from audiostyle_lib.errors import InputError
from audiostyle_lib.signal import audio
from audiostyle_lib.signal.audio import AudioError

RATE = 22_050


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "au", "aiff"])
def test_every_format_keeps_length_pitch_and_level(tmp_path, tone, peak_hz, suffix):
    x = tone(440.0, 1.0)
    path = tmp_path / f"tone.{suffix}"
    audio.write_audio(path, x, sample_rate=RATE)
    y = audio.read_audio(path)
    assert y.dtype == np.float32 and y.shape == x.shape
    assert peak_hz(y) == pytest.approx(440, abs=0.5)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.1)
    if suffix not in ("ogg", "mp3"):
        np.testing.assert_allclose(y, x, atol=1 / 32768)  # 16 bit


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_mono_is_the_mean_of_the_channels(tmp_path, tone, channels):
    parts = np.stack([tone(200.0 * (c + 1)) for c in range(channels)], axis=1)
    path = tmp_path / "many.wav"
    sf.write(path, parts, RATE, subtype="FLOAT")
    np.testing.assert_allclose(audio.read_audio(path), parts.mean(axis=1), atol=1e-6)


@settings(max_examples=25)
@given(
    seconds=st.floats(0.2, 1.5),
    rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000]),
    channels=st.integers(1, 8),
)
def test_length_and_pitch_for_any_rate_and_channels(
    tmp_path, tone, peak_hz, seconds, rate, channels
):
    x = tone(440.0, seconds, sample_rate=rate)
    path = tmp_path / "tone.wav"
    sf.write(path, np.repeat(x[:, None], channels, axis=1), rate, subtype="FLOAT")
    y = audio.read_audio(path)
    assert abs(len(y) - len(x) * RATE / rate) <= 1
    assert peak_hz(y) == pytest.approx(440, abs=1.5)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.1)


def test_resampling_does_not_alias(tmp_path, tone):
    path = tmp_path / "ultrasound.wav"
    mixed = tone(1_000.0, sample_rate=192_000) + tone(15_000.0, sample_rate=192_000)
    sf.write(path, mixed, 192_000, subtype="FLOAT")
    inner = slice(1000, -1000)
    rest = audio.read_audio(path)[inner] - tone(1_000.0)[inner]
    assert audio.rms_dbfs(rest) < -80  # 15 kHz would fold to 7 050 Hz at -9 dBFS


def test_other_front_end_sets_the_rate(tmp_path, tone):
    path = tmp_path / "tone.wav"
    sf.write(path, tone(), RATE)
    assert len(audio.read_audio(path, config=AudioConfig(sample_rate=16_000))) == 16_000


def _missing(path: Path):
    pass


def _folder(path: Path):
    path.mkdir()


def _empty(path: Path):
    path.touch()


def _text(path: Path):
    path.write_text("dear diary\n" * 500)


def _no_samples(path: Path):
    sf.write(path, np.zeros(0), RATE)


def _samples(x, subtype="FLOAT"):
    return lambda path: sf.write(path, x, RATE, subtype=subtype)


def _with(value: float) -> np.ndarray:
    x = np.full(RATE, 0.1)
    x[777] = value
    return x


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "no such file"),
        (_folder, "is a folder"),
        (_empty, "is empty"),
        (_text, "not readable as audio"),
        (_no_samples, "holds no samples"),
        (_samples(_with(np.nan)), "not finite"),
        (_samples(_with(-np.inf)), "not finite"),
        (_samples(_with(1e30)), r"holds a sample of 1e\+30"),  # one damaged exponent
        (_samples(np.zeros(RATE)), "silent"),
        (_samples(np.full(RATE, 0.9e-6)), r"silent \(peak below -120 dBFS\)"),
        (_samples(np.full(RATE, 0.9e-4), "PCM_16"), r"silent \(peak below -80 dBFS\)"),
        (_samples(np.full(2047, 0.1)), r"lasts 0\.093 s, shorter than one window \(0\.093 s\)"),
        (_samples(np.full(2 * RATE + 1, 0.1)), "lasts .* minutes or more, at most"),
        (_samples(np.zeros((RATE, 2))), "silent"),
    ],
)
def test_unusable_file_is_refused_in_one_line(tmp_path, make, reason):
    path = tmp_path / "input.wav"
    make(path)
    with pytest.raises(AudioError, match=reason) as error:
        audio.read_audio(path, max_seconds=2.0)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert str(error.value).count(str(path)) == 1


def test_headerless_files_are_refused(tmp_path):
    raw = tmp_path / "samples.raw"
    raw.write_bytes(bytes(10_000))
    with pytest.raises(AudioError, match="not readable"):
        audio.read_audio(raw)


def test_limits_are_just_not_refused(tmp_path):
    for n, level, subtype in ((2048, 0.1, "FLOAT"), (2 * RATE, 1.1e-6, "FLOAT"),
                              (2 * RATE, 1.3e-4, "PCM_16")):  # fmt: skip
        wave = level * np.resize([1.0, -1.0, -1.0, 1.0], n)  # an offset alone is silent
        _samples(wave, subtype)(tmp_path / "edge.wav")
        assert len(audio.read_audio(tmp_path / "edge.wav", max_seconds=2.0)) == n


def test_too_long_file_is_refused_before_it_is_read(tmp_path, tone, monkeypatch):
    path = tmp_path / "long.wav"
    sf.write(path, tone(), RATE)
    monkeypatch.setattr(sf.SoundFile, "read", lambda *a, **k: pytest.fail("was read"))
    with pytest.raises(AudioError, match="minutes"):
        audio.read_audio(path, max_seconds=0.9)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, tone, monkeypatch):
    path = tmp_path / "out.wav"
    path.write_text("old")

    def fail(self, data):
        raise OSError("disk full")

    monkeypatch.setattr(sf.SoundFile, "write", fail)
    with pytest.raises(AudioError, match=r"out\.wav: cannot be written \(disk full\)"):
        audio.write_audio(path, tone(), sample_rate=RATE)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/out.wav", "does not exist"),
        ("out.txt", "must end in an audio format"),
        ("out", "must end in an audio format"),
        ("out.raw", "must end in an audio format"),
        ("folder.wav", "is a folder"),
        ("pipe.wav", "is a device or a pipe"),
        ("n" * 300 + ".wav", "no name for a file .File name too long"),
        ("nul\0.wav", "no name for a file"),
    ],
)
def test_unwritable_target_is_refused(tmp_path, tone, name, reason):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=reason) as error:
        audio.write_audio(tmp_path / name, tone(), sample_rate=RATE)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_write_protected_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anywhere
    with pytest.raises(InputError, match="not writable"):
        audio.check_writable(tmp_path / "out.wav")


def test_suffix_may_be_upper_case(tmp_path, tone):
    audio.write_audio(tmp_path / "OUT.FLAC", tone(), sample_rate=RATE)
    assert sf.info(tmp_path / "OUT.FLAC").format == "FLAC"


def test_minutes_of_vorbis_can_be_written(tmp_path):
    """libsndfile's encoder kills the process if it is given minutes in one piece."""
    code = (
        "import sys, numpy as np; from audiostyle_lib.signal.audio import write_audio\n"
        "write_audio(sys.argv[1], np.full(150 * 22050, 0.1, np.float32), sample_rate=22050)"
    )
    path = tmp_path / "long.ogg"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 0
    assert sf.info(path).frames == 150 * RATE


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_result_that_is_not_finite_is_not_written(tmp_path, value):
    for name in ("out.wav", "out.flac", "out.ogg", "out.mp3"):
        with pytest.raises(AudioError, match="not written, the result holds samples that are not"):
            audio.write_audio(tmp_path / name, _with(value), sample_rate=RATE)
    assert list(tmp_path.iterdir()) == []


# Arrays -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [(np.float64, 1, 0), (np.float32, 1, 0), (np.float16, 1, 0), (np.int16, 2**15, 0),
     (np.int32, 2**31, 0), (np.uint8, 2**7, 2**7)],
)  # fmt: skip
@pytest.mark.parametrize("channels", [1, 2])
def test_any_kind_of_samples_becomes_float32(tone, config, dtype, scale, offset, channels):
    x = tone(amplitude=0.9)
    given = (scale * x.astype(float) + offset).astype(dtype)
    if channels == 2:
        given = np.stack([given, given], axis=1)
    found = audio.as_waveform(given, what="content", config=config)
    assert found.dtype == np.float32 and found.shape == x.shape
    np.testing.assert_allclose(found, x, atol=1.1 / 128 if dtype == np.uint8 else 1e-3)


def test_channels_are_averaged_and_float32_is_not_copied(tone, config):
    x, y = tone(300.0), tone(500.0)
    found = audio.as_waveform(np.stack([x, y], axis=1), what="content", config=config)
    np.testing.assert_allclose(found, (x + y) / 2, atol=1e-6)
    assert np.shares_memory(audio.as_waveform(x, what="content", config=config), x)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (np.zeros((2, RATE)), r"has shape \(2, 22050\), wanted \(n_samples,\) or"),
        (np.zeros((RATE, 2, 1)), "has shape"),
        (np.float32(0.5), "has shape"),
        (np.zeros(0), r"lasts 0\.000 s, shorter than one window"),
        (np.zeros((0, 2)), "shorter than one window"),
        (np.zeros(2047), "shorter than one window"),
        (_with(np.nan), "not finite"),
        (np.where(np.arange(RATE) == 9, 1e300, 0.1), r"holds a sample of 1e\+300"),
        (np.zeros(RATE, complex), "has samples of type complex128"),
        (np.full(RATE, "x"), "has samples of type"),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(config, given, why):
    with pytest.raises(ValueError, match=why) as error:
        audio.as_waveform(given, what="style", config=config)
    assert str(error.value).startswith("style: ") and "\n" not in str(error.value)


def test_rms_level_of_known_signals(tone):
    assert audio.rms_dbfs(np.ones(100, np.float32)) == pytest.approx(0, abs=1e-6)
    assert audio.rms_dbfs(tone(441.0, 1.0, 1.0)) == pytest.approx(-3.0103, abs=1e-3)
    assert audio.rms_dbfs(np.zeros(100, np.float32)) == pytest.approx(-200, abs=1e-6)


@given(st.floats(1e-3, 1.0), st.floats(-40, -10))
def test_to_level_reaches_the_level(amplitude, dbfs):
    x = amplitude * np.sin(np.arange(5000, dtype=np.float32))
    assert audio.rms_dbfs(audio.to_level(x, dbfs)) == pytest.approx(dbfs, abs=1e-3)


@pytest.mark.parametrize("peak", [1e-4, 1e-6, 1e-8])
def test_to_level_lifts_very_quiet_clips_and_leaves_silence(peak):
    x = (peak * np.sin(np.arange(5000))).astype(np.float32)
    assert audio.rms_dbfs(audio.to_level(x)) == pytest.approx(-20, abs=1e-2)
    assert not audio.to_level(np.zeros(5000, np.float32)).any()


def test_to_level_never_clips():
    click = np.zeros(10_000, np.float32)
    click[5000] = 0.01
    y = audio.to_level(click, -20.0)
    assert np.abs(y).max() == pytest.approx(0.99, abs=1e-6)
    assert audio.rms_dbfs(y) < -20
