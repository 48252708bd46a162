"""Convolutional variational autoencoder of the log-mel; its latent keeps time. Notebook 05."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..features import Standardizer
from .blocks import ChannelNorm, ResidualBlock


class ConvVAE(nn.Module):
    """Encoder and decoder of strided convolutions over time (report II.B.3).

    Parameters
    ----------
    n_mels : bands of the log-mel
    channels : width of the convolutions
    latent_channels : latent numbers per latent frame; one latent frame spans 2**n_down frames,
        so `latent_channels` / 2**n_down numbers per frame
    n_down : number of stages that halve the time resolution
    blocks : residual blocks a stage
    """

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 256,
        latent_channels: int = 32,
        n_down: int = 3,
        blocks: int = 1,
    ):
        super().__init__()
        self.stride = 2**n_down
        self.standardize = Standardizer(n_mels)
        down: list[nn.Module] = [nn.Conv1d(n_mels, channels, 3, padding=1)]
        up: list[nn.Module] = [nn.Conv1d(latent_channels, channels, 3, padding=1)]
        for _ in range(n_down):
            down += [ResidualBlock(channels) for _ in range(blocks)]
            down += [nn.Conv1d(channels, channels, 4, stride=2, padding=1)]
            up += [ResidualBlock(channels) for _ in range(blocks)]
            up += [nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)]
        down += [ChannelNorm(channels), nn.Conv1d(channels, 2 * latent_channels, 3, padding=1)]
        up += [
            ResidualBlock(channels),
            ChannelNorm(channels),
            nn.Conv1d(channels, n_mels, 3, padding=1),
        ]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, latent_channels, ceil(T / stride)), of (B, n_mels, T) dB."""
        x = self.standardize(log_mel)
        x = nn.functional.pad(x, (0, -x.shape[2] % self.stride), mode="replicate")
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var.clamp(-12.0, 6.0)

    def decode(self, latent: Tensor, n_frames: int) -> Tensor:
        """Log-mel in dB, (B, n_mels, n_frames), of a latent (B, latent_channels, T')."""
        return self.standardize.inverse(self.decoder(latent)[:, :, :n_frames])

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, n_mels, T), mean and log-variance; samples the latent when training."""
        mean, log_var = self.encode(log_mel)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        latent = mean + (0.5 * log_var).exp() * noise
        return self.decode(latent, log_mel.shape[2]), mean, log_var


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats of every latent number (Kingma & Welling, 2014).

    0.5 (mean^2 + exp(log_var) - 1 - log_var); zero exactly at the prior.
    """
    return 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var)
