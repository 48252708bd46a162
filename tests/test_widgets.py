"""The listening room, operated without a browser."""

from __future__ import annotations

import datetime
import io

import ipywidgets
import numpy as np
import pytest
import soundfile as sf

from audiostyle_lib.course import widgets
from audiostyle_lib.signal import audio

RATE = 22_050


class Room:
    """The parts of a listening room by what they do, and the calls of its transfer function."""

    def __init__(self, clips, transfer=None):
        self.calls = []

        def recorded(content, style, strength):
            self.calls.append((content, style, strength))
            return transfer(content, style) if transfer else 0.5 * content

        box = widgets.listening_room(clips, recorded)
        assert isinstance(box, ipywidgets.VBox)
        choices, controls, self.message, self.output = box.children
        self.content, self.style = choices.children
        self.strength, self.upload, self.button = controls.children

    def send(self, name: str, data: bytes) -> None:
        item = {
            "name": name,
            "type": "audio/wav",
            "size": len(data),
            "content": memoryview(data),
            "last_modified": datetime.datetime(2026, 1, 1),
        }
        self.upload.value = (item,)


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def clips(clip, tone):
    return {"piano": clip(1.0), "flute": tone(880.0), "drums": clip(1.0, 5)}


def test_button_makes_three_players(clips):
    room = Room(clips)
    assert (room.content.value, room.style.value, room.output.value) == ("piano", "drums", "")
    room.content.value, room.style.value, room.strength.value = "flute", "piano", 0.25
    room.button.click()
    ((content, style, strength),) = room.calls
    assert content is clips["flute"] and style is clips["piano"] and strength == 0.25
    assert room.output.value.count("data:audio/mpeg;base64,") == 3
    assert "result, strength 0.25" in room.output.value
    assert room.message.value == "flute in the style of piano" and not room.button.disabled


def test_uploaded_file_joins_the_clips_and_is_used(clips, tone):
    room = Room(clips)
    room.content.value, room.style.value = "flute", "drums"
    room.send("mine.wav", wav(tone(330.0, 1.0, sample_rate=44_100), 44_100))
    assert room.message.value == "added mine.wav"
    assert "mine.wav" in room.content.options and "mine.wav" in room.style.options
    assert (room.content.value, room.style.value) == ("flute", "drums"), "choices are kept"
    room.style.value = "mine.wav"
    room.button.click()
    np.testing.assert_allclose(room.calls[0][1][1000:-1000], tone(330.0)[1000:-1000], atol=1e-3)
    assert "mine.wav" not in clips, "the caller's dictionary is left alone"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not audio " * 100, "not readable as audio"),
        (b"", "is empty"),
        (wav(np.zeros(RATE)), "is silent"),
        (wav(np.full(100, 0.1)), "shorter than one window"),
        (wav(np.full(121 * 8000, 0.1), 8000), "at most 2 are taken"),
    ],
)
def test_bad_upload_gives_a_message_and_changes_nothing(clips, data, reason):
    room = Room(clips)
    room.send("bad.wav", data)
    assert "bad.wav" in room.message.value and reason in room.message.value
    assert "bad.wav" not in room.content.options
    room.button.click()
    assert room.output.value.count("data:audio/mpeg;base64,") == 3


def test_transfer_that_refuses_gives_its_reason(clips):
    def refuse(content, style):
        raise audio.AudioError("style: is silent")

    room = Room(clips, refuse)
    room.button.click()
    assert room.message.value == "style: is silent" and room.output.value == ""
    assert not room.button.disabled


def test_unexpected_error_is_shown_and_the_button_comes_back(clips, caplog):
    def fail(content, style):
        raise RuntimeError("out of memory")

    room = Room(clips, fail)
    room.button.click()
    assert room.message.value == "failed: out of memory" and not room.button.disabled
    assert "RuntimeError: out of memory" in caplog.text, "the traceback is logged"
