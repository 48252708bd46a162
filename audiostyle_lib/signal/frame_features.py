"""Mel spectrogram and descriptors of one clip on a CPU: `features` without a spectrogram in memory.

A piece of frames is transformed and described while it is in the processor's cache, on as many threads
as torch uses. `features` calls these functions for what is on a CPU and needs no gradient, and a test
holds both ways equal. The inner loops are compiled by numba at the first call and cached on disk.
"""

from __future__ import annotations

import numba
import numpy as np

from .frames import FAST, analyse, for_each_piece


def sparse_rows(basis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of a filterbank (n_bands, F) between the first and the last of each band but zero.

    Returns
    -------
    weights : np.ndarray [shape=(n_entries,)]
        One band after the other.
    first_bin : np.ndarray [shape=(n_bands,)]
    begin : np.ndarray [shape=(n_bands + 1,)]
        Where each band begins in `weights`.
    """
    used = basis != 0
    first_bin = used.argmax(axis=1)
    stop = np.where(used.any(axis=1), basis.shape[1] - used[:, ::-1].argmax(axis=1), first_bin)
    weights = [row[a:b] for row, a, b in zip(basis, first_bin, stop, strict=True)]
    begin = np.concatenate([[0], np.cumsum(stop - first_bin)])
    return np.concatenate(weights).astype(np.float32), first_bin, begin


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _power(spectrum, power):
    for t in range(spectrum.shape[0]):
        for k in range(spectrum.shape[1]):
            power[t, k] = spectrum[t, k].real ** 2 + spectrum[t, k].imag ** 2


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _bands(power, weights, first_bin, begin, bands):
    """Write the weighted sums (T, n_bands) of the bins of each band."""
    for t in range(power.shape[0]):
        for band in range(len(first_bin)):
            weight = weights[begin[band] : begin[band + 1]]
            inside = power[t, first_bin[band] :]
            total = np.float32(0.0)
            for k in range(len(weight)):
                total += weight[k] * inside[k]
            bands[t, band] = total


def mel_power(waveform: np.ndarray, basis, n_fft: int, hop_length: int) -> np.ndarray:
    """Mel spectrogram (T, n_mels) of a waveform (n_samples,); `basis` is what `sparse_rows` returns."""
    mel = np.empty((1 + len(waveform) // hop_length, len(basis[1])), dtype=np.float32)

    def piece(first: int, last: int) -> None:
        spectrum = analyse(waveform, n_fft, hop_length, first, last)
        power = np.empty(spectrum.shape, dtype=np.float32)
        _power(spectrum, power)
        _bands(power, *basis, mel[first:last])

    for_each_piece(piece, len(mel))
    return mel


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _moments(magnitude, frequency, rolloff_share, centroid, bandwidth, rolloff):
    """Write centroid, bandwidth and roll-off (T,), in Hz, of magnitudes (T, F)."""
    n_bins = len(frequency)
    for t in range(magnitude.shape[0]):
        total, weighted = np.float32(0.0), np.float32(0.0)
        for k in range(n_bins):
            total += magnitude[t, k]
            weighted += magnitude[t, k] * frequency[k]
        divisor = total if total > 0 else np.float32(1.0)
        mean = weighted / divisor
        spread = np.float32(0.0)
        for k in range(n_bins):
            spread += magnitude[t, k] * (frequency[k] - mean) ** 2
        reached, below = 0, np.float32(0.0)
        while reached < n_bins - 1:
            below += magnitude[t, reached]
            if below >= rolloff_share * total:
                break
            reached += 1
        centroid[t], bandwidth[t], rolloff[t] = mean, np.sqrt(spread / divisor), frequency[reached]


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def _peaks_and_valleys(magnitude, first_bin, stop_bin, counts, peaks, valleys):
    """Write the means (T, n_bands) of the `counts` largest and smallest magnitudes of each band."""
    top, bottom = np.empty(counts.max(), np.float32), np.empty(counts.max(), np.float32)
    for t in range(magnitude.shape[0]):
        for band in range(len(counts)):
            n = counts[band]
            top[:n], bottom[:n] = -np.inf, np.inf
            for k in range(first_bin[band], stop_bin[band]):
                value = magnitude[t, k]
                if value > top[n - 1]:  # both lists stay in order, by insertion
                    at = n - 1
                    while at > 0 and top[at - 1] < value:
                        top[at] = top[at - 1]
                        at -= 1
                    top[at] = value
                if value < bottom[n - 1]:
                    at = n - 1
                    while at > 0 and bottom[at - 1] > value:
                        bottom[at] = bottom[at - 1]
                        at -= 1
                    bottom[at] = value
            peaks[t, band], valleys[t, band] = top[:n].mean(), bottom[:n].mean()


def describe(
    waveform: np.ndarray,
    *,
    mel: tuple,
    chroma: tuple,
    contrast: tuple,
    frequency: np.ndarray,
    rolloff: float,
    amin: float,
    n_fft: int,
    hop_length: int,
) -> dict[str, np.ndarray]:
    """What `features.style_features` takes from the spectrum of a waveform (n_samples,).

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    mel, chroma : tuple
        Filterbanks, as `sparse_rows` returns them.
    contrast : tuple of np.ndarray
        Of each band: first bin, the bin after the last one, and how many bins make a peak or a valley.
    frequency : np.ndarray [shape=(F,)]
        In Hz.
    rolloff : float
        Share of the magnitude.
    amin : float
        Smallest power that counts for the flatness.
    n_fft, hop_length : int
        Window and hop in samples.

    Returns
    -------
    dict of str to np.ndarray [shape=(T, rows)]
        Mel and chroma power; centroid, bandwidth and roll-off in Hz; peaks and valleys; flatness.
    """
    n_frames, n_contrast = 1 + len(waveform) // hop_length, len(contrast[0])
    widths = {"mel": len(mel[1]), "chroma": len(chroma[1])}
    widths |= {"centroid": 1, "bandwidth": 1, "rolloff": 1, "flatness": 1}
    widths |= {"peaks": n_contrast, "valleys": n_contrast}
    rows = {name: np.empty((n_frames, n), dtype=np.float32) for name, n in widths.items()}

    def piece(first: int, last: int) -> None:
        part = {name: row[first:last] for name, row in rows.items()}
        spectrum = analyse(waveform, n_fft, hop_length, first, last)
        power = np.empty(spectrum.shape, dtype=np.float32)
        _power(spectrum, power)
        _bands(power, *mel, part["mel"])
        _bands(power, *chroma, part["chroma"])
        magnitude = np.sqrt(power)
        moments = (part[name][:, 0] for name in ("centroid", "bandwidth", "rolloff"))
        _moments(magnitude, frequency, np.float32(rolloff), *moments)
        _peaks_and_valleys(magnitude, *contrast, part["peaks"], part["valleys"])
        np.maximum(power, np.float32(amin), out=power)
        mean = power.mean(axis=1)
        part["flatness"][:, 0] = np.exp(np.log(power, out=power).mean(axis=1)) / mean

    for_each_piece(piece, n_frames)
    return rows
