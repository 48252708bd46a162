"""Plots of the notebooks: one look, one colour map for spectrograms, colour-blind-safe lines.

Functions take ``ax=None`` and return the figure and the axes.
"""

from __future__ import annotations

import numpy as np

from .config import AudioConfig

SPECTROGRAM_CMAP = "magma"
DIFFERENCE_CMAP = "RdBu_r"
# Okabe & Ito's palette, safe for the common colour-vision deficiencies
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def use_style() -> None:
    """Set matplotlib's defaults for the course."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLORS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "image.cmap": SPECTROGRAM_CMAP,
        }
    )


def _axes(ax, **kwargs):
    import matplotlib.pyplot as plt

    return plt.subplots(**kwargs) if ax is None else (ax.figure, ax)


def spectrogram(
    log_mel, config: AudioConfig, *, ax=None, title: str = "", top_db: float = 80.0, vmax=None
):
    """Log-mel in dB (n_mels, T) over seconds and Hz; `top_db` below `vmax` (its maximum) is black."""
    import librosa

    log_mel = np.asarray(log_mel)
    figure, ax = _axes(ax, figsize=(6, 2.6))
    vmax = log_mel.max() if vmax is None else vmax
    image = librosa.display.specshow(
        log_mel,
        sr=config.sample_rate,
        hop_length=config.hop_length,
        x_axis="time",
        y_axis="mel",
        ax=ax,
        cmap=SPECTROGRAM_CMAP,
        vmin=vmax - top_db,
        vmax=vmax,
        rasterized=True,  # a path per cell would make megabytes of SVG
    )
    ax.set(title=title, xlabel="time / s", ylabel="frequency / Hz")
    ax.grid(False)
    figure.colorbar(image, ax=ax, format="%+.0f", label="dB")
    return figure, ax


def curves(history: dict[str, list[float]], names, *, ylabel: str, ax=None, title: str = ""):
    """Curves of a training history over epochs, labelled by their names."""
    figure, ax = _axes(ax, figsize=(4.5, 3))
    for name in names:
        values = history[name]
        ax.plot(
            range(1, len(values) + 1), values, marker="." if len(values) < 4 else None, label=name
        )
    ax.set(xlabel="epoch", ylabel=ylabel, title=title)
    if len(names) > 1:
        ax.legend(frameon=False)
    return figure, ax


def bars(values: dict[str, float], *, xlabel: str, ax=None, title: str = "", highlight: str = ""):
    """Horizontal bars, one a name, with the numbers written beside them."""
    figure, ax = _axes(ax, figsize=(6, 0.45 * len(values) + 1))
    names = list(values)
    colors = [COLORS[1] if name == highlight else COLORS[0] for name in names]
    drawn = ax.barh(names, list(values.values()), color=colors)
    ax.bar_label(drawn, fmt="%.2f", padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=xlabel, title=title)
    ax.grid(axis="y", visible=False)
    return figure, ax


def blocks(rows: list[list[str]], *, ax=None, title: str = ""):
    """A chain of labelled boxes per row, joined by arrows: how data flows through modules.

    The last box of every row but the last also points to the first box of the last row.
    """
    width, height, gap = 2.5, 0.9, 0.7
    longest = max(len(row) for row in rows)
    figure, ax = _axes(ax, figsize=(1.9 * longest + 0.5, 1.35 * len(rows) + 0.4))
    arrow = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.2}
    offset = [0.0] * (len(rows) - 1) + [0.0]
    for y, row in enumerate(rows):
        for x, text in enumerate(row):
            left, bottom = x * (width + gap) + offset[y], -y * 1.6
            box = {
                "boxstyle": "round,pad=0.35",
                "fc": "white",
                "ec": COLORS[y % len(COLORS)],
                "lw": 1.6,
            }
            ax.text(left + width / 2, bottom, text, ha="center", va="center", fontsize=9, bbox=box)
            if x:
                ax.annotate("", (left + 0.1, bottom), (left - gap - 0.1, bottom), arrowprops=arrow)
    ax.set_xlim(-0.2, longest * (width + gap))
    ax.set_ylim(-1.6 * len(rows) + 0.7, height)
    ax.set_title(title)
    ax.axis("off")
    return figure, ax
