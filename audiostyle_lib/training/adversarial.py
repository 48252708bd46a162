"""Vocoders that make a waveform at once, trained against discriminators. Notebook 08.

The recipes are the published ones, but for the length of the training and where `RECIPES` says so.
`loop.fit` is the loop: a generator and its discriminators are one model, whose loss is the sum of
both sides' losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import mu_law_encoding

from ..config import AudioConfig
from ..evaluation import metrics
from ..models.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from ..models.melgan import MelGAN, MultiBandMelGAN
from ..models.vocos import Vocos
from ..models.wavenet import WaveNet
from ..signal import features
from . import loop, vocoders
from .vocoders import HELD_OUT, batches

NEPERS_PER_DB = np.log(10) / 20
SUB_BAND_STFT = {
    "fft_sizes": [384, 683, 171],
    "hop_sizes": [30, 60, 10],
    "win_lengths": [150, 300, 60],
}


@dataclass(frozen=True)
class Recipe:
    """What a generator is trained by. A weight of 0 leaves a loss out.

    Parameters
    ----------
    generator : makes it for a front end
    discriminators : makes them; `mpd_width` is the width of a `MultiPeriodDiscriminator`
    stft, mel, feature_matching, adversarial : weights of the generator's losses
    starts : share of the steps after which the discriminators join
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
    return Vocos(config=config, learned_phase=True)


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


class Adversaries(nn.Module):
    """A generator and its discriminators; calling them gives both sides' losses for a batch.

    The discriminators' loss sees what the generator made as data, and the generator's loss sees the
    discriminators' weights as constants, so one backward pass of the sum gives each its own gradient.
    """

    def __init__(self, recipe: Recipe, *, config: AudioConfig, steps: int, mpd_width: int):
        super().__init__()
        import auraloss

        self.recipe, self.config = recipe, config
        self.generator = recipe.generator(config)
        self.discriminators = recipe.discriminators(mpd_width)
        self.starts = round(recipe.starts * steps)
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.multi_resolution_stft = auraloss.freq.MultiResolutionSTFTLoss()
        self.sub_band_stft = auraloss.freq.MultiResolutionSTFTLoss(**SUB_BAND_STFT)

    def forward(self, log_mel_db: Tensor, waveform: Tensor) -> dict[str, Tensor]:
        """Losses by name, weighted, for a log-mel (B, n_mels, T) and its waveform (B, n_samples)."""
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
            losses |= self._adversarial(made, real)
        return losses

    def _made(self, log_mel_db: Tensor, waveform: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if not isinstance(self.generator, MultiBandMelGAN):
            return self.generator(log_mel_db).reshape(len(waveform), 1, -1), {}
        pqmf, bands = self.generator.pqmf, self.generator.sub_bands(log_mel_db)
        made = pqmf.synthesis(bands)
        true = pqmf.analysis(waveform[:, None, : made.shape[2]])
        per_band = self.sub_band_stft(bands.flatten(0, 1)[:, None], true.flatten(0, 1)[:, None])
        return made, {"sub_band_stft": self.recipe.stft * per_band}

    def _adversarial(self, made: Tensor, real: Tensor) -> dict[str, Tensor]:
        of_real = self.discriminators(real)
        constant = {name: p.detach() for name, p in self.discriminators.named_parameters()}
        judged = torch.func.functional_call(self.discriminators, constant, (made,))
        losses = {
            "discriminator": discriminator_loss(of_real, self.discriminators(made.detach())),
            "generator": self.recipe.adversarial * generator_loss(judged),
        }
        if self.recipe.feature_matching:
            matched = feature_matching_loss(of_real, judged)
            losses["feature_matching"] = self.recipe.feature_matching * matched
        return losses


def adversarial_step(model: Adversaries, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of both sides' losses."""
    losses = model(*batch)
    return torch.stack(list(losses.values())).sum(), {}


def wavenet_step(model: WaveNet, batch: tuple) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of the next sample's mu-law level, in nats."""
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
    """Train the vocoder `name`, of `RECIPES` or ``WaveNet``, on 16-bit clips (n_tracks, n_samples).

    Returns
    -------
    model : the generator, in evaluation mode
    curves : those of `loop.fit`; ``valid_log_mel_l1`` in dB on excerpts of `valid`, or for the
        WaveNet ``valid_cross_entropy``
    """
    torch.manual_seed(seed)
    epochs = min(10, steps)
    steps_per_epoch = max(1, steps // epochs)
    total = epochs * steps_per_epoch
    if name == "WaveNet":
        model = generator = WaveNet(n_mels=config.n_mels, hop_length=config.hop_length)
        step, optimiser = wavenet_step, {"lr": 1e-3}
    else:
        recipe = RECIPES[name]
        model = Adversaries(recipe, config=config, steps=total, mpd_width=mpd_width)
        generator, step = model.generator, adversarial_step
        optimiser = {"lr": recipe.lr, "betas": recipe.betas}

    settings = {"batch_size": batch_size, "config": config, "device": device}
    pair = vocoders.log_mel_and_waveform
    held_out = list(batches(valid, pair, n=2, key=(seed, HELD_OUT), **settings))

    def epoch_batches(epoch: int):
        return batches(clips, pair, n=steps_per_epoch, key=(seed, epoch), **settings)

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

    facts = {"name": name, "corpus": corpus_sha256, "batch_size": batch_size}
    curves = loop.fit(
        model, step=step, batches=epoch_batches, steps_per_epoch=steps_per_epoch, epochs=epochs,
        path=path, recipe={"model": {}, **facts, "mpd_width": mpd_width}, config=config, seed=seed,
        device=device, evaluate=evaluate, warmup=total // 10, label=name, **optimiser,
    )  # fmt: skip
    return generator, curves
