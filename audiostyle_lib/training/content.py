"""Training data and training of content autoencoders: crops of whole tracks, varied at random.

The same for every model of notebooks 05 and 10, so that only the models differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..evaluation import metrics
from ..models.vae import elbo_loss
from ..signal import augment, features
from ..signal.pca import PatchPCA, fit_pca
from . import loop

N_FRAMES = 128  # of a crop and of a segment: 2.97 s
BATCH_SIZE = 16  # crops
LEVEL_DB = 10.0  # standard deviation of the relative level of a mixed-in crop
EQ_DB, EQ_NODES = 3.0, 10  # standard deviation and number of the points of a random equaliser
MAX_SHIFT = 3  # mel bands
WARM_UP = 0.2  # of the epochs, in which beta grows from zero


def track_log_mels(
    waveforms: Tensor, valid: list[int], config: AudioConfig, *, device: str = "cpu"
) -> list[Tensor]:
    """Log-mel in dB (n_mels, T) of each clip of (n_tracks, n_samples), without its padding.

    Clips shorter than a crop are left out.
    """
    return [
        features.log_mel(w[None, :n].to(device), config)[0]
        for w, n in zip(waveforms, valid, strict=True)
        if n // config.hop_length >= N_FRAMES
    ]


def training_log_mels(
    waveforms: Tensor,
    valid: list[int],
    *,
    config: AudioConfig,
    augmented_clips: int,
    seed: int,
    device: str,
) -> tuple[list[Tensor], list[Tensor]]:
    """Log-mels of training clips, as `load_waveforms` gives them, and of augmented copies."""
    copies = augment.augmented_copies(
        waveforms, valid, config=config, count=augmented_clips, seed=seed
    )
    return (
        track_log_mels(waveforms, valid, config, device=device),
        track_log_mels(*copies, config, device=device),
    )


def some_of(x: Tensor, n: int) -> Tensor:
    """`n` items of `x` drawn at random, always the same ones.

    A fixed stride would not do: every tenth segment can be the first of its track, and first
    segments are easier.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:n].to(x.device)]


def pca_of_tracks(
    log_mels: list[Tensor],
    standardize: nn.Module,
    *,
    n_frames: int,
    n_components: int,
    at_most: int = 40_000,
) -> PatchPCA:
    """PCA of standardised patches of whole tracks (n_mels, T) in dB.

    Patches overlap by up to three quarters, so that few tracks give many; of many tracks about
    `at_most` patches are taken.
    """
    total = sum(x.shape[1] for x in log_mels)
    hop = max(n_frames // 4, total // at_most)
    cut = [x.unfold(1, n_frames, hop).transpose(0, 1) for x in log_mels]  # (N, n_mels, n_frames)
    patches = standardize(torch.cat(cut))
    return fit_pca(patches, n_frames=n_frames, n_components=n_components)


def variation(crops_per_track: float) -> float:
    """How much to vary crops, 0 to 1, if so many are drawn from each training track.

    A rule of thumb from trials with 54 to 1400 tracks: a model that sees the same track thousands of
    times learns it by heart unless it is varied; one that does not only loses steps by it.
    """
    return min(1.0, crops_per_track / 10_000)


def random_crops(
    log_mels: list[Tensor],
    *,
    batch_size: int,
    n_batches: int,
    seed: int,
    varied: float,
    device: str = "cpu",
) -> Callable[[int], Iterable[Tensor]]:
    """Batches (B, n_mels, 128) of crops at random places of random tracks.

    Parameters
    ----------
    log_mels : (n_mels, T) in dB, each at least 128 frames
    varied : 1 makes of the crops something like music that no track is, with `mix`, `shift_bands`
        and `equalize`; 0 leaves them as they are. `variation` gives what pays

    Returns
    -------
    epoch -> generator of `n_batches` batches, the same for the same epoch and seed
    """
    lengths = torch.tensor([x.shape[1] for x in log_mels])
    first = torch.cumsum(lengths, 0) - lengths
    frames = torch.cat([x.T for x in log_mels]).to(device)  # (all frames, n_mels)

    def batches(epoch: int):
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        for _ in range(n_batches):
            track = torch.multinomial(
                lengths.float(), batch_size, replacement=True, generator=generator
            )
            spare = lengths[track] - N_FRAMES + 1
            start = first[track] + (torch.rand(batch_size, generator=generator) * spare).long()
            rows = (start[:, None] + torch.arange(N_FRAMES)).to(device)
            crops = frames[rows].transpose(1, 2)
            if varied:
                crops = mix(crops, share=0.5 * varied, generator=generator)
                crops = shift_bands(crops, round(MAX_SHIFT * varied), generator=generator)
                crops = equalize(crops, EQ_DB * varied, generator=generator)
            yield crops

    return batches


def mix(log_mel: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Add to a `share` of the crops (B, n_mels, T) in dB another one of the batch, in power."""
    n = len(log_mel)
    partner = log_mel[torch.randperm(n, generator=generator).to(log_mel.device)]
    level = LEVEL_DB * torch.randn(n, 1, 1, generator=generator).to(log_mel.device)
    both = 10 * torch.log10(10 ** (log_mel / 10) + 10 ** ((partner + level) / 10))
    chosen = torch.rand(n, 1, 1, generator=generator) < share
    return torch.where(chosen.to(log_mel.device), both, log_mel)


def shift_bands(log_mel: Tensor, most: int, *, generator: torch.Generator) -> Tensor:
    """Move a batch (B, n_mels, T) by up to `most` bands up or down, the edge band repeated."""
    shift = int(torch.randint(-most, most + 1, (1,), generator=generator))
    bands = torch.arange(log_mel.shape[1], device=log_mel.device) - shift
    return log_mel[:, bands.clamp(0, log_mel.shape[1] - 1)]


def equalize(log_mel: Tensor, db: float, *, generator: torch.Generator) -> Tensor:
    """Add to each crop of (B, n_mels, T) a random gain over the bands, piecewise linear, in dB."""
    nodes = db * torch.randn(len(log_mel), 1, EQ_NODES, generator=generator)
    gain = nn.functional.interpolate(
        nodes, size=log_mel.shape[1], mode="linear", align_corners=True
    )
    floor = log_mel.amin(dim=(1, 2), keepdim=True)
    return torch.maximum(log_mel + gain.transpose(1, 2).to(log_mel.device), floor)


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
    varied: float,
    beta: float = 0.02,
    batch_size: int = BATCH_SIZE,
    lr: float = 2e-3,
    label: str = "content",
    provenance: dict | None = None,
) -> dict[str, list[float]]:
    """Train a content autoencoder on crops of `log_mels`; `loop.fit` explains what is not here.

    Parameters
    ----------
    model : log-mel (B, n_mels, T) -> (reconstruction, mean, log-variance), with a `standardize`
    steps_per_epoch : batches of crops; drawn at random, so an epoch has no natural length
    probes : name -> segments (N, n_mels, T); their cosines after each epoch become curves
    varied : how much the crops are varied, 0 to 1; see `random_crops` and `variation`
    beta : weight of the KL, reached linearly after the first fifth of the epochs

    Returns
    -------
    dict of lists: as `loop.fit`, with ``<probe> cosine``
    """
    crops = random_crops(
        log_mels, batch_size=batch_size, n_batches=steps_per_epoch, seed=seed, varied=varied,
        device=device,
    )  # fmt: skip

    def batches(epoch: int):
        weight = beta * min(1.0, (epoch + 1) / (1 + WARM_UP * epochs))
        return ((x, weight) for x in crops(epoch))

    def evaluate(model: nn.Module) -> dict[str, float]:
        cosine = {}
        for name, x in probes.items():
            pair = (model.standardize(v) for v in (reconstruct(model, x)[0], x))
            cosine[f"{name} cosine"] = metrics.cosine_similarity(*pair)
        return cosine

    recipe = {**recipe, "beta": beta, "batch": batch_size, "varied": varied}
    recipe["frames"] = sum(x.shape[1] for x in log_mels)
    return loop.fit(
        model, step=lambda m, batch: elbo_loss(m, batch[0], beta=batch[1]), batches=batches,
        steps_per_epoch=steps_per_epoch, epochs=epochs, path=path, recipe=recipe, config=config,
        seed=seed, device=device, lr=lr, evaluate=evaluate, label=label, provenance=provenance,
    )  # fmt: skip
