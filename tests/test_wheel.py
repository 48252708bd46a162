"""The package works where there is no checkout: a wheel, unpacked in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

ROOT = Path(__file__).resolve().parents[1]
RATE = 22_050


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel that ``pip install .`` builds, of a copy: building leaves files behind."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("audiostyle_lib", "data/pretrained"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("audiostyle-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs the installed package, with a home of its own, from another folder."""
    target, home = (tmp_path_factory.mktemp(name) for name in ("site", "home"))
    zipfile.ZipFile(wheel).extractall(target)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AUDIOSTYLE_", "XDG_"))}
    env |= {"PYTHONPATH": str(target), "HOME": str(home)}

    def run(*arguments) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True, text=True, timeout=300, check=False, env=env, cwd=home,
        )  # fmt: skip

    run.home = home
    where = run("-c", "import audiostyle_lib; print(audiostyle_lib.__file__)").stdout
    assert where.startswith(str(target)), "not the wheel: the checkout is imported"
    return run


def test_the_wheel_holds_every_module_and_the_weights(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(f.relative_to(ROOT)) for f in (ROOT / "audiostyle_lib").rglob("*.py")}
    weights = {
        f"audiostyle_lib/pretrained/{f.name}"
        for f in (ROOT / "data" / "pretrained").glob("*.safetensors")
        if ".training" not in f.suffixes
    }
    assert weights
    assert {n for n in names if ".dist-info/" not in n} == modules | weights


def test_transfer_works_from_any_folder(installed):
    tone = 0.2 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE)
    sf.write(installed.home / "content.wav", tone, RATE)
    sf.write(installed.home / "style.wav", noise, RATE)
    arguments = ("content.wav", "style.wav", "-o", "result.wav")
    done = installed("-m", "audiostyle_lib", "transfer", *arguments)
    assert done.returncode == 0, done.stderr
    made, _ = sf.read(installed.home / "result.wav")
    assert len(made) == len(tone) and np.abs(made - tone).max() > 0.01


def test_bench_and_benchmark_keep_their_files_in_the_users_own_folder(installed):
    done = installed("-m", "audiostyle_lib", "bench", "--seconds", 1, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    assert "waveform to log-mel" in done.stdout
    arguments = ("--profile", "smoke", "--corpus", "bands", "--methods", "copy content", "LTAS-EQ")
    done = installed("-m", "audiostyle_lib", "benchmark", *arguments)
    assert done.returncode == 0, done.stderr
    assert "tier 2" in done.stdout and "LTAS-EQ" in done.stdout
    (data,) = installed.home.rglob("audiostyle")  # ~/.local/share/audiostyle on Linux
    assert list(data.rglob("blues.00000.flac"))


def test_what_needs_the_notebooks_says_so(installed):
    done = installed("-m", "audiostyle_lib", "reproduce", "--profile", "smoke")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "checkout" in line
