"""One front end, refused where it differs; profiles; seeds."""

from __future__ import annotations

import json
import random
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiostyle_lib import config as cfg
from audiostyle_lib.config import AudioConfig, ConfigMismatchError, require_same_front_end
from audiostyle_lib.errors import InputError

FIELDS = [f.name for f in fields(AudioConfig)]


@pytest.fixture
def restored_torch():
    yield
    torch.use_deterministic_algorithms(False)


def test_front_end_is_the_documented_one():
    assert AudioConfig().to_dict() == {
        "sample_rate": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "n_mfcc": 20,
        "amin": 1e-10,
    }  # fmt: skip
    assert AudioConfig().frames_per_second == pytest.approx(43.0664, abs=1e-4)


@pytest.mark.parametrize(("n_samples", "n_frames"), [(1, 1), (511, 1), (512, 2), (661_794, 1293)])
def test_number_of_frames(n_samples, n_frames):
    assert AudioConfig().n_frames(n_samples) == n_frames


def test_same_front_end_is_accepted_after_json():
    ours = AudioConfig(hop_length=256)
    require_same_front_end(ours, json.loads(json.dumps(ours.to_dict())), what="model")
    require_same_front_end(ours, AudioConfig(hop_length=256), what="model")


@given(st.sets(st.sampled_from(FIELDS), min_size=1))
def test_mismatch_names_every_field_and_no_other(different):
    ours = AudioConfig()
    theirs = replace(ours, **{name: 2 * getattr(ours, name) for name in different})
    with pytest.raises(ConfigMismatchError, match=r"^vocoder\.safetensors") as error:
        require_same_front_end(ours, theirs, what="vocoder.safetensors")
    named = str(error.value).split("front end: ")[1]
    for name in FIELDS:
        text = f"{name} {getattr(theirs, name)} instead of {getattr(ours, name)}"
        assert (text in named) == (name in different)


def test_missing_field_is_a_mismatch():
    theirs = AudioConfig().to_dict()
    del theirs["n_mels"]
    with pytest.raises(ConfigMismatchError, match="n_mels None instead of 128"):
        require_same_front_end(AudioConfig(), theirs, what="old model")


def test_profiles_grow_and_paper_has_a_corpus_of_the_reports_size():
    smoke, quick, long, paper = cfg.PROFILES.values()
    for small, large in ((smoke, quick), (quick, long), (quick, paper)):
        for field in fields(cfg.Profile):
            if field.name != "name":
                assert getattr(small, field.name) <= getattr(large, field.name), field.name
    assert (paper.clips_per_genre, paper.clip_seconds, paper.seeds) == (100, 30.0, 3)


def test_a_rehearsal_cuts_the_iterations_of_the_slow_peers(monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_REHEARSE", "3")
    assert cfg.profile("paper").peer_iterations == 3 and cfg.profile("smoke").peer_iterations == 2
    monkeypatch.delenv("AUDIOSTYLE_REHEARSE")
    assert cfg.profile("paper") == cfg.PROFILES["paper"]


def test_unknown_profile_names_the_choices():
    with pytest.raises(InputError, match="'huge': choose one of smoke, quick, long, paper"):
        cfg.profile("huge")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_device_follows_the_machine_with_a_gpu(two_gpus):
    assert [cfg.choose_device(d) for d in ("auto", "cpu", "cuda", "cuda:1")] == [
        "cuda", "cpu", "cuda", "cuda:1",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"'cuda:2' here: there are auto, cpu, cuda:0, cuda:1$"):
        cfg.choose_device("cuda:2")


def test_auto_device_follows_the_machine_without_a_gpu(no_gpu):
    assert [cfg.choose_device(d) for d in ("auto", "cpu")] == ["cpu", "cpu"]
    for absent in ("cuda", "cuda:0", "cuda:11"):
        with pytest.raises(InputError, match=f"'{absent}' here: there are auto, cpu$"):
            cfg.choose_device(absent)


@pytest.mark.parametrize(
    "device", ["", "tpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:1:2", "cudax"]
)
def test_what_is_no_device_is_refused(two_gpus, device):
    with pytest.raises(InputError, match="choose auto, cpu, cuda or cuda:N"):
        cfg.choose_device(device)


@pytest.mark.parametrize("steps", ["abc", "-3", "2.5", "1e9"])
def test_a_rehearsal_of_no_number_of_steps_is_refused(monkeypatch, steps):
    monkeypatch.setenv("AUDIOSTYLE_REHEARSE", steps)
    with pytest.raises(InputError, match="AUDIOSTYLE_REHEARSE"):
        cfg.profile("smoke")


def test_seed_repeats_all_generators(restored_torch):
    def draw(seed):
        cfg.set_deterministic(seed)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draw(3) == draw(3)
    assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))
    assert torch.are_deterministic_algorithms_enabled()
