"""The notebooks as one run: what depends on what, how one is executed, how a run is stored.

``audiostyle reproduce`` runs the rules in the ``Snakefile``, which run each notebook by
``python -m audiostyle_lib.course.pipeline``.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import corpora, paths
from ..errors import InputError
from . import prose, report
from .run import read_run, write_metrics

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
# Each is started as soon as it can be: all other notebooks fit in beside them.
LONGEST_CHAIN = ("05_content_vae", "06_style_encoder", "07_recombination", "09_evaluation")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class NotebookError(RuntimeError):
    """A cell failed; the message names the notebook, the cell and the error."""


class PrefixedStream:
    """Text stream that writes whole lines, each behind a label: several notebooks run at once.

    A carriage return ends a line, too: a log keeps the lines that a notebook writes over. `end`
    writes what came after the last newline.
    """

    def __init__(self, label: str, stream=None):
        self.label, self.stream, self.pending = label, stream or sys.stdout, ""

    def write(self, text: str) -> None:
        *lines, self.pending = re.split("[\r\n]", self.pending + text)
        for line in filter(None, lines):
            # In one piece with its newline: another process may write to the same terminal.
            print(f"{self.label} | {line}\n", end="", file=self.stream, flush=True)

    def flush(self) -> None:
        self.stream.flush()

    def end(self) -> None:
        if self.pending:
            self.write("\n")


def execute(name: str, output: Path, parameters: dict) -> None:
    """Run a notebook through papermill and show what it prints.

    Parameters
    ----------
    name : str
        Of the notebook, without suffix.
    output : Path
        Where the executed notebook goes.
    parameters : dict
        Values for the notebook's cell of parameters.

    Raises
    ------
    NotebookError
        At the first failing cell. `output` is left out, so that a later run does it again; the
        notebook up to the error is beside it as ``<name>.failed.ipynb``.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    os.environ |= {"AUDIOSTYLE_BATCH": "1", "AUDIOSTYLE_NOTEBOOK": name}
    started, printed = time.perf_counter(), PrefixedStream(name)
    printed.write("started\n")
    failed = Path(output).with_suffix(".failed.ipynb")
    failed.parent.mkdir(parents=True, exist_ok=True)
    try:
        executed = papermill.execute_notebook(
            paths.NOTEBOOKS / f"{name}.ipynb",
            failed,
            parameters=parameters,
            progress_bar=False,
            kernel_name="python3",
            stdout_file=printed,
            coalesce_streams=True,  # of the lines that are written over, the last one is kept
            extra_arguments=["--log-level=ERROR"],  # of the kernel, which warns of its transport
        )
    except papermill.PapermillExecutionError as error:
        raise NotebookError(_describe(name, error, failed)) from None
    except DeadKernelError:
        raise NotebookError(
            f"{name}: its process was ended from outside, as if memory was full"
        ) from None
    except OSError as error:
        raise NotebookError(f"{name}: {error}") from None
    finally:
        printed.end()
    failed.replace(output)
    times = output.parent.parent / "times" / f"{name}.json"
    with paths.written_beside(times) as temporary:
        temporary.write_text(json.dumps(seconds_by_section(executed), indent=1) + "\n")
    printed.write(f"finished in {time.perf_counter() - started:.0f} s\n")


def seconds_by_section(notebook) -> dict[str, float]:
    """What the time of an executed notebook was spent on: seconds by the heading above a cell."""
    section, seconds = "", {}
    for cell in notebook.cells:
        headings = re.findall(r"^#+ (.*)$", cell.source, flags=re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            section = headings[-1]
        taken = cell.metadata.get("papermill", {}).get("duration") or 0.0
        seconds[section] = round(seconds.get(section, 0.0) + taken, 1)
    return {name: s for name, s in seconds.items() if s}


def _describe(name: str, error, failed: Path) -> str:
    trace = ANSI.sub("", "\n".join(error.traceback))
    where = re.findall(r"^-+> \d+ (.*)$", trace, flags=re.MULTILINE)
    lines = [f"{name}, code cell {error.exec_count}: {error.ename}: {error.evalue}"]
    lines += [f"  at: {where[0].strip()}"] if where else []
    return "\n".join([*lines, f"  the notebook up to there: {failed}"])


def reproduce(
    *, profile: str, corpus: str, seed: int, device: str, cores: int, only: list[str] | None = None
) -> int:
    """Run what is not up to date, as the DAG in the Snakefile says.

    Parameters
    ----------
    profile, corpus : str
        The run is ``paths.runs() / f"{profile}-{corpus}"``.
    seed : int
    device : str
        "cpu", "cuda" or "auto".
    cores : int
        Of the CPU, to be shared by the notebooks that run at the same time.
    only : list of str, optional
        Names or numbers of notebooks; they and what they depend on are run. All if None.

    Returns
    -------
    int
        Snakemake's exit code, 0 if every notebook ran.

    Raises
    ------
    InputError
        If there is no notebook of such a name or number, no such corpus, or another run in the folder.
    """
    if corpus == "gtzan":
        corpora.gtzan_folder()  # or one line, before anything is started
    targets = [_named(text) for text in only or ["11_report"]]
    folder = paths.runs() / f"{profile}-{corpus}"
    command = [
        sys.executable, "-m", "audiostyle_lib.course.scheduler",
        "--snakefile", str(paths.ROOT / "Snakefile"),
        "--directory", str(paths.ROOT), "--cores", str(cores), "--quiet", "all",
        "--rerun-triggers", "mtime", "params", "--rerun-incomplete", "--nolock",
        "corpus", *(str(folder / "notebooks" / f"{name}.ipynb") for name in targets),
        "--config", f"profile={profile}", f"corpus={corpus}", f"seed={seed}", f"device={device}",
    ]  # fmt: skip
    with _alone_in(folder) as lock, _temporary_in(folder) as temporary:
        _forget_damaged(folder)
        scheduler = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=[lock],
            env=os.environ | {"TMPDIR": str(temporary)},
        )  # fmt: skip
        with scheduler:  # its end of the pipe closes with this process, however that ends
            return scheduler.wait()


@contextmanager
def _temporary_in(folder: Path) -> Iterator[Path]:
    """A run's folder for the temporary files of Jupyter; what a killed run has left there goes."""
    temporary = folder / ".temporary"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """Yield the file descriptor that holds the lock of a run's folder.

    Processes that inherit the descriptor hold the lock until the last of them has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        _lock(lock, folder)
        yield lock
    finally:
        os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        reason = "another run is at work here; wait until it has ended"
        raise InputError(f"{folder}: {reason}") from None


def _forget_damaged(folder: Path) -> None:
    """Remove executed notebooks of which a file is damaged, so that they are executed again."""
    for name in DEPENDS:
        executed = folder / "notebooks" / f"{name}.ipynb"
        results = [folder / kind / f"{name}.json" for kind in ("metrics", "times")]
        damaged = [f for f in (executed, *results) if f.exists() and not _is_json(f)]
        if executed.exists() and damaged:
            print(f"{damaged[0]}: damaged, so {name} is run again", flush=True)
            executed.unlink()


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text())
    except ValueError:
        return False
    return True


def estimate(folder: Path) -> str:
    """What a run will take, from one whose trainings were cut short (``reproduce --rehearse``).

    Parameters
    ----------
    folder : Path
        Of the rehearsal.

    Returns
    -------
    str
        Two tables in Markdown: of each training its steps and what one takes, of each notebook the
        minutes with the trainings at full length, on this machine with what ran beside it.
    """
    from ..models import checkpoint  # torch is not needed to run notebooks

    trainings, cut, whole = [], {}, {}
    for file in sorted((folder / "checkpoints").glob("*.safetensors")):
        header = checkpoint.read_header(file)
        if "asked" not in header:
            continue
        steps, epochs = header["asked"]["steps"], header["asked"]["epochs"]
        seconds, notebook = header["seconds"], header["notebook"]
        full = steps * seconds["step"] + epochs * seconds["evaluation"]
        cut[notebook] = cut.get(notebook, 0.0) + sum(header["curves"]["seconds"])
        whole[notebook] = whole.get(notebook, 0.0) + full
        row = [notebook, file.stem, f"{steps}", f"{1000 * seconds['step']:.1f}"]
        trainings.append([*row, f"{seconds['evaluation']:.2f}", f"{full / 60:.2f}"])
    notebooks, minutes = [], {}
    for file in sorted((folder / "times").glob("*.json")):
        name, taken = file.stem, sum(json.loads(file.read_text()).values())
        minutes[name] = (taken - cut.get(name, 0.0) + whole.get(name, 0.0)) / 60
        row = [name, f"{taken / 60:.2f}", f"{whole.get(name, 0.0) / 60:.2f}"]
        notebooks.append([*row, f"{minutes[name]:.2f}"])
    chain: dict[str, float] = {}
    for name, after in DEPENDS.items():
        chain[name] = minutes.get(name, 0.0) + max((chain[other] for other in after), default=0.0)
    longest = max(chain.values())
    header = ["notebook", "training", "steps", "ms a step", "s an evaluation", "minutes"]
    return "\n\n".join([
        prose.markdown_table(header, trainings),
        prose.markdown_table(["notebook", "rehearsed", "trainings", "in all / minutes"], notebooks),
        f"all notebooks one after the other {sum(minutes.values()):.1f} minutes, two at a time at least "
        f"{max(longest, sum(minutes.values()) / 2):.1f}; those that wait for one another {longest:.1f}",
    ])  # fmt: skip


def _named(text: str) -> str:
    number = text.zfill(2) if text else ""
    matches = [name for name in DEPENDS if name == text or name.split("_")[0] == number]
    if not matches:
        raise InputError(f"no notebook {text!r}: choose one of {', '.join(DEPENDS)}")
    return matches[0]


def needed(only: list[str] | None) -> list[str]:
    """The notebooks that `only` names, by name or number, and those that they depend on; all if None."""
    wanted = {_named(text) for text in only or ["11_report"]}
    for name in reversed(DEPENDS):  # a notebook stands after those that it depends on
        if name in wanted:
            wanted.update(DEPENDS[name])
    return [name for name in DEPENDS if name in wanted]


def store(folder: Path, *, only: list[str] | None = None) -> None:
    """Make a run, or some notebooks of it, the committed reference.

    Metrics, figures and report page go to ``figures/<profile>-<corpus>/``, the executed notebooks to
    ``notebooks/`` and the claims to the README. What the reference holds of other notebooks stays.
    The large runs (`report.REFERENCES`) leave the notebooks and the README as they are.

    Parameters
    ----------
    folder : Path
        Of the run.
    only : list of str, optional
        Names or numbers of notebooks; they and what they depend on are stored. All if None.
    """
    names, reference, kept = needed(only), paths.REFERENCES / folder.name, set()
    reference.mkdir(parents=True, exist_ok=True)
    _store_metrics(folder, reference, names)
    for name in names:
        executed = folder / "notebooks" / f"{name}.ipynb"
        source = executed.read_text(encoding="utf-8")
        for file in (*folder.glob("fig*.*"), folder / "benchmark.json"):
            if any(f'\\"{written}\\"' in source for written in (file.stem, file.name)):
                shutil.copyfile(file, reference / file.name)
                kept.add(reference / file.name)
        if folder.name not in report.REFERENCES:
            _store_notebook(executed, paths.NOTEBOOKS / f"{name}.ipynb")
    for file in set(reference.glob("fig*.*")) - kept if only is None else ():
        file.unlink()  # no notebook draws it any more
    report.write(reference)
    if folder.name not in report.REFERENCES:
        report.update_readme(reference)


def _store_metrics(folder: Path, reference: Path, names: list[str]) -> None:
    """Put the metrics of these notebooks in place of those that the reference has of them."""
    runs = [read_run(reference)] if (reference / "metrics.json").is_file() else []
    metrics = [m for old in runs for m in old.metrics if m["notebook"] not in names]
    provenance = {n: p for old in runs for n, p in old.provenance.items() if n not in names}
    run = read_run(folder)
    metrics += [m for m in run.metrics if m["notebook"] in names]
    provenance |= {n: p for n, p in run.provenance.items() if n in names}
    metrics.sort(key=lambda m: m["notebook"])
    write_metrics(reference / "metrics.json", metrics, dict(sorted(provenance.items())))


def _store_notebook(executed: Path, target: Path) -> None:
    """Copy an executed notebook, outputs included, without what papermill added to it."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.cells = [
        c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    notebook.metadata.pop("papermill", None)
    with paths.written_beside(target) as temporary:
        nbformat.write(notebook, temporary)


def main(arguments: list[str]) -> int:
    """Run one notebook for the Snakefile, given name, output, profile, corpus, seed and device."""
    name, output, profile, corpus, seed, device = arguments
    parameters = {"profile": profile, "corpus": corpus, "seed": int(seed), "device": device}
    try:
        execute(name, Path(output), parameters)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
