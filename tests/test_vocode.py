"""From a spectrogram back to sound: exact where it can be, close and improving where it cannot."""

from __future__ import annotations

from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from audiostyle_lib import audio, features, metrics, vocode


def one(waveform: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(waveform)[None]


@settings(max_examples=15)
@given(n_samples=st.integers(2048, 40_000), seed=st.integers(0, 99))
def test_stft_round_trip(config, n_samples, seed):
    x = torch.rand(2, n_samples, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    back = features.istft(features.stft(x, config), config, n_samples)
    assert_close(back, x, atol=1e-5, rtol=0)


# Gain on the content's own spectrogram --------------------------------------------------------


def test_zero_gain_is_the_identity(clip, config):
    x = one(clip(1.3))
    spectrum = features.stft(x, config)
    zero = torch.zeros(1, 128, spectrum.shape[2])
    assert_close(vocode.render(spectrum, zero, config, n_samples=x.shape[1]), x, atol=1e-5, rtol=0)


@given(st.floats(-40, 12))
def test_constant_gain_is_exact(clip, config, gain_db):
    x = one(clip(0.5))
    spectrum = features.stft(x, config)
    y = vocode.render(spectrum, torch.full((1, 128, 1), gain_db), config, n_samples=x.shape[1])
    assert_close(y, x * 10 ** (gain_db / 20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("band", [0, 3, 60, 127])
def test_gain_of_one_band_changes_only_its_bins(clip, config, band):
    spectrum = features.stft(one(clip(0.5)), config)
    gain = torch.zeros(1, 128, 1)
    gain[0, band] = 20.0
    ratio = (vocode.apply_gain(spectrum, gain, config) / spectrum).abs()[0, :, 5]
    centres = torch.from_numpy(librosa.mel_frequencies(n_mels=130, fmax=config.sample_rate / 2))
    f = features.frequencies(config)[:, 0]
    low = centres[band] if band else -1.0
    high = centres[band + 2] if band < 127 else 1e9
    outside = (f <= low) | (f >= high)
    assert_close(ratio[outside], torch.ones(int(outside.sum())), atol=1e-4, rtol=0)
    assert ratio[~outside].max() > 5 and ratio.max() <= 10.001


# Inversion of the mel spectrogram -------------------------------------------------------------


@pytest.mark.parametrize("which", ["synthetic", "real"])
def test_inverted_mel_is_analysed_as_itself(which, clip, config, request):
    x = clip(2.0) if which == "synthetic" else request.getfixturevalue("real_clip")
    target = features.log_mel(one(x), config)
    loud = target > target.max() - 80

    def error(steps: int) -> float:
        magnitude = vocode.mel_to_magnitude(target, config, steps=steps)
        assert torch.isfinite(magnitude).all() and (magnitude >= 0).all()
        again = features.power_to_db(features.mel_power(magnitude**2, config))
        return float((again - target).abs()[loud].mean())

    errors = [error(steps) for steps in (0, 2, 20)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1.0  # dB


def test_inverted_silence_is_silent(config):
    log_mel = torch.full((1, 128, 20), -100.0)
    y = vocode.mel_to_waveform(log_mel, config, iterations=2)
    assert y.shape == (1, 19 * config.hop_length) and float(y.abs().max()) < 1e-4


def test_mel_to_waveform_keeps_pitch_and_level(tone, peak_hz, config):
    x = tone(440.0, 1.0)
    y = vocode.mel_to_waveform(features.log_mel(one(x), config), config, n_samples=len(x))[
        0
    ].numpy()
    assert y.shape == x.shape
    assert peak_hz(y) == pytest.approx(440, abs=config.sample_rate / config.n_fft / 2)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


# Griffin-Lim ----------------------------------------------------------------------------------


def convergence(x: np.ndarray, config, **settings) -> float:
    magnitude = features.stft(one(x), config).abs()
    y = vocode.griffin_lim(magnitude, config, n_samples=len(x), **settings)
    return metrics.spectral_convergence(y[0].numpy(), x, config)


def test_griffin_lim_improves_with_iterations(clip, config):
    found = [convergence(clip(2.0), config, iterations=n) for n in (0, 2, 8, 32)]
    assert all(better < worse - 2 for worse, better in pairwise(found))
    assert found[-1] < -18


def test_original_griffin_lim_never_gets_worse_and_the_fast_one_is_better(clip, config):
    x = clip(1.0)
    slow = [convergence(x, config, iterations=n, momentum=0.0) for n in range(9)]
    assert all(b <= a + 1e-4 for a, b in pairwise(slow))
    assert convergence(x, config, iterations=8) < slow[-1] - 1


def test_griffin_lim_started_from_the_true_phase_is_exact(clip, config):
    x = clip(1.0)
    phase = 7.0 * features.stft(one(x), config)  # its modulus does not matter
    assert convergence(x, config, iterations=0, phase=phase) < -100
    assert convergence(x, config, iterations=5, phase=phase) < -60


@pytest.mark.parametrize("frequency", [220.0, 440.0, 3000.0])
def test_griffin_lim_recovers_a_tones_pitch_and_level(tone, peak_hz, config, frequency):
    x = tone(frequency, 1.0)
    magnitude = features.stft(one(x), config).abs()
    y = vocode.griffin_lim(magnitude, config, n_samples=len(x))[0].numpy()
    assert peak_hz(y) == pytest.approx(frequency, abs=3)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


def test_griffin_lim_repeats_with_its_seed(clip, config):
    magnitude = features.stft(one(clip(0.5)), config).abs()

    def run(seed):
        return vocode.griffin_lim(magnitude, config, n_samples=11_025, iterations=2, seed=seed)

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2), atol=1e-3)


def test_griffin_lim_draws_phases_from_the_whole_circle(config, monkeypatch):
    """A quarter of all lies in each quadrant, unlike where only the first one is drawn from."""
    drawn = []
    monkeypatch.setattr(features, "istft", lambda spectrum, *_: drawn.append(spectrum))
    vocode.griffin_lim(torch.full((1, 1025, 40), 2.0), config, n_samples=20_000, iterations=0)
    (spectrum,) = drawn
    assert_close(spectrum.abs(), torch.full((1, 1025, 40), 2.0))
    quadrant = (spectrum.real < 0).int() + 2 * (spectrum.imag < 0).int()
    share = quadrant.flatten().bincount(minlength=4) / quadrant.numel()
    assert_close(share, torch.full((4,), 0.25), atol=0.01, rtol=0)


# The choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocoder", "worst_sc", "worst_l1"),
    [("gain", -100, 0.01), ("content_phase", -12, 3.0), ("griffin_lim", -6, 4.0)],
)
def test_every_vocoder_gives_the_content_back_at_zero_gain(
    clip, config, vocoder, worst_sc, worst_l1
):
    x = clip(2.0)
    spectrum = features.stft(one(x), config)
    zero = torch.zeros(1, 128, spectrum.shape[2])
    y = vocode.render(spectrum, zero, config, n_samples=len(x), vocoder=vocoder)[0].numpy()
    assert y.shape == x.shape
    assert metrics.spectral_convergence(y, x, config) < worst_sc
    assert metrics.log_mel_l1(y, x, config) < worst_l1
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


def test_every_vocoder_applies_the_gain(clip, config):
    x = clip(1.0)
    spectrum = features.stft(one(x), config)
    minus_12 = torch.full((1, 128, spectrum.shape[2]), -12.0)
    for vocoder in vocode.VOCODERS:
        y = vocode.render(spectrum, minus_12, config, n_samples=len(x), vocoder=vocoder)[0].numpy()
        assert audio.rms_dbfs(y) - audio.rms_dbfs(x) == pytest.approx(-12, abs=0.6)


def test_unknown_vocoder_names_the_choices(clip, config):
    spectrum = features.stft(one(clip(0.2)), config)
    with pytest.raises(ValueError, match="'world': choose one of gain, griffin_lim, content_phase"):
        vocode.render(spectrum, torch.zeros(1, 128, 1), config, n_samples=4410, vocoder="world")
