"""Networks that judge transfers: the genre of a clip, and whether two clips share a timbre.

Used by the benchmark in ``notebooks/09_evaluation.ipynb``.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..signal.features import FLOOR_DB, Standardizer


class GenreNet(nn.Module):
    """Scores of the genres (B, n_genres) for log-mels in dB (B, n_mels, T), T at least 16.

    Four convolutions over time and frequency, each followed by halving both axes. Their outputs are also
    the features of the learned perceptual distance.

    Parameters
    ----------
    n_genres : int
        Number of classes.
    n_mels : int
        Bands of the log-mel.
    channels : int
        Of the first convolution.
    """

    def __init__(self, *, n_genres: int = 10, n_mels: int = 128, channels: int = 24):
        super().__init__()
        self.standardize = Standardizer(n_mels)
        widths = [1, channels, 2 * channels, 4 * channels, 4 * channels]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for n_in, n_out in pairwise(widths)
        )
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(2 * widths[-1], n_genres)

    def stage_outputs(self, log_mel: Tensor) -> list[Tensor]:
        """Activations of the stages, (B, C, n_mels / 2^k, T / 2^k) for k = 1 to 4."""
        x = self.standardize(log_mel.clamp_min(FLOOR_DB))[:, None]
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, log_mel: Tensor) -> Tensor:
        x = self.stage_outputs(log_mel)[-1].mean(dim=2)  # (B, C, T / 16)
        return self.head(self.dropout(torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1)))


class TimbreNet(nn.Module):
    """Embedding (B, 64) of MFCC 1 to 12 (B, 12, T); clips of one timbre get similar embeddings.

    The network of the timbre metric of Cifka et al. (ICASSP 2021): four convolutions over time with batch
    normalisation, ReLU and pooling, then the mean over time; 45 k parameters.

    Parameters
    ----------
    n_mfcc : int
        Coefficients of the input.
    channels : int
        Width, and length of the embedding.
    """

    SHORTEST = 4 * 4 * 4 * 2  # frames that the pooling needs

    def __init__(self, *, n_mfcc: int = 12, channels: int = 64):
        super().__init__()
        layers = []
        for n_in, width in zip((n_mfcc, channels, channels, channels), (4, 4, 4, 2), strict=True):
            layers += [
                nn.Conv1d(n_in, channels, width),
                nn.BatchNorm1d(channels),
                nn.ReLU(),
                nn.MaxPool1d(width),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, mfcc: Tensor) -> Tensor:
        repeats = -(-self.SHORTEST // mfcc.shape[2])
        x = mfcc.repeat(1, 1, repeats)
        for layer in self.layers:
            if isinstance(layer, nn.Conv1d):  # as padding="same" does, without its warning
                (width,) = layer.kernel_size
                x = nn.functional.pad(x, ((width - 1) // 2, width // 2))
            x = layer(x)
        return x.mean(dim=2)

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """1 - cosine of the embeddings of MFCC (B, 12, T), (B,); 0 for clips of one timbre."""
        return 1 - nn.functional.cosine_similarity(self(a), self(b), dim=1)


def triplet_hinge_loss(
    net: TimbreNet, anchor: Tensor, positive: Tensor, negative: Tensor
) -> Tensor:
    """Mean of max(0, 0.1 + cos(anchor, negative) - cos(anchor, positive)) of embeddings.

    Parameters
    ----------
    net : TimbreNet
        Makes the embeddings.
    anchor, positive, negative : torch.Tensor [shape=(B, 12, T)]
        MFCC 1 to 12; `positive` shares the anchor's timbre, `negative` does not.

    Returns
    -------
    torch.Tensor [shape=()]
    """
    return (0.1 + net.distance(anchor, positive) - net.distance(anchor, negative)).relu().mean()
