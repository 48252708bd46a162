"""What the report claims and what became of it: one row a claim, with a verdict in words.

Used by ``notebooks/11_report.ipynb``, and for ``report.md`` in a run's folder and the README's table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

from .run import TOLERANCE, Results, number

BANDS, REAL = "bands", "real clips"
HEADER = [
    "the report's claim", "report", BANDS, REAL, "trivial predictor", "training", "verdict", "cell",
]  # fmt: skip
LEFT = -1.5  # end of the plot's scale, for a report's value far behind the trivial predictor
# How long each notebook trains what it records; what is in closed form, as PCA, is not trained.
TRAINING: dict[str, tuple[Callable[[SimpleNamespace], int], str]] = {
    "03_failed_resnet": (lambda p: p.baseline_epochs, "epochs"),
    "04_failed_linear": (lambda p: p.baseline_epochs, "epochs"),
    "05_content_vae": (lambda p: p.epochs * p.steps_per_epoch, "steps"),
    "06_style_encoder": (lambda p: p.epochs, "epochs"),
    "07_recombination": (lambda p: p.transfer_steps, "steps"),
    "08_vocoding": (lambda p: p.vocoder_steps, "steps"),
}


@dataclass(frozen=True)
class Found:
    """A metric on one corpus, with what a verdict needs to know of it."""

    where: str  # `BANDS` or `REAL`
    metric: dict
    run: Results

    def other(self, name: str) -> dict:
        """Another metric of the same split of the same run."""
        return self.run.metric(name, self.metric["split"])

    @property
    def lead(self) -> float:
        """How much better than the trivial predictor; negative where it is worse."""
        return _lead(self.metric, self.metric["value"], self.metric["trivial"])

    @property
    def is_ahead(self) -> bool:
        return self.lead > _noise(self.metric)

    @property
    def skill(self) -> float | None:
        """Share of the trivial predictor's error that is gone, see `skill`."""
        return skill(self.metric, self.metric["value"])


@dataclass(frozen=True)
class Claim:
    """A claim of the report, the metric that tests it and how its verdict is found."""

    text: str
    report: str  # its number, as it is shown
    name: str  # of the metric
    verdict: Callable[[Found], tuple[str, str]]  # of one corpus: words, and numbers after them
    split: str | None = "test"  # None: whichever the metric has
    against: str = ""  # metric that stands for the trivial predictor, if it is not the metric's own
    on_scale: bool = True  # whether report and ours can be drawn on one scale
    training: str = ""  # where it is not the notebook's own


def _lead(metric: dict, ours: float, other: float) -> float:
    return (ours - other) * (1 if metric["higher_is_better"] else -1)


def _noise(metric: dict) -> float:
    """Differences up to this say nothing: spread over seeds or items, and what machines differ by."""
    tolerance = metric.get("tolerance", TOLERANCE) or 0.0
    spread = (metric.get("spread") or 0.0) + (metric.get("error") or 0.0)
    return spread + tolerance * abs(metric["value"]) / 10


def skill(metric: dict, value: float | None) -> float | None:
    """Skill score of a value: 1 - error / error of the trivial predictor.

    Zero is the trivial predictor and one is perfect (A. H. Murphy, Monthly Weather Review 116, 1988).

    Parameters
    ----------
    metric : dict
        Entry of ``metrics.json``.
    value : float or None
        The metric's value, or the report's.

    Returns
    -------
    float or None
        None where the metric has no best value, or the trivial predictor reaches it.
    """
    if not metric["higher_is_better"]:
        best = 0.0
    else:
        best = {"1": 1.0, "share": 1.0, "MOS": 5.0}.get(metric["unit"])
    trivial = metric["trivial"]
    if None in (best, value, trivial) or best == trivial:
        return None
    return 1 - (best - value) / (best - trivial)


# Verdicts -----------------------------------------------------------------------------------------


def _meaning(f: Found) -> tuple[str, str]:
    m = f.metric
    if _lead(m, m["trivial"], m["report"]) > 0:
        return f"cannot mean what it says: the {m['trivial_name']} alone has more", ""
    return _reached(f)


def _reached(f: Found) -> tuple[str, str]:
    m = f.metric
    name = m["trivial_name"].split(",")[0]
    ours, theirs = (_lead(m, m[key], m["report"]) >= 0 for key in ("value", "trivial"))
    if ours and theirs:
        return f"better, but so is {name}", ""
    if ours:
        return f"reproduced; {name} stays behind", ""
    return f"not reached; {'ahead of' if f.is_ahead else 'no better than'} {name}", ""


def _generalises(f: Found) -> tuple[str, str]:
    test = f.run.metric(f.metric["name"], "test")["value"]
    word = "refuted" if test < f.metric["value"] else "reproduced"
    return f"{word}: the test has", number(test)


def _overfits(f: Found) -> tuple[str, str]:
    if not f.is_ahead:
        return "not found", ""
    return "reproduced, with few tracks: known ones are rebuilt better", ""


def _no_unit(f: Found) -> tuple[str, str]:
    squared = f.other(f.metric["name"].replace("L1", "MSE"))["value"]
    return "cannot be compared, it names no unit: as squared error in dB² ours is", number(squared)


def _needs_convolution(f: Found) -> tuple[str, str]:
    if not f.is_ahead:
        return "refuted: PCA, a linear model, is as good", ""
    return "true; beside PCA, a linear model, the error falls by", _percent(f)


def _shapes(f: Found) -> tuple[str, str]:
    beside = "better" if f.is_ahead else "worse"
    return f"refuted: cropped to the input's shape, it trains; {beside} than PCA", ""


def _unstable(f: Found) -> tuple[str, str]:
    sgd = f.other("ResNet with raw scalars joined (SGD), trainings that pass")
    adamw_fails, sgd_fails = (m["value"] < m["trivial"] for m in (f.metric, sgd))
    if adamw_fails != sgd_fails:
        one, other = ("AdamW", "SGD") if adamw_fails else ("SGD", "AdamW")
        return f"reproduced with {one}, not with {other}", ""
    word = "reproduced: fewer pass than" if adamw_fails else "not reproduced: as many pass as"
    return f"{word} without, with AdamW and with SGD", ""


def _degrades(f: Found) -> tuple[str, str]:
    raw, standardised = (
        f.other(f"autoencoder (joined {how}, 8 frames), R2") for how in ("raw", "standardised")
    )
    harmed = [_lead(m, m["value"], m["trivial"]) < -_noise(m) for m in (raw, standardised)]
    word = "reproduced" if harmed[0] else "refuted"
    harm = "harm as well" if harmed[1] else "do no harm"
    return f"{word} with raw scalars; standardised ones {harm}:", number(standardised["value"])


def _improves(f: Found) -> tuple[str, str]:
    if f.is_ahead:
        return "reproduced", ""
    return ("refuted: it is worse" if -f.lead > _noise(f.metric) else "no difference found"), ""


def _nearer(f: Found) -> tuple[str, str]:
    if f.is_ahead:
        return "nearer to the truth than the content itself by", _percent(f)
    word = "farther from" if -f.lead > _noise(f.metric) else "no nearer to"
    return f"{word} the truth than the content itself", ""


def _solved(f: Found) -> tuple[str, str]:
    return ("solved: the result can be heard" if f.is_ahead else "not solved"), ""


def _percent(f: Found) -> str:
    return f"{100 * f.skill:.0f} %"


PAIRED = "bands test triplets"
CLAIMS = (
    Claim(
        "content is kept: test cosine (IV.A), if taken in dB",
        "0.9337", "content VAE, cosine in dB below the maximum", _meaning,
    ),
    Claim(
        "the same on standardised bands, where a constant scores zero",
        "0.9337", "content VAE, clip cosine", _reached,
    ),
    Claim(
        "it generalises: test (0.9337) above training (IV.A)",
        "0.9294", "content VAE, clip cosine", _generalises, split="train",
    ),
    Claim(
        "style features are rebuilt: R² (IV.B), ours of the test",
        "0.9596", "style autoencoder, R2", _reached,
    ),
    Claim(
        "the style encoder may overfit (V), R² split by segment",
        "none", "style autoencoder, few tracks, split by segment, R2", _overfits,
        training="fewer steps by segment than by track",
    ),
    Claim(
        "linear models: losses stay high (II.B.2), ours in dB",
        "about 14", "autoencoder (linear, 8 frames), L1", _no_unit, on_scale=False,
    ),
    Claim(
        "spectrograms need convolutions (II.B.2), R²",
        "none", "content VAE, R2", _needs_convolution,
    ),
    Claim(
        "ResNet: the shapes never match (II.C.2), cosine",
        "none", "ResNet autoencoder with spatial code, cosine", _shapes,
    ),
    Claim(
        "ResNet with scalars does not converge (II.B.1), share that does with AdamW",
        "none", "ResNet with raw scalars joined, trainings that pass", _unstable, split="valid",
        training="as many steps with and without",
    ),
    Claim(
        "scalars make linear models worse (II.B.2), R²",
        "none", "autoencoder (joined raw, 8 frames), R2", _degrades,
    ),
    Claim(
        "augmentation helps generalisation (II.A), cosine",
        "none", "content VAE, short training, as above, cosine", _improves,
        against="content VAE, short training, no copies, cosine",
        training="as many steps with and without",
    ),
    Claim(
        "the report's recombination (III.C), LSD in dB",
        "none", "report's design, tier 1, LSD time", _nearer, split=PAIRED,
    ),
    Claim(
        "beside it, a gain network learned from pairs, LSD in dB",
        "none", "gain network, this run, tier 1, LSD time", _nearer, split=PAIRED,
    ),
    Claim(
        "the way back to a waveform is missing (II.C.5), ViSQOL of PGHI",
        "none", "pghi, ViSQOL", _solved, split=None, training="none",
    ),
)  # fmt: skip


# The table ----------------------------------------------------------------------------------------


def find(claim: Claim, runs: list[Results]) -> list[Found]:
    """A claim's metric on each corpus, from the first run of that corpus that holds it."""
    found = {}
    for run in runs:
        where = REAL if run.shared["corpus"] == "gtzan" else BANDS
        metric = run.find(claim.name, claim.split)
        if where in found or metric is None or metric["value"] is None:
            continue
        if claim.against:
            other = run.metric(claim.against, claim.split)
            metric = metric | {"trivial": other["value"], "trivial_name": "without"}
        found[where] = Found(where, metric, run)
    return [found[where] for where in (BANDS, REAL) if where in found]


def training(runs: list[Results], notebook: str) -> str:
    """How long a notebook trains in each of these runs; nothing where it trains nothing of its own."""
    if notebook not in TRAINING:
        return ""
    count, unit = TRAINING[notebook]
    counts = [count(SimpleNamespace(**run.settings(notebook))) for run in runs]
    return f"{_each([f'{n:,}'.replace(',', ' ') for n in counts])} {unit}"


def link(metric: dict, notebooks: str) -> str:
    """Link to the cell that made a metric; `notebooks` is the path of their folder, with a slash."""
    cell = f"#cell-id={metric['cell']}" if metric.get("cell") else ""
    return f"[{metric['notebook'][:2]}]({notebooks}{metric['notebook']}.ipynb{cell})"


def _verdict(claim: Claim, found: list[Found]) -> str:
    """One verdict where both corpora agree in words, else one for each."""
    verdicts = {f.where: claim.verdict(f) for f in found}
    if len({words for words, _ in verdicts.values()}) > 1:
        return "; ".join(f"{where}: {' '.join(v).strip()}" for where, v in verdicts.items())
    numbers = _each([numbers for _, numbers in verdicts.values()])
    return f"{next(iter(verdicts.values()))[0]} {numbers}".strip()


def _each(values: list[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def rows(runs: list[Results], *, notebooks: str) -> list[list[str]]:
    """The table's rows, cells as in `HEADER`; claims that no run has a metric for are left out.

    Parameters
    ----------
    runs : list of Results
        The run itself first, then the reference runs that fill the other corpus's column.
    notebooks : str
        Path of the folder of notebooks, with a slash at its end, as seen from where the table will stand.
    """
    made = []
    for claim in CLAIMS:
        found = find(claim, runs)
        if not found:
            continue
        values = {f.where: number(f.metric["value"]) for f in found}
        trivial = _each([number(f.metric["trivial"]) for f in found])
        m = found[0].metric
        made.append([
            claim.text, claim.report, values.get(BANDS, "none"), values.get(REAL, "none"),
            f"{trivial} {m['trivial_name']}",
            claim.training or training([f.run for f in found], m["notebook"]),
            _verdict(claim, found), link(m, notebooks),
        ])  # fmt: skip
    return made


def plot(runs: list[Results]):
    """Draw every claim's values as skill scores: report, ours and the trivial predictor at zero.

    Returns
    -------
    matplotlib.figure.Figure, matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    from .plots import COLORS

    drawn = [(c, found) for c in CLAIMS if c.on_scale and (found := find(c, runs))]
    drawn = [(c, found) for c, found in drawn if any(f.skill is not None for f in found)]
    figure, ax = plt.subplots(figsize=(9.5, 0.36 * len(drawn) + 1.2))
    marks = {"report": ("D", COLORS[6]), BANDS: ("o", COLORS[0]), REAL: ("s", COLORS[1])}
    beside = {"report": 0, BANDS: 0.15, REAL: -0.15}
    for y, (_, found) in enumerate(reversed(drawn)):
        points = {f.where: f.skill for f in found}
        points["report"] = skill(found[0].metric, found[0].metric["report"])
        for name, x in points.items():
            if x is None:
                continue
            marker, color = marks[name] if x >= LEFT else ("<", marks[name][1])
            ax.plot(max(x, LEFT), y + beside[name], marker, color=color, markersize=6)
    for name, (marker, color) in marks.items():
        ax.plot([], [], marker, color=color, label=name)
    ax.axvline(0, color="0.4", linewidth=1.5, label="trivial predictor")
    ax.axvline(1, color="0.4", linewidth=1, linestyle=":", label="perfect")
    ax.set_yticks(range(len(drawn)), [c.text for c, _ in reversed(drawn)], fontsize=9)
    ax.set(
        xlabel="skill: share of the trivial predictor's error that is gone", xlim=(LEFT - 0.1, 1.05)
    )
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    return figure, ax
