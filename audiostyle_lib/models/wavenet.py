"""A small WaveNet (van den Oord et al., 2016) conditioned on a log-mel.

``notebooks/08_vocoding.ipynb`` shows with it what it costs to generate one sample after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio.functional import mu_law_decoding, mu_law_encoding


class GatedLayer(nn.Module):
    """Causal convolution of kernel 2 with a gate, residual and skip output."""

    def __init__(self, channels: int, skip: int, n_mels: int, dilation: int):
        super().__init__()
        self.dilation = dilation
        self.now = nn.Conv1d(channels, 2 * channels, 1)
        self.before = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.condition = nn.Conv1d(n_mels, 2 * channels, 1, bias=False)
        self.residual = nn.Conv1d(channels, channels, 1)
        self.skip = nn.Conv1d(channels, skip, 1)

    def mix(self, now: Tensor, before: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Residual and skip output, of inputs (B, C, n) now and `dilation` samples before."""
        both = self.now(now) + self.before(before) + condition
        value, gate = both.chunk(2, dim=1)
        x = torch.tanh(value) * torch.sigmoid(gate)
        return now + self.residual(x), self.skip(x)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        before = nn.functional.pad(x, (self.dilation, 0))[:, :, : x.shape[2]]
        return self.mix(x, before, condition)


class WaveNet(nn.Module):
    """Probabilities of the next sample's mu-law levels, given the samples before it and a log-mel.

    Parameters
    ----------
    n_mels : int
        Bands of the log-mel.
    hop_length : int
        Samples of the waveform for each frame of the log-mel.
    channels, skip : int
        Widths of the residual and of the skip connections.
    stacks, layers : int
        Dilations 1, 2, 4, ... 2 ** (layers - 1), repeated `stacks` times.
    classes : int
        Number of mu-law levels.
    """

    CENTRE_DB, SCALE_DB = -30.0, 20.0

    def __init__(
        self,
        *,
        n_mels: int = 128,
        hop_length: int = 512,
        channels: int = 48,
        skip: int = 96,
        stacks: int = 2,
        layers: int = 9,
        classes: int = 256,
    ):
        super().__init__()
        self.hop_length, self.classes = hop_length, classes
        self.embed = nn.Conv1d(1, channels, 1)
        self.layers = nn.ModuleList(
            GatedLayer(channels, skip, n_mels, 2**i) for _ in range(stacks) for i in range(layers)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, classes, 1)
        )

    def _conditions(self, log_mel_db: Tensor) -> list[Tensor]:
        """What the log-mel adds to each layer, (B, 2 C, T), at the frame rate."""
        x = (log_mel_db - self.CENTRE_DB) / self.SCALE_DB
        return [layer.condition(x) for layer in self.layers]

    def forward(self, waveform: Tensor, log_mel_db: Tensor) -> Tensor:
        """Scores of the levels of all samples at once, for training.

        Parameters
        ----------
        waveform : torch.Tensor [shape=(B, n_samples)]
            In -1..1.
        log_mel_db : torch.Tensor [shape=(B, n_mels, T)]
            In dB; frame t conditions the samples from t * hop_length on.

        Returns
        -------
        torch.Tensor [shape=(B, classes, n_samples)]
            Logits of each sample, computed from the samples before it.
        """
        n = waveform.shape[1]
        heard = mu_law_decoding(mu_law_encoding(waveform, self.classes), self.classes)
        previous = nn.functional.pad(heard, (1, 0))[:, :-1]
        x, total = self.embed(previous[:, None]), 0.0
        for layer, condition in zip(self.layers, self._conditions(log_mel_db), strict=True):
            held = condition.repeat_interleave(self.hop_length, dim=2)[:, :, :n]
            x, skip = layer(x, held)
            total = total + skip
        return self.head(total)

    @torch.no_grad()
    def generate(
        self, log_mel_db: Tensor, n_samples: int, *, seed: int = 0, progress=None
    ) -> Tensor:
        """Draw a waveform sample by sample.

        Parameters
        ----------
        log_mel_db : torch.Tensor [shape=(1, n_mels, T)]
            In dB.
        n_samples : int
            Length of the waveform.
        seed : int
            Of the draws.
        progress : callable
            Called about a hundred times, with the number of samples done and `n_samples`.

        Returns
        -------
        torch.Tensor [shape=(n_samples,)]

        Notes
        -----
        Each layer keeps its last outputs, so a sample takes one step of each layer, not a pass over all
        samples before it.
        """
        generator = torch.Generator().manual_seed(seed)
        conditions = self._conditions(log_mel_db)
        channels = self.embed.out_channels
        kept = [log_mel_db.new_zeros(1, channels, layer.dilation) for layer in self.layers]
        waveform = torch.zeros(n_samples)
        sample = torch.zeros(1, 1, 1, device=log_mel_db.device)
        for i in range(n_samples):
            x, total, frame = self.embed(sample), 0.0, i // self.hop_length
            for layer, condition, queue in zip(self.layers, conditions, kept, strict=True):
                slot = i % layer.dilation
                before = queue[:, :, slot : slot + 1].clone()
                queue[:, :, slot] = x[:, :, 0]
                x, skip = layer.mix(x, before, condition[:, :, frame : frame + 1])
                total = total + skip
            probability = self.head(total)[0, :, 0].softmax(dim=0).cpu()
            level = torch.multinomial(probability, 1, generator=generator)
            sample = mu_law_decoding(level, self.classes).to(log_mel_db.device).reshape(1, 1, 1)
            waveform[i] = sample.item()
            if progress is not None and (i + 1) % max(1, n_samples // 100) == 0:
                progress(i + 1, n_samples)
        return waveform
