"""What lies in a corpus folder: its usable tracks, which of them are copies, and what is wrong.

`scan` reads every file. `audiostyle_lib.corpora` makes splits and waveforms of what it finds.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import bands
from .bands.corpus import read_manifest
from .errors import InputError
from .signal import audio

GENRES = bands.GENRES
SUFFIXES = (".au", ".flac", ".mp3", ".wav")
OTHER_AUDIO = (
    ".aac", ".aif", ".aifc", ".aiff", ".ape", ".caf", ".dsf", ".m4a", ".m4b", ".mka", ".mp2", ".mp4",
    ".mpc", ".oga", ".ogg", ".opus", ".ra", ".snd", ".tta", ".w64", ".wave", ".webm", ".wma", ".wv",
)  # fmt: skip
LAYOUTS = ("", "genres", "genres_original", "Data/genres_original")
SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
FEW = 5  # names are listed, more are counted
SHORT_SECONDS = 30.0  # the nominal length of a GTZAN clip; a manifest states its own
#: Copies of a clip may differ by this where one of them was rounded to 16 bits. Full scale is 1.
COPY_TOLERANCE = 2 / 2**15

#: Kinds of faults, and whether the corpus needs its owner: True where what is read would mislead, or
#: music is not read although it could be; False where the fault is dealt with, or harmless.
KINDS = {
    "unreadable": False,  # left out: nobody can use the file
    "short": False,  # padded
    "warned": False,  # used, but the reader has something to say of it
    "copy": False,  # kept in one split
    "copy-left-out": False,
    "filtered": False,
    "manifest-ignored": False,
    "hidden": False,
    "other": False,
    "copy-across-genres": True,
    "copy-across-splits": True,
    "same-name": True,
    "named-after-another-genre": True,
    "not-a-genre": True,
    "nested": True,
    "loose": True,
    "format": True,
    "no-ending": True,
    "no-access": True,
    "manifest": True,
    "manifest-missing-file": True,
    "no-tracks": True,
}


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
        Before padding, at the rate in Hz at which the file is stored.
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
    """Something wrong with a file or folder.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    file : str
        Path below the folder that holds the genre folders (or beside it: ``../x.wav``).
    name : str
        What a line calls it: `file`, or the track's name where it is a track's only file.
    what : str
        What is wrong, what becomes of it, what to do.
    left_out : bool
        Whether the corpus goes on without it.
    """

    kind: str
    file: str
    name: str
    what: str
    left_out: bool

    @property
    def wrong(self) -> bool:
        """Whether the corpus needs its owner, who alone can decide what is meant."""
        return KINDS[self.kind]


def fault(kind: str, path: Path, root: Path, what: str, *, left_out: bool = True) -> Fault:
    """A `Fault` of the file at `path`, called by its path below `root`."""
    file = Path(os.path.relpath(path, root)).as_posix()
    return Fault(kind, file, file, what, left_out)


def some(names: list[str]) -> str:
    """The first names of a list that may be long: "a, b, c and 12 more"."""
    few = names if len(names) <= FEW else names[:3]
    more = f" and {len(names) - len(few)} more" if len(few) < len(names) else ""
    return ", ".join(few) + more


def counted(n: int, what: str) -> str:
    """ "1 audio file" or "2 audio files"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


# Where the genres are -------------------------------------------------------------------------


def find_root(folder: str | Path) -> Path:
    """Return the folder that holds the genre folders: the first of `LAYOUTS` with audio in one.

    Raises
    ------
    InputError
        If `folder` cannot be listed, or neither it nor one of the known layouts below it holds a genre
        folder; says what is there instead.
    """
    folder = Path(folder)
    try:
        there = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    roots = [folder / layout for layout in LAYOUTS if _genre_folders(folder / layout)]
    with_audio = (r for r in roots if any(map(_is_read, _in_genres(r))))
    root = next(with_audio, None) or next(iter(roots), None)
    if root is None:
        raise InputError(_no_genres(folder, there))
    return root


def _genre_folders(root: Path) -> list[Path]:
    # by the names that are listed: where case does not count, root/"jazz" also finds Jazz
    names = {f.name for f in _entries(root)} if root.is_dir() else ()
    return [root / genre for genre in GENRES if genre in names and (root / genre).is_dir()]


def _in_genres(root: Path) -> Iterator[Path]:
    return (file for genre in _genre_folders(root) for file in _entries(genre))


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in order; nothing where it cannot be listed, which `_survey` names."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _no_genres(folder: Path, there: list[Path]) -> str:
    problem = f"{folder}: no genre folder ({', '.join(GENRES)}) here or in {', '.join(LAYOUTS[1:])}"
    for depth in (2, 3, 4):  # of the genre folders
        for found in sorted(folder.glob("/".join("*" * depth))):
            if found.name in GENRES and found.is_dir():
                return f"{problem}; there are some in {found.parent}: name that folder"
    names = [f.name for f in there if not _is_hidden(f)]
    alike = {name: f"{name} (rename to {g}?)" for name in names if (g := _genre_like(name))}
    found = [*alike.values(), *(name for name in names if name not in alike)]
    return f"{problem}; found {some(found) if found else 'nothing'}"


def _genre_like(name: str) -> str | None:
    """The genre that a folder's name is probably meant to be, "hiphop" for "Hip-Hop"."""
    letters = "".join(c for c in name.casefold() if c.isalpha())
    return next(iter(difflib.get_close_matches(letters, GENRES, n=1, cutoff=0.75)), None)


def _seems_meant(path: Path) -> bool:
    """Whether what lies further out than the genre folders looks like a part of the corpus."""
    return bool(_genre_like(path.name)) if path.is_dir() else _is_read(path)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name.casefold() in SYSTEM_NAMES


def _is_read(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not _is_hidden(path)


def _is_audio(path: Path) -> bool:
    """Whether a file is audio of any kind, by its ending or, without a known one, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in OTHER_AUDIO:
        return True
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    with path.open("rb") as file:
        head = file.read(12)
    is_chunked = head[8:] in (b"WAVE", b"AIFF", b"AIFC")
    return is_chunked or head.startswith((b"fLaC", b".snd", b"OggS", b"ID3"))


# What is not read -----------------------------------------------------------------------------


class _Survey:
    """Everything in a corpus folder, sorted into files to read and faults."""

    def __init__(self, folder: Path, root: Path):
        self.root = root
        self.to_read: dict[str, list[Path]] = {}
        self.faults: list[Fault] = []
        self.unread: dict[tuple[str, Path, str], list[str]] = defaultdict(list)
        self.harmless: dict[str, list[str]] = {"hidden": [], "other": []}
        genres = _genre_folders(root)
        places = [root, *(p for p in root.parents if folder in (p, *p.parents))]
        on_the_way = {*genres, *places, root / "manifest.json"}
        for place in places:
            for path in self.entries(place):
                if path not in on_the_way and (place == root or _seems_meant(path)):
                    self.try_to(self.sort_outside, path)
        for genre in genres:
            self.to_read[genre.name] = []
            for path in self.entries(genre):
                self.try_to(self.sort_inside, path)
        self.summarise()

    def add(self, kind: str, path: Path, what: str) -> None:
        self.faults.append(fault(kind, path, self.root, what))

    def entries(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            self.no_access(error)
            return []

    def try_to(self, look_at: Callable[[Path], object], path: Path) -> None:
        try:
            look_at(path)
        except OSError as error:
            self.add("no-access", path, f"cannot be read ({error.strerror or error})")

    def sort_inside(self, path: Path) -> None:
        """Sort what lies in a genre folder."""
        if _is_hidden(path):
            self.harmless["hidden"].append(path.name)
        elif path.is_dir():
            n = self.audio_files_below(path)
            if n:
                what = f"not read, {counted(n, 'audio file')} inside: move into the genre folder itself"
                self.add("nested", path, what)
            elif not _is_read(path):
                self.harmless["other"].append(path.name)
            else:
                self.to_read[path.parent.name].append(path)
        elif _is_read(path):
            self.to_read[path.parent.name].append(path)
        else:
            self.sort_unread(path)

    def sort_outside(self, path: Path) -> None:
        """Sort what lies beside the genre folders."""
        if _is_hidden(path):
            self.harmless["hidden"].append(path.name)
        elif path.is_dir():
            n = self.audio_files_below(path)
            if not n:
                self.harmless["other"].append(path.name)
                return
            self.add("not-a-genre", path, f"{self.not_read(path)} ({counted(n, 'audio file')})")
        elif _is_read(path):
            self.unread["loose", path.parent, path.suffix].append(path.name)
        else:
            self.sort_unread(path)

    def not_read(self, folder: Path) -> str:
        genre = _genre_like(folder.name)
        if genre == folder.name:
            return f"not read, the genres are in {self.root.name}: move it there"
        if _genre_folders(folder):
            return "not read, holds genre folders of its own: check it by itself"
        if genre:
            return f"not read, not the name of a genre: rename it if {genre} is meant"
        return "not read, not the name of a genre: there are " + ", ".join(GENRES)

    def sort_unread(self, path: Path) -> None:
        if _is_audio(path):
            if path.suffix.lower() in OTHER_AUDIO:
                self.unread["format", path.parent, path.suffix].append(path.name)
            else:
                self.unread["no-ending", path.parent, ""].append(path.name)
        else:
            self.harmless["other"].append(path.name)

    def audio_files_below(self, folder: Path) -> int:
        inside = folder.resolve()
        if folder.is_symlink() and (self.root.resolve() in (inside, *inside.parents)
                                    or inside in self.root.resolve().parents):  # fmt: skip
            return 0  # a link back into the corpus, whose files are sorted where they lie
        found = 0
        for place, folders, names in os.walk(folder, onerror=self.no_access):
            folders[:] = [name for name in folders if not _is_hidden(Path(name))]
            files = (Path(place, name) for name in names)
            found += sum(_is_audio(file) for file in files if not _is_hidden(file))
        return found

    def no_access(self, error: OSError) -> None:
        self.add("no-access", Path(error.filename), f"cannot be read ({error.strerror})")

    def summarise(self) -> None:
        """One fault for all files of which the same is to be said."""
        why = {
            "format": f"not read, not one of {', '.join(SUFFIXES)}: convert",
            "no-ending": "not read, audio without a known ending: name by the format",
            "loose": "not read, in no genre folder: move into one",
        }
        for (kind, folder, suffix), names in self.unread.items():
            if len(names) == 1:
                self.add(kind, folder / names[0], why[kind])
            else:
                what = f"{len(names)} files ({some(names)}) {why[kind]}"
                self.add(kind, folder / f"*{suffix}", what)
        called = {"hidden": "hidden files and folders", "other": "files and folders without audio"}
        for kind, names in self.harmless.items():
            if names:
                what = f"{called[kind]}: {len(names)} ignored ({some(names)})"
                self.add(kind, self.root, what)


# Tracks and copies ----------------------------------------------------------------------------


class _Sounds:
    """The sounds of the tracks so far, to find a later one that is the same."""

    def __init__(self):
        self.by_sha256: dict[str, Track] = {}
        self.by_length: dict[int, list[tuple[Track, list[float]]]] = defaultdict(list)

    def add(self, track: Track, waveform: np.ndarray) -> Track | None:
        """Remember a track; return an earlier one that is the same sound, maybe in another encoding."""
        # most other sounds differ in the first of these samples already
        probe = waveform[:: max(1, len(waveform) // 64)].tolist()
        for other, others in self.by_length[len(waveform)]:
            if all(abs(a - b) <= COPY_TOLERANCE for a, b in zip(probe, others, strict=True)) and (
                _is_near(other.path, waveform)
            ):
                self.by_sha256[track.sha256] = other
                return other
        self.by_sha256[track.sha256] = track
        self.by_length[len(waveform)].append((track, probe))
        return None


def _is_near(path: Path, waveform: np.ndarray) -> bool:
    try:
        difference = np.abs(audio.read_audio(path) - waveform).max()
    except (ValueError, OSError):  # gone or changed since it was read: no longer the same
        return False
    return float(difference) <= COPY_TOLERANCE


def sha256_of(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inspect(path: Path, sounds: _Sounds) -> Track:
    """A file as a track without a split; it is added to `sounds`.

    Raises
    ------
    ValueError, OSError, MemoryError
        If the reader of all models refuses it.
    """
    if not path.is_file():
        kind = (
            "folder" if path.is_dir() else "broken link" if path.is_symlink() else "pipe or device"
        )
        raise InputError(f"not a file but a {kind}")
    sha256 = sha256_of(path)
    known = sounds.by_sha256.get(sha256)
    if known is not None:
        return replace(known, path=path, genre=path.parent.name, name=path.stem, copy_of=known.path)
    with audio.open_recording(path) as recording:
        waveform = audio.require_sound(recording)
    size = recording.n_samples, recording.sample_rate
    track = Track(path, path.parent.name, path.stem, *size, sha256)
    original = sounds.add(track, waveform)
    return track if original is None else replace(track, copy_of=original.path)


def _short_name(path: Path, alone: bool) -> str:
    """A track's name that finds its file; `alone` says that no other file shares it."""
    genre = path.parent.name
    if not alone:
        return f"{genre}/{path.name}"
    return path.stem if path.stem.startswith(f"{genre}.") else f"{genre}/{path.stem}"


def scan(
    folder: str | Path,
    *,
    clips_per_genre: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Track], list[Fault]]:
    """Read every file of a corpus; list the tracks that are usable and what is wrong with the folder.

    Left out are files that `audio.read_audio` refuses and, of several files with one name in a genre, all
    but the first. Short files are kept, and so are tracks that are copies of others, in whatever lossless
    encodings: what splits the corpus keeps them together and names them.

    Parameters
    ----------
    folder : str or Path
        The corpus, in any of the layouts of `LAYOUTS`.
    clips_per_genre : int, optional
        Take at most so many of each genre, in the order of their names.
    progress : callable, optional
        Called as ``progress(done, total)`` in files.

    Returns
    -------
    tracks : list of Track
        In the order of genres and file names, without splits.
    faults : list of Fault

    Raises
    ------
    InputError
        If there is no genre folder.
    """
    root = find_root(folder)
    survey = _Survey(Path(folder), root)
    faults, sounds, tracks = survey.faults, _Sounds(), []
    nominal_seconds = _nominal_seconds(root)
    total, done = sum(map(len, survey.to_read.values())), 0
    for files in survey.to_read.values():
        kept: dict[str, Path] = {}
        n_of = Counter(path.stem for path in files)
        for path in files:
            done += 1
            if progress:
                progress(done, total)
            if path.stem in kept:
                first = f"{path.parent.name}/{kept[path.stem].name}"
                what = f"has the name of {first}, which is kept"
                faults.append(fault("same-name", path, root, what))
                continue
            try:
                with warnings.catch_warnings(record=True) as heard:
                    warnings.simplefilter("always")
                    track = _inspect(path, sounds)
            except (ValueError, OSError, MemoryError) as error:
                found = _unreadable(path, root, error)
                faults.append(replace(found, name=_short_name(path, n_of[path.stem] == 1)))
                continue
            kept[path.stem] = path
            tracks.append(track)
            faults += _warnings(path, root, heard)
            faults += _oddities(track, root, nominal_seconds, alone=n_of[path.stem] == 1)
            if len(kept) == clips_per_genre:
                break
    return sorted(tracks, key=lambda t: t.path), faults


def _unreadable(path: Path, root: Path, error: Exception) -> Fault:
    if isinstance(error, PermissionError):
        return fault("no-access", path, root, f"cannot be read ({error.strerror})")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return fault("unreadable", path, root, reason.removeprefix(f"{path}: "))


def _warnings(path: Path, root: Path, heard: list[warnings.WarningMessage]) -> list[Fault]:
    texts = [str(w.message) for w in heard]
    of_this = [text.removeprefix(f"{path}: ") for text in texts if text.startswith(f"{path}: ")]
    return [fault("warned", path, root, what, left_out=False) for what in of_this]


def _nominal_seconds(root: Path) -> float:
    """Length of the clips as the manifest states it, else GTZAN's."""
    stated = (read_manifest(root) or {}).get("seconds")
    return stated if isinstance(stated, int | float) else SHORT_SECONDS


def _oddities(track: Track, root: Path, nominal_seconds: float, *, alone: bool) -> Iterator[Fault]:
    """What is odd about a track that is kept, whatever the others are."""
    prefix = track.name.partition(".")[0]
    if prefix in GENRES and prefix != track.genre:
        what = f"is named after {prefix}, kept as {track.genre}: move or rename it"
        yield fault("named-after-another-genre", track.path, root, what, left_out=False)
    if track.seconds < nominal_seconds:
        what = f"short: {track.seconds:.2f} s, padded to the clip length"
        short = fault("short", track.path, root, what, left_out=False)
        yield replace(short, name=_short_name(track.path, alone))
