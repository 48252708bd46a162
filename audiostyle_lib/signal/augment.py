"""The report's augmentations: pitch, tempo and noise. Measured in ``notebooks/01_data.ipynb``."""

from __future__ import annotations

import numpy as np

from ..config import AudioConfig

SEMITONES = 2.0  # up or down
STRETCH = 0.2  # 20 % faster or slower
SNR_DB = 20.0


def pitch_shift(waveform: np.ndarray, semitones: float, *, config: AudioConfig) -> np.ndarray:
    """`waveform` (n_samples,), at the config's sample rate, shifted by `semitones`; its length stays."""
    import librosa

    return librosa.effects.pitch_shift(waveform, sr=config.sample_rate, n_steps=semitones)


def time_stretch(waveform: np.ndarray, rate: float) -> np.ndarray:
    """`waveform` (n_samples,) played `rate` times as fast at the same pitch: (n_samples / rate,)."""
    import librosa

    return librosa.effects.time_stretch(waveform, rate=rate)


def add_noise(waveform: np.ndarray, snr_db: float, *, rng: np.random.Generator) -> np.ndarray:
    """`waveform` (n_samples,) with white Gaussian noise `snr_db` dB below its mean power."""
    power = np.mean(waveform.astype(np.float64) ** 2)
    scale = np.sqrt(power * 10 ** (-snr_db / 10))
    return (waveform + scale * rng.standard_normal(len(waveform))).astype(np.float32)


def _of_length(waveform: np.ndarray, n_samples: int) -> np.ndarray:
    """Cut or padded with zeros to `n_samples`."""
    kept = waveform[:n_samples]
    return np.pad(kept, (0, n_samples - len(kept))).astype(np.float32)


def _varied(waveform: np.ndarray, *, config: AudioConfig, rng, copies: int) -> list[np.ndarray]:
    """`copies` of the five augmentations, in random order; tempo changes the length."""
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
    """Augmented copies of clips: pitch +-2 semitones, tempo +-20 %, and noise at 20 dB SNR.

    Parameters
    ----------
    waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
        Clips, padded to one length, as `corpora.load_waveforms` gives them.
    valid : list of int
        Samples of each clip before its padding.
    config : AudioConfig
        The front end.
    count : int
        Copies, spread evenly over the clips; there are at most five of each clip.
    seed : int
        Which augmentations a clip gets.

    Returns
    -------
    waveforms : torch.Tensor [shape=(N, n_samples)]
        N <= `count` copies; a slower copy is cut, a faster one padded.
    valid : list of int
        Samples of each copy before its padding.
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
