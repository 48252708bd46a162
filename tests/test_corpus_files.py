"""Corpus folders as they come: what is wrong is named once, in a line, and reading is not misled."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from audiostyle_lib import corpora, corpus_files
from audiostyle_lib.__main__ import main
from audiostyle_lib.corpora import Corpus, Fault
from audiostyle_lib.errors import InputError
from audiostyle_lib.signal import audio

RATE = 22_050


@pytest.fixture
def put(tmp_path, tone):
    """Maker of a sine of a second in a file below the temporary folder, by frequency."""

    def make(name: str, frequency: float, *, seconds: float = 1.0, **how) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, tone(frequency, seconds), RATE, **how)
        return path

    return make


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def check(folder: Path) -> Corpus:
    return corpora.check(folder, name="mine")


def faults(corpus: Corpus, *, but: tuple[str, ...] = ("short",)) -> dict[str, Fault]:
    """By file, and each file once."""
    found = [f for f in corpus.faults if f.kind not in but]
    assert len({f.file for f in found}) == len(found), found
    return {f.file: f for f in found}


def only_fault(corpus: Corpus) -> Fault:
    (found,) = faults(corpus).values()
    return found


# Where the genres are -------------------------------------------------------------------------


def test_an_empty_outer_genre_folder_does_not_hide_the_inner_ones(tmp_path, put):
    put("Data/genres_original/metal/a.wav", 300)
    (tmp_path / "metal").mkdir()
    touch(tmp_path / "rock" / "cover.jpg")
    assert corpora.find_root(tmp_path) == tmp_path / "Data" / "genres_original"
    corpus = check(tmp_path)
    assert [t.name for t in corpus.tracks] == ["a"]
    assert "metal, rock" in only_fault(corpus).what and not only_fault(corpus).wrong


def test_genre_folders_beside_those_that_are_read_are_named(tmp_path, put):
    put("genres/pop/a.wav", 300)
    put("pop/b.wav", 400)
    assert corpora.find_root(tmp_path) == tmp_path, "the outer ones hold audio"
    found = only_fault(check(tmp_path))
    assert found.file == "genres" and "genre folders of its own" in found.what and found.wrong
    (tmp_path / "pop" / "b.wav").rename(tmp_path / "pop" / "b.ogg")
    found = only_fault(check(tmp_path))
    assert found.file == "../pop" and "genres are in genres: move it there" in found.what


@pytest.mark.parametrize("wrapping", ["download", "a/b"])
def test_a_folder_further_down_is_pointed_at(tmp_path, put, wrapping):
    put(f"{wrapping}/genres_original/disco/a.wav", 300)
    inner = tmp_path / wrapping / "genres_original"
    with pytest.raises(InputError, match=f"there are some in {inner}: name that folder"):
        check(tmp_path)


def test_where_no_genre_is_spelled_right_the_refusal_says_so(tmp_path, put):
    put("Reggae/a.wav", 300)
    put("R&B/a.wav", 300)
    put("HIP HOP/a.wav", 300)
    with pytest.raises(InputError) as error:
        check(tmp_path)
    assert "found HIP HOP (rename to hiphop?), Reggae (rename to reggae?), R&B" in str(error.value)
    assert "reggae, rock) here or in genres" in str(error.value)


@pytest.mark.parametrize("name", ["nowhere", "file.wav", "n" * 300])
def test_what_is_no_folder_is_refused_in_a_line(tmp_path, name, capsys):
    (tmp_path / "file.wav").touch()
    assert main(["data", "check", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and name in err


# What is not read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "genre"),
    [("Blues", "blues"), ("hip_hop", "hiphop"), ("Hip Hop", "hiphop"), ("POP", "pop"),
     ("classic", "classical"), ("Rock (2)", "rock"), ("R&B", None), ("techno", None), ("folk", None)],
)  # fmt: skip
def test_a_genre_spelled_otherwise_is_named_and_not_read(tmp_path, put, folder, genre):
    put("jazz/a.wav", 300)
    put(f"{folder}/a.wav", 400)
    put(f"{folder}/CD/b.mp3", 500)
    corpus = check(tmp_path)
    assert [t.genre for t in corpus.tracks] == ["jazz"]
    found = only_fault(corpus)
    assert found.file == folder and found.left_out and found.wrong
    assert (f"rename it if {genre} is meant" in found.what) == (genre is not None)
    assert "(2 audio files)" in found.what


def test_nested_and_loose_audio_is_named(tmp_path, put):
    put("genres/disco/a.wav", 300)
    put("genres/disco/CD1/b.wav", 400)
    put("genres/disco/CD1/more/c.opus.flac", 500)
    put("loose.flac", 600)
    put("another data set/x.wav", 700)  # beside genres/, with a name that says nothing
    touch(*(tmp_path / "genres" / f"{k}.wav" for k in range(1000)))
    found = faults(check(tmp_path))
    assert found.keys() == {"disco/CD1", "../loose.flac", "*.wav"}
    assert "1000 files (0.wav, 1.wav, 10.wav and 997 more)" in found["*.wav"].what
    assert "2 audio files inside" in found["disco/CD1"].what
    assert all(f.wrong and f.left_out for f in found.values())


def test_audio_of_other_formats_is_counted_by_kind_and_folder(tmp_path, put):
    put("pop/a.wav", 300)
    touch(*(tmp_path / "pop" / f"{k}.wma" for k in range(200)))
    touch(tmp_path / "pop" / "one.AIF", tmp_path / "rock" / "1.wma", tmp_path / "rock" / "2.wma")
    for k in range(9):
        shutil.copy(tmp_path / "pop" / "a.wav", tmp_path / "rock" / f"rock.{k:05d}")
    shutil.copy(tmp_path / "pop" / "a.wav", tmp_path / "pop" / "track 7")
    (tmp_path / "pop" / "cover").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
    corpus = check(tmp_path)
    found = faults(corpus, but=("short", "other"))
    assert found.keys() == {"pop/*.wma", "pop/one.AIF", "rock/*.wma", "pop/track 7", "rock/*"}
    assert "200 files (0.wma, 1.wma, 10.wma and 197 more) not read" in found["pop/*.wma"].what
    asks = {file: f.what.split(": ")[-1] for file, f in found.items()}
    named = {"pop/track 7", "rock/*"}
    assert asks == {f: "name by the format" if f in named else "convert" for f in found}
    assert all(f.wrong and f.left_out for f in found.values())
    assert "files and folders without audio: 1 ignored (cover)" in corpora.describe(corpus)


def test_files_of_the_system_are_one_harmless_line(tmp_path, put):
    put("pop/a.wav", 300)
    touch(*(tmp_path / "pop" / f"._pop.{k:05d}.wav" for k in range(1000)))
    touch(tmp_path / "pop" / "Thumbs.db", tmp_path / "desktop.ini", tmp_path / ".DS_Store")
    touch(tmp_path / "__MACOSX" / "pop" / "._a.wav", tmp_path / "README.txt")
    lines = corpora.describe(check(tmp_path)).splitlines()
    assert lines[-2:] == [
        "hidden files and folders: 1004 ignored (.DS_Store, __MACOSX, desktop.ini and 1001 more)",
        "files and folders without audio: 1 ignored (README.txt)",
    ]
    assert "faults: 1, of which left out: 0" in lines
    assert main(["data", "check", str(tmp_path)]) == 0


def test_links_are_files_and_loops_end(tmp_path, put):
    one = put("pop/a.wav", 300)
    (tmp_path / "pop" / "b.wav").symlink_to(one)
    (tmp_path / "pop" / "c.wav").hardlink_to(one)
    (tmp_path / "pop" / "back").symlink_to("..")
    (tmp_path / "pop" / "self.wav").symlink_to("self.wav")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "pop")
    corpus = check(tmp_path)
    found = faults(corpus, but=("short", "other"))
    assert {f.file: f.kind for f in found.values()} == {
        "pop/b.wav": "copy", "pop/c.wav": "copy", "pop/self.wav": "unreadable"
    }  # fmt: skip
    assert "broken link" in found["pop/self.wav"].what
    assert len({t.split for t in corpus.tracks}) == 1


def test_a_genre_folder_may_be_a_link(tmp_path, put):
    put("store/a.wav", 300)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "jazz").symlink_to(tmp_path / "store")
    assert [t.genre for t in check(tmp_path / "corpus").tracks] == ["jazz"]


def test_what_may_not_be_read_is_named(tmp_path, put, monkeypatch):
    for name in ("pop/a.wav", "pop/shut.wav", "rock/a.wav", "jazz/CD1/a.wav"):
        put(name, 300 + len(name))
    shut = {os.fspath(tmp_path / name) for name in ("pop/shut.wav", "rock", "jazz/CD1")}

    def guarded(function):
        def call(path, *arguments, **options):
            if os.fspath(path) in shut:
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return function(path, *arguments, **options)

        return call

    for module, name in ((os, "listdir"), (os, "scandir"), (Path, "open")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    corpus = check(tmp_path)
    found = faults(corpus, but=("short", "other"))
    assert {f.file for f in found.values()} == {"pop/shut.wav", "rock", "jazz/CD1"}
    assert {f.kind for f in found.values()} == {"no-access"}
    assert [t.name for t in corpus.tracks] == ["a"]


@pytest.fixture
def before_reading(put, monkeypatch):
    """Three clips of pop; do something with the path before the reader opens one."""
    for k in range(3):
        put(f"pop/pop.0000{k}.wav", 300 + k)
    read = audio.open_recording

    def set_up(do):
        monkeypatch.setattr(
            audio, "open_recording", lambda path, **kw: do(path) or read(path, **kw)
        )

    return set_up


def test_a_file_that_goes_away_while_others_are_read_is_named(tmp_path, before_reading):
    before_reading(lambda path: (tmp_path / "pop" / "pop.00001.wav").unlink(missing_ok=True))
    corpus = check(tmp_path)
    assert [t.name for t in corpus.tracks] == ["pop.00000", "pop.00002"]
    assert only_fault(corpus).name == "pop.00001"


@pytest.mark.parametrize("error", [MemoryError(), ValueError("odd"), OSError(5, "I/O error")])
def test_one_bad_file_never_ends_the_check(tmp_path, before_reading, error):
    def fail(path):
        if path.name == "pop.00001.wav":
            raise error

    before_reading(fail)
    corpus = check(tmp_path)
    assert len(corpus.tracks) == 2 and only_fault(corpus).name == "pop.00001"


def test_what_the_reader_warns_of_is_named(tmp_path, before_reading, recwarn):
    def warn(path):
        if path.name == "pop.00001.wav":
            warnings.warn(f"{path}: cut short", UserWarning, stacklevel=1)

    before_reading(warn)
    corpus = check(tmp_path)
    assert len(corpus.tracks) == 3 and not recwarn
    found = only_fault(corpus)
    assert (found.file, found.what, found.left_out) == ("pop/pop.00001.wav", "cut short", False)


def test_a_manifest_that_is_a_pipe_is_not_waited_for(tmp_path, put):
    put("pop/pop.00000.wav", 300)
    os.mkfifo(tmp_path / "manifest.json")
    assert "manifest-ignored" in {f.kind for f in check(tmp_path).faults}


def test_what_check_calls_usable_is_what_reading_takes(tmp_path, put, config, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    for k, rate in enumerate((8_000, 22_050, 44_100, 96_000)):
        path = put(f"corpus/pop/{k}.wav", 300 + k)
        sf.write(path, np.sin(np.arange(round(1.3 * rate)) * (300 + k) / rate), rate)
    corpus = check(tmp_path / "corpus")
    for track in corpus.tracks:
        clip = corpora.read_clip(track, config=config, seconds=track.seconds)
        np.testing.assert_array_equal(clip, audio.read_audio(track.path))
    assert [t.n_samples for t in corpus.tracks] == [10_400, 28_665, 57_330, 124_800]


def test_a_file_that_changes_after_the_check_is_refused(tmp_path, put, config, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    path = put("corpus/pop/a.wav", 300)
    (track,) = check(tmp_path / "corpus").tracks
    put("corpus/pop/a.wav", 400)
    with pytest.raises(audio.AudioError, match=f"{path}: has changed since"):
        corpora.read_clip(track, config=config, seconds=1.0)
    path.unlink()
    with pytest.raises(audio.AudioError, match="no such file"):
        corpora.read_clip(track, config=config, seconds=1.0)


def test_without_a_usable_track_nothing_is_read(tmp_path):
    touch(tmp_path / "pop" / "empty.wav")
    found = faults(check(tmp_path))
    assert found["."].kind == "no-tracks" and found["."].wrong
    with pytest.raises(InputError, match="no usable track in any genre folder"):
        corpora.read_folder(tmp_path, name="mine")


# Names ----------------------------------------------------------------------------------------


def test_a_track_is_called_by_what_finds_its_file(tmp_path, put):
    for name in ("pop/pop.00001.wav", "pop/x.wav", "pop/y.wav", "pop/y.flac"):
        touch(tmp_path / name)
    put("rock/a.wav", 300)
    names = {f.name for f in check(tmp_path).faults if f.kind == "unreadable"}
    assert names == {"pop.00001", "pop/x", "pop/y.wav", "pop/y.flac"}


@pytest.mark.parametrize("second", ["pop.00001.WAV", "pop.00001.wav", "pop.00001.mp3"])
def test_of_two_files_with_one_name_the_first_usable_is_kept(tmp_path, put, second):
    touch(tmp_path / "pop" / "pop.00001.au")
    put("pop/pop.00001.flac", 300)
    put(f"pop/{second}", 400, format=second[-3:].upper())
    found = faults(check(tmp_path))
    kept = min("pop.00001.flac", second)
    (track,) = check(tmp_path).tracks
    assert track.path.name == kept
    kinds = {file: f.kind for file, f in found.items()}
    assert kinds.pop("pop/pop.00001.au") == ("same-name" if kept.endswith("WAV") else "unreadable")
    assert kinds == {f"pop/{max('pop.00001.flac', second)}": "same-name"}
    found = found[next(iter(kinds))]
    assert found.what == f"has the name of pop/{kept}, which is kept" and found.wrong


def test_a_file_named_after_another_genre_is_named(tmp_path, put):
    put("metal/rock.00003.wav", 300)
    put("metal/metal.00003.wav", 400)
    corpus = check(tmp_path)
    found = only_fault(corpus)
    assert "is named after rock, kept as metal" in found.what and found.wrong
    assert len(corpus.tracks) == 2


ODD = [
    b"caf\xe9.wav",
    "na\u00efve \u266b.wav".encode(),
    b"two\nlines.wav",
    b"tab\t.wav",
    b"'\"%s{}.wav",
]


def test_any_name_can_be_printed_hashed_and_remembered(tmp_path, put, capsys):
    put("pop/a.wav", 300)
    (tmp_path / "pop" / os.fsdecode(b"\xff\xfe")).mkdir()
    for name in ODD:
        touch(tmp_path / "pop" / os.fsdecode(name))
    corpus = check(tmp_path)
    odd = replace(corpus.tracks[0], name=os.fsdecode(ODD[0]))
    assert replace(corpus, tracks=(odd,)).sha256 != corpus.sha256
    assert len(corpora.listing(tmp_path)) == 64
    assert main(["data", "check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == len(corpora.describe(corpus).splitlines()) == 21
    out.encode()
    assert "  pop/two\\nlines: the file is empty (left out)" in out
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert {os.fsencode(f["file"]) for f in read["faults"] if f["kind"] == "unreadable"} == {
        b"pop/" + name for name in ODD
    }


# Copies ---------------------------------------------------------------------------------------


def test_copies_are_named_with_their_split(tmp_path, put):
    for k in range(10):
        put(f"jazz/jazz.{k:05d}.wav", 300 + k)
    shutil.copy(tmp_path / "jazz" / "jazz.00004.wav", tmp_path / "jazz" / "z.wav")
    put("jazz/other.flac", 305)
    (tmp_path / "pop").mkdir()
    shutil.copy(tmp_path / "jazz" / "jazz.00004.wav", tmp_path / "pop" / "p.wav")
    corpus = check(tmp_path)
    split = {t.name: t.split for t in corpus.tracks}
    found = {file: (f.kind, f.wrong, f.what) for file, f in faults(corpus).items()}
    both = f"a copy of jazz/jazz.00004.wav, both kept in {split['jazz.00004']}: remove one"
    encoded = f"a copy of jazz/jazz.00005.wav, both kept in {split['jazz.00005']}: remove one"
    across = (
        "a copy of jazz/jazz.00004.wav under another genre, both kept in "
        f"{split['jazz.00004']}: remove the one that is wrong"
    )
    assert found == {
        "jazz/z.wav": ("copy", False, both),
        "jazz/other.flac": ("copy", False, encoded),
        "pop/p.wav": ("copy-across-genres", True, across),
    }


def test_copies_of_one_file_are_decoded_once(tmp_path, put, monkeypatch):
    one = put("jazz/a.wav", 300)
    for k in range(50):
        shutil.copy(one, tmp_path / "jazz" / f"b{k}.wav")
    calls = []
    read = audio.open_recording
    monkeypatch.setattr(audio, "open_recording", lambda p, **kw: calls.append(p) or read(p, **kw))
    assert len(check(tmp_path).tracks) == 51 and calls == [one]


def manifest(folder: Path, splits: dict[str, str]) -> None:
    clips = [{"file": file, "split": split} for file, split in splits.items()]
    (folder / "manifest.json").write_text(json.dumps({"clips": clips}))


def test_a_manifest_does_not_part_copies(tmp_path, put):
    files = [put(f"pop/{k}.wav", 300 + k // 3) for k in range(6)]
    splits = ["train", "test", "train", "valid", "train", "test"]
    manifest(tmp_path, {f"pop/{f.name}": s for f, s in zip(files, splits, strict=True)})
    for corpus in (check(tmp_path), corpora.read_folder(tmp_path, name="mine")):
        assert [t.split for t in corpus.tracks] == ["train"] * 3 + ["valid"] * 3
        assert corpus.split_source == "manifest"
        kinds = {file: f.kind for file, f in faults(corpus).items()}
        parted = ("pop/1.wav", "pop/4.wav", "pop/5.wav")
        assert kinds == {"pop/2.wav": "copy", **dict.fromkeys(parted, "copy-across-splits")}
        moved = faults(corpus)["pop/5.wav"]
        assert "both kept in valid although it is listed in test" in moved.what and moved.wrong


def test_the_fault_filtered_lists_do_not_part_copies(tmp_path, tone, monkeypatch):
    lists = {f"pop.{k:05d}": ("train", "test")[k % 2] for k in range(6)}
    monkeypatch.setattr(corpora, "_filtered_splits", lambda: lists)
    monkeypatch.setattr(corpora, "N_FILTERED", len(lists))
    (tmp_path / "pop").mkdir()
    for k in range(8):  # 2 is the sound of 1, 6 and 7 in no list are that of 0
        sound = {2: 1, 6: 0, 7: 0}.get(k, k)
        sf.write(tmp_path / "pop" / f"pop.{k:05d}.wav", tone(300 + sound), RATE)
    corpus = check(tmp_path)
    assert corpus.split_source == "fault-filtered (Sturm 2013)"
    split = {t.name: t.split for t in corpus.tracks}
    assert split == {**lists, "pop.00002": "test"}
    kinds = {file: f.kind for file, f in faults(corpus, but=("short", "filtered")).items()}
    assert kinds == {
        "pop/pop.00002.wav": "copy-across-splits",
        "pop/pop.00006.wav": "copy-left-out",
        "pop/pop.00007.wav": "copy-left-out",
    }


# Manifests ------------------------------------------------------------------------------------

FOREIGN = [
    '{"name": "my dataset", "version": 2}', "[1, 2]", "null", "7", '"clips"', "", "not json",
    "[" * 100_000, '{"clips": []}', '{"clips": {}}', '{"clips": ["pop/a.wav"]}', '{"clips": null}',
    '{"clips": [{"file": ["pop/a.wav"], "split": {}}]}', '{"clips": [{"file": "pop/a.wav"}]}',
    '{"clips": [{"file": "pop/a.wav", "split": "fold3"}]}',
    '{"clips": [{"file": "elsewhere.wav", "split": "train"}], "seconds": "thirty"}',
]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN, ids=range(len(FOREIGN)))
def test_a_manifest_of_someone_else_is_ignored_and_named(tmp_path, put, text, capsys):
    put("pop/a.wav", 300)
    (tmp_path / "manifest.json").write_text(text)
    corpus = corpora.read_folder(tmp_path, name="mine")
    assert corpus.split_source == "stratified"
    assert main(["data", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("manifest.json: ignored") == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'\xef\xbb\xbf{"clips": []}', None])
def test_a_manifest_that_is_no_text_is_ignored_too(tmp_path, put, content):
    put("pop/a.wav", 300)
    path = tmp_path / "manifest.json"
    path.mkdir() if content is None else path.write_bytes(content)
    assert only_fault(check(tmp_path)).kind == "manifest-ignored"


@pytest.mark.parametrize(
    "entry",
    [{}, {"pop/b.wav": "tset"}, {"pop/b.wav": 3}, {"pop/B.wav": "train"}, {"pop/b.wav": None}],
)
def test_a_manifest_with_gaps_is_refused_and_not_replaced(tmp_path, put, entry):
    put("pop/a.wav", 300)
    put("pop/b.wav", 400)
    manifest(tmp_path, {"pop/a.wav": "test", **entry})
    with pytest.raises(InputError, match=r"manifest\.json: has no split .* for pop/b\.wav"):
        corpora.read_folder(tmp_path, name="mine")
    corpus = check(tmp_path)
    assert corpus.split_source == "manifest"
    assert {t.name: t.split for t in corpus.tracks} == {"a": "test", "b": ""}
    assert any(f.kind == "manifest" and f.wrong for f in corpus.faults)


def test_a_file_listed_in_two_splits_has_none(tmp_path, put):
    put("pop/a.wav", 300)
    put("pop/b.wav", 400)
    clips = [("a", "train"), ("b", "train"), ("b", "train"), ("a", "test")]
    entries = [{"file": f"pop/{name}.wav", "split": split} for name, split in clips]
    (tmp_path / "manifest.json").write_text(json.dumps({"clips": entries}))
    assert only_fault(check(tmp_path)).what.startswith(
        "has no split (train, valid, test) for pop/a.wav"
    )


def test_a_listed_file_that_is_not_there_is_named(tmp_path, put, capsys):
    put("pop/a.wav", 300)
    touch(tmp_path / "pop" / "b.wav")
    manifest(tmp_path, {f"pop/{name}.wav": "train" for name in "abc"})
    assert [t.name for t in corpora.read_folder(tmp_path, name="mine").tracks] == ["a"]
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "manifest.json: lists what is not there: pop/c.wav\n" in capsys.readouterr().out


# The command ----------------------------------------------------------------------------------


def test_a_sound_corpus_has_no_fault(tmp_path, put, capsys):
    for k in range(4):
        put(f"pop/pop.{k:05d}.wav", 300 + k, seconds=30.0)
    assert main(["data", "check", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\nfaults: 0, of which left out: 0\n") and not err


@pytest.mark.parametrize("n", [5, 6])
def test_many_short_tracks_are_one_line(tmp_path, put, n):
    for k in range(n):
        put(f"pop/pop.{k:05d}.wav", 300 + k)
    text = corpora.describe(check(tmp_path))
    assert f"faults: {n}, of which left out: 0" in text
    assert text.count("padded") == (n if n == 5 else 1)
    assert ("short, padded to the clip length: 6 (pop.00000, " in text) == (n == 6)


def test_progress_counts_every_file(tmp_path, put):
    put("pop/a.wav", 300)
    put("pop/b.wav", 400)
    touch(tmp_path / "rock" / "c.wav", tmp_path / "rock" / "notes.txt")
    seen = []
    corpora.check(tmp_path, name="mine", progress=lambda *done: seen.append(done))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_with_one_of_each_fault_names_each_once(tmp_path, put, capsys):
    root = tmp_path / "genres"
    for k in range(4):
        put(f"genres/blues/blues.{k:05d}.wav", 300 + k, seconds=30.0)
    (root / "rock").mkdir()
    shutil.copy(root / "blues" / "blues.00000.wav", root / "blues" / "exact.wav")
    shutil.copy(root / "blues" / "blues.00001.wav", root / "rock" / "relabelled.wav")
    put("genres/blues/encoded.flac", 302, seconds=30.0)
    put("genres/blues/parted.wav", 303, seconds=30.0)
    put("genres/blues/twice.au", 500, seconds=30.0)
    put("genres/blues/twice.wav", 501, seconds=30.0)
    put("genres/rock/metal.00009.wav", 502, seconds=30.0)
    put("genres/rock/brief.wav", 503)
    (root / "rock" / "corrupt.wav").write_bytes(b"no audio" * 99)
    put("genres/rock/silent.wav", 0.0)
    (root / "rock" / "dead.wav").symlink_to("/nowhere")
    (root / "rock" / "folder.wav").mkdir()
    put("genres/rock/CD2/nested.wav", 504)
    put("genres/Metal/m.wav", 505)
    put("genres/techno/t.wav", 506)
    put("loose.wav", 507)
    shutil.copy(root / "blues" / "blues.00003.wav", root / "rock" / "no ending")
    touch(root / "rock" / "o.ogg", root / "rock" / "a.m4a", root / "rock" / "notes.txt")
    touch(*(root / "rock" / f"._{k}.wav" for k in range(1000)))
    (tmp_path / "rock").mkdir()
    files = [*root.glob("blues/*.*"), *root.glob("rock/*.wav")]
    listed = {f"{f.parent.name}/{f.name}": "train" for f in files}
    manifest(root, {**listed, "blues/parted.wav": "test", "rock/gone.wav": "test"})

    assert main(["data", "check", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    heads = Counter(line.split(":")[0].strip() for line in lines if line.startswith("  "))
    assert heads == dict.fromkeys(
        ["blues/exact.wav", "rock/relabelled.wav", "blues/encoded.flac", "blues/parted.wav",
         "blues/twice.wav", "rock/metal.00009.wav", "rock/brief", "rock/corrupt", "rock/silent",
         "rock/dead", "rock/folder", "rock/CD2", "Metal", "techno", "../loose.wav",
         "rock/o.ogg", "rock/no ending",
         "rock/a.m4a", "manifest.json"], 1,
    )  # fmt: skip
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    kinds = {f["kind"] for f in json.loads(capsys.readouterr().out)["faults"]}
    there_only_alone = {"manifest", "manifest-ignored", "no-tracks", "filtered", "copy-left-out"}
    assert kinds == corpus_files.KINDS.keys() - there_only_alone - {"no-access", "warned"}


def test_json_holds_every_track_and_fault(tmp_path, put, capsys):
    one = put("pop/a.wav", 300)
    shutil.copy(one, tmp_path / "pop" / "b.wav")
    touch(tmp_path / "pop" / "c.wav")
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["name"], read["root"], read["split_source"]) == (
        tmp_path.name, str(tmp_path), "stratified"
    )  # fmt: skip
    assert read["tracks"][1] == {
        "path": str(tmp_path / "pop" / "b.wav"), "genre": "pop", "name": "b", "seconds": 1.0,
        "sample_rate": RATE, "sha256": corpus_files.sha256_of(one), "split": "test", "copy_of": str(one),
    } | {"split": read["tracks"][0]["split"]}  # fmt: skip
    assert [f for f in read["faults"] if f["kind"] == "unreadable"] == [
        {"kind": "unreadable", "file": "pop/c.wav", "name": "pop/c", "what": "the file is empty",
         "left_out": True, "wrong": False}
    ]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [("check", ".", "--groups", "3"), ("check", ".", "--seed", "1"), ("check",), ("pairs",),
     ("bands", "--split", "test"), ("bands", "--json"), ("bands", "folder"),
     ("gtzan", "--shard", "1/2"), ("gtzan", "--soundfont", "x.sf2"),
     ("pairs", ".", "--profile", "quick")],
)  # fmt: skip
def test_what_an_option_has_no_meaning_for_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(["data", *arguments])
    err = capsys.readouterr().err
    assert error.value.code == 2 and (
        "unrecognized arguments: " in err or "required: folder" in err
    )
