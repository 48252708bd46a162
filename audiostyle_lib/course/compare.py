"""Whether a run gives the same metrics as its reference.

A run on another machine does not give the same digits: its trainings round differently. So each metric
has a tolerance, stored with it. Used by ``audiostyle reproduce``, ``audiostyle compare`` and
``notebooks/11_report.ipynb``.
"""

from __future__ import annotations

from pathlib import Path

from .. import paths
from .run import TOLERANCE, Results, read_run, shown


def tolerance(metric: dict, reference: dict) -> float | None:
    """The tolerance of a metric: the reference's or, if that was stored without one, the run's own."""
    return reference.get("tolerance", metric.get("tolerance", TOLERANCE))


def agrees(metric: dict, reference: dict) -> bool:
    """Whether a metric agrees with the reference's value of it.

    They agree if they differ by no more than the tolerance times the reference value, or times a tenth
    of the trivial predictor's value where that is larger, plus the reference's spread over seeds. Shares
    of n items may always differ by one item.

    Parameters
    ----------
    metric, reference : dict
        Entries of ``metrics.json``. Their `tolerance` must not be None.

    Returns
    -------
    bool
        If seeds of one of them diverged, whether those of the other did, too.

    Notes
    -----
    The trivial predictor gives the scale of errors that are close to zero, such as the difference to
    another implementation: at the default tolerance of 0.01, anything below a thousandth of the trivial
    predictor's error agrees with any other.
    """
    if metric.get("diverged") or reference.get("diverged"):
        return bool(metric.get("diverged")) and bool(reference.get("diverged"))
    scale = max(abs(reference["value"]), abs(reference["trivial"] or 0.0) / 10)
    allowed = tolerance(metric, reference) * scale + (reference.get("spread") or 0.0)
    if metric["unit"] == "share":
        allowed = max(allowed, 1 / metric["n"])
    rounding = 1e-9
    return abs(metric["value"] - reference["value"]) <= allowed + rounding


def compare(run: Results, reference: Results, *, name: str) -> tuple[str, bool]:
    """Compare the metrics of a run with those of its reference, in the notebooks that both hold.

    Parameters
    ----------
    run, reference : Results
    name : str
        What the text calls the reference.

    Returns
    -------
    text : str
        How many metrics agree, then a line for each that does not or that only one of the two has, and
        for what else differs between the two runs.
    agrees : bool
        Whether there are metrics to compare and none of them falls out.
    """
    notebooks = run.provenance.keys() & reference.provenance.keys()
    ours, theirs = (
        {(m["name"], m["split"]): m for m in r.metrics if m["notebook"] in notebooks}
        for r in (run, reference)
    )
    pairs = [(m, theirs[key]) for key, m in ours.items() if key in theirs]
    pairs = [pair for pair in pairs if tolerance(*pair) is not None]
    fallen = [
        f"  {m['name']}, {m['split']}: {shown(m)}, reference {shown(r)} (tolerance {tolerance(m, r):g})"
        for m, r in pairs
        if not agrees(m, r)
    ]
    n_agree = len(pairs) - len(fallen)
    fallen += [f"  {', '.join(key)}: not in this run" for key in theirs if key not in ours]
    fallen += [f"  {', '.join(key)}: not in the reference" for key in ours if key not in theirs]
    first = f"{n_agree} of {len(pairs)} metrics agree with {name}"
    lines = [f"{first}, these do not:" if fallen else first, *fallen]
    lines += _other_differences(run, reference, notebooks)
    return "\n".join(lines), bool(pairs) and not fallen


def _other_differences(run: Results, reference: Results, notebooks: set[str]) -> list[str]:
    """A line for each input that differs, and for the notebooks that only one of the two holds."""
    lines = []
    for key, what in (("seed", "seed"), ("corpus_sha256", "corpus")):
        if any(run.provenance[n][key] != reference.provenance[n][key] for n in notebooks):
            lines.append(f"the reference was made with another {what}")
    for one, where in ((reference, "this run"), (run, "the reference")):
        if missing := sorted(n[:2] for n in one.provenance.keys() - notebooks):
            lines.append(f"not compared, for it is not in {where}: notebook {', '.join(missing)}")
    return lines


def compare_folders(folder: Path, reference: Path | None = None) -> tuple[str, bool]:
    """`compare` the run in `folder` with a reference, by default the committed one of its name.

    Raises
    ------
    InputError
        If one of the folders holds no metrics.
    """
    reference = paths.expanded(reference or _committed(folder))
    return compare(read_run(folder), read_run(reference), name=_called(reference))


def with_reference(folder: Path) -> str:
    """The text of `compare` for the run in `folder`; one line where it has no committed reference."""
    reference = _committed(folder)
    if not (reference / "metrics.json").is_file():
        return f"no reference to compare with: there is no {_called(reference)}"
    return compare_folders(folder)[0]


def _committed(folder: Path) -> Path:
    return paths.REFERENCES / paths.expanded(folder).name


def _called(folder: Path) -> str:
    inside = folder.is_relative_to(paths.ROOT)
    return str(folder.relative_to(paths.ROOT) if inside else folder)
