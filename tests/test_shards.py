"""Parts that several machines render are together what one machine renders."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from audiostyle_lib import bands
from audiostyle_lib.__main__ import main
from audiostyle_lib.bands import lattice, shards
from audiostyle_lib.errors import InputError

PAIRS = {"n_groups": 3, "split": "train", "seed": 5}


@given(st.integers(0, 1000), st.integers(1, 50))
def test_parts_cover_every_item_once(n, count):
    parts = [shards.part_of(n, (k, count)) for k in range(1, count + 1)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_pairs_of_two_parts_are_those_of_one(tmp_path, config, capsys):
    for k in ("1/2", "2/2"):
        made = ["data", "pairs", str(tmp_path), "--groups", "3", "--seed", "5", "--shard", k]
        assert main(made) == 0
    assert "train-00002-of-00002.safetensors" in capsys.readouterr().out
    whole, _ = lattice.render_log_mels(3, split="train", seed=5, config=config)
    assert torch.equal(shards.read_pairs(tmp_path, config=config, **PAIRS), whole)


def test_a_part_that_is_there_stays_and_a_missing_one_is_named(tmp_path, config, monkeypatch):
    monkeypatch.setattr(
        lattice, "render_log_mels",
        lambda which, **_: (torch.zeros(len(which), 4, 4, 128, 2), torch.zeros(len(which), 4)),
    )  # fmt: skip
    first = shards.write_pairs(tmp_path, shard=(1, 2), config=config, **PAIRS)
    with pytest.raises(InputError, match="1 of 2 parts missing, first train-00002-of-00002"):
        shards.read_pairs(tmp_path, config=config, **PAIRS)
    shards.write_pairs(tmp_path, shard=(2, 2), config=config, **PAIRS)
    assert shards.read_pairs(tmp_path, config=config, **PAIRS).shape == (3, 4, 4, 128, 2)
    monkeypatch.setattr(lattice, "render_log_mels", None)
    assert shards.write_pairs(tmp_path, shard=(1, 2), config=config, **PAIRS) == first
    with pytest.raises(ValueError, match="seed 5, not 6"):
        shards.read_pairs(tmp_path, config=config, **(PAIRS | {"seed": 6}))
    with pytest.raises(InputError, match="no parts here"):
        shards.read_pairs(tmp_path / "nowhere", config=config, **PAIRS)


def test_a_corpus_rendered_in_parts_is_the_corpus(tmp_path):
    settings = {"clips_per_genre": 1, "seconds": 1.0, "seed": 0}
    whole = bands.write_corpus(tmp_path / "whole", **settings)
    for k in (1, 2, 3):
        assert bands.write_corpus(tmp_path / "parts", shard=(k, 3), **settings) == {}
    files = sorted((tmp_path / "parts").glob("*/*.flac"))
    assert len(files) == 10 and not (tmp_path / "parts" / "manifest.json").exists()
    before = [f.stat().st_mtime_ns for f in files]
    assert bands.write_corpus(tmp_path / "parts", **settings) == whole
    assert [f.stat().st_mtime_ns for f in files] == before, "nothing is rendered twice"


@pytest.mark.parametrize("bad", ["0/2", "3/2", "1", "a/b", "1/0"])
def test_command_refuses_what_is_no_part(bad, capsys):
    with pytest.raises(SystemExit) as error:
        main(["data", "bands", "--shard", bad])
    assert error.value.code == 2 and "no part such as 1/16" in capsys.readouterr().err
