"""Features equal librosa's, and known signals give known values.

Tolerances: float32 rounding. Dips far below a spectrum's peak are rounding themselves, so values in
dB are compared tightly within the top 80 dB and loosely below.
"""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from audiostyle_lib.signal import features

RATE, N_FFT, HOP = 22_050, 2048, 512
BIN = RATE / N_FFT  # Hz
INNER = slice(3, -3)  # frames that do not reach over the ends


@pytest.fixture(scope="module", params=["synthetic", "real"])
def music(request, clip) -> np.ndarray:
    return clip() if request.param == "synthetic" else request.getfixturevalue("real_clip")


def batch(*waveforms: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(waveforms).astype(np.float32))


def librosa_log_mel(x: np.ndarray) -> np.ndarray:
    return librosa.power_to_db(librosa.feature.melspectrogram(y=x, sr=RATE), top_db=None)


# Parity with librosa --------------------------------------------------------------------------


def test_log_mel_equals_librosas(music, config):
    ours = features.log_mel(batch(music), config)[0].numpy()
    theirs = librosa_log_mel(music)
    np.testing.assert_allclose(ours, theirs, atol=0.02)  # dB, down to the floor of -100 dB
    floor = theirs.max() - 80
    np.testing.assert_allclose(ours.clip(floor), theirs.clip(floor), atol=2e-3)


def test_mfcc_equals_librosas(music, config):
    ours = features.mfcc(features.log_mel(batch(music), config), config)[0].numpy()
    theirs = librosa.feature.mfcc(y=music, sr=RATE, n_mfcc=20)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # of a range of several hundred


DESCRIPTOR_PARITY = {  # name -> librosa's function, absolute tolerance in its unit
    "zero_crossing_rate": (lambda x: librosa.feature.zero_crossing_rate(x), 1e-7),
    "centroid": (lambda x: librosa.feature.spectral_centroid(y=x, sr=RATE), 0.01),
    "bandwidth": (lambda x: librosa.feature.spectral_bandwidth(y=x, sr=RATE), 0.01),
    "rolloff": (lambda x: librosa.feature.spectral_rolloff(y=x, sr=RATE), BIN + 0.01),
    "contrast": (lambda x: librosa.feature.spectral_contrast(y=x, sr=RATE), 0.1),
    "flatness": (lambda x: librosa.feature.spectral_flatness(y=x), 1e-5),
    "rms": (lambda x: librosa.feature.rms(y=x), 1e-6),
    "chroma": (lambda x: librosa.feature.chroma_stft(y=x, sr=RATE, tuning=0.0), 1e-5),
}


@pytest.mark.parametrize("name", DESCRIPTOR_PARITY)
def test_descriptor_equals_librosas(music, config, name):
    x = batch(music)
    ours = features.descriptors(x, features.stft(x, config), config)[name][0].numpy()
    function, tolerance = DESCRIPTOR_PARITY[name]
    theirs = function(music)
    assert ours.shape == theirs.shape == (features.DESCRIPTORS[name], ours.shape[1])
    np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_every_descriptor_is_compared():
    assert set(DESCRIPTOR_PARITY) == set(features.DESCRIPTORS)


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@settings(max_examples=15)
@given(st.integers(1, 9000))
def test_any_length_gives_librosas_frames(clip, config, n_samples):
    x = clip(0.5)[:n_samples]
    ours = features.log_mel(batch(x), config)[0].numpy()
    assert ours.shape == (128, 1 + len(x) // HOP) == (128, config.n_frames(len(x)))
    np.testing.assert_allclose(ours, librosa_log_mel(x), atol=0.05)
    assert features.style_features(batch(x), config).shape == (1, 45, ours.shape[1])


def test_batch_equals_single(clip, config):
    loud, quiet = clip(1.0, 1), 1e-3 * clip(1.0, 2)  # a floor shared by the batch would show
    for function in (features.log_mel, features.style_features):
        together = function(batch(loud, quiet), config)
        assert_close(together[:1], function(batch(loud), config), atol=1e-4, rtol=1e-5)
        assert_close(together[1:], function(batch(quiet), config), atol=1e-4, rtol=1e-5)


def test_a_cpu_describes_frames_as_a_gpu_would(music, config):
    """Without a gradient a CPU takes `frame_features`; with one it takes what a GPU takes."""
    x, same = batch(music), batch(music).requires_grad_()
    for function, tolerance in ((features.log_mel, 2e-3), (features.style_features, 0.1)):
        ours, theirs = function(x, config), function(same, config).detach()
        floor = theirs.max() - 80 if function is features.log_mel else -torch.inf
        assert_close(ours.clamp_min(floor), theirs.clamp_min(floor), atol=tolerance, rtol=1e-4)
    assert features.log_mel(torch.full((1, 4096), torch.nan), config).isnan().all()


# Known signals --------------------------------------------------------------------------------


def test_stft_peak_of_a_sine_is_amplitude_times_half_the_window_sum(tone, config):
    x = tone(100 * BIN, amplitude=0.5)
    magnitude = features.stft(batch(x), config).abs()[0, :, INNER]
    assert (magnitude.argmax(dim=0) == 100).all()
    assert_close(
        magnitude[100], torch.full_like(magnitude[100], 0.5 * N_FFT / 4), atol=0.01, rtol=0
    )


def test_ends_are_padded_with_zeros(config):
    """Of a constant the first frame sees half a window, so half the sum; reflected it would be all."""
    dc = features.stft(torch.ones(1, 8192), config).abs()[0, 0]
    assert dc[0] == pytest.approx(N_FFT / 4, rel=2e-3)
    assert dc[8] == pytest.approx(N_FFT / 2, rel=1e-5)


@given(st.integers(5, 126))
def test_sine_peaks_in_its_mel_band(tone, config, band):
    centre = librosa.mel_frequencies(n_mels=130, fmax=RATE / 2)[band + 1]
    x = batch(tone(centre, seconds=0.3))
    assert (features.log_mel(x, config)[0, :, INNER].argmax(dim=0) == band).all()


def test_halving_the_amplitude_is_minus_six_db(clip, config):
    x = clip(1.0)
    full, half = features.log_mel(batch(x, 0.5 * x), config)
    loud = full > -60
    assert_close((full - half)[loud], torch.full_like(full[loud], 6.0206), atol=2e-3, rtol=0)


def test_power_to_db_values_and_floor_of_each_item():
    power = torch.tensor([[1.0, 10.0, 0.0], [1e-6, 1e-7, 0.0]])
    db = features.power_to_db(power)
    assert_close(db, torch.tensor([[0.0, 10.0, -100.0], [-60.0, -70.0, -100.0]]))
    db = features.power_to_db(power, top_db=30)
    assert_close(db, torch.tensor([[0.0, 10.0, -20.0], [-60.0, -70.0, -90.0]]))


def test_mfcc_of_a_constant_and_of_a_cosine_over_the_bands(config):
    flat = torch.full((1, 128, 5), -30.0)
    c = features.mfcc(flat, config)[0]
    assert_close(c[0], torch.full((5,), -30.0 * 128**0.5), atol=1e-3, rtol=0)
    assert c[1:].abs().max() < 1e-3
    ripple = 3.0 * torch.cos(torch.pi / 128 * 4 * (torch.arange(128) + 0.5))
    c = features.mfcc(flat + ripple[:, None], config)[0, 1:, 0]
    expected = torch.zeros(19).index_fill(0, torch.tensor(3), 3.0 * 64**0.5)
    assert_close(c, expected, atol=1e-3, rtol=0)


def described(waveform: np.ndarray, config) -> dict[str, np.ndarray]:
    x = batch(waveform)
    found = features.descriptors(x, features.stft(x, config), config)
    return {name: value[0, :, INNER].numpy() for name, value in found.items()}


@pytest.mark.parametrize("index", [20, 100, 400])
def test_descriptors_of_a_tone(tone, config, index):
    f = index * BIN
    d = described(tone(f, amplitude=0.5), config)
    np.testing.assert_allclose(d["centroid"], f, atol=3.0)
    # Hann spreads a bin's tone to 1/4, 1/2, 1/4: a deviation of bin / sqrt(2), and rounding far away
    assert d["bandwidth"].min() > BIN / 2**0.5 - 0.1 and d["bandwidth"].max() < 60
    np.testing.assert_allclose(d["rolloff"], f + BIN, atol=0.1)
    np.testing.assert_allclose(d["rms"], 0.5 / 2**0.5, atol=2e-3)
    np.testing.assert_allclose(d["zero_crossing_rate"], 2 * f / RATE, atol=2 / N_FFT)
    assert d["flatness"].max() < 1e-9


def test_descriptors_of_white_noise(config):
    noise = 0.1 * np.random.default_rng(0).standard_normal(10 * RATE)
    d = {k: v.mean() for k, v in described(noise, config).items() if len(v) == 1}
    assert d["flatness"] == pytest.approx(np.exp(-np.euler_gamma), abs=0.01)  # exponential powers
    assert d["centroid"] == pytest.approx(RATE / 4, rel=0.01)
    assert d["bandwidth"] == pytest.approx(RATE / 2 / 12**0.5, rel=0.01)  # uniform distribution
    assert d["rolloff"] == pytest.approx(0.85 * RATE / 2, rel=0.01)
    assert d["zero_crossing_rate"] == pytest.approx(0.5, abs=0.01)
    assert d["rms"] == pytest.approx(0.1, rel=0.01)


@given(st.integers(48, 95))
def test_note_lies_in_its_pitch_class(tone, config, midi):
    x = batch(tone(440 * 2 ** ((midi - 69) / 12), seconds=0.5))
    chroma = features.chroma(features.stft(x, config).abs() ** 2, config)[0, :, INNER]
    if midi >= 60:  # a bin of 10.8 Hz is wider than a low semitone
        assert (chroma.argmax(dim=0) == midi % 12).all()
    assert (chroma[midi % 12] > 0.6).all()


def test_silence_gives_finite_features(config):
    found = features.style_features(torch.zeros(1, 8192), config)
    assert torch.isfinite(found).all()
    assert features.log_mel(torch.zeros(1, 8192), config).unique().tolist() == [-100.0]


def test_any_floats_are_taken_and_anything_else_is_refused_in_one_line(clip, config):
    x = clip(0.5)
    expected = features.style_features(batch(x), config)
    for array in (batch(x).double(), x[None], x[None].astype(float)):
        assert_close(features.style_features(array, config), expected)
    wrong = [torch.from_numpy(x), batch(x)[None], batch(x)[:, :0], (32768 * batch(x)).short()]
    for array in wrong:
        for function in (features.log_mel, features.rms, features.zero_crossing_rate):
            with pytest.raises(ValueError, match=r"wanted waveforms \(B, n_samples\)") as error:
                function(array, config)
            assert "\n" not in str(error.value)


def test_log_mel_at_level_hears_every_clip_equally_loud(clip, config):
    x = clip(0.5)
    expected = features.log_mel_at_level(x, config)
    for level in (0.1, 1e-4, 1e-7, 30.0):
        found = features.log_mel_at_level(np.float32(level) * x, config)
        assert_close(found, expected, atol=1e-2, rtol=0)
    for array in (x.astype(float), np.stack([x, x], axis=1)):
        assert_close(features.log_mel_at_level(array, config), expected)
    sixteen_bits = features.log_mel_at_level((32767 * x).astype(np.int16), config)
    assert_close(sixteen_bits.clamp_min(-50), expected.clamp_min(-50), atol=0.5, rtol=0)
    assert features.log_mel_at_level(np.zeros(9000), config).unique().tolist() == [-100.0]
    x[77] = np.nan
    for array, why in ((x, "not finite"), (x[:70], "shorter than one window"), (x[None], "shape")):
        with pytest.raises(ValueError, match=why):
            features.log_mel_at_level(array, config)


@pytest.mark.parametrize("bpm", [80, 100, 120, 140])
def test_tempo_of_a_click_track(config, bpm):
    x = np.zeros(15 * RATE)
    click = np.exp(-np.arange(1000) / 200) * np.random.default_rng(0).standard_normal(1000)
    for start in np.arange(0, len(x) - 1000, 60 / bpm * RATE).astype(int):
        x[start : start + 1000] = 0.3 * click
    found = features.tempo(features.log_mel(batch(x, x), config), config)
    assert found.shape == (2,)
    np.testing.assert_allclose(found, bpm, rtol=0.03)  # lags are whole frames


# Arrangement ----------------------------------------------------------------------------------


def test_style_features_stack_the_named_rows(clip, config):
    x = batch(clip(1.0))
    names = features.style_feature_names(config)
    stacked = dict(zip(names, features.style_features(x, config)[0], strict=True))
    parts = features.descriptors(x, features.stft(x, config), config)
    assert names[:2] == ["mfcc 0", "mfcc 1"] and len(set(names)) == len(names) == 45
    assert_close(stacked["centroid"], parts["centroid"][0, 0], atol=0.01, rtol=0)
    assert_close(stacked["contrast 6"], parts["contrast"][0, 6], atol=0.1, rtol=0)
    assert_close(stacked["chroma 11"], parts["chroma"][0, 11])
    assert_close(
        stacked["mfcc 19"], features.mfcc(features.log_mel(x, config), config)[0, 19],
        atol=2e-3, rtol=0,
    )  # fmt: skip
    assert_close(stacked["rms"], 20 * parts["rms"][0, 0].log10(), atol=1e-3, rtol=0)
    assert_close(stacked["flatness"], 10 * parts["flatness"][0, 0].log10(), atol=1e-3, rtol=0)


def test_functionals_are_numpys_and_forget_the_order():
    rows = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))
    found = features.functionals(rows)
    x = rows.numpy()
    expected = [x.mean(axis=2), x.std(axis=2)]
    expected += [np.percentile(x, p, axis=2) for p in features.PERCENTILES]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)
    assert_close(features.functionals(rows[:, :, torch.randperm(50)]), found, atol=1e-5, rtol=0)
    names = features.functional_names(["a", "b", "c", "d"])
    assert len(names) == found.shape[1]
    assert names[0] == "mean of a" and names[7] == "std of d" and names[-1] == "percentile 90 of d"


def test_temporal_features_are_tempo_level_and_crossings_of_each_segment(tone, config):
    n = 4 * RATE
    clips = np.stack([0.5 * tone(441.0, 4.0), 0.05 * tone(2205.0, 4.0)])
    found = features.temporal_features(torch.from_numpy(clips), [n, n], config, n_frames=64)
    _, track = features.segments(features.log_mel, batch(*clips), [n, n], config, n_frames=64)
    assert found.shape == (len(track), 3)
    level = np.sqrt((clips**2).mean(axis=1))
    inside = found[:, 1:].reshape(2, -1, 2)[:, 1:-1]  # away from the clip's ends
    np.testing.assert_allclose(
        inside[..., 0], np.repeat(level[:, None], inside.shape[1], 1), rtol=0.02
    )
    np.testing.assert_allclose(inside[0, :, 1], 2 * 441 / RATE, rtol=0.02)
    np.testing.assert_allclose(inside[1, :, 1], 2 * 2205 / RATE, rtol=0.02)
    assert (found[:, 0] > 0).all()


def numbered_frames(waveform: torch.Tensor, config) -> torch.Tensor:
    """Two rows: the frame's number, and the loudest sample of the whole clip."""
    n_frames = config.n_frames(waveform.shape[1])
    number = torch.arange(n_frames).float().expand(len(waveform), n_frames)
    return torch.stack([number, waveform.abs().amax(dim=1, keepdim=True).expand_as(number)], dim=1)


def test_segments_leave_the_padding_out_and_know_their_clip(config):
    n_samples = 400 * HOP
    waveforms = torch.tensor([[0.1], [0.2], [0.3]]).repeat(1, n_samples)
    valid = [n_samples, 250 * HOP, 10 * HOP]  # the last one is shorter than a segment
    found, track = features.segments(numbered_frames, waveforms, valid, config, n_frames=100)
    assert found.shape == (4 + 2 + 1, 2, 100)
    assert track.tolist() == [0, 0, 0, 0, 1, 1, 2]
    starts = [0, 100, 200, 300, 0, 100, 0]
    expected = torch.stack([torch.arange(s, s + 100).float() for s in starts])
    assert_close(found[:, 0], expected)
    assert_close(found[:, 1, 0], waveforms[track, 0])


def test_segments_pad_a_clip_shorter_than_one(config):
    found, track = features.segments(
        numbered_frames, torch.ones(1, 9 * HOP), [9 * HOP], config, n_frames=16
    )
    assert found.shape == (1, 2, 16) and track.tolist() == [0]
    assert found[0, 0].tolist() == [*range(10), 0, 0, 0, 0, 0, 0]


def test_temporal_features_belong_to_their_segment(config):
    """Two clips of clicks; the first grows louder, the second is padded."""
    n_samples = 8 * RATE
    loudness = np.linspace(0.2, 1.0, n_samples)
    clips = np.zeros((2, n_samples), np.float32)
    click = np.exp(-np.arange(1000) / 200) * np.random.default_rng(0).standard_normal(1000)
    for row, bpm in enumerate((90, 140)):
        for start in np.arange(0, n_samples - 1000, 60 / bpm * RATE).astype(int):
            clips[row, start : start + 1000] = click
    clips[0] *= loudness
    clips[1, 6 * RATE :] = 0
    waveforms, valid = torch.from_numpy(clips), [n_samples, 6 * RATE]
    found = features.temporal_features(waveforms, valid, config)
    _, track = features.segments(features.log_mel, waveforms, valid, config)
    assert found.shape == (4, 3) and track.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(found[:, 0], [90, 90, 140, 140], rtol=0.03)
    level = [np.sqrt(np.mean(clips[0, s * 65_536 : (s + 1) * 65_536] ** 2)) for s in (0, 1)]
    assert found[1, 1] / found[0, 1] == pytest.approx(level[1] / level[0], rel=0.2)
    assert float(found[:, 2].min()) > 0.02 and float(found[:, 2].max()) < 0.5


@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), frames=st.integers(0, 5))
def test_standardizer_round_trip(seed, rows, frames):
    generator = torch.Generator().manual_seed(seed)
    shape = (7, rows, frames) if frames else (7, rows)
    x = 50 * torch.randn(shape, generator=generator) + 300
    fitted = features.Standardizer(rows).fit(x)
    z = fitted(x)
    by_row = z.transpose(0, 1).flatten(1)
    assert_close(by_row.mean(dim=1), torch.zeros(rows), atol=1e-3, rtol=0)
    assert_close(by_row.std(dim=1), torch.ones(rows), atol=1e-3, rtol=0)
    assert_close(fitted.inverse(z), x, atol=1e-3, rtol=0)


def test_standardizer_keeps_constant_rows_finite_and_is_stored():
    x = torch.stack([torch.full((5,), 7.0), torch.arange(5.0)], dim=1)
    fitted = features.Standardizer(2).fit(x)
    assert fitted(x)[:, 0].tolist() == [0.0] * 5
    other = features.Standardizer(2)
    other.load_state_dict(fitted.state_dict())
    assert_close(other(x), fitted(x))
