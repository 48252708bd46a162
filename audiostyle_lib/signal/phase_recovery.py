"""Phase from magnitudes on a CPU: Griffin-Lim and phase gradient heap integration.

Spectrograms here are numpy arrays with frames first, (T, F), as in `frames`. Used by
``notebooks/08_vocoding.ipynb`` by way of ``audiostyle_lib.vocoding``.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import torch

from .frames import analyse, for_each_piece, istft

LEVELS_PER_NEPER = 40 / np.log(10)  # heap integration sorts bins by level in steps of half a dB
TURN = np.float32(2 * np.pi)
HANN_GAMMA = 0.25645  # of the Gaussian nearest to a Hann window, times n_fft^2 (Prusa et al., 2017)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _with_magnitude(rebuilt, previous, magnitude, factor, spectrum):
    """Write `rebuilt` - `factor` * `previous`, scaled to `magnitude`, into `spectrum`; all (T, F).

    `rebuilt` then becomes `previous`.
    """
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
    """Turn a spectrum into a signal and that into a spectrum again, `iterations` times, in place.

    Parameters
    ----------
    spectrum : np.ndarray [shape=(T, F), dtype=complex64]
        Where the iteration begins; changed in place.
    update : callable
        Called with a slice of frames and the spectrum of the signal there, (frames, F). Has to write the
        new frames into ``spectrum[part]``.
    n_fft, hop_length : int
        Window and hop in samples.
    n_samples : int
        Length of the signal.
    iterations : int
        How often.
    n_known : int
        The first frames, which stay as they are.

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
                update(slice(first, last), analyse(waveform, n_fft, hop_length, first, last))

        for_each_piece(piece, len(spectrum))


def griffin_lim(spectrum: np.ndarray, *, momentum: float, **settings: int) -> np.ndarray:
    """Fast Griffin-Lim: keep the magnitudes of a spectrum and make its phases fit to each other.

    Parameters
    ----------
    spectrum : np.ndarray [shape=(T, F)]
        Complex; its phases are where the iteration begins.
    momentum : float
        0 is the original algorithm, 0.99 converges faster.
    **settings : int
        `n_fft`, `hop_length`, `n_samples`, `iterations` and `n_known` of `iterate`.

    Returns
    -------
    np.ndarray [shape=(T, F), dtype=complex64]

    References
    ----------
    Griffin & Lim, "Signal estimation from modified short-time Fourier transform," IEEE TASSP 32(2), 1984.
    Perraudin, Balazs & Sondergaard, "A fast Griffin-Lim algorithm," WASPAA 2013.
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
    """Linked lists of the bins whose `done` is `wanted`, one list for each level.

    Returns the first bin of each level and, for each bin, the next bin of its list; -1 ends a list.
    """
    first = np.full(n_levels, -1, dtype=np.int32)
    following = np.full(len(level), -1, dtype=np.int32)
    for i in range(len(level) - 1, -1, -1):
        if done[i] == wanted:
            following[i] = first[level[i]]
            first[level[i]] = i
    return first, following


@numba.njit(nogil=True, cache=True)
def _integrate(level, n_levels, step, slope, phase, done):
    """Give each bin a phase, in place, by adding up the gradients along a path from a louder bin.

    The loudest bin with a known phase comes first: its neighbours without one get theirs from it. `step`
    (T, F) is the change of phase to the next frame, `slope` (T, F) that to the next bin; between two bins
    their mean counts. `done` is 0 where a phase is wanted, 1 where it is known, 2 where it stays random.
    The queue is a linked list of bins for each `level`, which takes constant time where a heap does not.
    """
    n_bins, n = step.shape[1], step.size
    level, phase, done = level.ravel(), phase.ravel(), done.ravel()
    step, slope = step.ravel(), slope.ravel()
    queue, behind = _chains(level, done, 1, n_levels)
    seeds, next_seed = _chains(level, done, 0, n_levels)
    for top in range(n_levels - 1, -1, -1):
        seed = seeds[top]
        at = n_levels - 1  # known phases may belong to bins louder than the first seed
        while True:
            while at >= 0 and queue[at] < 0:
                at -= 1
            if at < 0:  # the queue is empty: the loudest bin without a phase starts a new region
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
    """Phases for a magnitude spectrogram by phase gradient heap integration (PGHI), without iterations.

    For a Gaussian window the gradient of the phase follows from the gradient of the log-magnitude, and a
    Hann window resembles a Gaussian. The gradient is integrated from the loudest bins outwards.

    Parameters
    ----------
    magnitude : np.ndarray [shape=(T, F), dtype=float32]
        Linear magnitudes.
    n_fft, hop_length : int
        Window and hop in samples.
    tolerance : float
        Bins below this share of the maximum keep a random phase.
    known : np.ndarray [shape=(K, F)]
        Phases in radians of the first K frames, from which the integration starts; may be empty.
    seed : int
        Of the random phases.

    Returns
    -------
    np.ndarray [shape=(T, F), dtype=float32]
        Phases in radians, in 0..3 pi.

    Raises
    ------
    ValueError
        If the magnitudes are not finite.

    Notes
    -----
    The published algorithm sorts bins by magnitude with a heap. Here they are sorted into levels of
    half a dB, which takes a third of the time and is not worse.

    References
    ----------
    Prusa, Balazs & Sondergaard, "A noniterative method for reconstruction of phase from STFT magnitude,"
    IEEE/ACM TASLP 25(5), 2017.
    """
    n_bins = magnitude.shape[1]
    gamma = HANN_GAMMA * n_fft**2 / (hop_length * n_fft)  # for steps of one hop and one bin
    peak = float(magnitude.max(initial=0.0))
    if not np.isfinite(peak):  # as a level it would point outside the queue
        raise ValueError("the magnitudes hold values that are not finite (NaN or infinity)")
    floor = max(tolerance * peak, 1e-12)
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
    """Spectrum (T, F), complex64, of a magnitude (T, F), float32, and a phase (T, F) in radians."""
    modulus, angle = torch.from_numpy(magnitude), torch.from_numpy(phase.astype(np.float32))
    return torch.polar(modulus, angle).numpy()
