"""Sound in blocks (n_samples, n_channels): their neighbours, what follows the last, peaks and power.

`rendering` and ``audiostyle transfer`` make a result of any length with them, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import librosa
import numpy as np
from scipy.ndimage import minimum_filter1d, uniform_filter1d
from scipy.signal import lfilter, lfiltic

PEAK = 0.99
LIMITER_SECONDS = 0.01  # before and after a peak, in which the limiter moves
PREDICT_FROM, PREDICT_ORDER, PREDICT_NOISE = 4096, 64, 1e-5  # see `continued`


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


def continued(block: np.ndarray, n_samples: int) -> np.ndarray:
    """What may follow a block (n, n_channels): its partials go on, (n_samples, n_channels).

    A clip that is cut in the middle of a note ends with a step, which holds all frequencies, and a gain
    that opens the treble makes a click of it. Linear prediction (Burg's method) continues the note.
    """
    known = block[-PREDICT_FROM:].T.astype(np.float64)
    return np.stack([_predicted(x, n_samples) for x in known], axis=1).astype(np.float32)


def _predicted(x: np.ndarray, n_samples: int) -> np.ndarray:
    offset, order = x.mean(), min(PREDICT_ORDER, len(x) // 4)
    if order < 1 or x.std() < 1e-9:
        return np.full(n_samples, offset)
    rng = np.random.default_rng(0)
    # a little noise, without which the recursion may become unstable
    noise = PREDICT_NOISE * x.std() * rng.standard_normal(len(x))
    coefficients = librosa.lpc(x - offset + noise, order=order)
    state = lfiltic([1.0], coefficients, (x - offset)[::-1][:order])
    found, _ = lfilter([1.0], coefficients, np.zeros(n_samples), zi=state)
    is_stable = np.abs(found).max(initial=0.0) < 4 * np.abs(x - offset).max()  # False for NaN
    return (found if is_stable else np.zeros(n_samples)) + offset


def silent(block: np.ndarray, n_samples: int) -> np.ndarray:
    """Zeros (n_samples, n_channels), like `continued`."""
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


class Power:
    """Energy of a sound in segments, so short that what is below 20 Hz hardly moves in them."""

    def __init__(self, segment: int) -> None:
        self._segment, self._parts = segment, []

    def add(self, block: np.ndarray) -> None:
        starts = np.arange(0, len(block), self._segment)
        block = block.astype(np.float64)
        sums, squares = (np.add.reduceat(x, starts) for x in (block, np.square(block)))
        lengths = np.diff(np.append(starts, len(block)))[:, None]
        self._parts.append((squares - sums**2 / lengths).clip(0).sum(axis=1))

    def of_segments(self) -> np.ndarray:
        """(n_segments,), summed over their samples and channels, without the mean of each."""
        return np.concatenate(self._parts)
