"""The judges of the benchmark: networks that hear genres and compare timbres.

`GenreNet` hears genres, and two distances are computed from its features. `TimbreNet` compares timbres.
`training.judges` trains both, on tracks and instruments that no item of the benchmark comes from.

Used by ``notebooks/07_recombination.ipynb`` and ``notebooks/09_evaluation.ipynb``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..config import AudioConfig
from ..corpora import GENRES
from ..models import checkpoint
from ..models.judge import GenreNet, TimbreNet
from ..paths import PRETRAINED
from ..signal import features
from . import peers

GENRE_MODEL = PRETRAINED / "judge_genre.safetensors"
TIMBRE_MODELS = {
    False: PRETRAINED / "judge_timbre.safetensors",
    True: PRETRAINED / "judge_timbre_centred.safetensors",
}


@dataclass(frozen=True)
class Judges:
    """The networks that judge an output, in evaluation mode.

    Parameters
    ----------
    genre : GenreNet
        Scores of `corpora.GENRES`.
    timbre, timbre_centred : TimbreNet
        On cepstra as they are, and without their mean over time.
    """

    genre: GenreNet
    timbre: TimbreNet
    timbre_centred: TimbreNet

    @torch.inference_mode()
    def genre_heard(self, waveform: np.ndarray, config: AudioConfig) -> str:
        """Genre with the highest score.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
        config : AudioConfig

        Returns
        -------
        str
            One of `corpora.GENRES`.
        """
        return GENRES[int(self.genre(self._log_mel(waveform, config)).argmax())]

    @torch.inference_mode()
    def timbre_distance(
        self, a: np.ndarray, b: np.ndarray, config: AudioConfig, *, centred: bool = False
    ) -> float:
        """1 - cosine of the timbre embeddings of waveforms (lower).

        Parameters
        ----------
        a, b : np.ndarray [shape=(n_samples,)]
        config : AudioConfig
        centred : bool
            Whether to take cepstra without their mean over time, which is all that a static equaliser
            changes.

        Returns
        -------
        float
            From 0 to 2.
        """
        net = self.timbre_centred if centred else self.timbre
        first, second = (
            timbre_input(self._log_mel(x, config), config, centred=centred) for x in (a, b)
        )
        return float(net.distance(first, second))

    @torch.inference_mode()
    def gram_distance(self, a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
        """Distance of Gram matrices of the genre network's features, as a share of `b`'s norm (lower).

        Mean over stages of ||G_a - G_b|| / ||G_b||. G holds the products of channels, mean over time and
        frequency (Gatys, Ecker & Bethge, CVPR 2016): what sounds together, not when.

        Parameters
        ----------
        a, b : np.ndarray [shape=(n_samples,)]
        config : AudioConfig

        Returns
        -------
        float
        """
        shares = []
        for x, y in zip(*self._stages(a, b, config), strict=True):
            gram_a, gram_b = (peers.gram_matrix(z[0].flatten(1)) for z in (x, y))
            shares.append(float((gram_a - gram_b).norm() / gram_b.norm()))
        return float(np.mean(shares))

    @torch.inference_mode()
    def perceptual_distance(self, a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
        """Learned perceptual distance, built as LPIPS is, of clips that play the same score (lower).

        Squared difference of the genre network's features, each position's channels of unit length;
        mean over positions, mean over stages (Zhang et al., CVPR 2018, without their tuned weights).

        Parameters
        ----------
        a, b : np.ndarray [shape=(n_samples,)]
        config : AudioConfig

        Returns
        -------
        float
        """
        n = min(len(a), len(b))
        distances = []
        for x, y in zip(*self._stages(a[:n], b[:n], config), strict=True):
            difference = _unit(x) - _unit(y)
            distances.append(float(difference.square().sum(dim=1).mean()))
        return float(np.mean(distances))

    def _stages(self, a: np.ndarray, b: np.ndarray, config: AudioConfig):
        """The genre network's features of both clips, a list of stages each."""
        return [self.genre.stage_outputs(self._log_mel(x, config)) for x in (a, b)]

    def _log_mel(self, waveform: np.ndarray, config: AudioConfig) -> Tensor:
        """What the networks hear, (1, n_mels, T), on their device."""
        return features.log_mel_at_level(
            waveform, config, device=str(self.genre.head.weight.device)
        )


def _unit(stage: Tensor) -> Tensor:
    """Features (B, C, F, T) with channels of unit length at every position."""
    return stage / stage.norm(dim=1, keepdim=True).clamp_min(1e-6)


def timbre_input(log_mel: Tensor, config: AudioConfig, *, centred: bool) -> Tensor:
    """What a `TimbreNet` hears: MFCC 1 to 12 in units of 10.

    Parameters
    ----------
    log_mel : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    config : AudioConfig
    centred : bool
        Whether to subtract each coefficient's mean over time.

    Returns
    -------
    torch.Tensor [shape=(B, 12, T)]
    """
    cepstra = features.mfcc(log_mel, config)[:, 1:13] / 10
    return cepstra - cepstra.mean(dim=2, keepdim=True) if centred else cepstra


@torch.inference_mode()
def accuracy(net: GenreNet, log_mels: Tensor, labels: Tensor) -> float:
    """Share of clips, each as a whole, whose genre the judge hears.

    Parameters
    ----------
    net : GenreNet
    log_mels : torch.Tensor [shape=(N, n_mels, T)]
        In dB, of clips at -20 dBFS.
    labels : torch.Tensor [shape=(N,)]
        Indices into `corpora.GENRES`.

    Returns
    -------
    float
    """
    device = net.head.weight.device
    heard = [int(net(x[None].float().to(device)).argmax()) for x in log_mels]
    return float((torch.tensor(heard) == labels).float().mean())


@lru_cache(maxsize=2)
def load(config: AudioConfig, device: str = "cpu") -> Judges:
    """The pretrained judges.

    Parameters
    ----------
    config : AudioConfig
        Must be the front end that they were trained with.
    device : str

    Returns
    -------
    Judges

    Raises
    ------
    ConfigMismatchError
        For another front end.
    """
    settings = {"config": config, "device": device}
    return Judges(
        checkpoint.load_model(GENRE_MODEL, build=GenreNet, **settings),
        *(
            checkpoint.load_model(TIMBRE_MODELS[c], build=TimbreNet, **settings)
            for c in (False, True)
        ),
    )
