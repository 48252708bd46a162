"""The notebooks as one run: what depends on what, and how one of them is executed.

The ``Snakefile`` and ``audiostyle reproduce`` are two doors to the same rules.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from .. import paths

# notebook -> the notebooks whose checkpoints or metrics it reads
DEPENDS: dict[str, tuple[str, ...]] = {
    "00_listen_first": (),
    "01_data": (),
    "02_features": (),
    "03_failed_resnet": (),
    "04_failed_linear": (),
    "05_content_vae": (),
    "06_style_encoder": (),
    "07_recombination": ("05_content_vae", "06_style_encoder"),
    "08_vocoding": ("07_recombination",),
    "09_evaluation": ("07_recombination",),
    "10_future_work": (),
}
DEPENDS["11_report"] = tuple(DEPENDS)
COMPILED_ON_IMPORT = (
    "librosa.beat",
    "librosa.core.audio",
    "librosa.core.pitch",
    "librosa.util.utils",
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A cell failed; the message names the notebook, the cell and the error."""


class PrefixedStream:
    """Text stream that writes whole lines, each behind a label: several notebooks run at once."""

    def __init__(self, label: str, stream=None):
        self.label, self.stream, self.pending = label, stream or sys.stdout, ""

    def write(self, text: str) -> None:
        *lines, self.pending = (self.pending + text).split("\n")
        for line in lines:
            print(f"{self.label} | {line}", file=self.stream, flush=True)

    def flush(self) -> None:
        self.stream.flush()


def execute(name: str, output: Path, parameters: dict) -> None:
    """Run the notebook called `name` through papermill to `output`; show what it prints.

    Raises
    ------
    NotebookError
        At the first failing cell. `output` is left out, so that a later run does it again; the
        notebook up to the error is beside it as ``<name>.failed.ipynb``.
    """
    import papermill

    os.environ["AUDIOSTYLE_BATCH"] = "1"
    started = time.perf_counter()
    print(f"{name} | started", flush=True)
    failed = Path(output).with_suffix(".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            paths.NOTEBOOKS / f"{name}.ipynb",
            failed,
            parameters=parameters,
            progress_bar=False,
            kernel_name="python3",
            stdout_file=PrefixedStream(name),
            extra_arguments=["--log-level=ERROR"],  # of the kernel, which warns of its transport
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(_describe(name, error, failed)) from None
    failed.replace(output)
    print(f"{name} | finished in {time.perf_counter() - started:.0f} s", flush=True)


def _describe(name: str, error, failed: Path) -> str:
    trace = ANSI.sub("", "\n".join(error.traceback))
    where = re.findall(r"^-+> \d+ (.*)$", trace, flags=re.MULTILINE)
    lines = [f"{name}, code cell {error.exec_count}: {error.ename}: {error.evalue}"]
    lines += [f"  at: {where[0].strip()}"] if where else []
    return "\n".join([*lines, f"  the notebook up to there: {failed}"])


def reproduce(
    *, profile: str, corpus: str, seed: int, device: str, cores: int, only: list[str] | None = None
) -> int:
    """Run what is not up to date, as the DAG in the Snakefile; return snakemake's exit code.

    Parameters
    ----------
    only : names or numbers of notebooks; they and what they depend on are run. All if None.
    """
    targets = [_named(text) for text in only or ["11_report"]]
    _compile_librosa()
    folder = paths.runs() / f"{profile}-{corpus}"
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile"),
        "--directory", str(paths.ROOT), "--cores", str(cores), "--quiet", "all",
        "--rerun-triggers", "mtime", "params", "--rerun-incomplete", "--nolock",
        *(str(folder / "notebooks" / f"{name}.ipynb") for name in targets),
        "--config", f"profile={profile}", f"corpus={corpus}", f"seed={seed}", f"device={device}",
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


def _compile_librosa() -> None:
    """Fill the cache of the functions that librosa compiles on import, in one process.

    Two at once, as notebooks are run, leave it with parts of both, and every process that then calls
    such a function crashes (numba issue 10128).
    """
    subprocess.run([sys.executable, "-c", f"import {', '.join(COMPILED_ON_IMPORT)}"], check=True)


def _named(text: str) -> str:
    matches = [name for name in DEPENDS if name == text or name.split("_")[0] == text.zfill(2)]
    if not matches:
        raise ValueError(f"no notebook {text!r}: choose one of {', '.join(DEPENDS)}")
    return matches[0]


def store(folder: Path) -> list[Path]:
    """Copy a run's executed notebooks, outputs included, over the sources in ``notebooks/``.

    The parameters cell keeps its defaults; what papermill added is taken out.
    """
    import nbformat

    written = []
    for name in DEPENDS:
        notebook = nbformat.read(folder / "notebooks" / f"{name}.ipynb", as_version=4)
        notebook.cells = [
            c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])
        ]
        for cell in notebook.cells:
            for key in ("papermill", "execution"):
                cell.metadata.pop(key, None)
        notebook.metadata.pop("papermill", None)
        target = paths.NOTEBOOKS / f"{name}.ipynb"
        with paths.written_beside(target) as temporary:
            nbformat.write(notebook, temporary)
        written.append(target)
    return written
