"""Compose and render the embedded corpus: procedural music in GTZAN's ten genres.

A piece is made of two halves that are drawn apart. A `Score` is the *content*: tempo, key, chords,
melody and form. A `Style` is one band of a genre: instruments, grooves, comping, bass figure,
swing, articulation and mix. `arrange` plays any score in any style, so the same content exists in
two styles sample for sample: paired ground truth for style transfer, which recorded music lacks.

Tier 1 pairs (`reorchestrate`) play the same notes on other instruments; tier 2 pairs play the same
song in the style of another genre. The test split has its own instruments and its own scores;
drum kits and pattern tables are shared by all splits.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

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
    sample_rate: int = 22050,
    start_beat: float = 0.0,
    soundfont: Path | None = None,
) -> np.ndarray:
    """Sound of a score in a style.

    Runs in this process; `write_corpus` and `render_lattice` guard against a synthesizer that
    hangs, which no program in the pools does inside its window.

    Parameters
    ----------
    score : Score
    style : Style
    seconds : float
        Length; past the end of the score there is silence.
    sample_rate : int
        In Hz.
    start_beat : float
        Where in the score the excerpt starts, in beats.
    soundfont : Path, optional
        A folder that `bands_soundfonts.prepare` returned, for other instruments than the default's.

    Returns
    -------
    np.ndarray [shape=(round(seconds * sample_rate),)]
        float32, mono, finite, within +-0.95, about -20 dBFS RMS.

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
        soundfont=soundfont,
    )


# ---------------------------------------------------------------------------------------------
# Corpus on disk


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
    """Render one clip, write it beside its place, rename it; return its manifest entry."""
    import soundfile

    score, style = _clip_music(clip)
    audio = render(score, style, seconds=clip["seconds"], sample_rate=clip["sample_rate"])
    path = Path(root) / clip["file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with soundfile.SoundFile(
            partial, "w", clip["sample_rate"], 1, subtype="PCM_16", format="FLAC"
        ) as sound:
            sound.comment = clip["fingerprint"]
            sound.write(audio)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
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


def _read_manifest(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def write_corpus(
    root: str | os.PathLike,
    *,
    clips_per_genre: int = 10,
    seconds: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Write the corpus as ``<root>/<genre>/<genre>.NNNNN.flac`` with ``<root>/manifest.json``.

    Files are 16-bit FLAC, 22 050 Hz, mono, and byte-identical for a seed whatever the number of
    workers. Complete clips with the same settings are kept, so that an interrupted call resumes
    and a second call does nothing. Within a genre about 70 % of the clips are for training, 10 %
    for validation and 20 % for the test; the test's scores and instruments occur nowhere else.

    Parameters
    ----------
    root : path
    clips_per_genre : int
        At least 1.
    seconds : float
        Length of every clip.
    seed : int
    workers : int, optional
        Processes; by default the CPUs this process may use.
    progress : callable, optional
        Called as ``progress(done, total)`` in clips.

    Returns
    -------
    dict
        The manifest: ``version``, ``seed``, ``seconds``, ``sample_rate`` and ``clips``, a list with
        file, genre, split, seeds, key, tempo, sections, chords and melody (times in seconds),
        programs by role, kit and sha256 of the file.

    Raises
    ------
    ValueError
        If `clips_per_genre` or `seconds` is not positive.
    RuntimeError
        If a clip fails, is silent or hangs; names the clip, program and note range.
    """
    if clips_per_genre < 1 or not seconds > 0:
        raise ValueError("clips_per_genre and seconds must be positive")
    root = Path(root)
    plan = _clip_plan(clips_per_genre, float(seconds), int(seed), 22050)
    manifest_path = root / "manifest.json"
    known = {c["file"]: c for c in _read_manifest(manifest_path).get("clips", [])}
    kept = {c["file"] for c in plan if _is_complete(root, c, known)}
    jobs = [(c["file"], (os.fspath(root), c)) for c in plan if c["file"] not in kept]
    done = len(kept)
    if progress:
        progress(done, len(plan))
    entries = {}
    for entry in run_jobs(_write_clip, jobs, workers=workers):
        entries[entry["file"]] = entry
        done += 1
        if progress:
            progress(done, len(plan))
    for clip in plan:
        name = clip["file"]
        if name in kept:
            same = known.get(name, {}).get("fingerprint") == clip["fingerprint"]
            entries[name] = known[name] if same else _clip_entry(root, clip)
    manifest = {
        "version": VERSION,
        "seed": int(seed),
        "seconds": float(seconds),
        "sample_rate": 22050,
        "clips_per_genre": int(clips_per_genre),
        "clips": [entries[c["file"]] for c in plan],
    }
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n"
    if not manifest_path.is_file() or manifest_path.read_text() != text:
        partial = manifest_path.with_name(f".manifest.{os.getpid()}.part")
        partial.write_text(text)
        partial.replace(manifest_path)
    return json.loads(text)
