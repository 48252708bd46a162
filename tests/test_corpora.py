"""Corpora: every layout, every fault by name, every clip once, splits by track."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.datasets import gtzan as torchaudio_gtzan

from audiostyle_lib import config as cfg
from audiostyle_lib import corpora
from audiostyle_lib.corpora import GENRES, Track
from audiostyle_lib.errors import InputError
from audiostyle_lib.signal import audio

RATE = 22_050


def put(
    folder: Path, genre: str, number: int, samples, *, suffix=".wav", rate=RATE, subtype=None
) -> Path:
    path = folder / genre / f"{genre}.{number:05d}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, rate, subtype=subtype or {".wav": "FLOAT"}.get(suffix))
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
    put(root, "jazz", 1, tone(300, 0.5), suffix=suffix)
    put(root, "blues", 0, tone(400, 0.5), suffix=suffix)
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
    with pytest.raises(InputError, match=r"no genre folder \(blues, classical, .*; found polka"):
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
    "blues.00001": ("not readable as audio", True),
    "blues.00002": ("the file is empty", True),
    "blues.00003": ("not a file", True),
    "jazz.00000": ("silent", True),
    "jazz.00001": ("silent", True),
    "jazz.00002": ("not finite", True),
    "jazz.00003": ("lasts 0.093 s, shorter than one window", True),
    "jazz.00004": ("lasts 0.080 s, shorter than one window", True),
    "rock.00000": ("short: 12.34 s, padded", False),
    "rock/rock.00001.flac": ("cut short (truncated): ends after", False),
    "rock.00001": ("short: ", False),
}


def test_every_fault_is_named_and_none_is_fatal(faulty, config):
    corpus = corpora.read_folder(faulty, name="mine")
    found = {f.name: (f.what, f.left_out) for f in corpus.faults}
    assert found.keys() == FAULTS.keys()
    for name, (what, left_out) in FAULTS.items():
        assert what in found[name][0]
        assert found[name][1] == left_out
    assert [t.name for t in corpus.tracks] == ["blues.00000", "rock.00000", "rock.00001"]
    waveforms, valid = corpora.load_waveforms(list(corpus.tracks), config=config, seconds=15.0)
    assert waveforms.shape == (3, 15 * RATE)
    assert valid[:2] == [15 * RATE, round(12.34 * RATE)] and 0 < valid[2] < 2 * RATE


def test_description_names_counts_and_faults(faulty):
    text = corpora.describe(corpora.read_folder(faulty, name="mine"))
    assert text.startswith(f"mine: 3 usable tracks in {faulty}\nsplit: stratified\n")
    assert "rock           1     0     1   0." in text and " to 12.34\n" in text
    assert "faults: 11, of which left out: 8" in text
    assert "  jazz.00000: is silent (peak below -120 dBFS) (left out)" in text
    assert "  rock.00000: short: 12.34 s, padded to the clip length\n" in text
    assert "0x" not in text, "an address would differ from run to run"


def test_faulty_files_do_not_use_up_the_clips_of_a_genre(tmp_path, tone):
    put(tmp_path, "pop", 0, np.zeros(RATE))
    for number in (1, 2, 3):
        put(tmp_path, "pop", number, tone(400 + number, 0.5))
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


# Copies ---------------------------------------------------------------------------------------


def put_as(folder: Path, name: str, samples, subtype: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    sf.write(folder / name, samples, RATE, subtype=subtype)


def left_out(corpus) -> dict[str, str]:
    return {f.name: f.what for f in corpus.faults if f.left_out}


def test_a_clip_in_several_formats_is_one_track(tmp_path, clip):
    for number in range(10):
        x = clip(1.0, seed=number)
        for suffix, subtype in ((".wav", "FLOAT"), (".au", "PCM_16"), (".flac", "PCM_24")):
            put_as(tmp_path, f"blues/blues.{number:05d}{suffix}", x, subtype)
    corpus = corpora.read_folder(tmp_path, name="mine")
    assert [t.path.name for t in corpus.tracks] == [f"blues.{k:05d}.au" for k in range(10)]
    assert len(left_out(corpus)) == 20
    what = "has the name of blues/blues.00003.au, which is kept"
    assert left_out(corpus)["blues/blues.00003.wav"] == what


def test_the_same_sound_under_several_names_is_in_one_split(tmp_path, clip):
    for number in range(12):  # six sounds, and one of them under another label
        x = clip(1.0, seed=number // 2)
        suffix, subtype = ((".wav", "FLOAT"), (".flac", "PCM_16"))[number % 2]
        put_as(tmp_path, f"blues/blues.{number:05d}{suffix}", x, subtype)
    both = np.stack([clip(1.0, seed=0)] * 2, axis=1)
    put_as(tmp_path, "jazz/jazz.00000.au", both, "PCM_24")
    corpus = corpora.read_folder(tmp_path, name="mine")
    assert len(corpus.tracks) == 13 and left_out(corpus) == {}
    split_of = {t.name: t.split for t in corpus.tracks}
    for number in range(0, 12, 2):
        assert split_of[f"blues.{number:05d}"] == split_of[f"blues.{number + 1:05d}"]
    assert split_of["jazz.00000"] == split_of["blues.00000"]
    assert set(split_of.values()) == {"train", "valid", "test"}
    line = (
        "  jazz/jazz.00000.au: a copy of blues/blues.00000.wav under another genre, both kept in "
    )
    assert line in corpora.describe(corpus)


def test_one_name_is_one_track_whatever_the_files_hold(tmp_path, clip):
    put_as(tmp_path, "pop/a.flac", clip(1.0, seed=0), "PCM_16")
    put_as(tmp_path, "pop/a.wav", clip(1.0, seed=1), "PCM_16")
    put_as(tmp_path, "rock/a.wav", clip(1.0, seed=2), "PCM_16")
    corpus = corpora.read_folder(tmp_path, name="mine")
    assert [(t.genre, t.path.name) for t in corpus.tracks] == [("pop", "a.flac"), ("rock", "a.wav")]
    assert left_out(corpus) == {"pop/a.wav": "has the name of pop/a.flac, which is kept"}


def test_clips_that_are_alike_are_no_copies(tmp_path, clip):
    x = clip(1.0)
    click = np.zeros(RATE)
    click[1000] = 0.5
    alike = [x, 0.9 * x, -x, np.roll(x, 1), click, np.roll(click, 50)]
    for number, samples in enumerate(alike):
        put(tmp_path, "metal", number, samples)
    tracks, _ = corpora.scan(tmp_path)
    assert [t.copy_of for t in tracks] == [None] * len(alike)


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


def put_whole(folder: Path) -> None:
    """GTZAN's thousand names, every clip of another level."""
    for k, genre in enumerate(GENRES):
        for number in range(100):
            put(folder, genre, number, (1 + 100 * k + number) / 1100 * np.resize([1.0, -1.0], 2048))


def test_whole_corpus_with_the_usual_corrupt_file_is_fault_filtered(tmp_path):
    put_whole(tmp_path)
    (tmp_path / "jazz" / "jazz.00054.wav").write_bytes(b"no RIFF id" * 9)
    corpus = corpora.read_folder(tmp_path, name="gtzan")
    assert corpus.split_source == "fault-filtered (Sturm 2013)"
    in_lists = "jazz.00054" in torchaudio_gtzan.filtered_train
    assert len(corpus.tracks) == 930 - in_lists
    assert (
        left_out(corpus).pop(".")
        == f"tracks in none of the fault-filtered lists: {999 - 930 + in_lists} left out"
    )
    assert [f.name for f in corpus.faults if f.left_out] == [".", "jazz.00054"]
    names = {split: {t.name for t in corpus.split(split)} for split in ("train", "valid", "test")}
    assert not names["train"] & names["test"] and not names["valid"] & names["test"]


def test_manifest_decides_the_split(tmp_path, tone):
    clips = []
    for number, split in enumerate(["test", "train", "valid"]):
        put(tmp_path, "pop", number, tone(400 + number, 0.3))
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
    with pytest.raises(InputError, match=r"no GTZAN at .*AUDIOSTYLE_GTZAN"):
        corpora.open_corpus("gtzan", profile=cfg.profile("smoke"))
    for number in range(6):
        put(tmp_path / "gtzan" / "genres", "pop", number, tone(400 + number, 0.3))
    assert corpora.resolve("auto") == "gtzan"
    corpus = corpora.open_corpus("auto", profile=cfg.profile("smoke"))
    assert (corpus.name, len(corpus.tracks)) == ("gtzan", 4), "smoke takes 4 clips a genre"


@pytest.fixture
def small_gtzan(tmp_path, monkeypatch, tone):
    """A GTZAN of six clips, 16 bits and one of 24, and a folder for what is decoded."""
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUDIOSTYLE_GTZAN", str(tmp_path / "gtzan"))
    for number in range(6):
        put(tmp_path / "gtzan", "pop", number, tone(400 + number, 0.3), subtype="PCM_16")
    return tmp_path


def test_a_corpus_is_read_again_only_if_a_file_has_changed(small_gtzan, monkeypatch, tone):
    again = {"profile": cfg.profile("quick"), "seed": 0, "memory": small_gtzan / "corpus.json"}
    first = corpora.open_again("gtzan", **again)
    assert first == corpora.open_corpus("gtzan", profile=cfg.profile("quick"))
    with monkeypatch.context() as patch:
        patch.setattr(corpora, "scan", None)
        assert corpora.open_again("gtzan", **again) == first
        with pytest.raises(TypeError):  # another profile is read anew
            corpora.open_again("gtzan", **(again | {"profile": cfg.profile("smoke")}))
    put(small_gtzan / "gtzan", "pop", 6, tone(500, 0.3))
    assert len(corpora.open_again("gtzan", **again).tracks) == 7


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_clip_is_decoded_once_and_stays_exact(small_gtzan, config, monkeypatch, subtype):
    noise = 0.3 * np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    put(small_gtzan / "gtzan", "pop", 0, noise, subtype=subtype)
    track = corpora.read_folder(small_gtzan / "gtzan", name="gtzan").tracks[0]
    first = corpora.read_clip(track, config=config, seconds=0.5)
    np.testing.assert_array_equal(first[:9000], audio.read_audio(track.path, config=config))
    monkeypatch.setattr(audio, "read_audio", None)
    np.testing.assert_array_equal(corpora.read_clip(track, config=config, seconds=0.5), first)
    (kept,) = (small_gtzan / "data" / "decoded").iterdir()
    assert kept.stat().st_size < 9000 * (2 if subtype == "PCM_16" else 4) + 200


def test_unknown_corpus_names_the_choices():
    with pytest.raises(InputError, match="'fma': choose bands, gtzan or auto"):
        corpora.resolve("fma")


def test_folders_of_bands_differ_by_size_length_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    smoke, quick = cfg.profile("smoke"), cfg.profile("quick")
    assert corpora.bands_folder(smoke, seed=3) == tmp_path / "bands" / "4x8s-seed3"
    folders = {corpora.bands_folder(p, seed=s) for p in (smoke, quick) for s in (0, 1)}
    assert len(folders) == 4


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
