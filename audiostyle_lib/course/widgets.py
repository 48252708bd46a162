"""The listening room: choose content, style and strength, press Transfer, hear all three.

It needs a running kernel. The players of `listen` do not, so a notebook shows both. Used by
``notebooks/00_listen_first.ipynb``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..config import AudioConfig
from ..signal import audio
from . import listen


def listening_room(
    clips: dict[str, np.ndarray],
    transfer: Callable[[np.ndarray, np.ndarray, float], np.ndarray],
    *,
    config: AudioConfig | None = None,
):
    """Build the room.

    Parameters
    ----------
    clips : dict of str to np.ndarray [shape=(n_samples,)]
        Waveforms by label; an uploaded file joins them.
    transfer : callable
        Takes content and style (waveforms) and the strength, from 0 to 1; returns a waveform.
    config : AudioConfig, optional
        Its sample rate is that of the clips.

    Returns
    -------
    ipywidgets.VBox
        Children, top to bottom: content and style choices, strength, upload and button, message,
        players.
    """
    import ipywidgets as w

    config = config or AudioConfig()
    clips = dict(clips)
    labels = list(clips)
    content = w.Dropdown(options=labels, value=labels[0], description="content")
    style = w.Dropdown(options=labels, value=labels[-1], description="style")
    strength = w.FloatSlider(
        value=1.0, min=0.0, max=1.0, step=0.05, description="strength", continuous_update=False
    )
    upload = w.FileUpload(accept="audio/*", multiple=False, description="add a file")
    button = w.Button(description="Transfer", button_style="primary", icon="music")
    message, output = w.Label(), w.HTML()

    def run(_) -> None:
        button.disabled, message.value = True, "working ..."
        try:
            a, b = clips[content.value], clips[style.value]
            result = transfer(a, b, strength.value)
            shown = {"content": a, "style": b, f"result, strength {strength.value:.2f}": result}
            output.value = listen.players(shown, config).data
            message.value = f"{content.value} in the style of {style.value}"
        except audio.AudioError as error:
            message.value = str(error)
        except Exception as error:
            message.value = f"failed: {error}"
            raise
        finally:
            button.disabled = False

    def add(change) -> None:
        for item in change["new"]:
            try:
                clips[item["name"]] = _decode(bytes(item["content"]), item["name"], config)
            except audio.AudioError as error:
                message.value = str(error)
                continue
            for choice in (content, style):  # new options would go back to the first
                chosen = choice.value
                choice.options = list(clips)
                choice.value = chosen
            message.value = f"added {item['name']}"

    button.on_click(run)
    upload.observe(add, names="value")
    return w.VBox([w.HBox([content, style]), w.HBox([strength, upload, button]), message, output])


def _decode(data: bytes, name: str, config: AudioConfig) -> np.ndarray:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(data)
        return audio.read_audio(path, config=config, max_seconds=120.0)
