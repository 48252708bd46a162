"""Phase from magnitudes on a CPU: Griffin-Lim and phase gradient heap integration. Notebook 08.

Spectrograms here are numpy arrays with frames first, (T, F): a frame's bins lie side by side in
memory, where the FFT wants them. Compiled by numba at the first call, kept on disk after that.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba
import numpy as np
import scipy.fft
import torch

LEVELS_PER_NEPER = 40 / np.log(10)  # of a loudness told to half a dB
TURN = np.float32(2 * np.pi)
HANN_GAMMA = 0.25645  # of the Gaussian nearest to a Hann window, times n_fft^2 (Prusa et al., 2017)
PIECE = 64  # frames


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def for_each_piece(function: Callable[[int, int], None], n_frames: int) -> None:
    """Call ``function(first, last)`` for pieces of `n_frames` frames, on numba's number of threads.

    An error in a piece is raised here.
    """
    first = range(0, n_frames, PIECE)
    last = [min(n_frames, a + PIECE) for a in first]
    list(_pool(numba.get_num_threads()).map(function, first, last))


@lru_cache(maxsize=8)
def _hann(n_fft: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _cut_frames(waveform, window, hop, first, frames):
    """Windowed frames (T, n_fft) of a waveform from frame `first` on, centred and padded with zeros."""
    n_frames, n_fft = frames.shape
    for t in range(n_frames):
        start = (first + t) * hop - n_fft // 2
        low, high = min(n_fft, max(0, -start)), max(0, min(n_fft, len(waveform) - start))
        frames[t, :low] = 0.0
        for j in range(low, high):
            frames[t, j] = waveform[start + j] * window[j]
        frames[t, max(low, high) :] = 0.0


@numba.njit(nogil=True, cache=True, fastmath=True)
def _overlap_add(frames, first, window, hop, weight, begin, end, waveform):
    """Samples `begin` to `end`: the sum of the frames (T, n_fft), each times the window, times `weight`.

    The first of the frames is frame `first` of the signal.
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
    """1 / sum of the squared windows over each sample, 0 where no window reaches."""
    total = np.zeros(n_frames * hop_length + n_fft)
    for t in range(n_frames):
        total[t * hop_length : t * hop_length + n_fft] += _hann(n_fft) ** 2
    total = np.pad(total[n_fft // 2 :], (0, max(0, n_samples)))[:n_samples]
    return np.divide(1.0, total, out=np.zeros(n_samples), where=total > 1e-8).astype(np.float32)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _with_magnitude(rebuilt, previous, magnitude, factor, spectrum):
    """`rebuilt` - `factor` `previous`, with the magnitude wanted, into `spectrum`; all (T, F)."""
    n_frames, n_bins = rebuilt.shape
    for t in range(n_frames):
        for k in range(n_bins):
            re = rebuilt[t, k].real - factor * previous[t, k].real
            im = rebuilt[t, k].imag - factor * previous[t, k].imag
            previous[t, k] = rebuilt[t, k]
            modulus = np.sqrt(re * re + im * im)
            if modulus > 1e-12:
                scale = magnitude[t, k] / modulus
                spectrum[t, k] = complex(re * scale, im * scale)
            else:
                spectrum[t, k] = complex(magnitude[t, k], np.float32(0.0))


def _analyse(
    waveform: np.ndarray, n_fft: int, hop_length: int, first: int, last: int
) -> np.ndarray:
    frames = np.empty((last - first, n_fft), dtype=np.float32)
    _cut_frames(waveform, _hann(n_fft), hop_length, first, frames)
    return scipy.fft.rfft(frames, axis=1)


def stft(waveform: np.ndarray, n_fft: int, hop_length: int) -> np.ndarray:
    """Complex STFT (1 + n_samples // hop_length, n_fft // 2 + 1) of a waveform (n_samples,), float32.

    `features.stft` with the axes swapped.
    """
    waveform = np.ascontiguousarray(waveform, np.float32)
    spectrum = np.empty((1 + len(waveform) // hop_length, n_fft // 2 + 1), dtype=np.complex64)

    def piece(first: int, last: int) -> None:
        spectrum[first:last] = _analyse(waveform, n_fft, hop_length, first, last)

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
        low, high = (
            max(0, first - reach),
            min(n_frames, last + reach),
        )  # all frames that reach there
        frames = scipy.fft.irfft(spectrum[low:high], n_fft, axis=1)
        _overlap_add(frames, low, _hann(n_fft), hop_length, weight, begin, end, waveform)

    for_each_piece(piece, n_frames)
    return waveform


def iterate(
    spectrum: np.ndarray,
    update: Callable[[slice, np.ndarray], None],
    *,
    n_fft: int,
    hop_length: int,
    n_samples: int,
    iterations: int,
    n_known: int = 0,
) -> None:
    """Back to a signal and forth again, `iterations` times.

    Each time ``update(part, rebuilt)`` makes new frames ``spectrum[part]``, in place, of those that the
    signal has, `rebuilt`. The first `n_known` frames stay as they are.

    Raises
    ------
    ValueError
        If a signal of `n_samples` has another number of frames than `spectrum`.
    """
    if len(spectrum) != 1 + n_samples // hop_length:
        raise ValueError(
            f"{len(spectrum)} frames for {n_samples} samples, a frame each {hop_length}"
        )
    for _ in range(iterations):
        waveform = istft(spectrum, n_fft, hop_length, n_samples)

        def piece(first: int, last: int, waveform=waveform) -> None:
            first = max(first, n_known)
            if first < last:
                update(slice(first, last), _analyse(waveform, n_fft, hop_length, first, last))

        for_each_piece(piece, len(spectrum))


def griffin_lim(spectrum: np.ndarray, *, momentum: float, **settings: int) -> np.ndarray:
    """Spectrum (T, F) with the magnitudes of `spectrum` and phases nearer to those of a signal.

    Fast Griffin-Lim (Perraudin, Balazs & Sondergaard, WASPAA 2013); momentum 0 is the original
    (Griffin & Lim, 1984). The phases of `spectrum` are where it begins. `settings` as of `iterate`.
    """
    spectrum = np.array(spectrum, dtype=np.complex64, order="C")
    magnitude = np.abs(spectrum)
    previous = np.zeros_like(spectrum)
    factor = np.float32(momentum / (1 + momentum))

    def update(part: slice, rebuilt: np.ndarray) -> None:
        _with_magnitude(rebuilt, previous[part], magnitude[part], factor, spectrum[part])

    iterate(spectrum, update, **settings)
    return spectrum


@numba.njit(nogil=True, cache=True)
def _chains(level, done, wanted, n_levels):
    """The bins whose `done` is `wanted`, chained by level: (first bin of a level, next bin); -1 ends."""
    first = np.full(n_levels, -1, dtype=np.int32)
    following = np.full(len(level), -1, dtype=np.int32)
    for i in range(len(level) - 1, -1, -1):
        if done[i] == wanted:
            following[i] = first[level[i]]
            first[level[i]] = i
    return first, following


@numba.njit(nogil=True, cache=True)
def _integrate(level, n_levels, step, slope, phase, done):
    """Spread phases from the loudest bin whose neighbours lack one, along the gradients.

    `step` (T, F) is the change of phase to the next frame, `slope` that to the next bin; between two
    bins their mean counts. `done` is 0 where a phase is wanted, 1 where it is known, 2 where any will
    do. The queue is a chain of bins for each `level`: unlike a heap it takes a bin in and gives one
    back in constant time.
    """
    n_bins, n = step.shape[1], step.size
    level, phase, done = level.ravel(), phase.ravel(), done.ravel()
    step, slope = step.ravel(), slope.ravel()
    queue, behind = _chains(level, done, 1, n_levels)
    seeds, next_seed = _chains(level, done, 0, n_levels)
    for top in range(n_levels - 1, -1, -1):
        seed = seeds[top]
        at = n_levels - 1  # known phases may lie in louder bins than the first seed
        while True:
            while at >= 0 and queue[at] < 0:
                at -= 1
            if at < 0:  # nothing left to spread from: the loudest bin without a phase keeps its own
                while seed >= 0 and done[seed] != 0:
                    seed = next_seed[seed]
                if seed < 0:
                    break
                done[seed], at, queue[top] = 1, top, seed
                behind[seed] = -1
            i = queue[at]
            queue[at] = behind[i]
            k = i % n_bins
            for side in range(4):
                if side == 0:
                    j, inside = i + n_bins, i + n_bins < n
                elif side == 1:
                    j, inside = i - n_bins, i >= n_bins
                elif side == 2:
                    j, inside = i + 1, k + 1 < n_bins
                else:
                    j, inside = i - 1, k > 0
                if not inside or done[j]:
                    continue
                gradient = step if side < 2 else slope
                change = np.float32(0.5) * (gradient[i] + gradient[j])
                angle = phase[i] + (change if side % 2 == 0 else -change)
                phase[j] = angle - TURN * np.floor(angle / TURN)  # float32 is exact near 0 only
                done[j] = 1
                behind[j] = queue[level[j]]
                queue[level[j]] = j
                at = max(at, level[j])


def heap_integration(
    magnitude: np.ndarray,
    *,
    n_fft: int,
    hop_length: int,
    tolerance: float = 1e-3,
    known: np.ndarray | tuple = (),
    seed: int = 0,
) -> np.ndarray:
    """Phases (T, F) in radians for a magnitude spectrogram (T, F): PGHI, without iterations.

    For a Gaussian window the gradient of the phase follows from the gradient of the log-magnitude; a
    Hann window is near enough to one. The gradient is integrated from the loudest bins outwards
    (Prusa, Balazs & Sondergaard, IEEE/ACM TASLP 25(5), 2017). "Loudest" is told to half a dB: levels
    instead of a heap take a third of the time and lose nothing.

    Parameters
    ----------
    tolerance : bins below this share of the maximum get random phases, from `seed`
    known : phases (K, F) of the first K frames, if any, from which integration starts

    Returns
    -------
    (T, F) float32, in 0..3 pi
    """
    n_bins = magnitude.shape[1]
    gamma = HANN_GAMMA * n_fft**2 / (hop_length * n_fft)  # over the lattice's hop and bins
    floor = max(tolerance * float(magnitude.max(initial=0.0)), 1e-12)
    advance = (2 * np.pi * (hop_length * np.arange(n_bins) / n_fft % 1)).astype(np.float32)
    log_magnitude, step, slope = np.empty((3, *magnitude.shape), dtype=np.float32)
    level = np.empty(magnitude.shape, dtype=np.int16)

    def of_frames(first: int, last: int) -> None:
        part = slice(first, last)
        log_magnitude[part] = np.log(np.maximum(magnitude[part], 1e-3 * floor))
        step[part] = np.gradient(log_magnitude[part], axis=1) / gamma + advance
        level[part] = np.maximum(log_magnitude[part] - np.log(floor), 0) * LEVELS_PER_NEPER

    def between_frames(first: int, last: int) -> None:
        low, high = max(0, first - 1), min(len(magnitude), last + 1)
        slopes = _slope_in_time(log_magnitude[low:high])[first - low : last - low]
        slope[first:last] = -gamma * slopes

    for_each_piece(of_frames, len(magnitude))
    for_each_piece(between_frames, len(magnitude))
    # a frame's FFT begins half a window before its centre
    turned = np.float32(np.pi) * (np.arange(n_bins, dtype=np.float32) % 2)
    phase = np.random.default_rng(seed).random(magnitude.shape, dtype=np.float32)
    phase *= TURN
    done = np.where(magnitude < floor, np.uint8(2), np.uint8(0))
    if len(known) > 0:
        phase[: len(known)] = known - turned
        done[: len(known)] = 1
    _integrate(level, int(level.max(initial=0)) + 1, step, slope, phase, done)
    phase += turned
    return phase


def _slope_in_time(log_magnitude: np.ndarray) -> np.ndarray:
    if len(log_magnitude) < 2:
        return np.zeros_like(log_magnitude)
    return np.gradient(log_magnitude, axis=0)


def polar(magnitude: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Complex64 spectrum (T, F) of a magnitude and a phase in radians."""
    modulus, angle = torch.from_numpy(magnitude), torch.from_numpy(phase.astype(np.float32))
    return torch.polar(modulus, angle).numpy()
