"""A vocoder that predicts the frames of an STFT, after Vocos (Siuzdak, ICLR 2024).

The original also predicts phases (``predict_phase=True``). The pretrained network predicts magnitudes
only, and heap integration finds the phases: equal frames of a held tone need phases that advance from
frame to frame, which a convolutional network cannot know. Compared in ``notebooks/08_vocoding.ipynb``.
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
    """Log-mel in dB (B, n_mels, T) to magnitudes (B, F, T) or, with `predict_phase`, to a waveform.

    The network predicts a correction of `mel_inversion.starting_power`, in the same way as FreeV (Lv et
    al., Interspeech 2024) starts from the pseudo-inverse. A few multiplicative updates then restore the
    mel spectrogram of the input, so that an error can shift power within a band but not change its
    level.

    Parameters
    ----------
    config : AudioConfig
        The front end.
    channels : int
        Width of the network.
    hidden : int
        Width inside a block.
    blocks : int
        Number of blocks.
    predict_phase : bool
        Also predict the phase of each bin.
    """

    CENTRE_DB, SCALE_DB = -30.0, 20.0  # of a log-mel, so that the network's input is about 1
    MAX_CORRECTION = 12.0  # in nepers; prevents overflow
    MEL_UPDATES = 3

    def __init__(
        self,
        *,
        config: AudioConfig | None = None,
        channels: int = 256,
        hidden: int = 768,
        blocks: int = 7,
        predict_phase: bool = False,
    ):
        super().__init__()
        self.config = config or AudioConfig()
        self.predict_phase = predict_phase
        n_bins = self.config.n_fft // 2 + 1
        self.embed = nn.Conv1d(
            self.config.n_mels, channels, ConvNeXtBlock.KERNEL, padding=ConvNeXtBlock.KERNEL // 2
        )
        self.norm_in = nn.LayerNorm(channels)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(channels, hidden, layer_scale=1 / blocks) for _ in range(blocks)
        )
        self.norm_out = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, n_bins * (2 if predict_phase else 1))
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def receptive_field(self) -> int:
        """Frames of the log-mel that one frame of the output depends on."""
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
        """Magnitude spectrogram (B, F, T) of a log-mel in dB (B, n_mels, T)."""
        n_bins = self.config.n_fft // 2 + 1
        return self._magnitude(log_mel_db, self._head(log_mel_db)[:, :n_bins])

    def spectrum(self, log_mel_db: Tensor) -> Tensor:
        """Complex STFT (B, F, T) of a log-mel in dB (B, n_mels, T); needs `predict_phase`."""
        correction, phase = self._head(log_mel_db).chunk(2, dim=1)
        return torch.polar(self._magnitude(log_mel_db, correction), phase)

    def forward(self, log_mel_db: Tensor) -> Tensor:
        """Magnitudes (B, F, T) or, with `predict_phase`, a waveform (B, (T - 1) * hop_length)."""
        if not self.predict_phase:
            return self.magnitude(log_mel_db)
        n_samples = (log_mel_db.shape[2] - 1) * self.config.hop_length
        return features.istft(self.spectrum(log_mel_db), self.config, n_samples)
