"""Read a corpus folder in GTZAN's shape: its splits, its waveforms, what is wrong with it.

A corpus is ``<root>/<genre>/<genre>.NNNNN.<wav|au|flac|mp3>``, whoever made it; the genre folders may
also lie in ``genres/``, ``genres_original/`` or ``Data/genres_original/`` below the root. Splits are by
track, never by segment. Shown in ``notebooks/01_data.ipynb``; every notebook reads its clips here.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import bands, paths
from .bands.corpus import parsed_manifest, read_manifest
from .config import AudioConfig, Profile
from .corpus_files import (
    FEW,
    GENRES,
    SUFFIXES,
    Fault,
    Track,
    fault,
    find_root,
    scan,
    sha256_of,
    some,
)
from .errors import InputError
from .signal import audio

if TYPE_CHECKING:
    import torch

N_FILTERED = 930  # tracks in Sturm's lists
FULL_SCALE = np.float32(2**15)  # of 16 bits
#: Kinds of faults that say only what lies there too
NOTES = ("filtered", "hidden", "other")
#: Kinds of faults with which a corpus is checked but not read: any split would be a guess.
REFUSED = ("manifest", "no-tracks")


@dataclass(frozen=True)
class Corpus:
    """Tracks with their splits, and what is wrong with the folder they lie in.

    Parameters
    ----------
    name : str
        ``"bands"``, ``"gtzan"`` or whatever the folder is called.
    root : Path
        Holds the genre folders.
    tracks : tuple of Track
    faults : tuple of Fault
    split_source : str
        Where the splits come from: ``"manifest"``, ``"fault-filtered (Sturm 2013)"`` or
        ``"stratified"``.
    """

    name: str
    root: Path
    tracks: tuple[Track, ...]
    faults: tuple[Fault, ...]
    split_source: str

    def split(self, name: str) -> list[Track]:
        """Tracks of the split called `name`, in order of their names."""
        return [track for track in self.tracks if track.split == name]

    @property
    def sha256(self) -> str:
        """Hash over all tracks' names, splits and contents."""
        lines = "".join(f"{t.name} {t.split} {t.sha256}\n" for t in self.tracks)
        return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()

    @property
    def manifest(self) -> dict | None:
        """What `bands` knows about its clips (score, chords, programs), None for other corpora."""
        return read_manifest(self.root)


@cache
def _filtered_splits() -> dict[str, str]:
    """Split by track name, of the 930 tracks in Sturm's lists."""
    from torchaudio.datasets import gtzan

    lists = {"train": gtzan.filtered_train, "valid": gtzan.filtered_valid}
    lists["test"] = gtzan.filtered_test
    return {name: split for split, names in lists.items() for name in names}


def fault_filtered(tracks: list[Track]) -> list[Track] | None:
    """The fault-filtered split of GTZAN, or None if the corpus is not the whole of it.

    443 training, 197 validation and 290 test tracks, free of the repetitions and wrong labels found in
    GTZAN, from the lists that torchaudio carries. One file may be missing: the common Kaggle copy has a
    corrupt one.

    References
    ----------
    B. L. Sturm, "The GTZAN dataset: its contents, its faults, their effects on evaluation, and its
    future use", arXiv:1306.1461, 2013.
    """
    if len(tracks) < N_FILTERED - 1:  # do not import torchaudio, which takes seconds
        return None
    split_of = _filtered_splits()
    by_name = {t.name: t for t in tracks if t.name.startswith(f"{t.genre}.")}
    if len(split_of.keys() - by_name.keys()) > 1:
        return None
    return [
        replace(by_name[n], split=split_of[n]) for n in sorted(split_of.keys() & by_name.keys())
    ]


def stratified(tracks: list[Track], *, seed: int = 0) -> list[Track]:
    """About 70 / 10 / 20 % of each genre for training, validation and test, by track.

    A genre with one track trains, with two also tests, with three or more also validates. Copies of a
    track go where it goes.
    """
    result = []
    for index, genre in enumerate(GENRES):
        own = (t for t in tracks if t.genre == genre and t.copy_of is None)
        members = sorted(own, key=lambda t: t.name)
        order = np.random.default_rng([seed, index]).permutation(len(members))
        n_test = max(round(0.2 * len(members)), int(len(members) > 1))
        n_valid = max(round(0.1 * len(members)), int(len(members) > 2))
        for position, member in enumerate(order):
            split = (
                "test" if position < n_test else "valid" if position < n_test + n_valid else "train"
            )
            result.append(replace(members[member], split=split))
    split_of = {track.path: track.split for track in result}
    result += [replace(t, split=split_of[t.copy_of]) for t in tracks if t.copy_of is not None]
    return sorted(result, key=lambda t: t.name)


def _together(tracks: list[Track]) -> list[Track]:
    """Tracks with each copy in the split of the first track that is the same sound."""
    split_of: dict[Path, str] = {}
    for track in tracks:
        if track.split:
            split_of.setdefault(track.copy_of or track.path, track.split)
    return [replace(t, split=split_of.get(t.copy_of or t.path, "")) for t in tracks]


def _manifest_splits(root: Path) -> dict[str, str]:
    """Split by file, of what ``manifest.json`` lists with one split; empty where it is someone else's."""
    manifest = parsed_manifest(root)
    clips = manifest.get("clips") if isinstance(manifest, dict) else None
    if not isinstance(clips, list):
        return {}  # `_split` names it
    pairs = {(clip["file"], clip["split"]) for clip in clips if _is_entry(clip)}
    n_of = Counter(file for file, _ in pairs)
    return {file: split for file, split in pairs if n_of[file] == 1}


def _is_entry(clip: object) -> bool:
    return (
        isinstance(clip, dict)
        and isinstance(clip.get("file"), str)
        and clip.get("split") in list(bands.SPLITS)
    )


def _manifest_faults(splits: dict[str, str], tracks: list[Track], root: Path) -> list[Fault]:
    """What is wrong with the manifest's `splits`, which name some of the tracks."""
    path = root / "manifest.json"
    files = [_file(track) for track in tracks]
    unlisted = [file for file in files if file not in splits]
    faults = []
    if unlisted:
        what = (
            f"has no split ({', '.join(bands.SPLITS)}) for {some(unlisted)}: complete or remove it"
        )
        faults.append(fault("manifest", path, root, what, left_out=False))
    missing = [file for file in splits.keys() - set(files) if not os.path.lexists(root / file)]
    if missing:
        what = f"lists what is not there: {some(sorted(missing))}"
        faults.append(fault("manifest-missing-file", path, root, what, left_out=False))
    return faults


def _file(track: Track) -> str:
    return f"{track.genre}/{track.path.name}"


def _split(tracks: list[Track], root: Path, seed: int) -> tuple[list[Track], str, list[Fault]]:
    """Tracks with splits, where these come from, and what is wrong with that source."""
    faults = []
    splits = _manifest_splits(root)
    if any(_file(track) in splits for track in tracks):
        listed = [replace(t, split=splits.get(_file(t), "")) for t in tracks]
        return listed, "manifest", _manifest_faults(splits, tracks, root)
    if os.path.lexists(root / "manifest.json"):
        what = "ignored: lists none of the tracks with a split"
        path = root / "manifest.json"
        faults.append(fault("manifest-ignored", path, root, what, left_out=False))
    filtered = fault_filtered(tracks)
    if filtered is not None:
        what = f"tracks in none of the fault-filtered lists: {len(tracks) - len(filtered)} left out"
        faults.append(fault("filtered", root, root, what))
        return filtered, "fault-filtered (Sturm 2013)", faults
    return stratified(tracks, seed=seed), "stratified", faults


def _copies(tracks: list[Track], source: list[Track], kept: list[Track]) -> list[Fault]:
    """Name what is the same sound as another of `tracks`.

    `source` has the splits as they were chosen, `kept` those that keep copies together.
    """
    groups: dict[Path, list[Track]] = {}
    for track in tracks:
        groups.setdefault(track.copy_of or track.path, []).append(track)
    chosen, final = {t.path: t.split for t in source}, {t.path: t.split for t in kept}
    faults = []
    for group in groups.values():
        first, *copies = sorted(
            group, key=lambda t: (t.path not in final, chosen.get(t.path) != final.get(t.path))
        )
        faults += [_copy(track, first, chosen, final) for track in copies]
    return faults


def _copy(track: Track, first: Track, chosen: dict[Path, str], final: dict[Path, str]) -> Fault:
    root = track.path.parents[1]
    what = f"a copy of {_file(first)}"
    if track.path not in final:
        what += ", in none of the fault-filtered lists"
        return fault("copy-left-out", track.path, root, what)
    kind = "copy"
    if track.genre != first.genre:
        kind = "copy-across-genres"
        what += " under another genre"
    what += f", both kept in {final[track.path] or 'no split'}"
    if chosen[track.path] not in ("", final[track.path]):
        kind = "copy-across-splits"
        what += f" although it is listed in {chosen[track.path]}"
    what += ": remove the one that is wrong" if track.genre != first.genre else ": remove one"
    return fault(kind, track.path, root, what, left_out=False)


def check(
    folder: str | Path,
    *,
    name: str,
    clips_per_genre: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """`read_folder` that names as a fault what `read_folder` refuses.

    Parameters
    ----------
    folder, name, clips_per_genre, seed
        As of `read_folder`.
    progress : callable, optional
        Called as ``progress(done, total)`` in files.

    Returns
    -------
    Corpus
        Tracks that an incomplete manifest does not list have no split.

    Raises
    ------
    InputError
        If there is no genre folder.
    """
    root = find_root(folder)
    tracks, faults = scan(folder, clips_per_genre=clips_per_genre, progress=progress)
    if not tracks:
        faults.append(fault("no-tracks", root, root, "no usable track in any genre folder"))
    chosen, source, of_source = _split(tracks, root, seed)
    kept = _together(chosen)
    faults += [*of_source, *_copies(tracks, chosen, kept)]
    faults.sort(key=lambda f: (f.file, f.kind))
    return Corpus(name, root, tuple(kept), tuple(faults), source)


def read_folder(
    folder: str | Path, *, name: str, clips_per_genre: int | None = None, seed: int = 0
) -> Corpus:
    """Read the corpus in `folder` and split it by track.

    Splits come from the corpus's own manifest, else from the fault-filtered lists where GTZAN is
    whole, else they are stratified. Whatever they say, a copy goes where the first track with its sound
    goes, and is named.

    Parameters
    ----------
    folder : str or Path
        The corpus, in any of the layouts of `find_root`.
    name : str
        What to call it.
    clips_per_genre : int, optional
        Take at most so many of each genre, in the order of their names.
    seed : int
        Of stratified splits.

    Returns
    -------
    Corpus

    Raises
    ------
    InputError
        If there is no genre folder or no usable track, or a manifest lists some tracks without others.
    """
    corpus = check(folder, name=name, clips_per_genre=clips_per_genre, seed=seed)
    for found in corpus.faults:
        if found.kind in REFUSED:
            raise InputError(f"{corpus.root / found.file}: {found.what}")
    return corpus


def listing(folder: Path) -> str:
    """Hash over the paths, sizes and times of change of a corpus's files, none of which is read.

    Parameters
    ----------
    folder : Path
        The corpus, in any of the layouts of `find_root`.
    """
    root = find_root(folder)
    files = [f for f in root.glob("*/*") if f.suffix.lower() in SUFFIXES and f.is_file()]
    files += root.glob("manifest.json")
    stats = [(f.relative_to(root).as_posix(), f.stat()) for f in sorted(files)]
    lines = "".join(f"{name} {stat.st_size} {stat.st_mtime_ns}\n" for name, stat in stats)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def bands_folder(profile: Profile, *, seed: int = 0) -> Path:
    """Where the embedded corpus of this profile and seed is rendered."""
    return (
        paths.data() / "bands" / f"{profile.clips_per_genre}x{profile.clip_seconds:g}s-seed{seed}"
    )


def resolve(corpus: str) -> str:
    """Name of the corpus meant: ``"auto"`` is GTZAN where it is there, else bands."""
    if corpus == "auto":
        return "gtzan" if paths.gtzan() else "bands"
    if corpus not in ("bands", "gtzan"):
        raise InputError(f"unknown corpus {corpus!r}: choose bands, gtzan or auto")
    return corpus


def gtzan_folder() -> Path:
    """Where GTZAN is; `InputError` if it is not there."""
    folder = paths.gtzan()
    if folder is None:
        raise InputError(
            f"no GTZAN at {paths.data() / 'gtzan'}. It cannot be shipped (it has no licence): put the "
            "folder with the ten genre folders there, or set AUDIOSTYLE_GTZAN to it"
        )
    return folder


def _folder(corpus: str, profile: Profile, seed: int) -> Path:
    return bands_folder(profile, seed=seed) if corpus == "bands" else gtzan_folder()


def open_again(corpus: str, *, profile: Profile, seed: int, memory: Path) -> Corpus:
    """`open_corpus`, which reads every file, only if one has changed since `memory` was written.

    Parameters
    ----------
    corpus, profile, seed
        As of `open_corpus`.
    memory : Path
        A JSON file, written where it is missing or outdated.

    Returns
    -------
    Corpus
    """
    corpus = resolve(corpus)
    folder = _folder(corpus, profile, seed)

    def state() -> list:
        files = listing(folder) if folder.is_dir() else None
        form = [f.name for kind in (Corpus, Track, Fault) for f in fields(kind)]
        return [corpus, bands.corpus.VERSION, profile.clips_per_genre, seed, files, form]

    known = _remembered(memory, state()) if memory.is_file() else None
    if known is not None:
        return known
    opened = open_corpus(corpus, profile=profile, seed=seed)
    with paths.written_beside(memory) as temporary:
        content = {"state": state(), "corpus": asdict(opened)}
        temporary.write_text(json.dumps(content, default=str))
    return opened


def _remembered(memory: Path, state: list) -> Corpus | None:
    """The corpus that was kept of this state; None of another, or where the file is damaged."""
    try:
        known = json.loads(memory.read_text())
        return _from_json(known["corpus"]) if known["state"] == state else None
    except (ValueError, LookupError, TypeError, RecursionError):
        print(f"{memory}: damaged, the corpus is read again", flush=True)
        return None


def _from_json(content: dict) -> Corpus:
    def track(t: dict) -> Track:
        copy_of = t["copy_of"] and Path(t["copy_of"])
        return Track(**{**t, "path": Path(t["path"]), "copy_of": copy_of})

    tracks = tuple(track(t) for t in content["tracks"])
    faults = tuple(Fault(**f) for f in content["faults"])
    return Corpus(**{**content, "root": Path(content["root"]), "tracks": tracks, "faults": faults})


def open_corpus(
    corpus: str,
    *,
    profile: Profile,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Corpus:
    """Open a corpus at a profile's size; `bands` is rendered first if it is not there yet.

    Parameters
    ----------
    corpus : str
        ``"bands"``, ``"gtzan"`` or ``"auto"``.
    profile : Profile
        Says how many clips of each genre, and for `bands` how long they are.
    seed : int
        Of what `bands` composes, or of stratified splits.
    progress : callable, optional
        Called as ``progress(done, total)`` in clips while `bands` is rendered.

    Returns
    -------
    Corpus

    Raises
    ------
    InputError
        If the corpus is another, or is GTZAN and not there.
    """
    corpus = resolve(corpus)
    folder = _folder(corpus, profile, seed)
    if corpus == "bands":
        bands.write_corpus(
            folder,
            clips_per_genre=profile.clips_per_genre,
            seconds=profile.clip_seconds,
            seed=seed,
            progress=progress,
        )
        return read_folder(folder, name="bands")
    return read_folder(folder, name="gtzan", clips_per_genre=profile.clips_per_genre, seed=seed)


def read_clip(track: Track, *, config: AudioConfig, seconds: float) -> np.ndarray:
    """Waveform of exactly `seconds`: cut at the end, or padded with zeros as in the report.

    Parameters
    ----------
    track : Track
    config : AudioConfig
        Its sample rate is the result's.
    seconds : float

    Returns
    -------
    np.ndarray [shape=(round(seconds * config.sample_rate),)]
        float32, mono.
    """
    waveform = _decoded(track, config)
    n_samples = round(seconds * config.sample_rate)
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


def _decoded(track: Track, config: AudioConfig) -> np.ndarray:
    """A track's waveform as float32, decoded and resampled once and then kept beside the corpora."""
    file = paths.data() / "decoded" / f"{track.sha256[:32]}-{config.sample_rate}.npy"
    kept = _kept(file) if file.is_file() else None
    if kept is not None:
        return kept if kept.dtype == np.float32 else kept.astype(np.float32) / FULL_SCALE
    waveform = audio.read_audio(track.path, config=config)
    if sha256_of(track.path) != track.sha256:
        raise audio.AudioError(f"{track.path}: has changed since the corpus was read: run again")
    pcm = np.round(waveform * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    is_exact = np.array_equal(pcm.astype(np.float32) / FULL_SCALE, waveform)
    with paths.written_beside(file) as temporary:
        np.save(temporary, pcm if is_exact else waveform)
    return waveform


def _kept(file: Path) -> np.ndarray | None:
    try:
        return np.load(file)
    except (ValueError, EOFError):
        print(f"{file}: damaged, its clip is decoded again", flush=True)
        return None


def load_waveforms(
    tracks: list[Track], *, config: AudioConfig, seconds: float
) -> tuple[torch.Tensor, list[int]]:
    """`read_clip` of all tracks as one tensor.

    Returns
    -------
    waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
        float32.
    valid : list of int
        Samples of each clip before the padding begins.
    """
    import torch

    clips = [read_clip(track, config=config, seconds=seconds) for track in tracks]
    n_samples = round(seconds * config.sample_rate)
    valid = [min(n_samples, round(t.seconds * config.sample_rate)) for t in tracks]
    return torch.from_numpy(np.stack(clips)), valid


def describe(corpus: Corpus) -> str:
    """Tracks, splits and lengths by genre, and every fault; ``audiostyle data check`` prints this."""
    lines = [f"{corpus.name}: {len(corpus.tracks)} usable tracks in {corpus.root}"]
    lines.append(f"split: {corpus.split_source}")
    lines.append(f"{'genre':<10} {'train':>5} {'valid':>5} {'test':>5}   seconds")
    for genre in GENRES:
        tracks = [t for t in corpus.tracks if t.genre == genre]
        count = Counter(t.split for t in tracks)
        seconds = [t.seconds for t in tracks] or [0.0]
        lines.append(
            f"{genre:<10} {count['train']:>5} {count['valid']:>5} {count['test']:>5}   "
            f"{min(seconds):.2f} to {max(seconds):.2f}"
        )
    faults = [f for f in corpus.faults if f.kind not in NOTES]
    lines.append(f"faults: {len(faults)}, of which left out: {sum(f.left_out for f in faults)}")
    short = [f for f in faults if f.kind == "short"]
    if len(short) > FEW:
        faults = [f for f in faults if f.kind != "short"]
        lines.append(
            f"  short, padded to the clip length: {len(short)} ({some([f.name for f in short])})"
        )
    lines += [f"  {f.name}: {f.what}{' (left out)' if f.left_out else ''}" for f in faults]
    lines += [f.what for f in corpus.faults if f.kind in NOTES]
    return "\n".join(map(_in_one_line, lines))


def _in_one_line(text: str) -> str:
    """A name may hold line breaks, or bytes that no terminal prints."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def to_json(corpus: Corpus) -> str:
    """What `describe` says and every track, for programs: ``audiostyle data check --json``."""
    tracks = [
        {
            "path": str(t.path), "genre": t.genre, "name": t.name, "seconds": t.seconds,
            "sample_rate": t.sample_rate, "sha256": t.sha256, "split": t.split,
            "copy_of": t.copy_of and str(t.copy_of),
        }
        for t in corpus.tracks
    ]  # fmt: skip
    faults = [{**asdict(f), "wrong": f.wrong} for f in corpus.faults]
    content = {"name": corpus.name, "root": str(corpus.root), "split_source": corpus.split_source}
    return json.dumps({**content, "tracks": tracks, "faults": faults}, indent=1)
