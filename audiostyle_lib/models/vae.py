"""Convolutional variational autoencoder of the log-mel, whose latent is a sequence over time.

Trained in ``notebooks/05_content_vae.ipynb``; its latent is the content in ``07_recombination.ipynb``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..signal.features import Standardizer
from ..signal.pca import PatchPCA, join_patches, split_patches
from .blocks import LinearPath


class FrameConv(nn.Module):
    """Convolution of width 3 over the frames of (B, T, C_in), zero-padded: (B, T, C_out).

    Computed as one matrix product over three shifted copies, which on a CPU is nearly twice as fast as
    `torch.nn.Conv1d` for the few frames of a latent.
    """

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.linear = nn.Linear(3 * c_in, c_out)

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, 1, 1))
        return self.linear(torch.cat([padded[:, :-2], x, padded[:, 2:]], dim=2))


class FrameBlock(nn.Module):
    """x + linear(gelu(conv(norm(x)))), (B, T, C) -> (B, T, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.conv = FrameConv(channels, channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(nn.functional.gelu(self.conv(self.norm(x))))


def _ending_in_zeros(*layers: nn.Module) -> nn.Sequential:
    for parameter in layers[-1].parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(*layers)


class ConvVAE(nn.Module):
    """Convolutional encoder and decoder over time (report II.B.3), each beside a fixed linear path.

    The first layer reads patches of `patch` frames without overlap, and the convolutions run at this
    lower rate, which saves time. The layers next to the latent join patches to latent frames. The last
    layer of each convolutional path starts at zero: after `start_from_pca` the untrained model equals
    the PCA of its latent frames. Without that call the linear paths stay zero.

    Parameters
    ----------
    n_mels : int
        Bands of the log-mel.
    channels : int
        Width of the convolutions.
    latent_channels : int
        Numbers per latent frame, thus ``latent_channels / 2**n_down`` numbers per frame.
    n_down : int
        A latent frame spans ``2**n_down`` frames.
    patch : int
        Frames that the first layer reads at a time, at most ``2**n_down``.
    blocks : int
        Residual blocks in the encoder and in the decoder.
    """

    def __init__(
        self,
        *,
        n_mels: int = 128,
        channels: int = 256,
        latent_channels: int = 128,
        n_down: int = 5,
        patch: int = 16,
        blocks: int = 2,
    ):
        super().__init__()
        self.stride, self.latent_channels = 2**n_down, latent_channels
        self.patch = min(patch, self.stride)
        joined = self.stride // self.patch * channels  # all patches of a latent frame
        self.standardize = Standardizer(n_mels)
        self.linear = LinearPath(n_mels * self.stride, latent_channels)
        self.encoder = _ending_in_zeros(
            nn.Linear(n_mels * self.patch, channels),
            *(FrameBlock(channels) for _ in range(blocks)),
            nn.LayerNorm(channels),
            nn.Unflatten(1, (-1, self.stride // self.patch)),
            nn.Flatten(2),
            FrameConv(joined, 2 * latent_channels),
        )
        self.decoder = _ending_in_zeros(
            FrameConv(latent_channels, joined),
            nn.Unflatten(2, (-1, channels)),
            nn.Flatten(1, 2),
            *(FrameBlock(channels) for _ in range(blocks)),
            nn.LayerNorm(channels),
            nn.Linear(channels, n_mels * self.patch),
        )

    @torch.no_grad()
    def start_from_pca(self, pca: PatchPCA, *, noise_variance: float) -> None:
        """Set the linear path to a PCA of standardised patches.

        The log-variances become log(noise_variance / eigenvalue). This is probabilistic PCA (Tipping &
        Bishop, 1999), the optimum of a VAE without convolutions.

        Parameters
        ----------
        pca : PatchPCA
            Of patches as long as a latent frame.
        noise_variance : float
            Of what the latent leaves unexplained, in standardised units.

        Raises
        ------
        ValueError
            If `pca` was fitted on patches of another length.
        """
        if pca.n_frames != self.stride:
            raise ValueError(f"PCA of {pca.n_frames} frames for patches of {self.stride} frames")
        self.linear.set_to(pca)
        variances = pca.variances[: self.latent_channels]
        log_var = self.encoder[-1].linear.bias[self.latent_channels :]
        log_var[: len(variances)] = torch.log(noise_variance / variances)

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, latent_channels, ceil(T / stride)), of (B, n_mels, T) dB."""
        x = self.standardize(log_mel)
        x = nn.functional.pad(x, (0, -x.shape[2] % self.stride), mode="replicate")
        correction, log_var = (
            self.encoder(split_patches(x, self.patch)).transpose(1, 2).chunk(2, dim=1)
        )
        linear = self.linear.encode(split_patches(x, self.stride)).transpose(1, 2)
        return linear + correction, log_var.clamp(-12.0, 6.0)

    def decode(self, latent: Tensor, n_frames: int) -> Tensor:
        """Log-mel in dB, (B, n_mels, n_frames), of a latent (B, latent_channels, T')."""
        z = latent.transpose(1, 2)
        x = join_patches(self.linear.decode(z), self.stride)
        x = x + join_patches(self.decoder(z), self.patch)
        return self.standardize.inverse(x[:, :, :n_frames])

    def refine(self, log_mel: Tensor, *, steps: int) -> Tensor:
        """Search for a better latent with Adam, beginning at the encoder's; the decoder stays as it is.

        Parameters
        ----------
        log_mel : torch.Tensor [shape=(B, n_mels, T)]
            In dB.
        steps : int
            Of Adam, on the squared error relative to the power of the item.

        Returns
        -------
        torch.Tensor [shape=(B, latent_channels, T')]

        References
        ----------
        Kim et al., "Semi-amortized variational autoencoders," ICML 2018.
        """
        x = self.standardize(log_mel)
        power = x.square().sum(dim=(1, 2)).clamp_min(1e-3)
        with torch.no_grad():
            z = self.encode(log_mel)[0]
        z = z.requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=0.05)
        for _ in range(steps):
            error = (self.standardize(self.decode(z, x.shape[2])) - x).square().sum(dim=(1, 2))
            z.grad = torch.autograd.grad((error / power).sum(), z)[0]
            optimizer.step()
        return z.detach()

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, n_mels, T), mean and log-variance; samples the latent when training."""
        mean, log_var = self.encode(log_mel)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        latent = mean + (0.5 * log_var).exp() * noise
        return self.decode(latent, log_mel.shape[2]), mean, log_var


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent number, in nats (Kingma & Welling, 2014).

    0.5 (mean^2 + exp(log_var) - 1 - log_var), in the shape of `mean`; zero only at the prior.
    """
    return 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var)


def elbo_loss(
    model: nn.Module, log_mel: Tensor, *, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negative evidence lower bound: relative squared error + beta * KL / (n_mels * T).

    Parameters
    ----------
    model : nn.Module
        A `ConvVAE` or another model with its `forward` and `standardize`.
    log_mel : torch.Tensor [shape=(B, n_mels, T)]
        Segments in dB.
    beta : float
        Weight of the KL divergence.

    Returns
    -------
    loss : torch.Tensor [shape=()]
        Mean over the batch.
    parts : dict of str to torch.Tensor [shape=()]
        ``error`` and ``kl`` (nats per latent number).

    Notes
    -----
    Each segment's error is divided by its power, both standardised, so that all segments count equally.
    """
    rebuilt, mean, log_var = model(log_mel)
    target = model.standardize(log_mel)
    square = (model.standardize(rebuilt) - target).square().mean(dim=(1, 2))
    error = (square / target.square().mean(dim=(1, 2)).clamp_min(1e-3)).mean()
    kl = kl_divergence(mean, log_var)
    return error + beta * kl.sum() / log_mel.numel(), {"error": error, "kl": kl.mean()}
