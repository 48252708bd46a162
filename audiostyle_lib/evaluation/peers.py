"""What a learned system has to beat: earlier methods of one-shot transfer. Notebook 09.

They take a content and a style waveform (n_samples,) and give a waveform as long as the content. The
plainest rival, an equaliser, is `transfer.ltas_eq`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from .. import vocoding
from ..config import AudioConfig
from ..signal import features
from ..signal.audio import to_level

GRIFFIN_LIM_ITERATIONS = 32
LARGEST_LOG_POWER = 40.0  # before the exponential that undoes log(1 + power)


# Musaicing ----------------------------------------------------------------------------------------


def musaicing(
    content: np.ndarray,
    style: np.ndarray,
    config: AudioConfig,
    *,
    iterations: int = 20,
    repetition: int = 3,
    polyphony: int = 10,
    continuity: int = 3,
) -> np.ndarray:
    """The content put together from frames of the style clip (Driedger, Prätzlich & Müller, ISMIR 2015).

    Non-negative matrix factorisation of the content's magnitudes in which the templates are the style
    clip's own frames and stay fixed; the activations are held sparse in time, few at a time and along
    diagonals, so that runs of frames are used ("Let it Bee"). Frames of 2048 samples each 1024, and the
    defaults below, are those of public implementations.

    Parameters
    ----------
    iterations : L of the paper
    repetition : r of the paper; an activation counts if it is the largest within r frames
    polyphony : p, templates at a time
    continuity : c, frames on either side along a diagonal
    """
    lattice = AudioConfig(sample_rate=config.sample_rate, hop_length=1024)
    own, theirs = (
        features.stft(torch.from_numpy(x)[None], lattice)[0].numpy() for x in (content, style)
    )
    templates, target = np.abs(theirs), np.abs(own)  # (F, K), (F, T)
    scale = templates.sum(axis=0, keepdims=True) + 1e-9
    templates, theirs = templates / scale, theirs / scale
    activations = np.random.default_rng(0).random((templates.shape[1], target.shape[1]))
    activations = activations.astype(np.float32)
    for step in range(iterations):
        share = 1 - (step + 1) / iterations  # what the constraints leave of what they suppress
        activations = _suppress(activations, share, repetition, polyphony)
        activations = _along_diagonals(activations, continuity)
        ratio = target / (templates @ activations + 1e-9)
        activations = activations * (templates.T @ ratio)  # columns of the templates sum to 1
    spectrum = torch.from_numpy((theirs @ activations).astype(np.complex64))[None]
    waveform = vocoding.griffin_lim(
        spectrum.abs(), lattice, n_samples=len(content), phase=spectrum,
        iterations=GRIFFIN_LIM_ITERATIONS,
    )  # fmt: skip
    return waveform[0].numpy()


def _suppress(h: np.ndarray, share: float, repetition: int, polyphony: int) -> np.ndarray:
    """Activations (K, T) with all but local maxima in time, then all but the largest few, scaled."""
    from scipy.ndimage import maximum_filter1d

    peaks = h == maximum_filter1d(h, 2 * repetition + 1, axis=1)
    h = np.where(peaks, h, share * h)
    if polyphony >= len(h):
        return h
    least = np.partition(h, len(h) - polyphony, axis=0)[len(h) - polyphony]
    return np.where(h >= least, h, share * h)


def _along_diagonals(h: np.ndarray, continuity: int) -> np.ndarray:
    """Sum of 2 `continuity` + 1 neighbours on the same diagonal of activations (K, T)."""
    padded = np.pad(h, continuity)
    size = 2 * continuity + 1
    return sum(padded[d : d + h.shape[0], d : d + h.shape[1]] for d in range(size))


# Gram matrices of random features -----------------------------------------------------------------


@lru_cache(maxsize=4)
def _random_filters(n_channels: int, n_filters: int, kernel: tuple[int, ...], seed: int) -> Tensor:
    """Normal weights of an untrained layer, with the variance of Glorot & Bengio (2010) for a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    area = int(np.prod(kernel))
    std = 2 / np.sqrt((n_channels + n_filters) * area)
    return std * torch.randn(n_filters, n_channels, *kernel, generator=generator)


def gram_matrix(rows: Tensor) -> Tensor:
    """Products of features (C, T) with each other, mean over time: (C, C). What sounds together."""
    return rows @ rows.T / rows.shape[1]


def gram_distance(rows: Tensor, others: Tensor) -> Tensor:
    """Squared Frobenius distance of the Gram matrices of two sets of features, (C, T) and (C, T').

    Where features outnumber frames it is computed from products of frames, which costs T / C of it:
    |A A' - B B'|^2 = |A' A|^2 - 2 |B' A|^2 + |B' B|^2.
    """
    if len(rows) <= rows.shape[1]:
        return (gram_matrix(rows) - gram_matrix(others)).square().sum()
    a, b = (x / x.shape[1] ** 0.5 for x in (rows, others))
    own, cross, other = ((x.T @ y).square().sum() for x, y in ((a, a), (b, a), (b, b)))
    return own - 2 * cross + other


def _minimise(loss_of: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """L-BFGS from `start`."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=iterations, tolerance_grad=1e-5, tolerance_change=1e-9, history_size=20
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        return loss

    optimizer.step(closure)
    return x.detach()


def gram_random(
    content: np.ndarray,
    style: np.ndarray,
    config: AudioConfig,
    *,
    style_weight: float = 10**-2.1,
    n_filters: int = 4096,
    iterations: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Ulyanov & Lebedev's transfer: an untrained layer's features of the content, Gram of the style.

    One convolution over time with 4096 random filters of 11 frames on log(1 + power), the spectrogram
    fitted by L-BFGS, Griffin-Lim ("Audio texture synthesis and style transfer", 2016). Normalisation
    and the ratio of style to content, 10^-2.1, as tuned by Cifka et al. (ICASSP 2021) for this task.
    """
    weight = _random_filters(config.n_fft // 2 + 1, n_filters, (11,), seed).to(device)

    def log_power(waveform: np.ndarray) -> Tensor:
        power = features.stft(torch.from_numpy(waveform).to(device)[None], config)[0].abs() ** 2
        return torch.log1p(power / power.mean())

    def layer(x: Tensor) -> Tensor:
        return nn.functional.conv1d(x[None], weight)[0].relu()

    with torch.no_grad():
        target = log_power(content)
        wanted, of_style = layer(target), layer(log_power(style))
    share = style_weight / (1 + style_weight)

    def loss_of(x: Tensor) -> Tensor:
        rows = layer(x)
        content_loss = (rows - wanted).square().sum() / 2
        style_loss = gram_distance(rows, of_style) / 8
        return (1 - share) * content_loss + share * style_loss

    generator = torch.Generator().manual_seed(seed)
    start = 1e-3 * torch.randn(target.shape, generator=generator).to(device)
    found = _minimise(loss_of, start, iterations).nan_to_num().clamp(0, LARGEST_LOG_POWER)
    waveform = vocoding.griffin_lim(
        torch.expm1(found).sqrt()[None], config, n_samples=len(content),
        iterations=GRIFFIN_LIM_ITERATIONS,
    )  # fmt: skip
    return waveform[0].cpu().numpy()


@lru_cache(maxsize=2)
def _constant_q_kernels(config: AudioConfig, device: str) -> tuple[Tensor, int]:
    """Spectra (84, n_fft // 2 + 1) of constant-Q filters, seven octaves from C1, and n_fft."""
    import librosa

    hz = librosa.cqt_frequencies(84, fmin=librosa.note_to_hz("C1"))
    filters, lengths = librosa.filters.wavelet(freqs=hz, sr=config.sample_rate, norm=1)
    n_fft = 2 ** int(np.ceil(np.log2(lengths.max())))
    filters = librosa.util.pad_center(filters, size=n_fft, axis=1)
    spectra = np.fft.fft(filters, axis=1)[:, : n_fft // 2 + 1]
    return torch.from_numpy(spectra.astype(np.complex64).conj()).to(device), n_fft


def constant_q(waveform: Tensor, config: AudioConfig) -> Tensor:
    """Magnitudes (84, T) of a constant-Q transform of a waveform (n_samples,), differentiable.

    Filters by librosa, applied to the spectrum of every frame (Brown & Puckette, JASA 1992).
    """
    kernels, n_fft = _constant_q_kernels(config, str(waveform.device))
    spectrum = torch.stft(
        waveform, n_fft, config.hop_length, window=torch.ones(n_fft, device=waveform.device),
        center=True, pad_mode="constant", return_complex=True,
    )  # fmt: skip
    return (kernels @ spectrum).abs() / n_fft**0.5


def gram_representations(
    content: np.ndarray,
    style: np.ndarray,
    config: AudioConfig,
    *,
    style_weight: float = 1.0,
    n_filters: int = 2048,
    iterations: int = 100,
    seed: int = 0,
    device: str = "cpu",
) -> np.ndarray:
    """Barry & Kim's transfer: Gram matrices in three representations, fitted as a waveform.

    Log-magnitude STFT with filters of 11 frames (what harmony sounds like), log-mel with 50 (rhythm),
    and constant-Q with filters of 11 frames and 12 semitones that slide along pitch (timbre in any key),
    all random; the waveform is fitted by L-BFGS, so no phase has to be found ("Style" transfer for
    musical audio using multiple time-frequency representations, 2018). Ours, because their text leaves
    them open or depends on the pair: each loss is a share of its target's energy, all of one weight,
    constant-Q has a sixteenth of the filters, and the fit begins with the content.
    """
    sizes = {"stft": (config.n_fft // 2 + 1, (11,)), "mel": (config.n_mels, (50,))}
    weights = {
        name: _random_filters(n, n_filters, kernel, seed).to(device)
        for name, (n, kernel) in sizes.items()
    }
    weights["cqt"] = _random_filters(1, n_filters // 16, (12, 11), seed).to(device)

    def layers(x: Tensor) -> dict[str, Tensor]:
        magnitude = features.stft(x[None], config).abs()
        mel = features.mel_power(magnitude**2 + 1e-9, config).sqrt()
        inputs = {"stft": magnitude, "mel": mel, "cqt": constant_q(x, config)[None, None]}
        conv = {
            "stft": nn.functional.conv1d,
            "mel": nn.functional.conv1d,
            "cqt": nn.functional.conv2d,
        }
        found = {k: conv[k](torch.log1p(v), weights[k]).relu()[0] for k, v in inputs.items()}
        return {k: v.flatten(1) for k, v in found.items()}  # (filters, frames [and pitches])

    own, other = (torch.from_numpy(to_level(x)).to(device) for x in (content, style))
    with torch.no_grad():
        wanted = layers(own)
        of_style = layers(other)
        energy = {k: gram_matrix(v).square().sum() for k, v in of_style.items()}

    def loss_of(x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for name, rows in layers(x).items():
            target = wanted[name]
            total = total + (rows - target).square().sum() / target.square().sum()
            of_gram = gram_distance(rows, of_style[name]) / energy[name]
            total = total + style_weight * of_gram
        return total

    return _minimise(loss_of, own, iterations).cpu().numpy()
