"""Training of content autoencoders: crops of whole tracks, varied at random, the loss and its probes.

The same for every model of ``notebooks/05_content_vae.ipynb`` and ``notebooks/10_future_work.ipynb``, so
that only the models differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..evaluation import metrics
from ..models.vae import elbo_loss
from ..signal import augment, features
from ..signal.pca import PatchPCA, fit_pca
from . import loop
from .batches import crops, epoch_generator, random_equalizer

N_FRAMES = 128  # of a crop and of a segment: 2.97 s
BATCH_SIZE = 16  # crops
LEVEL_DB = 10.0  # standard deviation of the relative level of a mixed-in crop
EQ_DB, EQ_POINTS = 3.0, 10  # standard deviation and number of the points of a random equaliser
MAX_SHIFT = 3  # mel bands
WARM_UP = 0.2  # of the epochs, in which beta grows from zero


def track_log_mels(
    waveforms: Tensor, valid: list[int], config: AudioConfig, *, device: str = "cpu"
) -> list[Tensor]:
    """Log-mels of whole clips without their padding.

    Parameters
    ----------
    waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
    valid : list of int
        Samples of each clip before its padding; clips shorter than a crop are left out.
    config : AudioConfig
    device : str
        Where the log-mels are computed and stay.

    Returns
    -------
    list of torch.Tensor [shape=(n_mels, T)]
        In dB.
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
    """Log-mels of training clips and of augmented copies.

    Parameters
    ----------
    waveforms, valid
        As `corpora.load_waveforms` returns them.
    config : AudioConfig
    augmented_clips : int
        Number of copies.
    seed : int
        Of the augmentation.
    device : str

    Returns
    -------
    of_clips, of_copies : list of torch.Tensor [shape=(n_mels, T)]
        In dB.
    """
    copies = augment.augmented_copies(
        waveforms, valid, config=config, count=augmented_clips, seed=seed
    )
    return (
        track_log_mels(waveforms, valid, config, device=device),
        track_log_mels(*copies, config, device=device),
    )


def some_of(x: Tensor, n: int) -> Tensor:
    """`n` items of `x` (N, ...) drawn at random, always the same ones.

    A fixed stride would not do: every tenth segment can be the first of its track, and first segments
    are easier.
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
    """PCA of standardised patches of whole tracks.

    Parameters
    ----------
    log_mels : list of torch.Tensor [shape=(n_mels, T)]
        In dB.
    standardize : torch.nn.Module
        Log-mels in dB -> standardised ones.
    n_frames : int
        Of a patch.
    n_components : int
    at_most : int
        Patches overlap by three quarters, so that few tracks give many; where that would give more than
        about this many, they overlap less.

    Returns
    -------
    PatchPCA
    """
    total = sum(x.shape[1] for x in log_mels)
    hop = max(n_frames // 4, total // at_most)
    unfolded = [x.unfold(1, n_frames, hop).transpose(0, 1) for x in log_mels]
    patches = standardize(torch.cat(unfolded))  # (N, n_mels, n_frames)
    return fit_pca(patches, n_frames=n_frames, n_components=n_components)


def variation(crops_per_track: float) -> float:
    """How much to vary crops, 0 to 1, if that many are drawn from each training track.

    A rule of thumb from trainings on 54 to 1400 tracks: a model that sees the same track thousands of
    times learns it by heart unless the crops are varied; one that does not learns more slowly by it.
    """
    return min(1.0, crops_per_track / 10_000)


def random_crops(
    log_mels: list[Tensor], *, batch_size: int, n_batches: int, seed: int, varied: float
) -> Callable[[int], Iterator[Tensor]]:
    """Crops of 128 frames at random places of random tracks.

    Parameters
    ----------
    log_mels : list of torch.Tensor [shape=(n_mels, T)]
        In dB, each of at least 128 frames.
    batch_size : int
    n_batches : int
        Of an epoch.
    seed : int
    varied : float
        0 leaves the crops as they are; towards 1 they become something like music that no track is:
        mixed (`mix`), moved (`shift_bands`) and equalised. See `variation`.

    Returns
    -------
    Callable
        epoch -> iterator over batches (torch.Tensor [shape=(B, n_mels, 128)]), the same for the same
        epoch and seed.
    """
    lengths = torch.tensor([x.shape[1] for x in log_mels])

    def batches(epoch: int):
        generator = epoch_generator(seed, epoch)
        for _ in range(n_batches):
            track = torch.multinomial(
                lengths.float(), batch_size, replacement=True, generator=generator
            )
            spare = lengths[track] - N_FRAMES + 1
            start = (torch.rand(batch_size, generator=generator) * spare).long()
            x = crops(log_mels, track, start, N_FRAMES)
            # frames outermost in memory: sums then round as in the stored reference runs
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
            yield vary(x, varied, generator=generator) if varied else x

    return batches


def vary(log_mel: Tensor, amount: float, *, generator: torch.Generator) -> Tensor:
    """Mix, move and equalise a batch (B, n_mels, T) in dB by an `amount` of 0 to 1."""
    x = mix(log_mel, share=0.5 * amount, generator=generator)
    x = shift_bands(x, round(MAX_SHIFT * amount), generator=generator)
    gain = random_equalizer(*x.shape[:2], generator, db=EQ_DB * amount, points=EQ_POINTS)
    return torch.maximum(x + gain.to(x.device), x.amin(dim=(1, 2), keepdim=True))


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


@torch.no_grad()
def reconstruct(model: nn.Module, log_mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rebuild segments, 64 at a time.

    Parameters
    ----------
    model : torch.nn.Module
        As for `fit`.
    log_mel : torch.Tensor [shape=(N, n_mels, T)]
        In dB.

    Returns
    -------
    reconstruction : torch.Tensor [shape=(N, n_mels, T)]
        In dB.
    mean, log_variance : torch.Tensor [shape=(N, latent_channels, T')]
        Of the latent.
    """
    parts = [model(x) for x in log_mel.split(64)]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def fit(
    model: nn.Module,
    *,
    path: Path,
    log_mels: list[Tensor],
    probes: dict[str, Tensor],
    steps: int,
    steps_per_epoch: int,
    config: AudioConfig,
    arguments: dict,
    data: dict,
    seed: int,
    device: str,
    varied: float,
    beta: float = 0.02,
    batch_size: int = BATCH_SIZE,
    lr: float = 2e-3,
    label: str = "content",
    provenance: dict | None = None,
) -> dict[str, list[float]]:
    """Train a content autoencoder on crops of `log_mels`.

    Parameters
    ----------
    model : torch.nn.Module
        Log-mel (B, n_mels, T) -> (reconstruction, mean, log-variance), with a `standardize`.
    path, steps, config, arguments, data, seed, device, lr, label, provenance
        As in `loop.fit`.
    log_mels : list of torch.Tensor [shape=(n_mels, T)]
        In dB, on `device`, each of at least 128 frames.
    probes : dict of str to torch.Tensor [shape=(N, n_mels, T)]
        Segments; their cosines after each epoch become curves.
    steps_per_epoch : int
        Any number, since batches are drawn at random; the curves have a value an epoch.
    varied : float
        How much the crops are varied, 0 to 1; see `random_crops` and `variation`.
    beta : float
        Weight of the KL divergence, reached linearly in the first fifth of the epochs.
    batch_size : int

    Returns
    -------
    dict of str to list of float
        As `loop.fit`, with ``<probe> cosine``.
    """
    drawn = random_crops(
        log_mels, batch_size=batch_size, n_batches=steps_per_epoch, seed=seed, varied=varied
    )
    warm_up = WARM_UP * -(-steps // steps_per_epoch)  # epochs

    def batches(epoch: int):
        weight = torch.tensor(beta * min(1.0, (epoch + 1) / (1 + warm_up)), device=device)
        return ((x, weight) for x in drawn(epoch))

    def evaluate(model: nn.Module) -> dict[str, float]:
        cosine = {}
        for name, x in probes.items():
            pair = (model.standardize(v) for v in (reconstruct(model, x)[0], x))
            cosine[f"{name} cosine"] = metrics.cosine_similarity(*pair)
        return cosine

    return loop.fit(
        model, step=lambda m, batch: elbo_loss(m, batch[0], beta=batch[1]), batches=batches,
        steps=steps, steps_per_epoch=steps_per_epoch, path=path, arguments=arguments,
        data=data | {"beta": beta, "batch_size": batch_size, "varied": varied}, config=config,
        seed=seed, device=device, lr=lr, evaluate=evaluate, label=label, provenance=provenance,
        cuda_graph=True,
    )  # fmt: skip
