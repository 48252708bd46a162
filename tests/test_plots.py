"""Plots show the numbers they were given, in the units they name."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from audiostyle_lib.course import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")
    plt.rcdefaults()


def test_spectrogram_spans_seconds_hz_and_80_db(config):
    log_mel = np.linspace(-120, -10, 128 * 87).reshape(128, 87)
    figure, ax = plots.spectrogram(log_mel, config, title="x")
    mesh = ax.collections[0]
    assert mesh.get_clim() == (-90, -10)
    np.testing.assert_allclose(mesh.get_array().reshape(128, 87), log_mel)
    assert ax.get_xlim()[1] == pytest.approx(87 * 512 / 22_050, rel=0.02)
    assert ax.get_ylim()[1] == pytest.approx(22_050 / 2, rel=0.02)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time / s", "frequency / Hz")
    assert ax.figure is figure and len(figure.axes) == 2  # and a colour bar


def test_curves_count_epochs_from_one_on_the_given_axes():
    _, axes = plt.subplots(1, 2)
    history = {"train_loss": [3.0, 2.0, 1.0], "valid": [4.0, 3.0, 2.5], "other": [0.0]}
    _, ax = plots.curves(history, ["train_loss", "valid"], ylabel="dB", ax=axes[1])
    assert ax is axes[1]
    assert [line.get_xdata().tolist() for line in ax.lines] == [[1, 2, 3]] * 2
    assert all(tick == int(tick) for tick in ax.get_xticks())
    assert [line.get_ydata().tolist() for line in ax.lines] == [
        history["train_loss"],
        history["valid"],
    ]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["train_loss", "valid"]
    _, ax = plots.curves(history, {"valid": "held out", "other": "trivial"}, ylabel="dB")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["held out", "trivial"]


def test_bars_are_labelled_with_their_values_from_top_to_bottom():
    _, ax = plots.bars({"copy": 14.62, "ours": 9.8}, xlabel="LSD / dB", highlight="ours")
    assert [bar.get_width() for bar in ax.patches] == [14.62, 9.8]
    assert {"14.62", "9.80"} <= {t.get_text() for t in ax.texts}
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()


def test_bars_on_shared_axes_stand_from_top_to_bottom_too():
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, sharey=True)
    for ax in axes:
        plots.bars({"copy": 1.0, "ours": 2.0}, xlabel="LSD / dB", ax=ax)
    assert all(ax.yaxis_inverted() for ax in axes)


def test_blocks_draw_every_box_and_the_arrows_between():
    _, ax = plots.blocks([["a", "b", "c"], ["d"]], ["e", "f"])
    assert [t.get_text() for t in ax.texts if t.get_text()] == ["a", "b", "c", "d", "e", "f"]
    arrows = [t for t in ax.texts if getattr(t, "arrow_patch", None)]
    assert len(arrows) == 2 + 1 + 2  # inside the chains, and from either branch to the trunk
