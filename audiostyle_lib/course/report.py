"""The page of a run: the report's claims, then every metric beside those of the reference runs.

Used by ``notebooks/11_report.ipynb``, and for ``report.md`` in a run's folder and the README's table.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from .. import paths
from . import claims, compare
from .prose import markdown_table, replace_between
from .run import Results, number, read_run, shown, write_metrics

BESIDE = ("long-bands", "long-gtzan")  # runs whose values stand beside those of any other
REFERENCES = (*BESIDE, "paper-bands")  # the largest runs, whose metrics are part of the project
CLAIMS = "fig11_claims"  # of notebook 11
CURVES = ("fig05_ablations", "fig05_learning_curve", "fig06_overfitting", "fig10_training")
FIGURES = {
    "fig1_genres": "Fig. 1 Distribution of genres",
    "fig2_architecture": "Fig. 2 The model",
    "fig3_content_vae": "Fig. 3 Content encoder",
    "fig4_style_encoder": "Fig. 4 Style encoder",
}


def reference_runs(folder: Path) -> list[Results]:
    """The reference runs that stand beside a run, without `folder` itself."""
    found = [paths.REFERENCES / name for name in BESIDE]
    found = [f for f in found if f.resolve() != folder.resolve()]
    return [read_run(f) for f in found if (f / "metrics.json").is_file()]


def summary(run: Results) -> str:
    """One line: profile, corpus and its tracks, seeds, device and the notebooks' wall time together."""
    first = run.shared
    seconds = sum(p["wall_seconds"] for p in run.provenance.values())
    more = first.get("seeds", 1) - 1
    tracks = first.get("tracks", {})  # which older runs did not write
    split = ", ".join(f"{n} {name}" for name, n in tracks.items())
    of = f" of {sum(tracks.values())} tracks ({split})" if tracks else ""
    return (
        f"profile `{first['profile']}`, corpus `{first['corpus']}`{of}, "
        f"sha256 {first['corpus_sha256'][:12]}, seed {first['seed']}"
        f"{f' and {more} more' if more else ''}, {first['device']}, "
        f"{seconds / 60:.0f} minutes of notebooks"
    )


def _trivial(m: dict) -> str:
    return f"{number(m['trivial'])} {m['trivial_name']}".strip()


def _reference(metric: dict, run: Results) -> str:
    theirs = run.find(metric["name"], metric["split"])
    if theirs is None:
        return ""
    return f"{shown(theirs)} ({number(theirs['trivial'])})"


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
    header = ["metric, better, unit", "split, tracks (items)", "report", run.name]
    header += ["trivial predictor", *(f"{r.name} (trivial)" for r in references), "cell"]
    rows = []
    for m in metrics:
        tracks = f"{m['tracks']} ({m['n']})" if m.get("tracks") else f"({m['n']})"
        better = "↑" if m["higher_is_better"] else "↓"
        row = [f"{m['name']} {better} {m['unit']}", f"{m['split']}, {tracks}", number(m["report"])]
        row += [shown(m), _trivial(m), *(_reference(m, r) for r in references)]
        rows.append([*row, claims.link(m, notebooks)])
    return header, rows


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


def how_to_read(runs: list[Results]) -> str:
    """What the columns of the claims are, with how many recordings the real clips are."""
    real = next((r.shared for r in runs if r.shared["corpus"] == "gtzan"), {})
    n_tracks = sum(real.get("tracks", {}).values())
    return (
        "*Report*: the value in *Style Transfer in Audio*, with its section. *Bands* is rendered music, "
        f"*real clips* are {n_tracks} recordings from GTZAN; two numbers in a cell are for these two. "
        "*None*: the report gives no number, or nothing was measured there, as recordings have no true "
        "result of a transfer. *Trivial predictor*: the named rule on the same data; a model means "
        "something only where it is better. *Cell* opens the notebook at the cell that made the number "
        "(JupyterLab). The plot shows the same values on one scale: how much of the trivial predictor's "
        "error is gone."
    )


HOW_TO_READ_ALL = (
    "In the columns of the reference runs the trivial predictor's value stands in parentheses. *±*: "
    "sample standard deviation over seeds; all trainings of a run share its tracks, so it says nothing "
    "of how other tracks would do."
)


def times(run: Results) -> str:
    """Where the time of a run went: minutes of each notebook and its longest sections."""
    rows = []
    for notebook, facts in run.provenance.items():
        sections = facts.get("seconds_by_section", {})
        longest = sorted(sections, key=sections.get, reverse=True)[:3]
        most = [f"{name} {sections[name] / 60:.1f}" for name in longest if sections[name] >= 6]
        taken = sum(sections.values()) or facts["wall_seconds"]
        rows.append([notebook, f"{taken / 60:.1f}", ", ".join(most)])
    return markdown_table(["notebook", "minutes", "most of it, by section"], rows)


TIMES = (
    "By the clock, with other notebooks running beside. What an earlier run had trained already was "
    "loaded, not trained again."
)


def _training(run: Results, notebook: str) -> str:
    length = claims.training([run], notebook)
    return length and f"Trained for {length} in `{run.name}`, where a row names no other length."


def page(folder: Path) -> str:
    """Make the report page of the run or reference in `folder`, as Markdown."""
    folder = paths.expanded(folder)
    run, references = read_run(folder), reference_runs(folder)
    notebooks = quote(os.path.relpath(paths.NOTEBOOKS, folder)) + "/"
    figures = sorted(f.name for f in folder.glob("fig*.png"))
    if folder.name in REFERENCES:  # of which no spectrogram of a clip is kept
        figures = [f for f in figures if f.removesuffix(".png") in (*FIGURES, *CURVES)]
    numbered = {name: f"{name}.png" for name in FIGURES if f"{name}.png" in figures}
    parts = ["# Results", f"This run: {summary(run)}."]
    parts += [f"Beside it, `{r.name}`: {summary(r)}." for r in references]
    parts += [markdown_table(claims.HEADER, claims.rows([run, *references], notebooks=notebooks))]
    parts += [how_to_read([run, *references])]
    if f"{CLAIMS}.png" in figures:
        parts += [f"![The claims as skill scores]({CLAIMS}.png)"]
    if folder.parent != paths.REFERENCES:
        parts += ["## The run and its reference", f"```\n{compare.with_reference(folder)}\n```"]
    parts += ["## Time", times(run), TIMES] if folder.name not in REFERENCES else []
    parts += ["## Figures 1 to 4", figure_grid(numbered)]
    parts += ["## Appendix: every metric", HOW_TO_READ_ALL]
    for notebook in dict.fromkeys(m["notebook"] for m in run.metrics):
        mine = [m for m in run.metrics if m["notebook"] == notebook]
        rows = table(run, mine, references, notebooks=notebooks)
        parts += [f"### {notebook}", _training(run, notebook), markdown_table(*rows)]
    parts += ["## Definitions", definitions(run.metrics), "## Other figures"]
    others = [name for name in figures if name not in (*numbered.values(), f"{CLAIMS}.png")]
    parts += [f"![{name}]({name})" for name in others]
    return "\n\n".join(filter(None, parts)) + "\n"


def write(folder: Path) -> Path:
    """Write ``report.md`` and the merged ``metrics.json`` of the run in `folder`.

    Returns
    -------
    Path
        Of ``report.md``.

    Raises
    ------
    InputError
        If `folder` holds no metrics.
    """
    run = read_run(folder)
    write_metrics(folder / "metrics.json", run.metrics, run.provenance)
    text = page(folder)
    with paths.written_beside(folder / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    return folder / "report.md"


def update_readme(folder: Path, readme: Path | None = None) -> None:
    """Put the claims and their plot between the README's markers."""
    readme = readme or paths.ROOT / "README.md"
    runs = [read_run(folder), *reference_runs(folder)]
    rows = claims.rows(runs, notebooks="notebooks/")
    lines = [f"`{r.name}`: {summary(r)}." for r in runs]
    lines += [markdown_table(claims.HEADER, rows), how_to_read(runs)]
    lines += [f"![The claims as skill scores](figures/{folder.name}/{CLAIMS}.png)"]
    replace_between(readme, "results", "\n\n".join(lines))
