"""From a spectrogram back to a waveform: the step the report could not take. Notebook 08."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from . import features
from .config import AudioConfig

KL_STEPS = 20
MOMENTUM = 0.99
VOCODERS = ("gain", "griffin_lim", "content_phase")


@lru_cache(maxsize=8)
def _band_to_bin(config: AudioConfig, device: str) -> Tensor:
    """(n_fft // 2 + 1, n_mels): weights, summing to 1, with which a bin mixes the bands above it."""
    basis = features._mel_basis(config, "cpu").clone()
    shape = basis / basis.amax(dim=1, keepdim=True)  # undo slaney's area normalisation
    weights = shape.T.contiguous()
    empty = weights.sum(dim=1) == 0  # 0 Hz and the topmost bins lie in no filter
    nearest = torch.where(torch.arange(len(weights)) < len(weights) // 2, 0, config.n_mels - 1)
    weights[empty] = torch.nn.functional.one_hot(nearest[empty], config.n_mels).to(weights.dtype)
    return (weights / weights.sum(dim=1, keepdim=True)).to(device)


def apply_gain(spectrum: Tensor, gain_db: Tensor, config: AudioConfig) -> Tensor:
    """Scale a complex STFT (B, F, T) by a gain in dB per mel band, (B, n_mels, T) or (B, n_mels, 1).

    A bin's gain is the mean, in dB, of the bands it belongs to; phases stay the content's own.
    """
    gain_per_bin = _band_to_bin(config, str(spectrum.device)) @ gain_db  # (B, F, T)
    return spectrum * 10 ** (gain_per_bin / 20)


@lru_cache(maxsize=8)
def _pseudo_inverse(config: AudioConfig, device: str) -> Tensor:
    return torch.linalg.pinv(features._mel_basis(config, "cpu")).to(device)


def mel_to_magnitude(log_mel_db: Tensor, config: AudioConfig, *, steps: int = KL_STEPS) -> Tensor:
    """Magnitude spectrogram (B, F, T) whose mel spectrogram is the given one (B, n_mels, T) in dB.

    Starts from the clamped pseudo-inverse and refines it by multiplicative updates that lower the
    Kullback-Leibler divergence (Lee & Seung, 2001); power stays positive by construction.
    """
    basis = features._mel_basis(config, str(log_mel_db.device))
    mel = 10 ** (log_mel_db / 10)
    power = (_pseudo_inverse(config, str(mel.device)) @ mel).clamp_min(config.amin)
    norm = basis.sum(dim=0)[:, None].clamp_min(1e-12)  # (F, 1)
    in_a_filter = (basis.sum(dim=0) > 0)[:, None]
    for _ in range(steps):
        ratio = mel / (basis @ power).clamp_min(config.amin)
        power = torch.where(in_a_filter, power * (basis.T @ ratio) / norm, power)
    return power.sqrt()


def griffin_lim(
    magnitude: Tensor,
    config: AudioConfig,
    *,
    n_samples: int,
    iterations: int = 32,
    momentum: float = MOMENTUM,
    phase: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Waveform (B, n_samples) whose STFT magnitude approaches `magnitude` (B, F, T).

    Fast Griffin-Lim (Perraudin, Balazs & Sondergaard, WASPAA 2013); momentum 0 is the original
    (Griffin & Lim, 1984).

    Parameters
    ----------
    phase : complex (B, F, T) to start from (its modulus is ignored); random from `seed` if None
    """
    if phase is None:
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * np.pi * torch.rand(magnitude.shape, generator=generator)
        unit = torch.polar(torch.ones_like(angle), angle).to(magnitude.device)
    else:
        unit = phase / phase.abs().clamp_min(1e-12)
    previous = torch.zeros_like(unit)
    factor = momentum / (1 + momentum)
    for _ in range(iterations):
        waveform = features.istft(magnitude * unit, config, n_samples)
        rebuilt = features.stft(waveform, config)
        unit = rebuilt - factor * previous
        unit = unit / unit.abs().clamp_min(1e-12)
        previous = rebuilt
    return features.istft(magnitude * unit, config, n_samples)


def mel_to_waveform(
    log_mel_db: Tensor,
    config: AudioConfig,
    *,
    n_samples: int | None = None,
    iterations: int = 32,
    seed: int = 0,
) -> Tensor:
    """Waveform (B, n_samples) of a log-mel in dB (B, n_mels, T): inversion, then Griffin-Lim.

    `n_samples` is (T - 1) * hop_length unless given.
    """
    if n_samples is None:
        n_samples = (log_mel_db.shape[2] - 1) * config.hop_length
    magnitude = mel_to_magnitude(log_mel_db, config)
    return griffin_lim(magnitude, config, n_samples=n_samples, iterations=iterations, seed=seed)


def render(
    spectrum: Tensor, gain_db: Tensor, config: AudioConfig, *, n_samples: int, vocoder: str = "gain"
) -> Tensor:
    """Waveform (B, n_samples) of the content's STFT (B, F, T) changed by `gain_db` (B, n_mels, T).

    Parameters
    ----------
    vocoder : ``gain`` multiplies the content's own STFT; ``griffin_lim`` inverts the resulting mel
        spectrogram and finds a new phase; ``content_phase`` inverts it and takes the content's phase
    """
    if vocoder == "gain":
        return features.istft(apply_gain(spectrum, gain_db, config), config, n_samples)
    if vocoder not in VOCODERS:
        raise ValueError(f"unknown vocoder {vocoder!r}: choose one of {', '.join(VOCODERS)}")
    log_mel = features.power_to_db(
        features.mel_power(spectrum.abs() ** 2, config), amin=config.amin
    )
    if vocoder == "griffin_lim":
        return mel_to_waveform(log_mel + gain_db, config, n_samples=n_samples)
    magnitude = mel_to_magnitude(log_mel + gain_db, config)
    unit = spectrum / spectrum.abs().clamp_min(1e-12)
    return features.istft(magnitude * unit, config, n_samples)
