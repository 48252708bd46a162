"""Plots of the notebooks: one look, one colour map for spectrograms, colour-blind-safe lines.

Every function draws on the axes `ax` (matplotlib.axes.Axes) or, without them, on a figure of its own, and
returns the figure and the axes. Used by all notebooks.
"""

from __future__ import annotations

import numpy as np

from ..config import AudioConfig

SPECTROGRAM_CMAP = "magma"
TOP_DB = 80.0  # of a spectrogram's colours
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


def spectrogram(log_mel, config: AudioConfig, *, ax=None, title: str = "", vmax=None):
    """Draw a log-mel over seconds and Hz.

    Parameters
    ----------
    log_mel : np.ndarray or torch.Tensor [shape=(n_mels, T)]
        In dB.
    config : AudioConfig
        Front end of the log-mel, for the axes.
    ax : matplotlib.axes.Axes, optional
    title : str
    vmax : float, optional
        Level in dB of the brightest colour, by default the maximum. 80 dB below it is black.

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
    """
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
        vmin=vmax - TOP_DB,
        vmax=vmax,
        rasterized=True,  # a path per cell would make megabytes of SVG
    )
    ax.set(title=title, xlabel="time / s", ylabel="frequency / Hz")
    ax.grid(False)
    figure.colorbar(image, ax=ax, format="%+.0f", label="dB")
    return figure, ax


def curves(history: dict[str, list[float]], names, *, ylabel: str, ax=None, title: str = ""):
    """Draw curves of a training over epochs.

    Parameters
    ----------
    history : dict of str to list of float
        What `training.loop.fit` returns: one value an epoch.
    names : sequence of str, or dict of str to str
        Which curves to draw, with their labels in a dict; a curve without one is labelled by its name.
    ylabel : str
    ax : matplotlib.axes.Axes, optional
    title : str

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
    """
    figure, ax = _axes(ax, figsize=(4.5, 3))
    labels = names if isinstance(names, dict) else {name: name for name in names}
    for name, label in labels.items():
        values = history[name]
        marker = "." if len(values) < 4 else None
        ax.plot(range(1, len(values) + 1), values, marker=marker, label=label)
    ax.set(xlabel="epoch", ylabel=ylabel, title=title)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(names) > 1:
        ax.legend(frameon=False)
    return figure, ax


def bars(
    values: dict[str, float],
    *,
    xlabel: str,
    ax=None,
    title: str = "",
    highlight: str = "",
    fmt: str = "%.2f",
):
    """Draw horizontal bars, one a name, with the numbers written beside them.

    Parameters
    ----------
    values : dict of str to float
    xlabel : str
    ax : matplotlib.axes.Axes, optional
    title : str
    highlight : str
        Name of the bar in another colour.
    fmt : str
        Format of the numbers.

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
    """
    figure, ax = _axes(ax, figsize=(6, 0.45 * len(values) + 1))
    names = list(values)
    colors = [COLORS[1] if name == highlight else COLORS[0] for name in names]
    drawn = ax.barh(names, list(values.values()), color=colors)
    ax.bar_label(drawn, fmt=fmt, padding=3)
    if not ax.yaxis_inverted():  # two axes may share it
        ax.invert_yaxis()
    ax.margins(x=0.15)
    ax.set(xlabel=xlabel, title=title)
    ax.grid(axis="y", visible=False)
    return figure, ax


def blocks(branches: list[list[str]], trunk: list[str], *, title: str = ""):
    """Draw chains of labelled boxes that meet: how data flows from several inputs through shared modules.

    Parameters
    ----------
    branches : list of list of str
        Labels of each chain from its input on; the chains are drawn below one another.
    trunk : list of str
        Labels of the chain that the ends of all branches lead to.
    title : str

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    step, height = 3.2, 1.9
    longest = max(len(branch) for branch in branches)
    n_columns = longest + len(trunk)
    figure, ax = plt.subplots(figsize=(2.3 * n_columns, 1.4 * len(branches)))
    middle = -height * (len(branches) - 1) / 2
    chains = [(branch, 0, -height * y) for y, branch in enumerate(branches)]
    chains.append((trunk, longest, middle))
    arrow = {"arrowstyle": "-|>", "color": "#444444", "lw": 1.2, "shrinkA": 58, "shrinkB": 58}
    for color, (chain, column, y) in zip(COLORS, chains, strict=False):
        box = {"boxstyle": "round,pad=0.35", "fc": "white", "ec": color, "lw": 1.6}
        for i, text in enumerate(chain):
            x = step * (column + i)
            ax.text(x, y, text, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
            if i:
                ax.annotate("", (x, y), (x - step, y), arrowprops=arrow)
        if chain is not trunk:
            end = (step * (len(chain) - 1), y)
            ax.annotate("", (step * longest, middle), end, arrowprops=arrow)
    ax.set_xlim(-0.5 * step, step * (n_columns - 0.5))
    ax.set_ylim(-height * (len(branches) - 0.5), 0.5 * height)
    ax.set_title(title)
    ax.axis("off")
    return figure, ax
