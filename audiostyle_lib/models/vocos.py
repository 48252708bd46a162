"""A vocoder that predicts an STFT frame by frame, after Vocos (Siuzdak, ICLR 2024). Notebook 08.

With a learned phase it is Vocos. Without, it gives magnitudes only and heap integration finds the
phases: a network that sees no sample position cannot let the phase of a held tone advance.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..signal import features, mel_inversion


class ConvNeXtBlock(nn.Module):
    """x + gamma * MLP(norm(depthwise conv(x))), (B, C, T) -> (B, C, T) (Liu et al., CVPR 2022)."""

    KERNEL = 7

    def __init__(self, channels: int, hidden: int, *, layer_scale: float):
        super().__init__()
        self.depthwise = nn.Conv1d(
            channels, channels, self.KERNEL, padding=self.KERNEL // 2, groups=channels
        )
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).transpose(1, 2))
        y = self.gamma * self.project(nn.functional.gelu(self.expand(y)))
        return x + y.transpose(1, 2)


class Vocos(nn.Module):
    """Log-mel in dB (B, n_mels, T) to magnitudes (B, F, T) and, with `learned_phase`, a waveform.

    The network corrects the log-magnitude of a mel inversion without updates (as FreeV, Lv et al.,
    Interspeech 2024, starts from the pseudo-inverse). A few multiplicative updates then give the result
    the mel spectrogram that went in, so that a mistake costs a bin's share of its band, not the level.

    Parameters
    ----------
    channels : width
    hidden : width inside a block
    blocks : number of blocks
    learned_phase : give a phase for every bin, too
    """

    CENTRE_DB, SCALE_DB = -30.0, 20.0  # of a log-mel, so that the network's input is about 1
    MAX_CORRECTION = 12.0  # in nepers; only against overflow
    MEL_UPDATES = 3

    def __init__(
        self,
        *,
        config: AudioConfig | None = None,
        channels: int = 256,
        hidden: int = 768,
        blocks: int = 7,
        learned_phase: bool = False,
    ):
        super().__init__()
        self.config = config or AudioConfig()
        self.learned_phase = learned_phase
        n_bins = self.config.n_fft // 2 + 1
        self.embed = nn.Conv1d(
            self.config.n_mels, channels, ConvNeXtBlock.KERNEL, padding=ConvNeXtBlock.KERNEL // 2
        )
        self.norm_in = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, hidden, layer_scale=1 / blocks) for _ in range(blocks)
        )
        self.norm_out = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, n_bins * (2 if learned_phase else 1))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def receptive_field(self) -> int:
        """In frames."""
        return 1 + (1 + len(self.blocks)) * (ConvNeXtBlock.KERNEL - 1)

    def _head(self, log_mel_db: Tensor) -> Tensor:
        x = self.embed((log_mel_db - self.CENTRE_DB) / self.SCALE_DB)
        x = self.norm_in(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm_out(x.transpose(1, 2))).transpose(1, 2)

    def _magnitude(self, log_mel_db: Tensor, correction: Tensor) -> Tensor:
        correction = correction.clamp(-self.MAX_CORRECTION, self.MAX_CORRECTION)
        power = mel_inversion.starting_power(log_mel_db, self.config) * (2 * correction).exp()
        mel = 10 ** (log_mel_db / 10)
        power = mel_inversion.towards_mel(power, mel, self.config, steps=self.MEL_UPDATES)
        return power.clamp_min(self.config.amin).sqrt()

    def magnitude(self, log_mel_db: Tensor) -> Tensor:
        """Magnitude spectrogram (B, F, T)."""
        n_bins = self.config.n_fft // 2 + 1
        return self._magnitude(log_mel_db, self._head(log_mel_db)[:, :n_bins])

    def spectrum(self, log_mel_db: Tensor) -> Tensor:
        """Complex STFT (B, F, T); only with a learned phase."""
        correction, phase = self._head(log_mel_db).chunk(2, dim=1)
        return torch.polar(self._magnitude(log_mel_db, correction), phase)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        """Magnitudes (B, F, T) or, with a learned phase, a waveform (B, (T - 1) * hop_length)."""
        if not self.learned_phase:
            return self.magnitude(log_mel_db)
        n_samples = (log_mel_db.shape[2] - 1) * self.config.hop_length
        return features.istft(self.spectrum(log_mel_db), self.config, n_samples)
