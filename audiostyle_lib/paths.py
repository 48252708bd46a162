"""Every folder of the project, independent of the working directory.

Environment overrides: ``AUDIOSTYLE_DATA`` (rendered corpora), ``AUDIOSTYLE_GTZAN`` (a GTZAN-shaped
folder), ``AUDIOSTYLE_FIGURES`` (where runs write figures, metrics and executed notebooks).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PRETRAINED = ROOT / "data" / "pretrained"


def _folder(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


def data() -> Path:
    return _folder("AUDIOSTYLE_DATA", ROOT / "data")


def figures() -> Path:
    return _folder("AUDIOSTYLE_FIGURES", ROOT / "figures")


def gtzan() -> Path | None:
    """The GTZAN folder, or None where there is none.

    Raises
    ------
    FileNotFoundError
        If ``AUDIOSTYLE_GTZAN`` is set and names no folder: falling back silently to another corpus
        would report figures for the wrong data.
    """
    folder = _folder("AUDIOSTYLE_GTZAN", data() / "gtzan")
    if folder.is_dir():
        return folder
    if os.environ.get("AUDIOSTYLE_GTZAN"):
        raise FileNotFoundError(f"AUDIOSTYLE_GTZAN names no folder: {folder}")
    return None


@contextmanager
def written_beside(path: Path):
    """Yield a temporary path in `path`'s folder and rename it to `path` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
