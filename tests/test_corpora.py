"""Corpora: every layout, every fault by name, splits by track, segments that repeat."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchaudio.datasets import gtzan as torchaudio_gtzan

from audiostyle_lib import config as cfg
from audiostyle_lib import corpora
from audiostyle_lib.corpora import GENRES, Track

RATE = 22_050


def put(folder: Path, genre: str, number: int, samples, *, suffix=".wav", rate=RATE) -> Path:
    path = folder / genre / f"{genre}.{number:05d}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = {".wav": "FLOAT"}.get(suffix)
    sf.write(path, samples, rate, subtype=subtype)
    return path


def tracks_of(sizes: dict[str, int]) -> list[Track]:
    return [
        Track(Path(f"{g}.{i:05d}.wav"), g, f"{g}.{i:05d}", 30 * RATE, RATE, f"{g}{i}")
        for g, n in sizes.items()
        for i in range(n)
    ]


# Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".wav", ".au", ".flac", ".mp3"])
@pytest.mark.parametrize("layout", ["", "genres", "genres_original", "Data/genres_original"])
def test_every_layout_and_format_is_found(tmp_path, tone, layout, suffix):
    root = tmp_path / layout
    put(root, "jazz", 1, tone(seconds=0.5), suffix=suffix)
    put(root, "blues", 0, tone(seconds=0.5), suffix=suffix)
    (root / "blues" / "notes.txt").write_text("not a clip")
    (root / "polka").mkdir()
    assert corpora.find_root(tmp_path) == root
    tracks, _ = corpora.scan(tmp_path)
    assert [(t.name, t.genre, t.n_samples, t.sample_rate) for t in tracks] == [
        ("blues.00000", "blues", 11_025, RATE),
        ("jazz.00001", "jazz", 11_025, RATE),
    ]


def test_folder_without_genres_is_refused_by_name(tmp_path):
    (tmp_path / "polka").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no genre folder \(blues, classical, country"):
        corpora.scan(tmp_path)


@pytest.fixture
def faulty(tmp_path, tone) -> Path:
    """One good clip of 30 s and one clip with every fault there is a name for."""
    put(tmp_path, "blues", 0, tone(seconds=30.0))
    (tmp_path / "blues" / "blues.00001.wav").write_text("RIFF, or is it?\n" * 100)
    (tmp_path / "blues" / "blues.00002.wav").touch()
    (tmp_path / "blues" / "blues.00003.wav").mkdir()
    put(tmp_path, "jazz", 0, np.zeros(RATE))
    put(tmp_path, "jazz", 1, np.array([[0.3, -0.3]] * RATE))  # silent as soon as it is mono
    put(tmp_path, "jazz", 2, np.where(np.arange(RATE) == 99, np.nan, 0.1))
    put(tmp_path, "jazz", 3, np.full(2047, 0.1))
    put(tmp_path, "jazz", 4, tone(seconds=0.08, sample_rate=192_000), rate=192_000)
    put(tmp_path, "rock", 0, tone(seconds=12.34))
    cut = put(tmp_path, "rock", 1, tone(seconds=2.0), suffix=".flac")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return tmp_path


FAULTS = {
    "blues.00001": ("not readable", True),
    "blues.00002": ("not readable", True),
    "blues.00003": ("not readable (Is a directory)", True),
    "jazz.00000": ("silent", True),
    "jazz.00001": ("silent", True),
    "jazz.00002": ("not finite", True),
    "jazz.00003": ("too short: 0.093 s", True),
    "jazz.00004": ("too short: 0.080 s", True),
    "rock.00000": ("short: 12.34 s, padded", False),
    "rock.00001": ("not readable", True),
}


def test_every_fault_is_named_and_none_is_fatal(faulty, config):
    corpus = corpora.read_folder(faulty, name="mine")
    found = {f.name: (f.what, f.left_out) for f in corpus.faults}
    assert found.keys() == FAULTS.keys()
    for name, (what, left_out) in FAULTS.items():
        assert what in found[name][0]
        assert found[name][1] == left_out
    assert [t.name for t in corpus.tracks] == ["blues.00000", "rock.00000"]
    waveforms, valid = corpora.load_waveforms(list(corpus.tracks), config=config, seconds=15.0)
    assert waveforms.shape == (2, 15 * RATE) and valid == [15 * RATE, round(12.34 * RATE)]


def test_description_names_counts_and_faults(faulty):
    text = corpora.describe(corpora.read_folder(faulty, name="mine"))
    assert text.startswith(f"mine: 2 usable tracks in {faulty}\nsplit: stratified\n")
    assert "rock           1     0     0   12.34 to 12.34" in text
    assert "faults: 10, of which left out: 9" in text
    assert "  jazz.00000: silent (peak below -80 dBFS) (left out)" in text
    assert "  rock.00000: short: 12.34 s, padded to the clip length\n" in text
    assert "0x" not in text, "an address would differ from run to run"


def test_faulty_files_do_not_use_up_the_clips_of_a_genre(tmp_path, tone):
    put(tmp_path, "pop", 0, np.zeros(RATE))
    for number in (1, 2, 3):
        put(tmp_path, "pop", number, tone(seconds=0.5))
    tracks, faults = corpora.scan(tmp_path, clips_per_genre=2)
    assert [t.name for t in tracks] == ["pop.00001", "pop.00002"]
    assert "pop.00000" in {f.name for f in faults}


def test_clip_is_cut_or_padded_at_the_end(tmp_path, tone, config):
    path = put(tmp_path, "pop", 0, tone(seconds=1.0))
    track = corpora.scan(tmp_path)[0][0]
    stored = sf.read(path, dtype="float32")[0]
    np.testing.assert_array_equal(
        corpora.read_clip(track, config=config, seconds=0.5), stored[:11_025]
    )
    padded = corpora.read_clip(track, config=config, seconds=1.5)
    np.testing.assert_array_equal(padded[:RATE], stored)
    assert len(padded) == 33_075 and not padded[RATE:].any()


def test_valid_samples_count_after_resampling(tmp_path, tone, config):
    put(tmp_path, "pop", 0, tone(seconds=1.0, sample_rate=44_100), rate=44_100)
    put(tmp_path, "pop", 1, tone(seconds=3.0))
    tracks = corpora.scan(tmp_path)[0]
    waveforms, valid = corpora.load_waveforms(tracks, config=config, seconds=2.0)
    assert waveforms.shape == (2, 2 * RATE) and valid == [RATE, 2 * RATE]
    assert not waveforms[0, RATE + 1 :].any() and waveforms[0, : RATE - 10].abs().max() > 0.4


# Splits ---------------------------------------------------------------------------------------


@given(
    sizes=st.dictionaries(st.sampled_from(GENRES), st.integers(1, 40), min_size=1),
    seed=st.integers(0, 1000),
)
def test_stratified_split_is_a_partition_of_every_genre(sizes, seed):
    tracks = tracks_of(sizes)
    split = corpora.stratified(tracks, seed=seed)
    assert sorted(replace(t, split="").name for t in split) == sorted(t.name for t in tracks)
    for genre, n in sizes.items():
        count = Counter(t.split for t in split if t.genre == genre)
        assert count["train"] + count["valid"] + count["test"] == n
        assert count["train"] >= 1
        assert abs(count["test"] - 0.2 * n) < 1 and (count["test"] >= 1 or n == 1)
        assert abs(count["valid"] - 0.1 * n) < 1 and (count["valid"] >= 1 or n < 3)
    backwards = corpora.stratified(tracks[::-1], seed=seed)
    assert backwards == split


def test_stratified_split_depends_on_the_seed():
    tracks = tracks_of(dict.fromkeys(GENRES, 20))

    def test_names(seed):
        return {t.name for t in corpora.stratified(tracks, seed=seed) if t.split == "test"}

    assert test_names(0) == test_names(0)
    assert test_names(0) != test_names(1)
    numbers = [sorted(n[-2:] for n in test_names(0) if n.startswith(g)) for g in GENRES]
    assert len({tuple(n) for n in numbers}) > 5, "genres draw independently of each other"


WHOLE = dict.fromkeys(GENRES, 100)


def test_fault_filtered_split_of_whole_gtzan_is_sturms():
    split = corpora.fault_filtered(tracks_of(WHOLE))
    assert Counter(t.split for t in split) == {"train": 443, "valid": 197, "test": 290}
    for name in ("train", "valid", "test"):
        listed = getattr(torchaudio_gtzan, f"filtered_{name}")
        assert {t.name for t in split if t.split == name} == set(listed)


def test_fault_filtered_split_tolerates_one_missing_track_of_the_lists():
    listed = {
        *torchaudio_gtzan.filtered_train,
        *torchaudio_gtzan.filtered_valid,
        *torchaudio_gtzan.filtered_test,
    }
    tracks = tracks_of(WHOLE)
    used = [t for t in tracks if t.name in listed]
    assert len(corpora.fault_filtered(used)) == 930, "the 70 unused tracks may be missing"
    assert len(corpora.fault_filtered(used[1:])) == 929
    assert corpora.fault_filtered(used[2:]) is None


def test_whole_corpus_with_the_usual_corrupt_file_is_fault_filtered(tmp_path):
    buffer = io.BytesIO()
    sf.write(buffer, np.full(2048, 0.1), RATE, format="WAV")
    for genre in GENRES:
        (tmp_path / genre).mkdir()
        for number in range(100):
            (tmp_path / genre / f"{genre}.{number:05d}.wav").write_bytes(buffer.getvalue())
    (tmp_path / "jazz" / "jazz.00054.wav").write_bytes(b"no RIFF id" * 9)
    corpus = corpora.read_folder(tmp_path, name="gtzan")
    assert corpus.split_source == "fault-filtered (Sturm 2013)"
    in_lists = "jazz.00054" in torchaudio_gtzan.filtered_train
    assert len(corpus.tracks) == 930 - in_lists
    assert [f.name for f in corpus.faults if f.left_out] == ["jazz.00054"]
    names = {split: {t.name for t in corpus.split(split)} for split in ("train", "valid", "test")}
    assert not names["train"] & names["test"] and not names["valid"] & names["test"]


def test_manifest_decides_the_split(tmp_path, tone):
    clips = []
    for number, split in enumerate(["test", "train", "valid"]):
        put(tmp_path, "pop", number, tone(seconds=0.3))
        clips.append({"file": f"pop/pop.{number:05d}.wav", "split": split})
    manifest = {"clips": clips}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    corpus = corpora.read_folder(tmp_path, name="bands")
    assert [t.split for t in corpus.tracks] == ["test", "train", "valid"]
    assert corpus.split_source == "manifest" and corpus.manifest == manifest


def test_hash_follows_contents_and_splits_not_the_folder(tmp_path, tone):
    def corpus(folder: str, frequency: float) -> corpora.Corpus:
        for number in range(4):
            put(tmp_path / folder, "pop", number, tone(frequency + number, 0.3))
        return corpora.read_folder(tmp_path / folder, name="mine")

    first, other = corpus("a", 400.0), corpus("c", 500.0)
    # copied, not written again: a float wav holds the second in which it was made
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    same = corpora.read_folder(tmp_path / "b", name="mine")
    assert first.sha256 == same.sha256 != other.sha256
    moved = replace(first, tracks=tuple(replace(t, split="test") for t in first.tracks))
    assert moved.sha256 != first.sha256


# Opening --------------------------------------------------------------------------------------


def test_auto_takes_gtzan_where_it_is(tmp_path, monkeypatch, tone):
    monkeypatch.delenv("AUDIOSTYLE_GTZAN", raising=False)
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    assert corpora.resolve("auto") == "bands"
    with pytest.raises(FileNotFoundError, match=r"no GTZAN at .*AUDIOSTYLE_GTZAN"):
        corpora.open_corpus("gtzan", profile=cfg.profile("smoke"))
    for number in range(6):
        put(tmp_path / "gtzan" / "genres", "pop", number, tone(seconds=0.3))
    assert corpora.resolve("auto") == "gtzan"
    corpus = corpora.open_corpus("auto", profile=cfg.profile("smoke"))
    assert (corpus.name, len(corpus.tracks)) == ("gtzan", 4), "smoke takes 4 clips a genre"


def test_unknown_corpus_names_the_choices():
    with pytest.raises(ValueError, match="'fma': choose bands, gtzan or auto"):
        corpora.resolve("fma")


def test_folders_of_bands_differ_by_size_length_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    smoke, quick = cfg.profile("smoke"), cfg.profile("quick")
    assert corpora.bands_folder(smoke, seed=3) == tmp_path / "bands" / "4x8s-seed3"
    folders = {corpora.bands_folder(p, seed=s) for p in (smoke, quick) for s in (0, 1)}
    assert len(folders) == 4


# Segments -------------------------------------------------------------------------------------


@pytest.fixture
def ramps(tmp_path) -> list[Track]:
    """Clips whose sample values are their positions."""
    for number, n in enumerate((4000, 30_000, 50_000)):
        put(tmp_path, GENRES[number], number, (1 + np.arange(n)) / 2**16)
    return corpora.scan(tmp_path)[0]


def test_segment_is_an_excerpt_of_its_track(ramps, config):
    dataset = corpora.SegmentDataset(ramps, config=config, seconds=0.5, seed=1)
    assert len(dataset) == 3
    starts = []
    for index, track in enumerate(ramps):
        segment, genre, position = dataset[index]
        assert (GENRES[genre], position) == (track.genre, index)
        assert segment.shape == (11_025,) and segment.dtype == np.float32
        found = np.rint(segment * 2**16).astype(int)
        n = min(11_025, track.n_samples)
        np.testing.assert_array_equal(found[:n], found[0] + np.arange(n))
        assert not segment[n:].any()
        starts.append(found[0] - 1)
    assert starts[0] == 0 and 0 < starts[1] <= 30_000 - 11_025 and starts[2] > 0


def test_segments_change_with_epoch_and_seed_only(ramps, config):
    def starts(epoch: int, seed: int) -> list[float]:
        dataset = corpora.SegmentDataset(ramps[1:], config=config, seconds=0.5, seed=seed)
        dataset.epoch = epoch
        return [float(dataset[i][0][0]) for i in range(2)]

    assert starts(0, 0) == starts(0, 0)
    assert len({tuple(starts(e, s)) for e in (0, 1) for s in (0, 1)}) == 4


def test_workers_give_the_same_segments(ramps, config):
    def load(workers: int):
        dataset = corpora.SegmentDataset(ramps, config=config, seconds=0.3, seed=5)
        return list(DataLoader(dataset, batch_size=2, num_workers=workers))

    for alone, helped in zip(load(0), load(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))


# Real clips -----------------------------------------------------------------------------------


def test_real_clips(gtzan_subset, config):
    corpus = corpora.read_folder(gtzan_subset, name="gtzan", clips_per_genre=3)
    assert Counter(t.genre for t in corpus.tracks) == dict.fromkeys(GENRES, 3)
    assert Counter(t.split for t in corpus.tracks) == {"train": 10, "valid": 10, "test": 10}
    short = {t.name for t in corpus.tracks if t.seconds < 30}
    assert {f.name for f in corpus.faults if not f.left_out} == short
    waveforms, valid = corpora.load_waveforms(corpus.split("test"), config=config, seconds=3.0)
    assert waveforms.shape == (10, 3 * RATE) and set(valid) == {3 * RATE}
    assert float(waveforms.abs().amax(dim=1).min()) > 1e-3
