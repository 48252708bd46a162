"""Checkpoints: safetensors with the front end, what made the model and the provenance in the header.

Apart from ``training`` so that ``transfer`` loads a model without loading the trainer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AudioConfig, require_same_front_end
from ..paths import written_beside


def save(path: Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write `tensors` and the JSON-able `header`, beside and renamed."""
    from safetensors import torch as safetensors

    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    metadata = {k: json.dumps(v) for k, v in header.items()}
    with written_beside(Path(path)) as temporary:
        # its save_file has temporary files of its own, which stay where a process is killed
        temporary.write_bytes(safetensors.save(tensors, metadata))


def read_header(path: Path) -> dict:
    """The header of a checkpoint without its tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {k: json.loads(v) for k, v in (file.metadata() or {}).items()}


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
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no checkpoint, or one of another kind of model.
    """
    path = Path(path)
    from safetensors import SafetensorError

    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        header = read_header(path)
    except SafetensorError:
        raise ValueError(f"{path.name} is no checkpoint") from None
    if not {"audio", "model"} <= header.keys():
        raise ValueError(f"{path.name} does not say which model it is of")
    require_same_front_end(config, header["audio"], what=path.name)
    try:
        model = build(**header["model"])
        model.load_state_dict(read_tensors(path, prefix="model."))
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path.name} holds another kind of model") from error
    return model.to(torch.device(device)).eval()


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
