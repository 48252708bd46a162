"""Predicted gains on the content's own sound: at its rate, in its channels, at its level, in blocks.

`transfer` predicts gains in mel bands from a mono clip at the front end's sample rate. Here they change
the recording that the clip was made of. Used by ``notebooks/00_listen_first.ipynb`` and the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.fft import next_fast_len
from scipy.ndimage import maximum_filter1d, uniform_filter

from . import vocoding
from .config import AudioConfig
from .signal import audio, frames
from .signal.blocks import PEAK, Power, continued, limited, with_context

BLOCK_SAMPLES = 2**20  # of all channels together: 12 s of stereo at 44.1 kHz
LIMITER_DB = 12.0  # most that it takes from a peak; what is more makes the whole result quieter
SOUNDING = 1e-6  # frames that are 60 dB below the loudest one, or more, are silence
LARGE_RUMBLE = 0.1  # of the power of the sound: so much of it would take room from the peaks
LOWEST_HZ = 20.0  # what is below, offsets and rumble, is not heard and counts in no level
TREBLE_DB = 1.5  # most that is changed above the front end's highest band
BLEND = 0.9  # of the highest frequency that models hear: above, towards the treble's gain

# blocks (n_samples, n_channels) of content and result
Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Gains:
    """Gains in mel bands for a whole clip.

    Parameters
    ----------
    db : np.ndarray [shape=(T, n_mels), dtype=float32]
        At the frames of the front end.
    level_db : float
        How much quieter the content is than what they make of it: the level that will be taken back.
    config : AudioConfig
        The front end.
    keeps_rumble : bool
        Whether what is below 20 Hz stays as it is, an offset included; else it is taken out.
    """

    db: np.ndarray
    level_db: float
    config: AudioConfig
    keeps_rumble: bool = True

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Gains at some times, (n_times, n_mels), by linear interpolation in dB."""
        position = (seconds * self.config.frames_per_second).clip(0, len(self.db) - 1)
        lower = np.floor(position + 1e-9).astype(int)
        upper = np.minimum(lower + 1, len(self.db) - 1)
        weight = (position - lower).clip(0, 1).astype(np.float32)[:, None]
        return (1 - weight) * self.db[lower] + weight * self.db[upper]


class GainRenderer:
    """Multiply the STFT of every channel by gains in mel bands; phases stay as they are.

    Nothing is raised that the gains do not know: a bin in which the channels hold more than the models
    have heard (they cancel in the mean), or an end of the clip more than what is next to it (a note that
    is cut ends with a click, which holds all frequencies), is raised by that much less.

    Parameters
    ----------
    gains : Gains
    sample_rate, n_samples : int
        Of the content, in Hz and samples. The STFT has about the resolution of the front end.
    channel : int or None
        The channel that models heard; None if it was the mean of all.
    """

    def __init__(
        self, gains: Gains, sample_rate: int, n_samples: int, channel: int | None = None
    ) -> None:
        config = gains.config
        self.gains, self.sample_rate, self.channel = gains, sample_rate, channel
        self.hop_length = next_fast_len(
            max(1, round(config.hop_length * sample_rate / config.sample_rate)), real=True
        )
        self.n_fft = self.hop_length * (config.n_fft // config.hop_length)
        half = self.n_fft // 2
        self._inside = -(-half // self.hop_length), max(0, n_samples - half) // self.hop_length
        self._frequency = np.fft.rfftfreq(self.n_fft, 1 / sample_rate)
        position = self._frequency * config.n_fft / config.sample_rate  # in the front end's bins
        position = position.clip(0, config.n_fft // 2)
        self._lower = np.floor(position + 1e-9).astype(int)
        self._upper = np.minimum(self._lower + 1, config.n_fft // 2)
        self._weight = (position - self._lower).clip(0, 1).astype(np.float32)

    def decibels(self, first_frame: int, n_frames: int) -> np.ndarray:
        """Gains at the bins of some frames, (n_frames, n_fft // 2 + 1)."""
        config, gains = self.gains.config, self.gains
        seconds = (first_frame + np.arange(n_frames)) * self.hop_length / self.sample_rate
        band_to_bin = vocoding.band_to_bin(config, "cpu").numpy()
        db = gains.at(seconds) @ band_to_bin.T  # at the front end's bins
        top = db[:, int(BLEND * len(band_to_bin)) :].mean(axis=1, keepdims=True)
        db = (1 - self._weight) * db[:, self._lower] + self._weight * db[:, self._upper]
        db[:, self._frequency < LOWEST_HZ] = -gains.level_db if gains.keeps_rumble else -200.0
        if self.sample_rate == config.sample_rate:
            return db
        highest = min(self.sample_rate, config.sample_rate) / 2  # of what models have heard
        treble = (top + gains.level_db).clip(-TREBLE_DB, TREBLE_DB)
        treble = treble * (2 - self._frequency / highest).clip(0, 1) - gains.level_db
        blend = (self._frequency / highest - BLEND) / (1 - BLEND)
        return db + blend.clip(0, 1).astype(np.float32) * (treble - db)

    def __call__(self, chunk: np.ndarray, first_frame: int) -> np.ndarray:
        """A chunk (n_samples, n_channels) that begins at a frame of the whole, changed."""
        sizes = {"n_fft": self.n_fft, "hop_length": self.hop_length}
        spectra = [frames.stft(np.ascontiguousarray(x), **sizes) for x in chunk.T]  # (T, F) each
        power = sum(np.square(np.abs(x)) for x in spectra) / len(spectra)
        excess = self._beyond_inside(power, first_frame)
        if len(spectra) > 1:
            heard = sum(spectra) / len(spectra) if self.channel is None else spectra[self.channel]
            excess = np.maximum(excess, _unheard(power, np.square(np.abs(heard)), len(spectra)))
        db = self.decibels(first_frame, len(power))
        db -= np.minimum(excess, (db + self.gains.level_db).clip(0))
        factors = 10 ** (db / 20)
        changed = [frames.istft(x * factors, **sizes, n_samples=len(chunk)) for x in spectra]
        return np.stack(changed, axis=1)

    def _beyond_inside(self, power: np.ndarray, first_frame: int) -> np.ndarray:
        """By how many dB frames that see an end are louder than the next that does not, (T, F)."""
        frame = first_frame + np.arange(len(power))
        inside = (frame.clip(*self._inside) - first_frame).clip(0, len(power) - 1)
        around = maximum_filter1d(power[inside], 3, axis=1)
        excess = _to_db(power) - _to_db(around)
        return excess.clip(0) * (frame - first_frame != inside)[:, None]


def _unheard(power: np.ndarray, heard: np.ndarray, n_channels: int) -> np.ndarray:
    """By how many dB the mean power of the channels (T, F) exceeds what models have heard of it.

    Channels that have nothing in common leave 1 / `n_channels` of their power in the mean.
    """
    smooth = (uniform_filter(x, (5, 3)) for x in (power, heard))
    over, under = map(_to_db, smooth)
    return (over - under - 10 * np.log10(n_channels)).clip(0)


def _to_db(power: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(power, 1e-20))


def render(blocks: Callable[[int], Iterable[np.ndarray]], n_channels: int, renderer) -> Pairs:
    """Content and result, block by block.

    Parameters
    ----------
    blocks : callable
        Takes a number of samples and returns an iterator over the content in blocks of that many,
        (n_samples, n_channels).
    n_channels : int
    renderer : callable
        Takes a chunk (n_samples, n_channels) and the index of its first frame, and returns the result;
        has the attributes ``n_fft``, ``hop_length`` and ``sample_rate``.

    Yields
    ------
    tuple of np.ndarray [shape=(n_samples, n_channels), dtype=float32]
    """
    hop, margin = renderer.hop_length, 2 * renderer.n_fft
    size = max(margin, BLOCK_SAMPLES // n_channels // hop * hop)
    done = 0
    for chunk in with_context(blocks(size), margin, continued):
        inner = slice(margin, len(chunk) - margin)
        yield chunk[inner], renderer(chunk, done // hop - margin // hop)[inner]
        done += len(chunk) - 2 * margin


@dataclass
class Result:
    """The result of a transfer, made block by block as it is asked for.

    Parameters
    ----------
    sample_rate, n_channels, n_samples : int
        Of the result.
    subtype : str
        Sample format of the content, such as ``"PCM_24"``.
    pairs : callable
        Returns content and result in blocks, before the level is set; called twice.
    quieter_db : float
        Known after `blocks`: how much quieter the result is than the content, because its peaks had to
        be kept below full scale.
    """

    sample_rate: int
    n_channels: int
    n_samples: int
    subtype: str
    pairs: Callable[[], Pairs]
    quieter_db: float = 0.0

    def blocks(self, progress: Callable[[int, int], None] | None = None) -> Iterator[np.ndarray]:
        """Blocks (n_samples, n_channels) whose level is the content's, in what sounds of it.

        All is made twice, to know the level and to set it. `progress` is called with the percents that
        are done, and 100.
        """
        segment = max(1, round(0.02 * self.sample_rate))
        content, result = Power(segment), Power(segment)
        peak = 0.0
        for x, y in self._counted(0, progress):
            content.add(x)
            result.add(y)
            peak = max(peak, float(np.abs(y).max(initial=0.0)))
        wanted, found = content.of_segments(), result.of_segments()
        sounding = wanted >= SOUNDING * wanted.max(initial=0.0)
        level = np.sqrt(wanted[sounding].sum() / max(found[sounding].sum(), 1e-20))
        level *= min(1.0, 10 ** (LIMITER_DB / 20) * PEAK / max(level * peak, 1e-9))
        final = Power(segment)
        for block in limited(
            (y * np.float32(level) for _, y in self._counted(self.n_samples, progress)),
            self.sample_rate,
        ):
            final.add(block)
            yield block
        energy = max(final.of_segments()[sounding].sum(), 1e-20)
        self.quieter_db = max(
            0.0, float(10 * np.log10(max(wanted[sounding].sum(), 1e-20) / energy))
        )

    def _counted(self, done: int, progress: Callable[[int, int], None] | None) -> Pairs:
        for pair in self.pairs():
            done += len(pair[0])
            if progress is not None:
                progress(100 * done // (2 * self.n_samples), 100)
            yield pair

    def write(self, path: str | Path, progress: Callable[[int, int], None] | None = None) -> None:
        """Write a file that keeps the rate, the channels and the sample format; see `audio.writing`.

        `progress` is that of `blocks`.
        """
        settings = {"n_channels": self.n_channels, "n_samples": self.n_samples}
        with audio.writing(
            path, sample_rate=self.sample_rate, subtype=self.subtype, **settings
        ) as put:
            for block in self.blocks(progress):
                put(block)
