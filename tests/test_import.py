"""Importing costs nothing until it is used, and modules import downward only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "audiostyle_lib"
HEAVY = ("torch", "librosa", "matplotlib", "sklearn", "symusic", "IPython", "papermill")
MODULES = sorted(
    ".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for f in PACKAGE.rglob("*.py")
)


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


@pytest.mark.parametrize("module", ["__main__", "audio", "config", "paths", "pipeline"])
def test_what_the_command_line_needs_first_is_light(module):
    """Bad input is refused in a moment: torch alone takes seconds."""
    assert imported(f"import audiostyle_lib.{module}")[1] == []


def imports_of(module: str) -> set[str]:
    """Modules of the package that `module` imports, also inside functions."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    folder = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = folder.split(".")[: len(folder.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES and name not in (module, PACKAGE.name)}


def test_modules_import_without_circles():
    graph = {module: imports_of(module) for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("audiostyle_lib.config") < order.index("audiostyle_lib.signal.features")
    assert graph["audiostyle_lib.transfer"] >= {
        "audiostyle_lib.vocoding",
        "audiostyle_lib.models.recombine",
    }
    for name in ("config", "paths"):
        assert graph[f"audiostyle_lib.{name}"] == set(), "these lie at the bottom"
