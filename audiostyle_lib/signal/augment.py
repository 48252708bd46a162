"""The report's augmentations: pitch, tempo and noise. Measured in ``01_data``."""

from __future__ import annotations

import numpy as np

from ..config import AudioConfig

SEMITONES = 2.0
STRETCH = 0.2
SNR_DB = 20.0


def pitch_shift(waveform: np.ndarray, semitones: float, *, config: AudioConfig) -> np.ndarray:
    """`waveform` (n_samples,) moved by `semitones`; length kept (phase vocoder, then resampling)."""
    import librosa

    return librosa.effects.pitch_shift(waveform, sr=config.sample_rate, n_steps=semitones)


def time_stretch(waveform: np.ndarray, rate: float) -> np.ndarray:
    """`waveform` played `rate` times as fast at the same pitch: (round(n_samples / rate),)."""
    import librosa

    return librosa.effects.time_stretch(waveform, rate=rate)


def add_noise(waveform: np.ndarray, snr_db: float, *, rng: np.random.Generator) -> np.ndarray:
    """Add white Gaussian noise `snr_db` below the signal's mean power."""
    power = np.mean(waveform.astype(np.float64) ** 2)
    scale = np.sqrt(power * 10 ** (-snr_db / 10))
    return (waveform + scale * rng.standard_normal(len(waveform))).astype(np.float32)


def report_augmentations(
    waveform: np.ndarray, *, config: AudioConfig, rng: np.random.Generator, copies: int = 5
) -> list[np.ndarray]:
    """At most five augmented copies of a clip, each of the clip's length, in a random order.

    Pitch +-2 semitones, tempo +-20 % (cut or padded back to the clip's length), noise at 20 dB SNR.
    """
    made = _varied(waveform, config=config, rng=rng, copies=copies)
    return [_of_length(m, len(waveform)) for m in made]


def _of_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    cut = waveform[:n_samples]
    return np.pad(cut, (0, n_samples - len(cut))).astype(np.float32)


def _varied(waveform: np.ndarray, *, config: AudioConfig, rng, copies: int) -> list[np.ndarray]:
    """The copies before they are cut or padded."""
    kinds = {
        "pitch up": lambda: pitch_shift(waveform, SEMITONES, config=config),
        "pitch down": lambda: pitch_shift(waveform, -SEMITONES, config=config),
        "faster": lambda: time_stretch(waveform, 1 + STRETCH),
        "slower": lambda: time_stretch(waveform, 1 - STRETCH),
        "noise": lambda: add_noise(waveform, SNR_DB, rng=rng),
    }
    names = rng.permutation(list(kinds))[:copies]
    return [kinds[name]() for name in names]


def augmented_copies(waveforms, valid: list[int], *, config: AudioConfig, count: int, seed: int):
    """`count` augmented versions of the clips (n_tracks, n_samples) that `load_waveforms` gives.

    Spread evenly over the clips, at most five of each.

    Returns
    -------
    waveforms : torch.Tensor (<= count, n_samples)
    valid : list of int; a faster copy is shorter than its clip
    """
    import torch

    n_tracks, n_samples = waveforms.shape
    copies = [count // n_tracks + (index < count % n_tracks) for index in range(n_tracks)]
    made, lengths = [], []
    for index, n_valid in enumerate(valid):
        clip = waveforms[index, :n_valid].numpy()
        rng = np.random.default_rng([seed, index])
        for copy in _varied(clip, config=config, rng=rng, copies=min(5, copies[index])):
            made.append(_of_length(copy, n_samples))
            lengths.append(min(len(copy), n_samples))
    return torch.from_numpy(np.stack(made)), lengths
