"""The two style encoders of the report: linear on features (II.B.4) and CNN on the log-mel (III.B).

Notebook 06 trains and compares them; notebook 07 conditions the recombination on the second.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..features import Standardizer
from .blocks import ResidualBlock, mean_and_std


class LinearStyleAutoencoder(nn.Module):
    """Linear layers in, bottleneck, linear layers out, on standardised style features (B, F, ...)."""

    def __init__(self, *, n_features: int, bottleneck: int, hidden: int = 256):
        super().__init__()
        self.standardize = Standardizer(n_features)
        self.encoder = nn.Sequential(
            nn.Linear(n_features, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.decoder = nn.Sequential(
            nn.Linear(bottleneck, hidden), nn.GELU(), nn.Linear(hidden, n_features)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction of the *standardised* features (N, F) and the code (N, bottleneck)."""
        code = self.encoder(self.standardize(features))
        return self.decoder(code), code


class CNNStyleEncoder(nn.Module):
    """Style vector (B, dim) of a standardised log-mel (B, n_mels, T) of any length.

    Convolutions with stride in time, then mean and standard deviation over time: what sounds, how
    often and how evenly, but not when.
    """

    def __init__(self, *, n_mels: int = 128, channels: int = 256, dim: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(n_mels, channels, 4, stride=2, padding=1),
            ResidualBlock(channels),
            nn.Conv1d(channels, channels, 4, stride=2, padding=1),
            ResidualBlock(channels),
            ResidualBlock(channels, dilation=2),
        )
        self.project = nn.Linear(2 * channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(mean_and_std(self.layers(x)))


class CNNStylePredictor(nn.Module):
    """CNN style encoder with a linear read-out of the style features of *another* crop of the track.

    Predicting its own crop's features would let the encoder keep the notes; another crop shares
    only what lasts.
    """

    def __init__(self, *, n_features: int, n_mels: int = 128, channels: int = 192, dim: int = 128):
        super().__init__()
        self.standardize = Standardizer(n_mels)
        self.standardize_features = Standardizer(n_features)
        self.encoder = CNNStyleEncoder(n_mels=n_mels, channels=channels, dim=dim)
        self.head = nn.Linear(dim, n_features)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Style vector (B, dim) of a log-mel in dB (B, n_mels, T)."""
        return self.encoder(self.standardize(log_mel))

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted standardised features (B, F) and the style vector (B, dim)."""
        style = self.encode(log_mel)
        return self.head(style), style
