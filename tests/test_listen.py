"""Players carry MP3 inside the page, at one level and at most six seconds long."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import soundfile as sf

from audiostyle_lib.course import listen
from audiostyle_lib.signal import audio

RATE = 22_050


def decoded(page: str) -> list[np.ndarray]:
    """The sounds of a page of players, checked to be MP3."""
    sounds = []
    for data in re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', page):
        content = base64.b64decode(data)
        info = sf.info(io.BytesIO(content))
        assert (info.format, info.channels, info.samplerate) == ("MP3", 1, RATE)
        sounds.append(sf.read(io.BytesIO(content), dtype="float32")[0])
    return sounds


def test_every_clip_has_a_player_of_mp3(clip, tone):
    page = listen.players({"content": clip(2.0), "a tone": tone(seconds=1.5)}).data
    assert page.count("<audio controls") == 2 == page.count('src="data:audio/mpeg;base64,')
    assert "audio/wav" not in page
    first, second = decoded(page)
    assert abs(len(first) - 2 * RATE) <= 2304 and abs(len(second) - 1.5 * RATE) <= 2304
    assert page.index("content") < page.index("a tone")


@pytest.mark.parametrize("amplitude", [1e-3, 0.1, 0.5])
def test_level_is_minus_20_dbfs_after_decoding(clip, amplitude):
    (sound,) = decoded(listen.players({"x": amplitude * clip(4.0)}).data)
    inner = sound[RATE // 10 : int(3.9 * RATE)]
    assert audio.rms_dbfs(inner) == pytest.approx(-20, abs=0.5)
    assert "each at -20 dBFS RMS" in listen.players({"x": clip(1.0)}).data


def test_peaky_clip_is_quieter_rather_than_clipped():
    clicks = 1e-3 * np.random.default_rng(0).standard_normal(2 * RATE)
    clicks[RATE // 2 :: RATE] = 1.0
    (sound,) = decoded(listen.players({"x": clicks}).data)
    assert audio.rms_dbfs(sound) < -25 and np.abs(sound).max() < 1.2  # MP3 overshoots a little


def test_at_most_six_seconds_from_the_start_asked_for(tone, peak_hz):
    x = np.concatenate([tone(300.0, 5.0), tone(900.0, 20.0)])
    page = listen.players({"x": x}, start=5.0).data
    (sound,) = decoded(page)
    assert len(sound) / RATE <= 6.11
    assert peak_hz(sound) == pytest.approx(900, abs=2)
    assert len(page) < 80_000  # 64 kbit/s in base64: 64 kB


def test_ends_are_faded_so_that_the_cut_does_not_click():
    (sound,) = decoded(listen.players({"x": np.ones(8 * RATE)}).data)
    start = int(np.argmax(np.abs(sound) > 0.03))
    rise = np.abs(np.diff(sound[start : start + 400])).max()
    assert rise < 0.02  # unfaded the first step is 0.1


def test_labels_are_escaped(clip):
    page = listen.players({"<b>A & B</b>": clip(0.5)}).data
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in page and "<b>" not in page


def test_clip_is_not_changed(clip):
    x = clip(1.0)
    before = x.copy()
    listen.players({"x": x})
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("samples", "start"),
    [(np.full(RATE, np.nan), 0.0), (np.full(RATE, np.inf), 0.0), (np.zeros(0), 0.0),
     (np.ones(RATE), 5.0)],
    ids=["NaN", "infinite", "empty", "ends before start"],
)  # fmt: skip
def test_what_cannot_be_heard_is_refused_by_name(samples, start):
    with pytest.raises(audio.AudioError, match="diverged"):
        listen.players({"diverged": samples}, start=start)
