"""One training loop for every model, over Lightning Fabric: it resumes, reports and keeps checkpoints.

An epoch depends on (seed, epoch) only, so a training that is killed and started again ends with the same
weights as one that was not. Used by every notebook that trains, ``notebooks/03_failed_resnet.ipynb`` to
``notebooks/10_future_work.ipynb``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..config import AudioConfig, rehearsed_steps
from ..errors import InputError
from ..models import checkpoint as ckpt
from .fingerprint import fingerprint

Step = Callable[[nn.Module, tuple], tuple[Tensor, dict[str, Tensor]]]
SAME = "same model, code, data and settings"


def _cosine_schedule(step: int, total: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.495 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": v for i, entry in state.items() for k, v in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _bar(label: str, epochs: int, start: int):
    """A progress bar where someone watches (``AUDIOSTYLE_BATCH`` unset), else None."""
    if os.environ.get("AUDIOSTYLE_BATCH") or "ipykernel" not in sys.modules:
        return None
    from tqdm.auto import tqdm

    return tqdm(total=epochs, initial=start, desc=label, unit="epoch")


def _values(latest: dict[str, float]) -> str:
    return ", ".join(f"{k.removeprefix('train_')} {v:.4g}" for k, v in latest.items())


def _report(bar, label: str, epoch: int, epochs: int, latest: dict, seconds: float) -> None:
    """Say how far a training is, in a line that the next one takes the place of."""
    if bar is not None:
        bar.update(1)
        bar.set_postfix_str(_values(latest))
        return
    left = seconds * (epochs - epoch)
    line = f"{label} epoch {epoch}/{epochs}: {_values(latest)}, {left:.0f} s left"
    print(line, end="\r", flush=True)


def _summary(label: str, steps: int, curves: dict[str, list[float]], found: str = "") -> str:
    """The one line that a training leaves: its budget and where it arrived."""
    last = {k: v[-1] for k, v in curves.items() if k not in ("seconds", "grad_norm")}
    return (
        f"{label}: {steps} steps in {sum(curves.get('seconds', ())):.0f} s{found}; {_values(last)}"
    )


def fit(
    model: nn.Module,
    *,
    step: Step,
    batches: Callable[[int], Iterable[tuple]],
    steps: int,
    steps_per_epoch: int,
    path: Path,
    arguments: dict,
    data: dict,
    config: AudioConfig,
    seed: int = 0,
    device: str = "cpu",
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    clip_norm: float | None = 1.0,
    warmup: int = 20,
    precision: str = "32-true",
    cuda_graph: bool = False,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    label: str = "training",
    provenance: dict | None = None,
) -> dict[str, list[float]]:
    """Train `model` in place, checkpointing every epoch, and return the curves.

    A complete checkpoint at `path` is loaded instead of training again, and an incomplete one is
    continued, if everything that made it is the same: the model with its initial weights, the code of
    `step`, `batches` and `evaluate` with all that they name (see `fingerprint`), `data` and every
    setting. Otherwise the model is trained from the beginning and the checkpoint is overwritten. One
    line says what was found and why it is used, or what differs. A damaged checkpoint is trained again.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to `device`; left there, in evaluation mode.
    step : Callable
        (model, batch) -> (loss, {name: scalar tensor}); the names become curves ``train_<name>``.
    batches : Callable
        epoch -> iterable of at least `steps_per_epoch` batches that are already on `device`; always the
        same ones for the same epoch.
    steps : int
        Length of the training in batches.
    steps_per_epoch : int
        Batches of an epoch; the last epoch is shorter where `steps` is not a multiple.
    path : Path
        Of the checkpoint.
    arguments : dict
        Keyword arguments that rebuild the model, for `checkpoint.load_model`; JSON-able.
    data : dict
        What tells the data apart from other data, such as a corpus's hash; JSON-able.
    config : AudioConfig
        Front end of the data.
    seed : int
        Of what the model draws during training, such as dropout.
    device : str
        "cpu" or "cuda". Under ``fabric run``, which starts a process a device on one or more nodes,
        each process takes its own device and its share of every batch, and gradients are averaged; the
        result is that of one process, but for rounding and for what is drawn inside the model.
    lr : float
        Highest learning rate; `warmup` steps lead up to it, half a cosine leads down to 1 % of it.
    weight_decay : float
    betas : tuple of float
        Of AdamW.
    clip_norm : float or None
        Largest gradient norm, None for no clipping.
    warmup : int
        In steps.
    precision : str
        Of Fabric; "bf16-mixed" is for a GPU.
    cuda_graph : bool
        On one GPU, record a step once and replay it. Only for a `step` that does the same operations
        for every batch of one shape and never waits for the GPU, and for batches of tensors.
    evaluate : Callable or None
        model -> {name: value} after every epoch; the names become curves.
    label : str
        How the lines that are printed begin.
    provenance : dict or None
        Kept in the checkpoint for the reader.

    Returns
    -------
    dict of str to list of float
        One value an epoch: ``train_loss``, ``grad_norm``, ``train_<name>``, what `evaluate` names, and
        ``seconds``, how long the epoch took when it was trained.

    Raises
    ------
    ValueError
        If `batches` gives fewer than it should.

    Notes
    -----
    With ``AUDIOSTYLE_REHEARSE=20`` in the environment no training has more than 20 steps, in two epochs.
    The checkpoint's header keeps what was asked for and what a step and an evaluation took, so that
    ``audiostyle reproduce --rehearse 20`` can say how long the whole run would be.
    """
    path, asked = Path(path), {"steps": steps, "epochs": -(-steps // steps_per_epoch)}
    if rehearsed := rehearsed_steps():
        steps = min(steps, rehearsed)
        steps_per_epoch = min(steps_per_epoch, -(-steps // 2))
    settings = {
        "steps": steps, "steps_per_epoch": steps_per_epoch, "seed": seed, "lr": lr,
        "weight_decay": weight_decay, "betas": betas, "clip_norm": clip_norm, "warmup": warmup,
        "precision": precision, "front end": config.to_dict(), "torch": torch.__version__,
    }  # fmt: skip
    made_of = {
        "model": fingerprint(model, arguments),
        "code": fingerprint(step, batches, evaluate, _train_epoch, _one_step),
        "data": data,
        **settings,
    }
    made_of = json.loads(json.dumps(made_of))  # as it will be read
    fabric = _fabric(torch.device(device), precision)
    # before the optimiser's state is restored, which goes where the weights are
    model.to(fabric.device)
    replayed = cuda_graph and fabric.device.type == "cuda" and fabric.world_size == 1
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(lr, device=fabric.device) if replayed else lr,
        weight_decay=weight_decay, betas=betas, fused=True, capturable=replayed,
    )  # fmt: skip
    epochs = -(-steps // steps_per_epoch)
    say = print if fabric.is_global_zero else _silent
    curves, done = _resume(model, optimizer, path, made_of, epochs, label, say)
    fabric.barrier()  # nobody writes before all have read
    if done == epochs:
        model.eval()
        say(_summary(label, steps, curves, f" (found in {path.name}: {SAME})"), flush=True)
        return curves
    module, optimizer = fabric.setup(model, optimizer)
    parts = {"fabric": fabric, "module": module, "optimizer": optimizer}
    one_step = partial(_one_step, **parts, step=step, clip_norm=clip_norm)
    if replayed:
        one_step = _Replayed(one_step)
    bar = _bar(label, epochs, done)
    for epoch in range(done, epochs):
        started = time.perf_counter()
        first = epoch * steps_per_epoch
        latest = _train_epoch(
            one_step, batches(epoch), **parts, epoch=epoch, seed=seed, first=first,
            last=min(steps, first + steps_per_epoch), total=steps, warmup=warmup, lr=lr,
        )  # fmt: skip
        trained = time.perf_counter() - started
        if evaluate is not None:
            module.eval()
            with torch.no_grad():
                latest |= evaluate(model)
        seconds = time.perf_counter() - started
        n_steps = min(steps, first + steps_per_epoch) - first
        cost = {"step": trained / n_steps, "evaluation": seconds - trained}
        for name, value in (latest | {"seconds": seconds}).items():
            curves.setdefault(name, []).append(float(value))
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        if epoch + 1 < epochs:
            tensors |= _optimizer_tensors(optimizer)
        header = {"audio": config.to_dict(), "model": arguments, "made_of": made_of}
        header |= {"epoch": epoch + 1, "curves": curves, "provenance": provenance or {}}
        header |= {"seconds": cost, "asked": asked}
        header["notebook"] = os.environ.get("AUDIOSTYLE_NOTEBOOK", "")
        if fabric.is_global_zero:
            ckpt.save(path, tensors, header)
            _report(bar, label, epoch + 1, epochs, latest, seconds)
    fabric.barrier()
    model.eval()
    say(_summary(label, steps, curves), flush=True)
    return curves


def _silent(*_, **__) -> None:
    """What the processes beside the first one print."""


def _fabric(place: torch.device, precision: str):
    """One device, or as many as ``fabric run`` started this process for, each a share of every batch."""
    from lightning_fabric import Fabric

    if not os.environ.get("LT_CLI_USED"):
        devices = 1 if place.index is None else [place.index]
        return Fabric(accelerator=place.type, devices=devices, precision=precision)
    return Fabric(precision=precision)


def _share(batch, fabric) -> tuple[tuple, float]:
    """This process's part of a batch, and the part's size over the mean size.

    Raises
    ------
    InputError
        If there are more processes than items.
    """
    from lightning_utilities.core.apply_func import apply_to_collection

    if fabric.world_size == 1:
        return batch, 1.0
    sizes = []

    def part(x: Tensor) -> Tensor:
        if x.ndim == 0:
            return x
        sizes.append(len(x))
        return x[fabric.global_rank :: fabric.world_size].to(fabric.device)

    mine = apply_to_collection(batch, Tensor, part)
    n = sizes[0]
    if n < fabric.world_size:
        raise InputError(f"{fabric.world_size} processes cannot share a batch of {n}")
    return mine, len(range(fabric.global_rank, n, fabric.world_size)) * fabric.world_size / n


def _resume(
    model: nn.Module, optimizer, path: Path, made_of: dict, epochs: int, label: str, say=print
) -> tuple[dict, int]:
    """Load what an earlier training left that was made of the same: (curves, epochs done).

    A damaged checkpoint, such as a copy that was cut, is said and counts as none.
    """
    if not path.is_file():
        return {}, 0
    try:
        header = ckpt.read_header(path)
        other = ", ".join(_differences(dict(header.get("made_of", {})), made_of))
        if other:
            say(f"{label}: {path.name} was made with another {other}: trained again", flush=True)
            return {}, 0
        done, curves = header["epoch"], header["curves"]
        weights = ckpt.read_tensors(path, prefix="model.")
        state = ckpt.read_tensors(path, prefix="optimizer.") if done < epochs else {}
        _require_whole(done, epochs, curves, weights, state, model)
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        say(f"{label}: {path.name} is damaged ({reason}): trained again", flush=True)
        return {}, 0
    model.load_state_dict(weights)
    if done < epochs:
        _restore_optimizer(optimizer, state)
        say(
            f"{label}: {done} of {epochs} epochs found in {path.name}, continued: {SAME}",
            flush=True,
        )
    return curves, done


def _require_whole(
    done: int, epochs: int, curves: dict, weights: dict, state: dict, model: nn.Module
) -> None:
    """Raise `ValueError` if a checkpoint lacks something or holds something else."""
    if done not in range(1, epochs + 1) or any(len(values) != done for values in curves.values()):
        raise ValueError("its epochs and curves do not agree")
    if {k: v.shape for k, v in weights.items()} != {
        k: v.shape for k, v in model.state_dict().items()
    }:
        raise ValueError("its tensors are not those of the model")
    shapes = [p.shape for p in model.parameters()]
    expected = {}
    for i in {name.split(".")[0] for name in state}:
        shape = shapes[int(i)]
        expected |= {f"{i}.step": torch.Size(), f"{i}.exp_avg": shape, f"{i}.exp_avg_sq": shape}
    if {name: value.shape for name, value in state.items()} != expected:
        raise ValueError("its optimiser's state is not that of the model")


def _differences(old: dict, new: dict) -> Iterator[str]:
    """Names of the entries that differ, with both values where they are short."""
    for name in old | new:
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b)
        elif a != b:
            is_short = all(len(str(x)) <= 20 for x in (a, b))
            yield f"{name} ({a}, now {b})" if is_short else name


def _one_step(batch, *, fabric, module, optimizer, step, clip_norm) -> dict[str, Tensor]:
    """Forward, backward and the optimiser's step; loss, gradient norm and metrics of the batch."""
    mine, weight = _share(batch, fabric)
    loss, metrics = step(module, mine)
    fabric.backward(loss * weight)  # the mean over processes is that of the whole batch
    limit = clip_norm if clip_norm is not None else float("inf")
    norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
    optimizer.step()
    optimizer.zero_grad()
    values = {"train_loss": loss} | {f"train_{k}": v for k, v in metrics.items()}
    return {k: v.detach() * weight for k, v in values.items()} | {"grad_norm": norm}


class _Replayed:
    """A step on a GPU that is recorded once as a CUDA graph and then replayed.

    Small networks wait for the launches of their many small kernels; a graph has one launch. The first
    batch of a shape is a step like any other, since it creates what a recording cannot: the optimiser's
    state and the libraries' workspaces.
    """

    def __init__(self, one_step: Callable[[tuple], dict[str, Tensor]]):
        self.one_step, self.seen, self.recorded = one_step, set(), {}

    def __call__(self, batch: tuple) -> dict[str, Tensor]:
        tensors, structure = tree_flatten(batch)
        shapes = tuple((x.shape, x.dtype) for x in tensors)
        if shapes not in self.seen:
            self.seen.add(shapes)
            return self.one_step(batch)
        if shapes not in self.recorded:
            fixed, graph = [x.clone() for x in tensors], torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):  # runs nothing yet
                values = self.one_step(tree_unflatten(fixed, structure))
            self.recorded[shapes] = graph, fixed, values
        graph, fixed, values = self.recorded[shapes]
        for place, x in zip(fixed, tensors, strict=True):
            place.copy_(x)
        graph.replay()
        return values


def _train_epoch(
    one_step, batches, *, module, optimizer, fabric, epoch, seed, first, last, total, warmup, lr
) -> dict[str, float]:
    """Steps `first` to `last`; means of loss, gradient norm and metrics, read once at the end."""
    module.train()
    torch.manual_seed(seed * 100_003 + epoch)
    sums: dict[str, Tensor] = {}
    done = first
    for done, batch in enumerate(islice(batches, last - first), start=first + 1):
        _set_learning_rate(optimizer, lr * _cosine_schedule(done - 1, total, warmup))
        for name, value in one_step(batch).items():
            sums[name] = sums.get(name, 0.0) + value
    if done < last:
        raise ValueError(f"epoch {epoch} has {done - first} batches instead of {last - first}")
    means = fabric.all_reduce(torch.stack([v.float() for v in sums.values()]), reduce_op="mean")
    return dict(zip(sums, (means / (last - first)).tolist(), strict=True))


def _set_learning_rate(optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # where a graph reads it
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
