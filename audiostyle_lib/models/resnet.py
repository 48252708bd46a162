"""ResNet as encoder and as decoder of a log-mel image, used by ``notebooks/10_future_work.ipynb``."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..signal.features import Standardizer

STRIDE = 32  # of ResNet's five halvings, in bands and in frames


class ResidualStage(nn.Module):
    """Two 3 x 3 convolutions beside a skip connection; halves or doubles both axes of (B, C, F, T).

    The skip connection is a 1 x 1 convolution with the same change of size (He et al., 2016), so
    that both summands have one shape by construction.
    """

    def __init__(self, c_in: int, c_out: int, *, up: bool):
        super().__init__()
        layer, extra = (nn.ConvTranspose2d, {"output_padding": 1}) if up else (nn.Conv2d, {})
        self.skip = layer(c_in, c_out, 1, stride=2, **extra)
        self.resize = layer(c_in, c_out, 3, stride=2, padding=1, **extra)
        self.conv = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (c_in, c_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.resize(self.norms[0](x).relu())
        return self.skip(x) + self.conv(self.norms[1](inner).relu())


class ResNetVAE(nn.Module):
    """Variational autoencoder of five residual stages down and five up; any number of frames.

    Five halvings need a multiple of 32 frames. The input is padded to one, and the output cut to the
    length of the input.

    Parameters
    ----------
    n_mels : int
        Bands, a multiple of 32.
    width : int
        Channels of the first stage; the last one has eight times as many.
    latent_channels : int
        Numbers per latent frame, which spans 32 frames; a multiple of n_mels / 32.
    unet : bool
        Also add the output of each encoder stage to the decoder (Ronneberger et al., 2015). The latent is
        then no bottleneck: `shortcut_numbers` counts what does not pass through it.
    """

    def __init__(
        self,
        *,
        n_mels: int = 128,
        width: int = 16,
        latent_channels: int = 128,
        unet: bool = False,
    ):
        super().__init__()
        self.standardize, self.unet = Standardizer(n_mels), unet
        self.rows = n_mels // STRIDE
        maps = latent_channels // self.rows
        channels = [1, width, width, 2 * width, 4 * width, 8 * width]
        self.down = nn.ModuleList(ResidualStage(a, b, up=False) for a, b in pairwise(channels))
        self.up = nn.ModuleList(ResidualStage(a, b, up=True) for a, b in pairwise(channels[::-1]))
        self.to_latent = nn.Conv2d(channels[-1], 2 * maps, 1)
        self.from_latent = nn.Conv2d(maps, channels[-1], 1)

    def encode_stages(self, log_mel: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What `encode` returns, and the outputs (B, C, F, T') of the encoder's stages, largest first."""
        x = self.standardize(log_mel)
        x = nn.functional.pad(x, (0, -x.shape[2] % STRIDE), mode="replicate")[:, None]
        seen = []
        for stage in self.down:
            x = stage(x)
            seen.append(x)
        mean, log_var = self.to_latent(x).chunk(2, dim=1)  # (B, maps, rows, T / 32)
        return mean.flatten(1, 2), log_var.flatten(1, 2).clamp(-12.0, 6.0), seen

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, latent_channels, ceil(T / 32)), of (B, n_mels, T) in dB."""
        return self.encode_stages(log_mel)[:2]

    def decode(self, latent: Tensor, n_frames: int, seen: list[Tensor] | None = None) -> Tensor:
        """Log-mel of a latent.

        Parameters
        ----------
        latent : torch.Tensor [shape=(B, latent_channels, T')]
            As `encode` gives it.
        n_frames : int
            Length of the log-mel.
        seen : list of torch.Tensor [shape=(B, C, F, T')] or None
            Outputs of the encoder's stages, to be added; None adds nothing.

        Returns
        -------
        torch.Tensor [shape=(B, n_mels, n_frames)]
            In dB.
        """
        x = self.from_latent(latent.unflatten(1, (-1, self.rows)))
        for stage, passed in zip(self.up, (seen or [])[::-1] or [0] * len(self.up), strict=True):
            x = stage(x + passed)
        return self.standardize.inverse(x[:, 0, :, :n_frames])

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, n_mels, T), mean and log-variance; samples the latent when training."""
        mean, log_var, seen = self.encode_stages(log_mel)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        latent = mean + (0.5 * log_var).exp() * noise
        return self.decode(latent, log_mel.shape[2], seen if self.unet else None), mean, log_var

    def shortcut_numbers(self, n_frames: int) -> float:
        """Numbers per frame that reach the decoder but not through the latent, for `n_frames` frames."""
        if not self.unet:
            return 0.0
        with torch.no_grad():
            _, _, seen = self.encode_stages(torch.zeros(1, self.standardize.mean.numel(), n_frames))
        return sum(x.numel() for x in seen) / n_frames
