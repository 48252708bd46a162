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
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from . import vocoding
from .config import AudioConfig
from .signal import audio, frames

BLOCK_SAMPLES = 2**20  # of all channels together: 12 s of stereo at 44.1 kHz
PEAK = 0.99
LIMITER_SECONDS = 0.01  # before and after a peak, in which the limiter moves
LIMITER_DB = 12.0  # most that it takes from a peak; what is more makes the whole result quieter
SOUNDING = 1e-6  # frames that are 60 dB below the loudest one, or more, are silence
LARGE_OFFSET = (
    0.1  # of the power of the sound: such a DC offset is not kept, it would cost headroom
)
LOWEST_HZ = 20.0  # what is below passes as it is, and counts in no level: offsets and rumble
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
    """

    db: np.ndarray
    level_db: float
    config: AudioConfig

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Gains at some times, (n_times, n_mels), by linear interpolation in dB."""
        position = (seconds * self.config.frames_per_second).clip(0, len(self.db) - 1)
        lower = np.floor(position + 1e-9).astype(int)
        upper = np.minimum(lower + 1, len(self.db) - 1)
        weight = (position - lower).clip(0, 1).astype(np.float32)[:, None]
        return (1 - weight) * self.db[lower] + weight * self.db[upper]


class GainRenderer:
    """Multiply the STFT of every channel by gains in mel bands; phases stay as they are.

    Parameters
    ----------
    gains : Gains
    sample_rate : int
        Of the blocks, in Hz. The STFT has about the front end's resolution in Hz and seconds.
    """

    def __init__(self, gains: Gains, sample_rate: int) -> None:
        config = gains.config
        self.gains, self.sample_rate = gains, sample_rate
        self.hop_length = next_fast_len(
            max(1, round(config.hop_length * sample_rate / config.sample_rate)), real=True
        )
        self.n_fft = self.hop_length * (config.n_fft // config.hop_length)
        self._frequency = np.fft.rfftfreq(self.n_fft, 1 / sample_rate)
        position = self._frequency * config.n_fft / config.sample_rate  # in the front end's bins
        position = position.clip(0, config.n_fft // 2)
        self._lower = np.floor(position + 1e-9).astype(int)
        self._upper = np.minimum(self._lower + 1, config.n_fft // 2)
        self._weight = (position - self._lower).clip(0, 1).astype(np.float32)

    def factors(self, first_frame: int, n_frames: int) -> np.ndarray:
        """What to multiply the STFT by, (n_frames, n_fft // 2 + 1)."""
        config, gains = self.gains.config, self.gains
        seconds = (first_frame + np.arange(n_frames)) * self.hop_length / self.sample_rate
        band_to_bin = vocoding.band_to_bin(config, "cpu").numpy()
        db = gains.at(seconds) @ band_to_bin.T  # at the front end's bins
        top = db[:, int(BLEND * len(band_to_bin)) :].mean(axis=1, keepdims=True)
        db = (1 - self._weight) * db[:, self._lower] + self._weight * db[:, self._upper]
        db[:, self._frequency < LOWEST_HZ] = -gains.level_db
        highest = config.sample_rate / 2
        if self.sample_rate > config.sample_rate:
            treble = (top + gains.level_db).clip(-TREBLE_DB, TREBLE_DB)
            treble = treble * (2 - self._frequency / highest).clip(0, 1) - gains.level_db
            blend = (self._frequency / highest - BLEND) / (1 - BLEND)
            db += blend.clip(0, 1).astype(np.float32) * (treble - db)
        return 10 ** (db / 20)

    def __call__(self, chunk: np.ndarray, first_frame: int) -> np.ndarray:
        """A chunk (n_samples, n_channels) that begins at a frame of the whole, changed."""
        sizes = {"n_fft": self.n_fft, "hop_length": self.hop_length}
        factors = self.factors(first_frame, 1 + len(chunk) // self.hop_length)
        changed = [
            frames.istft(
                frames.stft(np.ascontiguousarray(channel), **sizes) * factors,
                **sizes,
                n_samples=len(chunk),
            )
            for channel in chunk.T
        ]
        return np.stack(changed, axis=1)


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
    hop, margin = renderer.hop_length, renderer.n_fft
    size = max(margin, BLOCK_SAMPLES // n_channels // hop * hop)
    done = 0
    for chunk in with_context(blocks(size), margin, mirrored):
        inner = slice(margin, len(chunk) - margin)
        yield chunk[inner], renderer(chunk, done // hop - margin // hop)[inner]
        done += len(chunk) - 2 * margin


def with_context(
    blocks: Iterable[np.ndarray], margin: int, beyond: Callable[[np.ndarray, int], np.ndarray]
) -> Iterator[np.ndarray]:
    """Blocks (n_samples, n_channels) with `margin` samples of their neighbours on either side.

    After the end of the whole comes ``beyond(block, margin)``, and before its beginning the same of the
    reversed block. A last block that is shorter than the margin is joined to the one before.
    """
    before, block = None, None
    for following in blocks:
        if block is None or len(following) < margin:
            block = following if block is None else np.concatenate([block, following])
            continue
        if before is None:
            before = beyond(block[::-1], margin)[::-1]
        yield np.concatenate([before, block, following[:margin]])
        before, block = block[-margin:], following
    if block is not None:
        if before is None:
            before = beyond(block[::-1], margin)[::-1]
        yield np.concatenate([before, block, beyond(block, margin)])


def mirrored(block: np.ndarray, n_samples: int) -> np.ndarray:
    """What is before the end of a block (n, n_channels), backwards: (n_samples, n_channels).

    Zeros would make a step of a note that is cut; a step holds all frequencies, and a gain that opens the
    treble makes a click of it.
    """
    return np.pad(block, ((0, n_samples), (0, 0)), mode="reflect")[len(block) :]


def silent(block: np.ndarray, n_samples: int) -> np.ndarray:
    """Zeros (n_samples, n_channels), like `mirrored`."""
    return np.zeros((n_samples, block.shape[1]), dtype=np.float32)


def limited(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Turn peaks above `PEAK` down, all channels by the same gain, which moves within 10 ms.

    The smallest gain of a window, then the mean over such a window: no gain is larger than what its
    sample needs (a look-ahead limiter).
    """
    half = max(1, round(LIMITER_SECONDS * sample_rate))
    for chunk in with_context(blocks, 2 * half, silent):
        inner = slice(2 * half, len(chunk) - 2 * half)
        gain = PEAK / np.abs(chunk).max(axis=1).clip(PEAK)
        if gain.min() < 1:
            gain = uniform_filter1d(minimum_filter1d(gain, 2 * half + 1), 2 * half + 1)
            yield chunk[inner] * gain[inner, None].astype(np.float32)
        else:
            yield chunk[inner]


class _Power:
    """Power of a sound in segments, without the offset of each channel."""

    def __init__(self, segment: int) -> None:
        self._segment, self._parts = segment, []

    def add(self, block: np.ndarray) -> None:
        starts = np.arange(0, len(block), self._segment)
        block = block.astype(np.float64)
        sums = (np.add.reduceat(x, starts) for x in (block, np.square(block)))
        lengths = np.diff(np.append(starts, len(block)))
        self._parts.append((*sums, lengths[:, None]))

    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Energy of each segment and channel without the offsets, the offsets, and the lengths."""
        sums, squares, lengths = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        offset = sums.sum(axis=0) / lengths.sum()
        return (squares - 2 * offset * sums + offset**2 * lengths).clip(0), offset, lengths

    def of_segments(self) -> np.ndarray:
        """(n_segments,), summed over their samples and channels."""
        return self._moments()[0].sum(axis=1)

    def large_offset(self) -> np.ndarray:
        """Offsets of the channels (n_channels,), float32, where they take room from the sound; else 0."""
        energy, offset, lengths = self._moments()
        is_large = offset**2 > LARGE_OFFSET * energy.sum(axis=0) / lengths.sum()
        return np.where(is_large, offset, 0.0).astype(np.float32)


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
        content, result = _Power(segment), _Power(segment)
        lowest, highest = np.zeros(self.n_channels), np.zeros(self.n_channels)
        for x, y in self._counted(0, progress):
            content.add(x)
            result.add(y)
            lowest, highest = np.minimum(lowest, y.min(axis=0)), np.maximum(highest, y.max(axis=0))
        wanted, found = content.of_segments(), result.of_segments()
        sounding = wanted >= SOUNDING * wanted.max(initial=0.0)
        level = np.sqrt(wanted[sounding].sum() / max(found[sounding].sum(), 1e-20))
        offset = result.large_offset()
        peak = level * max((highest - offset).max(), (offset - lowest).max())
        level *= min(1.0, 10 ** (LIMITER_DB / 20) * PEAK / max(peak, 1e-9))
        final = _Power(segment)
        for block in limited(
            ((y - offset) * np.float32(level) for _, y in self._counted(self.n_samples, progress)),
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
