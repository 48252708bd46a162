"""One table of every metric of a run, for notebook 11, ``report.md`` and the README."""

from __future__ import annotations

from pathlib import Path

from . import paths, record

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def metric_rows(metrics: list[dict]) -> list[list[str]]:
    """Rows of the table: name, split, n, report's value, ours, trivial predictor's, unit, notebook."""
    return [
        [
            m["name"],
            m["split"],
            str(m["n"]),
            _number(m["report"]),
            _number(m["value"]),
            f"{_number(m['trivial'])} {m['trivial_name']}".strip(),
            ("↑ " if m["higher_is_better"] else "↓ ") + m["unit"],
            m["notebook"],
        ]
        for m in metrics
    ]


HEADER = ["metric", "split", "n", "report", "ours", "trivial predictor", "better, unit", "notebook"]


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def definitions(metrics: list[dict]) -> str:
    """What each metric means, once per definition."""
    seen = {m["definition"]: m["name"] for m in reversed(metrics)}
    return "\n".join(f"- **{name}**: {text}" for text, name in reversed(seen.items()))


def summary(provenance: dict) -> str:
    """One line: profile, corpus, seed, device and the notebooks' wall time together."""
    if not provenance:
        return "no notebook has recorded anything"
    first = next(iter(provenance.values()))
    seconds = sum(p["wall_seconds"] for p in provenance.values())
    return (
        f"profile `{first['profile']}`, corpus `{first['corpus']}` "
        f"(sha256 {first['corpus_sha256'][:12]}), seed {first['seed']}, {first['device']}, "
        f"{seconds / 60:.1f} minutes of notebooks"
    )


def write(folder: Path) -> Path:
    """Write ``report.md`` and the merged ``metrics.json`` of the run in `folder`."""
    import json

    metrics, provenance = record.read_metrics(folder)
    figures = sorted(f.name for f in folder.glob("fig*.png"))
    parts = [
        "# Results", summary(provenance), markdown_table(HEADER, metric_rows(metrics)),
        "Report: the value in *Style Transfer in Audio*. Trivial predictor: the named rule on the "
        "same data; a model means something only where it is better. n: items behind the value.",
        "## Definitions", definitions(metrics),
        "## Figures", *(f"![{name}]({name})" for name in figures),
    ]  # fmt: skip
    target = folder / "report.md"
    with paths.written_beside(folder / "metrics.json") as temporary:
        merged = {"provenance": provenance, "metrics": metrics}
        temporary.write_text(json.dumps(merged, indent=1) + "\n")
    with paths.written_beside(target) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n")
    return target


def update_readme(folder: Path, readme: Path | None = None) -> None:
    """Put the run's table between the README's markers."""
    readme = readme or paths.ROOT / "README.md"
    metrics, provenance = record.read_metrics(folder)
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    table = markdown_table(HEADER, metric_rows(metrics))
    with paths.written_beside(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n{summary(provenance)}\n\n{table}\n{END}{after}")
