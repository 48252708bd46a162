"""Short-time Fourier analysis and synthesis on a CPU, frames first, on as many threads as torch uses.

Spectrograms here are numpy arrays (T, F), because the FFT is fastest where a frame's bins lie side by
side in memory, and they are worked on in pieces that stay in the processor's cache. The inner loops are
compiled by numba at the first call and cached on disk. Used by `features`, `augment` and
`phase_recovery`; on a GPU `features.stft` does the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba
import numpy as np
import torch

PIECE = 64  # frames that a thread works on at a time
# NaN has to stay NaN, which full `fastmath` would not promise
FAST = {"reassoc", "contract", "arcp", "nsz"}


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    # else the FFT would start threads of its own in each of these; threads made later get one, too
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def _forget_threads() -> None:
    """In a forked child: it has none of its parent's threads, and waiting for them would never end."""
    _pool.cache_clear()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_threads)


def for_each_piece(function: Callable[[int, int], None], n_frames: int) -> None:
    """Call a function for pieces of a spectrogram, on as many threads as torch uses.

    Parameters
    ----------
    function : callable
        Takes the first frame of a piece and the frame after its last one.
    n_frames : int
        Frames of the whole spectrogram.

    Raises
    ------
    Exception
        Whatever `function` raises.
    """
    first = range(0, n_frames, PIECE)
    last = [min(n_frames, a + PIECE) for a in first]
    threads = torch.get_num_threads()
    each = map if threads == 1 else _pool(threads).map
    list(each(function, first, last))


def _rfft(frames: np.ndarray) -> np.ndarray:
    return torch.fft.rfft(torch.from_numpy(frames)).numpy()  # a third faster than scipy.fft


def _irfft(spectrum: np.ndarray, n_fft: int) -> np.ndarray:
    return torch.fft.irfft(torch.from_numpy(spectrum), n_fft).numpy()


@lru_cache(maxsize=8)
def _hann(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _windowed_frames(waveform, window, hop, first, frames):
    """Write the frames (T, n_fft) of a waveform from frame `first` on, centred, padded with zeros."""
    n_frames, n_fft = frames.shape
    for t in range(n_frames):
        start = (first + t) * hop - n_fft // 2
        low, high = min(n_fft, max(0, -start)), max(0, min(n_fft, len(waveform) - start))
        frames[t, :low] = 0.0
        inside, weight, row = waveform[start + low :], window[low:high], frames[t, low:high]
        for j in range(len(row)):
            row[j] = inside[j] * weight[j]
        frames[t, max(low, high) :] = 0.0


@numba.njit(nogil=True, cache=True, fastmath=True)
def _overlap_add(frames, first, window, hop, weight, begin, end, waveform):
    """Add the windowed frames (T, n_fft) up to the samples `begin` to `end`, and multiply by `weight`.

    The first row of `frames` is frame `first` of the signal.
    """
    n_frames, n_fft = frames.shape
    waveform[begin:end] = 0.0
    for t in range(n_frames):
        start = (first + t) * hop - n_fft // 2
        for i in range(max(begin, start), min(end, start + n_fft)):
            waveform[i] += window[i - start] * frames[t, i - start]
    for i in range(begin, end):
        waveform[i] *= weight[i]


@lru_cache(maxsize=4)
def _weight(n_frames: int, n_fft: int, hop_length: int, n_samples: int) -> np.ndarray:
    """1 / (sum of the squared windows) at each sample (n_samples,), 0 where no window reaches."""
    total = np.zeros(n_frames * hop_length + n_fft)
    for t in range(n_frames):
        total[t * hop_length : t * hop_length + n_fft] += _hann(n_fft) ** 2
    total = np.pad(total[n_fft // 2 :], (0, max(0, n_samples)))[:n_samples]
    return np.divide(1.0, total, out=np.zeros(n_samples), where=total > 1e-8).astype(np.float32)


def analyse(waveform: np.ndarray, n_fft: int, hop_length: int, first: int, last: int) -> np.ndarray:
    frames = np.empty((last - first, n_fft), dtype=np.float32)
    _windowed_frames(waveform, _hann(n_fft), hop_length, first, frames)
    return _rfft(frames)


def stft(waveform: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Complex STFT (T, F) of a waveform (n_samples,): `features.stft` with the axes swapped.

    T = 1 + n_samples // hop_length frames, F = n_fft // 2 + 1 bins.
    """
    waveform = np.ascontiguousarray(waveform, np.float32)
    spectrum = np.empty((1 + len(waveform) // hop_length, n_fft // 2 + 1), dtype=np.complex64)

    def piece(first: int, last: int) -> None:
        spectrum[first:last] = analyse(waveform, n_fft, hop_length, first, last)

    for_each_piece(piece, len(spectrum))
    return spectrum


def istft(spectrum: np.ndarray, n_fft: int, hop_length: int, n_samples: int) -> np.ndarray:
    """Waveform (n_samples,) of a spectrum (T, F), by least-squares overlap-add."""
    waveform = np.zeros(n_samples, dtype=np.float32)
    n_frames, reach = len(spectrum), -(-n_fft // 2 // hop_length)
    weight = _weight(n_frames, n_fft, hop_length, n_samples)

    def piece(first: int, last: int) -> None:
        begin, end = first * hop_length, min(n_samples, last * hop_length)
        if last == n_frames:
            end = min(n_samples, end + n_fft)
        low, high = max(0, first - reach), min(n_frames, last + reach)  # frames that reach there
        frames = _irfft(spectrum[low:high], n_fft)
        _overlap_add(frames, low, _hann(n_fft), hop_length, weight, begin, end, waveform)

    for_each_piece(piece, n_frames)
    return waveform
