"""Recombination of content and style. Notebook 07.

`GainTransfer` predicts a gain in dB on the content's own spectrogram; `LatentTransfer` is the
report's design (III.C): content latent and style vector in, a full log-mel out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..features import Standardizer
from .blocks import ChannelNorm, FiLMBlock, ResidualBlock
from .style import CNNStyleEncoder
from .vae import ConvVAE

DILATIONS = (1, 2, 4, 8)


class FiLMDecoder(nn.Module):
    """Residual blocks, each conditioned on the style, then `n_mels` numbers a frame."""

    def __init__(self, *, channels: int, depth: int, style_dim: int, n_mels: int):
        super().__init__()
        dilations = [DILATIONS[i % len(DILATIONS)] for i in range(depth)]
        self.blocks = nn.ModuleList(FiLMBlock(channels, style_dim, dilation=d) for d in dilations)
        self.norm = ChannelNorm(channels)
        self.out = nn.Conv1d(channels, n_mels, 3, padding=1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, style)
        return self.out(self.norm(x))


class GainTransfer(nn.Module):
    """Gain in dB that turns the content's log-mel into the style's sound, note for note.

    A style vector is the CNN's code and the clip's mean standardised log-mel. The difference of two
    clips' means is a static equaliser; the network sees the content with and without it and
    predicts what remains. It is conditioned on both style vectors, the style clip's and the
    content's own: a gain is a difference, and the convolutions see only a few frames.
    """

    FLOOR_DB = -55.0  # of the log-mel of audio at -20 dBFS; below lies what nobody hears
    GAIN_SCALE = 10.0  # dB per unit of output, so that outputs are about 1
    CONTEXT_FRAMES = 64  # more than one output frame sees on either side, the style vectors apart

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 256,
        depth: int = 6,
        style_channels: int = 192,
        style_dim: int = 128,
    ):
        super().__init__()
        self.n_mels = n_mels
        self.standardize = Standardizer(n_mels)
        self.stem = nn.Conv1d(2 * n_mels, channels, 3, padding=1)
        self.content = nn.Sequential(  # (B, C, T) -> (B, C, T / 2)
            nn.Conv1d(channels, channels, 4, stride=2, padding=1), ResidualBlock(channels)
        )
        self.style = CNNStyleEncoder(n_mels=n_mels, channels=style_channels, dim=style_dim)
        self.condition = nn.Sequential(
            nn.Linear(2 * (style_dim + n_mels), 2 * style_dim), nn.GELU()
        )
        self.decoder = FiLMDecoder(
            channels=channels, depth=depth, style_dim=2 * style_dim, n_mels=channels
        )
        self.upsample = nn.ConvTranspose1d(channels, n_mels, 4, stride=2, padding=1)
        self.skip = nn.Conv1d(channels, n_mels, 3, padding=1)
        for layer in (self.upsample, self.skip):  # starts as the static equaliser
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode_style(self, log_mel: Tensor) -> Tensor:
        """Style vector (B, style_dim + n_mels) of a log-mel in dB (B, n_mels, T) at -20 dBFS."""
        x = self.standardize(log_mel.clamp_min(self.FLOOR_DB))
        return torch.cat([self.style(x), x.mean(dim=2)], dim=1)

    def gain(self, content: Tensor, style: Tensor, own_style: Tensor) -> Tensor:
        """Gain in dB (B, n_mels, T) for the content's log-mel, given both style vectors."""
        n_frames = content.shape[2]
        equalizer = (style - own_style)[:, -self.n_mels :, None]  # in standard deviations
        x = self.standardize(content.clamp_min(self.FLOOR_DB))
        x = nn.functional.pad(x, (0, n_frames % 2), mode="replicate")
        x = self.stem(torch.cat([x, x + equalizer], dim=1))
        condition = self.condition(torch.cat([style, own_style], dim=1))
        half = self.decoder(self.content(x), condition)
        learned = self.GAIN_SCALE * (self.upsample(half) + self.skip(x))[:, :, :n_frames]
        return learned + equalizer * self.standardize.std[:, None]

    def forward(self, content: Tensor, style: Tensor, own: Tensor | None = None) -> Tensor:
        """Transferred log-mel in dB (B, n_mels, T) of log-mels in dB; their lengths may differ.

        `own` is a longer excerpt around the content from which its own style is taken.
        """
        own_style = self.encode_style(content if own is None else own)
        gain = self.gain(content, self.encode_style(style), own_style)
        return content.clamp_min(self.FLOOR_DB) + gain


class LatentTransfer(nn.Module):
    """Content latent of a frozen VAE and style vector of a frozen CNN, decoded to a full log-mel."""

    def __init__(
        self, vae: ConvVAE, style_encoder: nn.Module, *, channels: int = 256, depth: int = 4
    ):
        super().__init__()
        self.vae, self.style_encoder = (
            vae.requires_grad_(False),
            style_encoder.requires_grad_(False),
        )
        n_mels = vae.standardize.mean.numel()
        style_dim = style_encoder.head.in_features
        self.expand = nn.ConvTranspose1d(
            vae.latent_channels, channels, vae.stride, stride=vae.stride
        )
        self.decoder = FiLMDecoder(
            channels=channels, depth=depth, style_dim=style_dim, n_mels=n_mels
        )

    def encode_content(self, log_mel: Tensor) -> Tensor:
        """Mean of the content latent, (B, latent_channels, T')."""
        return self.vae.encode(log_mel)[0]

    def encode_style(self, log_mel: Tensor) -> Tensor:
        return self.style_encoder.encode(log_mel)

    def decode(self, latent: Tensor, style: Tensor, n_frames: int) -> Tensor:
        """Log-mel in dB (B, n_mels, n_frames)."""
        x = self.decoder(self.expand(latent), style)[:, :, :n_frames]
        return self.vae.standardize.inverse(x)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return self.decode(self.encode_content(content), self.encode_style(style), content.shape[2])


def floored_difference(
    predicted: Tensor, target: Tensor, floor_db: float = GainTransfer.FLOOR_DB
) -> Tensor:
    """Difference in dB in which everything below the floor counts as the floor.

    Where the target lies above the floor the prediction is not clamped, which would stop its gradient.
    """
    below = target <= floor_db
    return torch.where(below, (predicted - floor_db).clamp_min(0.0), predicted - target)


def log_spectral_loss(difference: Tensor) -> Tensor:
    """Mean of the two log-spectral distances of a difference in dB, (B, n_mels, T).

    Root mean square over time, mean over bands, and the other way round. Inside a row it is
    minimised by the mean, not by L1's median, which is biased where a band is mostly silent.
    """
    square = difference.square()
    over_time = (square.mean(dim=2) + 1e-3).sqrt().mean()
    over_bands = (square.mean(dim=1) + 1e-3).sqrt().mean()
    return 0.5 * (over_time + over_bands)
