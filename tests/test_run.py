"""What a run leaves behind: metrics with their definitions, figures that repeat."""

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
from audiostyle_lib.course import plots
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
    run.record_metric(name, value, **settings)
    return run.metrics[-1]


# Metrics --------------------------------------------------------------------------------------


def test_metric_is_stored_with_all_a_reader_needs(figures):
    run = open_run()
    note(run, value=np.float32(0.875), n=np.int64(12))
    content = json.loads((figures / "smoke-bands" / "metrics" / "05_content_vae.json").read_text())
    assert content["metrics"] == [
        {
            "name": "cosine", "value": 0.875, "spread": None, "seeds": 1, "diverged": 0,
            "tolerance": 0.01, "split": "test",
            "unit": "1", "definition": "Cosine between flattened items.", "trivial": 0.7,
            "trivial_name": "mean", "report": 0.9337, "n": 12, "tracks": None,
            "error": None,
            "higher_is_better": True, "notebook": "05_content_vae", "cell": None,
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
        "profile", "corpus", "corpus_sha256", "tracks", "seed", "seeds", "device", "commit", "python",
        "versions", "wall_seconds", "settings",
    }  # fmt: skip
    assert stored["settings"]["epochs"] == run.profile.epochs
    assert (stored["profile"], stored["corpus"], stored["seed"]) == ("smoke", "bands", 3)
    assert stored["corpus_sha256"] == run.corpus.sha256 and stored["device"].startswith("CPU")
    assert stored["versions"] == {n: metadata.version(n) for n in runs.VERSIONS_OF}
    assert 0 <= stored["wall_seconds"] < 60


def test_commit_is_marked_where_tracked_files_are_changed(tmp_path, monkeypatch):
    def git(*arguments):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "tag.gpgsign=false"]
        command = ["git", "-C", tmp_path, *settings, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def commit():
        runs._commit.cache_clear()
        return runs._commit()

    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == "unknown"
    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "a")
    git("tag", "-a", "v1", "-m", "v1")
    (tmp_path / "not tracked").touch()
    assert commit() == git("rev-parse", "--short", "HEAD")
    (tmp_path / "a").write_text("2")
    assert commit() == git("rev-parse", "--short", "HEAD") + "-dirty"
    runs._commit.cache_clear()


def test_same_metric_of_the_same_split_is_replaced(figures):
    run = open_run()
    note(run, value=0.1)
    note(run, "loss", 2.0, trivial=None, report=None)
    note(run, value=0.2, split="valid")
    note(run, value=0.3)
    metrics = runs.read_run(run.folder).metrics
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
    run = runs.read_run(figures / "smoke-bands")
    assert [m["value"] for m in run.metrics] == [2.0, 7.0]
    assert list(run.provenance) == ["02_features", "07_recombination"]


def read_strictly(file) -> dict:
    """JSON without NaN and Infinity, which other readers than Python's refuse."""

    def refuse(word):
        raise ValueError(f"not JSON: {word}")

    return json.loads(file.read_text(), parse_constant=refuse)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_seed_is_counted_and_left_out_of_mean_and_spread(figures, bad):
    run = open_run()
    entry = note(run, value=[0.2, bad, 0.4], trivial=bad)
    assert (entry["seeds"], entry["diverged"], entry["trivial"]) == (3, 1, None)
    assert entry["value"] == pytest.approx(0.3)
    assert entry["spread"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert runs.shown(entry) == "0.30 ± 0.14 (diverged: 1 of 3 seeds)"
    lost = note(run, "lost", [bad, bad])
    assert lost["value"] is None and lost["spread"] is None
    assert runs.shown(lost) == "diverged: 2 of 2 seeds"
    written = read_strictly(run.folder / "metrics" / "05_content_vae.json")["metrics"]
    assert written == [entry, lost]


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
    assert runs.number(value, spread) == shown


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
