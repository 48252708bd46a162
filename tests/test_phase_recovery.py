"""Every frame is in one piece, and no error gets lost in a thread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiostyle_lib.signal import phase_recovery


@given(st.integers(0, 1000))
def test_pieces_cover_every_frame_once(n_frames):
    seen = []
    phase_recovery.for_each_piece(lambda first, last: seen.extend(range(first, last)), n_frames)
    assert sorted(seen) == list(range(n_frames))


def test_an_error_in_a_piece_is_raised():
    def fails_late(first, last):
        if first >= 2 * phase_recovery.PIECE:
            raise ValueError(f"piece {first}")

    with pytest.raises(ValueError, match="piece 128"):
        phase_recovery.for_each_piece(fails_late, 4 * phase_recovery.PIECE)
