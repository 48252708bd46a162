"""The report's augmentations: pitch, tempo and noise. Measured in ``notebooks/01_data.ipynb``."""

from __future__ import annotations

import numba
import numpy as np

from ..config import AudioConfig
from . import frames

SEMITONES = 2.0  # up or down
STRETCH = 0.2  # 20 % faster or slower
SNR_DB = 20.0


@numba.njit(nogil=True, cache=True, fastmath=frames.FAST)
def _phase_vocoder(spectrum, rate, stretched):
    """Write the frames (T', F) of a spectrum (T, F) read at multiples of `rate`.

    Magnitudes are interpolated. Each phase turns as it does between the two frames around it. Phases are
    complex numbers of modulus 1 whose products take the place of sums of angles.
    """
    zero, one, tiny = np.float32(0.0), np.float32(1.0), np.float32(1e-30)
    real, imag = np.empty((2, spectrum.shape[1]), dtype=np.float32)  # of the phase of each bin
    for t in range(len(stretched)):
        position = t * rate
        share = np.float32(position - int(position))
        here, there = spectrum[int(position)], spectrum[int(position) + 1]
        for k in range(len(here)):
            a, b, c, d = here[k].real, here[k].imag, there[k].real, there[k].imag
            near, far = np.sqrt(a * a + b * b), np.sqrt(c * c + d * d)
            a, b = (a / near, b / near) if near > tiny else (one, zero)
            c, d = (c / far, d / far) if far > tiny else (one, zero)
            if t == 0:
                real[k], imag[k] = a, b
            magnitude = near + share * (far - near)
            stretched[t, k] = complex(magnitude * real[k], magnitude * imag[k])
            cosine, sine = a * c + b * d, a * d - b * c
            x, y = real[k] * cosine - imag[k] * sine, real[k] * sine + imag[k] * cosine
            norm = np.float32(1.5) - np.float32(0.5) * (x * x + y * y)  # 1 / modulus, near 1
            real[k], imag[k] = x * norm, y * norm


def time_stretch(waveform: np.ndarray, rate: float, *, config: AudioConfig) -> np.ndarray:
    """A waveform played at another speed with its pitch kept, by a phase vocoder.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    rate : float
        2 plays twice as fast.
    config : AudioConfig
        Its window and hop.

    Returns
    -------
    np.ndarray [shape=(n_samples / rate,)]

    Notes
    -----
    What `librosa.effects.time_stretch` does. librosa adds angles up, in float32, where thousands of turns
    leave few digits for the last one; here the product of complex numbers takes their place.

    References
    ----------
    Flanagan & Golden, "Phase vocoder," Bell System Technical Journal 45(9), 1966.
    """
    sizes = {"n_fft": config.n_fft, "hop_length": config.hop_length}
    spectrum = np.pad(frames.stft(waveform, **sizes), ((0, 2), (0, 0)))
    n_frames = len(np.arange(0, len(spectrum) - 2, rate))
    stretched = np.empty((n_frames, spectrum.shape[1]), dtype=np.complex64)
    _phase_vocoder(spectrum, rate, stretched)
    return frames.istft(stretched, **sizes, n_samples=round(len(waveform) / rate))


def pitch_shift(waveform: np.ndarray, semitones: float, *, config: AudioConfig) -> np.ndarray:
    """`waveform` (n_samples,), at the config's sample rate, shifted by `semitones`; its length stays.

    It is played slower or faster by `time_stretch` and then resampled, as `librosa.effects.pitch_shift`
    does it.
    """
    import librosa

    rate = 2.0 ** (-semitones / 12)
    stretched = time_stretch(waveform, rate, config=config)
    shifted = librosa.resample(
        stretched, orig_sr=config.sample_rate / rate, target_sr=config.sample_rate
    )
    return librosa.util.fix_length(shifted, size=len(waveform))


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
        "faster": lambda: time_stretch(waveform, 1 + STRETCH, config=config),
        "slower": lambda: time_stretch(waveform, 1 - STRETCH, config=config),
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
