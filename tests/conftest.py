"""Signals whose properties are known in advance, and the real clips where a machine has them."""

# ruff: noqa: E402
from __future__ import annotations

import os
from pathlib import Path

# Before torch, numpy's BLAS or numba start: the tests' tensors are small and threads only cost.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("AUDIOSTYLE_BATCH", "1")  # no progress bars

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from audiostyle_lib.config import AudioConfig

SAMPLE_RATE = AudioConfig().sample_rate
ROOT = Path(__file__).resolve().parents[1]

settings.register_profile(
    "project",
    deadline=None,
    derandomize=True,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("project")


@pytest.fixture(scope="session")
def config() -> AudioConfig:
    return AudioConfig()


@pytest.fixture(scope="session")
def tone():
    """Maker of a sine: (Hz, seconds, amplitude, sample rate) -> (n_samples,) float32."""

    def make(
        frequency: float = 440.0,
        seconds: float = 1.0,
        amplitude: float = 0.5,
        sample_rate: int = SAMPLE_RATE,
    ) -> np.ndarray:
        time = np.arange(round(seconds * sample_rate)) / sample_rate
        return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def clip():
    """Maker of something like music: decaying harmonic notes over a noisy beat, by seed."""

    def make(seconds: float = 3.0, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        n_samples = round(seconds * SAMPLE_RATE)
        x = 1e-3 * rng.standard_normal(n_samples)
        step = SAMPLE_RATE // 4
        for start in range(0, n_samples, step):
            length = min(step * 2, n_samples - start)
            time = np.arange(length) / SAMPLE_RATE
            for pitch in rng.choice([45, 48, 52, 55, 57, 60, 64, 67, 72, 76], size=3):
                f = 440 * 2 ** ((pitch - 69) / 12)
                partials = sum(np.sin(2 * np.pi * k * f * time) / k for k in range(1, 9))
                x[start : start + length] += np.exp(-4 * time) * partials
            hit = min(step // 3, n_samples - start)
            decay = np.exp(-np.arange(hit) / (0.02 * SAMPLE_RATE))
            x[start : start + hit] += 0.5 * decay * rng.standard_normal(hit)
        return (0.5 * x / np.abs(x).max()).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def peak_hz():
    """Frequency in Hz of the strongest component of a waveform."""

    def measure(waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
        n_fft = 2**18
        windowed = waveform * np.hanning(len(waveform))
        return float(np.abs(np.fft.rfft(windowed, n_fft)).argmax() * sample_rate / n_fft)

    return measure


@pytest.fixture(scope="session")
def gtzan_subset() -> Path:
    """A folder of real clips in GTZAN's layout; skips where there is none."""
    named = os.environ.get("AUDIOSTYLE_GTZAN")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "gtzan_subset"
    if not folder.is_dir():
        pytest.skip("no real clips on this machine: set AUDIOSTYLE_GTZAN")
    return folder


@pytest.fixture(scope="session")
def real_clip(gtzan_subset) -> np.ndarray:
    """The first five seconds of one real clip."""
    from audiostyle_lib import corpora
    from audiostyle_lib.signal import audio

    track = corpora.scan(gtzan_subset, clips_per_genre=1)[0][0]
    return audio.read_audio(track.path)[: 5 * SAMPLE_RATE]
