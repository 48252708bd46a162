"""Training of the neural vocoders on any corpus.

A network that makes magnitudes is trained on its error alone. MelGAN, Multi-band MelGAN and Vocos make a
waveform and are trained against discriminators, WaveNet predicts one sample after the other. The recipes
are the published ones, except for the length of the training and where `RECIPES` says so. Used by
``notebooks/08_vocoding.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import mu_law_encoding

from .. import corpora
from ..config import AudioConfig
from ..evaluation import metrics
from ..models.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from ..models.melgan import MelGAN, MultiBandMelGAN
from ..models.vocos import Vocos
from ..models.wavenet import WaveNet
from ..signal import features
from . import adversarial, loop

EXCERPT_FRAMES = 64  # 1.5 s
WAVEFORM_FRAMES = 16  # of an excerpt whose waveform is made
MARGIN_FRAMES = 4  # on either side, whose STFT frames see the excerpt's ends
LEAST_MAGNITUDE = 1e-3  # below it, all magnitudes count alike: 94 dB below those of a loud clip
LEVELS_DBFS = (-36.0, -12.0)
SPEEDS = (0.84, 1.19)  # three semitones
STEPS_PER_EPOCH = 100  # of the magnitude network
EPOCHS = 10  # of the others, at most
BLOCKS = 4  # of the magnitude network: seven gave the same losses and were slower
HELD_OUT = 1 << 20  # in place of an epoch, in the key of batches that are only listened to
NEPERS_PER_DB = np.log(10) / 20
SUB_BAND_STFT = {
    "fft_sizes": [384, 683, 171],
    "hop_sizes": [30, 60, 10],
    "win_lengths": [150, 300, 60],
}


# Excerpts ---------------------------------------------------------------------------------------


def load_pcm(
    tracks,
    *,
    config: AudioConfig,
    seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Read tracks as 16-bit samples, which take half the memory of float32.

    Parameters
    ----------
    tracks : sequence of Track
    config : AudioConfig
    seconds : float
        Of each track, in s.
    progress : Callable or None
        Called with (tracks read, tracks).

    Returns
    -------
    np.ndarray [shape=(n_tracks, n_samples)]
        int16.
    """
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
    """Draw excerpts of 64 frames and a margin, varied in level, speed, mixture and noise.

    Parameters
    ----------
    clips : np.ndarray [shape=(n_tracks, n_samples)]
        int16.
    batch_size : int
    config : AudioConfig
    rng : np.random.Generator

    Returns
    -------
    torch.Tensor [shape=(batch_size, n_samples)]
    """
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
    """Log-mel and magnitudes of excerpts without their margins.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
    config : AudioConfig

    Returns
    -------
    log_mel : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    magnitude : torch.Tensor [shape=(B, F, T)]
    """
    magnitude = features.stft(waveform, config).abs()
    log_mel = features.power_to_db(features.mel_power(magnitude**2, config), amin=config.amin)
    inner = slice(MARGIN_FRAMES, -MARGIN_FRAMES)
    return log_mel[:, :, inner], magnitude[:, :, inner]


def log_mel_and_waveform(waveform: Tensor, config: AudioConfig) -> tuple[Tensor, Tensor]:
    """Log-mel and waveform of parts of excerpts, 0.37 s long as MelGAN's.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
        Scaled down where it leaves -1..1.
    config : AudioConfig

    Returns
    -------
    log_mel : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    waveform : torch.Tensor [shape=(B, T * hop_length)]
    """
    waveform = waveform / waveform.abs().amax(dim=1, keepdim=True).clamp_min(1.0)
    first, last = MARGIN_FRAMES, MARGIN_FRAMES + WAVEFORM_FRAMES
    samples = slice(first * config.hop_length, last * config.hop_length)
    return features.log_mel(waveform, config)[:, :, first:last], waveform[:, samples]


def excerpt_batches(
    clips: np.ndarray,
    pair: Callable[[Tensor, AudioConfig], tuple[Tensor, Tensor]],
    *,
    n: int,
    batch_size: int,
    key: tuple[int, ...],
    config: AudioConfig,
    device: str,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of random excerpts, the same for the same `key`.

    Parameters
    ----------
    clips : np.ndarray [shape=(n_tracks, n_samples)]
        int16.
    pair : Callable
        Excerpts (B, n_samples) and front end -> input and target.
    n : int
        Batches.
    batch_size : int
    key : tuple of int
        Seeds the random numbers.
    config : AudioConfig
    device : str

    Yields
    ------
    tuple of torch.Tensor
        What `pair` returns.
    """
    rng = np.random.default_rng(key)
    for _ in range(n):
        excerpts = random_excerpts(clips, batch_size=batch_size, config=config, rng=rng)
        yield pair(excerpts.to(device), config)


# The magnitude network --------------------------------------------------------------------------


def magnitude_losses(magnitude: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Two distances between magnitudes.

    Parameters
    ----------
    magnitude, target : torch.Tensor [shape=(B, F, T)]

    Returns
    -------
    log_l1 : torch.Tensor [shape=()]
        Mean absolute difference of the logarithms, in nepers.
    convergence : torch.Tensor [shape=()]
        Spectral convergence: norm of the difference over the target's norm.
    """
    log_ratio = (magnitude.clamp_min(LEAST_MAGNITUDE) / target.clamp_min(LEAST_MAGNITUDE)).log()
    norm = target.flatten(1).norm(dim=1).clamp_min(LEAST_MAGNITUDE)
    convergence = (magnitude - target).flatten(1).norm(dim=1) / norm
    return log_ratio.abs().mean(), convergence.mean()


def magnitude_step(model: Vocos, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """A `step` for `loop.fit`: the sum of both `magnitude_losses`, and each by name."""
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
    seed: int = 0,
    device: str = "cpu",
    **sizes: int,
) -> tuple[Vocos, dict[str, list[float]]]:
    """Train a `Vocos` without a phase.

    Parameters
    ----------
    clips, valid : np.ndarray [shape=(n_tracks, n_samples)]
        int16, to train on and to evaluate on.
    steps, path, config, seed, device
        As in `loop.fit`.
    corpus_sha256 : str
        Of the corpus that the clips are from.
    batch_size : int
    **sizes : int
        Arguments of `Vocos`.

    Returns
    -------
    model : Vocos
        In evaluation mode.
    curves : dict of str to list of float
        As `loop.fit`.
    """
    torch.manual_seed(seed)
    sizes = {"blocks": BLOCKS, **sizes}
    model = Vocos(config=config, **sizes)
    steps_per_epoch = min(STEPS_PER_EPOCH, steps)
    pair = log_mel_and_magnitude

    settings = {"batch_size": batch_size, "config": config, "device": device}
    held_out = list(excerpt_batches(valid, pair, n=4, key=(seed, HELD_OUT), **settings))

    def epoch_batches(epoch: int):
        return excerpt_batches(clips, pair, n=steps_per_epoch, key=(seed, epoch), **settings)

    def evaluate(model: Vocos) -> dict[str, float]:
        losses = torch.tensor([magnitude_losses(model(x), y) for x, y in held_out]).mean(dim=0)
        return {"valid_log_magnitude_l1": float(losses[0]), "valid_convergence": float(losses[1])}

    curves = loop.fit(
        model, step=magnitude_step, batches=epoch_batches, steps=steps,
        steps_per_epoch=steps_per_epoch, path=path, arguments=sizes,
        data={"corpus": corpus_sha256, "batch_size": batch_size}, config=config, seed=seed,
        device=device, lr=2e-3, evaluate=evaluate, label="vocoder",
    )  # fmt: skip
    return model, curves


# Networks that make a waveform -------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a generator is trained against discriminators.

    Parameters
    ----------
    generator : Callable
        Front end -> network.
    discriminators : Callable
        Width of a `MultiPeriodDiscriminator` -> network.
    lr : float
    betas : tuple of float
        Of AdamW.
    stft, mel, feature_matching, adversarial : float
        Weights of the generator's losses; 0 leaves a loss out.
    starts : float
        Share of the steps after which the discriminators join.
    """

    generator: Callable[[AudioConfig], nn.Module]
    discriminators: Callable[[int], nn.Module]
    lr: float
    betas: tuple[float, float]
    stft: float = 0.0
    mel: float = 0.0
    feature_matching: float = 0.0
    adversarial: float = 1.0
    starts: float = 0.0


def _melgan(config: AudioConfig) -> MelGAN:
    return MelGAN(n_mels=config.n_mels)


def _multi_band_melgan(config: AudioConfig) -> MultiBandMelGAN:
    return MultiBandMelGAN(n_mels=config.n_mels)


def _vocos(config: AudioConfig) -> Vocos:
    return Vocos(config=config, predict_phase=True)


def _spectral_and_periodic(mpd_width: int) -> Discriminators:
    return Discriminators(MultiPeriodDiscriminator(width=mpd_width), MultiResolutionDiscriminator())


RECIPES = {
    "MelGAN": Recipe(
        _melgan, lambda _: MultiScaleDiscriminator(), lr=1e-4, betas=(0.5, 0.9),
        feature_matching=10.0,
    ),
    "Multi-band MelGAN": Recipe(
        _multi_band_melgan, lambda _: MultiScaleDiscriminator(), lr=1e-3, betas=(0.9, 0.999),
        stft=1.0, adversarial=2.5, starts=0.2,
    ),
    "Vocos": Recipe(
        _vocos, _spectral_and_periodic, lr=5e-4, betas=(0.8, 0.9), stft=1.0, mel=45.0,
        feature_matching=1.0, starts=0.6,
        # published: no STFT loss, the second discriminator at .1, starts=0. A short training first
        # needs a spectrum.
    ),
}  # fmt: skip


class VocoderAdversaries(adversarial.Adversaries):
    """A vocoder and its discriminators."""

    def __init__(self, recipe: Recipe, *, config: AudioConfig, steps: int, mpd_width: int):
        import auraloss

        super().__init__(
            recipe.generator(config),
            recipe.discriminators(mpd_width),
            adversarial=recipe.adversarial,
            feature_matching=recipe.feature_matching,
        )
        self.recipe, self.config = recipe, config
        self.starts = round(recipe.starts * steps)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.multi_resolution_stft = auraloss.freq.MultiResolutionSTFTLoss()
        self.sub_band_stft = auraloss.freq.MultiResolutionSTFTLoss(**SUB_BAND_STFT)

    def forward(self, log_mel_db: Tensor, waveform: Tensor) -> dict[str, Tensor]:
        """All losses by name, weighted, for log-mels (B, n_mels, T) and waveforms (B, n_samples)."""
        made, losses = self._made(log_mel_db, waveform)
        real = waveform[:, None, : made.shape[2]]
        if self.recipe.stft:
            losses["stft"] = self.recipe.stft * self.multi_resolution_stft(made, real)
        if self.recipe.mel:
            both = [features.log_mel(x[:, 0], self.config) for x in (made, real)]
            losses["mel"] = self.recipe.mel * NEPERS_PER_DB * (both[0] - both[1]).abs().mean()
        if self.training:
            self.steps_done += 1
        if self.steps_done > self.starts:
            losses |= self.losses_of_both(real, made)
        return losses

    def _made(self, log_mel_db: Tensor, waveform: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if not isinstance(self.generator, MultiBandMelGAN):
            return self.generator(log_mel_db).reshape(len(waveform), 1, -1), {}
        pqmf, bands = self.generator.pqmf, self.generator.sub_bands(log_mel_db)
        made = pqmf.synthesis(bands)
        true = pqmf.analysis(waveform[:, None, : made.shape[2]])
        per_band = self.sub_band_stft(bands.flatten(0, 1)[:, None], true.flatten(0, 1)[:, None])
        return made, {"sub_band_stft": self.recipe.stft * per_band}


def wavenet_step(model: WaveNet, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """A `step` for `loop.fit`: cross-entropy of the next sample's mu-law level, in nats."""
    log_mel, waveform = batch
    logits = model(waveform, log_mel)
    return nn.functional.cross_entropy(logits, mu_law_encoding(waveform, logits.shape[1])), {}


def train(
    name: str,
    clips: np.ndarray,
    valid: np.ndarray,
    *,
    steps: int,
    path: Path,
    config: AudioConfig,
    corpus_sha256: str,
    batch_size: int = 4,
    mpd_width: int = 4,
    seed: int = 0,
    device: str = "cpu",
) -> tuple[nn.Module, dict[str, list[float]]]:
    """Train a vocoder that makes a waveform.

    Parameters
    ----------
    name : str
        One of `RECIPES`, or ``WaveNet``.
    clips, valid : np.ndarray [shape=(n_tracks, n_samples)]
        int16, to train on and to evaluate on.
    steps, path, config, seed, device
        As in `loop.fit`.
    corpus_sha256 : str
        Of the corpus that the clips are from.
    batch_size : int
    mpd_width : int
        Of a `MultiPeriodDiscriminator`.

    Returns
    -------
    model : torch.nn.Module
        The generator, in evaluation mode.
    curves : dict of str to list of float
        As `loop.fit`; ``valid_log_mel_l1`` in dB on excerpts of `valid`, or for the WaveNet
        ``valid_cross_entropy``.
    """
    torch.manual_seed(seed)
    steps_per_epoch = -(-steps // EPOCHS)
    if name == "WaveNet":
        model = generator = WaveNet(n_mels=config.n_mels, hop_length=config.hop_length)
        step, optimiser = wavenet_step, {"lr": 1e-3}
    else:
        recipe = RECIPES[name]
        model = VocoderAdversaries(recipe, config=config, steps=steps, mpd_width=mpd_width)
        generator, step = model.generator, _adversarial_step
        optimiser = {"lr": recipe.lr, "betas": recipe.betas}

    settings = {"batch_size": batch_size, "config": config, "device": device}
    pair = log_mel_and_waveform
    held_out = list(excerpt_batches(valid, pair, n=2, key=(seed, HELD_OUT), **settings))

    def epoch_batches(epoch: int):
        return excerpt_batches(clips, pair, n=steps_per_epoch, key=(seed, epoch), **settings)

    def evaluate(model: nn.Module) -> dict[str, float]:
        if name == "WaveNet":
            losses = [float(wavenet_step(model, batch)[0]) for batch in held_out]
            return {"valid_cross_entropy": float(np.mean(losses))}
        errors = [
            metrics.log_mel_l1(made.numpy(), real.numpy(), config)
            for log_mel, waveform in held_out
            for made, real in zip(generator(log_mel).flatten(1).cpu(), waveform.cpu(), strict=True)
        ]
        return {"valid_log_mel_l1": float(np.mean(errors))}

    curves = loop.fit(
        model, step=step, batches=epoch_batches, steps=steps, steps_per_epoch=steps_per_epoch,
        path=path, arguments={}, data={"corpus": corpus_sha256, "batch_size": batch_size},
        config=config, seed=seed, device=device, evaluate=evaluate, warmup=steps // 10, label=name,
        **optimiser,
    )  # fmt: skip
    return generator, curves


def _adversarial_step(model: VocoderAdversaries, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """Without the losses by name: some of them begin within an epoch, so they have no mean over it."""
    return adversarial.step(model, batch)[0], {}
