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

from . import audio, metrics, pairs, peers, transfer
from .config import AudioConfig
from .corpora import Corpus, read_clip
from .judges import Judges
from .models.recombine import GainTransfer
from .paths import written_beside

UNPAIRED = 0  # in place of a tier
UNPAIRED_SECONDS = 10.0
RESAMPLES = 2000  # of the bootstrap
COPY = "copy content"

Waveform = np.ndarray
Method = Callable[[Waveform, Waveform], Waveform]


@dataclass(frozen=True)
class Column:
    """A measure of one output, `of(output, item, judges, config)`, NaN where it does not apply."""

    of: Callable[[Waveform, pairs.Triplet, Judges, AudioConfig], float]
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
SLOW = ("Gram, random", "Gram, three representations")


# Items --------------------------------------------------------------------------------------------


def items(
    corpus: Corpus, *, n_groups: int, config: AudioConfig, seed: int = 0
) -> dict[str, list[pairs.Triplet]]:
    """The benchmark's splits: "tier 1", "tier 2" and "unpaired", two items a group in each."""
    triplets = pairs.triplets(n_groups, split="test", seed=seed, per_group=4)
    found = {f"tier {k}": [t for t in triplets if t.tier == k] for k in (1, 2)}
    return found | {"unpaired": unpaired(corpus, n=2 * n_groups, config=config, seed=seed)}


def unpaired(corpus: Corpus, *, n: int, config: AudioConfig, seed: int = 0) -> list[pairs.Triplet]:
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
        items.append(pairs.Triplet(content, style, None, *genres, UNPAIRED, None, onsets))
    return items


def from_csv(path: Path, config: AudioConfig) -> tuple[list[pairs.Triplet], list[Waveform]]:
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
        items.append(pairs.Triplet(content, read(row["style"]), truth, "", "", tier, None, onsets))
        outputs.append(read(row["output"]))
    return items, outputs


# Methods ------------------------------------------------------------------------------------------


def halves(item: pairs.Triplet) -> tuple[Waveform, pairs.Triplet]:
    """The style clip's first half as an output, and the item with its second half as the style.

    How far two excerpts of one recording are apart: what columns against the style can reach.
    """
    middle = len(item.style) // 2
    return item.style[:middle], replace(item, style=item.style[middle:])


def learned(model: GainTransfer, *, device: str = "cpu") -> Method:
    """A trained gain network as a method."""
    method = transfer.learned(model)
    return lambda content, style: transfer.transfer(content, style, method=method, device=device)


def methods(
    models: dict[str, GainTransfer], config: AudioConfig, *, device: str = "cpu"
) -> dict[str, Method]:
    """Everything that answers quickly: trivial answers, the equaliser, musaicing and trained models."""
    return {
        COPY: lambda content, style: content,
        "copy style": lambda content, style: np.resize(style, len(content)),
        "LTAS-EQ": lambda content, style: transfer.transfer(
            content, style, method=transfer.ltas_eq, device=device
        ),
        "musaicing": lambda content, style: peers.musaicing(content, style, config),
        **{name: learned(model, device=device) for name, model in models.items()},
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


def oracle(item: pairs.Triplet, config: AudioConfig) -> Waveform:
    """What a gain on the content's STFT gives when told the true log-mel: no gain can do better."""
    target = transfer.log_mel_at_level(item.truth, config, "cpu")

    def prepare(content, style):
        return lambda x: target[..., : x.shape[2]] - x.clamp_min(GainTransfer.FLOOR_DB)

    return transfer.transfer(item.content, item.style, method=prepare)


# Scores -------------------------------------------------------------------------------------------


def score(
    output: Waveform, item: pairs.Triplet, judges: Judges, config: AudioConfig
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
    items: Sequence[pairs.Triplet],
    named: dict[str, Method],
    judges: Judges,
    config: AudioConfig,
    *,
    shuffled: Sequence[str] = (),
    slow_items: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Scores of every item by method: {method: [{column: value} an item]}.

    Adds the oracle's rows for paired items and, for the methods named in `shuffled`, a row with the
    style clip of another item. The methods of `slow_peers` get the first `slow_items` only.
    """
    table: dict[str, list[dict[str, float]]] = {}
    for i, item in enumerate(items):
        for name, method in named.items():
            if name in SLOW and slow_items is not None and i >= slow_items:
                continue
            started = time.perf_counter()
            output = method(item.content, item.style)
            taken = time.perf_counter() - started
            scores = score(output, item, judges, config)
            scores[SPEED] = taken * config.sample_rate / len(item.content)
            table.setdefault(name, []).append(scores)
        other = items[(i + len(items) // 2) % len(items)]
        for name in shuffled:
            output = named[name](item.content, other.style)
            table.setdefault(f"{name}, shuffled style", []).append(
                score(output, item, judges, config)
            )
        if item.truth is not None:
            table.setdefault("oracle gain", []).append(
                score(oracle(item, config), item, judges, config)
            )
            table.setdefault("truth", []).append(score(item.truth, item, judges, config))
        table.setdefault("style's own halves", []).append(_halves_scores(item, judges, config))
        if progress is not None:
            progress(f"item {i + 1}/{len(items)}")
    return table


def _halves_scores(item: pairs.Triplet, judges: Judges, config: AudioConfig) -> dict[str, float]:
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


def summary(table: dict[str, list[dict[str, float]]], *, against: str = COPY) -> dict:
    """Means and 95 % intervals by method and column, and of the paired difference to one method.

    The intervals of differences resample items, so what makes an item hard for all falls out.
    """
    result: dict[str, dict[str, dict]] = {}
    for method, rows in table.items():
        for column in dict.fromkeys(name for row in rows for name in row):
            values = np.array([row.get(column, np.nan) for row in rows])
            known = np.isfinite(values)
            if not known.any():
                continue
            entry = {"mean": float(values[known].mean()), "n": int(known.sum())}
            entry["interval"] = interval(values[known])
            base = np.array(
                [row.get(column, np.nan) for row in table.get(against, [])[: len(rows)]]
            )
            if len(base) == len(values) and method != against:
                both = known & np.isfinite(base)
                if both.any():
                    entry["difference"] = interval((values - base)[both])
            result.setdefault(method, {})[column] = entry
    return result


def write(path: Path, tables: dict[str, dict[str, list[dict[str, float]]]], facts: dict) -> None:
    """Write ``benchmark.json``: per split ("tier 1", "tier 2", "unpaired") every item's scores and
    the summary, the columns' definitions, and `facts` about the run."""
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
        Path(temporary).write_text(json.dumps(content, indent=1) + "\n")


def describe(table: dict[str, list[dict[str, float]]], columns: Sequence[str] | None = None) -> str:
    """A table as text: a line a method, mean and half the 95 % interval's width a column."""
    found = summary(table)
    columns = columns or list(dict.fromkeys(c for entries in found.values() for c in entries))
    lines = [" " * 28 + "".join(f"{name:>21}" for name in columns)]
    for method, entries in found.items():
        line = f"{method:28}"
        for entry in map(entries.get, columns):
            if entry is None:
                line += " " * 21
                continue
            low, high = entry["interval"]
            line += f"{entry['mean']:13.3f} ± {(high - low) / 2:5.3f}"
        lines.append(line)
    return "\n".join(lines)
