"""Batches for training: crops, random equalisers and shuffled minibatches. Notebooks 03 to 10."""

from __future__ import annotations

import torch
from torch import Tensor


def random_equalizer(n: int, n_mels: int, generator: torch.Generator) -> Tensor:
    """Smooth random equaliser curves in dB, (n, n_mels, 1): microphones and rooms never heard."""
    knots = 4.0 * torch.randn(n, 1, 6, generator=generator)
    curve = torch.nn.functional.interpolate(knots, n_mels, mode="linear", align_corners=True)
    return curve.transpose(1, 2)


def draw_other_style(style: Tensor, n_styles: int, generator: torch.Generator) -> Tensor:
    """For each of `style` (B,) another column: as often its sibling (tier 1) as any of the rest.

    Drawn evenly, tier 1 would be a third, and its errors, which are smaller, would hardly count.
    """
    sibling = style ^ 1  # columns 2 k and 2 k + 1
    if n_styles == 2:
        return sibling
    step = torch.randint(2, n_styles, style.shape, generator=generator)
    elsewhere = (style // 2 * 2 + step) % n_styles
    return torch.where(torch.rand(style.shape, generator=generator) < 0.5, sibling, elsewhere)
