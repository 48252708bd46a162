"""Training of the neural vocoders on any corpus: excerpts, losses, steps. Notebook 08."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import corpora
from ..config import AudioConfig
from ..models.vocos import Vocos
from ..signal import features
from . import loop

EXCERPT_FRAMES = 64  # 1.5 s
WAVEFORM_FRAMES = 16  # of an excerpt whose waveform is made
MARGIN_FRAMES = 4  # on either side, whose STFT frames see the excerpt's ends
LEAST_MAGNITUDE = 1e-3  # below it, all magnitudes count alike: 94 dB below those of a loud clip
LEVELS_DBFS = (-36.0, -12.0)
SPEEDS = (0.84, 1.19)  # three semitones
STEPS_PER_EPOCH = 100
BLOCKS = 4  # of the magnitude network: seven gave the same losses and were slower
HELD_OUT = 1 << 20  # in place of an epoch, in the key of batches that are only listened to


def load_pcm(tracks, *, config: AudioConfig, seconds: float, progress=None) -> np.ndarray:
    """16-bit samples (n_tracks, n_samples): a large corpus in half the memory of float32."""
    clips = np.empty((len(tracks), round(seconds * config.sample_rate)), dtype=np.int16)
    for i, track in enumerate(tracks):
        clip = corpora.read_clip(track, config=config, seconds=seconds)
        clips[i] = np.clip(np.round(clip * 32768), -32768, 32767)
        if progress is not None:
            progress(i + 1, len(tracks))
    return clips


def random_excerpts(
    clips: np.ndarray, *, batch_size: int, config: AudioConfig, rng: np.random.Generator
) -> Tensor:
    """Waveforms (batch_size, n_samples) of 64 frames and a margin, varied: see `_excerpt`."""
    n_samples = (EXCERPT_FRAMES + 2 * MARGIN_FRAMES - 1) * config.hop_length
    return torch.from_numpy(
        np.stack([_excerpt(clips, n_samples, config, rng) for _ in range(batch_size)])
    )


def _excerpt(
    clips: np.ndarray, n_samples: int, config: AudioConfig, rng: np.random.Generator
) -> np.ndarray:
    """Part of a clip or the sum of two, at other speeds (and so tunings) and another level.

    Half of them with noise of a random colour below: real recordings are dense, off A = 440 Hz and
    never silent between the notes.
    """
    x = _at_other_speed(clips, n_samples, config, rng)
    if rng.random() < 0.5:
        other = _at_other_speed(clips, n_samples, config, rng)
        x = x + other * 10 ** (rng.uniform(-12, 6) / 20)
    if rng.random() < 0.5:
        noise = rng.standard_normal(n_samples).astype(np.float32)
        spectrum = np.fft.rfft(noise) * (np.arange(n_samples // 2 + 1) + 8) ** -rng.uniform(0, 1)
        noise = np.fft.irfft(spectrum, n_samples)
        x = x + noise / noise.std() * x.std() * 10 ** (rng.uniform(-70, -30) / 20)
    x = x * 10 ** (rng.uniform(*LEVELS_DBFS) / 20) / max(x.std(), 1e-4)
    return x.astype(np.float32)


def _at_other_speed(clips, n_samples, config, rng) -> np.ndarray:
    import soxr

    speed = np.exp(rng.uniform(*np.log(SPEEDS)))
    wanted = min(clips.shape[1], int(np.ceil(n_samples * speed)) + 8)
    start = rng.integers(clips.shape[1] - wanted + 1)
    part = clips[rng.integers(len(clips)), start : start + wanted].astype(np.float32) / 32768
    return np.resize(soxr.resample(part, speed, 1.0, quality="LQ"), n_samples)


def log_mel_and_magnitude(waveform: Tensor, config: AudioConfig) -> tuple[Tensor, Tensor]:
    """Log-mel in dB (B, n_mels, T) and magnitudes (B, F, T) of excerpts, without their margins."""
    magnitude = features.stft(waveform, config).abs()
    log_mel = features.power_to_db(features.mel_power(magnitude**2, config), amin=config.amin)
    inner = slice(MARGIN_FRAMES, -MARGIN_FRAMES)
    return log_mel[:, :, inner], magnitude[:, :, inner]


def log_mel_and_waveform(waveform: Tensor, config: AudioConfig) -> tuple[Tensor, Tensor]:
    """Log-mel in dB (B, n_mels, T) of parts of excerpts and their waveforms (B, T * hop_length).

    0.37 s, as MelGAN's; in -1..1.
    """
    waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    first, last = MARGIN_FRAMES, MARGIN_FRAMES + WAVEFORM_FRAMES
    samples = slice(first * config.hop_length, last * config.hop_length)
    return features.log_mel(waveform, config)[:, :, first:last], waveform[:, samples]


def batches(
    clips: np.ndarray,
    pair: Callable[[Tensor, AudioConfig], tuple[Tensor, Tensor]],
    *,
    n: int,
    batch_size: int,
    key: tuple[int, ...],
    config: AudioConfig,
    device: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """`n` batches of what `pair` makes of random excerpts; the same for the same `key`."""
    rng = np.random.default_rng(key)
    for _ in range(n):
        excerpts = random_excerpts(clips, batch_size=batch_size, config=config, rng=rng)
        yield pair(excerpts.to(device), config)


def magnitude_losses(magnitude: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """L1 between log-magnitudes (B, F, T) in nepers, and spectral convergence as a ratio."""
    log_ratio = (magnitude.clamp_min(LEAST_MAGNITUDE) / target.clamp_min(LEAST_MAGNITUDE)).log()
    norm = target.flatten(1).norm(dim=1).clamp_min(LEAST_MAGNITUDE)
    convergence = (magnitude - target).flatten(1).norm(dim=1) / norm
    return log_ratio.abs().mean(), convergence.mean()


def magnitude_step(model: Vocos, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """Both `magnitude_losses` of the network's magnitudes."""
    log_mel, target = batch
    log_l1, convergence = magnitude_losses(model(log_mel), target)
    return log_l1 + convergence, {"log_magnitude_l1": log_l1, "convergence": convergence}


def train_magnitude(
    clips: np.ndarray,
    valid: np.ndarray,
    *,
    steps: int,
    path: Path,
    config: AudioConfig,
    corpus_sha256: str,
    batch_size: int = 16,
    lr: float = 2e-3,
    seed: int = 0,
    device: str = "cpu",
    **sizes: int,
) -> tuple[Vocos, dict[str, list[float]]]:
    """Train a `Vocos` without a phase on 16-bit clips (n_tracks, n_samples); `valid` is heard only.

    Returns the model in evaluation mode and the curves of `loop.fit`.
    """
    torch.manual_seed(seed)
    sizes = {"blocks": BLOCKS, **sizes}
    model = Vocos(config=config, **sizes)
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)

    settings = {"batch_size": batch_size, "config": config, "device": device}
    held_out = list(batches(valid, log_mel_and_magnitude, n=4, key=(seed, HELD_OUT), **settings))

    def epoch_batches(epoch: int):
        key = (seed, epoch)
        return batches(clips, log_mel_and_magnitude, n=steps_per_epoch, key=key, **settings)

    def evaluate(model: Vocos) -> dict[str, float]:
        losses = torch.tensor([magnitude_losses(model(x), y) for x, y in held_out]).mean(dim=0)
        return {"valid_log_magnitude_l1": float(losses[0]), "valid_convergence": float(losses[1])}

    recipe = {"model": sizes, "corpus": corpus_sha256, "batch_size": batch_size}
    curves = loop.fit(
        model, step=magnitude_step, batches=epoch_batches,
        steps_per_epoch=steps_per_epoch, epochs=max(1, steps // steps_per_epoch), path=path,
        recipe=recipe, config=config, seed=seed, device=device, lr=lr, evaluate=evaluate,
        label="vocoder",
    )  # fmt: skip
    return model, curves
