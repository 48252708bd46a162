"""The result keeps what the content has: rate, channels, sample format, level, treble, image and ends."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from audiostyle_lib import paths, rendering, transfer
from audiostyle_lib.errors import AudioError, AudioWarning
from audiostyle_lib.signal import audio, blocks

RATE = 22_050


def music(seconds: float, rate: int = 44_100, seed: int = 0) -> np.ndarray:
    """Decaying harmonic notes and hiss up to half the sample rate, (n_samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    beat = time % 0.25
    x = 0.02 * rng.standard_normal(len(time)) * (0.2 + np.exp(-12 * beat))
    for pitch in rng.choice([45, 52, 57, 61, 64, 69, 76], size=3, replace=False):
        f = 440 * 2 ** ((pitch - 69) / 12)
        for k in range(1, 12):
            if k * f < rate / 2:
                x += 0.12 * np.exp(-3 * beat) * np.sin(2 * np.pi * k * f * time + k) / k
    return x.astype(np.float32)


def stereo(seconds: float, rate: int = 44_100) -> np.ndarray:
    left, right = music(seconds, rate), music(seconds, rate, 1)
    return np.stack([left + 0.3 * right, 0.5 * right - 0.1 * left], axis=1)


def gains(curve):
    """A method: gains in dB over the bands, numbered from 0 to 1, whatever the clips."""

    def prepare(content, style):
        return lambda log_mel: curve(torch.linspace(0, 1, log_mel.shape[1]))[None, :, None]

    return prepare


def wild(content, style):
    """Gains of +-25 dB that depend on band and on the log-mel itself."""

    def gain_of(log_mel):
        bands = torch.arange(log_mel.shape[1])[None, :, None]
        return 20 * torch.sin(bands / 7) + 5 * torch.tanh(log_mel / 20)

    return gain_of


def up(db: float):
    """The upper half of the bands raised."""
    return gains(lambda band: db * (band > 0.5))


def result_of(path: Path, x: np.ndarray, rate: int, method=wild, **settings_):
    """Result (n_samples, n_channels) of a float file, and the `Result`."""
    sf.write(path, x, rate, "FLOAT")
    with audio.open_recording(path) as content:
        made = transfer.transfer_recording(content, music(1.0, RATE, 5), method=method, **settings_)
        return np.concatenate(list(made.blocks())), made


def db(power_ratio) -> float:
    return float(10 * np.log10(power_ratio))


def power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def snr(found: np.ndarray, wanted: np.ndarray) -> float:
    """In dB, of the best scaling of `found`."""
    found, wanted = found.astype(float), wanted.astype(float)
    scale = (found * wanted).sum() / (found**2).sum()
    return db((wanted**2).sum() / max(((scale * found - wanted) ** 2).sum(), 1e-30))


def band(x: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    spectrum = np.fft.rfft(x, axis=0)
    f = np.fft.rfftfreq(len(x), 1 / rate)
    spectrum[(f < low) | (f >= high)] = 0
    return np.fft.irfft(spectrum, len(x), axis=0)


# What is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000, 32_000, 8_000, 22_050, 11_025])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_rate_channels_and_length_are_kept(tmp_path, rate, channels):
    n_samples = round(1.3 * rate) + 1
    x = np.stack([music(1.5, rate, c)[:n_samples] for c in range(channels)], axis=1)
    y, result = result_of(tmp_path / "x.wav", x, rate)
    assert y.shape == x.shape == (result.n_samples, result.n_channels)
    assert y.dtype == np.float32 and np.isfinite(y).all()
    assert (result.sample_rate, result.subtype) == (rate, "FLOAT")
    assert snr(y[:, 0], x[:, 0]) < 20, "it does change something"
    same, _ = result_of(tmp_path / "x.wav", x, rate, strength=0.0)
    np.testing.assert_allclose(same, x, atol=1e-5)


def test_channels_have_one_gain(tmp_path):
    """A source that is panned stays where it is, in every frame and bin."""
    x = music(3.0)
    y, _ = result_of(tmp_path / "x.wav", np.outer(x, [0.7, 0.2, -0.4]).astype(np.float32), 44_100)
    for channel, gain in ((1, 0.2), (2, -0.4)):
        assert snr(y[:, channel] * 0.7 / gain, y[:, 0]) > 90
        np.testing.assert_allclose(y[:, channel], y[:, 0] * gain / 0.7, atol=1e-6)


def test_left_and_right_stay_as_correlated_as_they_were(tmp_path):
    """Noise that is as wide at all frequencies: else what is turned up would count for more."""
    a, b = 0.05 * np.random.default_rng(0).standard_normal((2, 4 * 44_100))
    x = np.stack([a + 0.3 * b, 0.5 * b + 0.2 * a], axis=1).astype(np.float32)
    y, _ = result_of(tmp_path / "x.wav", x, 44_100)
    before, after = (np.corrcoef(z.T)[0, 1] for z in (x, y))
    assert snr(y, x) < 10 and after == pytest.approx(before, abs=0.05)


def test_a_channel_of_its_own_sound_is_only_changed_by_the_common_gain(tmp_path):
    x = stereo(3.0)
    y, _ = result_of(tmp_path / "x.wav", x, 44_100)
    swapped, _ = result_of(tmp_path / "x.wav", x[:, ::-1], 44_100)
    np.testing.assert_allclose(swapped[:, ::-1], y, atol=1e-5)


def test_below_the_blend_a_wide_recording_is_the_narrow_one(tmp_path):
    x = band(music(4.0), 44_100, 30, 10_900).astype(np.float32)
    wide, _ = result_of(tmp_path / "x.wav", x, 44_100)
    narrow, _ = result_of(tmp_path / "x.wav", resample_poly(x, 1, 2).astype(np.float32), RATE)
    lower = band(wide, 44_100, 40, 9_800)[::2], band(narrow, RATE, 40, 9_800)
    assert snr(*lower) > 30


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_treble_keeps_its_energy(tmp_path, rate, sign):
    x = music(3.0, rate)
    method = gains(lambda b: 25 * sign * (2 * b - 1))  # up to 25 dB in the highest band
    y, _ = result_of(tmp_path / "x.wav", 0.05 * x, rate, method)
    assert abs(db(power(y) / power(0.05 * x))) < 0.2
    edges = np.geomspace(11_025, min(rate / 2, 22_000), 6)
    for low, high in [(11_025, rate / 2), *pairwise(edges)]:
        before, after = (power(band(z, rate, low, high)) for z in (0.05 * x, y[:, 0]))
        assert abs(db(after / before)) < 3, f"{low:.0f} to {high:.0f} Hz"


# Blocks and context -----------------------------------------------------------------------------


def test_a_drift_is_not_heard():
    """Neither steps of the offset nor a slow swing change level or sound."""
    x, style = 0.1 * music(3.0), music(2.0, seed=1)
    time = np.linspace(0, 3, len(x))
    plain = transfer.transfer(x, style, method=wild)[4_096:-4_096]
    for drift in (0.1 * (time - 1.5), 0.1 * np.sin(2 * np.pi * 1.5 * time)):
        moved = transfer.transfer((x + drift).astype(np.float32), style, method=wild)[4_096:-4_096]
        assert db((plain**2).mean() / ((plain - moved) ** 2).mean()) > 15


@pytest.mark.parametrize("offset", [0.06, 0.25, -0.35])
def test_an_offset_costs_no_headroom(offset):
    """The result of a quiet clip with an offset is that of the clip, also where peaks are limited."""
    x, style = 0.1 * music(2.0), music(2.0, seed=1)
    plain, moved = (transfer.transfer(y, style, method=wild) for y in (x, x + np.float32(offset)))
    assert np.abs(moved.mean()) < 1e-3
    assert db((plain**2).mean() / ((plain - moved) ** 2).mean()) > 40


@pytest.mark.parametrize("seconds", [0.7, 1.0, 3.02, 3.5])
def test_blocks_give_what_one_pass_gives(tmp_path, monkeypatch, seconds):
    x = np.stack([music(seconds, 48_000), music(seconds, 48_000, 1)], axis=1)
    whole, _ = result_of(tmp_path / "x.wav", x, 48_000)
    monkeypatch.setattr(rendering, "BLOCK_SAMPLES", 96_000)
    pieces, _ = result_of(tmp_path / "x.wav", x, 48_000)
    assert pieces.shape == whole.shape == x.shape
    pieces *= (whole * pieces).sum() / (pieces**2).sum()  # levels are compared in other segments
    np.testing.assert_allclose(pieces, whole, atol=1e-5 * np.abs(whole).max())
    # 3.02 s: the last block is shorter than the margin and joined
    with audio.open_recording(tmp_path / "x.wav") as content:
        found = transfer.transfer_recording(content, x[:, 0], method=wild)
        sizes = [len(y) for _, y in found.pairs()]
    assert len(sizes) == {0.7: 1, 1.0: 1, 3.02: 3, 3.5: 4}[seconds]


@given(
    sizes=st.lists(st.integers(5, 20), min_size=1, max_size=6), last=st.integers(1, 20),
    margin=st.integers(1, 5),
)  # fmt: skip
def test_context_is_the_neighbours(sizes, last, margin):
    x = np.arange(sum(sizes) + last, dtype=np.float32)[:, None] + 1
    parts = np.split(x, np.cumsum(sizes))
    chunks = list(blocks.with_context(iter(parts), margin, blocks.silent))
    padded = np.pad(x, ((margin, margin), (0, 0)))
    start = 0
    for chunk in chunks:
        np.testing.assert_array_equal(chunk, padded[start : start + len(chunk)])
        start += len(chunk) - 2 * margin
    assert start == len(x)


def test_notes_are_continued_beyond_their_end():
    time = np.arange(6_000) / 22_050
    x = sum(np.sin(2 * np.pi * f * time + f) for f in (220, 331, 2_000))[:, None].astype(np.float32)
    found = blocks.continued(x[:5_000], 500)
    assert found.shape == (500, 1) and np.abs(found - x[5_000:5_500])[:100].max() < 0.05


@given(n=st.integers(1, 600), kind=st.sampled_from(["noise", "silence", "offset", "click", "loud"]))
def test_whatever_is_continued_stays_in_bounds(n, kind):
    x = np.random.default_rng(n).standard_normal((n, 2))
    x = {
        "noise": x,
        "silence": 0 * x,
        "offset": 0 * x + 0.3,
        "click": 1.0 * (x > 3),
        "loud": 900 * x,
    }[kind]
    found = blocks.continued(x.astype(np.float32), 700)
    assert found.shape == (700, 2) and np.abs(found).max() <= 5 * np.abs(x).max() + 1e-6


# Level ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offsets", [(0.2, 0.2), (0.2, -0.3)])
def test_offsets_change_neither_level_nor_sound(tmp_path, offsets):
    x = 0.3 * stereo(3.0)
    plain, _ = result_of(tmp_path / "x.wav", x, 44_100)
    y, _ = result_of(tmp_path / "x.wav", x + np.float32(offsets), 44_100)
    y = y - y.mean(axis=0)
    assert snr(y, plain) > 40
    assert db(power(y) / power(plain)) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_level_is_that_of_the_content(tmp_path, rate):
    x = 0.05 * music(3.0, rate)
    y, result = result_of(tmp_path / "x.wav", x, rate)
    assert db(power(y) / power(x)) == pytest.approx(0, abs=0.1)
    assert result.quieter_db < 0.1


def test_a_result_that_has_to_be_quieter_says_by_how_much(tmp_path):
    x = np.sign(np.sin(2 * np.pi * 200 * np.arange(2 * 44_100) / 44_100 + 0.3)).astype(np.float32)
    x *= 0.98
    y, result = result_of(tmp_path / "x.wav", x, 44_100, up(-30.0))
    assert np.abs(y).max() <= blocks.PEAK + 1e-6
    assert result.quieter_db > 0.5
    assert result.quieter_db == pytest.approx(db(power(x) / power(y)), abs=0.1)


def test_very_quiet_content_gives_the_same_result(tmp_path):
    x = 0.1 * stereo(3.0)
    plain, _ = result_of(tmp_path / "x.wav", x, 44_100)
    for factor in (1e-2, 1e-4):
        y, _ = result_of(tmp_path / "x.wav", x * np.float32(factor), 44_100)
        assert snr(y, plain) > 40
        assert db(power(y) / power(plain)) == pytest.approx(20 * np.log10(factor), abs=0.1)


def test_silence_around_the_sound_changes_nothing(tmp_path):
    """Half a minute of zeros would make the rest seem louder than it is."""

    def steep(content, style):  # a gain that depends on the level that models hear
        return lambda log_mel: 0.6 * (log_mel + 40)

    x = 0.1 * music(4.0)
    plain, _ = result_of(tmp_path / "x.wav", x, 44_100, steep)
    silence = np.zeros(30 * 44_100, np.float32)
    y, _ = result_of(tmp_path / "x.wav", np.concatenate([silence, x]), 44_100, steep)
    inner = slice(44_100 // 5, -1)  # the first notes begin in silence, not with a cut
    assert snr(y[len(silence) :][inner], plain[inner]) > 30
    assert np.abs(y[: len(silence) - 4096]).max() < 1e-6
    assert db(power(y[len(silence) :]) / power(plain)) == pytest.approx(0, abs=0.3)


def test_what_does_not_sound_has_no_say_in_the_level(tmp_path):
    """A gain that turns the sound down and the hiss of the pauses up, which are longer."""
    rng = np.random.default_rng(0)
    hiss = band(1e-4 * rng.standard_normal(8 * RATE), RATE, 5_000, 11_000)
    time = np.arange(RATE) / RATE
    x = hiss.astype(np.float32)
    x[:RATE] += (0.2 * np.hanning(RATE) * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    method = gains(lambda b: torch.where(b < 0.5, -30.0, 30.0))
    y, _ = result_of(tmp_path / "x.wav", x, RATE, method)
    assert db(power(y[:RATE]) / power(x[:RATE])) == pytest.approx(0, abs=0.3)


def test_gains_at_the_ends_come_from_inside(config):
    """Frames whose windows reach beyond the clip have the gains of their neighbours."""
    gain = np.repeat(np.arange(20.0, dtype=np.float32)[:, None], 3, axis=1)
    log_mel = np.full_like(gain, -30.0)
    log_mel[0] = -20.0  # a band that is 10 dB louder where the clip begins
    found = transfer._from_inside(gain, log_mel, 0.0, 19 * 512 + 100, config)[:, 0]
    assert found[:3].tolist() == [0, 2, 2]
    assert found[2:18].tolist() == list(range(2, 18))
    assert found[17:].tolist() == [17, 17, 17]


# Limiter ----------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 99), loudest=st.floats(0.1, 8.0), channels=st.integers(1, 3),
    sizes=st.lists(st.integers(700, 5_000), min_size=1, max_size=4),
)  # fmt: skip
def test_limiter_keeps_below_the_peak_and_changes_no_more_than_it_must(
    seed, loudest, channels, sizes
):
    rng = np.random.default_rng(seed)
    x = 0.1 * rng.standard_normal((sum(sizes), channels)).astype(np.float32)
    at = rng.integers(len(x))
    x[at, rng.integers(channels)] = loudest
    parts = np.split(x, np.cumsum(sizes)[:-1])
    y = np.concatenate(list(blocks.limited(iter(parts), 16_000)))
    assert y.shape == x.shape and np.abs(y).max() <= blocks.PEAK + 1e-6
    if loudest <= blocks.PEAK:
        np.testing.assert_array_equal(y, x)
        return
    sample_gain = y / np.where(x == 0, 1, x)
    np.testing.assert_allclose(sample_gain, sample_gain[:, :1] + 0 * x, atol=1e-5)  # linked
    needed = blocks.PEAK / loudest
    assert sample_gain[at].max() == pytest.approx(needed, rel=1e-5)  # and no less
    assert sample_gain.max() <= 1 + 1e-6 and sample_gain.min() >= needed - 1e-5
    reach = 2 * 160
    np.testing.assert_array_equal(y[: max(0, at - reach)], x[: max(0, at - reach)])
    np.testing.assert_array_equal(y[at + reach + 1 :], x[at + reach + 1 :])
    assert np.abs(np.diff(sample_gain[:, 0])).max() < 1.1 * (1 - needed) / 320 + 1e-5  # no steps


# Ends -------------------------------------------------------------------------------------------


@settings(max_examples=12)
@given(cut=st.integers(0, 2_000), length=st.integers(40_000, 60_000), pitch=st.integers(50, 70))
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_a_note_that_is_cut_does_not_click(tmp_path, rate, cut, length, pitch):
    time = np.arange(70_000) / rate
    f = 440 * 2 ** ((pitch - 69) / 12)
    organ = sum(np.sin(2 * np.pi * k * f * time + k) / k for k in range(1, 5))
    x = (0.1 * organ[cut : cut + length]).astype(np.float32)
    y, _ = result_of(tmp_path / "x.wav", x, rate, up(30.0))
    inner = np.abs(y[rate // 4 : -rate // 4]).max()
    edge = rate // 10
    assert max(np.abs(y[:edge]).max(), np.abs(y[-edge:]).max()) < 1.5 * inner


@pytest.mark.parametrize("method", [wild, up(20.0)], ids=["wild", "up"])
def test_an_attack_at_the_first_sample_is_not_lost(tmp_path, method):
    rng = np.random.default_rng(3)
    time = np.arange(44_100) / 44_100
    hit = (0.2 * np.exp(-25 * time) * (rng.standard_normal(44_100) + np.sin(1500 * time))).astype(
        np.float32
    )
    y, _ = result_of(tmp_path / "x.wav", np.tile(hit, 3), 44_100, method)
    first, later = (power(y[at : at + 882]) for at in (0, 44_100))
    assert abs(db(first / later)) < 6


# Writing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", audio.FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_keeps_rate_channels_and_count(tmp_path, suffix, channels):
    x = music(0.7, 48_000)[: 48_000 // 2 + 77]
    x = np.stack([x, 0.5 * x], axis=1)[:, :channels]
    path = tmp_path / f"x.{suffix}"
    with audio.writing(path, sample_rate=48_000, n_channels=channels) as put:
        for at in range(0, len(x), 7_000):
            put(x[at : at + 7_000])
    found, rate = sf.read(path, always_2d=True)
    assert found.shape == x.shape and rate == 48_000
    assert snr(found, x) > (15 if suffix in ("ogg", "oga", "opus", "mp3") else 50)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("suffix", "subtype", "kept"),
    [
        *((s, t, t) for s in ("wav", "aiff", "aif", "caf", "w64", "au")
          for t in ("PCM_24", "FLOAT", "DOUBLE")),
        ("flac", "PCM_24", "PCM_24"), ("flac", "FLOAT", "PCM_24"), ("flac", "PCM_32", "PCM_24"),
        ("wav", "PCM_U8", "PCM_16"), ("wav", "MPEG_LAYER_III", "PCM_16"), ("ogg", "PCM_24", "VORBIS"),
        ("mp3", "FLOAT", "MPEG_LAYER_III"),
    ],
)  # fmt: skip
def test_fine_sample_formats_are_kept(tmp_path, suffix, subtype, kept):
    path = tmp_path / f"x.{suffix}"
    x = 1e-4 * music(0.3)
    audio.write_audio(path, x, sample_rate=44_100, subtype=subtype)
    assert sf.info(path).subtype == kept
    if kept in audio.DEEP:
        assert snr(sf.read(path)[0], x) > 40  # 16 bits would leave 10 dB


@pytest.mark.parametrize(("suffix", "rate"), [("mp3", 96_000), ("opus", 44_100), ("opus", 32_000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_rate_that_a_format_does_not_take_is_said(
    tmp_path, tone, peak_hz, suffix, rate, channels
):
    x = np.repeat(tone(1000.0, 2.0, sample_rate=rate)[:, None], channels, axis=1)
    path = tmp_path / f"x.{suffix}"
    with pytest.warns(AudioWarning, match=rf"x.{suffix}: written at 48000 Hz, .{suffix} does not"):
        audio.write_audio(path, x, sample_rate=rate)
    found, found_rate = sf.read(path, always_2d=True)
    assert found_rate == 48_000 and abs(len(found) - 96_000) <= 1
    assert peak_hz(found[:, -1], 48_000) == pytest.approx(1000, abs=0.5)


@pytest.mark.parametrize(("suffix", "channels"), [("mp3", 8), ("mp3", 3), ("flac", 9)])
def test_channels_that_a_format_does_not_take_are_refused(tmp_path, suffix, channels):
    with pytest.raises(AudioError, match=rf"does not take {channels} channels .*write a .wav"):
        audio.write_audio(tmp_path / f"x.{suffix}", np.zeros((9_000, channels)), sample_rate=44_100)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "caf"])
def test_a_file_that_arrived_short_is_refused(tmp_path, monkeypatch, suffix):
    """Some file systems tell of a full disk only when the file is closed, or never."""
    path = tmp_path / f"x.{suffix}"
    path.write_text("old")
    write = sf.SoundFile.write
    monkeypatch.setattr(sf.SoundFile, "write", lambda self, x: write(self, x[: len(x) - 2000]))
    with pytest.raises(AudioError, match=r"not written, 42100 of 44100 samples arrived .*full"):
        audio.write_audio(path, music(1.0), sample_rate=44_100)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_block_that_is_not_finite_leaves_no_file(tmp_path, suffix, value):
    x = music(0.5)
    with (
        pytest.raises(AudioError, match="not written, the result holds samples that are not fin"),
        audio.writing(tmp_path / f"x.{suffix}", sample_rate=44_100, n_channels=1) as put,
    ):
        put(x)
        x[-1] = value
        put(x)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_wav_can_state_is_rf64(tmp_path):
    settings_ = {"sample_rate": 96_000, "n_channels": 8, "subtype": "FLOAT"}
    path = tmp_path / "x.wav"
    assert audio.output_settings(path, **settings_, n_samples=96_000)["format"] == "WAV"
    assert audio.output_settings(path, **settings_, n_samples=30 * 60 * 96_000)["format"] == "RF64"


def test_a_link_is_followed(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "x.wav"
    link.symlink_to(folder / "real.wav")
    for _ in range(2):  # a file that is not there yet, and one that is
        audio.write_audio(link, music(0.2), sample_rate=44_100)
        assert link.is_symlink() and sf.info(folder / "real.wav").frames == 8_820
    assert len(list(tmp_path.rglob("*"))) == 3


def test_names_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("é" * 123 + ".wav")  # 250 bytes
    audio.write_audio(path, music(0.2), sample_rate=44_100)
    assert list(tmp_path.iterdir()) == [path]


def test_only_leftovers_of_the_dead_on_this_machine_are_removed(tmp_path, monkeypatch):
    path, other = tmp_path / "x.json", tmp_path / "y.json"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = {}
    with monkeypatch.context() as patch:
        for host, process, target in (
            ("here", ended.pid, path),
            ("here", os.getppid(), path),
            ("there", ended.pid, path),
            ("here", ended.pid, other),
        ):
            patch.setattr(paths.socket, "gethostname", lambda host=host: host)
            patch.setattr(paths.os, "getpid", lambda process=process: process)
            with paths.written_beside(target) as temporary:
                temporary.touch()
            left[host, process, target] = temporary
    for temporary in left.values():
        temporary.touch()
    monkeypatch.setattr(paths.socket, "gethostname", lambda: "here")
    with paths.written_beside(path) as temporary:
        temporary.write_text("{}")
    assert not left.pop(("here", ended.pid, path)).exists()
    assert sorted(tmp_path.iterdir()) == sorted([path, other, *left.values()])


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_players_refuse_what_would_end_the_process(value):
    code = (
        "import sys, numpy as np; from audiostyle_lib.course import listen\n"
        "x = np.zeros(30000); x[20000] = float(sys.argv[1])\n"
        "try: listen.mp3(x, 22050)\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, value], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the clip: holds samples that are not finite (NaN or infinity)\n"


def test_a_result_is_written_as_its_content_was(tmp_path):
    x = 0.3 * stereo(1.0, 48_000)
    sf.write(tmp_path / "x.aiff", x, 48_000, "PCM_24")
    with warnings.catch_warnings(), audio.open_recording(tmp_path / "x.aiff") as content:
        warnings.simplefilter("error")
        transfer.transfer_recording(content, x[:, 0], method=wild).write(tmp_path / "y.wav")
    info = sf.info(tmp_path / "y.wav")
    assert (info.frames, info.channels, info.samplerate) == (len(x), 2, 48_000)
    assert info.subtype == "PCM_24"
