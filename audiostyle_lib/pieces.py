"""Frames in pieces that fit a processor's cache, worked on side by side by threads.

For compiled code that lets go of Python's lock. One pool for all of it: pools of several libraries that
take turns wait for each other while spinning.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numba

PIECE = 64  # frames


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def for_each_piece(function: Callable[[int, int], None], n_frames: int) -> None:
    """Call ``function(first, last)`` for pieces of `n_frames` frames, on numba's number of threads.

    An error in a piece is raised here.
    """
    first = range(0, n_frames, PIECE)
    last = [min(n_frames, a + PIECE) for a in first]
    list(_pool(numba.get_num_threads()).map(function, first, last))
