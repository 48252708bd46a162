"""The whole pipeline in ``smoke``, the notebooks through nbval, and what happens when a cell fails."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import soundfile

from audiostyle_lib import bands, paths
from audiostyle_lib.__main__ import main
from audiostyle_lib.course import pipeline, run, scheduler
from audiostyle_lib.models import checkpoint

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
    assert {".".join(f.with_suffix("").parts) for f in found} == set(scheduler.COMPILED_ON_IMPORT)


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
    found = run.read_run(smoke)
    assert {m["notebook"] for m in found.metrics} == set(pipeline.DEPENDS) - {"11_report"}
    assert all(m["definition"] and m["unit"] and m["n"] > 0 and m["cell"] for m in found.metrics)
    speeds = {m["name"] for m in found.metrics if m["tolerance"] is None}
    assert speeds and speeds == {m["name"] for m in found.metrics if m["unit"] == "s/s"}
    assert {p["profile"] for p in found.provenance.values()} == {"smoke"}
    page = (smoke / "report.md").read_text()
    assert all(
        f"| {m['name']} {'↑' if m['higher_is_better'] else '↓'} " in page for m in found.metrics
    )


def test_a_second_run_does_nothing(smoke, environment):
    before = {f: f.stat().st_mtime_ns for f in smoke.rglob("*") if f.is_file()}
    result = reproduce(environment, "--corpus", "bands")
    assert result.returncode == 0
    assert "started" not in result.stdout
    assert result.stdout.splitlines()[-1].startswith("no reference to compare with")
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
    """Every cell runs in `smoke`, and what the notebooks assert holds."""
    for notebook in NOTEBOOKS:
        papermill.execute_notebook(
            notebook, tmp_path / notebook.name, parameters={"profile": "smoke", "corpus": "bands"},
            prepare_only=True,
        )  # fmt: skip

    def check(notebooks: list[Path]) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q",
             "--nbval-cell-timeout", "600", "-p", "no:cacheprovider", "--rootdir", str(tmp_path),
             *(str(tmp_path / n.name) for n in notebooks)],
            capture_output=True, text=True, timeout=1500, check=False,
            env=environment | {"AUDIOSTYLE_BATCH": "1"}, cwd=tmp_path,
        )  # fmt: skip

    half = [n for n in NOTEBOOKS if n.stem in ("07_recombination", "09_evaluation")]
    with ThreadPoolExecutor(2) as two:  # each waits for a process of its own
        for result in two.map(check, (half, [n for n in NOTEBOOKS if n not in half])):
            assert result.returncode == 0, result.stdout[-5000:]


def test_the_pipeline_on_real_clips(gtzan_subset, environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gtzan")
    env = environment | {
        "AUDIOSTYLE_GTZAN": str(gtzan_subset),
        "AUDIOSTYLE_FIGURES": str(folder),
    }
    result = reproduce(env)  # corpus auto finds the clips
    assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
    provenance = run.read_run(folder / "smoke-gtzan").provenance
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


def test_a_last_line_without_newline_is_shown(capsys):
    stream = pipeline.PrefixedStream("05")
    stream.write("one\ntw")
    stream.write("o")
    stream.end()
    stream.end()
    assert capsys.readouterr().out == "05 | one\n05 | two\n"


def test_a_line_that_is_written_over_stays_in_the_log_alone(tmp_path, monkeypatch, capsys):
    source = "for k in (1, 2):\n    print(f'epoch {k}', end='\\r', flush=True)\nprint('trained')"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [nbformat.v4.new_code_cell(source)]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    nbformat.write(notebook, tmp_path / "05_content_vae.ipynb")
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    pipeline.execute("05_content_vae", tmp_path / "out" / "05_content_vae.ipynb", {})
    executed = nbformat.read(tmp_path / "out" / "05_content_vae.ipynb", as_version=4)
    assert [o.text for o in executed.cells[-1].outputs] == ["trained\n"]
    log = capsys.readouterr().out.splitlines()[1:-1]
    assert log == [f"05_content_vae | {line}" for line in ("epoch 1", "epoch 2", "trained")]


def test_time_is_told_by_the_heading_above_a_cell():
    def cell(source, seconds):
        made = nbformat.v4.new_code_cell(source)
        made.metadata["papermill"] = {"duration": seconds}
        return made

    heading = nbformat.v4.new_markdown_cell
    cells = [cell("a", 1.0), heading("## One\ntext"), cell("b", 2.0), heading("no heading")]
    cells += [cell("c", 3.5), heading("### Two"), cell("d", None), heading("# One"), cell("e", 1.0)]
    found = pipeline.seconds_by_section(nbformat.v4.new_notebook(cells=cells))
    assert found == {"": 1.0, "One": 6.5}


def test_a_rehearsal_says_how_long_the_whole_would_be(tmp_path):
    header = {
        "asked": {"steps": 600, "epochs": 3}, "seconds": {"step": 0.1, "evaluation": 2.0},
        "curves": {"seconds": [3.0, 3.0]}, "notebook": "05_content_vae",
    }  # fmt: skip
    checkpoint.save(tmp_path / "checkpoints" / "content_vae.safetensors", {}, header)
    (tmp_path / "times").mkdir()
    (tmp_path / "times" / "05_content_vae.json").write_text('{"Experiment": 30.0}')
    (tmp_path / "times" / "01_data.json").write_text('{"Listen": 60.0}')
    text = pipeline.estimate(tmp_path)
    assert "| 05_content_vae | content_vae | 600 | 100.0 | 2.00 | 1.10 |" in text
    assert "| 05_content_vae | 0.50 | 1.10 | 1.50 |" in text  # 30 - 6 + 66 s
    assert "one after the other 2.5 minutes, two at a time at least 1.5" in text
    assert "wait for one another 1.5" in text


def test_what_a_notebook_needs():
    assert pipeline.needed(["7"]) == ["05_content_vae", "06_style_encoder", "07_recombination"]
    assert pipeline.needed(["2", "01_data"]) == ["01_data", "02_features"]
    assert pipeline.needed(None) == list(pipeline.DEPENDS)
    with pytest.raises(ValueError, match="no notebook '12'"):
        pipeline.needed(["12"])


def test_the_longest_chain_leaves_out_nothing_that_it_waits_for():
    chain = set(pipeline.LONGEST_CHAIN)
    assert chain and all(chain.issuperset(pipeline.DEPENDS[name]) for name in chain)


def test_reproduce_outside_of_a_checkout_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert main(["reproduce"]) == 2
    message = capsys.readouterr().err
    assert "reproduce needs the notebooks" in message and message.count("\n") == 1


# A checkout with small notebooks ------------------------------------------------------------------

SMALL = """from audiostyle_lib.course.run import open_run
run = open_run("{name}", profile=profile, corpus=corpus, seed=seed, device=device)
run.save_figure(plt.figure(figsize=(1, 1)), "{figure}")
run.record_metric(
    "metric of {name}", {value}, split="test", unit="1", definition="d", trivial=0.0, n=1
)
print("no newline at the end of {name}", end="")"""


class Checkout:
    """A copy of the package with small notebooks and a GTZAN of its own, under git.

    The folder has a space in its name, and so has the environment.
    """

    def __init__(self, folder: Path):
        self.root, self.gtzan = folder / "my checkout", folder / "my gtzan"
        self.python = folder / "my environment" / "bin" / "python"
        self.python.parent.parent.symlink_to(sys.prefix)
        shutil.copytree(
            paths.PACKAGE,
            self.root / "audiostyle_lib",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in ("Snakefile", ".gitignore", "pyproject.toml"):
            shutil.copy(paths.ROOT / name, self.root)
        for name in pipeline.DEPENDS:
            self.write_notebook(name, 1.0)
        (self.root / "README.md").write_text(
            "<!-- results: begin -->\nnothing yet\n<!-- results: end -->\n"
        )
        for genre in bands.GENRES:
            for k in range(3):
                self.write_clip(genre, k)
        self.git("init")
        self.commit()

    def git(self, *arguments) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=True
        ).stdout

    def commit(self) -> None:
        self.git("add", ".")
        self.git("commit", "-m", "all")

    def write_notebook(self, name: str, value: float) -> None:
        parameters = 'profile = "smoke"\ncorpus = "auto"\nseed = 0\ndevice = "auto"'
        source = SMALL.format(name=name, value=value, figure=f"fig{name[:2]}_small")
        cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}, id="a"),
            nbformat.v4.new_code_cell(f"import matplotlib.pyplot as plt\n{source}", id="b"),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        (self.root / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, self.root / "notebooks" / f"{name}.ipynb")

    def write_clip(self, genre: str, k: int, *, seed: int = 0) -> None:
        (self.gtzan / genre).mkdir(parents=True, exist_ok=True)
        noise = 0.1 * np.random.default_rng([seed, k, *genre.encode()]).standard_normal(22050)
        soundfile.write(self.gtzan / genre / f"{genre}.{k:05d}.wav", noise, 22050)

    def reproduce(self, *arguments: str) -> list[str]:
        """Lines that it prints; fails unless the exit code is 0."""
        env = {k: v for k, v in os.environ.items() if not k.startswith("AUDIOSTYLE_")}
        env |= {"PYTHONPATH": str(self.root), "AUDIOSTYLE_GTZAN": str(self.gtzan)}
        command = [
            self.python,
            "-m",
            "audiostyle_lib",
            "reproduce",
            "--profile",
            "smoke",
            *arguments,
        ]
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=env,
            cwd=self.root,
        )
        assert result.returncode == 0, (result.stdout + result.stderr)[-5000:]
        return result.stdout.splitlines()

    def stored(self, name: str) -> dict:
        metrics = json.loads((self.root / "figures/smoke-gtzan/metrics.json").read_text())[
            "metrics"
        ]
        (found,) = (m for m in metrics if m["notebook"] == name)
        return found


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_a_run_follows_its_corpus_and_leaves_the_checkout_clean(checkout):
    lines = checkout.reproduce("--only", "2")
    assert "02_features | started" in lines
    assert "02_features | no newline at the end of 02_features" in lines
    assert lines[-1] == "no reference to compare with: there is no figures/smoke-gtzan"
    assert checkout.git("status", "--short") == ""
    assert "02_features | started" not in checkout.reproduce("--only", "2")
    checkout.write_clip("jazz", 3)
    lines = checkout.reproduce("--only", "2")
    assert "02_features | started" in lines
    assert any(line.startswith("gtzan: 31 usable tracks") for line in lines)
    checkout.write_clip("jazz", 3, seed=1)  # the same size
    assert "02_features | started" in checkout.reproduce("--only", "2")
    checkout.gtzan = shutil.copytree(checkout.gtzan, checkout.gtzan.with_name("another"))
    (checkout.gtzan / "rock" / "rock.00000.wav").unlink()
    assert "02_features | started" in checkout.reproduce("--only", "2")


def test_a_deleted_corpus_is_rendered_again(checkout):
    checkout.reproduce("--only", "2", "--corpus", "bands")
    rendered = checkout.root / "data" / "bands"
    assert checkout.git("status", "--short") == ""
    shutil.rmtree(rendered)
    checkout.reproduce("--only", "2", "--corpus", "bands")
    assert len(list(rendered.rglob("*.flac"))) == 40


def test_store_after_only_keeps_the_rest_of_the_reference(checkout):
    checkout.reproduce("--only", "2", "7", "--store")
    reference = checkout.root / "figures" / "smoke-gtzan"
    stored = {"02_features", "05_content_vae", "06_style_encoder", "07_recombination"}
    assert {f.name for f in reference.glob("fig*.png")} == {f"fig{n[:2]}_small.png" for n in stored}
    assert json.loads((reference / "metrics.json").read_text())["provenance"].keys() == stored
    assert (reference / "report.md").is_file()
    changed = checkout.git("status", "--short", "notebooks").split()[1::2]
    assert changed == [f"notebooks/{name}.ipynb" for name in sorted(stored)]
    executed = nbformat.read(checkout.root / "notebooks" / "02_features.ipynb", as_version=4)
    assert [c.id for c in executed.cells] == ["a", "b"] and executed.cells[1].outputs
    checkout.commit()

    checkout.write_notebook("02_features", 2.0)
    checkout.write_notebook("06_style_encoder", 3.0)
    lines = checkout.reproduce("--only", "2", "--store")
    assert lines[-2:] == [
        "3 of 4 metrics agree with figures/smoke-gtzan, these do not:",
        "  metric of 02_features, test: 2, reference 1 (tolerance 0.01)",
    ]
    assert checkout.stored("02_features")["value"] == 2.0
    assert checkout.stored("06_style_encoder")["value"] == 1.0


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.stem)
def test_stored_notebooks_can_be_read_and_heard_without_running(notebook):
    content = nbformat.read(notebook, as_version=4)
    code = [c for c in content.cells if c.cell_type == "code"]
    prose = "\n".join(c.source for c in content.cells if c.cell_type == "markdown")
    for section in ("Question", "Listen", "Theory", "Result", "What failed and why", "Summary",
                    "Exercises", "References"):  # fmt: skip
        assert f"## {section}" in prose, section
    lengths = sorted(len(c.source.splitlines()) for c in code)
    assert lengths[-1] <= 40 and lengths[len(lengths) // 2] <= 17
    assert all(c.execution_count for c in code), "run it and store its outputs"
    assert not [o for c in code for o in c.outputs if o.output_type == "error"]
    assert any(re.search(r"(?m)^assert ", c.source) for c in code), "nbval has nothing to check"
    html = "".join(o.data.get("text/html", "") for c in code for o in c.outputs if "data" in o)
    assert "<audio" in html and "data:audio/mpeg;base64," in html
    assert notebook.stat().st_size < 2_000_000


def test_stored_numbers_link_to_cells_that_exist():
    ids = {n.stem: {c.id for c in nbformat.read(n, as_version=4).cells} for n in NOTEBOOKS}
    for file in sorted((paths.ROOT / "figures").glob("*/metrics.json")):
        metrics = json.loads(file.read_text())["metrics"]
        lost = [m["name"] for m in metrics if m["cell"] not in ids[m["notebook"]]]
        assert not lost, f"{file.parent.name}: {lost}"
