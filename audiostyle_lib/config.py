"""The one mel front end and the profiles (how much work a run does). Used by every notebook."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace

from .errors import InputError


@dataclass(frozen=True)
class AudioConfig:
    """Front end shared by all models and vocoders: librosa's mel spectrogram, centred, zero-padded.

    It is stored in every checkpoint and compared when one is loaded, because a model and a vocoder
    that disagree about it still run and only sound wrong.
    """

    sample_rate: int = 22_050  # Hz
    n_fft: int = 2048  # samples; also the length of the periodic Hann window
    hop_length: int = 512  # samples
    n_mels: int = 128  # slaney scale, slaney norm, 0 Hz to Nyquist
    n_mfcc: int = 20
    amin: float = 1e-10  # floor of the mel power before the logarithm

    @property
    def frames_per_second(self) -> float:
        return self.sample_rate / self.hop_length

    def n_frames(self, n_samples: int) -> int:
        """Number of frames of a centred STFT of `n_samples` samples."""
        return 1 + n_samples // self.hop_length

    def to_dict(self) -> dict:
        return asdict(self)


class ConfigMismatchError(InputError):
    """Two parts of the pipeline were built for different front ends."""


def require_same_front_end(ours: AudioConfig, theirs: AudioConfig | dict, *, what: str) -> None:
    """Raise `ConfigMismatchError` naming every field in which the front ends differ."""
    theirs = theirs if isinstance(theirs, dict) else theirs.to_dict()
    ours = ours.to_dict()
    different = [k for k in ours if ours[k] != theirs.get(k)]
    if different:
        fields = ", ".join(f"{k} {theirs.get(k)} instead of {ours[k]}" for k in different)
        raise ConfigMismatchError(f"{what} was made for another front end: {fields}")


@dataclass(frozen=True)
class Profile:
    """How much work a run does. Orthogonal to the corpus: the code path is the same for all."""

    name: str
    clips_per_genre: int  # at most; `bands` renders exactly this many
    clip_seconds: float  # s; longer clips are cut, shorter ones padded
    epochs: int  # of the autoencoders
    steps_per_epoch: int  # of the content autoencoders
    augmented_clips: int  # augmented copies, spread over the training clips
    baseline_epochs: int  # of the ResNet and linear baselines
    transfer_groups: int  # 4 x 4 groups of paired renderings for the recombination
    transfer_steps: int  # optimisation steps of the recombination
    transfer_channels: int  # its width; the pretrained one has 320
    test_groups: int  # held-out groups of paired renderings
    vocoder_steps: int  # of each vocoder that notebook 08 trains
    judge_steps: int  # of the genre judge of another corpus than bands
    peer_items: int  # that the slow peers of the benchmark get, of each tier
    peer_iterations: int  # of their L-BFGS
    griffin_lim_iterations: int = 32
    all_ablations: bool = False  # or only those that say something after short trainings
    seeds: int = 1  # trainings of a model whose figure is compared with the report's


# fmt: off
PROFILES = {
    p.name: p
    for p in (
        Profile("smoke", 4, 8.0, 2, 3, 10, 1, 2, 6, 32, 1, 2, 2, 1, 2, griffin_lim_iterations=4),
        Profile("quick", 20, 30.0, 16, 150, 100, 12, 48, 300, 128, 6, 24, 600, 1, 10),
        Profile(
            "long", 200, 30.0, 20, 600, 250, 24, 48, 600, 128, 6, 600, 2000, 6, 100,
            all_ablations=True, seeds=3,
        ),
        Profile("paper", 100, 30.0, 16, 160, 250, 20, 300, 1200, 320, 10, 400, 600, 12, 100, seeds=3),
    )
}
# fmt: on


def profile(name: str) -> Profile:
    """Return the profile called `name`; raise `InputError` naming the choices otherwise."""
    if name not in PROFILES:
        raise InputError(f"unknown profile {name!r}: choose one of {', '.join(PROFILES)}")
    steps = rehearsed_steps()
    if not steps:
        return PROFILES[name]
    iterations = min(steps, PROFILES[name].peer_iterations)
    return replace(PROFILES[name], peer_iterations=iterations)


def rehearsed_steps() -> int:
    """Most steps of anything that is fitted in a rehearsal (``AUDIOSTYLE_REHEARSE``); 0 if it is none."""
    steps = os.environ.get("AUDIOSTYLE_REHEARSE") or "0"
    if not steps.isdecimal():
        raise InputError(f"AUDIOSTYLE_REHEARSE is {steps!r}, wanted a number of steps")
    return int(steps)


def choose_device(device: str = "auto") -> str:
    """A device that is there: ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    InputError
        If `device` is neither ``auto`` nor ``cpu`` nor a CUDA device of this machine (``cuda``,
        ``cuda:1``); says which there are.
    """
    if device == "cpu":
        return device
    kind, colon, index = device.partition(":")
    known = device == "auto" or (kind == "cuda" and index.isdecimal() == bool(colon))
    n_devices = _cuda_devices() if known else 0  # torch takes seconds to import
    if device == "auto":
        return "cuda" if n_devices else "cpu"
    if not known:
        raise InputError(f"no device {device!r}: choose auto, cpu, cuda or cuda:N")
    if int(index or 0) >= n_devices:
        there = ", ".join(["auto", "cpu", *(f"cuda:{k}" for k in range(n_devices))])
        raise InputError(f"no device {device!r} here: there are {there}")
    return device


def _cuda_devices() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def set_deterministic(seed: int) -> None:
    """Seed numpy and torch and ask for deterministic kernels, so that a re-run gives the same digits."""
    import random

    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
