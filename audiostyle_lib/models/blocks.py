"""Building blocks that several networks share. Convolutions are over time, with tensors (B, C, T)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..signal.pca import PatchPCA


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each frame of (B, C, T).

    Unlike group or instance normalisation it uses one frame only, so a long recording gives the same
    result in overlapping pieces as in one.
    """

    def __init__(self, channels: int, *, affine: bool = True):
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(norm(x)))), (B, C, T) -> (B, C, T); the first convolution spans 3 frames."""

    def __init__(self, channels: int, *, dilation: int = 1):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.project = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(nn.functional.gelu(self.conv(self.norm(x))))


class FiLMBlock(nn.Module):
    """Residual block whose normalised input is scaled and shifted by the style (Perez et al., 2018).

    FiLM(x; s) = gamma(s) * norm(x) + beta(s), with one gamma and beta per channel for all frames.

    Parameters
    ----------
    channels : int
        Of x, (B, C, T).
    style_dim : int
        Of the style, (B, style_dim).
    dilation : int
        Of the convolution, which spans 3 frames.
    over_time : bool
        Normalise each channel over time instead of each frame over the channels. The style then replaces
        each channel's mean and deviation: adaptive instance normalisation (Huang & Belongie, 2017).
    """

    def __init__(
        self, channels: int, style_dim: int, *, dilation: int = 1, over_time: bool = False
    ):
        super().__init__()
        self.norm = (
            nn.InstanceNorm1d(channels) if over_time else ChannelNorm(channels, affine=False)
        )
        self.film = nn.Linear(style_dim, 2 * channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.project = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.film(style)[:, :, None].chunk(2, dim=1)  # 2 x (B, C, 1)
        modulated = (1 + gamma) * self.norm(x) + beta
        return x + self.project(nn.functional.gelu(self.conv(modulated)))


class CrossAttention(nn.Module):
    """x + attention of x's tokens (B, C, T) to those of another clip (B, C, S), in whatever order.

    Scaled dot-product attention with several heads (Vaswani et al., NeurIPS 2017).

    Parameters
    ----------
    channels : int
        C.
    heads : int
        Number of heads.

    Raises
    ------
    ValueError
        If `channels` is no multiple of `heads`.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels cannot be shared by {heads} heads")
        self.heads = heads
        self.norm, self.norm_other = ChannelNorm(channels), ChannelNorm(channels)
        self.query = nn.Conv1d(channels, channels, 1)
        self.key_value = nn.Conv1d(channels, 2 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, heads, T, C / heads)."""
        return x.unflatten(1, (self.heads, -1)).transpose(2, 3)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        query = self.query(self.norm(x))
        key, value = self.key_value(self.norm_other(other)).chunk(2, dim=1)
        split = (self._split(z) for z in (query, key, value))
        found = nn.functional.scaled_dot_product_attention(*split)
        return x + self.out(found.transpose(2, 3).flatten(1, 2))


class LinearPath(nn.Module):
    """A fixed linear encoder from `size` numbers to `codes` numbers, and a decoder; zero at first."""

    def __init__(self, size: int, codes: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("to_code", torch.zeros(size, codes))
        self.register_buffer("from_code", torch.zeros(codes, size))

    @torch.no_grad()
    def set_to(self, pca: PatchPCA) -> None:
        """Become `pca`, scaled to codes of unit variance; further codes stay zero."""
        n = min(self.to_code.shape[1], len(pca.components))
        scale = pca.variances[:n].sqrt()
        self.mean.copy_(pca.mean)
        self.to_code[:, :n] = pca.components[:n].T / scale
        self.from_code[:n] = pca.components[:n] * scale[:, None]

    def encode(self, x: Tensor) -> Tensor:
        """Codes (..., codes) of (..., size)."""
        return (x - self.mean) @ self.to_code

    def decode(self, code: Tensor) -> Tensor:
        """The numbers (..., size) of codes (..., codes)."""
        return self.mean + code @ self.from_code


def mean_and_std(x: Tensor) -> Tensor:
    """Mean and standard deviation over time: (B, C, T) -> (B, 2 C)."""
    std = (x.var(dim=2, correction=0) + 1e-5).sqrt()
    return torch.cat([x.mean(dim=2), std], dim=1)
