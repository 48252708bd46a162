"""The jobs that a cluster would get: parts, one after the other, then what they are parts of."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from audiostyle_lib import paths
from audiostyle_lib.course import pipeline


@pytest.fixture
def jobs(tmp_path):
    """Names and numbers of the jobs of a dry run, and what it says."""

    def dry_run(cluster: str, *targets: str, **settings) -> tuple[dict[str, int], str]:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
        command += [
            "--directory",
            str(tmp_path),
            "--profile",
            str(paths.ROOT / "profiles" / cluster),
        ]
        command += ["--dry-run", "--config", *(f"{k}={v}" for k, v in settings.items())]
        places = {"AUDIOSTYLE_DATA": tmp_path / "data", "AUDIOSTYLE_FIGURES": tmp_path / "runs"}
        done = subprocess.run(
            [*command, "--", *targets], capture_output=True, text=True, check=False, timeout=120,
            env=os.environ | {name: str(place) for name, place in places.items()},
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        table = said.split("Job stats:")[1].split("total")[0]
        return {
            name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
        }, said

    return dry_run


def test_slurm_gets_a_job_for_each_part_and_each_notebook(jobs):
    found, said = jobs("slurm", "report", profile="long", corpus="bands", shards=3)
    assert found == {"corpus_part": 3, "corpus": 1, "notebook": len(pipeline.DEPENDS), "report": 1}
    assert "bands/200x30s-seed0/.parts/3-of-3" in said
    found, said = jobs("slurm", "pretrained", groups=20, shards=4, gpus=2)
    assert found == {"pairs": 4, "pretrained": 1}
    assert "train-00004-of-00004.safetensors" in said and "gpu=2" in said


def test_without_parts_there_is_one_job(jobs):
    found, _ = jobs("slurm", "corpus", profile="smoke", corpus="bands")
    assert found == {"corpus": 1}


def test_kubernetes_gets_the_same_jobs(jobs):
    for plugin in ("snakemake_executor_plugin_kubernetes", "snakemake_storage_plugin_fs"):
        pytest.importorskip(plugin)
    found, said = jobs("kubernetes", "corpus", profile="long", corpus="bands", shards=3)
    assert found == {"corpus_part": 3, "corpus": 1}
    assert "storage" not in said, "all files lie on the volume"


def test_a_part_is_rendered_by_its_job_and_not_again(tmp_path):
    """The rule of a part as one machine runs it, and the corpus that is made of the parts."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.ROOT / "Snakefile")]
    command += ["--directory", str(tmp_path), "--cores", "2", "--config", "profile=smoke"]
    command += ["corpus=bands", "shards=2", "--", "corpus"]
    places = {"AUDIOSTYLE_DATA": tmp_path / "data", "AUDIOSTYLE_FIGURES": tmp_path / "runs"}
    settings = {
        "capture_output": True, "text": True, "check": True, "timeout": 300,
        "env": os.environ | {name: str(place) for name, place in places.items()},
    }  # fmt: skip
    subprocess.run(command, **settings)
    folder = tmp_path / "data" / "bands" / "4x8s-seed0"
    files = {f: f.stat().st_mtime_ns for f in folder.glob("*/*.flac")}
    assert len(files) == 40 and (folder / "manifest.json").is_file()
    (folder / "manifest.json").unlink()
    (folder / ".parts" / "2-of-2").unlink()
    gone = next(iter(files))
    gone.unlink()
    subprocess.run(command, **settings)
    again = {f: f.stat().st_mtime_ns for f in folder.glob("*/*.flac")}
    assert [f for f in files if again[f] != files[f]] == [gone]
