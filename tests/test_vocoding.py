"""From a spectrogram back to sound: exact where it can be, close and improving where it cannot."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from audiostyle_lib import vocoding
from audiostyle_lib.config import AudioConfig, ConfigMismatchError
from audiostyle_lib.evaluation import metrics
from audiostyle_lib.models.vocos import Vocos
from audiostyle_lib.signal import audio, features, frames, mel_inversion, phase_recovery


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
    assert_close(
        vocoding.render(spectrum, zero, config, n_samples=x.shape[1]), x, atol=1e-5, rtol=0
    )


@given(st.floats(-40, 12))
def test_constant_gain_is_exact(clip, config, gain_db):
    x = one(clip(0.5))
    spectrum = features.stft(x, config)
    y = vocoding.render(spectrum, torch.full((1, 128, 1), gain_db), config, n_samples=x.shape[1])
    assert_close(y, x * 10 ** (gain_db / 20), atol=1e-5, rtol=0)


@pytest.mark.parametrize("band", [0, 3, 60, 127])
def test_gain_of_one_band_changes_only_its_bins(clip, config, band):
    spectrum = features.stft(one(clip(0.5)), config)
    gain = torch.zeros(1, 128, 1)
    gain[0, band] = 20.0
    ratio = (vocoding.apply_gain(spectrum, gain, config) / spectrum).abs()[0, :, 5]
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
        magnitude = mel_inversion.mel_to_magnitude(target, config, steps=steps)
        assert torch.isfinite(magnitude).all() and (magnitude >= 0).all()
        again = features.power_to_db(features.mel_power(magnitude**2, config))
        return float((again - target).abs()[loud].mean())

    errors = [error(steps) for steps in (0, 2, 20)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1.0  # dB


def test_updates_by_band_are_those_by_matrix(clip, config):
    x = one(clip(0.5))
    mel = features.mel_power(features.stft(x, config).abs() ** 2, config)
    power = torch.rand(1, 1025, mel.shape[2], generator=torch.Generator().manual_seed(0))
    found = mel_inversion.towards_mel(power, mel, config, steps=5)
    expected = mel_inversion._towards_mel_dense(power, mel, config, 5)
    assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_a_scaled_spectrum_keeps_its_phases_and_has_the_mel_spectrogram(clip, config):
    x = clip(0.5)
    mel = features.mel_power(features.stft(one(x), config).abs() ** 2, config)[0].numpy().T
    rng = np.random.default_rng(0)
    shape = (len(mel), 1025)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    scaled, nothing = spectrum.copy(), np.zeros_like(spectrum)
    for _ in range(100):
        mel_inversion.scale_towards_mel(
            scaled.copy(), nothing, 0.0, np.ascontiguousarray(mel), config, scaled
        )
    scale = scaled / spectrum
    assert np.abs(scale.imag).max() < 1e-4 * np.abs(scale).max() and scale.real.min() >= 0
    power = torch.from_numpy(np.abs(scaled.T[None]) ** 2)
    again = features.power_to_db(features.mel_power(power, config))[0].T.numpy()
    wanted = 10 * np.log10(mel + 1e-10)
    loud = wanted > wanted.max() - 60
    assert np.abs(again - wanted)[loud].mean() < 0.3  # dB


def test_inverted_silence_is_silent(config):
    log_mel = torch.full((1, 128, 20), -100.0)
    y = vocoding.mel_to_waveform(log_mel, config)
    assert y.shape == (1, 19 * config.hop_length) and float(y.abs().max()) < 1e-4


def test_mel_to_waveform_keeps_pitch_and_level(tone, peak_hz, config):
    x = tone(440.0, 1.0)
    y = vocoding.mel_to_waveform(features.log_mel(one(x), config), config, n_samples=len(x))[
        0
    ].numpy()
    assert y.shape == x.shape
    assert peak_hz(y) == pytest.approx(440, abs=config.sample_rate / config.n_fft / 2)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


# Griffin-Lim ----------------------------------------------------------------------------------


def convergence(x: np.ndarray, config, **settings) -> float:
    magnitude = features.stft(one(x), config).abs()
    y = vocoding.griffin_lim(magnitude, config, n_samples=len(x), **settings)
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
    y = vocoding.griffin_lim(magnitude, config, n_samples=len(x))[0].numpy()
    assert peak_hz(y) == pytest.approx(frequency, abs=3)
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


def test_griffin_lim_repeats_with_its_seed(clip, config):
    magnitude = features.stft(one(clip(0.5)), config).abs()

    def run(seed):
        return vocoding.griffin_lim(magnitude, config, n_samples=11_025, iterations=2, seed=seed)

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2), atol=1e-3)


def test_griffin_lim_draws_phases_from_the_whole_circle(config, monkeypatch):
    """A quarter of all lies in each quadrant, unlike where only the first one is drawn from."""
    drawn = []
    istft = frames.istft

    def seen(spectrum, **settings):
        drawn.append(torch.from_numpy(spectrum))
        return istft(spectrum, **settings)

    monkeypatch.setattr(frames, "istft", seen)
    vocoding.griffin_lim(torch.full((1, 1025, 40), 2.0), config, n_samples=20_000, iterations=0)
    (spectrum,) = drawn
    assert_close(spectrum.abs(), torch.full((40, 1025), 2.0))
    quadrant = (spectrum.real < 0).int() + 2 * (spectrum.imag < 0).int()
    share = quadrant.flatten().bincount(minlength=4) / quadrant.numel()
    assert_close(share, torch.full((4,), 0.25), atol=0.01, rtol=0)


# Phase on a CPU, and heap integration -----------------------------------------------------------


@settings(max_examples=15)
@given(n_samples=st.integers(1, 30_000), n_fft=st.sampled_from([512, 2048]))
def test_stft_with_frames_first_is_the_stft(n_samples, n_fft):
    x = np.random.default_rng(n_samples).uniform(-1, 1, n_samples).astype(np.float32)
    sizes = {"n_fft": n_fft, "hop_length": n_fft // 4}
    found = frames.stft(x, **sizes)
    expected = librosa.stft(x, n_fft=n_fft, hop_length=n_fft // 4, pad_mode="constant").T
    np.testing.assert_allclose(found, expected, atol=2e-4)
    back = frames.istft(found, **sizes, n_samples=n_samples)
    covered = min(n_samples, (len(found) - 1) * n_fft // 4 + n_fft // 4)
    np.testing.assert_allclose(back[:covered], x[:covered], atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.99])
def test_griffin_lim_of_both_kinds_is_the_same(clip, config, momentum):
    x = clip(0.5)
    spectrum = features.stft(one(x), config)
    magnitude, turn = spectrum.abs(), torch.randn_like(spectrum)
    ours = vocoding.griffin_lim(
        magnitude, config, n_samples=len(x), iterations=3, momentum=momentum, phase=turn
    )
    unit = turn / turn.abs()
    batched = vocoding._griffin_lim_batched(magnitude, unit, config, len(x), 3, momentum)
    assert_close(ours, batched, atol=2e-3, rtol=0)


def test_griffin_lim_of_another_number_of_frames_is_refused(config):
    with pytest.raises(ValueError, match="10 frames for 9000 samples"):
        vocoding.griffin_lim(torch.ones(1, 1025, 10), config, n_samples=9000)


def test_heap_integration_gives_a_tone_back(tone, config):
    x = tone(441.3, 1.0)
    magnitude = features.stft(one(x), config).abs()
    spectrum = vocoding.heap_integration(magnitude, config)
    assert_close(spectrum.abs(), magnitude, atol=1e-3, rtol=1e-4)
    y = features.istft(spectrum, config, len(x))[0].numpy()
    assert metrics.spectral_convergence(y, x, config) < -25


def test_heap_integration_is_a_better_start_than_chance(clip, config):
    x = clip(2.0)
    magnitude = features.stft(one(x), config).abs()
    start = vocoding.heap_integration(magnitude, config)
    found = {n: convergence(x, config, iterations=n, phase=start) for n in (0, 4)}
    assert found[0] < convergence(x, config, iterations=4) - 2
    assert found[4] < convergence(x, config, iterations=32)


def test_heap_integration_keeps_known_phases_and_continues_them(clip):
    x = clip(1.0)
    spectrum = frames.stft(x, 2048, 512)
    settings_ = {"n_fft": 2048, "hop_length": 512}
    angle = phase_recovery.heap_integration(
        np.abs(spectrum), known=np.angle(spectrum[:8]), **settings_
    )
    made = phase_recovery.polar(np.abs(spectrum), angle)
    np.testing.assert_allclose(made[:8], spectrum[:8], atol=1e-2)
    error = np.abs(made[8] - spectrum[8]) ** 2
    assert error.sum() < 0.2 * (np.abs(spectrum[8]) ** 2).sum()  # 2 by chance


def test_momentum_goes_on_from_the_step_before(clip, config):
    """`rebuilt` - factor `previous`, scaled; `previous` is replaced."""
    x = clip(0.3)
    spectrum = frames.stft(x, 2048, 512)
    mel = features.mel_power(features.stft(one(x), config).abs() ** 2, config)[0].numpy().T
    mel = np.ascontiguousarray(mel)
    previous, found = 0.5 * spectrum, np.empty_like(spectrum)
    mel_inversion.scale_towards_mel(spectrum, previous, 0.4, mel, config, found)
    np.testing.assert_array_equal(previous, spectrum)
    inside = slice(1, 1020)  # 0 Hz and the topmost bins lie in no filter and keep 0.8 of it
    np.testing.assert_allclose(found[:, inside], spectrum[:, inside], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[:, 0], 0.8 * spectrum[:, 0], rtol=1e-4)


@pytest.mark.parametrize("vocoder", vocoding.FROM_LOG_MEL)
@pytest.mark.parametrize("seconds", [0.2, 7.3])
def test_long_spectrograms_are_joined_without_a_seam(clip, config, monkeypatch, seconds, vocoder):
    """In blocks of 1.5 s as good as in one piece, and no louder where they meet than anywhere else."""
    x = clip(seconds)
    log_mel = features.log_mel(one(x), config)
    settings_ = {"n_samples": len(x), "vocoder": vocoder}
    whole = vocoding.mel_to_waveform(log_mel, config, **settings_)[0].numpy()
    monkeypatch.setattr(vocoding, "BLOCK_FRAMES", 64)
    joined = vocoding.mel_to_waveform(log_mel, config, **settings_)[0].numpy()
    assert joined.shape == x.shape and np.isfinite(joined).all()
    scores = [metrics.log_mel_l1(y, x, config) for y in (whole, joined)]
    assert scores[1] < 1.1 * scores[0]
    jump = np.abs(np.diff(joined, n=2))
    seams = np.arange(60, log_mel.shape[2] - 8, 64) * config.hop_length
    for seam in seams:
        near = jump[max(0, seam - 2000) : seam + 2000]
        assert jump[seam - 3 : seam + 3].max() <= np.quantile(near, 0.999) * 1.5


@pytest.mark.parametrize("vocoder", ["pghi", "neural"])
def test_ten_minutes_need_little_memory(vocoder):
    code = f"""
import resource, torch
from audiostyle_lib import config, vocoding
c = config.AudioConfig()
log_mel = 20 * torch.rand(1, c.n_mels, 1 + 600 * c.sample_rate // c.hop_length) - 40
vocoding.mel_to_waveform(log_mel[:, :, :4100], c, vocoder="{vocoder}")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
y = vocoding.mel_to_waveform(log_mel, c, vocoder="{vocoder}")
assert y.shape[1] == (log_mel.shape[2] - 1) * c.hop_length and bool(y.isfinite().all())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) < 200  # MB; the waveform itself takes 53, twice


@pytest.mark.parametrize("vocoder", vocoding.VOCODERS)
def test_silence_stays_silent(config, vocoder):
    n_samples = 22_050
    spectrum = torch.zeros(1, 1025, config.n_frames(n_samples), dtype=torch.complex64)
    no_gain = torch.zeros(1, 128, spectrum.shape[2])
    y = vocoding.render(spectrum, no_gain, config, n_samples=n_samples, vocoder=vocoder)
    assert y.shape == (1, n_samples) and float(y.abs().max()) < 1e-3


@pytest.mark.parametrize("vocoder", vocoding.VOCODERS)
@pytest.mark.parametrize("n_samples", [1, 511, 512, 2047])
def test_the_shortest_clips_come_back_finite_and_as_long(clip, config, vocoder, n_samples):
    spectrum = features.stft(one(clip(0.2)[:n_samples]), config)
    no_gain = torch.zeros(1, 128, spectrum.shape[2])
    y = vocoding.render(spectrum, no_gain, config, n_samples=n_samples, vocoder=vocoder)
    assert y.shape == (1, n_samples) and bool(y.isfinite().all()) and float(y.abs().max()) <= 1


@pytest.mark.parametrize("vocoder", vocoding.FROM_LOG_MEL)
@pytest.mark.parametrize("gain_db", [0.0, 60.0])
def test_a_full_scale_square_wave_never_clips(tone, config, vocoder, gain_db):
    x = np.sign(tone(220.0, 1.0))
    log_mel = features.log_mel(one(x), config) + gain_db
    y = vocoding.mel_to_waveform(log_mel, config, n_samples=len(x), vocoder=vocoder)[0].numpy()
    assert np.isfinite(y).all() and 0.5 < np.abs(y).max() <= 1.0


# The network ----------------------------------------------------------------------------------


def test_pretrained_network_gives_the_mel_spectrogram_back(clip, config):
    x = clip(1.0)
    log_mel = features.log_mel(one(x), config)
    magnitude = vocoding.load_model(config).magnitude(log_mel).detach()
    again = features.power_to_db(features.mel_power(magnitude**2, config))
    assert float((again - log_mel)[log_mel > log_mel.max() - 60].abs().mean()) < 1.2


def test_pretrained_network_is_nearer_to_the_magnitudes_than_inversion(clip, config):
    x = clip(3.0)
    true = features.stft(one(x), config).abs()
    log_mel = features.log_mel(one(x), config)

    def distance(magnitude):
        return float((magnitude - true).norm() / true.norm())

    learned = distance(vocoding.load_model(config).magnitude(log_mel).detach())
    assert learned < 0.9 * distance(mel_inversion.mel_to_magnitude(log_mel, config))


def test_model_of_another_front_end_is_refused_in_one_line(clip, config):
    other = AudioConfig(hop_length=256)
    with pytest.raises(ConfigMismatchError, match=r"hop_length 512 instead of 256"):
        vocoding.load_model(other)
    with pytest.raises(ConfigMismatchError, match=r"hop_length 256 instead of 512") as error:
        vocoding.mel_to_waveform(
            features.log_mel(one(clip(0.2)), config), config, vocoder="neural",
            model=Vocos(config=other, channels=8, hidden=8, blocks=1),
        )  # fmt: skip
    assert "\n" not in str(error.value)


def test_blocks_of_the_network_are_the_whole(clip, config):
    """A block's magnitudes are those of the whole spectrogram: it is heard with its surroundings."""
    log_mel = features.log_mel(one(clip(6.0)), config)[0]
    model = vocoding.load_model(config)
    n_frames = log_mel.shape[1]
    whole = vocoding._magnitude(log_mel, 0, n_frames, model, config)
    for first, last in ((0, 90), (90, 180), (180, n_frames)):
        part = vocoding._magnitude(log_mel, first, last, model, config)
        np.testing.assert_allclose(part, whole[first:last], rtol=1e-3, atol=1e-5)


# The choice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocoder", "worst_sc", "worst_l1"),
    [
        ("gain", -100, 0.01),
        ("content_phase", -12, 3.0),
        ("griffin_lim", -6, 3.0),
        ("pghi", -6, 2.0),
        ("neural", -6, 2.0),
    ],
)
def test_every_vocoder_gives_the_content_back_at_zero_gain(
    clip, config, vocoder, worst_sc, worst_l1
):
    x = clip(2.0)
    spectrum = features.stft(one(x), config)
    zero = torch.zeros(1, 128, spectrum.shape[2])
    y = vocoding.render(spectrum, zero, config, n_samples=len(x), vocoder=vocoder)[0].numpy()
    assert y.shape == x.shape
    assert metrics.spectral_convergence(y, x, config) < worst_sc
    assert metrics.log_mel_l1(y, x, config) < worst_l1
    assert audio.rms_dbfs(y) == pytest.approx(audio.rms_dbfs(x), abs=0.5)


def test_every_vocoder_applies_the_gain(clip, config):
    x = clip(1.0)
    spectrum = features.stft(one(x), config)
    minus_12 = torch.full((1, 128, spectrum.shape[2]), -12.0)
    for vocoder in vocoding.VOCODERS:
        y = vocoding.render(spectrum, minus_12, config, n_samples=len(x), vocoder=vocoder)[
            0
        ].numpy()
        assert audio.rms_dbfs(y) - audio.rms_dbfs(x) == pytest.approx(-12, abs=0.6)


def test_unknown_vocoder_names_the_choices(clip, config):
    spectrum = features.stft(one(clip(0.2)), config)
    choices = "choose one of gain, content_phase, griffin_lim, pghi, neural"
    with pytest.raises(ValueError, match=f"'world': {choices}"):
        vocoding.render(spectrum, torch.zeros(1, 128, 1), config, n_samples=4410, vocoder="world")
    with pytest.raises(ValueError, match="content_phase needs the content's STFT"):
        vocoding.mel_to_waveform(torch.zeros(1, 128, 9), config, vocoder="content_phase")


@pytest.mark.parametrize("vocoder", vocoding.FROM_LOG_MEL)
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda x: x[0], r"wanted a log-mel \(B, 128, T\), got shape \(128, 9\)"),
        (lambda x: x[:, :80], "wanted a log-mel"),
        (lambda x: x[:, :, :0], "wanted a log-mel"),
        (lambda x: x.masked_fill(x == x[0, 5, 3], torch.nan), "not finite"),
        (lambda x: x / 0, "not finite"),
    ],
    ids=["one clip", "80 bands", "empty", "NaN", "infinite"],
)
def test_unusable_log_mels_are_refused_in_one_line(config, vocoder, make, why):
    log_mel = -30 - torch.arange(128 * 9.0).reshape(1, 128, 9) / 100
    with pytest.raises(ValueError, match=why) as error:
        vocoding.mel_to_waveform(make(log_mel), config, vocoder=vocoder)
    assert "\n" not in str(error.value)


def test_a_log_mel_of_64_bits_is_taken_and_magnitudes_that_are_not_finite_are_not(config):
    log_mel = -30 - torch.arange(128 * 9.0).reshape(1, 128, 9) / 100
    single, double = (vocoding.mel_to_waveform(x, config) for x in (log_mel, log_mel.double()))
    assert_close(double, single)
    with pytest.raises(ValueError, match="not finite"):
        vocoding.heap_integration(torch.full((1, 1025, 9), torch.nan), config)
