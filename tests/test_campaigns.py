"""Small runs of the campaigns of `make fuzz` and `make kill`, and what makes them fail."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import pytest
from campaigns import fuzz, kill


def run(module, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, module.__file__, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_odd_inputs_are_read_or_refused_in_one_line(tmp_path):
    result = run(fuzz, "--inputs", 200, "--seed", 3, "--failures", tmp_path / "failures")
    assert result.returncode == 0, result.stdout + result.stderr
    *families, last = result.stdout.splitlines()
    assert [line.split(":")[0] for line in families] == list(fuzz.FAMILIES)
    assert last == "seed 3: 200 inputs, 0 failed" and not (tmp_path / "failures").exists()


def test_what_is_killed_and_run_again_ends_the_same():
    result = run(kill, "--kills", "training=1", "corpus=1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1].endswith("0 times lost")


def test_inputs_follow_the_seed(tmp_path):
    def drawn(seed: int) -> bytes:
        return fuzz.damage(random.Random(seed), bytes(range(256)) * 20, [b"other"])

    assert drawn(1) == drawn(1) != drawn(2)
    text = fuzz.damage_json(random.Random(1), '{"clips": [{"file": "x"}]}')
    assert text == fuzz.damage_json(random.Random(1), '{"clips": [{"file": "x"}]}')


@pytest.mark.parametrize(
    ("code", "printed", "found"),
    [
        (2, "audiostyle: no\nbecause\n", "refused in 2 lines"),
        (2, "", "refused in 0 lines"),
        (1, "Traceback (most recent call last)\n", "Traceback"),
        (130, "", "exit code 130"),
    ],
)
def test_a_command_that_refuses_badly_is_found(code, printed, found, monkeypatch, tmp_path):
    def main(arguments):
        os.write(2, printed.encode())
        return code

    monkeypatch.setattr("audiostyle_lib.__main__.main", main)
    with pytest.raises(fuzz.Failure, match=found):
        fuzz.command(["transfer", tmp_path / "x.wav"])


@pytest.mark.parametrize(("code", "name"), [(2, "result.wav"), (0, ".x.tmp.wav"), (2, "input.wav")])
def test_a_command_that_leaves_or_changes_a_file_is_found(code, name, monkeypatch, tmp_path):
    (tmp_path / "input.wav").write_text("before")

    def main(arguments):
        (tmp_path / name).write_text("half")
        os.write(2, b"audiostyle: no\n")
        return code

    monkeypatch.setattr("audiostyle_lib.__main__.main", main)
    with pytest.raises(fuzz.Failure, match=f"changed: .*{name}"):
        fuzz.command(["transfer", tmp_path / "input.wav"], written=[tmp_path / "result.wav"])


def test_an_exception_is_a_failure_and_a_refusal_is_none(tmp_path):
    from audiostyle_lib.errors import InputError

    class Family:
        def attempt(self, folder, case):
            raise case["error"]

    def outcome(error: Exception) -> str:
        return fuzz.attempt({"x": Family()}, {"family": "x", "error": error}, tmp_path)

    assert outcome(InputError("x.wav: no")) == "refused"
    assert outcome(PermissionError(13, "no", "x.wav")) == "refused"
    for error in (ValueError("no"), InputError("two\nlines"), OSError("of no file"), MemoryError()):
        assert outcome(error).startswith("failed: ")


def test_a_half_written_file_and_another_result_are_found(tmp_path):
    (tmp_path / "metrics.json").write_text('{"metrics": [')
    with pytest.raises(kill.Lost, match=r"metrics\.json is not whole"):
        kill.contents(tmp_path)
    (tmp_path / "metrics.json").write_text("{}")
    found = kill.contents(tmp_path)
    with pytest.raises(kill.Lost, match=r"\['metrics\.json'\]"):
        kill._compare(found | {"metrics.json": {"a": 1}}, found, [])
    with pytest.raises(kill.Lost, match="left behind"):
        kill._compare(found, found, [".x.1.tmp"])
    kill._compare(found, found, [])


def test_times_are_not_compared(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 2.0)):
        file = tmp_path / name / "metrics" / "02.json"
        file.parent.mkdir(parents=True)
        metrics = [{"tolerance": 0.1, "value": 1}, {"tolerance": None, "value": seconds}]
        provenance = {"wall_seconds": seconds, "seed": 0}
        file.write_text(json.dumps({"metrics": metrics, "provenance": provenance}))
    assert kill.contents(tmp_path / "a") == kill.contents(tmp_path / "b")
