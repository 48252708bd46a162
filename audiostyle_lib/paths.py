"""Every folder of the project, independent of the working directory.

In a checkout everything lies inside it. An installed package has no checkout around it: corpora and
runs then go to the user's own folder for data, as `platformdirs` names it.

Environment overrides: ``AUDIOSTYLE_DATA`` (rendered corpora), ``AUDIOSTYLE_GTZAN`` (a GTZAN-shaped
folder), ``AUDIOSTYLE_FIGURES`` (where runs write figures, metrics and executed notebooks).
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent  # of the checkout, where there is one: see `in_checkout`
NOTEBOOKS = ROOT / "notebooks"
REFERENCES = ROOT / "figures"  # committed runs, one folder per profile and corpus
# a wheel carries the weights inside the package
PRETRAINED = next(
    (f for f in (PACKAGE / "pretrained", ROOT / "data" / "pretrained") if f.is_dir()),
    PACKAGE / "pretrained",
)


def in_checkout() -> bool:
    """Whether the package lies in a checkout of the project, with its notebooks."""
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "notebooks").is_dir()


def require_checkout(what: str) -> None:
    """Raise `FileNotFoundError` if the notebooks, which `what` needs, are not there."""
    if not in_checkout():
        raise FileNotFoundError(
            f"{what} needs the notebooks, which an installed package does not have: "
            "run it in a checkout of the project"
        )


def _folder(variable: str, in_the_checkout: str, installed: str) -> Path:
    value = os.environ.get(variable)
    if value:
        return Path(value).expanduser().resolve()
    if in_checkout():
        return ROOT / in_the_checkout
    import platformdirs

    return platformdirs.user_data_path("audiostyle") / installed


def data() -> Path:
    """Where corpora are rendered or dropped in."""
    return _folder("AUDIOSTYLE_DATA", "data", "data")


def runs() -> Path:
    """Where runs write, each to ``<profile>-<corpus>`` in it."""
    return _folder("AUDIOSTYLE_FIGURES", "figures/runs", "runs")


def gtzan() -> Path | None:
    """The GTZAN folder, or None where there is none.

    Raises
    ------
    FileNotFoundError
        If ``AUDIOSTYLE_GTZAN`` is set and names no folder: falling back silently to another corpus
        would report figures for the wrong data.
    """
    named = os.environ.get("AUDIOSTYLE_GTZAN")
    folder = Path(named).expanduser().resolve() if named else data() / "gtzan"
    if folder.is_dir():
        return folder
    if named:
        raise FileNotFoundError(f"AUDIOSTYLE_GTZAN names no folder: {folder}")
    return None


@contextmanager
def written_beside(path: Path):
    """Yield a temporary path in `path`'s folder and rename it to `path` if the block succeeds.

    What a killed process has left there of the same file is removed first. A device or a pipe, such as
    /dev/null, is not replaced: it is yielded itself.

    Raises
    ------
    OSError
        Where nothing can be written, such as on a full disk; names `path`.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None:
            raise
        # what fails while it writes knows the reason and not the file
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_beside(path: Path):
    """Yield an empty folder beside `path` that is renamed to it, like `written_beside`.

    Where another process makes the same folder and is first, its folder stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        if not path.is_dir():
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """This process's temporary name beside `path`; those of processes that are no more are removed."""
    before, after = f".{path.stem[:20]}.", f".tmp{path.suffix}"
    for left in path.parent.glob(f"{glob.escape(before)}*{glob.escape(after)}"):
        import psutil

        pid = left.name.removeprefix(before).removesuffix(after)
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{before}{os.getpid()}{after}")
