"""What a run leaves behind: metrics with their definitions, figures that repeat, one table."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from audiostyle_lib import config as cfg
from audiostyle_lib import corpora, paths, plots, record, report


@pytest.fixture
def figures(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path))
    monkeypatch.delenv("AUDIOSTYLE_GTZAN", raising=False)
    yield tmp_path
    plt.close("all")
    plt.rcdefaults()
    torch.use_deterministic_algorithms(False)


def open_run(notebook: str = "05_content_vae", **parameters) -> record.Run:
    """A run whose corpus is already open and empty, so that nothing is rendered."""
    run = record.open_run(
        notebook, **{"profile": "smoke", "corpus": "bands", "device": "cpu", **parameters}
    )
    run.__dict__["corpus"] = corpora.Corpus("bands", paths.ROOT, (), (), "none")
    return run


def note(run: record.Run, name="cosine", value=0.9, **changes) -> dict:
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
            "name": "cosine", "value": 0.875, "split": "test", "unit": "1",
            "definition": "Cosine between flattened items.", "trivial": 0.7, "trivial_name": "mean",
            "report": 0.9337, "n": 12, "higher_is_better": True, "notebook": "05_content_vae",
        }
    ]  # fmt: skip


def test_provenance_says_where_a_number_comes_from(figures):
    run = open_run(seed=3)
    note(run)
    stored = json.loads((run.folder / "metrics" / "05_content_vae.json").read_text())["provenance"]
    assert set(stored) == {
        "profile", "corpus", "corpus_sha256", "seed", "device", "commit", "python", "versions",
        "wall_seconds",
    }  # fmt: skip
    assert (stored["profile"], stored["corpus"], stored["seed"]) == ("smoke", "bands", 3)
    assert stored["corpus_sha256"] == run.corpus.sha256 and stored["device"].startswith("CPU")
    assert stored["versions"] == {n: metadata.version(n) for n in record.VERSIONS_OF}
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
    metrics, _ = record.read_metrics(run.folder)
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
    metrics, provenance = record.read_metrics(figures / "smoke-bands")
    assert [m["value"] for m in metrics] == [2.0, 7.0]
    assert list(provenance) == ["02_features", "07_recombination"]


# Figures --------------------------------------------------------------------------------------


def draw(run: record.Run, config) -> dict[str, bytes]:
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
        record.open_run("01_data", profile="tiny")
    with pytest.raises(ValueError, match="unknown corpus"):
        record.open_run("01_data", corpus="fma")


def test_runs_of_one_seed_draw_the_same_numbers(figures):
    def draw_numbers(seed):
        open_run(seed=seed)
        return torch.rand(3).tolist(), np.random.rand(3).tolist()

    assert draw_numbers(1) == draw_numbers(1) != draw_numbers(2)


# The report -----------------------------------------------------------------------------------


@pytest.fixture
def two_notebooks(figures):
    for notebook, value in (("02_features", 0.5), ("05_content_vae", 0.87654321)):
        run = open_run(notebook)
        note(run, value=value)
        note(
            run, "LSD", 12.0, unit="dB", report=None, higher_is_better=False, definition="Distance."
        )
    (run.folder / "fig03_vae.png").touch()
    return figures / "smoke-bands"


def test_table_has_one_row_a_metric(two_notebooks):
    metrics, _ = record.read_metrics(two_notebooks)
    rows = report.metric_rows(metrics)
    assert rows[2] == [
        "cosine",
        "test",
        "12",
        "0.9337",
        "0.8765",
        "0.7 mean",
        "↑ 1",
        "05_content_vae",
    ]
    assert rows[3] == ["LSD", "test", "12", "", "12", "0.7 mean", "↓ dB", "05_content_vae"]
    table = report.markdown_table(report.HEADER, rows).splitlines()
    assert len(table) == 6 and {line.count("|") for line in table} == {len(report.HEADER) + 1}


def test_report_holds_table_definitions_and_figures(two_notebooks):
    text = report.write(two_notebooks).read_text()
    assert "| cosine | test | 12 | 0.9337 | 0.5 |" in text
    assert text.count("- **cosine**: Cosine between flattened items.") == 1
    assert "![fig03_vae.png](fig03_vae.png)" in text
    assert "profile `smoke`, corpus `bands`" in text
    merged = json.loads((two_notebooks / "metrics.json").read_text())
    assert len(merged["metrics"]) == 4 and set(merged["provenance"]) == {
        "02_features",
        "05_content_vae",
    }


def test_readme_is_changed_between_its_markers_only(two_notebooks, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold table\n{report.END}\n\nend\n")
    report.update_readme(two_notebooks, readme)
    once = readme.read_text()
    report.update_readme(two_notebooks, readme)
    assert readme.read_text() == once
    assert once.startswith(f"# Title\n\n{report.BEGIN}\nprofile") and once.endswith("\n\nend\n")
    assert "old table" not in once and "| LSD |" in once
