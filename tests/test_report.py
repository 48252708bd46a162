"""The report page, the README's table, and where their links lead."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from audiostyle_lib import paths
from audiostyle_lib.config import PROFILES
from audiostyle_lib.course import prose, report, run

PROVENANCE = {
    "profile": "smoke", "corpus": "bands", "corpus_sha256": "abc", "seed": 0, "seeds": 1,
    "tracks": {"train": 28, "valid": 4, "test": 8}, "device": "CPU", "wall_seconds": 60.0,
    "settings": asdict(PROFILES["smoke"]),
}  # fmt: skip
COSINE = {
    "name": "content VAE, clip cosine", "value": 0.87654321, "spread": None,
    "seeds": 1, "diverged": 0, "split": "test",
    "unit": "1", "definition": "Cosine of clips.", "trivial": 0.7,
    "trivial_name": "mean", "report": 0.9337, "n": 12, "tracks": None, "higher_is_better": True,
    "notebook": "05_content_vae", "cell": None, "tolerance": 0.01,
}  # fmt: skip
LSD = COSINE | {
    "name": "LSD", "value": 12.0, "unit": "dB", "report": None, "higher_is_better": False,
    "definition": "Distance.",
}  # fmt: skip


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """A folder for the references and notebooks of a checkout that has none."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REFERENCES", tmp_path / "figures")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def two_notebooks(checkout):
    folder = checkout / "figures" / "runs" / "smoke-bands"
    for notebook, value in (("02_features", 0.5), ("05_content_vae", 0.87654321)):
        metrics = [COSINE | {"value": value, "notebook": notebook}, LSD | {"notebook": notebook}]
        run.write_metrics(folder / "metrics" / f"{notebook}.json", metrics, PROVENANCE)
    for name in ("fig05_kl", *report.FIGURES):
        (folder / f"{name}.png").touch()
    return folder


def add_reference(checkout) -> None:
    """A reference run with one of the metrics, three seeds and another trivial value."""
    entry = COSINE | {"value": 0.93412, "spread": 0.0012, "seeds": 3, "trivial": 0.91}
    provenance = PROVENANCE | {"profile": "long", "corpus": "gtzan", "seeds": 3}
    file = checkout / "figures" / "long-gtzan" / "metrics.json"
    run.write_metrics(file, [entry], {"05_content_vae": provenance})


def test_times_are_by_notebook_and_section(two_notebooks):
    sections = {"Training": 90.0, "Listen": 3.0, "Judged": 30.0}
    file = two_notebooks / "times" / "05_content_vae.json"
    file.parent.mkdir()
    file.write_text(json.dumps(sections))
    rows = report.times(run.read_run(two_notebooks)).splitlines()[2:]
    assert rows == [
        "| 02_features | 1.0 |  |", "| 05_content_vae | 2.0 | Training 1.5, Judged 0.5 |",
    ]  # fmt: skip


def test_table_has_one_row_a_metric(two_notebooks):
    results = run.read_run(two_notebooks)
    header, rows = report.table(results, results.metrics, [], notebooks="../")
    assert rows[2] == [
        "content VAE, clip cosine ↑ 1", "test, (12)", "0.9337", "0.8765", "0.7 mean",
        "[05](../05_content_vae.ipynb)",
    ]  # fmt: skip
    assert rows[3][:5] == ["LSD ↓ dB", "test, (12)", "", "12", "0.7 mean"]
    lines = prose.markdown_table(header, rows).splitlines()
    assert len(lines) == 6 and {line.count("|") for line in lines} == {len(header) + 1}


def test_reference_runs_stand_beside_with_their_spread(two_notebooks, checkout):
    add_reference(checkout)
    text = report.page(two_notebooks)
    assert "| long-gtzan (trivial) |" in text and "long-bands" not in text
    assert "| 0.8765 | 0.7 mean | 0.9341 ± 0.0012 (0.91) |" in text
    assert (
        "Beside it, `long-gtzan`: profile `long`, corpus `gtzan` of 40 tracks (28 train, 4 valid"
        in text
    )
    assert "seed 0 and 2 more" in text


def test_report_holds_tables_definitions_and_figures(two_notebooks):
    text = report.write(two_notebooks).read_text()
    first, rest = text.split("## Appendix: every metric")
    claim = "| the same on standardised bands, where a constant scores zero | 0.9337 | 0.5 | none |"
    assert claim in first and "| LSD" not in first
    assert "### 02_features" in rest and rest.count("| LSD ↓ dB |") == 2
    assert "Trained for 6 steps in `smoke-bands`" in rest.split("### 05_content_vae")[1]
    assert text.count("- **content VAE, clip cosine**: Cosine of clips.") == 1
    assert all(f'src="{name}.png"' in first for name in report.FIGURES)
    assert "![fig05_kl.png](fig05_kl.png)" in rest and "![fig1_genres" not in rest
    assert "profile `smoke`, corpus `bands`" in text
    merged = json.loads((two_notebooks / "metrics.json").read_text())
    assert len(merged["metrics"]) == 4 and set(merged["provenance"]) == {
        "02_features",
        "05_content_vae",
    }


def test_page_of_a_reference_run_shows_no_spectrogram(two_notebooks, monkeypatch):
    monkeypatch.setattr(report, "REFERENCES", (two_notebooks.name,))
    (two_notebooks / "fig10_training.png").touch()
    text = report.page(two_notebooks)
    assert "fig10_training.png" in text and "fig3_content_vae.png" in text
    assert "fig05_kl.png" not in text


def test_links_name_the_cell(two_notebooks):
    results = run.read_run(two_notebooks)
    entry = {**results.metrics[0], "cell": "05-012"}
    _, rows = report.table(results, [entry], [], notebooks="notebooks/")
    assert rows[0][-1] == "[02](notebooks/02_features.ipynb#cell-id=05-012)"


def test_claims_reach_the_readme_and_nothing_else_changes(two_notebooks, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# Title\n\n<!-- results: begin -->\nold table\n<!-- results: end -->\n\nend\n"
    )
    report.update_readme(two_notebooks, readme)
    once = readme.read_text()
    report.update_readme(two_notebooks, readme)
    assert readme.read_text() == once
    assert once.startswith("# Title\n\n<!-- results: begin -->\n`smoke-bands`: profile")
    assert once.endswith("\n\nend\n")
    assert "old table" not in once and "| the same on standardised" in once and "| LSD" not in once
    assert f"(figures/smoke-bands/{report.CLAIMS}.png)" in once


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    from audiostyle_lib.__main__ import main

    assert main(["report", str(tmp_path)]) == 2
    assert "no metrics of a run here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "place", ["figures/smoke-bands", "figures/runs/smoke-bands", "a b/smoke-bands"]
)
def test_links_of_the_page_are_right_wherever_the_run_lies(two_notebooks, checkout, place):
    notebook = checkout / "notebooks" / "05_content_vae.ipynb"
    notebook.parent.mkdir()
    notebook.touch()
    folder = checkout / place
    folder.parent.mkdir(exist_ok=True)
    if folder != two_notebooks:
        two_notebooks.rename(folder)
    link = re.search(r"\[05\]\((.*?)\)", report.write(folder).read_text())[1]
    assert (folder / link).resolve() == notebook


def test_a_run_is_compared_with_its_reference_and_a_reference_with_nothing(two_notebooks, checkout):
    assert "no reference to compare with: there is no figures/smoke-bands" in report.page(
        two_notebooks
    )
    entry = COSINE | {"value": 0.9}
    file = checkout / "figures" / "smoke-bands" / "metrics.json"
    run.write_metrics(file, [entry], {"05_content_vae": PROVENANCE})
    assert "0 of 1 metrics agree with figures/smoke-bands, these do not:" in report.page(
        two_notebooks
    )
    assert "metrics agree" not in report.page(file.parent)


def test_diverged_seeds_are_shown(two_notebooks):
    some = COSINE | {"value": 0.3, "spread": 0.1, "seeds": 3, "diverged": 1}
    every = COSINE | {"name": "lost", "value": None, "seeds": 1, "diverged": 1, "trivial": None}
    run.write_metrics(two_notebooks / "metrics" / "05_content_vae.json", [some, every], PROVENANCE)
    text = report.write(two_notebooks).read_text()
    assert "| 0.30 ± 0.10 (diverged: 1 of 3 seeds) |" in text
    assert "| diverged: 1 of 1 seeds |" in text


@pytest.mark.parametrize("name", ["quick-bands", *report.REFERENCES])
def test_stored_pages_are_those_of_the_stored_metrics(name, monkeypatch):
    """A digit of a metric that is changed by hand, or a page that is, shows."""
    monkeypatch.undo()
    folder = paths.REFERENCES / name
    assert (folder / "report.md").read_text() == report.page(folder)


def test_the_readme_holds_the_claims_of_the_stored_metrics(tmp_path, monkeypatch):
    monkeypatch.undo()
    readme = tmp_path / "README.md"
    readme.write_text((paths.ROOT / "README.md").read_text())
    report.update_readme(paths.REFERENCES / "quick-bands", readme)
    assert readme.read_text() == (paths.ROOT / "README.md").read_text()
