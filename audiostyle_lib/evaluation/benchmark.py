"""The benchmark of one-shot style transfer: triplets in, one table out. Notebook 09.

A method is a function of a content and a style waveform that returns a waveform. Paired items come
from held-out scores, instruments and arrangements of `bands`, where the true result is known; unpaired
ones from two real tracks, where it is not. Every column says what it measures and against what.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .. import transfer, vocoding
from ..bands import lattice
from ..config import AudioConfig
from ..corpora import Corpus, read_clip
from ..models.recombine import GainTransfer, StyleCode
from ..paths import written_beside
from ..signal import audio, features
from . import metrics, peers
from .judges import Judges

UNPAIRED = 0  # in place of a tier
UNPAIRED_SECONDS = 10.0
RESAMPLES = 2000  # of the bootstrap
COPY = "copy content"

Waveform = np.ndarray
Method = Callable[[Waveform, Waveform], Waveform]


@dataclass(frozen=True)
class Column:
    """A measure of one output, `of(output, item, judges, config)`, NaN where it does not apply."""

    of: Callable[[Waveform, lattice.Triplet, Judges, AudioConfig], float]
    unit: str
    higher_is_better: bool
    tiers: tuple[int, ...]  # in which it applies
    definition: str


def _to_truth(distance: str, **settings) -> Callable:
    """A column that compares the comparison log-mels of output and truth."""

    def of(output, item, judges, config):
        ours, true = (metrics.comparison_log_mel(x, config) for x in (output, item.truth))
        return getattr(metrics, distance)(ours, true, **settings)

    return of


PAIRED, ALL = (1, 2), (1, 2, UNPAIRED)
COLUMNS = {
    "LSD": Column(
        _to_truth("log_spectral_distance"), "dB", False, PAIRED,
        "log-spectral distance to the truth, RMS over time, mean over bands; -20 dBFS, top 80 dB",
    ),
    "LSD per frame": Column(
        _to_truth("log_spectral_distance", axis="frequency"), "dB", False, PAIRED,
        "log-spectral distance to the truth, RMS over bands, mean over frames",
    ),
    "LSD published": Column(
        lambda y, item, judges, config: metrics.published_log_spectral_distance(y, item.truth, config),
        "dB", False, PAIRED, "LSD as ss-vq-vae's evaluation computes it, at 16 kHz",
    ),
    "MFCC cosine": Column(
        lambda y, item, judges, config: metrics.mfcc_cosine(y, item.truth, config),
        "1", True, PAIRED, "mean cosine of MFCC 1 to 12 with the truth's, frame by frame",
    ),
    "timbre": Column(
        lambda y, item, judges, config: judges.timbre_distance(
            y, item.style if item.truth is None else item.truth, config
        ),
        "1", False, ALL,
        "1 - cosine in the timbre network to the truth (unpaired: to the style clip)",
    ),
    "timbre, no EQ": Column(
        lambda y, item, judges, config: judges.timbre_distance(y, item.style, config, centred=True),
        "1", False, ALL,
        "the same on cepstra without their mean, which an equaliser cannot change, to the style clip",
    ),
    "cepstral covariance": Column(
        lambda y, item, judges, config: metrics.timbre_distance(y, item.style, config),
        "1", False, ALL, "Bures distance of covariances of mean-removed MFCC to the style clip's",
    ),
    "multi-pitch F": Column(
        lambda y, item, judges, config: metrics.multi_pitch_f(y, item.notes, config),
        "1", True, PAIRED, "F-measure of the notes heard against the truth's score",
    ),
    "pitch Jaccard": Column(
        lambda y, item, judges, config: metrics.pitch_jaccard_distance(
            y, item.content if item.truth is None else item.truth, config
        ),
        "1", False, ALL,
        "1 - Jaccard index of the notes heard in output and truth (unpaired: content)",
    ),
    "chroma cosine": Column(
        lambda y, item, judges, config: metrics.chroma_similarity(y, item.content, config),
        "1", True, ALL, "mean cosine of chroma frames with the content's",
    ),
    "onset F1": Column(
        lambda y, item, judges, config: metrics.onset_f1(y, item.onsets, config),
        "1", True, ALL,
        "F-measure of onsets within 50 ms, against the truth's score (unpaired: heard in the content)",
    ),
    "genre hit": Column(
        lambda y, item, judges, config: float(judges.genre_heard(y, config) == item.style_genre),
        "share", True, (2, UNPAIRED),
        "share in which a judge trained on other tracks hears the style's genre; chance 0.1",
    ),
    "Gram": Column(
        lambda y, item, judges, config: judges.gram_distance(y, item.style, config),
        "1", False, ALL, "distance of Gram matrices of the genre network's features to the style's",
    ),
    "perceptual": Column(
        lambda y, item, judges, config: judges.perceptual_distance(y, item.truth, config),
        "1", False, PAIRED, "learned perceptual distance (LPIPS's construction) to the truth",
    ),
}  # fmt: skip
SPEED = "seconds per second"
STAGES = {"": "gain", ", neural": "neural"}  # a trained model's rows: suffix, output stage
ORACLES = ("gain", "neural", "pghi")  # output stages
SLOW = ("Gram, random", "Gram, three representations")


# Items --------------------------------------------------------------------------------------------


def items(
    corpus: Corpus, *, n_groups: int, config: AudioConfig, seed: int = 0
) -> dict[str, list[lattice.Triplet]]:
    """The benchmark's splits: "tier 1", "tier 2" and "unpaired", two items a group in each."""
    triplets = lattice.triplets(n_groups, split="test", seed=seed, per_group=4)
    found = {f"tier {k}": [t for t in triplets if t.tier == k] for k in (1, 2)}
    return found | {"unpaired": unpaired(corpus, n=2 * n_groups, config=config, seed=seed)}


def unpaired(
    corpus: Corpus, *, n: int, config: AudioConfig, seed: int = 0
) -> list[lattice.Triplet]:
    """`n` pairs of test tracks of a corpus from different genres, each track a content at most once."""
    tracks = corpus.split("test")
    order = np.random.default_rng([seed, 11]).permutation(len(tracks))
    items = []
    for a, b in zip(order, np.roll(order, 1), strict=True):
        if len(items) == n or tracks[a].genre == tracks[b].genre:
            continue
        content, style = (
            read_clip(tracks[i], config=config, seconds=min(tracks[i].seconds, UNPAIRED_SECONDS))
            for i in (a, b)
        )
        onsets = metrics.detected_onsets(content, config)
        genres = tracks[a].genre, tracks[b].genre
        items.append(lattice.Triplet(content, style, None, *genres, UNPAIRED, None, onsets))
    return items


def from_csv(path: Path, config: AudioConfig) -> tuple[list[lattice.Triplet], list[Waveform]]:
    """Items and outputs from a table of files with the columns content, style, truth, output.

    Paths are relative to the table's folder; `truth` may be empty. What needs a score or a genre stays
    empty.

    Raises
    ------
    ValueError
        If a column or a file is missing, or a table has no rows.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wanted = {"content", "style", "output"}
    if not rows or not wanted <= set(rows[0]):
        raise ValueError(
            f"{path}: needs a header with content, style, output (and truth), and rows"
        )

    def read(name: str) -> Waveform:
        return audio.read_audio(Path(path).parent / name, config=config)

    items, outputs = [], []
    for row in rows:
        truth = read(row["truth"]) if row.get("truth") else None
        content = read(row["content"])
        onsets = metrics.detected_onsets(content if truth is None else truth, config)
        tier = UNPAIRED if truth is None else 2
        items.append(
            lattice.Triplet(content, read(row["style"]), truth, "", "", tier, None, onsets)
        )
        outputs.append(read(row["output"]))
    return items, outputs


# Methods ------------------------------------------------------------------------------------------


def halves(item: lattice.Triplet) -> tuple[Waveform, lattice.Triplet]:
    """The style clip's first half as an output, and the item with its second half as the style.

    How far two excerpts of one recording are apart: what columns against the style can reach.
    """
    middle = len(item.style) // 2
    return item.style[:middle], replace(item, style=item.style[middle:])


def learned(
    model: GainTransfer,
    *,
    vocoder: str = "gain",
    zeroed: bool = False,
    device: str = "cpu",
    **corrections: float,
) -> Method:
    """A trained network through an output stage as a method; `zeroed` tells it nothing of the style.

    `corrections` are those of `transfer.learned`, by default `transfer.CORRECTIONS` of the stage.
    """
    corrections = transfer.CORRECTIONS[vocoder] | corrections
    if zeroed:
        prepare = _without_style(model, corrections["calibration"])
    else:
        prepare = transfer.learned(model, **corrections)
    return lambda content, style: transfer.transfer(
        content, style, method=prepare, vocoder=vocoder, device=device
    )


def _without_style(model: GainTransfer, calibration: float) -> Callable:
    """`transfer.learned` with zeros in place of the style clip's code.

    Nor is variance given back, which takes the style clip's.
    """

    def prepare(content, style):
        own = model.encode_style(content)
        nothing = StyleCode(*(torch.zeros_like(x) for x in own))
        return lambda log_mel: model.gain(log_mel, nothing, own, calibration=calibration)

    return prepare


def methods(
    models: dict[str, GainTransfer], config: AudioConfig, *, device: str = "cpu"
) -> dict[str, Method]:
    """Everything that answers quickly: trivial answers, the equaliser, musaicing and trained models.

    Every model has two rows: as a gain on the content's STFT and, with ", neural" after its name, its
    log-mel through the neural vocoder.
    """
    return {
        COPY: lambda content, style: content,
        "copy style": lambda content, style: np.resize(style, len(content)),
        "LTAS-EQ": lambda content, style: transfer.transfer(
            content, style, method=transfer.ltas_eq, device=device
        ),
        "musaicing": lambda content, style: peers.musaicing(content, style, config),
        **{
            name + suffix: learned(model, vocoder=vocoder, device=device)
            for name, model in models.items()
            for suffix, vocoder in STAGES.items()
        },
    }


def slow_peers(
    config: AudioConfig, *, iterations: int = 100, device: str = "cpu"
) -> dict[str, Method]:
    """Peers that fit a spectrogram or a waveform by descent: minutes a clip on a CPU."""
    settings = {"iterations": iterations, "device": device}
    return {
        SLOW[0]: lambda content, style: peers.gram_random(content, style, config, **settings),
        SLOW[1]: lambda content, style: peers.gram_representations(
            content, style, config, **settings
        ),
    }


def chosen(named: dict[str, Method], names: Sequence[str] | None) -> dict[str, Method]:
    """The methods with these names (all if None); `ValueError` naming the choices for another one."""
    if names is None:
        return named
    unknown = [name for name in names if name not in named]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: choose among {', '.join(named)}")
    return {name: named[name] for name in names}


def oracle(item: lattice.Triplet, config: AudioConfig, *, vocoder: str = "gain") -> Waveform:
    """What an output stage gives when told the true log-mel: how much of a distance is its own.

    ``gain`` passes it through a gain on the content's STFT; the others get it as it is.
    """
    if vocoder in vocoding.FROM_LOG_MEL:
        log_mel = features.log_mel(torch.from_numpy(item.truth)[None], config)
        return vocoding.mel_to_waveform(
            log_mel, config, n_samples=len(item.truth), vocoder=vocoder
        )[0].numpy()  # fmt: skip
    target = features.log_mel_at_level(item.truth, config)

    def prepare(content, style):
        return lambda x: target[..., : x.shape[2]] - x.clamp_min(features.FLOOR_DB)

    return transfer.transfer(item.content, item.style, method=prepare, vocoder=vocoder)


# Scores -------------------------------------------------------------------------------------------


def score(
    output: Waveform, item: lattice.Triplet, judges: Judges, config: AudioConfig
) -> dict[str, float]:
    """Every column that applies to an output."""
    output = fitted(output, len(item.content))
    unknown = {"multi-pitch F": item.notes is None, "genre hit": not item.style_genre}
    return {
        name: float(column.of(output, item, judges, config))
        for name, column in COLUMNS.items()
        if item.tier in column.tiers and not unknown.get(name, False)
    }


def fitted(output: Waveform, n_samples: int) -> Waveform:
    """Cut or padded with silence to `n_samples`; NaN or infinite samples are an error."""
    if not np.isfinite(output).all():
        raise ValueError("an output has samples that are not finite")
    output = np.asarray(output, dtype=np.float32)[:n_samples]
    return np.pad(output, (0, n_samples - len(output)))


def run(
    items: Sequence[lattice.Triplet],
    named: dict[str, Method],
    judges: Judges,
    config: AudioConfig,
    *,
    ablated: dict[str, Method] | None = None,
    slow_items: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Scores of every item by method: {method: [{column: value} an item]}.

    Adds the oracles' rows for paired items. `ablated` holds, by the name of a method, that method told
    nothing of the style (`learned(..., zeroed=True)`): it gives a row, and the named method with the
    style clip of another item gives one. The methods of `slow_peers` get the first `slow_items` only, of
    unpaired items one.
    """
    table: dict[str, list[dict[str, float]]] = {}
    for i, item in enumerate(items):
        few = 1 if item.truth is None else slow_items
        for name, method in named.items():
            if name in SLOW and slow_items is not None and i >= few:
                continue
            started = time.perf_counter()
            output = method(item.content, item.style)
            taken = time.perf_counter() - started
            scores = score(output, item, judges, config)
            scores[SPEED] = taken * config.sample_rate / len(item.content)
            table.setdefault(name, []).append(scores)
        other = items[(i + len(items) // 2) % len(items)]
        others = {}
        for name, zeroed in (ablated or {}).items():
            others[f"{name}, shuffled style"] = named[name](item.content, other.style)
            others[f"{name}, zeroed style"] = zeroed(item.content, item.style)
        if item.truth is not None:
            others |= {f"oracle, {v}": oracle(item, config, vocoder=v) for v in ORACLES}
            others["truth"] = item.truth
        for name, output in others.items():
            table.setdefault(name, []).append(score(output, item, judges, config))
        table.setdefault("style's own halves", []).append(_halves_scores(item, judges, config))
        if progress is not None:
            progress(f"item {i + 1}/{len(items)}")
    return table


def _halves_scores(item: lattice.Triplet, judges: Judges, config: AudioConfig) -> dict[str, float]:
    output, rest = halves(item)
    against_style = ("timbre, no EQ", "cepstral covariance", "Gram")
    return {name: float(COLUMNS[name].of(output, rest, judges, config)) for name in against_style}


# Summary ------------------------------------------------------------------------------------------


def interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `values` (n,), by the percentile bootstrap over items."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def difference(
    table: dict[str, list[dict[str, float]]], method: str, against: str, column: str
) -> dict:
    """Mean, 95 % interval and number of the differences `method` minus `against`, item by item.

    Over the items on which both are known; a method with fewer rows than there are items has the first
    ones. What makes an item hard for all falls out. Of one item the interval is its value.
    """
    both = zip(table[method], table[against], strict=False)
    return _estimate([a.get(column, np.nan) - b.get(column, np.nan) for a, b in both])


def _estimate(values: Sequence[float]) -> dict:
    """Mean, interval and number of the finite ones among `values`; {"n": 0} if there are none."""
    known = np.array(values, dtype=float)
    known = known[np.isfinite(known)]
    if not len(known):
        return {"n": 0}
    return {"mean": float(known.mean()), "n": len(known), "interval": interval(known)}


def summary(table: dict[str, list[dict[str, float]]], *, against: str = COPY) -> dict:
    """Means and 95 % intervals by method and column, and of the paired `difference` to one method."""
    result: dict[str, dict[str, dict]] = {}
    for method, rows in table.items():
        for column in dict.fromkeys(name for row in rows for name in row):
            entry = _estimate([row.get(column, np.nan) for row in rows])
            if not entry["n"]:
                continue
            if method != against and against in table:
                paired = difference(table, method, against, column)
                if paired["n"]:
                    entry["difference"] = paired["interval"]
            result.setdefault(method, {})[column] = entry
    return result


def write(path: Path, tables: dict[str, dict[str, list[dict[str, float]]]], facts: dict) -> None:
    """Write ``benchmark.json``: per split ("tier 1", "tier 2", "unpaired") every item's scores and
    the summary, the columns' definitions, and `facts` about the run. What is not finite becomes null,
    since JSON has no word for it."""
    columns = {
        name: {"unit": c.unit, "higher_is_better": c.higher_is_better, "definition": c.definition}
        for name, c in COLUMNS.items()
    }
    content = {
        "facts": facts,
        "columns": columns,
        "splits": {
            split: {"summary": summary(table), "items": table} for split, table in tables.items()
        },
    }
    with written_beside(Path(path)) as temporary:
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
        Path(temporary).write_text(text + "\n")


def _finite(value):
    """`value` with None in place of every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def describe(table: dict[str, list[dict[str, float]]], columns: Sequence[str] | None = None) -> str:
    """A table as text: a line a method, mean and half the 95 % interval's width a column.

    A single item has no interval.
    """
    found = summary(table)
    columns = columns or list(dict.fromkeys(c for entries in found.values() for c in entries))
    width = max(map(len, found), default=0)
    lines = [" " * width + "".join(f"{name:>21}" for name in columns)]
    for method, entries in found.items():
        line = f"{method:{width}}"
        for entry in map(entries.get, columns):
            spread = " " * 8
            if entry is not None and entry["n"] > 1:
                low, high = entry["interval"]
                spread = f" ± {(high - low) / 2:5.3f}"
            line += " " * 21 if entry is None else f"{entry['mean']:13.3f}{spread}"
        lines.append(line.rstrip())
    return "\n".join(lines)
