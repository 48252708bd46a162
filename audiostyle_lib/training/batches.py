"""Batches for training: minibatches, crops, random equalisers, choice of styles.

Used by ``notebooks/03_failed_resnet.ipynb``, ``notebooks/04_failed_linear.ipynb``,
``notebooks/06_style_encoder.ipynb`` and ``notebooks/07_recombination.ipynb``, and by every training of
this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Random numbers of one epoch of a training, always the same ones."""
    return torch.Generator().manual_seed(seed * 100_003 + epoch)


def minibatches(
    *tensors: Tensor, batch_size: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, ...]]:
    """Go once through tensors that fit into memory, in an order that depends on (seed, epoch) only.

    Parameters
    ----------
    *tensors : torch.Tensor [shape=(N, ...)]
        Their rows stay together.
    batch_size : int
        Rows of a batch; the last batch holds what is left.
    seed : int
    epoch : int

    Yields
    ------
    tuple of torch.Tensor [shape=(B, ...)]
        One of each of `tensors`.
    """
    order = torch.randperm(len(tensors[0]), generator=epoch_generator(seed, epoch))
    order = order.to(tensors[0].device)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield tuple(t[chosen] for t in tensors)


def crops(clips: Tensor | Sequence[Tensor], which: Tensor, starts: Tensor, n_frames: int) -> Tensor:
    """Excerpts of spectrograms.

    Parameters
    ----------
    clips : torch.Tensor [shape=(N, n_mels, T)] or list of torch.Tensor [shape=(n_mels, T)]
    which : torch.Tensor [shape=(B,)]
        Index of the clip of each excerpt.
    starts : torch.Tensor [shape=(B,)]
        First frame of each excerpt.
    n_frames : int

    Returns
    -------
    torch.Tensor [shape=(B, n_mels, n_frames)]
        In single precision.
    """
    places = zip(which.tolist(), starts.tolist(), strict=True)
    return torch.stack([clips[i][:, start : start + n_frames] for i, start in places]).float()


def random_equalizer(
    n: int, n_mels: int, generator: torch.Generator, *, db: float = 4.0, points: int = 6
) -> Tensor:
    """Smooth random equalisers, as if clips were recorded by other microphones in other rooms.

    Parameters
    ----------
    n : int
        How many.
    n_mels : int
    generator : torch.Generator
    db : float
        Standard deviation of the gain at each point, in dB.
    points : int
        Points of a curve, evenly spaced over the bands; between them the gain is linear.

    Returns
    -------
    torch.Tensor [shape=(n, n_mels, 1)]
        Gains in dB.
    """
    gains = db * torch.randn(n, 1, points, generator=generator)
    curve = torch.nn.functional.interpolate(gains, n_mels, mode="linear", align_corners=True)
    return curve.transpose(1, 2)


def draw_other_style(style: Tensor, n_styles: int, generator: torch.Generator) -> Tensor:
    """Draw for each style another style of the same group of paired renderings.

    In half of the cases it is the same genre on other instruments (tier 1). Drawn evenly, that would
    be a third of the cases, and since their errors are smaller they would hardly count.

    Parameters
    ----------
    style : torch.Tensor [shape=(B,)]
        Columns of the group; columns 2 k and 2 k + 1 are of one genre.
    n_styles : int
        Columns of a group.
    generator : torch.Generator

    Returns
    -------
    torch.Tensor [shape=(B,)]
    """
    same_genre = style ^ 1
    if n_styles == 2:
        return same_genre
    step = torch.randint(2, n_styles, style.shape, generator=generator)
    other_genre = (style // 2 * 2 + step) % n_styles
    return torch.where(torch.rand(style.shape, generator=generator) < 0.5, same_genre, other_genre)
