"""Parts of a rendering that is too large for one machine, each a file that any machine can make.

Used by ``audiostyle data pairs`` and ``audiostyle pretrain transfer --pairs``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..config import AudioConfig
from ..errors import InputError
from ..models import checkpoint
from . import corpus, lattice


def part_of(n: int, shard: tuple[int, int]) -> range:
    """The items of `n` that belong to a part, (1, count) to (count, count); no two parts share one."""
    index, count = shard
    return range(n * (index - 1) // count, n * index // count)


def _facts(n_groups: int, split: str, seed: int, soundfonts: Sequence[Path]) -> dict:
    """All that the renderings depend on, beside the front end."""
    return {
        "bands": corpus.VERSION, "groups": n_groups, "split": split, "seed": seed,
        "soundfonts": [Path(f).name for f in soundfonts],
    }  # fmt: skip


def write_pairs(
    folder: Path,
    *,
    n_groups: int,
    shard: tuple[int, int],
    split: str,
    seed: int,
    config: AudioConfig,
    soundfonts: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render one part of the groups of `lattice.render_log_mels` and write their log-mels.

    Parameters
    ----------
    folder : Path
    n_groups : int
        Of all parts together.
    shard : (int, int)
        Which part of how many, from (1, count) to (count, count). A part that is complete stays.
    split, seed, config, soundfonts, progress
        As of `lattice.render_log_mels`.

    Returns
    -------
    Path
        ``<folder>/<split>-<index>-of-<count>.safetensors``.

    Raises
    ------
    InputError
        If there are more parts than groups.
    """
    index, count = shard
    if count > n_groups:
        raise InputError(f"{n_groups} groups are not enough for {count} parts")
    Path(folder).mkdir(parents=True, exist_ok=True)  # before what takes long
    path = Path(folder) / f"{split}-{index:05d}-of-{count:05d}.safetensors"
    facts = _facts(n_groups, split, seed, soundfonts)
    header = {"audio": config.to_dict(), "pairs": facts}
    if _read(path)[0] == config.to_dict() | facts:
        return path
    log_mels, genres = lattice.render_log_mels(
        part_of(n_groups, shard), split=split, seed=seed, config=config, soundfonts=soundfonts,
        progress=progress,
    )  # fmt: skip
    checkpoint.save(path, {"log_mels": log_mels, "genres": genres}, header)
    return path


def _read(path: Path) -> tuple[dict | None, Tensor | None]:
    """What a part depends on, and its log-mels; None for both if there is none, or it is damaged."""
    try:
        header = checkpoint.read_header(path)
        return {**header["audio"], **header["pairs"]}, checkpoint.read_tensors(path)["log_mels"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError):
        return None, None


def read_pairs(
    folder: Path,
    *,
    n_groups: int,
    split: str,
    seed: int,
    config: AudioConfig,
    soundfonts: Sequence[Path] = (),
    device: str = "cpu",
) -> Tensor:
    """Read what `write_pairs` wrote of all parts, the same as `lattice.render_log_mels` returns.

    Returns
    -------
    torch.Tensor [shape=(n_groups, SIZE, SIZE, n_mels, T)]
        On `device`.

    Raises
    ------
    InputError
        If a part is missing; names which.
        If a part is damaged, or was rendered with other settings; names them.
    """
    digits = "[0-9]" * 5
    files = sorted(Path(folder).glob(f"{split}-{digits}-of-{digits}.safetensors"))
    if not files:
        raise InputError(f"{folder}: no parts here; `audiostyle data pairs` renders them")
    count = int(files[0].stem.rsplit("-", 1)[1])
    names = [f"{split}-{k:05d}-of-{count:05d}.safetensors" for k in range(1, count + 1)]
    if missing := [n for n in names if not (Path(folder) / n).is_file()]:
        raise InputError(f"{folder}: {len(missing)} of {count} parts missing, first {missing[0]}")
    wanted = config.to_dict() | _facts(n_groups, split, seed, soundfonts)
    parts = []
    for name in names:
        made_of, log_mels = _read(Path(folder) / name)
        if made_of is None:
            raise InputError(
                f"{folder}/{name} is damaged: delete it and run `audiostyle data pairs` again"
            )
        others = [
            f"{k} {made_of.get(k)}, not {v}" for k, v in wanted.items() if made_of.get(k) != v
        ]
        if others:
            raise InputError(f"{folder}/{name} was rendered with {'; '.join(others)}"[:500])
        parts.append(log_mels.to(device))
    return torch.cat(parts)
