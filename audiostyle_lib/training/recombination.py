"""Training of the recombination on paired renderings of `bands`. Notebook 07.

First by regression to the true rendering; then, from its weights, against a discriminator as well. The
mean of all that may be true is smoother than anything that sounds, and only the second can say so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..models.discriminators import (
    SpectrogramDiscriminator,
    discriminator_loss,
    feature_matching_loss,
    generator_loss,
)
from ..models.recombine import GainTransfer, floored_difference, log_spectral_loss
from ..signal import features
from . import loop
from .batches import draw_other_style, random_equalizer

CROP_FRAMES = 256  # about 6 s
EPOCHS, LEAST_STEPS = 100, 50  # at most so many epochs, of at least so many steps
BATCH_SIZE = 16
SELF_SUPERVISED = 0.25  # share of a batch that is made of recordings, where there are any
FEATURE_MATCHING, ADVERSARIAL = 5.0, 0.1  # weights beside a loss in dB
HELD_OUT = 10_000_019  # key of the validation batch's generator


def sample_batch(log_mels: Tensor, *, generator: torch.Generator, batch_size: int = BATCH_SIZE):
    """Random triplets for one step, each (B, n_mels, CROP_FRAMES) in dB.

    Content and truth are the same excerpt; the style clip is of another score. A random equaliser is
    laid over the content, and another over style and truth alike. Half of the triplets are of tier 1.

    Returns
    -------
    content, style, truth : torch.Tensor
    """
    n_groups, n_scores, n_styles, n_mels, n_frames = log_mels.shape

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
        where = [x.to(log_mels.device) for x in (group, scores, styles)]
        return _excerpts(log_mels[where[0], where[1], where[2]], starts)

    return (
        crop(score, style, start) + own_eq,
        crop(other_score, other_style, style_start) + style_eq,
        crop(score, other_style, start) + style_eq,
    )


def _excerpts(clips: Tensor, starts: Tensor) -> Tensor:
    """Frames (B, n_mels, CROP_FRAMES) of clips (B, n_mels, T), each from its start (B,)."""
    frames = starts.to(clips.device)[:, None] + torch.arange(CROP_FRAMES, device=clips.device)
    return clips.gather(2, frames[:, None].expand(-1, clips.shape[1], -1)).float()


def self_supervised_batch(recordings: Tensor, *, generator: torch.Generator, batch_size: int):
    """Triplets as of `sample_batch` from log-mels (n, n_mels, T) of recordings of whatever kind.

    Content and style clip are two excerpts of the same recording under two random equalisers, so the
    truth is known without a score: the content under the style clip's. It teaches to leave alone what
    is the same in both.
    """
    n, n_mels, n_frames = recordings.shape
    which = torch.randint(n, (batch_size,), generator=generator).to(recordings.device)
    start, style_start = (
        torch.randint(n_frames - CROP_FRAMES + 1, (batch_size,), generator=generator)
        for _ in range(2)
    )
    own_eq, style_eq = (
        random_equalizer(batch_size, n_mels, generator).to(recordings.device) for _ in range(2)
    )
    content, style = (_excerpts(recordings[which], x) for x in (start, style_start))
    return content + own_eq, style + style_eq, content + style_eq


def regression_step(model: GainTransfer, batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-spectral loss in dB to the true rendering, beside that of copying the content."""
    content, style, truth = batch
    loss = log_spectral_loss(floored_difference(model(content, style), truth))
    return loss, {"copy": _copy_loss(content, truth)}


def _copy_loss(content: Tensor, truth: Tensor) -> Tensor:
    return log_spectral_loss(floored_difference(content.clamp_min(features.FLOOR_DB), truth))


class Rivals(nn.Module):
    """A recombination and the discriminator of its log-mels; calling them gives all losses by name.

    As in `adversarial.Adversaries` one backward pass of the sum gives each side its own gradient.
    """

    def __init__(self, generator: GainTransfer, *, width: int):
        super().__init__()
        self.generator = generator
        self.discriminator = SpectrogramDiscriminator(width=width)

    def forward(self, content: Tensor, style: Tensor, truth: Tensor) -> dict[str, Tensor]:
        made = self.generator(content, style)
        losses = {"log_spectral": log_spectral_loss(floored_difference(made, truth))}
        x, s, real, fake = (
            self.generator.standardize(z.clamp_min(features.FLOOR_DB))
            for z in (content, style, truth, made)
        )
        of_real = self.discriminator(real, x, s)
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        judged = torch.func.functional_call(self.discriminator, constant, (fake, x, s))
        of_fake = self.discriminator(fake.detach(), x, s)
        return losses | {
            "discriminator": discriminator_loss(of_real, of_fake),
            "generator": ADVERSARIAL * generator_loss(judged),
            "feature_matching": FEATURE_MATCHING * feature_matching_loss(of_real, judged),
        }


def adversarial_step(model: Rivals, batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of both sides' losses."""
    losses = model(*batch)
    return torch.stack(list(losses.values())).sum(), {k: v.detach() for k, v in losses.items()}


def validation(log_mels: Tensor, *, batch_size: int = 64) -> Callable[[nn.Module], dict]:
    """An `evaluate` for `loop.fit`: log-spectral loss in dB on triplets of held-out renderings."""
    generator = torch.Generator().manual_seed(HELD_OUT)
    batch = sample_batch(log_mels, generator=generator, batch_size=batch_size)

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
    seed: int = 0,
    device: str = "cpu",
    lr: float = 8e-4,
    batch_size: int = BATCH_SIZE,
    soundfonts: Sequence[str] = (),
    recordings: Tensor | None = None,
    **sizes: int | str,
) -> tuple[GainTransfer, dict[str, list[float]]]:
    """Train `GainTransfer` on paired renderings (n_groups, score, style, n_mels, T).

    Returns the model in evaluation mode and the curves of `loop.fit`; with held-out renderings
    `valid` their loss is among them. `soundfonts` names those that play besides the default's; a
    checkpoint of others is not continued. Of log-mels of `recordings`, if given, a share of each batch
    is made (`self_supervised_batch`).
    """
    torch.manual_seed(seed)
    model = GainTransfer(n_mels=config.n_mels, **sizes)
    model.standardize.fit(log_mels[:64].flatten(0, 2).float())
    recipe = {"model": {"n_mels": config.n_mels, **sizes}, "groups": len(log_mels)}
    recipe["soundfonts"] = list(soundfonts)
    if recordings is not None:
        if SELF_SUPERVISED * batch_size < 1:
            raise ValueError(f"no room for recordings in a batch of {batch_size}: take at least 4")
        recipe["recordings"] = len(recordings)
    curves = _fit(
        model, regression_step, log_mels, recordings=recordings, valid=valid, steps=steps,
        path=path, recipe=recipe, config=config, seed=seed, device=device, lr=lr,
        batch_size=batch_size, label="gain transfer",
    )  # fmt: skip
    return model, curves


def train_adversarially(
    model: GainTransfer,
    log_mels: Tensor,
    *,
    recipe: dict,
    lr: float = 2e-4,
    width: int = 32,
    seed: int = 0,
    **settings,
) -> dict[str, list[float]]:
    """Train a `GainTransfer` that can regress on, in place, against a discriminator.

    `recipe` is that of the first training, `width` the discriminator's; `settings` are what
    `train_gain_transfer` takes. Returns the curves of `loop.fit`.
    """
    torch.manual_seed(seed)
    return _fit(
        Rivals(model, width=width), adversarial_step, log_mels, recipe={**recipe, "width": width},
        lr=lr, seed=seed, label="against a discriminator", betas=(0.5, 0.99), **settings,
    )  # fmt: skip


def _fit(
    model, step, log_mels, *, steps, seed, recipe, recordings=None, valid=None, device="cpu",
    batch_size=BATCH_SIZE, **settings,
):  # fmt: skip
    on_gpu = device.startswith("cuda")
    if on_gpu:
        getattr(model, "generator", model).compile()  # half the time a step on an H100
    steps_per_epoch = min(steps, max(LEAST_STEPS, steps // EPOCHS))
    n_recorded = 0 if recordings is None else int(SELF_SUPERVISED * batch_size)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(steps_per_epoch):
            batch = sample_batch(log_mels, generator=generator, batch_size=batch_size - n_recorded)
            if n_recorded:
                more = self_supervised_batch(recordings, generator=generator, batch_size=n_recorded)
                batch = tuple(torch.cat(both) for both in zip(batch, more, strict=True))
            yield batch

    return loop.fit(
        model, step=step, batches=batches, steps_per_epoch=steps_per_epoch,
        epochs=max(1, steps // steps_per_epoch), recipe={**recipe, "batch_size": batch_size},
        warmup=min(500, max(20, steps // 20)), seed=seed, device=device,
        evaluate=None if valid is None else validation(valid),
        precision="bf16-mixed" if on_gpu else "32-true", **settings,
    )  # fmt: skip
