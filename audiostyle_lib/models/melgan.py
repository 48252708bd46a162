"""MelGAN (Kumar et al., NeurIPS 2019) and Multi-band MelGAN (Yang et al., SLT 2021).

Trained and heard in ``notebooks/08_vocoding.ipynb``.
"""

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
    n_mels : int
        Bands of the log-mel.
    channels : int
        Of the first layer; each upsampling halves them.
    scales : tuple of int
        Upsampling factors.
    units : int
        Residual units after each upsampling, with dilations 1, 3, 9, ...
    out_channels : int
        1, or the number of sub-bands.

    Notes
    -----
    The published network has 80 bands, 512 channels, factors 8, 8, 2, 2, three units and 4.27 M
    parameters.
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
        self.scales = tuple(scales)
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

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return self.layers((log_mel_db - self.CENTRE_DB) / self.SCALE_DB)


class PQMF(nn.Module):
    """Pseudo-quadrature mirror filters: split a waveform into four sub-bands, and join them again.

    The filters are a Kaiser-windowed sinc, modulated by cosines (Nguyen, IEEE TSP 42(1), 1994), with the
    constants of Multi-band MelGAN. Splitting and joining leaves an error of -64 dB, except at the ends.
    """

    BANDS, TAPS, BETA = 4, 62, 9.0
    CUTOFF = 0.142  # in units of the Nyquist frequency

    def __init__(self):
        super().__init__()
        from scipy.signal import firwin

        prototype = firwin(self.TAPS + 1, self.CUTOFF, window=("kaiser", self.BETA))
        k, n = np.arange(self.BANDS)[:, None], np.arange(self.TAPS + 1) - self.TAPS / 2
        angle = (2 * k + 1) * np.pi / (2 * self.BANDS) * n + (-1.0) ** k * np.pi / 4
        filters = 2 * prototype * np.cos(angle)
        self.register_buffer("filters", torch.tensor(filters[:, None]).float())

    def analysis(self, waveform: Tensor) -> Tensor:
        """Sub-bands (B, 4, n / 4) of a waveform (B, 1, n); n must be a multiple of 4."""
        return nn.functional.conv1d(
            waveform, self.filters, stride=self.BANDS, padding=self.TAPS // 2
        )

    def synthesis(self, sub_bands: Tensor) -> Tensor:
        """Waveform (B, 1, 4 m) of sub-bands (B, 4, m): the transpose inverts a nearly orthogonal bank."""
        return nn.functional.conv_transpose1d(
            sub_bands, self.BANDS * self.filters, stride=self.BANDS, padding=self.TAPS // 2,
            output_padding=self.BANDS - 1,
        )  # fmt: skip


class MultiBandMelGAN(nn.Module):
    """Log-mel in dB (B, n_mels, T) to a waveform (B, 1, T * hop_length) by way of four sub-bands.

    Parameters as of `MelGAN`. The published network has 80 bands, 384 channels, factors 8, 4, 2, four
    units and 2.53 M parameters.
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
            out_channels=PQMF.BANDS,
        )  # fmt: skip

    @property
    def hop_length(self) -> int:
        """Samples of the waveform for each frame of the log-mel."""
        return prod(self.generator.scales) * PQMF.BANDS

    def sub_bands(self, log_mel_db: Tensor) -> Tensor:
        """(B, 4, T * hop_length / 4)."""
        return self.generator(log_mel_db)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        return self.pqmf.synthesis(self.sub_bands(log_mel_db))
