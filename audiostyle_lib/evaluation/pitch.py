"""Which notes sound when: multiple pitch estimation.

Used by the benchmark's columns about the content, in ``notebooks/09_evaluation.ipynb``.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
import scipy.fft

from ..config import AudioConfig

LOWEST, HIGHEST = 28, 96  # MIDI notes that are looked for
STEPS = 3  # candidates a semitone: real recordings are off A = 440 Hz
HARMONICS = 20
MOST_NOTES = 8  # at a time
N_FFT, PADDED = 4096, 8192  # samples: 186 ms, in which neighbouring notes from about 90 Hz on part
COMPRESSION = 0.33  # of the spectrum's colour; these five as in Klapuri (2006), 93 ms window
ALPHA_HZ, BETA_HZ = 52.0, 320.0
CANCEL = 0.89
LEAK = 3  # bins to each side that a partial's energy reaches
POLYPHONY = 0.70
SILENT_DB = -50.0  # frames below that, against the loudest, hold no notes


def piano_roll(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Notes of every frame, estimated from a mixture.

    Takes the note with the largest sum of harmonic amplitudes in the whitened spectrum, subtracts it, and
    repeats that until the sum stops growing (Klapuri, ISMIR 2006).

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    np.ndarray [shape=(T, 128)]
        bool, a row each `config.hop_length` samples, a column for each MIDI pitch.

    Notes
    -----
    It finds about half of a mixture's notes, so compare its figures with those for the true recording.
    """
    return _piano_roll(np.ascontiguousarray(waveform, np.float32).tobytes(), config).copy()


@lru_cache(maxsize=32)  # two columns of the benchmark ask for the same clips' notes
def _piano_roll(samples: bytes, config: AudioConfig) -> np.ndarray:
    """`piano_roll` of float32 samples as bytes, which a cache can take as its key."""
    spectrum, level_db = _whitened(np.frombuffer(samples, np.float32), config)
    hz = 440.0 * 2 ** ((np.arange(LOWEST, HIGHEST + 1 / STEPS, 1 / STEPS) - 69) / 12)
    loud = level_db > level_db.max(initial=-np.inf) + SILENT_DB
    partials = hz * np.arange(1, HARMONICS + 1)[:, None]  # (HARMONICS, candidates) in Hz
    spread = 0.5 * (2 ** (1 / (12 * STEPS)) - 1)  # half the way to the next candidate
    bins = partials * PADDED / config.sample_rate
    low, high = (np.floor(bins * f + 0.5).astype(np.int32) for f in (1 - spread, 1 + spread))
    weight = ((hz + ALPHA_HZ) / (partials + BETA_HZ)).astype(np.float32)
    first = np.stack([np.searchsorted(row, np.arange(spectrum.shape[1] + 1)) for row in high])
    roll = np.zeros((len(spectrum), 128), dtype=bool)
    _estimate(spectrum, loud, low, high, weight, first, roll)
    return roll


def true_roll(notes: np.ndarray, n_frames: int, config: AudioConfig) -> np.ndarray:
    """Piano roll of known notes.

    Parameters
    ----------
    notes : np.ndarray [shape=(n, 3)]
        Rows of start in s, end in s and MIDI pitch.
    n_frames : int
    config : AudioConfig

    Returns
    -------
    np.ndarray [shape=(n_frames, 128)]
        bool
    """
    roll = np.zeros((n_frames, 128), dtype=bool)
    for start, end, pitch in notes:
        first, last = np.ceil(np.array([start, end]) * config.frames_per_second).astype(int)
        roll[max(0, first) : max(0, last), int(pitch)] = True
    return roll


def _whitened(waveform: np.ndarray, config: AudioConfig) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes (T, F) with an even colour, and the level of every frame in dB."""
    padded = np.pad(waveform.astype(np.float32), N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[:: config.hop_length]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    magnitude = np.abs(scipy.fft.rfft(frames * window, PADDED, axis=1))
    power = magnitude**2
    bands = _critical_bands(config.sample_rate, power.shape[1])  # (n_bands, F)
    energy = np.sqrt(power @ bands.T / PADDED)
    gain = np.maximum(energy, 1e-9) ** (COMPRESSION - 1)
    per_bin = gain @ (bands / np.maximum(bands.sum(axis=0), 1e-9))
    level_db = 10 * np.log10(power.mean(axis=1) + 1e-12)
    return (magnitude * per_bin).astype(np.float32), level_db


def _critical_bands(sample_rate: int, n_bins: int) -> np.ndarray:
    """Triangles around 229 * (10^((b + 1) / 21.4) - 1) Hz, b = 1 to 30 (Klapuri 2006, sec. 2.1)."""
    centre = 229 * (10 ** ((np.arange(32) + 1) / 21.4) - 1)
    hz = np.arange(n_bins) * sample_rate / PADDED
    rise = (hz - centre[:-2, None]) / (centre[1:-1] - centre[:-2])[:, None]
    fall = (centre[2:, None] - hz) / (centre[2:] - centre[1:-1])[:, None]
    return np.clip(np.minimum(rise, fall), 0, None).astype(np.float32)


@numba.njit(cache=True)
def _loudest(y, low, high):
    """Loudest bin of `y` from `low` to `high`."""
    best = low
    for k in range(low + 1, high + 1):
        if y[k] > y[best]:
            best = k
    return best


@numba.njit(cache=True)
def _largest(y, low, high):
    """Largest value of `y` from bin `low` to `high`, without a branch to predict."""
    largest = y[low]
    for k in range(low + 1, high + 1):
        largest = max(largest, y[k])
    return largest


@numba.njit(cache=True)
def _cancel(y, low, high, weight, centres):
    """Take a note out of `y`, wherever its energy has leaked, and write where its partials were."""
    for m in range(len(centres)):
        k = _loudest(y, low[m], high[m])
        centres[m] = k
        for j in range(max(0, k - LEAK), min(len(y), k + LEAK + 1)):
            y[j] *= max(0.0, 1 - CANCEL * weight[m] * (1 - abs(j - k) / (LEAK + 1.0)))


@numba.njit(cache=True)
def _update(y, low, high, weight, first, centres, amplitude):
    """Bring the amplitudes of all partials that reach the bins around `centres` up to date with `y`."""
    n_harmonics, n_candidates = low.shape
    for k in centres:
        for m in range(n_harmonics):
            c = first[m, max(0, k - LEAK)]
            while c < n_candidates and low[m, c] <= k + LEAK and high[m, c] < len(y):
                amplitude[m, c] = weight[m, c] * _largest(y, low[m, c], high[m, c])
                c += 1


@numba.njit(cache=True)
def _estimate(spectrum, loud, low, high, weight, first, roll):
    """Fill `roll` (T, 128).

    A candidate's m-th partial lies in bins `low` to `high` (M, candidates); `first` (M, F + 1) is the
    first candidate whose partial ends at a bin or above. A cancelled note changes few bins, so only
    the partials that reach them are looked up again.
    """
    n_harmonics, n_candidates = low.shape
    n_bins = spectrum.shape[1]
    amplitude = np.zeros((n_harmonics, n_candidates), dtype=np.float32)
    salience = np.empty(n_candidates)
    centres = np.empty(n_harmonics, dtype=np.int64)
    for t in range(len(spectrum)):
        if not loud[t]:
            continue
        y = spectrum[t].copy()
        for m in range(n_harmonics):
            for c in range(first[m, n_bins]):
                amplitude[m, c] = weight[m, c] * _largest(y, low[m, c], high[m, c])
        total, best_score = 0.0, 0.0
        for n in range(1, MOST_NOTES + 1):
            salience[:] = 0.0
            for m in range(n_harmonics):
                for c in range(n_candidates):
                    salience[c] += amplitude[m, c]
            winner = np.argmax(salience)
            total += salience[winner]
            score = total / n**POLYPHONY
            if score <= best_score:
                break
            best_score = score
            roll[t, LOWEST + int(np.floor(winner / STEPS + 0.5))] = True
            partials = centres[: np.sum(high[:, winner] < n_bins)]
            _cancel(y, low[:, winner], high[:, winner], weight[:, winner], partials)
            _update(y, low, high, weight, first, partials, amplitude)
