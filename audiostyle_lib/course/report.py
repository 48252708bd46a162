"""One page of every metric of a run, beside the report's values and those of the reference runs.

Used by ``notebooks/11_report.ipynb``, and for ``report.md`` in a run's folder and the README's table.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from .. import paths
from . import compare
from .run import Results, number, read_run, shown, write_metrics

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
REFERENCES = ("long-bands", "long-gtzan")  # the largest runs, whose metrics are part of the project
CURVES = ("fig05_ablations", "fig05_learning_curve", "fig06_overfitting", "fig10_training")
FIGURES = {
    "fig1_genres": "Fig. 1 Distribution of genres",
    "fig2_architecture": "Fig. 2 The model",
    "fig3_content_vae": "Fig. 3 Content encoder",
    "fig4_style_encoder": "Fig. 4 Style encoder",
}


def reference_runs(folder: Path) -> list[Results]:
    """The large reference runs that the project holds, without `folder` itself."""
    found = [paths.REFERENCES / name for name in REFERENCES]
    found = [f for f in found if f.resolve() != folder.resolve()]
    return [read_run(f) for f in found if (f / "metrics.json").is_file()]


def summary(run: Results) -> str:
    """One line: profile, corpus, seeds, device and the notebooks' wall time together."""
    first = next(iter(run.provenance.values()))
    seconds = sum(p["wall_seconds"] for p in run.provenance.values())
    more = first.get("seeds", 1) - 1
    return (
        f"profile `{first['profile']}`, corpus `{first['corpus']}` "
        f"(sha256 {first['corpus_sha256'][:12]}), seed {first['seed']}"
        f"{f' and {more} more' if more else ''}, {first['device']}, "
        f"{seconds / 60:.0f} minutes of notebooks"
    )


def _trivial(m: dict) -> str:
    return f"{number(m['trivial'])} {m['trivial_name']}".strip()


def _reference(metric: dict, run: Results) -> str:
    theirs = run.find(metric)
    if theirs is None:
        return ""
    return f"{shown(theirs)} ({number(theirs['trivial'])})"


def _link(m: dict, notebooks: str) -> str:
    cell = f"#cell-id={m['cell']}" if m.get("cell") else ""
    return f"[{m['notebook'][:2]}]({notebooks}{m['notebook']}.ipynb{cell})"


def table(
    run: Results, metrics: list[dict], references: list[Results], *, notebooks: str
) -> tuple[list[str], list[list[str]]]:
    """Make the header and the rows for some metrics of a run.

    Parameters
    ----------
    run : Results
    metrics : list of dict
        Entries of ``metrics.json``, one row each.
    references : list of Results
        Runs whose values get a column.
    notebooks : str
        Path of the folder of notebooks, with a slash at its end, as seen from where the table will stand.

    Returns
    -------
    header : list of str
    rows : list of list of str
    """
    header = ["metric", "split", "report", f"this run, {run.name}", "trivial predictor"]
    header += [f"{r.name} (trivial)" for r in references]
    header += ["tracks (items)", "better, unit", "cell"]
    rows = []
    for m in metrics:
        tracks = f"{m['tracks']} ({m['n']})" if m.get("tracks") else f"({m['n']})"
        row = [m["name"], m["split"], number(m["report"]), shown(m)]
        row += [_trivial(m), *(_reference(m, r) for r in references)]
        row += [tracks, ("↑ " if m["higher_is_better"] else "↓ ") + m["unit"]]
        rows.append([*row, _link(m, notebooks)])
    return header, rows


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A header and rows of cells as a table in Markdown."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def headlines(metrics: list[dict]) -> list[dict]:
    """Metrics for which the report has a value, and those that a notebook marks as worth it."""
    return [m for m in metrics if m["report"] is not None or m.get("headline")]


def definitions(metrics: list[dict]) -> str:
    """What each metric means, once per definition."""
    seen = {m["definition"]: m["name"] for m in reversed(metrics)}
    return "\n".join(f"- **{name}**: {text}" for text, name in reversed(seen.items()))


def figure_grid(sources: dict[str, str]) -> str:
    """HTML of figures 1 to 4 side by side; `sources` gives each figure's ``src``."""
    cells = [
        f'<td width="50%"><b>{FIGURES[name]}</b><br><img src="{source}" width="100%"></td>'
        for name, source in sources.items()
    ]
    rows = "".join(f"<tr>{''.join(cells[i : i + 2])}</tr>" for i in range(0, len(cells), 2))
    return f"<table>{rows}</table>"


HOW_TO_READ = (
    "*Report*: the value in *Style Transfer in Audio*. *Trivial predictor*: the named rule on the same "
    "data; a model means something only where it is better. *±*: sample standard deviation over "
    "seeds. *cell*: opens the notebook at the cell that made the number (JupyterLab)."
)


def page(folder: Path) -> str:
    """Make the report page of the run or reference in `folder`, as Markdown."""
    folder = Path(folder).resolve()
    run, references = read_run(folder), reference_runs(folder)
    notebooks = quote(os.path.relpath(paths.NOTEBOOKS, folder)) + "/"

    def as_table(metrics: list[dict]) -> str:
        return markdown_table(*table(run, metrics, references, notebooks=notebooks))

    first = headlines(run.metrics)
    others = [m for m in run.metrics if m not in first]
    figures = sorted(f.name for f in folder.glob("fig*.png"))
    if folder.name in REFERENCES:  # of which no spectrogram of a clip is kept
        figures = [f for f in figures if f.removesuffix(".png") in (*FIGURES, *CURVES)]
    numbered = {name: f"{name}.png" for name in FIGURES if f"{name}.png" in figures}
    parts = ["# Results", f"This run: {summary(run)}."]
    parts += [f"Beside it, `{r.name}`: {summary(r)}." for r in references]
    if folder.parent != paths.REFERENCES:
        parts += ["## The run and its reference", f"```\n{compare.with_reference(folder)}\n```"]
    parts += [HOW_TO_READ, "## The report's numbers, and the most telling of ours"]
    parts += [as_table(first), "## Figures 1 to 4", figure_grid(numbered), "## Everything else"]
    for notebook in dict.fromkeys(m["notebook"] for m in others):
        mine = [m for m in others if m["notebook"] == notebook]
        parts += [f"### {notebook}", as_table(mine)]
    parts += ["## Definitions", definitions(run.metrics), "## Other figures"]
    parts += [f"![{name}]({name})" for name in figures if name not in numbered.values()]
    return "\n\n".join(parts) + "\n"


def write(folder: Path) -> Path:
    """Write ``report.md`` and the merged ``metrics.json`` of the run in `folder`.

    Returns
    -------
    Path
        Of ``report.md``.

    Raises
    ------
    FileNotFoundError
        If `folder` holds no metrics.
    """
    run = read_run(folder)
    write_metrics(folder / "metrics.json", run.metrics, run.provenance)
    text = page(folder)
    with paths.written_beside(folder / "report.md") as temporary:
        temporary.write_text(text)
    return folder / "report.md"


def update_readme(folder: Path, readme: Path | None = None) -> None:
    """Put the table of the run's headlines between the README's markers."""
    readme = readme or paths.ROOT / "README.md"
    run, references = read_run(folder), reference_runs(folder)
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    lines = [f"This run: {summary(run)}."]
    lines += [f"`{r.name}`: {summary(r)}." for r in references]
    rows = table(run, headlines(run.metrics), references, notebooks="notebooks/")
    shown = "\n\n".join([*lines, markdown_table(*rows)])
    with paths.written_beside(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{shown}\n{END}{after}")
