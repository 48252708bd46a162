"""Training data and training of content autoencoders: crops of whole tracks, mixed at random.

The same for every model of notebooks 05 and 10, so that only the models differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from . import features, metrics, training
from .config import AudioConfig
from .models.vae import elbo_loss

N_FRAMES = 128  # of a crop and of a segment: 2.97 s
LEVEL_DB = 10.0  # standard deviation of the relative level of a mixed-in crop
WARM_UP = 0.2  # of the epochs, in which beta grows from zero


def track_log_mels(waveforms: Tensor, valid: list[int], config: AudioConfig) -> list[Tensor]:
    """Log-mel in dB (n_mels, T) of each clip of (n_tracks, n_samples), without its padding."""
    return [
        features.log_mel(w[None, :n], config)[0]
        for w, n in zip(waveforms, valid, strict=True)
        if n // config.hop_length >= N_FRAMES
    ]


def random_crops(
    log_mels: list[Tensor],
    *,
    batch_size: int,
    n_batches: int,
    seed: int,
    mixed: float = 0.5,
    device: str = "cpu",
) -> Callable[[int], Iterable[Tensor]]:
    """Batches (B, n_mels, 128) of crops at random places of random tracks.

    Parameters
    ----------
    log_mels : (n_mels, T) in dB, each at least 128 frames
    mixed : share of the crops to which another crop is added, in power, at a random level: a
        mixture is again something like music, with a spectrum that no track has

    Returns
    -------
    epoch -> generator of `n_batches` batches, the same for the same epoch and seed
    """
    lengths = torch.tensor([x.shape[1] for x in log_mels])
    first = torch.cumsum(lengths, 0) - lengths
    frames = torch.cat([x.T for x in log_mels]).to(
        device
    )  # (all frames, n_mels): rows are gathered

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(n_batches):
            track = torch.multinomial(
                lengths.float(), batch_size, replacement=True, generator=generator
            )
            spare = lengths[track] - N_FRAMES + 1
            start = first[track] + (torch.rand(batch_size, generator=generator) * spare).long()
            rows = (start[:, None] + torch.arange(N_FRAMES)).to(device)
            yield mix(frames[rows].transpose(1, 2), share=mixed, generator=generator)

    return batches


def mix(log_mel: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Add to a `share` of the crops (B, n_mels, T) in dB another one of the batch, in power."""
    n = len(log_mel)
    partner = log_mel[torch.randperm(n, generator=generator).to(log_mel.device)]
    level = LEVEL_DB * torch.randn(n, 1, 1, generator=generator).to(log_mel.device)
    both = 10 * torch.log10(10 ** (log_mel / 10) + 10 ** ((partner + level) / 10))
    chosen = torch.rand(n, 1, 1, generator=generator) < share
    return torch.where(chosen.to(log_mel.device), both, log_mel)


@torch.no_grad()
def reconstruct(model: nn.Module, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction (N, n_mels, T) in dB, mean and log-variance of the latent, in pieces."""
    parts = [model(x) for x in log_mel.split(64)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def fit(
    model: nn.Module,
    *,
    path,
    log_mels: list[Tensor],
    probes: dict[str, Tensor],
    epochs: int,
    steps_per_epoch: int,
    config: AudioConfig,
    recipe: dict,
    seed: int,
    device: str,
    beta: float = 0.02,
    batch_size: int = 16,
    mixed: float = 0.5,
    lr: float = 1e-3,
    label: str = "content",
    provenance: dict | None = None,
) -> dict[str, list[float]]:
    """Train a content autoencoder on crops of `log_mels`; `training.fit` explains what is not here.

    Parameters
    ----------
    model : log-mel (B, n_mels, T) -> (reconstruction, mean, log-variance), with a `standardize`
    steps_per_epoch : batches of crops; drawn at random, so an epoch has no natural length
    probes : name -> segments (N, n_mels, T); their cosines after each epoch become curves
    beta : weight of the KL, reached linearly after the first fifth of the epochs

    Returns
    -------
    dict of lists: as `training.fit`, with ``<probe> cosine``
    """
    crops = random_crops(
        log_mels, batch_size=batch_size, n_batches=steps_per_epoch, seed=seed, mixed=mixed,
        device=device,
    )  # fmt: skip

    def batches(epoch: int):
        weight = beta * min(1.0, (epoch + 1) / (1 + WARM_UP * epochs))
        return ((x, weight) for x in crops(epoch))

    def evaluate(model: nn.Module) -> dict[str, float]:
        rebuilt = {name: reconstruct(model, x)[0] for name, x in probes.items()}
        return {
            f"{name} cosine": metrics.cosine_similarity(
                model.standardize(rebuilt[name]), model.standardize(x)
            )
            for name, x in probes.items()
        }

    recipe = {**recipe, "beta": beta, "batch": batch_size, "mixed": mixed}
    recipe["frames"] = sum(x.shape[1] for x in log_mels)
    return training.fit(
        model, step=lambda m, batch: elbo_loss(m, batch[0], beta=batch[1]), batches=batches,
        steps_per_epoch=steps_per_epoch, epochs=epochs, path=path, recipe=recipe, config=config,
        seed=seed, device=device, lr=lr, evaluate=evaluate, label=label, provenance=provenance,
    )  # fmt: skip
