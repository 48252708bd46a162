"""Audio players inside a notebook's page, which need no running kernel; all clips at one level."""

from __future__ import annotations

import base64
import html
import io

import numpy as np

from ..config import AudioConfig
from ..signal.audio import as_waveform, to_level
from ..signal.recording import check_samples

LEVEL_DBFS = -20.0
MAX_SECONDS = 6.0


def mp3(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A waveform as an MP3 file of about 64 kbit/s.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    sample_rate : int
        In Hz.

    Returns
    -------
    bytes

    Raises
    ------
    AudioError
        If it holds samples that are not finite.
    """
    import soundfile as sf

    # The encoder ends the process on NaN.
    waveform = np.asarray(waveform, dtype=np.float32)
    check_samples(waveform, "the clip")
    buffer = io.BytesIO()
    sf.write(
        buffer, waveform, sample_rate, format="MP3", subtype="MPEG_LAYER_III",
        bitrate_mode="CONSTANT", compression_level=0.8,
    )  # fmt: skip
    return buffer.getvalue()


def _figure(label: str, waveform: np.ndarray, config: AudioConfig, start: float) -> str:
    sample_rate = config.sample_rate
    first = round(start * sample_rate)
    part = np.asarray(waveform)[first : first + round(MAX_SECONDS * sample_rate)]
    excerpt = as_waveform(part, what=label, config=config)
    ends = min(len(excerpt) // 4, sample_rate // 100)  # 10 ms: no click at the cut
    ramp = np.linspace(0, 1, ends, dtype=np.float32)
    excerpt = to_level(excerpt, LEVEL_DBFS).copy()
    excerpt[:ends] *= ramp
    excerpt[len(excerpt) - ends :] *= ramp[::-1]
    data = base64.b64encode(mp3(excerpt, sample_rate)).decode()
    return (
        f'<figure style="margin:4px 12px 4px 0;display:inline-block"><figcaption>{html.escape(label)}'
        f'</figcaption><audio controls preload="none" style="width:260px" '
        f'src="data:audio/mpeg;base64,{data}"></audio></figure>'
    )


def players(clips: dict[str, np.ndarray], config: AudioConfig | None = None, *, start: float = 0.0):
    """A row of players; the page holds their audio as MP3.

    Every clip is set to -20 dBFS RMS (lower where it would clip), so that none is preferred for its
    loudness.

    Parameters
    ----------
    clips : dict of str to np.ndarray [shape=(n_samples,)]
        Waveforms by label; at most 6 s of each are heard.
    config : AudioConfig, optional
        Its sample rate is that of the clips.
    start : float
        Where the excerpts begin, in s.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    AudioError
        If an excerpt is shorter than a window of `config` or holds samples that are not finite.
    """
    from IPython.display import HTML

    config = config or AudioConfig()
    row = "".join(_figure(k, v, config, start) for k, v in clips.items())
    return HTML(f"<div>{row}</div><small>each at {LEVEL_DBFS:.0f} dBFS RMS</small>")
