"""What happens in the field: full disks, two runs in one folder, files that are cut, changed or gone."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
import soundfile
import torch
from campaigns import kill
from torch import nn

from audiostyle_lib import bands, corpora, paths
from audiostyle_lib import config as cfg
from audiostyle_lib.__main__ import main
from audiostyle_lib.bands import lattice, shards
from audiostyle_lib.course import pipeline
from audiostyle_lib.course import run as runs
from audiostyle_lib.errors import InputError
from audiostyle_lib.evaluation import benchmark
from audiostyle_lib.models import checkpoint
from audiostyle_lib.signal import audio
from audiostyle_lib.training import loop

CORPUS = {"clips_per_genre": 1, "seconds": 1.0, "seed": 0}
PAIRS = {"n_groups": 2, "split": "train", "seed": 5}
X = torch.linspace(-1, 1, 24).reshape(8, 3)


@contextmanager
def small_disk(n_bytes: int):
    """No file of this process, or of one that it starts, can grow beyond `n_bytes`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def squared(model, batch):
    return model(batch[0]).square().mean(), {}


def fit(path: Path, *, evaluate=None) -> tuple[nn.Module, dict]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.2), nn.Linear(50, 2))
    curves = loop.fit(
        model, step=squared, batches=lambda epoch: [(X + epoch,)] * 2, steps=8, steps_per_epoch=2,
        path=path, arguments={}, data={}, config=cfg.AudioConfig(), evaluate=evaluate,
    )  # fmt: skip
    return model, curves


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.fixture
def gtzan(tmp_path, monkeypatch, clip) -> Path:
    """Five clips of two genres, and a folder for what is decoded of them."""
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUDIOSTYLE_GTZAN", str(tmp_path / "gtzan"))
    for genre, n in (("jazz", 3), ("rock", 2)):
        (tmp_path / "gtzan" / genre).mkdir(parents=True)
        for k in range(n):
            file = tmp_path / "gtzan" / genre / f"{genre}.{k:05d}.wav"
            soundfile.write(file, clip(1.0, seed=10 * n + k), 22_050)
    return tmp_path / "gtzan"


# Full disks ---------------------------------------------------------------------------------------


def write_figure(folder: Path) -> None:
    figure, axes = plt.subplots()
    axes.imshow(np.random.default_rng(0).random((200, 200)))
    made = runs.Run("x", cfg.profile("smoke"), "bands", 0, "cpu", folder)
    made.save_figure(figure, "picture")
    plt.close(figure)


def write_decoded(folder: Path) -> None:
    corpora.read_clip(corpora.read_folder(paths.gtzan(), name="x").tracks[0], config=cfg.AudioConfig(),
                      seconds=1.0)  # fmt: skip


NOISE = 0.1 * np.random.default_rng(0).standard_normal(60_000).astype(np.float32)
STAGES = {
    "x.safetensors": lambda f: checkpoint.save(f / "x.safetensors", {"a": torch.zeros(9000)}, {}),
    "metrics.json": lambda f: runs.write_metrics(f / "metrics.json", [{"a": "x" * 9000}], {}),
    "picture.svg": write_figure,
    "train-00001-of-00001.safetensors": lambda f: shards.write_pairs(
        f, shard=(1, 1), config=cfg.AudioConfig(), **PAIRS
    ),
    ".npy": write_decoded,
    ".flac": lambda f: bands.write_corpus(f, **CORPUS),
    "result.wav": lambda f: audio.write_audio(f / "result.wav", NOISE, sample_rate=22_050),
    "result.mp3": lambda f: audio.write_audio(f / "result.mp3", NOISE, sample_rate=22_050),
    "scores.json": lambda f: benchmark.write(f / "scores.json", {}, {"x": "x" * 9000}),
}


@pytest.mark.parametrize("name", STAGES)
def test_on_a_full_disk_the_file_is_named_and_not_there_and_later_it_is(
    name, tmp_path, gtzan, monkeypatch
):
    monkeypatch.setattr(
        lattice,
        "render_log_mels",
        lambda which, **_: (torch.zeros(len(which), 50, 50), torch.ones(1)),
    )
    folder = tmp_path / "written"
    folder.mkdir()
    if name == ".flac":  # writes the instruments first, once for all corpora
        bands.write_corpus(tmp_path / "before", **CORPUS)
    with small_disk(4096), pytest.raises((OSError, audio.AudioError)) as error:
        STAGES[name](folder)
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1
    places = [folder, tmp_path / "data" / "decoded"]
    assert [f for place in places for f in place.rglob("*") if f.is_file()] == []
    STAGES[name](folder)
    found = [f.name for place in places for f in place.rglob("*") if f.is_file()]
    assert any(f.endswith(name) for f in found)


def test_a_training_goes_on_from_the_epoch_before_the_disk_was_full(tmp_path, capsys):
    whole, _ = fit(tmp_path / "whole.safetensors", evaluate=lambda model: {"seen": 0.0})
    sizes, path = [], tmp_path / "x.safetensors"

    def evaluate(model):
        sizes.append(0)
        if len(sizes) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
        return {"seen": 0.0}

    with small_disk(10**9), pytest.raises(OSError, match=r"x\.safetensors"):
        fit(path, evaluate=evaluate)
    assert checkpoint.read_header(path)["epoch"] == 2
    sizes.clear()
    model, _ = fit(path, evaluate=lambda model: {"seen": 0.0})
    assert_same(model, whole)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["whole.safetensors", "x.safetensors"]


# Two at once --------------------------------------------------------------------------------------


def test_two_renderings_into_one_folder_end_with_the_same_corpus(tmp_path):
    whole = bands.write_corpus(tmp_path / "one", **CORPUS)
    code = (
        "from audiostyle_lib import bands\n"
        f"bands.write_corpus({str(tmp_path / 'two')!r}, **{CORPUS!r})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert json.loads((tmp_path / "two" / "manifest.json").read_text()) == whole
    assert kill.contents(tmp_path / "two") == kill.contents(tmp_path / "one")
    assert kill.temporaries(tmp_path / "two") == []


def test_two_trainings_with_one_checkpoint_end_with_the_same_weights(tmp_path):
    command = [sys.executable, kill.__file__, "--train"]
    both = [subprocess.Popen([*command, tmp_path / "x.safetensors"]) for _ in range(2)]
    kill.train(tmp_path / "y.safetensors")
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    (_, weights), (_, wanted) = (kill.content(tmp_path / f"{name}.safetensors") for name in "xy")
    assert weights == wanted
    assert kill.temporaries(tmp_path) == []


def test_a_second_run_of_notebooks_in_one_folder_is_refused_in_one_line(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path))
    command = ["reproduce", "--profile", "smoke", "--corpus", "bands", "--only", "2"]
    with pipeline._alone_in(tmp_path / "smoke-bands"):
        assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "smoke-bands: another run is at work here" in line
    with pipeline._alone_in(tmp_path / "smoke-bands"):
        pass  # free again


@pytest.mark.parametrize("name", ["", "99", "-1", "02_"])
def test_a_notebook_that_there_is_not_is_refused_before_any_runs(
    name, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path))
    assert main(["reproduce", "--profile", "smoke", "--corpus", "bands", f"--only={name}"]) == 2
    assert f"no notebook {name!r}" in capsys.readouterr().err


def test_what_snakemake_has_started_ends_with_the_process_that_wanted_it(tmp_path):
    (tmp_path / "Snakefile").write_text('rule all:\n    output: "x"\n    shell: "sleep 300"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "audiostyle_lib.course.scheduler", "--cores", "1", "--quiet", "all",
         "--directory", str(tmp_path), "--snakefile", str(tmp_path / "Snakefile")],
        stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(paths.ROOT)},
    )  # fmt: skip
    until = time.monotonic() + 60
    started: list[psutil.Process] = []
    while not started and time.monotonic() < until:
        time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        started = [p for p in children if "sleep" in p.name()]
    assert started
    process.stdin.close()  # as the system does for a process that is killed
    assert process.wait(timeout=10) == 1
    gone, alive = psutil.wait_procs(started, timeout=5)
    assert gone and not alive


# Files that are cut, changed or gone --------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 5, 100, 0.5, 0.99])
def test_a_cut_checkpoint_is_named_and_trained_again(tmp_path, capsys, length):
    path = tmp_path / "x.safetensors"
    whole, _ = fit(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(length if length > 1 or length == 0 else length * len(data))])
    capsys.readouterr()
    model, curves = fit(path)
    assert_same(model, whole)
    assert len(curves["train_loss"]) == 4
    said = capsys.readouterr().out.splitlines()[0]
    assert "x.safetensors is damaged" in said and said.endswith("trained again")
    assert path.stat().st_size == len(data)


def test_an_unfinished_checkpoint_without_its_optimiser_is_trained_again(tmp_path, monkeypatch):
    whole, _ = fit(tmp_path / "whole.safetensors")
    path, save = tmp_path / "x.safetensors", checkpoint.save

    def killed(file, tensors, header):
        save(file, {k: v for k, v in tensors.items() if k != "optimizer.1.exp_avg"}, header)
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(checkpoint, "save", killed)
        fit(path)
    model, _ = fit(path)
    assert_same(model, whole)


def test_a_cut_part_of_the_pairs_is_named_and_rendered_again(tmp_path, config, monkeypatch):
    monkeypatch.setattr(
        lattice, "render_log_mels", lambda which, **_: (torch.ones(len(which), 4), torch.ones(1))
    )
    part = shards.write_pairs(tmp_path, shard=(1, 1), config=config, **PAIRS)
    whole = part.read_bytes()
    half(part)
    with pytest.raises(InputError, match=f"{part.name} is damaged"):
        shards.read_pairs(tmp_path, config=config, **PAIRS)
    shards.write_pairs(tmp_path, shard=(1, 1), config=config, **PAIRS)
    assert len(part.read_bytes()) == len(whole)
    assert shards.read_pairs(tmp_path, config=config, **PAIRS).sum() == 8


def test_a_corpus_goes_on_without_a_file_that_is_corrupt(gtzan, config):
    half(gtzan / "jazz" / "jazz.00001.wav")
    (gtzan / "rock" / "rock.00001.wav").write_bytes(b"RIFF" + bytes(5000))
    corpus = corpora.open_corpus("gtzan", profile=cfg.profile("smoke"))
    assert {t.name for t in corpus.tracks} >= {"jazz.00000", "jazz.00002", "rock.00000"}
    assert "rock.00001" in {f.name for f in corpus.faults if f.left_out}
    waveforms, _ = corpora.load_waveforms(list(corpus.tracks), config=config, seconds=1.0)
    assert len(waveforms) == len(corpus.tracks) and torch.isfinite(waveforms).all()


@pytest.mark.parametrize("harm", [Path.unlink, half, lambda f: f.write_bytes(b"")])
def test_a_clip_that_is_harmed_after_the_corpus_was_opened_is_named(gtzan, config, harm):
    corpus = corpora.open_corpus("gtzan", profile=cfg.profile("smoke"))
    track = corpus.tracks[1]
    whole = track.path.read_bytes()
    harm(track.path)
    with pytest.raises(audio.AudioError) as error:
        corpora.read_clip(track, config=config, seconds=1.0)
    assert str(track.path) in str(error.value) and len(str(error.value).splitlines()) == 1
    track.path.write_bytes(whole)  # and nothing was kept of the other sound
    clip = corpora.read_clip(track, config=config, seconds=1.0)
    np.testing.assert_array_equal(clip, audio.read_audio(track.path, config=config)[:22_050])


@pytest.mark.parametrize("left", [0, 20, 1000])
def test_a_decoded_clip_that_was_cut_is_decoded_again(gtzan, config, left):
    track = corpora.open_corpus("gtzan", profile=cfg.profile("smoke")).tracks[0]
    whole = corpora.read_clip(track, config=config, seconds=1.0)
    (kept,) = (paths.data() / "decoded").iterdir()
    data = kept.read_bytes()
    kept.write_bytes(data[:left])
    np.testing.assert_array_equal(corpora.read_clip(track, config=config, seconds=1.0), whole)
    assert kept.read_bytes() == data


@pytest.mark.parametrize("text", ["", '{"state"', "null", '{"state": [1]}', "[" * 100_000])
def test_what_a_run_remembers_of_a_corpus_is_written_again(gtzan, tmp_path, text):
    again = {"profile": cfg.profile("smoke"), "seed": 0, "memory": tmp_path / "corpus.json"}
    opened = corpora.open_again("gtzan", **again)
    whole = again["memory"].read_text()
    again["memory"].write_text(text)
    assert corpora.open_again("gtzan", **again) == opened
    assert again["memory"].read_text() == whole


def test_a_manifest_that_is_no_text_is_written_again(tmp_path):
    whole = bands.write_corpus(tmp_path, **CORPUS)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.glob("*/*.flac")}
    (tmp_path / "manifest.json").write_bytes(b"\xff\xfe" + json.dumps(whole).encode("utf-16"))
    assert bands.write_corpus(tmp_path, **CORPUS) == whole
    assert {f: f.stat().st_mtime_ns for f in tmp_path.glob("*/*.flac")} == before


@pytest.mark.parametrize("text", ["", '{"metrics": [', "[]", "{}", "\x00", "[" * 100_000])
def test_metrics_that_are_cut_are_one_line_that_names_them(tmp_path, text, capsys):
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "02_features.json").write_text(text)
    for command in ("compare", "report"):
        assert main([command, str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "02_features.json: not " in line


@pytest.mark.parametrize("kind", ["notebooks/02_features.ipynb", "metrics/02_features.json"])
def test_a_notebook_whose_results_are_cut_is_run_again(tmp_path, kind, capsys):
    for name in ("02_features", "04_failed_linear"):
        for file in (f"notebooks/{name}.ipynb", f"metrics/{name}.json"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text('{"cells": []}')
    half(tmp_path / kind)
    pipeline._forget_damaged(tmp_path)
    assert [f.stem for f in (tmp_path / "notebooks").iterdir()] == ["04_failed_linear"]
    assert f"{kind}: damaged, so 02_features is run again" in capsys.readouterr().out


# Temporary files ----------------------------------------------------------------------------------


def test_what_a_killed_process_has_left_is_removed_by_the_next_that_writes_the_file(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    def beside(name: str, process: object) -> Path:
        with paths.written_beside(tmp_path / name) as temporary:
            temporary.touch()
        return temporary.with_name(temporary.name.replace(f".{os.getpid()}.", f".{process}."))

    left = beside("result.wav", ended.pid)
    others = [
        beside("result.wav", os.getppid()),  # of a process that is at work
        beside("other.wav", ended.pid),
        beside("result.flac", ended.pid),
        beside("result.wav", "notes"),
    ]
    for file in tmp_path.iterdir():
        file.unlink()
    for file in (left, *others):
        file.touch()
    with paths.written_beside(tmp_path / "result.wav") as temporary:
        assert not left.exists()
        temporary.write_text("x")
    assert {*tmp_path.iterdir()} == {tmp_path / "result.wav", *others}


def test_names_of_any_length_and_shape_can_be_written(tmp_path):
    for name in ("x" * 250 + ".wav", "[a]*?.json", ".hidden", "without"):
        with paths.written_beside(tmp_path / name) as temporary:
            temporary.write_text("x")
        assert (tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 4


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path):
    target = tmp_path / "result.json"
    target.write_text("old")
    with (
        small_disk(100),
        pytest.raises(OSError, match=r"result\.json"),
        paths.written_beside(target) as temporary,
    ):
        temporary.write_text("x" * 1000)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    with paths.written_beside(pipe) as place:
        place.write_text("x")
    assert reader.communicate(timeout=10)[0] == "x" and pipe.is_fifo()


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with paths.folder_written_beside(tmp_path / "font") as folder:
        left = folder.with_name(folder.name.replace(f".{os.getpid()}.", f".{ended.pid}."))
    (tmp_path / "font").rmdir()
    left.mkdir()
    (left / "part").touch()
    with pytest.raises(KeyError), paths.folder_written_beside(tmp_path / "font") as folder:
        (folder / "one").touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with paths.folder_written_beside(tmp_path / "font") as folder:
            (folder / "one").write_text(text)
    assert [f.name for f in tmp_path.iterdir()] == ["font"]
    assert (tmp_path / "font" / "one").read_text() == "first"
