"""Discriminators of adversarial training, and their losses.

A discriminator returns, for each of its parts, the scores and the outputs of the layers before them.
Those of waveforms are used by ``notebooks/08_vocoding.ipynb``: their layers are the published ones,
their widths can be reduced for a CPU. The one of log-mels is used by
``notebooks/07_recombination.ipynb``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.2
Judged = tuple[Tensor, list[Tensor]]  # scores, outputs of the layers before


def _judge(layers: nn.ModuleList, x: Tensor) -> Judged:
    outputs = []
    for layer in layers[:-1]:
        x = nn.functional.leaky_relu(layer(x), SLOPE)
        outputs.append(x)
    return layers[-1](x), outputs


class MultiScaleDiscriminator(nn.Module):
    """Judges the waveform (B, 1, n) at three rates, each half the one before (MelGAN).

    Parameters
    ----------
    scales : int
        Number of rates.
    width : int
        Channels of the first layer.
    most : int
        Limit of the channels, which grow fourfold with each layer.
    """

    def __init__(self, *, scales: int = 3, width: int = 16, most: int = 1024):
        super().__init__()
        self.scales = nn.ModuleList(self._scale(width, most) for _ in range(scales))
        self.halve = nn.AvgPool1d(4, stride=2, padding=1, count_include_pad=False)

    @staticmethod
    def _scale(width: int, most: int) -> nn.ModuleList:
        first = nn.Conv1d(1, width, 15, padding=7, padding_mode="reflect")
        layers = [weight_norm(first)]
        for _ in range(4):
            wider = min(most, 4 * width)
            strided = nn.Conv1d(width, wider, 41, stride=4, padding=20, groups=width // 4)
            layers.append(weight_norm(strided))
            width = wider
        layers.append(weight_norm(nn.Conv1d(width, width, 5, padding=2)))
        layers.append(weight_norm(nn.Conv1d(width, 1, 3, padding=1)))
        return nn.ModuleList(layers)

    def forward(self, waveform: Tensor) -> list[Judged]:
        judged = []
        for layers in self.scales:
            judged.append(_judge(layers, waveform))
            waveform = self.halve(waveform)
        return judged


class MultiResolutionDiscriminator(nn.Module):
    """Judges magnitude spectrograms of the waveform (B, 1, n) at three resolutions.

    As in UnivNet (Jang et al., Interspeech 2021); `width` is the number of channels.
    """

    RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window

    def __init__(self, *, width: int = 32):
        super().__init__()
        self.resolutions = nn.ModuleList(self._layers(width) for _ in self.RESOLUTIONS)

    @staticmethod
    def _layers(width: int) -> nn.ModuleList:
        def conv(inside: int, outside: int, kernel: tuple, stride: int = 1) -> nn.Module:
            padding = (kernel[0] // 2, kernel[1] // 2)
            return weight_norm(nn.Conv2d(inside, outside, kernel, (1, stride), padding))

        layers = [conv(1, width, (3, 9))]
        layers += [conv(width, width, (3, 9), 2) for _ in range(3)]
        return nn.ModuleList([*layers, conv(width, width, (3, 3)), conv(width, 1, (3, 3))])

    def forward(self, waveform: Tensor) -> list[Judged]:
        judged = []
        for (n_fft, hop, length), layers in zip(self.RESOLUTIONS, self.resolutions, strict=True):
            window = torch.hann_window(length, device=waveform.device)
            spectrum = torch.stft(
                waveform[:, 0], n_fft, hop, length, window, return_complex=True, pad_mode="constant"
            )
            judged.append(_judge(layers, spectrum.abs()[:, None]))
        return judged


class MultiPeriodDiscriminator(nn.Module):
    """Judges the waveform (B, 1, n) folded into images, with one period of some length in each row.

    As in HiFi-GAN (Kong et al., NeurIPS 2020), which has width 32 and 41 M parameters.
    """

    PERIODS = (2, 3, 5, 7, 11)

    def __init__(self, *, width: int = 32):
        super().__init__()
        self.periods = nn.ModuleList(self._layers(width) for _ in self.PERIODS)

    @staticmethod
    def _layers(width: int) -> nn.ModuleList:
        widths = [1, width, 4 * width, 16 * width, 32 * width]
        layers = [
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0)))
            for a, b in pairwise(widths)
        ]
        layers.append(weight_norm(nn.Conv2d(widths[-1], widths[-1], (5, 1), padding=(2, 0))))
        layers.append(weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))))
        return nn.ModuleList(layers)

    def forward(self, waveform: Tensor) -> list[Judged]:
        judged = []
        for period, layers in zip(self.PERIODS, self.periods, strict=True):
            padded = nn.functional.pad(waveform, (0, -waveform.shape[2] % period), mode="reflect")
            rows = padded.unflatten(2, (-1, period))
            judged.append(_judge(layers, rows))
        return judged


class Discriminators(nn.Module):
    """Several discriminators of the same waveform, used as one."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, waveform: Tensor) -> list[Judged]:
        return [judged for part in self.parts for judged in part(waveform)]


class SpectrogramDiscriminator(nn.Module):
    """Judges whether patches of a log-mel fit the content and the style clip.

    Strided convolutions (PatchGAN: Isola et al., CVPR 2017) over three channels: the standardised
    log-mel, the content's and the style clip's mean over time. `width` is the number of channels of the
    first layer.
    """

    def __init__(self, *, width: int = 32):
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 4 * width]
        layers = [weight_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList([*layers, weight_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))])

    def forward(self, log_mel: Tensor, content: Tensor, style: Tensor) -> list[Judged]:
        """Judge `log_mel` (B, n_mels, T), given `content` (B, n_mels, T) and `style` (B, n_mels, S)."""
        average = style.mean(dim=2, keepdim=True).expand_as(log_mel)
        return [_judge(self.layers, torch.stack([log_mel, content, average], dim=1))]


def discriminator_loss(real: list[Judged], fake: list[Judged]) -> Tensor:
    """Hinge loss of the discriminators, (): zero if they score real above 1 and fake below -1."""
    losses = [
        (1 - r).relu().mean() + (1 + f).relu().mean()
        for (r, _), (f, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(fake: list[Judged]) -> Tensor:
    """Minus the mean score of the generator's output, averaged over the discriminators: ()."""
    return -torch.stack([scores.mean() for scores, _ in fake]).mean()


def feature_matching_loss(real: list[Judged], fake: list[Judged]) -> Tensor:
    """L1 distance between the inner layers' outputs for real and fake, averaged over the layers: ()."""
    pairs = [
        (a.detach(), b)
        for (_, of_real), (_, of_fake) in zip(real, fake, strict=True)
        for a, b in zip(of_real, of_fake, strict=True)
    ]
    return torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()
