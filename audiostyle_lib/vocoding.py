"""From a spectrogram back to a waveform, the step that the report leaves out.

Used by ``notebooks/08_vocoding.ipynb``, where every way is explained and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .config import AudioConfig, require_same_front_end
from .models import checkpoint
from .models.vocos import Vocos
from .paths import PRETRAINED
from .signal import features, frames, mel_inversion, phase_recovery

DEFAULT_MODEL = PRETRAINED / "vocoder.safetensors"
MOMENTUM = 0.99
MEL_MOMENTUM = 0.5  # of the steps towards the log-mel; after so few steps, more momentum is worse
PEAK = 0.99
BLOCK_FRAMES = 2048  # frames of a long spectrogram that are processed at a time: 47 s
OVERLAP_FRAMES = 8  # frames that two blocks share; a sample lies in n_fft / hop_length = 4 frames


@dataclass(frozen=True)
class Vocoder:
    """A way from a log-mel to a waveform.

    Parameters
    ----------
    magnitude : str
        ``"gain"`` on the content's STFT, ``"inversion"`` of the mel spectrogram, or ``"network"``.
    phase : str
        ``"content"`` takes the content's, ``"random"`` draws them, ``"heap"`` integrates gradients.
    iterations : int
        Griffin-Lim steps towards these magnitudes.
    mel_steps : int
        Further steps, which keep the log-mel but may change the magnitudes within a band.
    tolerance : float
        Of heap integration: bins below this share of the loudest one begin with a random phase.
    """

    magnitude: str
    phase: str
    iterations: int = 0
    mel_steps: int = 0
    tolerance: float = 1e-3


VOCODERS = {
    "gain": Vocoder("gain", "content"),
    "content_phase": Vocoder("inversion", "content"),
    "griffin_lim": Vocoder("inversion", "random", iterations=32),
    "pghi": Vocoder("inversion", "heap", iterations=4, mel_steps=8),
    "neural": Vocoder("network", "heap", mel_steps=6, tolerance=1e-2),
}
FROM_LOG_MEL = tuple(name for name, vocoder in VOCODERS.items() if vocoder.phase != "content")


def vocoder_named(name: str | Vocoder) -> Vocoder:
    """The entry of `VOCODERS` called `name`, or `name` if it is a `Vocoder`; else a `ValueError`."""
    if isinstance(name, Vocoder):
        return name
    if name not in VOCODERS:
        raise ValueError(f"unknown vocoder {name!r}: choose one of {', '.join(VOCODERS)}")
    return VOCODERS[name]


@lru_cache(maxsize=2)
def load_model(config: AudioConfig, device: str = "cpu") -> Vocos:
    """The pretrained network, in evaluation mode.

    Raises
    ------
    ConfigMismatchError
        If it was trained for another front end.
    """

    def build(**sizes: int) -> Vocos:
        return Vocos(config=config, **sizes)

    return checkpoint.load_model(DEFAULT_MODEL, build=build, config=config, device=device)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def band_to_bin(config: AudioConfig, device: str) -> Tensor:
    """Weights (F, n_mels), summing to 1, of the bands that each bin belongs to."""
    basis = features._mel_basis(config, "cpu").clone()
    shape = basis / basis.amax(dim=1, keepdim=True)  # undo slaney's area normalisation
    weights = shape.T.contiguous()
    empty = weights.sum(dim=1) == 0  # 0 Hz and the topmost bins lie in no filter
    nearest = torch.where(torch.arange(len(weights)) < len(weights) // 2, 0, config.n_mels - 1)
    weights[empty] = torch.nn.functional.one_hot(nearest[empty], config.n_mels).to(weights.dtype)
    return (weights / weights.sum(dim=1, keepdim=True)).to(device)


def apply_gain(spectrum: Tensor, gain_db: Tensor, config: AudioConfig) -> Tensor:
    """Scale a complex STFT by a gain per mel band; phases stay as they are.

    Parameters
    ----------
    spectrum : torch.Tensor [shape=(B, F, T)]
        Complex.
    gain_db : torch.Tensor [shape=(B, n_mels, T) or (B, n_mels, 1)]
        In dB. A bin's gain is the weighted mean of those of the bands that it belongs to.
    config : AudioConfig
        The front end.

    Returns
    -------
    torch.Tensor [shape=(B, F, T)]
    """
    gain_per_bin = band_to_bin(config, str(spectrum.device)) @ gain_db  # (B, F, T)
    return spectrum * 10 ** (gain_per_bin / 20)


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
    """Fast Griffin-Lim: find a waveform whose STFT has nearly these magnitudes.

    Parameters
    ----------
    magnitude : torch.Tensor [shape=(B, F, T)]
        Linear.
    config : AudioConfig
        The front end.
    n_samples : int
        Length of the waveform.
    iterations : int
        Number of steps.
    momentum : float
        0 is the original algorithm, 0.99 converges faster.
    phase : torch.Tensor [shape=(B, F, T)] or None
        Complex; its angles are where the iteration begins, its modulus is ignored. Random if None.
    seed : int
        Of the random phases.

    Returns
    -------
    torch.Tensor [shape=(B, n_samples)]

    Notes
    -----
    On a CPU each item is processed by `phase_recovery.griffin_lim`, which names the sources; on other
    devices the whole batch at once.
    """
    if phase is None:
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * np.pi * torch.rand(magnitude.shape, generator=generator)
        phase = torch.polar(torch.ones_like(angle), angle).to(magnitude.device)
    unit = phase / phase.abs().clamp_min(1e-12)
    if magnitude.device.type == "cpu":
        settings = {**_stft_sizes(config), "n_samples": n_samples}
        steps = {"iterations": iterations, "momentum": momentum}
        found = [
            phase_recovery.griffin_lim(x.numpy().T, **settings, **steps) for x in magnitude * unit
        ]
        return torch.from_numpy(np.stack([frames.istft(x, **settings) for x in found]))
    return _griffin_lim_batched(magnitude, unit, config, n_samples, iterations, momentum)


def _griffin_lim_batched(magnitude, unit, config, n_samples, iterations, momentum) -> Tensor:
    previous = torch.zeros_like(unit)
    factor = momentum / (1 + momentum)
    for _ in range(iterations):
        waveform = features.istft(magnitude * unit, config, n_samples)
        rebuilt = features.stft(waveform, config)
        unit = rebuilt - factor * previous
        unit = unit / unit.abs().clamp_min(1e-12)
        previous = rebuilt
    return features.istft(magnitude * unit, config, n_samples)


def _stft_sizes(config: AudioConfig) -> dict[str, int]:
    return {"n_fft": config.n_fft, "hop_length": config.hop_length}


def heap_integration(magnitude: Tensor, config: AudioConfig, *, seed: int = 0) -> Tensor:
    """Complex spectrum (B, F, T) of a magnitude (B, F, T), by `phase_recovery.heap_integration`."""
    found = [
        phase_recovery.polar(
            x, phase_recovery.heap_integration(x, **_stft_sizes(config), seed=seed)
        )
        for x in (m.cpu().numpy().T for m in magnitude)
    ]
    return torch.from_numpy(np.stack(found)).transpose(1, 2).to(magnitude.device)


def mel_to_waveform(
    log_mel_db: Tensor,
    config: AudioConfig,
    *,
    n_samples: int | None = None,
    vocoder: str | Vocoder = "pghi",
    model: Vocos | None = None,
    seed: int = 0,
) -> Tensor:
    """Make a waveform for a log-mel: magnitudes first, then phases, then steps that refine both.

    Parameters
    ----------
    log_mel_db : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    config : AudioConfig
        The front end.
    n_samples : int or None
        Length of the waveform, (T - 1) * hop_length if None.
    vocoder : str or Vocoder
        One of `FROM_LOG_MEL`, or another one whose phase is not the content's.
    model : Vocos or None
        Network of a vocoder that has one; the pretrained one if None.
    seed : int
        Of the random phases.

    Returns
    -------
    torch.Tensor [shape=(B, n_samples)]
        In -1..1, on the CPU; a waveform that would clip is made quieter as a whole.

    Raises
    ------
    ValueError
        If the vocoder is unknown or needs the content, or the log-mel has another shape or values that
        are not finite.
    ConfigMismatchError
        If `model` was trained for another front end.

    Notes
    -----
    A log-mel determines only sums of magnitudes. Therefore the last steps do not aim at the magnitudes
    found first: they scale those of the signal so that each band has the right sum.

    A long spectrogram is processed in blocks, so the memory needed beside input and output is bounded.
    Each block begins with the last frames of the block before and keeps their phases. So the two signals
    are equal where they are joined, and no seam is heard. Only the magnitudes are computed on the device
    of the input, because heap integration visits one bin after the other.
    """
    way = vocoder_named(vocoder)
    if log_mel_db.ndim != 3 or log_mel_db.shape[1] != config.n_mels or log_mel_db.shape[2] == 0:
        raise ValueError(
            f"wanted a log-mel (B, {config.n_mels}, T), got shape {tuple(log_mel_db.shape)}"
        )
    if not log_mel_db.isfinite().all():
        raise ValueError("the log-mel holds values that are not finite (NaN or infinity)")
    log_mel_db = log_mel_db.float()
    if way.phase == "content":
        raise ValueError(f"{vocoder} needs the content's STFT: choose {', '.join(FROM_LOG_MEL)}")
    if n_samples is None:
        n_samples = (log_mel_db.shape[2] - 1) * config.hop_length
    if way.magnitude == "network":
        model = model or load_model(config, str(log_mel_db.device))
        require_same_front_end(config, model.config, what="the vocoder")
    else:
        model = None

    def to_spectrum(log_mel: Tensor, first: int, last: int, kept: np.ndarray) -> np.ndarray:
        magnitude = _magnitude(log_mel, first, last, model, config)
        return _block(log_mel[:, first:last], magnitude, way, config, seed, kept)

    items = [_in_blocks(x, config, n_samples, to_spectrum) for x in log_mel_db]
    return torch.from_numpy(np.stack(items))


@torch.inference_mode()
def _magnitude(
    log_mel_db: Tensor, first: int, last: int, model: Vocos | None, config: AudioConfig
) -> np.ndarray:
    """Magnitudes (T, F) of the frames `first` to `last` of a log-mel (n_mels, T).

    A network is also shown the frames around them, as many as its receptive field reaches.
    """
    margin = 0 if model is None else model.receptive_field // 2
    begin = max(0, first - margin)
    seen = log_mel_db[None, :, begin : last + margin]
    found = mel_inversion.mel_to_magnitude(seen, config) if model is None else model.magnitude(seen)
    return found[0, :, first - begin : last - begin].cpu().numpy().T


def _in_blocks(
    log_mel_db: Tensor, config: AudioConfig, n_samples: int, to_spectrum: Callable
) -> np.ndarray:
    """Waveform (n_samples,) of one log-mel (n_mels, T), scaled to a peak of `PEAK` if it would clip."""
    hop, n_frames = config.hop_length, log_mel_db.shape[1]
    waveform = np.zeros(n_samples, dtype=np.float32)
    kept = np.empty(
        (0, config.n_fft // 2 + 1), dtype=np.complex64
    )  # last frames of the block before
    for start in range(0, n_frames, BLOCK_FRAMES):
        first, stop = start - len(kept), min(n_frames, start + BLOCK_FRAMES + OVERLAP_FRAMES)
        n = min(n_samples - first * hop, (stop - first) * hop)
        if n <= 0:
            break
        spectrum = to_spectrum(log_mel_db, first, stop, kept)
        begin = len(kept) // 2 * hop  # the middle of the shared frames
        piece = frames.istft(spectrum, **_stft_sizes(config), n_samples=n)
        waveform[first * hop + begin : first * hop + n] = piece[begin:]
        end = start + BLOCK_FRAMES - first
        kept = spectrum[end - OVERLAP_FRAMES : end]
    peak = np.abs(waveform).max(initial=0.0)
    return waveform if peak <= 1 else waveform * (PEAK / peak)


def _block(
    log_mel_db: Tensor, magnitude: np.ndarray, way: Vocoder, config: AudioConfig,
    seed: int, kept: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Spectrum (T, F) of a block of log-mel (n_mels, T); its first frames become `kept`, (K, F)."""
    sizes = _stft_sizes(config)
    if way.phase == "random":
        angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, magnitude.shape)
    else:
        known = {"known": np.angle(kept), "seed": seed, "tolerance": way.tolerance}
        angle = phase_recovery.heap_integration(magnitude, **sizes, **known)
    spectrum = phase_recovery.polar(magnitude, angle)
    spectrum[: len(kept)] = kept
    size = {**sizes, "n_samples": len(magnitude) * config.hop_length - 1, "n_known": len(kept)}
    if way.iterations:
        spectrum = phase_recovery.griffin_lim(
            spectrum, **size, iterations=way.iterations, momentum=MOMENTUM
        )
    mel = np.ascontiguousarray((10 ** (log_mel_db / 10)).cpu().T)
    previous = np.zeros_like(spectrum)
    factor = MEL_MOMENTUM / (1 + MEL_MOMENTUM)

    def update(part: slice, rebuilt: np.ndarray) -> None:
        mel_inversion.scale_towards_mel(
            rebuilt, previous[part], factor, mel[part], config, spectrum[part]
        )

    phase_recovery.iterate(spectrum, update, **size, iterations=way.mel_steps)
    return spectrum


def render(
    spectrum: Tensor, gain_db: Tensor, config: AudioConfig, *, n_samples: int, vocoder: str = "gain"
) -> Tensor:
    """Make a waveform of the content's STFT and a gain.

    Parameters
    ----------
    spectrum : torch.Tensor [shape=(B, F, T)]
        The content's complex STFT.
    gain_db : torch.Tensor [shape=(B, n_mels, T)]
        In dB, on the content's log-mel.
    config : AudioConfig
        The front end.
    n_samples : int
        Length of the waveform.
    vocoder : str
        One of `VOCODERS`: ``gain`` scales the content's own STFT, the others start from the log-mel.

    Returns
    -------
    torch.Tensor [shape=(B, n_samples)]
    """
    way = vocoder_named(vocoder)
    if way.magnitude == "gain":
        return features.istft(apply_gain(spectrum, gain_db, config), config, n_samples)
    power = features.mel_power(spectrum.abs() ** 2, config)
    log_mel = features.power_to_db(power, amin=config.amin) + gain_db
    if way.phase != "content":
        return mel_to_waveform(log_mel, config, n_samples=n_samples, vocoder=vocoder)
    magnitude = mel_inversion.mel_to_magnitude(log_mel, config)
    unit = spectrum / spectrum.abs().clamp_min(1e-12)
    return features.istft(magnitude * unit, config, n_samples)
