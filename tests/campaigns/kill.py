"""Trainings, renderings, transfers and runs of notebooks, killed and started again: nothing is lost.

    python tests/campaigns/kill.py                                # `make kill`
    python tests/campaigns/kill.py --kills training=3 corpus=2 --seed 7

A command runs once to its end. Then it is started in an empty folder, killed with SIGKILL (every other
time with all the processes that it has started), sometimes again, and run to its end. It is killed at a
random moment, or while it writes: a moment after a temporary file has appeared. What has to hold:

- a few seconds after the kill no process that the command had started is alive,
- every file that is there under its own name is whole,
- the last run ends with exit code 0, and its files are those of the undisturbed run, bit for bit,
- no temporary file is left.

Not compared are the commit and what holds time: ``seconds`` of checkpoints and curves, ``wall_seconds``
and speeds of metrics, the times of change by which a run knows its corpus again, ``times/`` and executed
notebooks (which have to be there, and whole).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "AUDIOSTYLE_KILLED"  # in the environment of every process that a command starts
END_S = 15.0  # for processes to notice that the one which started them is gone
COMMAND = (sys.executable, "-m", "audiostyle_lib")


@dataclass(frozen=True)
class Target:
    """A command; its arguments are made for the folder that it writes to."""

    arguments: Callable[[Path], list]
    kills: int  # of `make kill`


TARGETS = {
    "training": Target(lambda f: [sys.executable, __file__, "--train", f / "x.safetensors"], 16),
    "corpus": Target(lambda f: [*COMMAND, "data", "bands", "--profile", "smoke"], 12),
    "pairs": Target(
        lambda f: [*COMMAND, "data", "pairs", f / "pairs", "--groups", 2, "--shard", "1/2"], 6
    ),
    "transfer": Target(
        lambda f: [
            *COMMAND, "transfer", f.parent / "content.wav", f.parent / "style.wav",
            "-o", f / "result.flac",
        ], 12,
    ),
    "reproduce": Target(
        lambda f: [
            *COMMAND, "reproduce", "--profile", "smoke", "--corpus", "bands", "--only", 2, 6,
            "--cores", 2,
        ], 4,
    ),
}  # fmt: skip


class Lost(Exception):
    """What a kill has cost."""


def train(path: Path) -> None:
    """Twenty-four short epochs, with a checkpoint of 12 MB after each."""
    import torch
    from torch import nn

    from audiostyle_lib import config
    from audiostyle_lib.training import loop
    from audiostyle_lib.training.batches import minibatches

    torch.manual_seed(0)
    x, y = torch.randn(2, 64, 300)
    model = nn.Sequential(nn.Linear(300, 1700), nn.Dropout(0.2), nn.Tanh(), nn.Linear(1700, 300))

    def step(model, batch):
        return (model(batch[0]) - batch[1]).square().mean(), {}

    loop.fit(
        model, step=step, batches=lambda epoch: minibatches(x, y, batch_size=16, seed=0, epoch=epoch),
        steps=96, steps_per_epoch=4, path=path, arguments={}, data={}, config=config.AudioConfig(),
    )  # fmt: skip


def _sounds(base: Path) -> None:
    import numpy as np
    import soundfile as sf

    rng = np.random.default_rng(0)
    for name, seconds in (("content", 45), ("style", 5)):
        sf.write(base / f"{name}.wav", 0.1 * rng.standard_normal(seconds * 22_050), 22_050)


# Files, read as far as they have to be the same ------------------------------------------------------


def content(file: Path) -> object:
    """What a file holds, without times; fails where it is not whole."""
    if file.suffix == ".safetensors":
        return _checkpoint(file)
    if file.suffix not in (".json", ".ipynb"):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    held = json.loads(file.read_text())
    if file.suffix == ".ipynb" or file.parent.name == "times":
        return None
    if file.parent.name == "metrics":
        held["provenance"] = _without_times(held["provenance"])
        held["metrics"] = [m for m in held["metrics"] if m["tolerance"] is not None]
    if file.name.startswith("corpus-seed"):
        return [(t["name"], t["split"], t["sha256"]) for t in held["corpus"]["tracks"]]
    return held


def _without_times(provenance: dict) -> dict:
    return {k: v for k, v in provenance.items() if k not in ("wall_seconds", "commit")}


def _checkpoint(file: Path) -> tuple:
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        header = {k: json.loads(v) for k, v in (opened.metadata() or {}).items()}
        tensors = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118  # no dict
    header.pop("seconds", None)
    header["provenance"] = _without_times(header.get("provenance", {}))
    header.get("curves", {}).pop("seconds", None)
    hashes = {k: hashlib.sha256(v.tobytes()).hexdigest() for k, v in tensors.items()}
    return header, hashes


def contents(folder: Path) -> dict[str, object]:
    """Every file under its own name: no temporary ones, and no notebook that is being executed."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and not f.name.startswith(".")]
    found = {}
    for file in files:
        if file.name.endswith(".failed.ipynb"):
            continue
        try:
            found[file.relative_to(folder).as_posix()] = content(file)
        except Exception as error:
            raise Lost(f"{file.name} is not whole: {error}") from error
    return found


def temporaries(folder: Path) -> list[str]:
    return [str(f.relative_to(folder)) for f in folder.rglob(".*")]


# Processes -------------------------------------------------------------------------------------------


def start(name: str, folder: Path, token: str, log) -> subprocess.Popen:
    arguments = [str(a) for a in TARGETS[name].arguments(folder)]
    env = os.environ | {
        TOKEN: token, "AUDIOSTYLE_DATA": str(folder / "data"), "PYTHONPATH": str(ROOT),
        "AUDIOSTYLE_FIGURES": str(folder / "figures"), "AUDIOSTYLE_BATCH": "1",
        "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        arguments, env=env, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
    )


def alive(token: str) -> list[psutil.Process]:
    """Processes that a command has started and that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(TOKEN) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def kill(process: subprocess.Popen, token: str, *, everything: bool) -> None:
    """SIGKILL; raises `Lost` if something that the process had started goes on."""
    if everything:
        for one in alive(token):
            one.kill()
    process.kill()
    process.wait()
    until = time.monotonic() + END_S
    while left := alive(token):
        if time.monotonic() > until:
            names = [" ".join(p.cmdline())[-80:] for p in left]
            for one in left:
                one.kill()
            raise Lost(f"alive {END_S:.0f} s after the kill: {names}")
        time.sleep(0.05)


def wait_for(moment: float | None, process: subprocess.Popen, folder: Path) -> bool:
    """Wait `moment` seconds, or with None until something is written; False if the process ends."""
    until = time.monotonic() + (600.0 if moment is None else moment)
    while time.monotonic() < until:
        if process.poll() is not None:
            return False
        if moment is None and any(".tmp" in name for name in temporaries(folder)):
            return True
        time.sleep(0.001 if moment is None else 0.005)
    return process.poll() is None


# The campaign ----------------------------------------------------------------------------------------


def run_to_its_end(name: str, folder: Path) -> float:
    """Seconds that the command takes; raises `Lost` if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        code = start(name, folder, "undisturbed", log).wait()
        if code:
            log.seek(0)
            raise Lost(f"the run after it ends with exit code {code}: {log.read()[-1000:]}")
    return time.monotonic() - started


def disturb(name: str, folder: Path, seconds: float, rng: random.Random, counts: Counter) -> None:
    """Start the command and kill it; count what happened."""
    writing, everything = rng.random() < 0.5, rng.random() < 0.5
    moment = None if writing else rng.uniform(0.2, 1.0) * seconds
    token = uuid.uuid4().hex
    # of many files, not always the first that is written
    skipped = rng.uniform(0.0, 0.8) * seconds if writing and name != "transfer" else 0.0
    process = start(name, folder, token, subprocess.DEVNULL)
    if skipped and not wait_for(skipped, process, folder):
        return
    if not wait_for(moment, process, folder):
        return
    time.sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, 0.01))) if writing else 0.0)
    kill(process, token, everything=everything)
    if process.returncode != -signal.SIGKILL:
        return  # it had ended
    counts["killed"] += 1
    counts["while writing"] += writing
    counts["with all its processes"] += everything
    counts["temporary files left by it"] += len(temporaries(folder))
    contents(folder)


def campaign(name: str, kills: int, base: Path, rng: random.Random) -> int:
    """Kill a command `kills` times, print a line, return how often something was lost."""
    folder, started = base / name, time.monotonic()
    folder.mkdir()
    seconds = run_to_its_end(name, folder)
    wanted, counts = contents(folder), Counter()
    while counts["killed"] < kills:
        shutil.rmtree(folder)
        folder.mkdir()
        before = counts["killed"]
        try:
            for _ in range(rng.choice((1, 1, 2))):
                disturb(name, folder, seconds, rng, counts)
            if counts["killed"] == before:
                continue
            run_to_its_end(name, folder)
            counts["run again"] += 1
            _compare(wanted, contents(folder), temporaries(folder))
        except Lost as error:
            counts["lost"] += 1
            counts["killed"] += counts["killed"] == before
            print(f"  {name}: {error}", flush=True)
    facts = ("while writing", "with all its processes", "temporary files left by it", "run again")
    print(
        f"{name}: killed {counts['killed']} times ("
        f"{', '.join(f'{counts[fact]} {fact}' for fact in facts)}), {len(wanted)} files, "
        f"{counts['lost']} times something lost; {time.monotonic() - started:.0f} s in all",
        flush=True,
    )
    return counts["lost"]


def _compare(wanted: dict, found: dict, left: list[str]) -> None:
    other = [name for name in wanted | found if wanted.get(name, "") != found.get(name, "")]
    if other:
        raise Lost(f"not as in the undisturbed run: {other}")
    if left:
        raise Lost(f"left behind: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", nargs="+", metavar="NAME=N", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train)
        return 0
    kills = {name: target.kills for name, target in TARGETS.items()}
    if arguments.kills:
        kills = {name: int(n) for name, _, n in (text.partition("=") for text in arguments.kills)}
    lost = 0
    with tempfile.TemporaryDirectory(prefix="audiostyle-kill-") as base:
        _sounds(Path(base))
        for name, n in kills.items():
            rng = random.Random(f"{arguments.seed} {name}")
            lost += campaign(name, n, Path(base), rng)
    print(f"seed {arguments.seed}: {sum(kills.values())} kills asked for, {lost} times lost")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
