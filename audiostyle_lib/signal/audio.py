"""Read and write audio files, and refuse unusable audio with one line that says why.

Used by every notebook that plays or writes sound, first by ``notebooks/00_listen_first.ipynb``.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import paths
from ..config import AudioConfig
from ..errors import AudioError, AudioWarning
from .recording import (
    MAX_SECONDS,
    Recording,
    check_samples,
    count_samples,
    loudest_where_cancelling,
    open_recording,
)

SILENCE_PEAK = 1e-4  # -80 dBFS: three steps of 16 bits
SILENCE_PEAK_DEEP = 1e-6  # -120 dBFS, of files with finer steps
DEEP = (
    "PCM_24",
    "PCM_32",
    "FLOAT",
    "DOUBLE",
    "ALAC_20",
    "ALAC_24",
    "ALAC_32",
)  # kept in the output
FORMATS = {  # of output files, by the ending of their name
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "oga": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aif": ("AIFF", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
}
SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
FALLBACK_RATE = 48_000  # Hz, where a format does not take the sound's own
LARGEST_WAV = 2**32 - 2**16  # bytes that its header can state; RF64 is the same with a larger field
WRITE_FRAMES = 65_536  # libsndfile's Vorbis encoder overflows the stack on minutes in one piece


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
        Mean of the channels, or the loudest of them where they cancel; integers are divided by the full
        scale of their type.

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
    x = as_floats(x, what)
    mono = _heard(x) if x.ndim == 2 and x.size else x.reshape(-1)
    return _check_length(np.ascontiguousarray(mono, dtype=np.float32), what, config)


def as_floats(x: np.ndarray, what: str) -> np.ndarray:
    """Samples as floats of full scale 1, whose values were checked."""
    if x.dtype.kind not in "fiu":
        raise AudioError(f"{what}: has samples of type {x.dtype}, wanted floats or integers")
    if x.dtype.kind != "f":
        limits = np.iinfo(x.dtype)
        middle = (limits.max + 1) // 2 if x.dtype.kind == "u" else 0  # of unsigned samples
        x = (x.astype(np.float64) - middle) / (limits.max + 1 - middle)
    check_samples(x, what)
    return x


def heard_channel(channels: np.ndarray) -> int | None:
    """The channel that models hear of (n_samples, n_channels): the loudest where they cancel, else None.

    None stands for the mean of all.
    """
    return loudest_where_cancelling(channels.var(axis=0), channels.mean(axis=1).var())


def _heard(channels: np.ndarray) -> np.ndarray:
    channel = heard_channel(channels)
    return channels.mean(axis=1) if channel is None else channels[:, channel]


def read_audio(
    path: str | Path, *, config: AudioConfig | None = None, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Read any file that libsndfile reads, as mono at the front end's sample rate.

    Parameters
    ----------
    path : str or Path
        A wav, aiff, au, flac, ogg, opus or mp3 file of any sample rate and channel count, by whatever
        name, or a pipe.
    config : AudioConfig
        The front end; its sample rate is the output's.
    max_seconds : float
        Longer files are refused.

    Returns
    -------
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mean of the channels, or the loudest of them where they cancel, resampled with soxr's high-quality
        filter.

    Raises
    ------
    AudioError
        If the file is missing, a folder, empty, not audio, too long, silent, shorter than one window,
        or holds samples that are not finite or absurdly large.

    Warns
    -----
    AudioWarning
        If the file is cut short.
    """
    config = config or AudioConfig()
    with open_recording(path, config=config, max_seconds=max_seconds) as recording:
        return require_sound(recording, config)


def require_sound(recording: Recording, config: AudioConfig | None = None) -> np.ndarray:
    """The waveform (n_samples,) of a recording, if there is something to hear.

    Raises
    ------
    AudioError
        If it is silent or shorter than one window.

    Warns
    -----
    AudioWarning
        If the file is cut short.
    """
    waveform = _check_length(recording.waveform, recording.name, config or AudioConfig())
    deep = recording.subtype in DEEP
    if np.abs(waveform - waveform.mean()).max() < (SILENCE_PEAK_DEEP if deep else SILENCE_PEAK):
        raise AudioError(f"{recording.name}: is silent (peak below {-120 if deep else -80} dBFS)")
    if recording.cut_short:
        warnings.warn(f"{recording.name}: {recording.cut_short}", AudioWarning, stacklevel=2)
    return waveform


def _check_length(waveform: np.ndarray, what: str, config: AudioConfig) -> np.ndarray:
    if waveform.size < config.n_fft:
        raise AudioError(
            f"{what}: lasts {waveform.size / config.sample_rate:.3f} s, shorter than one window "
            f"({config.n_fft / config.sample_rate:.3f} s)"
        )
    return waveform


def check_writable(path: str | Path) -> Path:
    """Return `path` as a `Path` if an audio file can be written there, else raise `InputError`."""
    path = paths.check_writable(path)
    if path.suffix.lstrip(".").lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise AudioError(f"{path}: the file name must end in an audio format ({known})")
    return path


def _takes(**settings) -> bool:
    """Whether libsndfile writes such a file."""
    import soundfile as sf

    try:
        sf.SoundFile(io.BytesIO(), "w", **settings).close()
    except (sf.LibsndfileError, ValueError):
        return False
    return True


def output_settings(
    path: Path, *, sample_rate: int, n_channels: int, subtype: str = "", n_samples: int = 0
) -> dict:
    """What `soundfile.SoundFile` is told to write `path` so that it keeps what a sound has.

    Parameters
    ----------
    path : Path
        Its ending, one of `FORMATS`, decides the format.
    sample_rate : int
        In Hz. A format that does not take it is written at 48 kHz.
    n_channels : int
    subtype : str
        The sample format of the sound where it came from; one of `DEEP` is kept as far as the format of
        the file can, others become the format's usual one.
    n_samples : int
        Of the file; more than a WAV can state are written as RF64.

    Returns
    -------
    dict
        ``samplerate``, ``channels``, ``format`` and ``subtype``.

    Raises
    ------
    AudioError
        If the format does not take so many channels.
    """
    import soundfile as sf

    container, usual = FORMATS[path.suffix.lstrip(".").lower()]
    finest = subtype.replace("ALAC_32", "PCM_32").replace("ALAC", "PCM")
    deep = (finest, "PCM_24") if subtype in DEEP else ()
    subtype = next((s for s in deep if sf.check_format(container, s)), usual)
    n_bytes = SAMPLE_BYTES.get(subtype, 1) * n_samples * n_channels
    if container == "WAV" and n_bytes > LARGEST_WAV:
        container = "RF64"
    settings = {"channels": n_channels, "format": container, "subtype": subtype}
    for rate in (sample_rate, FALLBACK_RATE):
        if _takes(samplerate=rate, **settings):
            return settings | {"samplerate": rate}
    raise AudioError(
        f"{path}: {path.suffix} does not take {n_channels} channels at {sample_rate} Hz; write a .wav"
    )


@contextmanager
def writing(
    path: str | Path, *, sample_rate: int, **settings
) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a file block by block; it appears complete under its name, or not at all.

    Parameters
    ----------
    path : str or Path
        The suffix, one of `FORMATS`, decides the format.
    sample_rate : int
        Of the blocks, in Hz.
    **settings
        Of `output_settings`.

    Yields
    ------
    callable
        Takes a block (n_frames,) or (n_frames, n_channels), in -1..1.

    Raises
    ------
    AudioError
        If the file cannot be written, a block holds samples that are not finite, or the file does not
        hold all samples when it is read back (some file systems tell of a full disk only then).

    Warns
    -----
    AudioWarning
        If the format does not take the sample rate.
    """
    import soundfile as sf
    import soxr

    path = check_writable(path)
    how = output_settings(path, sample_rate=sample_rate, **settings)
    resampler = None
    if how["samplerate"] != sample_rate:
        note = f"written at {how['samplerate']} Hz, {path.suffix} does not take {sample_rate} Hz"
        warnings.warn(f"{path}: {note}", AudioWarning, stacklevel=3)
        resampler = soxr.ResampleStream(
            sample_rate, how["samplerate"], how["channels"], "float32", "HQ"
        )
    n_written = 0

    def put(block: np.ndarray, *, last: bool = False) -> None:
        nonlocal n_written
        block = np.asarray(block, np.float64 if how["subtype"] == "DOUBLE" else np.float32)
        if not np.isfinite(block).all():
            raise AudioError(f"{path}: not written, the result holds samples that are not finite")
        check_samples(block, str(path))
        if resampler is not None:
            block = resampler.resample_chunk(np.asarray(block, np.float32), last=last)
        for start in range(0, len(block), WRITE_FRAMES):
            file.write(block[start : start + WRITE_FRAMES])
        n_written += len(block)

    try:
        with paths.written_beside(path) as temporary:
            with sf.SoundFile(os.fsencode(temporary), "w", **how) as file:
                yield put
                if resampler is not None:
                    put(np.zeros((0, how["channels"])), last=True)
            _require_whole(temporary, path, n_written)
    except (OSError, sf.LibsndfileError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be written ({reason})") from error


def _require_whole(temporary: Path, path: Path, n_samples: int) -> None:
    """Raise `AudioError` if a file that was just written does not hold `n_samples`."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    found = count_samples(temporary)
    if found != n_samples:
        raise AudioError(
            f"{path}: not written, {found} of {n_samples} samples arrived (is the disk full?)"
        )


def write_audio(
    path: str | Path, waveform: np.ndarray, *, sample_rate: int, subtype: str = ""
) -> None:
    """Write a file; it appears complete under its name, or not at all.

    Parameters
    ----------
    path : str or Path
        The suffix, one of `FORMATS`, decides the format.
    waveform : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        In -1..1.
    sample_rate : int
        In Hz.
    subtype : str
        Sample format to keep, such as ``"PCM_24"``; 16 bits if left out. See `output_settings`.

    Raises
    ------
    AudioError
        If the file cannot be written, or `waveform` holds samples that are not finite.
    """
    waveform = np.asarray(waveform)
    n_channels = waveform.shape[1] if waveform.ndim == 2 else 1
    settings = {"n_channels": n_channels, "n_samples": len(waveform), "subtype": subtype}
    with writing(path, sample_rate=sample_rate, **settings) as put:
        put(waveform)


def rms_dbfs(waveform: np.ndarray) -> float:
    """Root-mean-square level of `waveform` (n_samples,) in dB relative to full scale, at least -200."""
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-20))


def to_level(waveform: np.ndarray, dbfs: float = -20.0) -> np.ndarray:
    """Scale `waveform` (n_samples,) to an RMS level in dBFS, lower where the peak would exceed 0.99."""
    gain = 10 ** ((dbfs - rms_dbfs(waveform)) / 20)
    return (waveform * min(gain, 0.99 / max(np.abs(waveform).max(), 1e-9))).astype(np.float32)
