"""A run and what it leaves behind: figures, metrics with their definitions, provenance.

Every notebook begins with `open_run`. A run writes to ``figures/runs/<profile>-<corpus>/``;
``audiostyle reproduce --store`` makes it the committed reference ``figures/<profile>-<corpus>/``.
"""

from __future__ import annotations

import functools
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from .. import config as cfg
from .. import corpora, paths
from ..errors import InputError

VERSIONS_OF = ("torch", "torchaudio", "librosa", "numpy", "symusic", "lightning-fabric")
# What is read of a metric and of the provenance of a notebook, so that others' JSON is refused.
_NUMBER = float | int | None
_METRIC = {
    "name": str, "split": str, "unit": str, "definition": str, "trivial_name": str, "notebook": str,
    "value": _NUMBER, "trivial": _NUMBER, "report": _NUMBER, "n": int, "higher_is_better": bool,
}  # fmt: skip
_PROVENANCE = {
    "profile": str, "corpus": str, "corpus_sha256": str, "seed": int, "device": str,
    "wall_seconds": float | int, "settings": dict,
}  # fmt: skip
TOLERANCE = 0.01  # of a metric, unless its notebook says otherwise; `compare.agrees` says of what


class _Recorded:
    """What has a list of `metrics`, found by name and split."""

    metrics: list[dict]

    def find(self, name: str, split: str | None) -> dict | None:
        """The metric of a name and split (the first of the name if that is None), None without one."""
        named = (m for m in self.metrics if m["name"] == name)
        return next((m for m in named if split in (None, m["split"])), None)

    def metric(self, name: str, split: str = "test") -> dict:
        """The metric of a name and split, as `Run.record_metric` describes it.

        Raises
        ------
        KeyError
            If there is none.
        """
        found = self.find(name, split)
        if found is None:
            raise KeyError(f"no metric {name!r} of split {split!r}")
        return found


@dataclass
class Run(_Recorded):
    """One notebook's part of a run; `folder` is that of the whole run."""

    notebook: str
    profile: cfg.Profile
    corpus_name: str
    seed: int
    device: str
    folder: Path
    config: cfg.AudioConfig = field(default_factory=cfg.AudioConfig)
    metrics: list[dict] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the trainings whose spread the profile asks for; the first is the run's own."""
        return [self.seed + i for i in range(self.profile.seeds)]

    @functools.cached_property
    def corpus(self) -> corpora.Corpus:
        """The run's corpus, opened when first asked for; `bands` is rendered if it is not there."""
        memory = self.folder / "checkpoints" / f"corpus-seed{self.seed}.json"
        return corpora.open_again(
            self.corpus_name, profile=self.profile, seed=self.seed, memory=memory
        )

    def checkpoint(self, name: str) -> Path:
        """Where the trained model called `name` is kept, for this notebook and later ones."""
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def load_split(self, split: str):
        """Load the clips of a split at the profile's length.

        Parameters
        ----------
        split : str
            "train", "valid" or "test".

        Returns
        -------
        waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
            Mono, at the sample rate of `config`.
        valid : list of int
            Samples of each clip before its padding begins.
        """
        return corpora.load_waveforms(
            self.corpus.split(split), config=self.config, seconds=self.profile.clip_seconds
        )

    def save_figure(self, figure, name: str) -> None:
        """Write a figure as SVG and PNG, byte for byte the same on a re-run.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
        name : str
            File name without suffix, in quotes in the notebook: ``--store`` looks for it there.
        """
        import matplotlib

        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
            for suffix, extra in (("svg", {"Date": None}), ("png", {"Software": None})):
                with paths.written_beside(self.folder / f"{name}.{suffix}") as temporary:
                    figure.savefig(temporary, metadata=extra, dpi=110, bbox_inches="tight")

    def record_metric(
        self,
        name: str,
        value: float | Sequence[float],
        *,
        split: str,
        unit: str,
        definition: str,
        trivial: float | None,
        n: int,
        trivial_name: str = "",
        report: float | None = None,
        higher_is_better: bool = False,
        tracks: int | None = None,
        error: float | None = None,
        tolerance: float | None = TOLERANCE,
    ) -> None:
        """Record one number with everything a reader needs to judge it, and write the run's JSON.

        Parameters
        ----------
        name : str
            What was measured, of which model.
        value : float or sequence of float
            One number, or one a seed in the order of `seeds`. Stored are their mean and, of two or more,
            their sample standard deviation; those of a diverged training (NaN or infinite) are counted
            and left out of both. The mean is None if all have diverged.
        split : str
            The data it was measured on.
        unit : str
            "dB", "s", "share" (of `n` items), ... or "1" for a pure number.
        definition : str
            One sentence; names the source where there is one.
        trivial : float or None
            The trivial predictor's value on the same data; None only where none can exist.
        n : int
            Number of items behind the value.
        trivial_name : str
            Which trivial predictor.
        report : float, optional
            The report's value.
        higher_is_better : bool
        tracks : int, optional
            Number of tracks behind the value, where it is measured on tracks.
        error : float, optional
            Twice the standard error of the difference from the trivial predictor, item by item.
        tolerance : float or None
            How far the value may be from the reference run's, see `compare.agrees`; larger where short
            trainings vary from machine to machine, None for speeds, which are never compared.
        """
        values = [float(v) for v in (value if isinstance(value, Sequence) else [value])]
        finite = [v for v in values if math.isfinite(v)]
        entry = {
            "name": name, "value": statistics.fmean(finite) if finite else None,
            "spread": statistics.stdev(finite) if len(finite) > 1 else None, "seeds": len(values),
            "diverged": len(values) - len(finite), "tolerance": tolerance,
            "split": split, "unit": unit, "definition": definition,
            "trivial": _finite(trivial), "trivial_name": trivial_name,
            "report": report, "n": int(n), "tracks": tracks, "error": error,
            "higher_is_better": higher_is_better,
            "notebook": self.notebook, "cell": _calling_cell(self.notebook),
        }  # fmt: skip
        self.metrics = [m for m in self.metrics if (m["name"], m["split"]) != (name, split)]
        self.metrics.append(entry)
        write_metrics(
            self.folder / "metrics" / f"{self.notebook}.json", self.metrics, self.provenance()
        )

    def provenance(self) -> dict:
        """Where a result comes from.

        Returns
        -------
        dict
            Profile, corpus, its hash and the tracks of each split, seed, number of seeds, all settings of
            the profile, device, commit ("-dirty" where tracked files were changed), versions, seconds
            since the notebook began.
        """
        return {
            "profile": self.profile.name, "corpus": self.corpus_name,
            "corpus_sha256": self.corpus.sha256,
            "tracks": {s: len(self.corpus.split(s)) for s in ("train", "valid", "test")},
            "seed": self.seed, "seeds": self.profile.seeds, "settings": asdict(self.profile),
            "device": device_name(self.device),
            "commit": _commit(), "python": platform.python_version(),
            "versions": {name: metadata.version(name) for name in VERSIONS_OF},
            "wall_seconds": round(time.time() - self.started, 1),
        }  # fmt: skip


def _calling_cell(notebook: str) -> str | None:
    """Id of the cell of `notebook` whose source is being executed; None outside of a notebook."""
    if "IPython" not in sys.modules:
        return None
    shell = sys.modules["IPython"].get_ipython()
    if shell is None or not (paths.NOTEBOOKS / f"{notebook}.ipynb").is_file():
        return None
    source = shell.user_ns.get("In", [""])[-1].strip()
    cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    return next((c["id"] for c in cells if "".join(c["source"]).strip() == source), None)


def open_run(
    notebook: str,
    *,
    profile: str = "quick",
    corpus: str = "auto",
    seed: int = 0,
    device: str = "auto",
) -> Run:
    """Begin a notebook: check the parameters, seed everything, choose the device, set plot styles.

    Parameters
    ----------
    notebook : str
        The notebook's name, as in ``"05_content_vae"``.
    profile : str
        "smoke", "quick", "long" or "paper".
    corpus : str
        "bands", "gtzan" or "auto".
    seed : int
        Of the corpus `bands`, of stratified splits and of the first training.
    device : str
        "cpu", "cuda" or "auto".

    Raises
    ------
    ValueError
        If there is no such profile or corpus.
    """
    from . import plots

    chosen = cfg.profile(profile)
    corpus = corpora.resolve(corpus)
    cfg.set_deterministic(seed)
    plots.use_style()
    folder = paths.runs() / f"{profile}-{corpus}"
    return Run(notebook, chosen, corpus, seed, cfg.choose_device(device), folder)


def device_name(device: str) -> str:
    """Name of the processor behind "cpu" or "cuda"."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


@functools.cache
def _commit() -> str:
    result = subprocess.run(
        ["git", "-C", str(paths.ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.strip() or "unknown"


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


# Reading ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results(_Recorded):
    """Metrics and provenance that one run has left."""

    name: str  # "<profile>-<corpus>"
    metrics: list[dict]  # in the order of the notebooks
    provenance: dict[str, dict]  # by notebook

    @property
    def shared(self) -> dict:
        """Provenance that the notebooks of a run share, such as its profile and corpus."""
        return next(iter(self.provenance.values()))

    def settings(self, notebook: str) -> dict:
        """The profile's settings when a notebook ran: today's profile of that name may be another."""
        return self.provenance[notebook]["settings"]


def read_run(folder: Path) -> Results:
    """Read what the notebooks of a run recorded; a reference has its ``metrics.json`` alone.

    Raises
    ------
    InputError
        If `folder` holds no metrics, or a file there is not what a run writes.
    """
    folder = paths.expanded(folder)
    metrics, provenance = [], {}
    for part in sorted((folder / "metrics").glob("*.json")):
        found, of_notebook = _read_metrics(part, part.stem)
        metrics += found
        provenance |= of_notebook
        times = folder / "times" / part.name  # left by the pipeline
        if times.is_file():
            provenance[part.stem]["seconds_by_section"] = _read_json(times)
    merged = folder / "metrics.json"
    if not metrics and merged.is_file():
        metrics, provenance = _read_metrics(merged)
    if not metrics:
        raise InputError(f"{folder}: no metrics of a run here; run `audiostyle reproduce`")
    return Results(folder.name, metrics, provenance)


def _read_json(file: Path):
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error})") from error


def _read_metrics(file: Path, notebook: str | None = None) -> tuple[list[dict], dict]:
    """What `write_metrics` wrote of one notebook, or of all: metrics, and provenance by notebook."""
    content = _read_json(file)
    if not _has(content, {"metrics": list, "provenance": dict}):
        raise InputError(f"{file}: not the metrics of a run")
    metrics, provenance = content["metrics"], content["provenance"]
    provenance = provenance if notebook is None else {notebook: provenance}
    for i, entry in enumerate(metrics, start=1):
        complete = _has(entry, _METRIC) and entry["notebook"] in provenance
        if not complete or (entry["value"] is None and not entry.get("diverged")):
            raise InputError(f"{file}: entry {i} is no metric of a run")
    for name, facts in provenance.items():
        if not _has(facts, _PROVENANCE):
            raise InputError(f"{file}: does not say how {name} was run")
    return metrics, provenance


def _has(entry, wanted: dict[str, type]) -> bool:
    """Whether `entry` is a dictionary with all that is wanted, each of its type."""
    return isinstance(entry, dict) and all(
        key in entry and isinstance(entry[key], kind) for key, kind in wanted.items()
    )


def write_metrics(path: Path, metrics: list[dict], provenance: dict) -> None:
    """Write metrics with their provenance as JSON that any reader takes, without NaN or Infinity."""
    content = {"provenance": provenance, "metrics": metrics}
    with paths.written_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def number(value: float | None, spread: float | None = None) -> str:
    """`value` to four significant digits or, with a spread, to the digits that the spread leaves."""
    if value is None:
        return ""
    if not spread:
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(spread)))
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


def shown(metric: dict) -> str:
    """A metric's value with its spread, and how many of its seeds diverged."""
    text = number(metric["value"], metric.get("spread"))
    if not metric.get("diverged"):
        return text
    diverged = f"diverged: {metric['diverged']} of {metric['seeds']} seeds"
    return f"{text} ({diverged})" if text else diverged
