"""From a spectrogram back to a waveform: the step the report could not take. Notebook 08."""

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
from .signal import features, mel_inversion, phase_recovery

DEFAULT_MODEL = PRETRAINED / "vocoder.safetensors"
MOMENTUM = 0.99
MEL_MOMENTUM = 0.5  # of the steps towards the log-mel: more makes few of them worse
PEAK = 0.99
BLOCK_FRAMES = 2048  # of a long spectrogram that are worked on at a time: 47 s
OVERLAP_FRAMES = 8  # that two blocks share; a sample lies in n_fft / hop_length = 4 frames


@dataclass(frozen=True)
class Vocoder:
    """A way from a log-mel to a waveform.

    Parameters
    ----------
    magnitude : ``gain`` on the content's STFT, ``inversion`` of the mel spectrogram, or ``network``
    phase : the ``content``'s, ``random``, or by ``heap`` integration
    iterations : Griffin-Lim steps towards these magnitudes
    mel_steps : steps after them towards a signal with this log-mel, whatever its magnitudes
    tolerance : of heap integration: bins below this share of the loudest begin with a random phase
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
    """The entry of `VOCODERS`; raise `ValueError` naming the choices if there is none."""
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
    (Griffin & Lim, 1984). On a CPU item by item, by `phase_recovery.griffin_lim`; elsewhere as one batch.

    Parameters
    ----------
    phase : complex (B, F, T) to start from (its modulus is ignored); random from `seed` if None
    """
    if phase is None:
        generator = torch.Generator().manual_seed(seed)
        angle = 2 * np.pi * torch.rand(magnitude.shape, generator=generator)
        phase = torch.polar(torch.ones_like(angle), angle).to(magnitude.device)
    unit = phase / phase.abs().clamp_min(1e-12)
    if magnitude.device.type == "cpu":
        settings = {**_lattice(config), "n_samples": n_samples}
        steps = {"iterations": iterations, "momentum": momentum}
        found = [
            phase_recovery.griffin_lim(x.numpy().T, **settings, **steps) for x in magnitude * unit
        ]
        return torch.from_numpy(np.stack([phase_recovery.istft(x, **settings) for x in found]))
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


def _lattice(config: AudioConfig) -> dict[str, int]:
    return {"n_fft": config.n_fft, "hop_length": config.hop_length}


def heap_integration(magnitude: Tensor, config: AudioConfig, *, seed: int = 0) -> Tensor:
    """Complex spectrum (B, F, T) of this magnitude, with phases by `phase_recovery.heap_integration`."""
    found = [
        phase_recovery.polar(x, phase_recovery.heap_integration(x, **_lattice(config), seed=seed))
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
    """Waveform (B, n_samples) in -1..1 of a log-mel in dB (B, n_mels, T).

    Magnitudes, phases, Griffin-Lim steps. A log-mel fixes only sums of magnitudes, so in the last
    steps they need not be those of the inversion any more: the signal's own are scaled to have the
    right sums. What would clip is made quieter as a whole.

    Parameters
    ----------
    vocoder : one of `FROM_LOG_MEL`, or another that needs no content
    model : network of a vocoder with one, the pretrained one if None
    seed : of random phases

    Notes
    -----
    On the CPU, but for the magnitudes: heap integration goes bin by bin. A long spectrogram is worked
    on in blocks. Each begins with the last frames of the one before, whose phases it keeps, so that
    where two blocks meet they are the same signal: no seam, and memory that does not grow with the
    spectrogram's length (but for input and output).
    """
    way = vocoder_named(vocoder)
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
    """Magnitudes (T, F) of frames `first` to `last` of a log-mel; a network sees those around them."""
    margin = 0 if model is None else model.receptive_field // 2
    begin = max(0, first - margin)
    seen = log_mel_db[None, :, begin : last + margin]
    found = mel_inversion.mel_to_magnitude(seen, config) if model is None else model.magnitude(seen)
    return found[0, :, first - begin : last - begin].cpu().numpy().T


def _in_blocks(
    log_mel_db: Tensor, config: AudioConfig, n_samples: int, to_spectrum: Callable
) -> np.ndarray:
    """Waveform (n_samples,) of one log-mel (n_mels, T), not above `PEAK`."""
    hop, n_frames = config.hop_length, log_mel_db.shape[1]
    waveform = np.zeros(n_samples, dtype=np.float32)
    kept = np.empty((0, config.n_fft // 2 + 1), dtype=np.complex64)  # last frames of the one before
    for start in range(0, n_frames, BLOCK_FRAMES):
        first, stop = start - len(kept), min(n_frames, start + BLOCK_FRAMES + OVERLAP_FRAMES)
        n = min(n_samples - first * hop, (stop - first) * hop)
        if n <= 0:
            break
        spectrum = to_spectrum(log_mel_db, first, stop, kept)
        begin = len(kept) // 2 * hop  # from here on both blocks give the same
        piece = phase_recovery.istft(spectrum, **_lattice(config), n_samples=n)
        waveform[first * hop + begin : first * hop + n] = piece[begin:]
        end = start + BLOCK_FRAMES - first
        kept = spectrum[end - OVERLAP_FRAMES : end]
    peak = np.abs(waveform).max(initial=0.0)
    return waveform if peak <= 1 else waveform * (PEAK / peak)


def _block(
    log_mel_db: Tensor, magnitude: np.ndarray, way: Vocoder, config: AudioConfig,
    seed: int, kept: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Spectrum (T, F) of a piece of log-mel (n_mels, T) whose first frames are `kept`."""
    lattice = _lattice(config)
    if way.phase == "random":
        angle = np.random.default_rng(seed).uniform(-np.pi, np.pi, magnitude.shape)
    else:
        known = {"known": np.angle(kept), "seed": seed, "tolerance": way.tolerance}
        angle = phase_recovery.heap_integration(magnitude, **lattice, **known)
    spectrum = phase_recovery.polar(magnitude, angle)
    spectrum[: len(kept)] = kept
    size = {**lattice, "n_samples": len(magnitude) * config.hop_length - 1, "n_known": len(kept)}
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
    """Waveform (B, n_samples) of the content's STFT (B, F, T) changed by `gain_db` (B, n_mels, T).

    Parameters
    ----------
    vocoder : one of `VOCODERS`; ``gain`` multiplies the content's own STFT, the others start from the
        resulting log-mel
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
