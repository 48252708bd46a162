"""One source of truth for versions; commands in the README exist; the repository stays clean."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [
    Requirement(text)
    for text in [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["test"],
        *PROJECT["project"]["optional-dependencies"]["cluster"],
    ]
]
MAX_BYTES = 2_000_000
MAX_WEIGHT_BYTES = 16_000_000  # all pretrained files together


@pytest.fixture(scope="module")
def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version.split(";")[0].strip() for name, version in pairs}


@pytest.fixture(scope="module")
def repository_files() -> list[Path]:
    """What git tracks or would track."""
    done = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git repository")
    return [f for name in done.stdout.split("\0") if name and (f := ROOT / name).is_file()]


@pytest.mark.parametrize("requirement", DEPENDENCIES, ids=lambda r: r.name)
def test_every_requirement_is_pinned_in_the_constraints(requirement, constraints):
    pinned = constraints[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pinned)
    for specifier in requirement.specifier:
        if specifier.operator == "==":
            assert specifier.version == pinned


@pytest.mark.parametrize("name", ["torch", "torchaudio", "torchvision", "librosa", "symusic"])
def test_installed_version_is_the_pinned_one(name, constraints):
    assert metadata.version(name).split("+")[0] == constraints[name]


def test_torch_packages_are_of_one_release(constraints):
    """torch 2.N, torchaudio 2.N and torchvision 0.(N + 15) belong together."""
    minor = {n: int(constraints[n].split(".")[1]) for n in ("torch", "torchaudio", "torchvision")}
    assert minor["torch"] == minor["torchaudio"] == minor["torchvision"] - 15


def test_conda_environment_has_no_versions_of_its_own():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert pip == ["--constraint constraints.txt", "--editable .[test]"]
    (python,) = [d.split("=")[1] for d in conda if d.startswith("python=")]
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(python)
    assert {d for d in conda if not d.startswith("python=")} <= {"pip", "make", "cxx-compiler"}


def test_console_script_is_installed_and_answers():
    (entry,) = metadata.entry_points(group="console_scripts", name="audiostyle")
    assert entry.value == PROJECT["project"]["scripts"]["audiostyle"]
    script = Path(sys.executable).with_name("audiostyle")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "transfer" in done.stdout and "reproduce" in done.stdout


def test_makefile_installs_under_the_constraints_and_has_what_the_readme_names():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"pip install --constraint constraints\.txt", makefile)
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    phony = set(re.search(r"\.PHONY: (.*)", makefile).group(1).split())
    assert {"reproduce", "test", "lab"} <= targets and phony <= targets
    readme = ROOT / "README.md"
    if readme.is_file():
        text = readme.read_text()
        named = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
        assert named and named <= targets
        settings = set(re.findall(r"\b([A-Z]+)=\w+", text)) & {
            "PROFILE",
            "CORPUS",
            "PYTHON",
            "CORES",
        }
        assert settings <= set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE))


def test_files_the_readme_links_to_exist():
    readme = ROOT / "README.md"
    if not readme.is_file():
        pytest.skip("no README")
    links = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", readme.read_text())
    assert links
    for file, _, cell in (link.partition("#cell-id=") for link in links):
        assert (ROOT / file).exists(), file
        assert f'"id": "{cell}"' in (ROOT / file).read_text() if cell else True, (file, cell)


def test_no_large_files(repository_files):
    """Weights may be large; a notebook or a figure may not."""
    assert ROOT / "pyproject.toml" in repository_files
    large = {
        str(f.relative_to(ROOT)): f.stat().st_size
        for f in repository_files
        if f.stat().st_size > MAX_BYTES and f.suffix != ".safetensors"
    }
    assert large == {}
    weights = [f.stat().st_size for f in repository_files if f.suffix == ".safetensors"]
    assert sum(weights) < MAX_WEIGHT_BYTES


def test_no_audio_of_others(repository_files):
    """GTZAN has no licence: not one clip of it lies in the repository."""
    assert [
        f for f in repository_files if f.suffix in {".wav", ".au", ".flac", ".mp3", ".ogg"}
    ] == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_is_content_with_library_tests_and_notebooks(command):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
