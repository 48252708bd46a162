"""Convolutional variational autoencoder of the log-mel; its latent keeps time. Notebook 05."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..features import Standardizer
from .blocks import ChannelNorm, ResidualBlock


def patches(x: Tensor, n_frames: int) -> Tensor:
    """Cut (B, n_mels, T) into patches of `n_frames`: (B * T // n_frames, n_mels * n_frames)."""
    return x.unfold(2, n_frames, n_frames).transpose(1, 2).flatten(0, 1).flatten(1)


class PatchEncoder(nn.Module):
    """(B, n_mels, T) -> (B, 2 latent_channels, T / stride): a linear patch code plus what is not linear.

    The linear path gives means only; `deep` corrects them and gives the log-variances.
    """

    def __init__(
        self, *, n_mels: int, channels: int, latent_channels: int, stride: int, blocks: int
    ):
        super().__init__()
        self.linear = nn.Conv1d(n_mels, latent_channels, stride, stride=stride)
        self.deep = nn.Sequential(
            nn.Conv1d(n_mels, channels, stride, stride=stride),
            *(ResidualBlock(channels) for _ in range(blocks)),
            ChannelNorm(channels),
            nn.Conv1d(channels, 2 * latent_channels, 3, padding=1),
        )
        for parameter in self.deep[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        correction, log_var = self.deep(x).chunk(2, dim=1)
        return torch.cat([self.linear(x) + correction, log_var], dim=1)


class ConvVAE(nn.Module):
    """Convolutional encoder and decoder over time (report II.B.3), each beside a linear path.

    The first convolution reads patches of 2**n_down frames without overlap, and all further layers
    run at that rate, so the network is cheap. The deep paths end in zeros: at the start the model is
    linear, and after `start_from_pca` it is the PCA of its patches, the best linear model there is.

    Parameters
    ----------
    n_mels : bands of the log-mel
    channels : width of the convolutions
    latent_channels : latent numbers per latent frame; one latent frame spans 2**n_down frames,
        so `latent_channels` / 2**n_down numbers per frame
    n_down : log2 of the frames a latent frame spans
    blocks : residual blocks in the encoder and in the decoder
    """

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 256,
        latent_channels: int = 32,
        n_down: int = 3,
        blocks: int = 2,
    ):
        super().__init__()
        self.stride = 2**n_down
        self.standardize = Standardizer(n_mels)
        self.encoder = PatchEncoder(
            n_mels=n_mels, channels=channels, latent_channels=latent_channels,
            stride=self.stride, blocks=blocks,
        )  # fmt: skip
        self.linear_decoder = nn.ConvTranspose1d(
            latent_channels, n_mels, self.stride, stride=self.stride
        )
        self.decoder = nn.Sequential(
            nn.Conv1d(latent_channels, channels, 3, padding=1),
            *(ResidualBlock(channels) for _ in range(blocks)),
            ChannelNorm(channels),
            nn.ConvTranspose1d(channels, n_mels, self.stride, stride=self.stride),
        )
        for parameter in self.decoder[-1].parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def start_from_pca(self, log_mel: Tensor, *, noise_variance: float) -> Tensor:
        """Set the linear paths to the PCA of the patches of `log_mel` (B, n_mels, T) in dB.

        With unit-variance codes and log-variances log(noise_variance / eigenvalue) this is
        probabilistic PCA (Tipping & Bishop, 1999), the optimum of a VAE without the deep paths.
        Fit `standardize` first. Returns the eigenvalues, (latent_channels,), largest first.
        """
        encode, decode = self.encoder.linear, self.linear_decoder
        n_codes = encode.out_channels
        x = patches(self.standardize(log_mel), self.stride).double()  # (N, n_mels * stride)
        mean = x.mean(dim=0)
        values, vectors = torch.linalg.eigh(torch.cov(x.T))
        values = values[-n_codes:].flip(0).clamp_min(1e-6)
        vectors = vectors[:, -n_codes:].flip(1)
        vectors = vectors * torch.where(vectors.sum(dim=0) < 0, -1.0, 1.0)  # a plus means louder
        to_code = (vectors / values.sqrt()).T  # (n_codes, n_mels * stride)
        encode.weight.copy_(to_code.reshape(encode.weight.shape))
        encode.bias.copy_(-to_code @ mean)
        decode.weight.copy_((vectors * values.sqrt()).T.reshape(decode.weight.shape))
        decode.bias.copy_(mean.reshape(-1, self.stride).mean(dim=1))
        self.encoder.deep[-1].bias[n_codes:] = torch.log(noise_variance / values)
        return values

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, latent_channels, ceil(T / stride)), of (B, n_mels, T) dB."""
        x = self.standardize(log_mel)
        x = nn.functional.pad(x, (0, -x.shape[2] % self.stride), mode="replicate")
        mean, log_var = self.encoder(x).chunk(2, dim=1)
        return mean, log_var.clamp(-12.0, 6.0)

    def decode(self, latent: Tensor, n_frames: int) -> Tensor:
        """Log-mel in dB, (B, n_mels, n_frames), of a latent (B, latent_channels, T')."""
        x = self.linear_decoder(latent) + self.decoder(latent)
        return self.standardize.inverse(x[:, :, :n_frames])

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
