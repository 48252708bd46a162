"""The two style encoders of the report: linear on features (II.B.4) and CNN on the log-mel (III.B).

``notebooks/06_style_encoder.ipynb`` trains and compares them; ``07_recombination.ipynb`` conditions the
recombination on the second.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..signal.features import Standardizer
from ..signal.pca import fit_pca
from .blocks import LinearPath, ResidualBlock, mean_and_std


class LinearStyleAutoencoder(nn.Module):
    """Encoder and decoder of standardised style features (N, F) with a bottleneck between them.

    Each of them is a fixed linear map plus a small network. After `start_from_pca` the maps are a PCA and
    the networks give zero, so that training starts from the PCA. Without that call the maps stay zero.

    Parameters
    ----------
    n_features : int
        F.
    bottleneck : int
        Numbers in the code.
    hidden : int
        Width of the networks.
    dropout : float
        Share of hidden units that are dropped in training.
    """

    def __init__(
        self, *, n_features: int, bottleneck: int, hidden: int = 512, dropout: float = 0.0
    ):
        super().__init__()
        self.standardize = Standardizer(n_features)
        self.linear = LinearPath(n_features, bottleneck)
        self.encoder = self._network(n_features, hidden, bottleneck, dropout)
        self.decoder = self._network(bottleneck, hidden, n_features, dropout)

    @staticmethod
    def _network(n_in: int, hidden: int, n_out: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(n_in, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, n_out)
        )

    @torch.no_grad()
    def start_from_pca(self, features: Tensor) -> None:
        """Set the linear maps to the PCA of `features` (N, F); `standardize` has to be fitted before."""
        x = self.standardize(features)[:, :, None]  # patches of one frame
        self.linear.set_to(fit_pca(x, n_frames=1, n_components=self.encoder[-1].out_features))
        for network in (self.encoder, self.decoder):
            nn.init.zeros_(network[-1].weight)
            nn.init.zeros_(network[-1].bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction of the *standardised* features (N, F) and the code (N, bottleneck)."""
        x = self.standardize(features)
        code = self.linear.encode(x) + self.encoder(x)
        return self.linear.decode(code) + self.decoder(code), code


class CNNStyleEncoder(nn.Module):
    """Style vector (B, dim) of a standardised log-mel (B, n_mels, T) of any length.

    Convolutions with strides in time, then the mean and standard deviation over time, which do not tell
    when something sounds; of the convolutions' output and of the log-mel itself.

    Parameters
    ----------
    n_mels : int
        Bands of the log-mel.
    channels : int
        Width of the convolutions.
    dim : int
        Length of the style vector.
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
        self.project = nn.Linear(2 * channels + 2 * n_mels, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(torch.cat([mean_and_std(self.layers(x)), mean_and_std(x)], dim=1))


class CNNStylePredictor(nn.Module):
    """CNN style encoder and a linear layer that predicts the style features of *another* crop of a track.

    Two crops of a track share their style, but not their notes, so the style vector need not keep notes.

    Parameters
    ----------
    n_features : int
        Style features to predict.
    n_mels, channels, dim : int
        As of `CNNStyleEncoder`.
    """

    def __init__(self, *, n_features: int, n_mels: int = 128, channels: int = 192, dim: int = 128):
        super().__init__()
        self.standardize = Standardizer(n_mels)
        self.standardize_features = Standardizer(n_features)
        self.encoder = CNNStyleEncoder(n_mels=n_mels, channels=channels, dim=dim)
        self.head = nn.Linear(dim, n_features)

    @torch.no_grad()
    def start_from_ridge(self, log_mel: Tensor, features: Tensor, *, penalty: float = 0.1) -> None:
        """Let the prediction be a ridge regression from the log-mel's mean and standard deviation.

        The weights that follow the convolutions become zero, so that training starts from that
        regression. Both standardizers have to be fitted before. The style vector holds the principal
        components of the predictions, turned at random, so that no entry stands out.

        Parameters
        ----------
        log_mel : torch.Tensor [shape=(N, n_mels, T)]
            In dB.
        features : torch.Tensor [shape=(N, n_features)]
            What has to be predicted from each, not standardised.
        penalty : float
            On the squared weights, relative to N.
        """
        pooled = mean_and_std(self.standardize(log_mel))
        a = torch.cat([pooled, torch.ones_like(pooled[:, :1])], dim=1)
        penalties = penalty * len(a) * torch.eye(a.shape[1]).to(a)
        ridge = torch.linalg.solve(a.T @ a + penalties, a.T @ self.standardize_features(features))
        dim = self.head.in_features
        pca = fit_pca((a @ ridge)[:, :, None], n_frames=1, n_components=dim)
        turned = torch.linalg.qr(torch.randn(dim, dim)).Q[: len(pca.components)]
        basis = pca.components.T @ turned.to(a)  # (n_features, dim)
        nn.init.zeros_(self.encoder.project.weight)
        self.encoder.project.weight[:, -pooled.shape[1] :] = (ridge[:-1] @ basis).T
        self.encoder.project.bias.copy_((ridge[-1] - pca.mean) @ basis)
        self.head.weight.copy_(basis)
        self.head.bias.copy_(pca.mean)

    def encode(self, log_mel: Tensor) -> Tensor:
        """Style vector (B, dim) of a log-mel in dB (B, n_mels, T)."""
        return self.encoder(self.standardize(log_mel))

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted standardised features (B, F) and style vector (B, dim) of a log-mel in dB."""
        style = self.encode(log_mel)
        return self.head(style), style
