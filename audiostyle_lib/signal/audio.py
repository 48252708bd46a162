"""Read and write audio files, and refuse unusable audio with one line that says why.

Used by every notebook that plays or writes sound, first by ``notebooks/00_listen_first.ipynb``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..config import AudioConfig
from ..errors import InputError
from ..paths import written_beside

MAX_SECONDS = 3600.0
SILENCE_PEAK = 1e-4  # -80 dBFS
LOUDEST_PEAK = 1e6  # +120 dBFS; louder samples come from a damaged file
FORMATS = ("wav", "flac", "ogg", "mp3", "au", "aiff")  # of output files
WRITE_FRAMES = 65_536  # libsndfile's Vorbis encoder overflows the stack on minutes in one piece


class AudioError(InputError):
    """Audio that cannot be used; the message is one line that names the clip and the reason."""


def as_waveform(x: np.ndarray, *, what: str, config: AudioConfig) -> np.ndarray:
    """Convert a clip to the library's own format: mono, float32, 1 at full scale.

    Parameters
    ----------
    x : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        Floating-point samples, or integers as `scipy.io.wavfile.read` gives them. The axis order of
        several channels is that of `soundfile.read`.
    what : str
        Name of the clip in error messages.
    config : AudioConfig
        Its `n_fft` is the shortest length that is accepted. The sample rate cannot be checked.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mean of the channels; integers are divided by the full scale of their type.

    Raises
    ------
    AudioError
        If `x` has another shape or type, samples that are not finite or absurdly large, or fewer than
        `n_fft` samples.
    """
    x = np.asarray(x)
    if x.ndim not in (1, 2) or (x.ndim == 2 and x.shape[1] > x.shape[0] > 0):
        raise AudioError(
            f"{what}: has shape {x.shape}, wanted (n_samples,) or (n_samples, n_channels)"
        )
    return _check_length(_as_mono(x, what), what, config)


def _as_mono(x: np.ndarray, what: str) -> np.ndarray:
    """`as_waveform` without the checks of shape and length: those of a file come after resampling."""
    if x.dtype.kind not in "fiu":
        raise AudioError(f"{what}: has samples of type {x.dtype}, wanted floats or integers")
    if x.dtype.kind != "f":
        limits = np.iinfo(x.dtype)
        middle = (limits.max + 1) // 2 if x.dtype.kind == "u" else 0  # of unsigned samples
        x = (x.astype(np.float64) - middle) / (limits.max + 1 - middle)
    if x.ndim == 2:
        x = x.mean(axis=1)
    peak = float(np.abs(x).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{what}: holds samples that are not finite (NaN or infinity)")
    if peak > LOUDEST_PEAK:
        raise AudioError(f"{what}: holds a sample of {peak:.0e}, where full scale is 1")
    return np.ascontiguousarray(x, dtype=np.float32)


def read_audio(
    path: str | Path, *, config: AudioConfig | None = None, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Read any file that libsndfile reads, as mono at the front end's sample rate.

    Parameters
    ----------
    path : str or Path
        A wav, au, flac, ogg or mp3 file of any sample rate and channel count.
    config : AudioConfig
        The front end; its sample rate is the output's.
    max_seconds : float
        Longer files are refused before they are read.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mean of the channels, resampled with soxr's high-quality filter.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty, not audio, too long, silent, shorter than one window,
        or holds samples that are not finite or absurdly large.
    """
    import soundfile as sf
    import soxr

    config = config or AudioConfig()
    path = Path(path)
    if not path.exists():
        raise AudioError(f"{path}: no such file")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, not an audio file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path}: the file is empty")
    try:
        info = sf.info(str(path))
        seconds = info.frames / info.samplerate
        if seconds > max_seconds:
            raise AudioError(
                f"{path}: lasts {seconds / 60:.0f} minutes, at most {max_seconds / 60:.0f} are taken"
            )
        samples, sample_rate = sf.read(str(path), dtype="float32", always_2d=True)
    except (sf.LibsndfileError, RuntimeError, TypeError) as error:  # TypeError: headerless .raw
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise AudioError(f"{path}: not readable as audio ({reason})") from error
    if samples.shape[0] == 0:
        raise AudioError(f"{path}: holds no samples")
    mono = _as_mono(samples, str(path))
    if sample_rate != config.sample_rate:
        mono = soxr.resample(mono, sample_rate, config.sample_rate)
    waveform = _check_length(mono, str(path), config)
    if np.abs(waveform).max() < SILENCE_PEAK:
        raise AudioError(f"{path}: is silent (peak below -80 dBFS)")
    return waveform


def _check_length(waveform: np.ndarray, what: str, config: AudioConfig) -> np.ndarray:
    if waveform.size < config.n_fft:
        raise AudioError(
            f"{what}: lasts {waveform.size / config.sample_rate:.3f} s, shorter than one window "
            f"({config.n_fft / config.sample_rate:.3f} s)"
        )
    return waveform


def check_writable(path: str | Path) -> Path:
    """Return `path` as a `Path` if an audio file can be written there, else raise `AudioError`."""
    path = Path(path)
    if path.is_dir():
        raise AudioError(f"{path}: is a folder, name a file to write")
    if path.suffix.lstrip(".").lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise AudioError(f"{path}: the file name must end in an audio format ({known})")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise AudioError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise AudioError(f"{path}: the folder {folder} is not writable")
    return path


def write_audio(path: str | Path, waveform: np.ndarray, *, sample_rate: int) -> None:
    """Write a mono file; it appears complete under its name, or not at all.

    Parameters
    ----------
    path : str or Path
        The suffix, one of `FORMATS`, decides the format.
    waveform : np.ndarray [shape=(n_samples,)]
        In -1..1.
    sample_rate : int
        In Hz.

    Raises
    ------
    AudioError
        If the file cannot be written, or `waveform` holds samples that are not finite.
    """
    import soundfile as sf

    path = check_writable(path)
    if not np.isfinite(waveform).all():
        raise AudioError(f"{path}: not written, the result holds samples that are not finite")
    try:
        with (
            written_beside(path) as temporary,
            sf.SoundFile(str(temporary), "w", sample_rate, channels=1) as file,
        ):
            for start in range(0, len(waveform), WRITE_FRAMES):
                file.write(waveform[start : start + WRITE_FRAMES])
    except (OSError, sf.LibsndfileError) as error:
        raise AudioError(f"{path}: cannot be written ({error})") from error


def rms_dbfs(waveform: np.ndarray) -> float:
    """Root-mean-square level of `waveform` (n_samples,) in dB relative to full scale, at least -200."""
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-20))


def to_level(waveform: np.ndarray, dbfs: float = -20.0) -> np.ndarray:
    """Scale `waveform` (n_samples,) to an RMS level in dBFS, lower where the peak would exceed 0.99."""
    gain = 10 ** ((dbfs - rms_dbfs(waveform)) / 20)
    return (waveform * min(gain, 0.99 / max(np.abs(waveform).max(), 1e-9))).astype(np.float32)
