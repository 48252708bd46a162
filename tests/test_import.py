"""Importing costs nothing until it is used, and modules import downward only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "audiostyle_lib"
HEAVY = ("torch", "librosa", "matplotlib", "sklearn", "symusic", "IPython", "papermill")


def imported(statement: str) -> tuple[float, list[str]]:
    """Seconds that `statement` takes in a fresh interpreter, and the heavy packages it loads."""
    code = (
        "import json, sys, time; start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps([time.perf_counter() - start, list(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, [name for name in HEAVY if name in modules]


def test_package_is_imported_at_once():
    seconds, heavy = imported("import audiostyle_lib")
    assert heavy == [] and seconds < 1.0


@pytest.mark.parametrize(
    "module", ["__main__", "signal.audio", "config", "paths", "course.pipeline"]
)
def test_what_the_command_line_needs_first_is_light(module):
    """Bad input is refused in a moment: torch alone takes seconds."""
    assert imported(f"import audiostyle_lib.{module}")[1] == []


def test_modules_import_downward_and_without_circles():
    """The contracts are in pyproject.toml, read by import-linter."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_what_users_import_most_is_found_at_the_top():
    for name in ("audio", "augment", "features", "listen", "transfer", "corpora"):
        assert imported(f"from audiostyle_lib import {name}")[0] > 0
    with pytest.raises(ImportError):
        from audiostyle_lib import nothing_of_the_kind  # noqa: F401
