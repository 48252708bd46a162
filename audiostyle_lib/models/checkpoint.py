"""Checkpoints: safetensors with the front end, what made the model and the provenance in the header.

Apart from ``training`` so that ``transfer`` loads a model without loading the trainer.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import AudioConfig, choose_device, require_same_front_end
from ..errors import InputError
from ..paths import PRETRAINED, written_beside

LFS_POINTER = b"version https://git-lfs"


def save(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write `tensors` and the JSON-able `header`, beside and renamed."""
    from safetensors import torch as safetensors

    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {k: json.dumps(v) for k, v in header.items()}
    with written_beside(Path(path)) as temporary:
        # its save_file has temporary files of its own, which stay where a process is killed
        temporary.write_bytes(safetensors.save(tensors, metadata))


def read_header(path: Path) -> dict:
    """The header of a checkpoint without its tensors.

    Raises
    ------
    InputError
        If there is no such file, or it is no whole safetensors file; says what to do.
    """
    return _read_facts(Path(path))[0]


def _read_facts(path: Path) -> tuple[dict, dict[str, list[int]]]:
    """The header of a checkpoint and the shapes of its tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        ours = ", one of the weights that come with audiostyle: install it again"
        raise InputError(f"no checkpoint at {path}{ours if PRETRAINED in path.parents else ''}")
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise InputError(f"{path}: stands for a file in git-lfs: run `git lfs pull`")
    try:
        with safe_open(path, framework="pt") as file:
            header = {k: json.loads(v) for k, v in (file.metadata() or {}).items()}
            return header, {k: file.get_slice(k).get_shape() for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no checkpoint, or one that is cut short ({error})") from error


def read_tensors(path: Path, *, prefix: str = "") -> dict[str, Tensor]:
    """Tensors whose names begin with `prefix`, without the prefix."""
    from safetensors.torch import load_file

    return {k.removeprefix(prefix): v for k, v in load_file(path).items() if k.startswith(prefix)}


def load_model(
    path: Path, *, build: Callable[..., nn.Module], config: AudioConfig, device: str = "cpu"
) -> nn.Module:
    """Build the model that the header describes and load its weights, in evaluation mode.

    Parameters
    ----------
    path : Path
        A checkpoint that `training.loop.fit` or `store_pretrained` wrote.
    build : Callable
        Takes the header's ``model`` entry as keyword arguments, so weights of any width are loaded.
    config : AudioConfig
        The front end in use.
    device : str

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    ConfigMismatchError
        If the checkpoint was made for another front end.
    InputError
        If there is no such file, or it is no checkpoint, one of another kind of model, or damaged.
    """
    path = Path(path)
    header, shapes = _read_facts(path)
    if not all(isinstance(header.get(key), dict) for key in ("audio", "model")):
        raise InputError(f"{path}: does not say which model it is of")
    require_same_front_end(config, header["audio"], what=str(path))
    _require_same_model(build, header["model"], shapes, path)
    model = build(**header["model"])
    model.load_state_dict(read_tensors(path, prefix="model."))
    if not all(weight.isfinite().all() for weight in model.state_dict().values()):
        raise InputError(f"{path}: holds weights that are not finite: the file is damaged")
    return model.to(torch.device(choose_device(device))).eval()


class _Undrawn(TorchFunctionMode):
    """Leaves out what draws initial weights in place: without memory that would load torch's compiler."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = func.__name__
        in_place = args and name.endswith("_") and not name.endswith("__")
        return args[0] if in_place else func(*args, **(kwargs or {}))


def _require_same_model(build: Callable, sizes: dict, shapes: dict, path: Path) -> None:
    """Raise `InputError` unless a model of these sizes has the weights of these names and shapes.

    Found out without memory for the model, which a header could ask any amount of.
    """
    largest = max((max(shape, default=1) for shape in shapes.values()), default=0)
    numbers = [n for n in sizes.values() if isinstance(n, int)]
    try:
        if max(numbers, default=0) > 8 * max(largest, len(shapes)):
            raise ValueError(f"sizes {sizes} for weights of at most {largest}")
        with torch.device("meta"), _Undrawn(), warnings.catch_warnings(action="ignore"):
            wanted = {f"model.{k}": list(v.shape) for k, v in build(**sizes).state_dict().items()}
        found = {k: v for k, v in shapes.items() if k.startswith("model.")}
        if wanted != found:
            other = sorted(k for k in wanted | found if wanted.get(k) != found.get(k))
            raise ValueError(f"{len(other)} weights differ, first {other[0]}")
    except Exception as error:  # whatever a constructor makes of the header of another model
        raise InputError(f"{path}: holds another kind of model ({error})") from error


def store_pretrained(
    trained: Path, path: Path, *, command: str, part: str = "", before: Path | None = None
) -> None:
    """Keep a finished checkpoint as a pretrained model in half precision, and say so.

    Parameters
    ----------
    trained : Path
        A checkpoint of `training.loop.fit`.
    path : Path
        The .safetensors to write.
    command : str
        What was typed to make it; kept with the provenance.
    part : str
        Only this part of the model, such as the generator of two that were trained against each other.
    before : Path or None
        The checkpoint of a training that went before; its header is kept under ``before``.
    """
    prefix = f"model.{part}." if part else "model."
    tensors, header = read_tensors(trained, prefix=prefix), read_header(trained)
    header["provenance"] = header.get("provenance", {}) | {"command": command}
    if before is not None:
        header["before"] = read_header(before)
    save(path, {f"model.{k}": v.half() for k, v in tensors.items()}, header)
    print(f"{path}: written, {path.stat().st_size / 1e6:.1f} MB", flush=True)
