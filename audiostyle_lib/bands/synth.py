"""Play notes: parts of a piece to samples, mixed, with effects.

symusic's synthesizer plays them from the General MIDI SoundFont inside pretty_midi's wheel, tuned by
`soundfont`. It never returns on some notes far outside an instrument's range, so batches are rendered
by `workers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .soundfont import instrument
from .workers import announce

#: Loudest sample a render may hold.
PEAK = 0.95

_TICKS_PER_SECOND = 2000
_NOTE_TAIL_S = 0.02


@dataclass(frozen=True)
class Note:
    """One note.

    Parameters
    ----------
    start, end : float
        Beats (quarter notes) from the start of the score, ``end > start``.
    pitch : int
        MIDI note number; for drums the General MIDI drum.
    velocity : int
        1 to 127.
    """

    start: float
    end: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """One instrument's notes and its place in the mix.

    Parameters
    ----------
    role : str
        ``"drums"``, ``"bass"``, ``"comp"``, ``"color"``, ``"pad"``, ``"counter"`` or ``"lead"``.
    program : int
        General MIDI program, 0 to 127; for drums the kit.
    is_drum : bool
    notes : tuple of Note
        Sorted by start.
    gain_db : float
        Level against the other parts, whose loudness is equalised first.
    pan : float
        -1 (left) to 1 (right); folded to mono, a part at the side is up to 3 dB quieter.
    drive : float
        Saturation; 0 is clean, 5 a heavily distorted guitar.
    """

    role: str
    program: int
    is_drum: bool
    notes: tuple[Note, ...]
    gain_db: float = 0.0
    pan: float = 0.0
    drive: float = 0.0


@dataclass(frozen=True)
class Mix:
    """Effects on the sum of all parts.

    Parameters
    ----------
    low_db, high_db : float
        Shelves below about 200 Hz and above about 3 kHz, in dB.
    mid_db, mid_hz : float
        Gain in dB and centre in Hz of a bell about two octaves wide.
    lowpass_hz : float
        Corner of a gentle low-pass; 0 leaves it out.
    reverb : float
        Energy of the reverberation against the dry sound, 0 to 1.
    reverb_s : float
        Reverberation time (60 dB) in seconds.
    echo : float
        Gain of one repeat, 0 to 1, ``echo_beats`` beats later.
    level_db : float
        RMS of the whole clip in dBFS.
    """

    low_db: float = 0.0
    high_db: float = 0.0
    mid_db: float = 0.0
    mid_hz: float = 1000.0
    lowpass_hz: float = 0.0
    reverb: float = 0.1
    reverb_s: float = 0.5
    echo: float = 0.0
    echo_beats: float = 0.75
    level_db: float = -20.0


@lru_cache(maxsize=192)  # every program and kit of three SoundFonts
def _synthesizer(sample_rate: int, program: int, is_drum: bool, file: Path):
    """A synthesizer that only ever plays one program.

    symusic 0.5.9 caches tones under a key that two programs can share, so one synthesizer for
    all would play some notes with an instrument that it played earlier.
    """
    from symusic import Synthesizer

    return Synthesizer(sf_path=str(file), sample_rate=sample_rate, quality=2)


def synthesize(
    part: Part,
    *,
    tempo: float,
    start_beat: float,
    seconds: float,
    sample_rate: int,
    soundfont: Path | None = None,
) -> np.ndarray:
    """Play one part alone.

    Parameters
    ----------
    part : Part
    tempo : float
        Beats (quarter notes) per minute.
    start_beat : float
        Where in the score the excerpt starts.
    seconds : float
        Length of the result.
    sample_rate : int
        In Hz.
    soundfont : Path, optional
        A folder that `instruments.prepare` returned. The default SoundFont plays the programs that it
        lacks, and all programs without one.

    Returns
    -------
    np.ndarray [shape=(round(seconds * sample_rate),)]
        float32 at the SoundFont's own level; all zero where the part rests.

    Raises
    ------
    RuntimeError
        If a sample of the synthesizer is not finite or above 1000, where full scale is 1.
    """
    import symusic

    n_samples = round(seconds * sample_rate)
    beat_s = 60.0 / tempo
    rows = [
        ((n.start - start_beat) * beat_s, (n.end - start_beat) * beat_s, n.pitch, n.velocity)
        for n in part.notes
    ]
    # A note that began earlier sounds on from the first sample; a drum hit does not begin twice.
    rows = [r for r in rows if r[0] < seconds and r[1] > (_NOTE_TAIL_S if r[0] < 0 else 0)]
    if part.is_drum:
        rows = [r for r in rows if r[0] >= -1e-9]
    if not rows:
        return np.zeros(n_samples, np.float32)
    table = np.array(rows)
    onset = np.rint(np.maximum(table[:, 0], 0) * _TICKS_PER_SECOND).astype(np.int32)
    offset = np.rint(np.minimum(table[:, 1], seconds) * _TICKS_PER_SECOND).astype(np.int32)
    track = symusic.Track("", part.program, part.is_drum)
    track.notes = symusic.Note.from_numpy(
        onset,
        np.maximum(offset - onset, 20),
        table[:, 2].astype(np.int8),
        table[:, 3].astype(np.int8),
    )
    score = symusic.Score(_TICKS_PER_SECOND // 2)  # ticks a quarter at the default 120 BPM
    score.tracks.append(track)
    file = instrument(soundfont, part.program, part.is_drum)
    synthesizer = _synthesizer(sample_rate, part.program, part.is_drum, file)
    played = synthesizer.render(score, stereo=False)[0, :n_samples]
    if not np.isfinite(played).all() or np.abs(played).max(initial=0) > 1e3:
        raise RuntimeError(f"the synthesizer overflowed: {describe(part)}")
    return np.pad(played, (0, n_samples - len(played))).astype(np.float32, copy=False)


def describe(part: Part) -> str:
    """Role, program and note range of a part, for messages."""
    pitches = [note.pitch for note in part.notes]
    kind = "drum kit" if part.is_drum else "program"
    return f"{part.role}, {kind} {part.program}, notes {min(pitches)} to {max(pitches)}"


def _active_rms(x: np.ndarray) -> float:
    """RMS over the frames that sound, so that a part with many rests is not made louder."""
    frame = 1024
    power = np.square(x[: len(x) // frame * frame].reshape(-1, frame)).mean(axis=1)
    if power.size == 0:
        power = np.square(x).mean(keepdims=True)
    loud = power[power > 0.02 * power.max(initial=0)]
    return float(np.sqrt(loud.mean())) if loud.size else 0.0


@lru_cache(maxsize=8)
def _room(mix: Mix, n_fft: int, sample_rate: int) -> np.ndarray:
    """Frequency response of equaliser and reverberation, [shape=(n_fft // 2 + 1,)]."""
    import scipy.fft

    freq = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    low = 1 / (1 + (freq / 200.0) ** 2)
    high = freq**2 / (freq**2 + 3000.0**2)
    bell = (freq / mix.mid_hz) ** 2
    bell = bell / (bell + (1 - bell) ** 2)
    response = 10 ** ((mix.low_db * low + mix.mid_db * bell + mix.high_db * high) / 20)
    if mix.lowpass_hz:
        response /= np.sqrt(1 + (freq / mix.lowpass_hz) ** 4)
    if mix.reverb > 0:
        n_tail = int(mix.reverb_s * sample_rate)
        tail = np.random.default_rng(7).standard_normal(n_tail)
        tail *= 10 ** (-3 * np.arange(n_tail) / n_tail)
        tail *= np.sqrt(mix.reverb / np.square(tail).sum())
        impulse = np.zeros(n_fft)
        delay = int(0.012 * sample_rate)
        impulse[delay : delay + n_tail] = tail
        wet = scipy.fft.rfft(impulse) / np.sqrt(1 + (freq / 3500.0) ** 2)  # air dulls the tail
        response = response * (1 + wet)
    return response.astype(np.complex64)


def _effects(x: np.ndarray, mix: Mix, tempo: float, sample_rate: int) -> np.ndarray:
    import scipy.fft

    if mix.echo > 0:
        delay = round(mix.echo_beats * 60 / tempo * sample_rate)
        if 0 < delay < len(x):
            x = x + np.concatenate([np.zeros(delay, np.float32), mix.echo * x[:-delay]])
    tail = int((mix.reverb_s + 0.05) * sample_rate)
    n_fft = scipy.fft.next_fast_len(len(x) + tail, real=True)
    n_fft += n_fft % 2
    spectrum = scipy.fft.rfft(x.astype(np.float32), n_fft)
    spectrum *= _room(mix, n_fft, sample_rate)
    return scipy.fft.irfft(spectrum, n_fft)[: len(x)]


def _finish(x: np.ndarray, level_db: float, sample_rate: int) -> np.ndarray:
    """Set the level, compress peaks smoothly below `PEAK`, fade out the last 5 ms."""
    level = np.sqrt(np.mean(np.square(x)))
    if not np.isfinite(level) or level < 1e-6:
        raise RuntimeError(f"a render is silent or not finite (RMS {level:.3g})")
    x = x * np.float32(10 ** (level_db / 20) / level)
    knee = 0.75
    over = np.abs(x) > knee
    if over.any():
        excess = (np.abs(x[over]) - knee) / (PEAK - knee)
        x[over] = np.sign(x[over]) * (knee + (PEAK - knee) * np.tanh(excess))
    n_fade = min(len(x), round(0.005 * sample_rate))
    x[len(x) - n_fade :] *= np.linspace(1, 0, n_fade, dtype=np.float32)
    return np.clip(x, -PEAK, PEAK).astype(np.float32, copy=False)


def render_parts(
    parts: Iterable[Part],
    mix: Mix,
    *,
    tempo: float,
    seconds: float,
    sample_rate: int,
    start_beat: float = 0.0,
    soundfont: Path | None = None,
) -> np.ndarray:
    """Mix parts to one mono signal.

    Parameters
    ----------
    parts : iterable of Part
    mix : Mix
    tempo : float
        Beats per minute.
    seconds : float
        Length of the result.
    sample_rate : int
        In Hz.
    start_beat : float
        Where in the score the excerpt starts.
    soundfont : Path, optional
        See `synthesize`.

    Returns
    -------
    np.ndarray [shape=(round(seconds * sample_rate),)]
        float32, finite, within +-0.95.

    Raises
    ------
    RuntimeError
        If the result is silent or not finite.
    """
    total = np.zeros(round(seconds * sample_rate), np.float32)
    for part in parts:
        if not part.notes:
            continue
        announce(describe(part))
        x = synthesize(
            part,
            tempo=tempo,
            start_beat=start_beat,
            seconds=seconds,
            sample_rate=sample_rate,
            soundfont=soundfont,
        )
        level = _active_rms(x)
        if level < 1e-6:
            continue
        x = x / np.float32(level)
        if part.drive > 0:
            x = np.tanh(np.float32(part.drive) * x)
            x /= np.float32(_active_rms(x))
        side = np.cos(np.pi / 4 * part.pan)
        total += np.float32(10 ** (part.gain_db / 20) * side) * x
    return _finish(_effects(total, mix, tempo, sample_rate), mix.level_db, sample_rate)
