"""Every folder of the project, independent of the working directory.

In a checkout everything lies inside it. An installed package has no checkout around it: corpora and
runs then go to the user's own folder for data, as `platformdirs` names it.

Environment overrides: ``AUDIOSTYLE_DATA`` (rendered corpora), ``AUDIOSTYLE_GTZAN`` (a GTZAN-shaped
folder), ``AUDIOSTYLE_FIGURES`` (where runs write figures, metrics and executed notebooks).
"""

from __future__ import annotations

import glob
import hashlib
import os
import socket
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

    A link is followed: the file that it points to is replaced. What processes that were killed on this
    machine have left of the same file is removed.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, because the name may be as long as the file system allows
    kept = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}-{_machine()}."
    for left in path.parent.glob(f"{kept}*.tmp{glob.escape(path.suffix)}"):
        if not _is_alive(left.name.removeprefix(kept).partition(".")[0]):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{kept}{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _machine() -> str:
    """Tells apart the machines that may write to one folder: a process number is known on one only."""
    return hashlib.sha256(os.fsencode(socket.gethostname())).hexdigest()[:4]


def _is_alive(process: str) -> bool:
    import psutil

    return process.isdecimal() and psutil.pid_exists(int(process))
