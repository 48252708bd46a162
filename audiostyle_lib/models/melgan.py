"""MelGAN (Kumar et al., NeurIPS 2019) and Multi-band MelGAN (Yang et al., SLT 2021). Notebook 08."""

from __future__ import annotations

from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.2  # of the leaky ReLUs


class ResidualUnit(nn.Module):
    """Dilated convolution and a pointwise one beside a pointwise shortcut, (B, C, T) -> (B, C, T)."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.ReflectionPad1d(dilation),
            weight_norm(nn.Conv1d(channels, channels, 3, dilation=dilation)),
            nn.LeakyReLU(SLOPE),
            weight_norm(nn.Conv1d(channels, channels, 1)),
        )
        self.shortcut = weight_norm(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.block(x)


class MelGAN(nn.Module):
    """Log-mel in dB (B, n_mels, T) to waveforms (B, out_channels, T * prod(scales)) in -1..1.

    Parameters
    ----------
    channels : of the first layer; halved by every upsampling
    scales : upsampling factors
    units : residual units after each, of dilation 1, 3, 9, ...
    out_channels : 1, or the number of sub-bands

    Notes
    -----
    4.27 M parameters as published: 80 bands, 512 channels, 8 x 8 x 2 x 2, 3 units.
    """

    CENTRE_DB, SCALE_DB = -30.0, 20.0  # of a log-mel, so that the network's input is about 1

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 512,
        scales: tuple[int, ...] = (8, 8, 4, 2),
        units: int = 3,
        out_channels: int = 1,
    ):
        super().__init__()
        self.scales, self.units = tuple(scales), units
        layers = [nn.ReflectionPad1d(3), weight_norm(nn.Conv1d(n_mels, channels, 7))]
        for scale in scales:
            up = nn.ConvTranspose1d(
                channels, channels // 2, 2 * scale, stride=scale, padding=scale // 2 + scale % 2,
                output_padding=scale % 2,
            )  # fmt: skip
            channels //= 2
            layers += [nn.LeakyReLU(SLOPE), weight_norm(up)]
            layers += [ResidualUnit(channels, 3**i) for i in range(units)]
        layers += [nn.LeakyReLU(SLOPE), nn.ReflectionPad1d(3)]
        layers += [weight_norm(nn.Conv1d(channels, out_channels, 7)), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    @property
    def receptive_field(self) -> int:
        """In frames: how many of them can change a sample, at most."""
        return max(len(self._frames_heard(i)) for i in range(prod(self.scales)))

    def _frames_heard(self, sample: int) -> range:
        low, high = sample - 3, sample + 3
        for scale in reversed(self.scales):
            reach = sum(3**i for i in range(self.units))
            offset = scale // 2 + scale % 2  # a sample hears two of the coarser ones
            low, high = (low - reach + offset - scale) // scale, (high + reach + offset) // scale
        return range(low - 3, high + 4)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return self.layers((log_mel_db - self.CENTRE_DB) / self.SCALE_DB)


class PQMF(nn.Module):
    """Pseudo-quadrature mirror filters: a waveform (B, 1, n) as `bands` sub-bands (B, bands, n / bands).

    Cosine-modulated Kaiser-windowed sinc (Nguyen, IEEE TSP 42(1), 1994). Taps, cutoff (in units of the
    Nyquist frequency) and beta as in Multi-band MelGAN; there and back, away from the ends, leaves an
    error of -64 dB.
    """

    def __init__(self, bands: int = 4, *, taps: int = 62, cutoff: float = 0.142, beta: float = 9.0):
        super().__init__()
        from scipy.signal import firwin

        self.bands, self.taps = bands, taps
        prototype = firwin(taps + 1, cutoff, window=("kaiser", beta))
        k, n = np.arange(bands)[:, None], np.arange(taps + 1) - taps / 2
        angle = (2 * k + 1) * np.pi / (2 * bands) * n + (-1.0) ** k * np.pi / 4
        filters = 2 * prototype * np.cos(angle)
        self.register_buffer("filters", torch.tensor(filters[:, None]).float())

    def analysis(self, waveform: Tensor) -> Tensor:
        """(B, 1, n) -> (B, bands, n / bands); n must be a multiple of `bands`."""
        return nn.functional.conv1d(
            waveform, self.filters, stride=self.bands, padding=self.taps // 2
        )

    def synthesis(self, sub_bands: Tensor) -> Tensor:
        """(B, bands, m) -> (B, 1, m * bands): the transpose, for the bank is nearly orthogonal."""
        return nn.functional.conv_transpose1d(
            sub_bands, self.bands * self.filters, stride=self.bands, padding=self.taps // 2,
            output_padding=self.bands - 1,
        )  # fmt: skip


class MultiBandMelGAN(nn.Module):
    """Log-mel in dB (B, n_mels, T) to a waveform by way of four sub-bands.

    2.53 M parameters as published: 80 bands, 384 channels, 8 x 4 x 2, 4 units.
    """

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 384,
        scales: tuple[int, ...] = (8, 8, 2),
        units: int = 4,
    ):
        super().__init__()
        self.pqmf = PQMF()
        self.generator = MelGAN(
            n_mels=n_mels, channels=channels, scales=scales, units=units,
            out_channels=self.pqmf.bands,
        )  # fmt: skip

    @property
    def hop_length(self) -> int:
        """Samples a frame."""
        return prod(self.generator.scales) * self.pqmf.bands

    def sub_bands(self, log_mel_db: Tensor) -> Tensor:
        """(B, 4, T * hop_length / 4)."""
        return self.generator(log_mel_db)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return self.pqmf.synthesis(self.sub_bands(log_mel_db))
