"""Recombination of content and style, trained in ``notebooks/07_recombination.ipynb``.

`GainTransfer` predicts a gain in dB on the content's own spectrogram. `LatentTransfer` is the design of
the report (III.C): it decodes a content latent and a style vector to a log-mel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..signal.features import FLOOR_DB, Standardizer
from .blocks import ChannelNorm, CrossAttention, FiLMBlock, ResidualBlock, mean_and_std
from .vae import ConvVAE

DILATIONS = (1, 2, 4, 8)


class FiLMDecoder(nn.Module):
    """Residual blocks, each conditioned on the style: (B, channels, T) -> (B, n_mels, T)."""

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


class StyleCode(NamedTuple):
    """What `GainTransfer` computes from a clip to describe its style.

    Parameters
    ----------
    vector : torch.Tensor [shape=(B, style_dim + n_mels)]
        Features pooled over time, then the mean of the standardised log-mel.
    tokens : torch.Tensor [shape=(B, C, ceil(T / 2))]
        Features of every second frame, for the cross-attention.
    """

    vector: Tensor
    tokens: Tensor


class GainTransfer(nn.Module):
    """Gain in dB that gives the content's log-mel the sound of the style clip.

    One encoder reads both clips and makes a token of every two frames. The difference of the clips'
    mean log-mels is a static equaliser. The decoder gets the content with and without this equaliser
    and predicts what else has to change. Its blocks are conditioned on the style vectors of both clips,
    because a gain depends on both. With ``conditioning="attention"`` each token of the content also
    attends to similar tokens of the style clip, which show how the style sounds when something similar
    is played.

    Parameters
    ----------
    n_mels : int
        Bands of the log-mel.
    channels : int
        Width of the network, a multiple of `heads`.
    encoder_depth, decoder_depth : int
        Number of residual blocks.
    heads : int
        Of the cross-attention.
    style_dim : int
        Length of the pooled part of the style vector.
    conditioning : str
        ``"attention"`` (FiLM and cross-attention), ``"film"`` (Perez et al., AAAI 2018) or ``"adain"``
        (Huang & Belongie, ICCV 2017: FiLM on features normalised over time).
    output : str
        ``"gain"``, where the network's output is added to the content's log-mel, or ``"log_mel"``,
        where it is the result's log-mel itself.
    """

    GAIN_SCALE = 10.0  # dB per unit of output, so that outputs are about 1
    CONTEXT_FRAMES = 96  # an output frame depends on fewer frames of the content on either side
    FRAMES = 2  # that make a token

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 320,
        encoder_depth: int = 3,
        decoder_depth: int = 4,
        heads: int = 5,
        style_dim: int = 128,
        conditioning: str = "attention",
        output: str = "gain",
    ):
        super().__init__()
        if conditioning not in ("attention", "film", "adain"):
            raise ValueError(f"unknown conditioning {conditioning!r}")
        if output not in ("gain", "log_mel"):
            raise ValueError(f"unknown output {output!r}")
        self.n_mels, self.output = n_mels, output
        self.standardize = Standardizer(n_mels)
        patch = self.FRAMES * n_mels
        self.stem = nn.Conv1d(patch, channels, 1)
        self.encoder = nn.Sequential(
            *(ResidualBlock(channels, dilation=d) for d in DILATIONS[:encoder_depth])
        )
        self.project = nn.Linear(2 * channels, style_dim)
        self.condition = nn.Sequential(nn.Linear(2 * (style_dim + n_mels), style_dim), nn.GELU())
        self.equalized = nn.Conv1d(patch, channels, 1)
        dilations = [DILATIONS[i % len(DILATIONS)] for i in range(decoder_depth)]
        over_time = conditioning == "adain"
        self.blocks = nn.ModuleList(
            FiLMBlock(channels, style_dim, dilation=d, over_time=over_time) for d in dilations
        )
        self.attention = nn.ModuleList(
            CrossAttention(channels, heads) for _ in dilations if conditioning == "attention"
        )
        self.norm = ChannelNorm(channels)
        self.head = nn.Conv1d(channels, patch, 1)
        nn.init.zeros_(self.head.weight)  # starts as the static equaliser
        nn.init.zeros_(self.head.bias)

    def _patches(self, x: Tensor) -> Tensor:
        """(B, n_mels, T) -> (B, 2 n_mels, ceil(T / 2)); if T is odd, the last frame is repeated."""
        x = nn.functional.pad(x, (0, x.shape[2] % self.FRAMES), mode="replicate")
        return x.unflatten(2, (-1, self.FRAMES)).transpose(2, 3).flatten(1, 2)

    def _frames(self, patches: Tensor) -> Tensor:
        """Inverse of `_patches`: (B, 2 n_mels, N) -> (B, n_mels, 2 N)."""
        return patches.unflatten(1, (self.n_mels, self.FRAMES)).transpose(2, 3).flatten(2)

    def _encode(self, x: Tensor) -> Tensor:
        return self.encoder(self.stem(self._patches(x)))

    def encode_style(self, log_mel: Tensor) -> StyleCode:
        """Style of a log-mel in dB (B, n_mels, T) at -20 dBFS."""
        x = self.standardize(log_mel.clamp_min(FLOOR_DB))
        tokens = self._encode(x)
        pooled = self.project(mean_and_std(tokens))
        return StyleCode(torch.cat([pooled, x.mean(dim=2)], dim=1), tokens)

    def gain(
        self,
        content: Tensor,
        style: StyleCode,
        own_style: StyleCode,
        *,
        calibration: float = 0.0,
    ) -> Tensor:
        """Gain for a piece of content, given the style codes of both clips.

        Parameters
        ----------
        content : torch.Tensor [shape=(B, n_mels, T)]
            Log-mel in dB at -20 dBFS.
        style : StyleCode
            Of the style clip.
        own_style : StyleCode
            Of the clip that the content is taken from.
        calibration : float
            0 to 1: the share of the gain towards `own_style` that is subtracted. That gain should be
            zero; what the network predicts instead is an error.

        Returns
        -------
        torch.Tensor [shape=(B, n_mels, T)]
            In dB.
        """
        x = self.standardize(content.clamp_min(FLOOR_DB))
        encoded = self._encode(x)
        gain = self._decode(x, encoded, style, own_style)
        if not calibration:
            return gain
        return gain - calibration * self._decode(x, encoded, own_style, own_style)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Log-mel of the result, (B, n_mels, T), of those of content and style (B, n_mels, S)."""
        content = content.clamp_min(FLOOR_DB)
        own = self.encode_style(content)
        x = self.standardize(content)
        return content + self._decode(x, own.tokens, self.encode_style(style), own)

    def _decode(self, x: Tensor, encoded: Tensor, style: StyleCode, own: StyleCode) -> Tensor:
        equalizer = (style.vector - own.vector)[:, -self.n_mels :, None]  # in standard deviations
        condition = self.condition(torch.cat([style.vector, own.vector], dim=1))
        y = encoded + self.equalized(self._patches(x + equalizer))
        for i, block in enumerate(self.blocks):
            if self.attention:
                y = self.attention[i](y, style.tokens)
            y = block(y, condition)
        predicted = self._frames(self.head(self.norm(y)))[:, :, : x.shape[2]].float()
        if self.output == "log_mel":
            return self.standardize.inverse(predicted) - self.standardize.inverse(x)
        return self.GAIN_SCALE * predicted + equalizer * self.standardize.std[:, None]


class LatentTransfer(nn.Module):
    """Decoder of a frozen VAE's content latent and a frozen CNN's style vector to a log-mel.

    Parameters
    ----------
    vae : ConvVAE
        Trained; its encoder gives the content latent.
    style_encoder : CNNStylePredictor
        Trained; its encoder gives the style vector.
    channels : int
        Width of the decoder.
    depth : int
        Number of its blocks.
    """

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
        """Mean of the content latent, (B, latent_channels, T'), of a log-mel in dB (B, n_mels, T)."""
        return self.vae.encode(log_mel)[0]

    def encode_style(self, log_mel: Tensor) -> Tensor:
        """Style vector (B, style_dim) of a log-mel in dB (B, n_mels, T)."""
        return self.style_encoder.encode(log_mel)

    def decode(self, latent: Tensor, style: Tensor, n_frames: int) -> Tensor:
        """Log-mel in dB (B, n_mels, n_frames) of a latent (B, latent_channels, T') and a style vector."""
        x = self.decoder(self.expand(latent), style)[:, :, :n_frames]
        return self.vae.standardize.inverse(x)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return self.decode(self.encode_content(content), self.encode_style(style), content.shape[2])


def floored_difference(predicted: Tensor, target: Tensor) -> Tensor:
    """Difference of two log-mels in dB (B, n_mels, T), where values below `FLOOR_DB` count as the floor.

    Where the target lies above the floor the prediction is not clamped, so that it keeps its gradient.
    """
    below = target <= FLOOR_DB
    return torch.where(below, (predicted - FLOOR_DB).clamp_min(0.0), predicted - target)


def log_spectral_loss(difference: Tensor) -> Tensor:
    """Mean of two log-spectral distances, in dB, of a difference of log-mels in dB (B, n_mels, T).

    One is the root mean square over time, averaged over bands, the other the root mean square over bands,
    averaged over time. Unlike L1, whose optimum is the median, a root mean square has its optimum at the
    mean: for a band that is mostly silent the median would be silence.
    """
    square = difference.square()
    over_time = (square.mean(dim=2) + 1e-3).sqrt().mean()
    over_bands = (square.mean(dim=1) + 1e-3).sqrt().mean()
    return 0.5 * (over_time + over_bands)
