"""From a mel spectrogram back to the power of each STFT bin.

The 128 bands do not determine the 1025 bins. Of all power spectrograms with the right sums, one near the
pseudo-inverse, or near that of a signal, is chosen. Explained in ``notebooks/08_vocoding.ipynb``.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
import torch
from torch import Tensor

from ..config import AudioConfig
from . import features
from .phase_recovery import for_each_piece

KL_STEPS = 20
FLOOR = 0.1  # lowest power of a bin at the start, as a share of the mean power in its bands


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _pseudo_inverse(config: AudioConfig, device: str) -> Tensor:
    return torch.linalg.pinv(features._mel_basis(config, "cpu")).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _band_mean(config: AudioConfig, device: str) -> Tensor:
    """Matrix (F, n_mels) from a mel spectrogram to the mean power of a bin in the bands around it."""
    basis = features._mel_basis(config, "cpu")
    inside = (basis > 0).any(dim=0).nonzero()
    nearest = torch.arange(basis.shape[1]).clamp(int(inside.min()), int(inside.max()))
    weights = (basis / basis.sum(dim=0).clamp_min(1e-12) / basis.sum(dim=1, keepdim=True)).T
    return weights[nearest].to(
        device
    )  # 0 Hz and the topmost bins lie in no filter: take the next one


@lru_cache(maxsize=8)
def _bands(config: AudioConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The filterbank without its zeros.

    For each band its first bin, the bin after its last one and the index of its first weight; then all
    weights, one band after the other.
    """
    basis = features._mel_basis(config, "cpu").numpy()
    first = (basis > 0).argmax(axis=1)
    last = basis.shape[1] - (basis > 0)[:, ::-1].argmax(axis=1)
    begin = np.concatenate([[0], np.cumsum(last - first)[:-1]])
    weights = [row[a:b] for row, a, b in zip(basis, first, last, strict=True)]
    return first, last, begin, np.concatenate(weights)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _update_frames(power, mel, first, last, begin, weights, steps, amin):
    """`towards_mel` for power (T, F), in place, and mel (T, n_mels)."""
    n_frames, n_bins = power.shape
    n_mels = mel.shape[1]
    norm = np.zeros(n_bins, dtype=np.float32)
    for b in range(n_mels):
        for k in range(first[b], last[b]):
            norm[k] += weights[begin[b] + k - first[b]]
    unseen = (norm == 0).astype(np.float32)  # bins in no filter, which stay as they are
    inverse = np.float32(1.0) / (norm + unseen)
    pull = np.empty(n_bins, dtype=np.float32)
    for t in range(n_frames):
        p = power[t]
        for _ in range(steps):
            pull[:] = unseen
            for b in range(n_mels):
                lo, hi, at = first[b], last[b], begin[b]
                total = np.float32(0.0)
                for k in range(hi - lo):
                    total += weights[at + k] * p[lo + k]
                ratio = mel[t, b] / max(total, amin)
                for k in range(hi - lo):
                    pull[lo + k] += weights[at + k] * ratio
            for k in range(n_bins):
                p[k] *= pull[k] * inverse[k]


def _update(power: np.ndarray, mel: np.ndarray, config: AudioConfig, steps: int) -> None:
    def piece(first: int, last: int) -> None:
        part = slice(first, last)
        _update_frames(power[part], mel[part], *_bands(config), steps, np.float32(config.amin))

    for_each_piece(piece, len(power))


def towards_mel(power: Tensor, mel: Tensor, config: AudioConfig, *, steps: int) -> Tensor:
    """Change a power spectrogram so that its mel spectrogram comes nearer to a given one.

    Parameters
    ----------
    power : torch.Tensor [shape=(B, F, T)]
        Where to begin; positive.
    mel : torch.Tensor [shape=(B, n_mels, T)]
        Mel spectrogram, of power.
    config : AudioConfig
        The front end.
    steps : int
        Number of updates.

    Returns
    -------
    torch.Tensor [shape=(B, F, T)]
        Positive; bins that lie in no filter are unchanged.

    Notes
    -----
    Multiplicative updates for the Kullback-Leibler divergence (Lee & Seung, "Algorithms for non-negative
    matrix factorization," NIPS 2000). On a CPU, unless gradients are needed, compiled code skips the
    zeros of the filterbank.
    """
    if power.device.type == "cpu" and not power.requires_grad:
        frames = np.array(power.transpose(1, 2), dtype=np.float32, order="C")
        sums = np.ascontiguousarray(mel.transpose(1, 2), dtype=np.float32)
        for x, y in zip(frames, sums, strict=True):
            _update(x, y, config, steps)
        return torch.from_numpy(frames).transpose(1, 2)
    return _towards_mel_dense(power, mel, config, steps)


def _towards_mel_dense(power: Tensor, mel: Tensor, config: AudioConfig, steps: int) -> Tensor:
    basis = features._mel_basis(config, str(mel.device))
    norm = basis.sum(dim=0)[:, None]  # (F, 1); 0 where a bin lies in no filter
    for _ in range(steps):
        ratio = mel / (basis @ power).clamp_min(config.amin)
        power = torch.where(norm > 0, power * (basis.T @ ratio) / norm.clamp_min(1e-12), power)
    return power


def starting_power(log_mel_db: Tensor, config: AudioConfig) -> Tensor:
    """Power spectrogram (B, F, T) near the pseudo-inverse of a log-mel in dB (B, n_mels, T).

    Where the pseudo-inverse is negative or very small, it is replaced by a value 10 dB below the mean
    power in the bin's bands: a bin that starts too low would stay low, because updates multiply it.
    """
    frames = log_mel_db.transpose(1, 2)  # the updates are fastest with a frame's bins side by side
    mel = 10 ** (frames / 10)
    device = str(mel.device)
    lowest = (mel @ (FLOOR * _band_mean(config, device)).T).clamp_min(config.amin)
    return torch.maximum(mel @ _pseudo_inverse(config, device).T, lowest).transpose(1, 2)


def mel_to_magnitude(log_mel_db: Tensor, config: AudioConfig, *, steps: int = KL_STEPS) -> Tensor:
    """Magnitude spectrogram with a given mel spectrogram: `starting_power`, then `towards_mel`.

    Parameters
    ----------
    log_mel_db : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    config : AudioConfig
        The front end.
    steps : int
        Number of updates.

    Returns
    -------
    torch.Tensor [shape=(B, F, T)]
        Linear magnitudes.
    """
    mel = 10 ** (log_mel_db / 10)
    return towards_mel(starting_power(log_mel_db, config), mel, config, steps=steps).sqrt()


@numba.njit(nogil=True, cache=True, fastmath=True)
def _scale_frames(rebuilt, previous, factor, mel, first, last, begin, weights, amin, spectrum):
    power = np.empty(rebuilt.shape, dtype=np.float32)
    for t in range(rebuilt.shape[0]):
        for k in range(rebuilt.shape[1]):
            re = rebuilt[t, k].real - factor * previous[t, k].real
            im = rebuilt[t, k].imag - factor * previous[t, k].imag
            previous[t, k] = rebuilt[t, k]
            spectrum[t, k] = complex(re, im)
            power[t, k] = max(re * re + im * im, amin)
    before = power.copy()
    _update_frames(power, mel, first, last, begin, weights, 1, amin)
    for t in range(rebuilt.shape[0]):
        for k in range(rebuilt.shape[1]):
            spectrum[t, k] *= np.sqrt(power[t, k] / before[t, k])


def scale_towards_mel(
    rebuilt: np.ndarray,
    previous: np.ndarray,
    factor: float,
    mel: np.ndarray,
    config: AudioConfig,
    spectrum: np.ndarray,
) -> None:
    """Make one update of a spectrum, with momentum, towards a mel spectrogram.

    Parameters
    ----------
    rebuilt : np.ndarray [shape=(T, F), dtype=complex64]
        Spectrum of the signal.
    previous : np.ndarray [shape=(T, F), dtype=complex64]
        Its value in the step before; overwritten with `rebuilt`.
    factor : float
        ``rebuilt - factor * previous`` is what the update scales.
    mel : np.ndarray [shape=(T, n_mels)]
        Mel spectrogram, of power.
    config : AudioConfig
        The front end.
    spectrum : np.ndarray [shape=(T, F), dtype=complex64]
        Overwritten with the result.
    """
    amin = np.float32(config.amin)
    _scale_frames(rebuilt, previous, np.float32(factor), mel, *_bands(config), amin, spectrum)
