"""Principal component analysis of patches of a spectrogram: the linear model that others must beat.

Used by ``notebooks/03_failed_resnet.ipynb``, ``04_failed_linear.ipynb``, ``05_content_vae.ipynb``,
``06_style_encoder.ipynb`` and ``10_future_work.ipynb``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


def split_patches(x: Tensor, n_frames: int) -> Tensor:
    """Split (B, n_mels, T) into flat patches of `n_frames`: (B, T // n_frames, n_mels * n_frames)."""
    return x.unfold(2, n_frames, n_frames).transpose(1, 2).flatten(2)


def join_patches(flat: Tensor, n_frames: int) -> Tensor:
    """Inverse of `split_patches`, (B, n_mels, T), if T is a multiple of `n_frames`."""
    return flat.unflatten(2, (-1, n_frames)).transpose(1, 2).flatten(2)


def patches(x: Tensor, n_frames: int) -> Tensor:
    """All patches of (B, n_mels, T) in one list: (B * T // n_frames, n_mels * n_frames)."""
    return split_patches(x, n_frames).flatten(0, 1)


def from_patches(flat: Tensor, n_segments: int, n_mels: int) -> Tensor:
    """Inverse of `patches`, (n_segments, n_mels, T), if T is a multiple of the patches' length."""
    return join_patches(flat.unflatten(0, (n_segments, -1)), flat.shape[1] // n_mels)


@dataclass(frozen=True)
class PatchPCA:
    """Principal component analysis of patches of a spectrogram.

    No linear autoencoder with as many codes has a smaller squared error (Baldi & Hornik, 1989).

    Parameters
    ----------
    n_frames : int
        Frames of a patch.
    mean : torch.Tensor [shape=(n_mels * n_frames,)]
        The mean patch.
    components : torch.Tensor [shape=(n_components, n_mels * n_frames)]
        Orthonormal, largest variance first.
    variances : torch.Tensor [shape=(n_components,)]
        Along the components.
    """

    n_frames: int
    mean: Tensor
    components: Tensor
    variances: Tensor

    def rebuild(self, x: Tensor, n_components: int | None = None) -> Tensor:
        """Project `x` onto the first components and back.

        Parameters
        ----------
        x : torch.Tensor [shape=(B, n_mels, T)]
            T has to be a multiple of `n_frames`.
        n_components : int or None
            All if None.

        Returns
        -------
        torch.Tensor [shape=(B, n_mels, T)]
        """
        basis = self.components[:n_components]
        centred = split_patches(x, self.n_frames) - self.mean
        return join_patches(self.mean + centred @ basis.T @ basis, self.n_frames)


def fit_pca(x: Tensor, *, n_frames: int, n_components: int, at_most: int = 60_000) -> PatchPCA:
    """Fit a `PatchPCA`.

    Parameters
    ----------
    x : torch.Tensor [shape=(B, n_mels, T)]
        Segments.
    n_frames : int
        Frames of a patch.
    n_components : int
        How many to keep; fewer are kept if there are fewer patches or dimensions.
    at_most : int
        If there are more patches than this, only every second, third, ... of them is used.

    Returns
    -------
    PatchPCA
    """
    from scipy.linalg import eigh

    flat = patches(x, n_frames)
    flat = flat[:: -(-len(flat) // at_most)]
    mean = flat.mean(dim=0)
    centred = (flat - mean) / max(1, len(flat) - 1) ** 0.5
    n, size = centred.shape
    kept = min(n_components, n - 1, size)
    # Both products have the same largest eigenvalues: take the smaller one. scipy computes only those,
    # in half the time that torch's `eigh` takes for all.
    product = centred @ centred.T if n < size else centred.T @ centred
    largest = [len(product) - kept, len(product) - 1]
    solution = eigh(product.cpu().numpy(), subset_by_index=largest, overwrite_a=True)
    variances, vectors = (torch.from_numpy(part).to(x.device) for part in solution)
    if n < size:
        vectors = nn.functional.normalize(centred.T @ vectors, dim=0)
    basis = vectors.flip(1)
    basis = basis * torch.where(
        basis.sum(dim=0) < 0, -1.0, 1.0
    )  # so that a positive code means louder
    return PatchPCA(n_frames, mean, basis.T.contiguous(), variances.flip(0).clamp_min(1e-6))
