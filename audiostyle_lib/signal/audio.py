"""Read and write audio files, and refuse what is not usable with one clear line.

Split from ``corpora`` because ``transfer`` and ``listen`` need it without a corpus.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..config import AudioConfig
from ..paths import written_beside

MAX_SECONDS = 3600.0
SILENCE_PEAK = 1e-4  # -80 dBFS
FORMATS = ("wav", "flac", "ogg", "mp3", "au", "aiff")  # that are written
WRITE_FRAMES = 65_536  # libsndfile's Vorbis encoder overflows the stack on minutes in one piece


class AudioError(ValueError):
    """A file that cannot be used as audio; the message is one line: what, and why."""


def read_audio(
    path: str | Path, *, config: AudioConfig | None = None, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Read any file that libsndfile reads, as mono at the front end's sample rate.

    Parameters
    ----------
    path : path of a wav, au, flac, ogg or mp3 file of any rate and channel count
    config : the front end; its sample rate is the output's
    max_seconds : longer files are refused before they are read

    Returns
    -------
    np.ndarray [shape=(n_samples,)], float32
        Mean of the channels, resampled with soxr's high-quality filter.

    Raises
    ------
    AudioError
        Missing, a folder, empty, not audio, too long, not finite, silent, or shorter than a window.
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
    mono = samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise AudioError(f"{path}: holds samples that are not finite (NaN or infinity)")
    if sample_rate != config.sample_rate:
        mono = soxr.resample(mono, sample_rate, config.sample_rate)
    return check_waveform(mono.astype(np.float32, copy=False), config=config, what=str(path))


def check_waveform(waveform: np.ndarray, *, config: AudioConfig, what: str) -> np.ndarray:
    """Return `waveform` (n_samples,) or raise `AudioError` if it is too short or silent."""
    if waveform.size < config.n_fft:
        raise AudioError(
            f"{what}: lasts {waveform.size / config.sample_rate:.3f} s, shorter than one window "
            f"({config.n_fft / config.sample_rate:.3f} s)"
        )
    if np.abs(waveform).max() < SILENCE_PEAK:
        raise AudioError(f"{what}: is silent (peak below -80 dBFS)")
    return waveform


def check_writable(path: str | Path) -> Path:
    """Return `path` if a file can be created there; raise `AudioError` otherwise."""
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
    """Write `waveform` (n_samples,) in the format of the suffix; the file appears whole or not at all."""
    import soundfile as sf

    path = check_writable(path)
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
    """Root-mean-square level of `waveform` in dB relative to full scale."""
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-20))


def to_level(waveform: np.ndarray, dbfs: float = -20.0) -> np.ndarray:
    """Scale `waveform` to an RMS level of `dbfs`, lower if the peak would pass full scale."""
    gain = 10 ** ((dbfs - rms_dbfs(waveform)) / 20)
    return (waveform * min(gain, 0.99 / max(np.abs(waveform).max(), 1e-9))).astype(np.float32)
