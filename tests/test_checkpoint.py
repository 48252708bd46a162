"""Files that are no checkpoint, or not the one that is wanted, are refused in one line by name."""

from __future__ import annotations

import os
import resource
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from audiostyle_lib.config import AudioConfig
from audiostyle_lib.errors import InputError
from audiostyle_lib.evaluation.judges import GENRE_MODEL, TIMBRE_MODELS
from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.judge import GenreNet, TimbreNet
from audiostyle_lib.models.recombine import GainTransfer

SIZES = {"channels": 64, "heads": 1, "encoder_depth": 1, "decoder_depth": 1}


def refusal(path, build=GenreNet, config=None) -> str:
    """The message of `load_model` for a file, which has to be one line that names it."""
    with pytest.raises(InputError) as error:
        checkpoint.load_model(path, build=build, config=config or AudioConfig())
    text = str(error.value)
    assert str(path) in text and "\n" not in text
    return text


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network as a training leaves it."""
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    tensors = {f"model.{k}": v for k, v in GainTransfer(**SIZES).state_dict().items()}
    checkpoint.save(path, tensors, {"audio": AudioConfig().to_dict(), "model": SIZES})
    return path


def with_header(path, source, **changes) -> None:
    """The tensors of `source` under another header, whose entries are text as they are given."""
    header = {k: str(v) for k, v in {"audio": "{}", "model": "{}"}.items()} | changes
    save_file(load_file(source), path, metadata=header)


def test_a_pointer_of_git_lfs_says_how_to_get_the_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'7' * 64}\nsize 282708\n"
    )
    assert "git lfs pull" in refusal(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"<!DOCTYPE html>\n<title>404</title>\n" * 40, b"PK\3\4" + bytes(500), b"\xff" * 4096,
     b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"],
    ids=["empty", "one byte", "web page", "archive", "ones", "list", "nothing in it"],
)  # fmt: skip
def test_what_is_no_safetensors_file_is_refused(tmp_path, data):
    path = tmp_path / "download.safetensors"
    path.write_bytes(data)
    refusal(path)


@pytest.mark.parametrize("share", [0.0001, 0.02, 0.5, 0.9999])
def test_a_file_that_is_cut_short_is_refused(tmp_path, share):
    whole, path = GENRE_MODEL.read_bytes(), tmp_path / "cut.safetensors"
    path.write_bytes(whole[: int(share * len(whole))])
    assert "cut short" in refusal(path)


def test_places_without_a_file_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "not there", tmp_path / "a\0b"):
        assert "no checkpoint at" in refusal(path)


@pytest.mark.parametrize("audio", ["[1, 2]", "7", "null", "{", "NaN", "[" * 100_000])
def test_a_header_of_other_types_is_refused(tmp_path, audio):
    path = tmp_path / "foreign.safetensors"
    for changes in ({"audio": audio}, {"model": audio}):
        with_header(path, GENRE_MODEL, **changes)
        refusal(path)


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The paths of all weights that come with the library, in a folder that has none."""
    from audiostyle_lib import transfer, vocoding
    from audiostyle_lib.evaluation import judges

    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path)
    monkeypatch.setattr(transfer.load_model, "__defaults__", (tmp_path / "gain.safetensors",))
    monkeypatch.setattr(vocoding, "DEFAULT_MODEL", tmp_path / "vocoder.safetensors")
    monkeypatch.setattr(judges, "GENRE_MODEL", tmp_path / "genre.safetensors")
    loaders = (vocoding.load_model, judges.load)
    for load in loaders:
        load.cache_clear()
    yield {
        "gain": transfer.load_model,
        "vocoder": lambda: vocoding.load_model(AudioConfig()),
        "genre": lambda: judges.load(AudioConfig()),
    }


def test_weights_of_the_library_that_are_not_there_or_pointers_say_what_to_do(shipped, tmp_path):
    for name, load in shipped.items():
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(InputError, match=f"no checkpoint at {path}.* install it again"):
            load()
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(InputError, match=f"{path}: .*git lfs pull"):
            load()


def test_without_a_header_it_says_so(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"model.conv.weight": torch.zeros(3)}, path)
    assert "does not say which model" in refusal(path)


def test_other_networks_are_refused(tmp_path):
    for build in (GainTransfer, TimbreNet, lambda **sizes: GenreNet(**sizes, n_tempi=3)):
        assert "another kind of model" in refusal(GENRE_MODEL, build)
    assert "another kind of model" in refusal(TIMBRE_MODELS[True])


@pytest.mark.parametrize(
    "sizes",
    [{"channels": 10**9}, {"channels": 32_000}, {"decoder_depth": 10**9}, {"encoder_depth": 10**30},
     {"channels": -64}, {"channels": 0}, {"heads": 0}, {"channels": "64"}, {"channels": [64]},
     {"channels": 64.5}, {"decoder_depth": None}, {"n_mels": True}, {"channels": 128},
     {"conditioning": "telepathy"}, {"layers": 2}],
    ids=str,
)  # fmt: skip
def test_absurd_sizes_in_the_header_are_refused_without_memory_for_them(small, tmp_path, sizes):
    path = tmp_path / "absurd.safetensors"
    header = {"audio": AudioConfig().to_dict(), "model": SIZES | sizes}
    checkpoint.save(path, load_file(small), header)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    assert "another kind of model" in refusal(path, GainTransfer)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # kB
    assert peak < 50e6 and grown < 200_000


def test_weights_under_other_names_or_damaged_are_refused(small, tmp_path):
    path, tensors = tmp_path / "other.safetensors", load_file(small)
    header = checkpoint.read_header(small)
    renamed = {k.replace("model.", "module."): v for k, v in tensors.items()}
    fewer = dict(list(tensors.items())[1:])
    more = tensors | {"model.extra": torch.zeros(2)}
    for changed in (renamed, fewer, more):
        checkpoint.save(path, changed, header)
        assert "another kind of model" in refusal(path, GainTransfer)
    tensors["model.stem.bias"][3] = float("nan")
    checkpoint.save(path, tensors, header)
    assert "not finite" in refusal(path, GainTransfer)


def test_the_weights_are_those_of_the_file_and_nothing_is_left_out(small):
    model = checkpoint.load_model(small, build=GainTransfer, config=AudioConfig())
    stored = load_file(small)
    assert {f"model.{k}" for k in model.state_dict()} == stored.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, stored[f"model.{name}"]), name
