"""Every frame is in one piece, no error gets lost in a thread, and a forked child has its own threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiostyle_lib.signal import frames


@given(st.integers(0, 1000))
def test_pieces_cover_every_frame_once(n_frames):
    seen = []
    frames.for_each_piece(lambda first, last: seen.extend(range(first, last)), n_frames)
    assert sorted(seen) == list(range(n_frames))


def test_an_error_in_a_piece_is_raised():
    def fails_late(first, last):
        if first >= 2 * frames.PIECE:
            raise ValueError(f"piece {first}")

    with pytest.raises(ValueError, match="piece 128"):
        frames.for_each_piece(fails_late, 4 * frames.PIECE)


FORKED = """
import multiprocessing, torch
from audiostyle_lib import vocoding
from audiostyle_lib.config import AudioConfig

def vocode():
    log_mel = torch.linspace(-60, 0, 128)[:, None].expand(1, 128, 150)
    for vocoder in ("pghi", "neural"):
        vocoding.mel_to_waveform(log_mel, AudioConfig(), vocoder=vocoder)

before = torch.get_num_threads()
vocode()
assert torch.get_num_threads() == before
child = multiprocessing.get_context("fork").Process(target=vocode)
child.start()
child.join(30)
alive = child.is_alive()
child.kill()
raise SystemExit("the child hangs" if alive else child.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_forked_child_can_vocode_after_its_parent(threads):
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
