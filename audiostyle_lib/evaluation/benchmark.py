"""The benchmark of one-shot style transfer: triplets in, one table out.

A method takes a content and a style waveform and returns a waveform. Paired items come from scores,
instruments and arrangements of `bands` that no training heard; their true result is known. Unpaired
items are two tracks of a corpus; nobody knows their true result. A table holds the scores of every
method on every item, ``{method: [{column: value}, ...]}``, one dictionary an item.

Used by ``audiostyle benchmark`` and ``notebooks/09_evaluation.ipynb``; `oracle` also by
``notebooks/07_recombination.ipynb``, `interval` by ``notebooks/10_future_work.ipynb``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import bootstrap

from .. import transfer, vocoding
from ..bands import lattice
from ..config import AudioConfig
from ..corpora import Corpus, read_clip
from ..errors import InputError
from ..models.recombine import GainTransfer, StyleCode
from ..paths import written_beside
from ..signal import audio, features
from . import metrics, peers, tables
from .judges import Judges

UNPAIRED = 0  # in place of a tier
UNPAIRED_SECONDS = 10.0
SHORTEST_SECONDS = 0.5  # of a clip to be scored: the judges halve the time resolution four times
RESAMPLES = 2000  # of the bootstrap
COPY = "copy content"

Waveform = np.ndarray  # [shape=(n_samples,)], float32, mono, at the front end's sample rate
Method = Callable[[Waveform, Waveform], Waveform]  # (content, style) -> result
Table = dict[str, list[dict[str, float]]]  # method -> a dictionary of columns an item


@dataclass(frozen=True)
class Column:
    """A measure of one output.

    Parameters
    ----------
    of : callable
        ``of(output, item, judges, config)`` returns the value, NaN where there is none.
    unit : str
    higher_is_better : bool
    tiers : tuple of int
        In which it applies; `UNPAIRED` stands for unpaired items.
    definition : str
        For the reader of the table.
    """

    of: Callable[[Waveform, lattice.Triplet, Judges, AudioConfig], float]
    unit: str
    higher_is_better: bool
    tiers: tuple[int, ...]
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
    """The items of the benchmark, the same for the same corpus, number of groups and seed.

    Parameters
    ----------
    corpus : Corpus
        Whose test tracks make the unpaired items.
    n_groups : int
        Groups of paired renderings; each gives two items to either tier.
    config : AudioConfig
    seed : int

    Returns
    -------
    dict of str to list of lattice.Triplet
        ``"tier 1"`` and ``"tier 2"``, 2 `n_groups` items each, and ``"unpaired"``, at most as many.
    """
    rendering = {"split": "test", "seed": seed, "sample_rate": config.sample_rate}
    triplets = lattice.triplets(n_groups, per_group=4, **rendering)
    found = {f"tier {k}": [t for t in triplets if t.tier == k] for k in (1, 2)}
    return found | {"unpaired": unpaired(corpus, n=2 * n_groups, config=config, seed=seed)}


def unpaired(
    corpus: Corpus, *, n: int, config: AudioConfig, seed: int = 0
) -> list[lattice.Triplet]:
    """Pairs of a corpus's test tracks from different genres, each track a content at most once.

    Parameters
    ----------
    corpus : Corpus
    n : int
        The most pairs that are wanted.
    config : AudioConfig
    seed : int

    Returns
    -------
    list of lattice.Triplet
        Of at most `UNPAIRED_SECONDS` s each, without truth and notes; their onsets are detected.
    """
    tracks = [t for t in corpus.split("test") if t.seconds >= SHORTEST_SECONDS]
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


def read_files(row: tables.Row, config: AudioConfig) -> tuple[lattice.Triplet, Waveform]:
    """Read the files of one row of a table: an item and an output to be scored.

    Parameters
    ----------
    row : tables.Row
    config : AudioConfig

    Returns
    -------
    item : lattice.Triplet
        Without notes and genres, so columns that need them stay empty; without a truth where the table
        names none.
    output : np.ndarray [shape=(n_samples,)]

    Raises
    ------
    InputError
        If a cell is empty, or its file cannot be used or is shorter than `SHORTEST_SECONDS`.
    """
    names = [*tables.WANTED, *(name for name in tables.OPTIONAL if row.cells[name])]
    files = {name: row.file(name) for name in names}
    clips = {name: audio.read_audio(file, config=config) for name, file in files.items()}
    for name, clip in clips.items():
        seconds = len(clip) / config.sample_rate
        if seconds < SHORTEST_SECONDS and name != "output":  # which gets the content's length
            raise InputError(
                f"{files[name]}: lasts {seconds:.2f} s, a {name} needs {SHORTEST_SECONDS} s to be scored"
            )
    truth = clips.get("truth")
    onsets = metrics.detected_onsets(clips["content"] if truth is None else truth, config)
    tier = UNPAIRED if truth is None else 2
    item = lattice.Triplet(clips["content"], clips["style"], truth, "", "", tier, None, onsets)
    return item, clips["output"]


# Methods ------------------------------------------------------------------------------------------


def as_method(
    model: GainTransfer,
    *,
    vocoder: str = "gain",
    zeroed: bool = False,
    device: str = "cpu",
    **corrections: float,
) -> Method:
    """A trained network and an output stage as a method of waveforms.

    Parameters
    ----------
    model : GainTransfer
    vocoder : str
        The output stage, one of `vocoding.VOCODERS`.
    zeroed : bool
        Whether the network gets zeros in place of the style clip's code, as an ablation.
    device : str
        Where `model` is.
    **corrections : float
        ``calibration`` and ``variance`` of `transfer.learned`, each from 0 to 1; by default those of
        `transfer.FOR_BANDS` for the output stage.

    Returns
    -------
    callable
        ``(content, style) -> waveform``.
    """
    corrections = transfer.FOR_BANDS[vocoder] | corrections
    if zeroed:
        prepare = _without_style(model, corrections["calibration"])
    else:
        prepare = transfer.learned(model, **corrections)
    return lambda content, style: transfer.transfer(
        content, style, method=prepare, vocoder=vocoder, device=device
    )


def _without_style(model: GainTransfer, calibration: float) -> Callable:
    """`transfer.learned` with zeros in place of the style clip's code, and without its variance."""

    def prepare(content, style):
        own = model.encode_style(content)
        nothing = StyleCode(*(torch.zeros_like(x) for x in own))
        return lambda log_mel: model.gain(log_mel, nothing, own, calibration=calibration)

    return prepare


def methods(
    models: dict[str, GainTransfer], config: AudioConfig, *, device: str = "cpu"
) -> dict[str, Method]:
    """The methods that answer quickly: trivial answers, the equaliser, musaicing and trained models.

    Parameters
    ----------
    models : dict of str to GainTransfer
        By the name of their rows. Each gives two rows: a gain on the content's STFT and, with
        ``", neural"`` after the name, its log-mel through the neural vocoder.
    config : AudioConfig
    device : str
        Where the models are.

    Returns
    -------
    dict of str to callable
    """
    return {
        COPY: lambda content, style: content,
        "copy style": lambda content, style: np.resize(style, len(content)),
        "LTAS-EQ": lambda content, style: transfer.transfer(
            content, style, method=transfer.ltas_eq, device=device
        ),
        "musaicing": lambda content, style: peers.musaicing(content, style, config),
        **{
            name + suffix: as_method(model, vocoder=vocoder, device=device)
            for name, model in models.items()
            for suffix, vocoder in STAGES.items()
        },
    }


def slow_peers(
    config: AudioConfig, *, iterations: int = 100, device: str = "cpu"
) -> dict[str, Method]:
    """Peers that fit a spectrogram or a waveform by descent: minutes a clip on a CPU.

    Parameters
    ----------
    config : AudioConfig
    iterations : int
        Of L-BFGS.
    device : str

    Returns
    -------
    dict of str to callable
        Named as in `SLOW`.
    """
    settings = {"iterations": iterations, "device": device}
    return {
        SLOW[0]: lambda content, style: peers.gram_random(content, style, config, **settings),
        SLOW[1]: lambda content, style: peers.gram_representations(
            content, style, config, **settings
        ),
    }


def chosen(named: dict[str, Method], names: Sequence[str] | None) -> dict[str, Method]:
    """Some of the methods, by name.

    Parameters
    ----------
    named : dict of str to callable
    names : sequence of str or None
        None for all.

    Raises
    ------
    InputError
        For a name that is not there; says which are.
    """
    if names is None:
        return named
    unknown = [name for name in names if name not in named]
    if unknown:
        raise InputError(f"unknown method {unknown[0]!r}: choose among {', '.join(named)}")
    return {name: named[name] for name in names}


def oracle(item: lattice.Triplet, config: AudioConfig, *, vocoder: str = "gain") -> Waveform:
    """What an output stage makes of the true log-mel: the part of a distance that it adds by itself.

    Parameters
    ----------
    item : lattice.Triplet
        With a truth.
    config : AudioConfig
    vocoder : str
        One of `vocoding.VOCODERS`. Those in `vocoding.FROM_LOG_MEL` get the log-mel as it is, the others
        as a gain on the content's STFT.

    Returns
    -------
    np.ndarray [shape=(n_samples,)]
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
    """Every column that applies to an output.

    Parameters
    ----------
    output : np.ndarray [shape=(n_samples,)]
        Cut or padded with silence to the content's length before it is scored.
    item : lattice.Triplet
    judges : Judges
    config : AudioConfig

    Returns
    -------
    dict of str to float
        By the names in `COLUMNS`.

    Raises
    ------
    ValueError
        If `output` has NaN or infinite samples.
    """
    output = _fitted(output, len(item.content))
    unknown = {"multi-pitch F": item.notes is None, "genre hit": not item.style_genre}
    return {
        name: float(column.of(output, item, judges, config))
        for name, column in COLUMNS.items()
        if item.tier in column.tiers and not unknown.get(name, False)
    }


def _fitted(output: Waveform, n_samples: int) -> Waveform:
    """Cut or padded with silence to `n_samples`."""
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
) -> Table:
    """Score methods, oracles and the truth on items.

    Parameters
    ----------
    items : sequence of lattice.Triplet
    named : dict of str to callable
        The methods.
    judges : Judges
    config : AudioConfig
    ablated : dict of str to callable, optional
        By the name of a method, that method without the style (``as_method(..., zeroed=True)``). Adds
        its row, and a row of the method with the style clip of another item; of a single item there is
        no other, and that row is left out.
    slow_items : int, optional
        The methods in `SLOW` get this many items, and of unpaired items the first alone; by default all.
    progress : callable, optional
        Called with a line of text.

    Returns
    -------
    dict of str to list of dict
        The table. Oracles and truth have rows where items have a truth.
    """
    table: Table = {}
    say = progress or (lambda line: None)
    if ablated and len(items) == 1:
        say("a single item: no other style clip, so no row with a shuffled style")
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
        others = {}
        for name, zeroed in (ablated or {}).items():
            if len(items) > 1:
                other = items[(i + len(items) // 2) % len(items)]
                others[f"{name}, shuffled style"] = named[name](item.content, other.style)
            others[f"{name}, zeroed style"] = zeroed(item.content, item.style)
        if item.truth is not None:
            others |= {f"oracle, {v}": oracle(item, config, vocoder=v) for v in ORACLES}
            others["truth"] = item.truth
        for name, output in others.items():
            table.setdefault(name, []).append(score(output, item, judges, config))
        table.setdefault("style's own halves", []).append(_halves_scores(item, judges, config))
        say(f"item {i + 1}/{len(items)}")
    return table


def _halves_scores(item: lattice.Triplet, judges: Judges, config: AudioConfig) -> dict[str, float]:
    """The style clip's first half scored against its second: what two excerpts of one recording reach."""
    middle = len(item.style) // 2
    output, rest = item.style[:middle], replace(item, style=item.style[middle:])
    against_style = ("timbre, no EQ", "cepstral covariance", "Gram")
    return {name: float(COLUMNS[name].of(output, rest, judges, config)) for name in against_style}


# Summary ------------------------------------------------------------------------------------------


def interval(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean, by the percentile bootstrap over items (Efron, 1979).

    Parameters
    ----------
    values : np.ndarray [shape=(n,)]
        Finite, one an item.
    seed : int
        Of the resampling.

    Returns
    -------
    low, high : float
        Twice the value if there is one alone.
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    settings = {"n_resamples": RESAMPLES, "method": "percentile", "rng": seed}
    low, high = bootstrap((values,), np.mean, **settings).confidence_interval
    return float(low), float(high)


def difference(table: Table, method: str, against: str, column: str) -> dict:
    """Differences `method` minus `against`, item by item: what makes an item hard for both falls out.

    Parameters
    ----------
    table : dict of str to list of dict
    method, against : str
        Names in `table`. A method with fewer rows than there are items has the first ones.
    column : str

    Returns
    -------
    dict
        ``mean``, ``interval`` (low, high; 95 %) and ``n`` over the items on which both are known;
        ``{"n": 0}`` if there are none.
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


def summary(table: Table) -> dict[str, dict[str, dict]]:
    """Mean and 95 % interval of every method and column, over the items where the value is finite.

    Parameters
    ----------
    table : dict of str to list of dict

    Returns
    -------
    dict
        ``{method: {column: entry}}``; an entry has ``mean``, ``interval`` and ``n``, and the interval of
        the paired ``difference`` to `COPY` where the table has that method.
    """
    result: dict[str, dict[str, dict]] = {}
    for method, rows in table.items():
        for column in dict.fromkeys(name for row in rows for name in row):
            entry = _estimate([row.get(column, np.nan) for row in rows])
            if not entry["n"]:
                continue
            if method != COPY and COPY in table:
                paired = difference(table, method, COPY, column)
                if paired["n"]:
                    entry["difference"] = paired["interval"]
            result.setdefault(method, {})[column] = entry
    return result


def write(path: Path, tables: dict[str, Table], facts: dict) -> None:
    """Write ``benchmark.json``: every item's scores, their summaries and the columns' definitions.

    Parameters
    ----------
    path : Path
    tables : dict of str to dict
        By the name of the split.
    facts : dict
        About the run, written as they are.

    Notes
    -----
    NaN and infinity become null, because JSON has no word for them.
    """
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


def describe(table: Table, columns: Sequence[str] | None = None) -> str:
    """A table as text: one line for each method, with the mean ± half the 95 % interval's width.

    Parameters
    ----------
    table : dict of str to list of dict
    columns : sequence of str, optional
        By default all that have values.

    Returns
    -------
    str
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
