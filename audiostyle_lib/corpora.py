"""Read a GTZAN-shaped folder, whoever made it: tracks, faults, splits, waveforms, segments.

``<root>/<genre>/<genre>.NNNNN.<wav|au|flac|mp3>``; the root may also hold ``genres/``,
``genres_original/`` or ``Data/genres_original/``. The notebook is ``01_data``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import bands, paths
from .config import AudioConfig, Profile
from .signal import audio

GENRES = bands.GENRES
SUFFIXES = {".wav", ".au", ".flac", ".mp3"}
LAYOUTS = ("", "genres", "genres_original", "Data/genres_original")
SHORT_SECONDS = 30.0  # the nominal length of a GTZAN clip; a manifest states its own


@dataclass(frozen=True)
class Track:
    path: Path
    genre: str
    name: str  # "<genre>.NNNNN"
    n_samples: int  # as stored, before padding or cutting
    sample_rate: int  # Hz, as stored
    sha256: str
    split: str = ""  # "train", "valid" or "test"

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
    name: str
    root: Path
    tracks: tuple[Track, ...]
    faults: tuple[Fault, ...]
    split_source: str  # how the splits came about

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
        return _read_manifest(self.root)


def _read_manifest(root: Path) -> dict | None:
    file = root / "manifest.json"
    return json.loads(file.read_text()) if file.is_file() else None


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


def _inspect(path: Path, nominal_seconds: float) -> tuple[Track, list[Fault]]:
    import soundfile as sf

    content = path.read_bytes()
    samples, sample_rate = sf.read(io.BytesIO(content), dtype="float32", always_2d=True)
    name = path.stem
    track = Track(
        path, path.parent.name, name, len(samples), sample_rate, hashlib.sha256(content).hexdigest()
    )
    config = AudioConfig()
    if track.seconds * config.sample_rate < config.n_fft:
        return track, [Fault(name, f"too short: {track.seconds:.3f} s", True)]
    if not np.isfinite(samples).all():
        return track, [Fault(name, "holds samples that are not finite", True)]
    if np.abs(samples.mean(axis=1)).max() < audio.SILENCE_PEAK:  # mono, as it will be read
        return track, [Fault(name, "silent (peak below -80 dBFS)", True)]
    if track.seconds < nominal_seconds:
        return track, [
            Fault(name, f"short: {track.seconds:.2f} s, padded to the clip length", False)
        ]
    return track, []


def scan(
    folder: str | Path, *, clips_per_genre: int | None = None
) -> tuple[list[Track], list[Fault]]:
    """Read every file below `folder` and list the tracks that are usable and what is wrong.

    Corrupt, silent and very short files are left out, short ones are kept; all of them are named.

    Parameters
    ----------
    folder : the corpus, in any of the layouts above
    clips_per_genre : take at most so many of each genre, in the order of their names
    """
    import soundfile as sf

    root = find_root(folder)
    nominal_seconds = (_read_manifest(root) or {}).get("seconds", SHORT_SECONDS)
    tracks: list[Track] = []
    faults: list[Fault] = []
    for genre in GENRES:
        files = sorted(f for f in (root / genre).glob("*") if f.suffix.lower() in SUFFIXES)
        taken = 0
        for path in files:
            if taken == clips_per_genre:
                break
            try:
                track, found = _inspect(path, nominal_seconds)
            except (sf.LibsndfileError, RuntimeError, OSError) as error:
                reason = getattr(error, "error_string", None) or getattr(error, "strerror", error)
                found = [Fault(path.stem, f"not readable ({str(reason).rstrip('.')})", True)]
            faults += found
            if not any(fault.left_out for fault in found):
                tracks.append(track)
                taken += 1
    return tracks, faults


def fault_filtered(tracks: list[Track]) -> list[Track] | None:
    """Sturm's fault-filtered split as torchaudio carries it, or None if the corpus is not whole.

    443 training, 197 validation and 290 test tracks, free of the repetitions and mislabelings found
    in GTZAN (Sturm, arXiv:1306.1461). One corrupt file, as in the common Kaggle copy, is tolerated.
    """
    from torchaudio.datasets import gtzan

    lists = {
        "train": gtzan.filtered_train,
        "valid": gtzan.filtered_valid,
        "test": gtzan.filtered_test,
    }
    split_of = {name: split for split, names in lists.items() for name in names}
    by_name = {track.name: track for track in tracks}
    if len(split_of.keys() - by_name.keys()) > 1:
        return None
    return [
        replace(by_name[n], split=split_of[n]) for n in sorted(split_of.keys() & by_name.keys())
    ]


def stratified(tracks: list[Track], *, seed: int = 0) -> list[Track]:
    """About 70 / 10 / 20 % of each genre for training, validation and test, by track.

    A genre with one track trains, with two also tests, with three or more also validates.
    """
    result = []
    for index, genre in enumerate(GENRES):
        members = sorted((t for t in tracks if t.genre == genre), key=lambda t: t.name)
        order = np.random.default_rng([seed, index]).permutation(len(members))
        n_test = max(round(0.2 * len(members)), int(len(members) > 1))
        n_valid = max(round(0.1 * len(members)), int(len(members) > 2))
        for position, member in enumerate(order):
            split = (
                "test" if position < n_test else "valid" if position < n_test + n_valid else "train"
            )
            result.append(replace(members[member], split=split))
    return sorted(result, key=lambda t: t.name)


def read_folder(
    folder: str | Path, *, name: str, clips_per_genre: int | None = None, seed: int = 0
) -> Corpus:
    """Read the corpus in `folder` and split it by track.

    Splits come from the corpus's own manifest, else from the fault-filtered lists where GTZAN is
    whole, else they are stratified.
    """
    root = find_root(folder)
    tracks, faults = scan(root, clips_per_genre=clips_per_genre)
    manifest = _read_manifest(root)
    if manifest is not None:
        split_of = {c["file"]: c["split"] for c in manifest["clips"]}
        split = [replace(t, split=split_of[f"{t.genre}/{t.path.name}"]) for t in tracks]
        return Corpus(name, root, tuple(split), tuple(faults), "manifest")
    filtered = fault_filtered(tracks)
    if filtered is not None:
        return Corpus(name, root, tuple(filtered), tuple(faults), "fault-filtered (Sturm 2013)")
    return Corpus(name, root, tuple(stratified(tracks, seed=seed)), tuple(faults), "stratified")


def bands_folder(profile: Profile, *, seed: int = 0) -> Path:
    """Where the embedded corpus of this profile and seed is rendered."""
    return (
        paths.data() / "bands" / f"{profile.clips_per_genre}x{profile.clip_seconds:g}s-seed{seed}"
    )


def resolve(corpus: str) -> str:
    """``auto`` is GTZAN where it is there, else bands."""
    if corpus == "auto":
        return "gtzan" if paths.gtzan() else "bands"
    if corpus not in ("bands", "gtzan"):
        raise ValueError(f"unknown corpus {corpus!r}: choose bands, gtzan or auto")
    return corpus


def open_corpus(corpus: str, *, profile: Profile, seed: int = 0, progress=None) -> Corpus:
    """Open ``bands`` (rendered if it is not there yet), ``gtzan``, or ``auto``, at a profile's size."""
    corpus = resolve(corpus)
    if corpus == "bands":
        folder = bands_folder(profile, seed=seed)
        bands.write_corpus(
            folder,
            clips_per_genre=profile.clips_per_genre,
            seconds=profile.clip_seconds,
            seed=seed,
            progress=progress,
        )
        return read_folder(folder, name="bands")
    folder = paths.gtzan()
    if folder is None:
        raise FileNotFoundError(
            f"no GTZAN at {paths.data() / 'gtzan'}: put it there or set AUDIOSTYLE_GTZAN"
        )
    return read_folder(folder, name="gtzan", clips_per_genre=profile.clips_per_genre, seed=seed)


def read_clip(track: Track, *, config: AudioConfig, seconds: float) -> np.ndarray:
    """Mono waveform (n_samples,) of exactly `seconds`: cut, or padded with zeros as in the report."""
    waveform = audio.read_audio(track.path, config=config)
    n_samples = round(seconds * config.sample_rate)
    return np.pad(waveform[:n_samples], (0, max(0, n_samples - len(waveform))))


def load_waveforms(tracks: list[Track], *, config: AudioConfig, seconds: float):
    """All clips as one tensor.

    Returns
    -------
    waveforms : torch.Tensor (n_tracks, n_samples), float32
    valid : list of int; samples of each clip before the padding begins
    """
    import torch

    clips = [read_clip(track, config=config, seconds=seconds) for track in tracks]
    n_samples = round(seconds * config.sample_rate)
    valid = [min(n_samples, round(t.seconds * config.sample_rate)) for t in tracks]
    return torch.from_numpy(np.stack(clips)), valid


class SegmentDataset:
    """Random segments of tracks, a map-style dataset for `torch.utils.data.DataLoader`.

    The crop depends on (seed, epoch, index) only, so any number of workers gives the same segments.
    Item: waveform (n_samples,) float32, index of the genre, index of the track.
    """

    def __init__(
        self, tracks: list[Track], *, config: AudioConfig, seconds: float = 3.0, seed: int = 0
    ):
        self.tracks, self.config, self.seconds, self.seed = tracks, config, seconds, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, int]:
        track = self.tracks[index]
        waveform = audio.read_audio(track.path, config=self.config)
        n_samples = round(self.seconds * self.config.sample_rate)
        spare = max(0, len(waveform) - n_samples)
        start = np.random.default_rng([self.seed, self.epoch, index]).integers(spare + 1)
        segment = waveform[start : start + n_samples]
        segment = np.pad(segment, (0, n_samples - len(segment)))
        return segment, GENRES.index(track.genre), index


def describe(corpus: Corpus) -> str:
    """What is there and what is wrong with it, as plain text; what ``audiostyle data check`` prints."""
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
