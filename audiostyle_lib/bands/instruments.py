"""More instruments for the embedded corpus: General MIDI SoundFonts made ready for symusic.

`prepare` takes every program and kit that plays in training out of a SoundFont, each as a small file,
and keeps those that sound, in tune, on every note they may be given: on some, symusic's synthesizer
hangs, overflows or plays out of tune. Programs that fail here are played by the default SoundFont. The
test's instruments are never taken, so the test split sounds the same whatever training heard. Used by
``audiostyle pretrain --soundfont``.
"""

from __future__ import annotations

import json
import struct
import sys
from functools import cache
from pathlib import Path

import numpy as np

from .. import paths
from ..config import AudioConfig
from ..errors import InputError
from . import genres, soundfont, synth
from .genres import DRUMS, GENRE_TABLE, TRAIN_PROGRAMS
from .synth import Note, Part, synthesize
from .workers import announce, run_jobs

FAULTS = "faults.json"
MAX_DETUNING = 0.5  # semitones, of the median note
_VELOCITIES = (50, 84, 112)  # other samples may sound at another loudness
_LIMIT_S = 10.0


def _ranges() -> dict[tuple[int, bool], list[int]]:
    """Every note that a training program or a kit may play, by (program, whether a kit)."""
    notes: dict[tuple[int, bool], set[int]] = {}
    for table in GENRE_TABLE.values():
        for role, pool in table.pools.items():
            low, high = table.window(role)
            for program in TRAIN_PROGRAMS & set(pool):
                notes.setdefault((program, False), set()).update(range(low, high + 1))
        for kit in table.kits:
            notes[kit, True] = set(DRUMS.values())
    return {key: sorted(value) for key, value in sorted(notes.items())}


def _detuning(x: np.ndarray, pitch: int, sample_rate: int) -> float:
    """Semitones between what sounds and what is written, modulo octaves.

    The best of three thirds: a muted string has ended by the second, a pad has hardly begun in the
    first, and a bell's fundamental outlives the partials that are none of its harmonics.
    """
    import librosa

    off = []
    for third in np.array_split(x, 3):
        f0 = librosa.yin(third, fmin=28, fmax=2100, sr=sample_rate, frame_length=4096)
        off.append(abs((np.median(librosa.hz_to_midi(f0)) - pitch + 6) % 12 - 6))
    return float(min(off))


def _fault(folder: Path, program: int, is_drum: bool, pitches: list[int]) -> str:
    """What is wrong with a program, "" if nothing is (runs in a worker)."""
    sample_rate, detunings = AudioConfig.sample_rate, []
    if not is_drum:  # compiled before the first announcement, while the worker may take its time
        _detuning(np.sin(0.1 * np.arange(22000)), 60, sample_rate)
    for pitch in pitches:
        for velocity in _VELOCITIES:
            part = Part("lead", program, is_drum, (Note(0, 2.5, pitch, velocity),))
            announce(f"note {pitch}")
            try:
                x = synthesize(
                    part, tempo=60, start_beat=0, seconds=3, sample_rate=sample_rate,
                    soundfont=folder,
                )  # fmt: skip
            except RuntimeError:
                return f"overflows at note {pitch}"
            if np.abs(x[: sample_rate // 2]).max() < 1e-3:
                return f"is silent at note {pitch}"
        if not is_drum:  # the loudest layer
            detunings.append(_detuning(x[1000:25000], pitch, sample_rate))
    if detunings and np.median(detunings) > MAX_DETUNING:
        return f"is {np.median(detunings):.1f} semitones out of tune"
    return ""


def _faults(folder: Path, waiting: dict[tuple[int, bool], list[int]]) -> dict[tuple, str]:
    """`_fault` of every program. A worker that hangs or dies is replaced for those after it."""
    found: dict[tuple, str] = {}
    while len(found) < len(waiting):
        left = [key for key in waiting if key not in found]
        jobs = [(f"program {key[0]}", (folder, *key, waiting[key])) for key in left]
        try:
            # One worker, so that it is clear which program it hung on.
            results = run_jobs(_fault, jobs, workers=1, limit_s=_LIMIT_S)
            for key, fault in zip(left, results, strict=True):
                found[key] = fault
        except RuntimeError as error:
            found[next(key for key in left if key not in found)] = str(error)
    return found


def _preset(data: bytes, bank: int, program: int) -> bytes | None:
    try:
        return soundfont.extract_preset(data, bank, program)
    except (ValueError, LookupError, StopIteration, struct.error) as error:
        raise InputError(str(error) or "a damaged SoundFont") from error


def _extract_all(data: bytes, folder: Path) -> None:
    """Write the usable programs of a SoundFont and what was wrong with the others."""
    ranges, faults = {}, {}
    for (program, is_drum), notes in _ranges().items():
        preset = _preset(data, soundfont.DRUM_BANK if is_drum else 0, program)
        file = soundfont.file_name(program, is_drum)
        if preset is None:
            faults[file] = "is missing"
        else:
            (folder / file).write_bytes(preset)
            ranges[program, is_drum] = notes
    for key, fault in _faults(folder, ranges).items():
        if fault:
            file = soundfont.file_name(*key)
            faults[file] = fault
            (folder / file).unlink()
    text = json.dumps(dict(sorted(faults.items())), indent=1) + "\n"
    (folder / FAULTS).write_text(text)


@cache
def prepare(source: Path) -> Path:
    """Folder of the usable programs of a SoundFont; written on first use, which takes minutes.

    Parameters
    ----------
    source : Path
        A General MIDI SoundFont (.sf2 or .sf3), or a folder that this function returned, which is
        returned as it is: the SoundFont that it was made from need not be there any more.

    Returns
    -------
    Path
        ``bands/<name>-<hash>`` in the folder for data; the hash is that of the SoundFont and of the
        code that takes it apart. ``faults.json`` says which programs the default SoundFont plays
        instead, and why.

    Raises
    ------
    InputError
        If `source` is neither.
    """
    if source.is_dir():
        if not (source / FAULTS).is_file():
            raise InputError(f"{source}: not a folder made from a SoundFont")
        return source
    data = source.read_bytes()
    made_by = (soundfont, genres, synth, sys.modules[__name__])
    target = paths.data() / "bands" / f"{source.stem}-{soundfont.digest(data, *made_by)}"
    if target.is_dir():
        return target
    with paths.folder_written_beside(target) as partial:
        try:
            _extract_all(data, partial)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return target
