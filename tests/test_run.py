"""What a run leaves behind: metrics with their definitions, figures that repeat, one table."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from audiostyle_lib import config as cfg
from audiostyle_lib import corpora, paths
from audiostyle_lib.course import plots, report
from audiostyle_lib.course import run as runs


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path))
    monkeypatch.delenv("AUDIOSTYLE_GTZAN", raising=False)
    yield tmp_path
    plt.close("all")
    plt.rcdefaults()
    torch.use_deterministic_algorithms(False)


def open_run(notebook: str = "05_content_vae", **parameters) -> runs.Run:
    """A run whose corpus is already open and empty, so that nothing is rendered."""
    run = runs.open_run(
        notebook, **{"profile": "smoke", "corpus": "bands", "device": "cpu", **parameters}
    )
    run.__dict__["corpus"] = corpora.Corpus("bands", paths.ROOT, (), (), "none")
    return run


def note(run: runs.Run, name="cosine", value=0.9, **changes) -> dict:
    settings = {
        "split": "test",
        "unit": "1",
        "definition": "Cosine between flattened items.",
        "trivial": 0.7,
        "trivial_name": "mean",
        "report": 0.9337,
        "n": 12,
        "higher_is_better": True,
        **changes,
    }
    return run.record_metric(name, value, **settings)


# Metrics --------------------------------------------------------------------------------------


def test_metric_is_stored_with_all_a_reader_needs(figures):
    run = open_run()
    note(run, value=np.float32(0.875), n=np.int64(12))
    content = json.loads((figures / "smoke-bands" / "metrics" / "05_content_vae.json").read_text())
    assert content["metrics"] == [
        {
            "name": "cosine", "value": 0.875, "spread": None, "seeds": 1, "split": "test",
            "unit": "1", "definition": "Cosine between flattened items.", "trivial": 0.7,
            "trivial_name": "mean", "report": 0.9337, "n": 12, "tracks": None,
            "higher_is_better": True, "headline": False, "notebook": "05_content_vae", "cell": None,
        }
    ]  # fmt: skip


def test_values_of_several_seeds_become_mean_and_spread(figures):
    run = open_run()
    entry = note(run, value=[0.1, np.float32(0.2), torch.tensor(0.6)], tracks=7)
    assert entry["value"] == pytest.approx(0.3) and entry["seeds"] == 3 and entry["tracks"] == 7
    assert entry["spread"] == pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1))


def test_seeds_follow_the_profile(figures):
    assert open_run(seed=4).seeds == [4]
    assert open_run(seed=4, profile="long").seeds == [4, 5, 6]


def test_metric_knows_the_cell_that_made_it(figures, monkeypatch, tmp_path):
    cells = [{"id": "aa", "source": ["x = 1\n", "y"]}, {"id": "bb", "source": ["note(run)"]}]
    (tmp_path / "05_content_vae.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    shell = SimpleNamespace(user_ns={"In": ["", "x = 1\ny", "note(run)\n"]})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert note(open_run())["cell"] == "bb"
    shell.user_ns["In"].append("something else")
    assert note(open_run())["cell"] is None


def test_provenance_says_where_a_number_comes_from(figures):
    run = open_run(seed=3)
    note(run)
    stored = json.loads((run.folder / "metrics" / "05_content_vae.json").read_text())["provenance"]
    assert set(stored) == {
        "profile", "corpus", "corpus_sha256", "seed", "seeds", "device", "commit", "python", "versions",
        "wall_seconds",
    }  # fmt: skip
    assert (stored["profile"], stored["corpus"], stored["seed"]) == ("smoke", "bands", 3)
    assert stored["corpus_sha256"] == run.corpus.sha256 and stored["device"].startswith("CPU")
    assert stored["versions"] == {n: metadata.version(n) for n in runs.VERSIONS_OF}
    assert 0 <= stored["wall_seconds"] < 60
    git = subprocess.run(
        ["git", "-C", paths.ROOT, "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert stored["commit"] == (git.stdout.strip() or "unknown")


def test_same_metric_of_the_same_split_is_replaced(figures):
    run = open_run()
    note(run, value=0.1)
    note(run, "loss", 2.0, trivial=None, report=None)
    note(run, value=0.2, split="valid")
    note(run, value=0.3)
    metrics, _ = runs.read_metrics(run.folder)
    found = [(m["name"], m["split"], m["value"]) for m in metrics]
    assert found == [("loss", "test", 2.0), ("cosine", "valid", 0.2), ("cosine", "test", 0.3)]
    assert metrics[0]["trivial"] is None and metrics[0]["report"] is None


def test_metric_without_definition_or_trivial_predictor_cannot_be_recorded(figures):
    run = open_run()
    for missing in ("definition", "trivial", "unit", "split", "n"):
        given = {"split": "test", "unit": "1", "definition": "d", "trivial": 0.0, "n": 1}
        del given[missing]
        with pytest.raises(TypeError, match=missing):
            run.record_metric("x", 1.0, **given)


def test_metrics_of_all_notebooks_in_their_order(figures):
    for notebook in ("07_recombination", "02_features"):
        note(open_run(notebook), value=float(notebook[:2]))
    metrics, provenance = runs.read_metrics(figures / "smoke-bands")
    assert [m["value"] for m in metrics] == [2.0, 7.0]
    assert list(provenance) == ["02_features", "07_recombination"]


# Figures --------------------------------------------------------------------------------------


def draw(run: runs.Run, config) -> dict[str, bytes]:
    log_mel = -40 + 10 * np.random.default_rng(0).standard_normal((128, 20))
    figure, axes = plt.subplots(1, 2, figsize=(6, 2))
    plots.spectrogram(log_mel, config, ax=axes[0], title="log-mel")
    plots.curves({"loss": [3.0, 2.0]}, ["loss"], ylabel="dB", ax=axes[1])
    axes[1].plot([0, 1], [0, 1], clip_on=True)
    run.save_figure(figure, "fig03_vae")
    plt.close(figure)
    return {f.name: f.read_bytes() for f in run.folder.glob("fig*")}


def test_figures_are_the_same_bytes_on_a_second_run(figures, config):
    first = draw(open_run(), config)
    for file in (figures / "smoke-bands").glob("fig*"):
        file.unlink()
    second = draw(open_run(), config)
    assert set(first) == {"fig03_vae.svg", "fig03_vae.png"} and first == second
    svg = first["fig03_vae.svg"].decode()
    assert "<dc:date>" not in svg and 'id="' in svg
    assert (
        first["fig03_vae.png"].startswith(b"\x89PNG") and b"Software" not in first["fig03_vae.png"]
    )


# Opening --------------------------------------------------------------------------------------


def test_run_has_its_own_folder_and_checkpoints(figures):
    run = open_run(profile="quick")
    assert run.folder == figures / "quick-bands"
    assert run.checkpoint("vae") == figures / "quick-bands" / "checkpoints" / "vae.safetensors"
    assert run.profile == cfg.profile("quick") and run.device == "cpu"


def test_wrong_parameters_are_refused_at_once(figures):
    with pytest.raises(ValueError, match="unknown profile"):
        runs.open_run("01_data", profile="tiny")
    with pytest.raises(ValueError, match="unknown corpus"):
        runs.open_run("01_data", corpus="fma")


def test_runs_of_one_seed_draw_the_same_numbers(figures):
    def draw_numbers(seed):
        open_run(seed=seed)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()

    assert draw_numbers(1) == draw_numbers(1) != draw_numbers(2)


# The report -----------------------------------------------------------------------------------


@pytest.fixture
def two_notebooks(figures, monkeypatch):
    monkeypatch.setattr(report, "REFERENCES", ())
    for notebook, value in (("02_features", 0.5), ("05_content_vae", 0.87654321)):
        run = open_run(notebook)
        note(run, value=value)
        note(
            run, "LSD", 12.0, unit="dB", report=None, higher_is_better=False, definition="Distance."
        )
    for name in ("fig05_kl", *report.FIGURES):
        (run.folder / f"{name}.png").touch()
    return figures / "smoke-bands"


def add_reference(two_notebooks, monkeypatch) -> None:
    """A reference run with one of the metrics, three seeds and another trivial value."""
    root = two_notebooks.parent / "root"
    metrics = json.loads((two_notebooks / "metrics" / "05_content_vae.json").read_text())
    entry = {
        **metrics["metrics"][0],
        "value": 0.93412,
        "spread": 0.0012,
        "seeds": 3,
        "trivial": 0.91,
    }
    folder = root / "figures" / "long-gtzan"
    folder.mkdir(parents=True)
    provenance = {
        "05_content_vae": {
            **metrics["provenance"],
            "profile": "long",
            "corpus": "gtzan",
            "seeds": 3,
        }
    }
    (folder / "metrics.json").write_text(json.dumps({"metrics": [entry], "provenance": provenance}))
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(report, "REFERENCES", ("long-bands", "long-gtzan"))


def test_table_has_one_row_a_metric(two_notebooks):
    run = report.read_run(two_notebooks)
    header, rows = report.table(run, run.metrics, [], notebooks="../")
    assert rows[2] == [
        "cosine", "test", "0.9337", "0.8765", "0.7 mean", "(12)", "↑ 1",
        "[05](../05_content_vae.ipynb)",
    ]  # fmt: skip
    assert rows[3][:6] == ["LSD", "test", "", "12", "0.7 mean", "(12)"]
    lines = report.markdown_table(header, rows).splitlines()
    assert len(lines) == 6 and {line.count("|") for line in lines} == {len(header) + 1}


def test_reference_runs_stand_beside_with_their_spread(two_notebooks, monkeypatch):
    add_reference(two_notebooks, monkeypatch)
    text = report.page(two_notebooks)
    assert "| long-gtzan (trivial) |" in text and "long-bands" not in text
    assert "| 0.8765 | 0.7 mean | 0.9341 ± 0.0012 (0.91) |" in text
    assert "Beside it, `long-gtzan`: profile `long`, corpus `gtzan`" in text
    assert "seed 0 and 2 more" in text


@pytest.mark.parametrize(
    ("value", "spread", "shown"),
    [
        (None, None, ""),
        (0.0, None, "0"),
        (0.93374, None, "0.9337"),
        (12.3456, 0.0, "12.35"),
        (0.93374, 0.00021, "0.93374 ± 0.00021"),
        (123.4, 13.0, "123 ± 13"),
    ],
)
def test_numbers_have_the_digits_that_their_spread_leaves(value, spread, shown):
    assert report.number(value, spread) == shown


def test_report_holds_tables_definitions_and_figures(two_notebooks):
    text = report.write(two_notebooks).read_text()
    first, rest = text.split("## Everything else")
    assert "| cosine | test | 0.9337 | 0.5 |" in first and "| LSD |" not in first
    assert "### 02_features" in rest and rest.count("| LSD |") == 2
    assert text.count("- **cosine**: Cosine between flattened items.") == 1
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
    run = report.read_run(two_notebooks)
    entry = {**run.metrics[0], "cell": "05-012"}
    _, rows = report.table(run, [entry], [], notebooks="notebooks/")
    assert rows[0][-1] == "[02](notebooks/02_features.ipynb#cell-id=05-012)"


def test_headlines_reach_the_readme_and_nothing_else_changes(two_notebooks, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold table\n{report.END}\n\nend\n")
    report.update_readme(two_notebooks, readme)
    once = readme.read_text()
    report.update_readme(two_notebooks, readme)
    assert readme.read_text() == once
    assert once.startswith(f"# Title\n\n{report.BEGIN}\nThis run: profile")
    assert once.endswith("\n\nend\n")
    assert "old table" not in once and "| cosine |" in once and "| LSD |" not in once


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    from audiostyle_lib.__main__ import main

    assert main(["report", str(tmp_path)]) == 2
    assert "no metrics of a run here" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
