"""The report's augmentations do what their names say."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from audiostyle_lib.signal import audio, augment

RATE = 22_050


@pytest.mark.parametrize("semitones", [-2.0, 2.0])
def test_pitch_shift_moves_a_tone_and_keeps_the_length(tone, peak_hz, config, semitones):
    x = tone(440.0, 2.0)
    y = augment.pitch_shift(x, semitones, config=config)
    assert y.shape == x.shape
    assert peak_hz(y) == pytest.approx(440 * 2 ** (semitones / 12), abs=2)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=1)


@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_time_stretch_changes_the_length_and_keeps_the_pitch(tone, peak_hz, config, rate):
    x = tone(440.0, 2.0)
    y = augment.time_stretch(x, rate, config=config)
    assert len(y) == round(len(x) / rate)
    assert peak_hz(y) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("rate", [0.8, 1.2])
def test_time_stretch_is_librosas_of_double_precision(clip, config, rate):
    """In single precision librosa's sums of angles lose 40 dB more than this tolerance."""
    x = clip(2.0)
    theirs = librosa.effects.time_stretch(x.astype(np.float64), rate=rate)
    np.testing.assert_allclose(augment.time_stretch(x, rate, config=config), theirs, atol=2e-4)
    shifted = librosa.effects.pitch_shift(x.astype(np.float64), sr=RATE, n_steps=-2)
    np.testing.assert_allclose(augment.pitch_shift(x, -2, config=config), shifted, atol=2e-4)


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_has_the_stated_level_and_is_white(clip, snr_db):
    x = clip(3.0)
    noise = augment.add_noise(x, snr_db, rng=np.random.default_rng(0)) - x
    assert audio.rms_dbfs(x) - audio.rms_dbfs(noise) == pytest.approx(snr_db, abs=0.1)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    low, high = spectrum[: len(spectrum) // 2].mean(), spectrum[len(spectrum) // 2 :].mean()
    assert low / high == pytest.approx(1, abs=0.1)


def copies(x: np.ndarray, count: int, config, seed: int = 0) -> torch.Tensor:
    clips = torch.from_numpy(x)[None]
    return augment.augmented_copies(clips, [len(x)], config=config, count=count, seed=seed)[0]


def test_five_different_copies_of_the_clips_length(tone, peak_hz, config):
    x = tone(440.0, 2.0)
    made = copies(x, 5, config).numpy()
    assert made.shape == (5, len(x)) and made.dtype == np.float32
    assert sorted(round(peak_hz(m) / 5) for m in made) == [78, 88, 88, 88, 99]  # 392, 440 x 3, 494
    silent_tails = [m for m in made if not m[-RATE // 4 :].any()]
    assert len(silent_tails) == 1, "only the faster copy ends early"


def test_copies_repeat_with_the_seed_and_can_be_fewer(clip, config):
    first, again, other = (copies(clip(1.0), 2, config, seed) for seed in (0, 0, 3))
    assert first.shape == (2, RATE)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_copies_of_many_clips_stay_with_their_clip_and_know_their_length(tone, peak_hz, config):
    n_samples, half = 2 * RATE, RATE
    clips = np.stack([tone(300.0, 2.0), np.pad(tone(1000.0, 1.0), (0, half))])
    made, valid = augment.augmented_copies(
        torch.from_numpy(clips), [n_samples, half], config=config, count=10, seed=0
    )
    assert made.shape == (10, n_samples)
    near = [300 if peak_hz(m) < 500 else 1000 for m in made.numpy()]
    assert near == [300] * 5 + [1000] * 5
    assert sorted(valid[:5]) == [round(n_samples / 1.2)] + [n_samples] * 4  # slower is cut
    assert sorted(valid[5:]) == [round(half / 1.2)] + [half] * 3 + [round(half / 0.8)]
    for waveform, n in zip(made.numpy(), valid, strict=True):
        assert not waveform[n:].any() and audio.rms_dbfs(waveform[n - 2000 : n]) > -30


def test_copies_are_spread_over_the_clips(clip, config):
    clips = torch.from_numpy(np.stack([clip(0.5), clip(0.5), clip(0.5)]))
    n = clips.shape[1]
    made, valid = augment.augmented_copies(clips, [n] * 3, config=config, count=4, seed=0)
    assert len(made) == len(valid) == 4
    made, _ = augment.augmented_copies(clips, [n] * 3, config=config, count=99, seed=0)
    assert len(made) == 15, "at most five of each"
