"""Every folder of the project, independent of the working directory.

In a checkout everything lies inside it. An installed package has no checkout around it: corpora and
runs then go to the user's own folder for data, as `platformdirs` names it.

Environment overrides: ``AUDIOSTYLE_DATA`` (rendered corpora), ``AUDIOSTYLE_GTZAN`` (a GTZAN-shaped
folder), ``AUDIOSTYLE_FIGURES`` (where runs write figures, metrics and executed notebooks).
"""

from __future__ import annotations

import errno
import glob
import hashlib
import importlib.util
import os
import shutil
import socket
import stat
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

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
    """Raise `InputError` if the notebooks, which `what` needs, are not there."""
    if not in_checkout():
        raise InputError(
            f"{what} needs the notebooks, which an installed package does not have: "
            "run it in a checkout of the project"
        )


def expanded(path: str | Path) -> Path:
    """`path` from the root, with the home folder in place of a ``~``; `InputError` if there is none."""
    try:
        return Path(path).expanduser().resolve()
    except RuntimeError as error:
        raise InputError(f"{path}: {error}".rstrip(".")) from error


def check_writable(path: str | Path) -> Path:
    """Return `path` as a `Path` if a file can be written there, else raise `InputError`.

    For a command to ask before hours of work.
    """
    path = Path(path)
    try:
        folder = Path(os.path.realpath(path)).parent
        is_folder, is_other = path.is_dir(), path.exists() and not path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or that holds a NUL
        raise InputError(f"{path}: no name for a file ({error.args[-1]})") from error
    if is_folder:
        raise InputError(f"{path}: is a folder, name a file to write")
    if is_other:  # to be replaced by a file would not do /dev/null good
        raise InputError(f"{path}: is a device or a pipe, name a file to write")
    if not folder.is_dir():
        raise InputError(f"{path}: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: the folder {folder} is not writable")
    return path


def _folder(variable: str, in_the_checkout: str, installed: str) -> Path:
    value = os.environ.get(variable)
    if value:
        return expanded(value)
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
    InputError
        If ``AUDIOSTYLE_GTZAN`` is set and names no folder: falling back silently to another corpus
        would report figures for the wrong data.
    """
    named = os.environ.get("AUDIOSTYLE_GTZAN")
    folder = expanded(named) if named else data() / "gtzan"
    if folder.is_dir():
        return folder
    if named:
        raise InputError(f"AUDIOSTYLE_GTZAN names no folder: {folder}")
    return None


def ensure_numba_cache() -> None:
    """Find numba a folder for compiled functions where no usual one can be written.

    Without one it refuses to compile. To be called before the first function is declared, here or in
    librosa.
    """
    librosa = Path(importlib.util.find_spec("librosa").origin).parent
    beside_the_code = [package / "__pycache__" for package in (PACKAGE / "signal", librosa)]
    if all(map(_takes_files, beside_the_code)):
        return
    import platformdirs

    usual = [platformdirs.user_cache_path("numba", appauthor=False)]
    usual += [Path(named) for named in [os.environ.get("NUMBA_CACHE_DIR")] if named]
    if any(map(_takes_files, usual)):
        return
    os.environ["NUMBA_CACHE_DIR"] = str(_private_folder("audiostyle-numba"))  # also for children
    if "numba" in sys.modules:  # which has read the environment already
        sys.modules["numba"].config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]


def _takes_files(folder: Path) -> bool:
    """Whether files can be written to a folder, which is made if need be."""
    if not folder.is_absolute():  # "~/.cache" of a user without a home
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _private_folder(name: str) -> Path:
    """A folder among the temporary ones that nobody else can write to: numba runs what it finds there."""
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if ours and not found.st_mode & 0o077 else Path(tempfile.mkdtemp(prefix=name))


@contextmanager
def written_beside(path: Path):
    """Yield a temporary path in `path`'s folder and rename it to `path` if the block succeeds.

    A link is followed: the file that it points to is replaced. What killed processes of this machine have
    left there of the same file is removed first. A device or a pipe, such as /dev/null, is not replaced:
    it is yielded itself.

    Raises
    ------
    OSError
        Where nothing can be written, such as on a full disk; names `path`.
    """
    path = Path(os.path.realpath(path))
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
    # short, because the name may be as long as the file system allows
    before, after = f".{_digest(os.fsencode(path.name), 8)}-{_machine()}.", f".tmp{path.suffix}"
    for left in path.parent.glob(f"{before}*{glob.escape(after)}"):
        import psutil

        pid = left.name.removeprefix(before).removesuffix(after)
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{before}{os.getpid()}{after}")


def _digest(data: bytes, length: int) -> str:
    return hashlib.sha256(data).hexdigest()[:length]


def _machine() -> str:
    """Tells apart the machines that may write to one folder: a process number is known on one only."""
    return _digest(os.fsencode(socket.gethostname()), 4)
