"""Trivial predictors of log-mel segments, and PCA: what a trained model has to be better than.

Shown beside every reconstruction in notebooks 03, 04, 05 and 10.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def cut(x: Tensor, n_frames: int) -> Tensor:
    """Cut (B, n_mels, T) into flat patches of `n_frames`: (B, T // n_frames, n_mels * n_frames)."""
    return x.unfold(2, n_frames, n_frames).transpose(1, 2).flatten(2)


def join(flat: Tensor, n_frames: int) -> Tensor:
    """Inverse of `cut` where nothing was left over: (B, n_mels, T)."""
    return flat.unflatten(2, (-1, n_frames)).transpose(1, 2).flatten(2)


def patches(x: Tensor, n_frames: int) -> Tensor:
    """All patches of (B, n_mels, T) in one list: (B * T // n_frames, n_mels * n_frames)."""
    return cut(x, n_frames).flatten(0, 1)


def from_patches(flat: Tensor, n_segments: int, n_mels: int) -> Tensor:
    """Inverse of `patches` where nothing was left over: (n_segments, n_mels, T)."""
    return join(flat.unflatten(0, (n_segments, -1)), flat.shape[1] // n_mels)


@dataclass(frozen=True)
class PatchPCA:
    """Principal component analysis of patches of a spectrogram.

    The optimum of every linear autoencoder of such patches (Baldi & Hornik, 1989).
    """

    n_frames: int  # of a patch
    mean: Tensor  # (n_mels * n_frames,)
    components: Tensor  # (n_components, n_mels * n_frames), orthonormal, largest variance first
    variances: Tensor  # (n_components,)

    def rebuild(self, x: Tensor, n_components: int | None = None) -> Tensor:
        """`x` (B, n_mels, T) from its first `n_components` (all if None); T a multiple of n_frames."""
        basis = self.components[:n_components]
        centred = cut(x, self.n_frames) - self.mean
        return join(self.mean + centred @ basis.T @ basis, self.n_frames)


def fit_pca(x: Tensor, *, n_frames: int, n_components: int, at_most: int = 60_000) -> PatchPCA:
    """Fit `PatchPCA` to segments `x` (B, n_mels, T), on at most `at_most` patches spread over them.

    Fewer components are kept where there are fewer patches or dimensions than `n_components`.
    """
    from scipy.linalg import eigh

    flat = patches(x, n_frames)
    flat = flat[:: -(-len(flat) // at_most)]
    mean = flat.mean(dim=0)
    centred = (flat - mean) / max(1, len(flat) - 1) ** 0.5
    n, size = centred.shape
    kept = min(n_components, n - 1, size)
    # the smaller of both eigenvalue problems, and of it the largest values only: twice as fast as
    # torch's `eigh`, which gives all
    product = centred @ centred.T if n < size else centred.T @ centred
    largest = [len(product) - kept, len(product) - 1]
    solution = eigh(product.cpu().numpy(), subset_by_index=largest, overwrite_a=True)
    variances, vectors = (torch.from_numpy(part).to(x.device) for part in solution)
    if n < size:
        vectors = nn.functional.normalize(centred.T @ vectors, dim=0)
    basis = vectors.flip(1)
    basis = basis * torch.where(basis.sum(dim=0) < 0, -1.0, 1.0)  # a plus means louder
    return PatchPCA(n_frames, mean, basis.T.contiguous(), variances.flip(0).clamp_min(1e-6))
