"""A run and what it leaves behind: figures, metrics with their definitions, provenance.

Every notebook begins with `open_run`. A run writes to ``figures/<profile>-<corpus>/``.
"""

from __future__ import annotations

import functools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from .. import config as cfg
from .. import corpora, paths

VERSIONS_OF = ("torch", "torchaudio", "librosa", "numpy", "symusic", "lightning-fabric")


@dataclass
class Run:
    """One notebook's part of a run."""

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
        return corpora.open_corpus(self.corpus_name, profile=self.profile, seed=self.seed)

    def checkpoint(self, name: str) -> Path:
        return self.folder / "checkpoints" / f"{name}.safetensors"

    def load_split(self, split: str):
        """Waveforms (n_tracks, n_samples) of a split and the valid samples of each."""
        return corpora.load_waveforms(
            self.corpus.split(split), config=self.config, seconds=self.profile.clip_seconds
        )

    def save_figure(self, figure, name: str) -> None:
        """Write `figure` as SVG and PNG, byte for byte the same on a re-run."""
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
        headline: bool = False,
    ) -> dict:
        """Record one number with everything a reader needs to judge it, and write the run's JSON.

        Parameters
        ----------
        name : what was measured, of which model
        value : one number, or one a seed in the order of `seeds`; stored are their mean and, with
            two or more, their sample standard deviation
        split : the data it was measured on
        unit : "dB", "s", ... or "1" for a pure number
        definition : one sentence; names the source where there is one
        trivial : the trivial predictor's value on the same data; None only where none can exist
        n : number of items behind the value
        trivial_name : which trivial predictor
        report : the report's value, if it has one
        tracks : number of tracks behind the value, where it is measured on tracks
        headline : show it in the README although the report has no such value
        """
        values = [float(v) for v in (value if isinstance(value, Sequence) else [value])]
        entry = {
            "name": name, "value": statistics.fmean(values),
            "spread": statistics.stdev(values) if len(values) > 1 else None, "seeds": len(values),
            "split": split, "unit": unit, "definition": definition,
            "trivial": None if trivial is None else float(trivial), "trivial_name": trivial_name,
            "report": report, "n": int(n), "tracks": tracks, "higher_is_better": higher_is_better,
            "headline": headline, "notebook": self.notebook, "cell": _calling_cell(self.notebook),
        }  # fmt: skip
        self.metrics = [m for m in self.metrics if (m["name"], m["split"]) != (name, split)]
        self.metrics.append(entry)
        text = json.dumps({"provenance": self.provenance(), "metrics": self.metrics}, indent=1)
        with paths.written_beside(self.folder / "metrics" / f"{self.notebook}.json") as temporary:
            temporary.write_text(text + "\n")
        return entry

    def provenance(self) -> dict:
        """Where a result comes from: profile, corpus and its hash, seed, device, versions, commit."""
        return {
            "profile": self.profile.name, "corpus": self.corpus_name,
            "corpus_sha256": self.corpus.sha256, "seed": self.seed, "seeds": self.profile.seeds,
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
    cells = json.loads((paths.NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
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
    notebook : the notebook's name, as in ``"05_content_vae"``
    profile : "smoke", "quick", "long" or "paper"
    corpus : "bands", "gtzan" or "auto"
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
        ["git", "-C", str(paths.ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.strip() or "unknown"


def read_metrics(folder: Path) -> tuple[list[dict], dict]:
    """All metrics of a run in the order of its notebooks, and the provenance of each notebook."""
    metrics, provenance = [], {}
    for part in sorted((folder / "metrics").glob("*.json")):
        content = json.loads(part.read_text())
        metrics += content["metrics"]
        provenance[part.stem] = content["provenance"]
    return metrics, provenance
