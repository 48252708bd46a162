"""The whole pipeline in ``smoke``, the notebooks through nbval, and what happens when a cell fails."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from audiostyle_lib import paths
from audiostyle_lib.course import pipeline, run

NOTEBOOKS = [paths.NOTEBOOKS / f"{name}.ipynb" for name in pipeline.DEPENDS]


def reproduce(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "audiostyle_lib", "reproduce", "--profile", "smoke", *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        env=environment,
    )


def _compiles_on_import(file: Path) -> bool:
    """Whether a function in it is decorated by numba's vectorize or guvectorize."""
    decorators = (
        ast.unparse(d.func)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
        for d in node.decorator_list
        if isinstance(d, ast.Call)
    )
    return any(d in ("numba.vectorize", "numba.guvectorize", "guvectorize") for d in decorators)


def test_what_librosa_compiles_on_import_is_compiled_before_notebooks_run_side_by_side():
    root = Path(importlib.util.find_spec("librosa").origin).parent
    found = [f.relative_to(root.parent) for f in root.rglob("*.py") if _compiles_on_import(f)]
    assert {".".join(f.with_suffix("").parts) for f in found} == set(pipeline.COMPILED_ON_IMPORT)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    env = {k: v for k, v in os.environ.items() if not k.startswith("AUDIOSTYLE_")}
    return env | {"AUDIOSTYLE_DATA": str(folder), "AUDIOSTYLE_FIGURES": str(folder / "figures")}


@pytest.fixture(scope="session")
def smoke(environment):
    """The folder of a smoke run on `bands`, from nothing."""
    result = reproduce(environment, "--corpus", "bands")
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    return Path(environment["AUDIOSTYLE_FIGURES"]) / "smoke-bands"


def test_a_run_leaves_notebooks_figures_metrics_and_report(smoke):
    assert {f.stem for f in (smoke / "notebooks").glob("*.ipynb")} == set(pipeline.DEPENDS)
    for figure in ("fig1_genres", "fig2_architecture", "fig3_content_vae", "fig4_style_encoder"):
        assert (smoke / f"{figure}.svg").stat().st_size > 2000
        assert (smoke / f"{figure}.png").stat().st_size > 2000
    metrics, provenance = run.read_metrics(smoke)
    assert {m["notebook"] for m in metrics} == set(pipeline.DEPENDS) - {"11_report"}
    assert all(m["definition"] and m["unit"] and m["n"] > 0 and m["cell"] for m in metrics)
    assert {p["profile"] for p in provenance.values()} == {"smoke"}
    page = (smoke / "report.md").read_text()
    assert all(f"| {m['name']} |" in page for m in metrics)


def test_a_second_run_does_nothing(smoke, environment):
    before = {f: f.stat().st_mtime_ns for f in smoke.rglob("*") if f.is_file()}
    result = reproduce(environment, "--corpus", "bands")
    assert result.returncode == 0
    assert "started" not in result.stdout
    assert before == {f: f.stat().st_mtime_ns for f in smoke.rglob("*") if f.is_file()}


def test_figures_are_byte_identical_on_a_re_run(smoke, environment):
    names = ("fig1_genres.svg", "fig1_genres.png", "fig3_content_vae.svg", "fig3_content_vae.png")
    before = {name: (smoke / name).read_bytes() for name in names}
    for name in ("01_data", "05_content_vae"):
        (smoke / "notebooks" / f"{name}.ipynb").unlink()
    (smoke / "checkpoints" / "content_vae.safetensors").unlink()  # trained again
    result = reproduce(environment, "--corpus", "bands", "--only", "1", "5")
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    assert "05_content_vae | started" in result.stdout
    assert before == {name: (smoke / name).read_bytes() for name in names}


def test_notebooks_through_nbval(smoke, environment, tmp_path):
    """The stored outputs of checked cells hold in `smoke` as well."""
    for notebook in NOTEBOOKS:
        papermill.execute_notebook(
            notebook, tmp_path / notebook.name, parameters={"profile": "smoke", "corpus": "bands"},
            prepare_only=True,
        )  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q",
         "--nbval-cell-timeout", "600", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
         *(str(tmp_path / n.name) for n in NOTEBOOKS)],
        capture_output=True, text=True, timeout=1500, check=False,
        env=environment | {"AUDIOSTYLE_BATCH": "1"}, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-5000:]


def test_the_pipeline_on_real_clips(gtzan_subset, environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gtzan")
    env = environment | {
        "AUDIOSTYLE_GTZAN": str(gtzan_subset),
        "AUDIOSTYLE_FIGURES": str(folder),
    }
    result = reproduce(env)  # corpus auto finds the clips
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    _, provenance = run.read_metrics(folder / "smoke-gtzan")
    assert {p["corpus"] for p in provenance.values()} == {"gtzan"}
    assert (folder / "smoke-gtzan" / "fig3_content_vae.svg").is_file()


def test_a_failing_cell_is_named_and_leaves_no_output(tmp_path, monkeypatch, capsys):
    cells = [
        nbformat.v4.new_code_cell("print('before')"),
        nbformat.v4.new_code_cell("x = 1\n1 / 0"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "05_content_vae.ipynb")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    out = tmp_path / "out" / "05_content_vae.ipynb"
    with pytest.raises(pipeline.NotebookError) as error:
        pipeline.execute("05_content_vae", out, {})
    message = str(error.value)
    assert "05_content_vae, code cell 2: ZeroDivisionError: division by zero" in message
    assert "1 / 0" in message
    assert not out.exists() and out.with_suffix(".failed.ipynb").exists()
    assert "05_content_vae | before" in capsys.readouterr().out


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_stored_notebooks_can_be_read_and_heard_without_running(notebook):
    content = nbformat.read(notebook, as_version=4)
    code = [c for c in content.cells if c.cell_type == "code"]
    prose = "\n".join(c.source for c in content.cells if c.cell_type == "markdown")
    for section in ("Question", "Listen", "Theory", "Result", "What failed and why", "Summary",
                    "Exercises", "References"):  # fmt: skip
        assert f"## {section}" in prose, section
    lengths = sorted(len(c.source.splitlines()) for c in code)
    assert lengths[-1] <= 40 and lengths[len(lengths) // 2] <= 14
    assert all(c.execution_count for c in code), "run it and store its outputs"
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    checked = [c for c in code if c.source.startswith("# NBVAL_CHECK_OUTPUT")]
    assert checked and all(c.outputs for c in checked)
    html = "".join(o.data.get("text/html", "") for c in code for o in c.outputs if "data" in o)
    assert "<audio" in html and "data:audio/mpeg;base64," in html
    assert notebook.stat().st_size < 2_000_000


def test_stored_numbers_link_to_cells_that_exist():
    ids = {n.stem: {c.id for c in nbformat.read(n, as_version=4).cells} for n in NOTEBOOKS}
    for file in sorted((paths.ROOT / "figures").glob("*/metrics.json")):
        metrics = json.loads(file.read_text())["metrics"]
        lost = [m["name"] for m in metrics if m["cell"] not in ids[m["notebook"]]]
        assert not lost, f"{file.parent.name}: {lost}"
