"""Earlier methods of one-shot transfer, which a trained network has to beat.

Each takes a content and a style waveform and returns a waveform as long as the content. The simplest
rival, an equaliser, is `transfer.ltas_eq`.

Used by the benchmark in ``notebooks/09_evaluation.ipynb``.
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
# Of musaicing, in the paper's letters: iterations L; r, frames within which an activation has to be the
# largest; p, templates at a time; c, frames on either side along a diagonal.
MUSAICING = {"iterations": 20, "repetition": 3, "polyphony": 10, "continuity": 3}


# Musaicing ----------------------------------------------------------------------------------------


def musaicing(content: np.ndarray, style: np.ndarray, config: AudioConfig) -> np.ndarray:
    """The content put together from frames of the style clip (Driedger, Prätzlich & Müller, ISMIR 2015).

    Non-negative matrix factorisation of the content's magnitudes. The templates are the style clip's own
    frames and stay fixed. The activations are kept sparse in time, few at a time and along diagonals, so
    that runs of frames are used ("Let it Bee").

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        As long as the content.

    Notes
    -----
    Frames of 2048 samples each 1024 and the settings in `MUSAICING` are those of public implementations.
    """
    wide = AudioConfig(sample_rate=config.sample_rate, hop_length=1024)
    own, theirs = (
        features.stft(torch.from_numpy(x)[None], wide)[0].numpy() for x in (content, style)
    )
    templates, target = np.abs(theirs), np.abs(own)  # (F, K), (F, T)
    scale = templates.sum(axis=0, keepdims=True) + 1e-9
    templates, theirs = templates / scale, theirs / scale
    activations = np.random.default_rng(0).random((templates.shape[1], target.shape[1]))
    activations = activations.astype(np.float32)
    iterations = MUSAICING["iterations"]
    for step in range(iterations):
        share = 1 - (step + 1) / iterations  # what the constraints leave of what they suppress
        activations = _suppress(activations, share, MUSAICING["repetition"], MUSAICING["polyphony"])
        activations = _along_diagonals(activations, MUSAICING["continuity"])
        ratio = target / (templates @ activations + 1e-9)
        activations = activations * (templates.T @ ratio)  # columns of the templates sum to 1
    spectrum = torch.from_numpy((theirs @ activations).astype(np.complex64))[None]
    waveform = vocoding.griffin_lim(
        spectrum.abs(), wide, n_samples=len(content), phase=spectrum,
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
def _random_filters(n_channels: int, n_filters: int, kernel: tuple[int, ...]) -> Tensor:
    """Normal weights of an untrained layer, with the variance of Glorot & Bengio (2010) for a ReLU."""
    generator = torch.Generator().manual_seed(0)
    area = int(np.prod(kernel))
    std = 2 / np.sqrt((n_channels + n_filters) * area)
    return std * torch.randn(n_filters, n_channels, *kernel, generator=generator)


def gram_matrix(rows: Tensor) -> Tensor:
    """Products of features with each other, mean over time: which features sound together.

    Parameters
    ----------
    rows : torch.Tensor [shape=(C, T)]

    Returns
    -------
    torch.Tensor [shape=(C, C)]
    """
    return rows @ rows.T / rows.shape[1]


def gram_distance(rows: Tensor, others: Tensor) -> Tensor:
    """Squared Frobenius distance of the Gram matrices of two sets of features.

    Parameters
    ----------
    rows : torch.Tensor [shape=(C, T)]
    others : torch.Tensor [shape=(C, S)]
        The number of frames may differ.

    Returns
    -------
    torch.Tensor [shape=()]

    Notes
    -----
    With more features than frames, products of frames are cheaper than the matrices themselves:
    |A A' - B B'|^2 = |A' A|^2 - 2 |B' A|^2 + |B' B|^2.
    """
    if len(rows) <= rows.shape[1]:
        return (gram_matrix(rows) - gram_matrix(others)).square().sum()
    a, b = (x / x.shape[1] ** 0.5 for x in (rows, others))
    own, cross, other = ((x.T @ y).square().sum() for x, y in ((a, a), (b, a), (b, b)))
    return own - 2 * cross + other


def _minimise(loss_of: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """The tensor that L-BFGS reaches from `start`."""
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
    device: str = "cpu",
) -> np.ndarray:
    """Ulyanov & Lebedev's transfer: an untrained layer's features of the content, Gram of the style.

    One convolution over time with random filters of 11 frames on log(1 + power). L-BFGS fits the
    spectrogram, Griffin-Lim its phase ("Audio texture synthesis and style transfer", 2016).

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,)]
    config : AudioConfig
    style_weight : float
        Ratio of style to content; it and the normalisation as Cifka et al. (ICASSP 2021) tuned them for
        this task.
    n_filters : int
    iterations : int
        Of L-BFGS.
    device : str

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        As long as the content.
    """
    weight = _random_filters(config.n_fft // 2 + 1, n_filters, (11,)).to(device)

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

    generator = torch.Generator().manual_seed(0)
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
    """Magnitudes of a constant-Q transform through which gradients flow.

    Filters by librosa, applied to the spectrum of every frame (Brown & Puckette, JASA 1992).

    Parameters
    ----------
    waveform : torch.Tensor [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    torch.Tensor [shape=(84, T)]
        Semitones over seven octaves from C1.
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
    device: str = "cpu",
) -> np.ndarray:
    """Barry & Kim's transfer: Gram matrices in three representations, fitted as a waveform.

    Random filters on a log-magnitude STFT (11 frames: harmony), on a log-mel (50 frames: rhythm) and on a
    constant-Q spectrogram (11 frames by 12 semitones, moved along pitch: timbre in any key). L-BFGS fits
    the waveform itself, so no phase has to be found ("Style" transfer for musical audio using multiple
    time-frequency representations, 2018).

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,)]
    config : AudioConfig
    style_weight : float
        Of the Gram losses beside the content losses.
    n_filters : int
        On the STFT and on the log-mel; a sixteenth of it on the constant-Q spectrogram.
    iterations : int
        Of L-BFGS.
    device : str

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
        As long as the content.

    Notes
    -----
    The paper leaves some choices open or makes them for each pair. Here each loss is divided by the
    energy of its target, all losses have one weight, and the fit begins with the content.
    """
    sizes = {"stft": (config.n_fft // 2 + 1, (11,)), "mel": (config.n_mels, (50,))}
    weights = {
        name: _random_filters(n, n_filters, kernel).to(device)
        for name, (n, kernel) in sizes.items()
    }
    weights["cqt"] = _random_filters(1, n_filters // 16, (12, 11)).to(device)

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
