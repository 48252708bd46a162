"""Metrics on inputs whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import r2_score as sklearn_r2

from audiostyle_lib.evaluation import metrics
from audiostyle_lib.signal import features

HALF_DB = 20 * np.log10(2)


def random_log_mel(seed: int = 0, n_frames: int = 40) -> torch.Tensor:
    return -30 + 8 * torch.randn(128, n_frames, generator=torch.Generator().manual_seed(seed))


def test_identical_items_are_perfect(clip, config):
    x, waveform = random_log_mel()[None], clip(1.0)
    assert metrics.cosine_similarity(x, x) == pytest.approx(1)
    assert metrics.mean_absolute_error(x, x) == metrics.mean_squared_error(x, x) == 0
    assert metrics.r2_score(x[0], x[0]) == 1
    assert metrics.log_spectral_distance(x[0], x[0]) == 0
    assert metrics.log_mel_l1(waveform, waveform, config) == 0
    assert metrics.chroma_similarity(waveform, waveform, config) == pytest.approx(1, abs=1e-5)
    assert metrics.spectral_convergence(waveform, waveform, config) == -np.inf


def test_multi_resolution_stft_of_a_gain_is_known(clip):
    """Half the amplitude: a relative error of a half, and log 2 everywhere."""
    x = clip(1.0) + 0.1 * np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    assert metrics.multi_resolution_stft(x, x) == pytest.approx(0, abs=1e-6)
    assert metrics.multi_resolution_stft(0.5 * x, x) == pytest.approx(0.5 + np.log(2), abs=0.01)


def test_visqol_falls_with_noise_and_wants_a_second_that_is_not_silent(clip, config):
    x = clip(2.0)
    noise = np.random.default_rng(0).standard_normal(len(x)).astype(np.float32)
    scores = [metrics.visqol(x + a * noise, x, config) for a in (0.0, 1e-3, 0.1)]
    assert 5 > scores[0] > scores[1] > scores[2] > 1
    assert scores[0] == pytest.approx(4.73, abs=0.01)
    assert metrics.visqol(0.5 * x, x, config) == pytest.approx(scores[0], abs=0.01)  # of no level
    assert np.isnan(metrics.visqol(0 * x, x, config)) and np.isnan(metrics.visqol(x, 0 * x, config))
    with pytest.raises(ValueError, match="needs a second"):
        metrics.visqol(x[:9000], x[:9000], config)


def test_cosine_is_a_mean_over_items_of_directions():
    a = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]], [[1.0, 1.0]]])
    b = torch.tensor([[[6.0, 0.0]], [[5.0, 0.0]], [[-1.0, -1.0]]])
    assert metrics.cosine_similarity(a, b) == pytest.approx((1 + 0 - 1) / 3)
    assert metrics.cosine_similarity(0 * a, b) == 0  # a mean that was subtracted, not NaN


def test_errors_of_a_known_difference():
    a, b = torch.zeros(2, 3), torch.tensor([[1.0, -1.0, 2.0], [0.0, 0.0, -4.0]])
    assert metrics.mean_absolute_error(a, b) == pytest.approx(8 / 6)
    assert metrics.mean_squared_error(a, b) == pytest.approx(22 / 6)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 30), columns=st.integers(1, 5))
def test_r2_equals_sklearns(seed, rows, columns):
    rng = np.random.default_rng(seed)
    target = rng.normal(rng.normal(0, 50, columns), rng.uniform(0.1, 9, columns), (rows, columns))
    predicted = target + rng.normal(0, 3, (rows, columns))
    if columns > 2:
        target[:, 0], target[:, 1], predicted[:, 1] = 4.0, 4.0, 4.0  # constant: missed, met
    ours = metrics.r2_score(torch.from_numpy(predicted), torch.from_numpy(target))
    assert ours == pytest.approx(sklearn_r2(target, predicted), rel=1e-9)


def test_r2_of_the_mean_is_zero():
    target = random_log_mel()
    assert metrics.r2_score(target.mean(dim=0).expand_as(target), target) == pytest.approx(
        0, abs=1e-9
    )


@given(st.floats(-40, 40))
def test_lsd_of_a_constant_offset_is_the_offset(offset):
    x = random_log_mel()
    for axis in ("time", "frequency"):
        found = metrics.log_spectral_distance(x, x + offset, axis=axis)
        assert found == pytest.approx(abs(offset), abs=1e-5)


def test_lsd_axes_differ_as_defined():
    by_band = torch.linspace(0, 10, 128)[:, None].expand(128, 40)
    zero = torch.zeros(128, 40)
    assert metrics.log_spectral_distance(zero, by_band, axis="time") == pytest.approx(5)
    rms = float(by_band[:, 0].double().square().mean().sqrt())
    assert metrics.log_spectral_distance(zero, by_band, axis="frequency") == pytest.approx(rms)
    by_frame = torch.linspace(0, 10, 40).expand(128, 40)
    assert metrics.log_spectral_distance(zero, by_frame, axis="frequency") == pytest.approx(5)
    with pytest.raises(KeyError):
        metrics.log_spectral_distance(zero, zero, axis="bands")


def test_lsd_compares_the_common_length():
    x = random_log_mel(n_frames=50)
    assert metrics.log_spectral_distance(x, x[:, :30]) == 0


def test_half_amplitude_is_six_db(clip, config):
    x = clip(2.0)
    noise = 0.2 * np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    assert metrics.spectral_convergence(0.5 * x, x, config) == pytest.approx(-HALF_DB, abs=1e-3)
    assert metrics.log_mel_l1(0.5 * noise, noise, config) == pytest.approx(HALF_DB, abs=1e-3)


def test_spectral_convergence_of_silence_is_zero_db_and_lengths_are_cut(clip, config):
    x = clip(1.0)
    assert metrics.spectral_convergence(np.zeros_like(x), x, config) == pytest.approx(0, abs=1e-6)
    assert metrics.log_mel_l1(np.pad(x, (0, 999)), x, config) == 0


def test_log_mel_l1_does_not_count_what_lies_80_db_down(tone, config):
    x = tone(440.0, 1.0, 0.5)
    hiss = 1e-7 * np.random.default_rng(0).standard_normal(len(x)).astype(np.float32)
    assert metrics.log_mel_l1(x + hiss, x, config) < 0.05


def test_comparison_log_mel_is_free_of_level_and_has_80_db(clip, config):
    x = clip(1.0)
    a, b = (metrics.comparison_log_mel(g * x, config) for g in (1.0, 0.05))
    assert float((a - b).abs().max()) < 0.02
    assert float(a.max() - a.min()) <= 80.0001
    power = 10 ** (features.log_mel(torch.from_numpy(x)[None], config)[0] / 10)
    shift = (a.max() - 10 * power.max().log10()).item()  # the gain to -20 dBFS
    assert shift == pytest.approx(-20 - 10 * np.log10(np.mean(x.astype(float) ** 2)), abs=0.01)


def chord(tone, *notes: float, octave: int = 0) -> np.ndarray:
    return sum(tone(440 * 2 ** (n / 12 + octave), 1.0, 0.2) for n in notes)


def test_chroma_similarity_is_about_pitch_classes(tone, config):
    a = chord(tone, 0)
    octave = metrics.chroma_similarity(a, chord(tone, 12), config)
    semitone = metrics.chroma_similarity(a, chord(tone, 1), config)
    tritone = metrics.chroma_similarity(a, chord(tone, 6), config)
    assert octave > 0.95
    assert tritone < 0.1
    assert tritone < semitone < 0.7 < octave
    same_chord = metrics.chroma_similarity(chord(tone, 0, 4, 7), chord(tone, 12, 4, 7), config)
    other_chord = metrics.chroma_similarity(chord(tone, 0, 4, 7), chord(tone, 1, 6, 9), config)
    assert same_chord > 0.95 and other_chord < 0.5


def test_pitch_class_agreement_is_zero_for_noise_and_tells_notes_apart(tone, config):
    a, rng = chord(tone, 0, 4, 7), np.random.default_rng(0)
    noise = [0.1 * rng.standard_normal(5 * 22_050).astype(np.float32) for _ in range(2)]
    assert metrics.pitch_class_agreement(a, 0.3 * a, config) == pytest.approx(1, abs=1e-3)
    assert metrics.pitch_class_agreement(a, chord(tone, 12, 4, 7), config) > 0.95
    assert metrics.pitch_class_agreement(a, chord(tone, 1, 6, 9), config) < 0
    unrelated = metrics.pitch_class_agreement(np.tile(a, 5), noise[0], config)
    assert abs(unrelated) < 0.4 < metrics.chroma_similarity(np.tile(a, 5), noise[0], config)


def test_chroma_similarity_ignores_gain_and_silent_frames(tone, config):
    a = tone(440.0, 2.0)
    b = a.copy()
    b[30_000:] = 0.0
    assert metrics.chroma_similarity(a, 0.01 * a, config) == pytest.approx(1, abs=1e-3)
    assert metrics.chroma_similarity(a, b, config) > 0.95


def test_timbre_distance_is_not_bought_by_an_equaliser_or_by_gain(clip, config):
    """Static filtering shifts the cepstrum's mean only; another sound changes its covariance."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 22_050).astype(np.float32)
    x = clip(3.0) + 0.05 * noise  # so that no band falls 80 dB below the peak
    spectrum = features.stft(torch.from_numpy(x)[None], config)
    bins = torch.linspace(0, 1, spectrum.shape[1])  # down to -9 dB at the top
    tilted = features.istft(spectrum * torch.exp(-bins)[:, None], config, len(x))[0].numpy()
    assert metrics.timbre_distance(x, x, config) < 0.1
    assert metrics.timbre_distance(x, 0.5 * x, config) < 0.5
    to_noise = metrics.timbre_distance(x, noise, config)
    assert metrics.timbre_distance(x, tilted, config) < 0.25 * to_noise
    assert metrics.timbre_distance(noise, x, config) == pytest.approx(to_noise, rel=1e-3)


def test_timbre_distance_is_the_bures_distance(clip, config, monkeypatch):
    """Of commuting covariances it is the Euclidean distance of the standard deviations."""
    covariances = iter([np.diag([1.0, 4.0, 9.0]), np.diag([16.0, 4.0, 25.0])])
    monkeypatch.setattr(metrics, "_timbre_covariance", lambda *_: next(covariances))
    assert metrics.timbre_distance(clip(0.1), clip(0.1), config) == pytest.approx(13**0.5)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 30), columns=st.integers(1, 9))
def test_metrics_agree_with_scikit_learn(seed, rows, columns):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(columns, rows, generator=generator).T  # not contiguous
    predicted = target + torch.randn(rows, columns, generator=generator)
    for name in ("mean_absolute_error", "mean_squared_error"):
        theirs = getattr(sklearn_metrics, name)(target, predicted)
        assert getattr(metrics, name)(predicted, target) == pytest.approx(theirs, rel=1e-5)
    cosine = np.diag(sklearn_metrics.pairwise.cosine_similarity(predicted, target)).mean()
    assert metrics.cosine_similarity(predicted, target) == pytest.approx(cosine, abs=1e-5)


def test_reconstruction_scores_are_their_parts():
    target = torch.stack([random_log_mel(seed) for seed in range(4)])
    predicted = target + torch.randn(target.shape, generator=torch.Generator().manual_seed(9))
    standardize = features.Standardizer(128).fit(target)
    scores = metrics.reconstruction_scores(predicted, target, standardize)
    p, t = standardize(predicted), standardize(target)
    assert scores["MSE"] == pytest.approx(float((p - t).square().mean()), rel=1e-5)
    assert scores["MAE"] == pytest.approx(float((predicted - target).abs().mean()), rel=1e-5)
    frames = [x.transpose(1, 2).reshape(-1, 128).numpy() for x in (t, p)]
    assert scores["R2"] == pytest.approx(sklearn_r2(*frames), rel=1e-5)
    assert scores["cosine"] == metrics.cosine_similarity(p, t)
    assert 0.9 < scores["cosine"] < scores["cosine in dB"] < 1
    assert "clip cosine" not in scores
    track = torch.tensor([0, 0, 1, 1])
    whole = metrics.reconstruction_scores(predicted, target, standardize, track)["clip cosine"]
    joined = [x.reshape(2, -1) for x in (p, t)]  # two segments a clip
    assert whole == pytest.approx(metrics.cosine_similarity(*joined))
    perfect = metrics.reconstruction_scores(target, target, standardize)
    assert perfect["R2"] == 1 and perfect["MSE"] == 0 and perfect["cosine"] == pytest.approx(1)


def test_a_prediction_is_measured_from_its_targets_maximum():
    target = torch.tensor([[[-10.0, -50.0, -200.0]]])
    assert metrics.db_below_maximum(target).tolist() == [[[0.0, -40.0, -80.0]]]
    louder = metrics.db_below_maximum(target + 20, target)
    assert louder.tolist() == [[[0.0, -20.0, -80.0]]]
