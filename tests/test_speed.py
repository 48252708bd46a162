"""The bench compares methods that do the same work; nothing here depends on how fast they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from audiostyle_lib import paths
from audiostyle_lib.__main__ import main
from audiostyle_lib.course import speed


@pytest.fixture(scope="module")
def rows(config, clip):
    return speed.run(clip(1.0), config, repeats=1, progress=lambda line: None)


def test_ours_comes_first_in_every_task_and_is_the_unit(rows):
    for task in speed.TASKS:
        mine = [row for row in rows if row.task == task]
        assert len(mine) >= 2 and mine[0].method == "ours" and mine[0].ratio == 1.0
        assert all(row.ratio == pytest.approx(row.seconds / mine[0].seconds) for row in mine)


def test_the_methods_of_a_task_do_the_same(rows, config, clip):
    clips = clip(1.0)[None]
    for name, tolerance in (("waveform to log-mel", 0.01), ("style features", 0.1)):
        ours, theirs, *_ = speed.TASKS[name][0](clips, config).values()
        np.testing.assert_allclose(ours(), theirs(), atol=tolerance)
    quality = {(r.task, r.method): r for r in rows}
    for name in ("librosa", "torchaudio"):
        other = quality["Griffin-Lim, 32 iterations", name]
        mine = quality["Griffin-Lim, 32 iterations", "ours"]
        assert mine.spectral_convergence < other.spectral_convergence + 3
        assert other.spectral_convergence < -10
        assert mine.visqol > 4
    mel = [r for r in rows if r.task == "log-mel to waveform"]
    assert mel[0].log_mel_l1 < mel[-1].log_mel_l1


def test_shortest_time_counts_and_the_first_call_does_not():
    calls = {"a": 0, "b": 0}

    def method(name):
        def run():
            calls[name] += 1

        return run

    seconds = speed.shortest_seconds({n: method(n) for n in calls}, repeats=4)
    assert calls == {"a": 5, "b": 5} and all(np.isfinite(v) for v in seconds.values())


def test_command_prints_a_line_a_row(clip, tmp_path, capsys):
    import soundfile

    soundfile.write(tmp_path / "a.wav", clip(0.5), 22_050)
    assert main(["bench", str(tmp_path / "a.wav"), "--seconds", "0.5", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("ours") >= len(speed.TASKS) and "librosa mel_to_audio" in out


@pytest.mark.parametrize(
    "bad",
    [("--seconds", "0.1"), ("--seconds", "nan"), ("--seconds", "inf"), ("--repeats", "0")],
)
def test_command_refuses_what_cannot_be_measured(bad, capsys):
    with pytest.raises(SystemExit) as error:
        main(["bench", *bad])
    assert error.value.code == 2
    assert "is not between" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("option", ["--grow", "--store"])
def test_what_a_device_does_not_take_is_one_line(option, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert main(["bench", "--device", "cuda", option]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "-o FILE" in line


def test_rows_are_written_with_their_threads_and_make_a_table(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REFERENCES", tmp_path / "figures")
    readme = tmp_path / "README.md"
    readme.write_text(
        "before <!-- speed: begin -->\nold\n<!-- speed: end --> after\n"
        "<!-- cost: begin -->\n<!-- cost: end -->\n"
    )
    speed.store(rows, threads=1)
    content = json.loads((tmp_path / "figures" / "speed.json").read_text())
    assert content["threads"] == 1 and len(content["rows"]) == len(rows)
    text = readme.read_text()
    assert text.startswith("before ") and " after\n" in text and "old" not in text
    tables = text.split(" after\n")
    assert tables[0].count("\n| ") == 1 + len({(r.task, r.size) for r in rows})
    rendering = next(r for r in rows if r.task == "rendering a piece" and r.method == "ours")
    hours = f"{rendering.real_time_factor * 100_000 * 30 / 3600:.1f}"
    assert f"| rendering a piece | {hours} | 132 GB |" in tables[1]  # 16 bits at 22 050 Hz


def test_the_readme_holds_the_stored_rows():
    file, readme = paths.REFERENCES / "speed.json", (paths.ROOT / "README.md").read_text()
    assert speed.readme_table(file) in readme and speed.cost_table(file) in readme


def test_peak_memory_is_that_of_the_call():
    assert speed.peak_megabytes(lambda: np.ones(25_000_000)) == pytest.approx(200, rel=0.2)


def test_large_batches_of_a_device_are_timed_at_small_size(config):
    found = speed.run_on("cpu", config, n_clips=16, seconds=1.0, steps=2, repeats=1)
    assert [row.method for row in found].count("ours") == 4
    assert all(0 < row.roofline < 2 for row in found if row.roofline is not None)
    assert all(row.real_time_factor > 0 for row in found)
