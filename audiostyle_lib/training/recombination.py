"""Training of the recombination on paired renderings of `bands`.

First by regression to the true rendering, then, from its weights, against a discriminator as well.
Regression learns the mean of all renderings that may be true, which is smoother than any single one; the
discriminator recognises that smoothness and so makes it costly. Used by
``notebooks/07_recombination.ipynb`` and ``notebooks/10_future_work.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..errors import InputError
from ..models.discriminators import SpectrogramDiscriminator
from ..models.recombine import GainTransfer, floored_difference, log_spectral_loss
from ..signal import features
from . import adversarial, loop
from .batches import crops, draw_other_style, epoch_generator, random_equalizer

CROP_FRAMES = 256  # about 6 s
EPOCHS, LEAST_STEPS = 100, 50  # about so many epochs, of at least so many steps
BATCH_SIZE = 16
SELF_SUPERVISED = 0.25  # share of a batch that is made of recordings, where there are any
FEATURE_MATCHING, ADVERSARIAL = 5.0, 0.1  # weights beside a loss in dB
HELD_OUT = 10_000_019  # seed of the validation batch's generator

Triplet = tuple[Tensor, Tensor, Tensor]  # content, style, truth


def sample_batch(
    log_mels: Tensor, *, generator: torch.Generator, batch_size: int = BATCH_SIZE
) -> Triplet:
    """Draw triplets from paired renderings; in half of them content and truth are of one genre.

    Content and truth are the same excerpt of a score, the style clip is of another score. The content
    gets a random equaliser, and style clip and truth together get another.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
        In dB.
    generator : torch.Generator
    batch_size : int

    Returns
    -------
    content, style, truth : torch.Tensor [shape=(B, n_mels, 256)]
        In dB.
    """
    n_groups, n_scores, n_styles, n_mels, n_frames = log_mels.shape
    flat = log_mels.flatten(0, 2)

    def draw(high: int) -> Tensor:
        return torch.randint(high, (batch_size,), generator=generator)

    group, score, style = draw(n_groups), draw(n_scores), draw(n_styles)
    other_score = (score + 1 + draw(n_scores - 1)) % n_scores
    other_style = draw_other_style(style, n_styles, generator)
    start, style_start = (draw(n_frames - CROP_FRAMES + 1) for _ in range(2))
    own_eq, style_eq = (
        random_equalizer(batch_size, n_mels, generator).to(log_mels.device) for _ in range(2)
    )

    def crop(scores: Tensor, styles: Tensor, starts: Tensor) -> Tensor:
        which = (group * n_scores + scores) * n_styles + styles
        return crops(flat, which, starts, CROP_FRAMES)

    return (
        crop(score, style, start) + own_eq,
        crop(other_score, other_style, style_start) + style_eq,
        crop(score, other_style, start) + style_eq,
    )


def self_supervised_batch(
    recordings: Tensor, *, generator: torch.Generator, batch_size: int
) -> Triplet:
    """Draw triplets as `sample_batch` does, from recordings without a score.

    Content and style clip are two excerpts of one recording with two random equalisers, so the truth is
    the content with the style clip's equaliser. It teaches to leave alone what is the same in both.

    Parameters
    ----------
    recordings : torch.Tensor [shape=(n, n_mels, T)]
        Log-mels in dB.
    generator : torch.Generator
    batch_size : int

    Returns
    -------
    content, style, truth : torch.Tensor [shape=(B, n_mels, 256)]
        In dB.
    """
    n, n_mels, n_frames = recordings.shape
    which = torch.randint(n, (batch_size,), generator=generator)
    start, style_start = (
        torch.randint(n_frames - CROP_FRAMES + 1, (batch_size,), generator=generator)
        for _ in range(2)
    )
    own_eq, style_eq = (
        random_equalizer(batch_size, n_mels, generator).to(recordings.device) for _ in range(2)
    )
    content, style = (crops(recordings, which, x, CROP_FRAMES) for x in (start, style_start))
    return content + own_eq, style + style_eq, content + style_eq


def regression_step(model: GainTransfer, batch: Triplet) -> tuple[Tensor, dict[str, Tensor]]:
    """A `step` for `loop.fit`: the log-spectral loss in dB, beside that of copying the content."""
    content, style, truth = batch
    loss = log_spectral_loss(floored_difference(model(content, style), truth))
    return loss, {"copy": _copy_loss(content, truth)}


def _copy_loss(content: Tensor, truth: Tensor) -> Tensor:
    return log_spectral_loss(floored_difference(content.clamp_min(features.FLOOR_DB), truth))


class TransferAdversaries(adversarial.Adversaries):
    """A recombination and the discriminator of its log-mels."""

    def __init__(self, generator: GainTransfer, *, width: int):
        super().__init__(
            generator,
            SpectrogramDiscriminator(width=width),
            adversarial=ADVERSARIAL,
            feature_matching=FEATURE_MATCHING,
        )

    def forward(self, content: Tensor, style: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """All losses by name, weighted, for log-mels in dB (B, n_mels, T)."""
        made = self.generator(content, style)
        losses = {"log_spectral": log_spectral_loss(floored_difference(made, truth))}
        x, s, real, fake = (
            self.generator.standardize(z.clamp_min(features.FLOOR_DB))
            for z in (content, style, truth, made)
        )
        return losses | self.losses_of_both(real, fake, x, s)


def validation(log_mels: Tensor) -> Callable[[nn.Module], dict]:
    """Prepare the losses of a model on triplets of held-out renderings.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
        In dB.

    Returns
    -------
    Callable
        An `evaluate` for `loop.fit`: model -> log-spectral losses in dB of the model (``valid``), of
        copying the content (``valid_copy``) and with the wrong style clips (``valid_shuffled``).
    """
    generator = torch.Generator().manual_seed(HELD_OUT)
    batch = sample_batch(log_mels, generator=generator, batch_size=64)

    def evaluate(model: nn.Module) -> dict[str, float]:
        forward = getattr(model, "generator", model).forward  # not compiled for this size
        content, style, truth = batch
        parts = zip(content.split(16), style.split(16), truth.split(16), strict=True)
        losses = [log_spectral_loss(floored_difference(forward(c, s), t)) for c, s, t in parts]
        shuffled = forward(content[:16], style[:16].roll(1, dims=0))
        return {
            "valid": float(torch.stack(losses).mean()),
            "valid_copy": float(_copy_loss(content, truth)),
            "valid_shuffled": float(log_spectral_loss(floored_difference(shuffled, truth[:16]))),
        }

    return evaluate


def train_gain_transfer(
    log_mels: Tensor,
    *,
    steps: int,
    path: Path,
    config: AudioConfig,
    valid: Tensor | None = None,
    recordings: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    device: str = "cpu",
    lr: float = 8e-4,
    **sizes: int | str,
) -> tuple[GainTransfer, dict[str, list[float]]]:
    """Train `GainTransfer` by regression on paired renderings.

    Parameters
    ----------
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
        In dB, on `device`.
    steps, path, config, seed, device, lr
        As in `loop.fit`.
    valid : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)] or None
        Held-out renderings, whose losses are then among the curves (`validation`).
    recordings : torch.Tensor [shape=(n, n_mels, T)] or None
        Log-mels in dB of which a quarter of each batch is made (`self_supervised_batch`).
    batch_size : int
    **sizes : int or str
        Arguments of `GainTransfer`.

    Returns
    -------
    model : GainTransfer
        In evaluation mode.
    curves : dict of str to list of float
        As `loop.fit`.

    Raises
    ------
    InputError
        If a quarter of a batch is less than one recording.
    """
    torch.manual_seed(seed)
    sizes = {"n_mels": config.n_mels, **sizes}
    model = GainTransfer(**sizes)
    model.standardize.fit(log_mels[:64].flatten(0, 2).float())
    if recordings is not None and SELF_SUPERVISED * batch_size < 1:
        raise InputError(f"no room for recordings in a batch of {batch_size}: take at least 4")
    curves = _fit(
        model, regression_step, log_mels, recordings=recordings, valid=valid, steps=steps,
        path=path, arguments=sizes, config=config, seed=seed, device=device, lr=lr,
        batch_size=batch_size, label="gain transfer",
    )  # fmt: skip
    return model, curves


def train_adversarially(
    model: GainTransfer,
    log_mels: Tensor,
    *,
    arguments: dict,
    lr: float = 2e-4,
    width: int = 32,
    seed: int = 0,
    **settings,
) -> dict[str, list[float]]:
    """Train a `GainTransfer` on, in place, against a discriminator.

    Parameters
    ----------
    model : GainTransfer
        After `train_gain_transfer`.
    log_mels : torch.Tensor [shape=(n_groups, n_scores, n_styles, n_mels, T)]
        In dB, on the device of the training.
    arguments : dict
        Those that rebuild `model`.
    lr : float
    width : int
        Of the discriminator.
    seed : int
    **settings
        What `train_gain_transfer` takes besides.

    Returns
    -------
    dict of str to list of float
        As `loop.fit`.
    """
    torch.manual_seed(seed)
    return _fit(
        TransferAdversaries(model, width=width), adversarial.step, log_mels, arguments=arguments,
        lr=lr, seed=seed, label="against a discriminator", betas=(0.5, 0.99), **settings,
    )  # fmt: skip


def _fit(
    model, step, log_mels, *, steps, seed, recordings=None, valid=None, device="cpu",
    batch_size=BATCH_SIZE, **settings,
):  # fmt: skip
    on_gpu = device.startswith("cuda")
    if on_gpu:
        getattr(model, "generator", model).compile()  # half the time a step on an H100
    steps_per_epoch = min(steps, max(LEAST_STEPS, steps // EPOCHS))
    n_recorded = 0 if recordings is None else int(SELF_SUPERVISED * batch_size)

    def batches(epoch: int) -> Iterator[Triplet]:
        generator = epoch_generator(seed, epoch)
        for _ in range(steps_per_epoch):
            batch = sample_batch(log_mels, generator=generator, batch_size=batch_size - n_recorded)
            if n_recorded:
                more = self_supervised_batch(recordings, generator=generator, batch_size=n_recorded)
                batch = tuple(torch.cat(both) for both in zip(batch, more, strict=True))
            yield batch

    data = {"groups": len(log_mels), "batch_size": batch_size, "recordings": n_recorded}
    return loop.fit(
        model, step=step, batches=batches, steps=steps, steps_per_epoch=steps_per_epoch,
        data=data, warmup=min(500, max(20, steps // 20)), seed=seed, device=device,
        evaluate=None if valid is None else validation(valid),
        precision="bf16-mixed" if on_gpu else "32-true",
        cuda_graph=step is regression_step, **settings,
    )  # fmt: skip
