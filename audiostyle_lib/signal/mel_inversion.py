"""From a mel spectrogram back to the power of every STFT bin. Notebook 08.

128 bands say little about 1025 bins; of all powers with the right sums, one near the pseudo-inverse
(or near a signal's own) is taken.
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
FLOOR = 0.1  # of a bin's power where the pseudo-inverse begins, as a share of the bands around it


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _pseudo_inverse(config: AudioConfig, device: str) -> Tensor:
    return torch.linalg.pinv(features._mel_basis(config, "cpu")).to(device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _band_mean(config: AudioConfig, device: str) -> Tensor:
    """(F, n_mels): every bin's mean power in the bands that it lies in."""
    basis = features._mel_basis(config, "cpu")
    inside = (basis > 0).any(dim=0).nonzero()
    nearest = torch.arange(basis.shape[1]).clamp(int(inside.min()), int(inside.max()))
    weights = (basis / basis.sum(dim=0).clamp_min(1e-12) / basis.sum(dim=1, keepdim=True)).T
    return weights[nearest].to(device)  # 0 Hz and the topmost bins lie in no filter


@lru_cache(maxsize=8)
def _bands(config: AudioConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The filterbank's nonzero weights, and of each band its first and last bin and first weight."""
    basis = features._mel_basis(config, "cpu").numpy()
    first = (basis > 0).argmax(axis=1)
    last = basis.shape[1] - (basis > 0)[:, ::-1].argmax(axis=1)
    begin = np.concatenate([[0], np.cumsum(last - first)[:-1]])
    weights = [row[a:b] for row, a, b in zip(basis, first, last, strict=True)]
    return first, last, begin, np.concatenate(weights)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _update_frames(power, mel, first, last, begin, weights, steps, amin):
    """Multiplicative updates of power (T, F), in place, towards mel (T, n_mels)."""
    n_frames, n_bins = power.shape
    n_mels = mel.shape[1]
    norm = np.zeros(n_bins, dtype=np.float32)
    for b in range(n_mels):
        for k in range(first[b], last[b]):
            norm[k] += weights[begin[b] + k - first[b]]
    unseen = (norm == 0).astype(np.float32)  # bins in no filter are multiplied by 1
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
    """Multiplicative updates of power (B, F, T) towards the mel spectrogram (B, n_mels, T).

    They lower the Kullback-Leibler divergence (Lee & Seung, 2001) and keep power positive; bins in no
    filter stay as they are. On a CPU only the filterbank's nonzero weights are touched, unless gradients
    are wanted.
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
    """Power spectrogram (B, F, T) near the pseudo-inverse of a mel spectrogram (B, n_mels, T) in dB.

    Where the pseudo-inverse is negative or nearly so, 10 dB below the mean of the bands around: from a
    floor common to all bins, multiplicative updates could not rise.
    """
    frames = log_mel_db.transpose(1, 2)  # a frame's bins side by side, as updates want them
    mel = 10 ** (frames / 10)
    device = str(mel.device)
    lowest = (mel @ (FLOOR * _band_mean(config, device)).T).clamp_min(config.amin)
    return torch.maximum(mel @ _pseudo_inverse(config, device).T, lowest).transpose(1, 2)


def mel_to_magnitude(log_mel_db: Tensor, config: AudioConfig, *, steps: int = KL_STEPS) -> Tensor:
    """Magnitude spectrogram (B, F, T) whose mel spectrogram is the given one (B, n_mels, T) in dB.

    `starting_power`, refined by `steps` multiplicative updates.
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
    """`rebuilt` - `factor` `previous`, one update nearer to the mel spectrogram, into `spectrum`.

    All are (T, F) and complex, `mel` is (T, n_mels) and of power; `rebuilt` becomes `previous`.
    """
    amin = np.float32(config.amin)
    _scale_frames(rebuilt, previous, np.float32(factor), mel, *_bands(config), amin, spectrum)
