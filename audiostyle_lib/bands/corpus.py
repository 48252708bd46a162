"""Render one piece, or a whole corpus of them in GTZAN's folder shape.

The test split has its own scores and its own instruments; drum kits and pattern tables are shared by
all splits. Used by ``notebooks/01_data.ipynb`` and, through `audiostyle_lib.corpora`, by every
notebook.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..config import AudioConfig
from ..paths import written_beside
from .arrange import Style, arrange, draw_style
from .genres import GENRES
from .score import Score, compose, make_rng, split_seed
from .synth import render_parts
from .workers import run_jobs

#: Raised whenever the same seed sounds different from before; part of every file's fingerprint.
VERSION = 4


def render(
    score: Score,
    style: Style,
    *,
    seconds: float = 30.0,
    sample_rate: int = AudioConfig.sample_rate,
    start_beat: float = 0.0,
) -> np.ndarray:
    """Sound of a score in a style.

    Runs in this process. `write_corpus` and `lattice.render_lattice` watch over a synthesizer that may
    hang; no program in the pools does so inside its window.

    Parameters
    ----------
    score : Score
    style : Style
    seconds : float
        Length; past the end of the score there is silence.
    sample_rate : int
        In Hz.
    start_beat : float
        Where in the score the excerpt starts, in beats (quarter notes).

    Returns
    -------
    np.ndarray [shape=(round(seconds * sample_rate),)]
        float32, mono, finite, within +-0.95, at an RMS level of about -20 dBFS.

    Raises
    ------
    ValueError
        If `seconds` or `sample_rate` is not positive.
    RuntimeError
        If the excerpt is silent or not finite.
    """
    if not (seconds > 0 and sample_rate > 0):
        raise ValueError(f"seconds and sample_rate must be positive: {seconds!r}, {sample_rate!r}")
    return render_parts(
        arrange(score, style),
        style.mix,
        tempo=score.tempo,
        seconds=seconds,
        sample_rate=sample_rate,
        start_beat=start_beat,
    )


def _clip_splits(n: int) -> list[str]:
    """About 70/10/20, with every split present from three clips on."""
    n_test = max(round(0.2 * n), 1 if n >= 3 else 0)
    n_valid = max(round(0.1 * n), 1 if n >= 3 else 0)
    return ["train"] * (n - n_test - n_valid) + ["valid"] * n_valid + ["test"] * n_test


def _clip_plan(clips_per_genre: int, seconds: float, seed: int, sample_rate: int) -> list[dict]:
    plan = []
    for genre in GENRES:
        for k, split in enumerate(_clip_splits(clips_per_genre)):
            rng = make_rng("corpus", split, seed, genre, k)
            clip = {
                "file": f"{genre}/{genre}.{k:05d}.flac",
                "genre": genre,
                "split": split,
                "score_seed": split_seed(rng, split),
                "style_seed": split_seed(rng, split),
                "seconds": seconds,
                "sample_rate": sample_rate,
            }
            text = json.dumps([VERSION, clip], sort_keys=True)
            clip["fingerprint"] = hashlib.sha256(text.encode()).hexdigest()[:32]
            plan.append(clip)
    return plan


def _clip_music(clip: dict) -> tuple[Score, Style]:
    genre, split = clip["genre"], clip["split"]
    score = compose(clip["score_seed"], genre=genre, split=split, seconds=clip["seconds"])
    return score, draw_style(clip["style_seed"], genre=genre, split=split)


def _clip_entry(root: Path, clip: dict) -> dict:
    """The manifest's line on one finished clip."""
    score, style = _clip_music(clip)
    beat_s = 60 / score.tempo
    lead = next((p for p in arrange(score, style) if p.role == "lead"), None)
    notes = [
        [round(n.start * beat_s, 4), round(n.end * beat_s, 4), n.pitch, n.velocity]
        for n in (lead.notes if lead else ())
        if n.start * beat_s < clip["seconds"]
    ]
    chords = [
        [round(start * beat_s, 4), root_pc, quality]
        for start, root_pc, quality in score.chords
        if start * beat_s < clip["seconds"]
    ]
    return {
        **clip,
        "key": score.key,
        "tempo": score.tempo,
        "sections": [list(s) for s in score.sections],
        "chords": chords,
        "melody": notes,
        "programs": style.programs,
        "kit": style.kit,
        "sha256": hashlib.sha256((root / clip["file"]).read_bytes()).hexdigest(),
    }


def _write_clip(root: str, clip: dict) -> dict:
    """Render one clip to its file; return its manifest entry (runs in a worker)."""
    import soundfile

    score, style = _clip_music(clip)
    audio = render(score, style, seconds=clip["seconds"], sample_rate=clip["sample_rate"])
    encoded = io.BytesIO()  # libsndfile says nothing where its last bytes do not fit on a disk
    with soundfile.SoundFile(
        encoded, "w", clip["sample_rate"], 1, "PCM_16", format="FLAC"
    ) as sound:
        sound.comment = clip["fingerprint"]
        sound.write(audio)
    with written_beside(Path(root) / clip["file"]) as file:
        file.write_bytes(encoded.getbuffer())
    return _clip_entry(Path(root), clip)


def _is_complete(root: Path, clip: dict, known: dict[str, dict]) -> bool:
    """Whether a clip's file exists with these settings and unharmed."""
    import soundfile

    path = root / clip["file"]
    if not path.is_file():
        return False
    entry = known.get(clip["file"], {})
    if entry.get("fingerprint") == clip["fingerprint"]:
        return hashlib.sha256(path.read_bytes()).hexdigest() == entry.get("sha256")
    try:
        with soundfile.SoundFile(path) as sound:
            return sound.comment == clip["fingerprint"] and sound.frames == round(
                clip["seconds"] * clip["sample_rate"]
            )
    except soundfile.LibsndfileError:
        return False


def read_manifest(root: Path) -> dict | None:
    """What `write_corpus` wrote to ``manifest.json``, None without such a file.

    A file of that name that is not JSON, or does not list clips with their splits, is someone else's
    and counts as none.
    """
    manifest = parsed_manifest(root)
    try:
        is_ours = isinstance(manifest["clips"], list) and all(
            isinstance(clip["file"], str) and isinstance(clip["split"], str)
            for clip in manifest["clips"]
        )
    except (LookupError, TypeError):
        return None
    return manifest if is_ours else None


def parsed_manifest(root: Path) -> object:
    """Whatever JSON ``manifest.json`` holds, of whomever; None where it is none."""
    file = root / "manifest.json"
    if not file.is_file():  # a pipe would be waited for
        return None
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_corpus(
    root: str | os.PathLike,
    *,
    clips_per_genre: int,
    seconds: float,
    seed: int,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write the corpus as ``<root>/<genre>/<genre>.NNNNN.flac`` with ``<root>/manifest.json``.

    Files are 16-bit FLAC, 22 050 Hz, mono, and byte-identical for a seed whatever the number of worker
    processes. Complete clips with the same settings are kept, so that an interrupted call resumes
    and a second call does nothing. Within a genre about 70 % of the clips are for training, 10 %
    for validation and 20 % for the test; the test's scores and instruments occur nowhere else.

    Parameters
    ----------
    root : str or Path
    clips_per_genre : int
        At least 1.
    seconds : float
        Length of every clip.
    seed : int
    shard : (int, int)
        Render the clips of this part of so many alone, from (1, count) to (count, count), and write no
        manifest: a call for the whole corpus then finds them.
    progress : callable, optional
        Called as ``progress(done, total)`` in clips.

    Returns
    -------
    dict
        Empty for a part, else the manifest: ``version``, ``seed``, ``seconds``, ``sample_rate`` and
        ``clips``, a list with file, genre, split, seeds, key, tempo, sections, chords and melody (times
        in seconds), programs by role, kit and sha256 of the file.

    Raises
    ------
    ValueError
        If `clips_per_genre` or `seconds` is not positive.
    OSError
        If a clip cannot be written, such as on a full disk; names its file.
    RuntimeError
        If a clip fails, is silent or hangs; names the clip, program and note range.
    """
    if clips_per_genre < 1 or not seconds > 0:
        raise ValueError("clips_per_genre and seconds must be positive")
    root = Path(root)
    plan = _clip_plan(clips_per_genre, float(seconds), int(seed), AudioConfig.sample_rate)
    plan = plan[shard[0] - 1 :: shard[1]]
    known = {c["file"]: c for c in (read_manifest(root) or {"clips": []})["clips"]}
    kept = {c["file"] for c in plan if _is_complete(root, c, known)}
    jobs = [(c["file"], (os.fspath(root), c)) for c in plan if c["file"] not in kept]
    done = len(kept)
    if progress:
        progress(done, len(plan))
    entries = {}
    for entry in run_jobs(_write_clip, jobs):
        entries[entry["file"]] = entry
        done += 1
        if progress:
            progress(done, len(plan))
    if shard[1] > 1:
        return {}
    for clip in plan:
        name = clip["file"]
        if name in kept:
            same = known.get(name, {}).get("fingerprint") == clip["fingerprint"]
            entries[name] = known[name] if same else _clip_entry(root, clip)
    manifest = {
        "version": VERSION,
        "seed": int(seed),
        "seconds": float(seconds),
        "sample_rate": AudioConfig.sample_rate,
        "clips_per_genre": int(clips_per_genre),
        "clips": [entries[c["file"]] for c in plan],
    }
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n"
    path = root / "manifest.json"
    if not path.is_file() or path.read_bytes() != text.encode():
        with written_beside(path) as temporary:
            temporary.write_text(text)
    return json.loads(text)
