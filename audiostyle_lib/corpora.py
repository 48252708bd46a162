"""Read a corpus folder in GTZAN's shape: its tracks, its faults, its splits, its waveforms.

A corpus is ``<root>/<genre>/<genre>.NNNNN.<wav|au|flac|mp3>``, whoever made it; the genre folders may
also lie in ``genres/``, ``genres_original/`` or ``Data/genres_original/`` below the root. Splits are by
track, never by segment. Shown in ``notebooks/01_data.ipynb``; every notebook reads its clips here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import bands, paths
from .bands.corpus import read_manifest
from .config import AudioConfig, Profile
from .signal import audio

if TYPE_CHECKING:
    import torch

GENRES = bands.GENRES
SUFFIXES = {".wav", ".au", ".flac", ".mp3"}
LAYOUTS = ("", "genres", "genres_original", "Data/genres_original")
SHORT_SECONDS = 30.0  # the nominal length of a GTZAN clip; a manifest states its own
FULL_SCALE = np.float32(2**15)  # of 16 bits
#: Copies of a clip may differ by this where one of them was rounded to 16 bits. Full scale is 1.
COPY_TOLERANCE = 2 / 2**15


@dataclass(frozen=True)
class Track:
    """One usable clip of a corpus.

    Parameters
    ----------
    path : Path
    genre : str
        One of `GENRES`, the name of the folder.
    name : str
        ``<genre>.NNNNN``, the file's name without its ending.
    n_samples, sample_rate : int
        As stored, before padding and resampling; the rate in Hz.
    sha256 : str
        Of the file.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``; empty as long as none was chosen.
    copy_of : Path, optional
        File of an earlier track that is the same sound.
    """

    path: Path
    genre: str
    name: str
    n_samples: int
    sample_rate: int
    sha256: str
    split: str = ""
    copy_of: Path | None = None

    @property
    def seconds(self) -> float:
        return self.n_samples / self.sample_rate


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file; `left_out` says whether the corpus goes on without it."""

    name: str
    what: str
    left_out: bool


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
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def manifest(self) -> dict | None:
        """What `bands` knows about its clips (score, chords, programs), None for other corpora."""
        return read_manifest(self.root)


def find_root(folder: str | Path) -> Path:
    """Return the folder that holds the genre folders.

    Raises
    ------
    FileNotFoundError
        If neither `folder` nor one of the known layouts below it holds a genre folder.
    """
    for layout in LAYOUTS:
        root = Path(folder) / layout
        if any((root / genre).is_dir() for genre in GENRES):
            return root
    raise FileNotFoundError(
        f"{folder}: no genre folder ({', '.join(GENRES[:3])}, ...) here or in "
        f"{', '.join(LAYOUTS[1:])}"
    )


def _inspect(path: Path) -> tuple[Track, np.ndarray]:
    """A file as a track without a split, and its waveform (n_samples,) as models will read it."""
    import soundfile as sf

    waveform = audio.read_audio(path)
    info, content = sf.info(str(path)), path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Track(path, path.parent.name, path.stem, info.frames, info.samplerate, sha256), waveform


@dataclass(frozen=True)
class _Sound:
    """What a file holds, to find other files that hold the same."""

    path: Path
    n_samples: int
    probe: list[float]  # a few samples: most other sounds differ in the first of them already

    @classmethod
    def of(cls, path: Path, waveform: np.ndarray) -> _Sound:
        return cls(path, len(waveform), waveform[:: max(1, len(waveform) // 64)].tolist())

    def is_that_of(self, other: _Sound, waveform: np.ndarray) -> bool:
        """Whether `other`, whose samples are `waveform`, is the same sound, maybe in another encoding."""
        if self.n_samples != other.n_samples:
            return False
        if any(abs(a - b) > COPY_TOLERANCE for a, b in zip(self.probe, other.probe, strict=True)):
            return False
        return float(np.abs(audio.read_audio(self.path) - waveform).max()) <= COPY_TOLERANCE


def _ignored(root: Path) -> list[Fault]:
    """Folders that are no genre's, and files in genre folders of a kind that is not read."""
    folders = [f for f in root.glob("[!.]*") if f.is_dir() and f.name not in GENRES]
    inside = [f for genre in GENRES for f in (root / genre).glob("[!.]*")]
    others = [f for f in inside if f.suffix.lower() not in SUFFIXES]
    read = ", ".join(sorted(SUFFIXES))
    return [
        *(Fault(f.name, "ignored: not the name of a genre", True) for f in sorted(folders)),
        *(Fault(f.name, f"ignored: not one of {read}", True) for f in sorted(others)),
    ]


def scan(
    folder: str | Path, *, clips_per_genre: int | None = None
) -> tuple[list[Track], list[Fault]]:
    """Read every file of a corpus; list the tracks that are usable and what is wrong with others.

    Left out are files that `audio.read_audio` refuses and, of several files with one name in a genre, all
    but the first. Short files are kept, and so are tracks that are copies of others, in whatever lossless
    encodings: `stratified` puts them into one split. All of them are named.

    Parameters
    ----------
    folder : str or Path
        The corpus, in any of the layouts of `LAYOUTS`.
    clips_per_genre : int, optional
        Take at most so many of each genre, in the order of their names.

    Returns
    -------
    tracks : list of Track
        In the order of genres and file names, without splits.
    faults : list of Fault
    """
    root = find_root(folder)
    faults = _ignored(root)
    tracks: list[Track] = []
    sounds: list[_Sound] = []
    for genre in GENRES:
        named: dict[str, Path] = {}
        for track, waveform in _readable(root / genre, faults):
            if track.name in named:
                first = f"{genre}/{named[track.name].name}"
                faults.append(Fault(track.path.name, f"has the name of {first}", True))
                continue
            named[track.name] = track.path
            new = _Sound.of(track.path, waveform)
            known = next((s.path for s in sounds if s.is_that_of(new, waveform)), None)
            if known is None:
                sounds.append(new)
            else:
                what = f"a copy of {known.parent.name}/{known.name}, kept in the same split"
                faults.append(Fault(track.path.name, what, False))
            tracks.append(replace(track, copy_of=known))
            if len(named) == clips_per_genre:
                break
    nominal_seconds = (read_manifest(root) or {}).get("seconds", SHORT_SECONDS)
    faults += [
        Fault(t.name, f"short: {t.seconds:.2f} s, padded to the clip length", False)
        for t in tracks
        if t.seconds < nominal_seconds
    ]
    return sorted(tracks, key=lambda t: t.path), sorted(faults, key=lambda f: f.name)


def _readable(folder: Path, faults: list[Fault]) -> Iterator[tuple[Track, np.ndarray]]:
    """`_inspect` of every file of a genre; what is wrong with a file is added to `faults`."""
    for path in sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() in SUFFIXES):
        if not path.is_file():
            faults.append(Fault(path.stem, "not a file but a folder or a broken link", True))
            continue
        try:
            found = _inspect(path)
        except (audio.AudioError, OSError) as error:
            faults.append(Fault(path.stem, str(error).removeprefix(f"{path}: "), True))
            continue
        yield found


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
    split_of = _filtered_splits()
    by_name = {track.name: track for track in tracks}
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


def read_folder(
    folder: str | Path, *, name: str, clips_per_genre: int | None = None, seed: int = 0
) -> Corpus:
    """Read the corpus in `folder` and split it by track.

    Splits come from the corpus's own manifest, else from the fault-filtered lists where GTZAN is
    whole, else they are stratified.

    Parameters
    ----------
    folder : str or Path
        The corpus, in any of the layouts of `LAYOUTS`.
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
    FileNotFoundError
        If there is no genre folder.
    ValueError
        If the manifest has no entry for a file.
    """
    root = find_root(folder)
    tracks, faults = scan(root, clips_per_genre=clips_per_genre)
    manifest = read_manifest(root)
    if manifest is not None:
        split = _split_as_in(manifest, tracks, root)
        return Corpus(name, root, tuple(split), tuple(faults), "manifest")
    filtered = fault_filtered(tracks)
    if filtered is not None:
        return Corpus(name, root, tuple(filtered), tuple(faults), "fault-filtered (Sturm 2013)")
    return Corpus(name, root, tuple(stratified(tracks, seed=seed)), tuple(faults), "stratified")


def _split_as_in(manifest: dict, tracks: list[Track], root: Path) -> list[Track]:
    split_of = {clip["file"]: clip["split"] for clip in manifest["clips"]}
    files = [f"{track.genre}/{track.path.name}" for track in tracks]
    unknown = [file for file in files if file not in split_of]
    if unknown:
        raise ValueError(f"{root / 'manifest.json'} has no entry for {unknown[0]}")
    return [replace(t, split=split_of[f]) for t, f in zip(tracks, files, strict=True)]


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
    return hashlib.sha256(lines.encode()).hexdigest()


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
        raise ValueError(f"unknown corpus {corpus!r}: choose bands, gtzan or auto")
    return corpus


def _folder(corpus: str, profile: Profile, seed: int) -> Path:
    if corpus == "bands":
        return bands_folder(profile, seed=seed)
    folder = paths.gtzan()
    if folder is None:
        raise FileNotFoundError(
            f"no GTZAN at {paths.data() / 'gtzan'}. It cannot be shipped (it has no licence): put the "
            "folder with the ten genre folders there, or set AUDIOSTYLE_GTZAN to it"
        )
    return folder


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
        return [corpus, bands.corpus.VERSION, profile.clips_per_genre, seed, files]

    try:
        known = json.loads(memory.read_text())
        if known["state"] == state():
            return _from_json(known["corpus"])
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):
        pass  # not there yet, or damaged: written below
    opened = open_corpus(corpus, profile=profile, seed=seed)
    with paths.written_beside(memory) as temporary:
        content = {"state": state(), "corpus": asdict(opened)}
        temporary.write_text(json.dumps(content, default=str))
    return opened


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
    ValueError
        If the corpus is another.
    FileNotFoundError
        If it is GTZAN and not there.
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
    try:
        kept = np.load(file)
        return kept if kept.dtype == np.float32 else kept.astype(np.float32) / FULL_SCALE
    except (FileNotFoundError, ValueError, EOFError):
        pass  # not there yet, or damaged: decoded below
    waveform = audio.read_audio(track.path, config=config)
    if hashlib.sha256(track.path.read_bytes()).hexdigest() != track.sha256:
        raise audio.AudioError(
            f"{track.path}: has changed since the corpus was read; read it again"
        )
    pcm = np.round(waveform * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    is_exact = np.array_equal(pcm.astype(np.float32) / FULL_SCALE, waveform)
    with paths.written_beside(file) as temporary:
        np.save(temporary, pcm if is_exact else waveform)
    return waveform


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
    left_out = [f for f in corpus.faults if f.left_out]
    lines.append(f"faults: {len(corpus.faults)}, of which left out: {len(left_out)}")
    lines += [f"  {f.name}: {f.what}{' (left out)' if f.left_out else ''}" for f in corpus.faults]
    return "\n".join(lines)
