"""One visible training loop for every model, over Lightning Fabric: resumes, reports, checkpoints.

Used by notebooks 03 to 07. An epoch depends on (seed, epoch) only, so a run that is killed and
started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import ast
import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from ..models import checkpoint as ckpt

Step = Callable[[nn.Module, tuple], tuple[Tensor, dict[str, Tensor]]]


def code_sha256(*parts: object) -> str:
    """Hash of the code that decides what training gives; a change of it makes checkpoints stale.

    Of the library's modules in which `parts` (models, functions) are defined, and of those that
    every training uses. Comments and layout do not count.
    """
    inside = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
    used = {p.__module__ for p in [*parts, *inside]}
    own = {name.removeprefix(f"{__package__}.") for name in used if name.startswith(__package__)}
    digest = hashlib.sha256()
    for name in sorted(own | {"augment", "baselines", "features", "training"}):
        source = Path(__file__).parent.joinpath(*name.split(".")).with_suffix(".py").read_text()
        digest.update(ast.dump(ast.parse(source)).encode())
    return digest.hexdigest()


def minibatches(
    *tensors: Tensor, batch_size: int, seed: int, epoch: int
) -> Iterable[tuple[Tensor, ...]]:
    """Shuffled batches of resident tensors, the same for the same (seed, epoch)."""
    generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
    order = torch.randperm(len(tensors[0]), generator=generator).to(tensors[0].device)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        yield tuple(t[chosen] for t in tensors)


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


def _report(bar, label: str, epoch: int, epochs: int, latest: dict, seconds: float) -> None:
    values = {k: f"{v:.4f}" for k, v in latest.items()}
    if bar is not None:
        bar.update(1)
        bar.set_postfix(values)
        return
    text = "  ".join(f"{k} {v}" for k, v in values.items())
    left = seconds * (epochs - epoch)
    print(f"{label} epoch {epoch}/{epochs}  {text}  {seconds:.1f} s, {left:.0f} s left", flush=True)


def fit(
    model: nn.Module,
    *,
    step: Step,
    batches: Callable[[int], Iterable[tuple]],
    steps_per_epoch: int,
    epochs: int,
    path: Path,
    recipe: dict,
    config: AudioConfig,
    seed: int = 0,
    device: str = "cpu",
    lr: float = 1e-3,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    clip_norm: float | None = 1.0,
    warmup: int = 20,
    precision: str = "32-true",
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    label: str = "training",
    provenance: dict | None = None,
) -> dict[str, list[float]]:
    """Train `model` in place, checkpointing every epoch, and return the curves.

    Parameters
    ----------
    model : moved to `device`; left there, in evaluation mode
    step : (model, batch) -> (loss, {name: scalar tensor}); the names become curves ``train_<name>``
    batches : epoch -> iterable of batches already on `device`; the same for the same epoch
    steps_per_epoch : length of that iterable, for the learning-rate schedule
    path : checkpoint; a complete one of the same recipe is loaded instead of trained, an incomplete
        one is continued, one of another recipe is overwritten
    recipe : JSON-able facts the result depends on (corpus hash, sizes); ``recipe["model"]`` holds
        the keyword arguments that rebuild the model. Epochs, seed, optimiser settings and a hash of
        the code are added.
    betas : of AdamW
    clip_norm : largest gradient norm, None for no clipping
    precision : of Fabric; "bf16-mixed" is for a GPU
    evaluate : model -> {name: value} after every epoch; names become curves

    Returns
    -------
    dict of lists, one value an epoch: ``train_loss``, ``grad_norm``, ``train_<name>``, evaluated names
    """
    from lightning_fabric import Fabric

    place = torch.device(device)
    fabric = Fabric(
        accelerator=place.type,
        devices=1 if place.index is None else [place.index],
        precision=precision,
    )
    recipe = {
        **recipe,
        "code": code_sha256(model, step, batches),
        "epochs": epochs,
        "seed": seed,
        "lr": lr,
        "weight_decay": weight_decay,
        "betas": list(betas),
        "clip_norm": clip_norm,
    }
    model.to(device)  # before the optimiser's state is restored, which goes where the weights are
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, weight_decay=weight_decay, betas=betas, fused=True
    )
    curves, done = _resume(model, optimizer, Path(path), recipe, epochs)
    if done == epochs:
        print(f"{label}: {epochs} epochs found in {Path(path).name}, not trained again")
        model.eval()
        return curves
    module, optimizer = fabric.setup(model, optimizer)
    total = steps_per_epoch * epochs
    bar = _bar(label, epochs, done)
    for epoch in range(done, epochs):
        started = time.perf_counter()
        latest = _train_epoch(
            fabric, module, optimizer, step, batches(epoch), epoch, seed,
            first_step=epoch * steps_per_epoch, total=total, warmup=warmup, lr=lr,
            clip_norm=clip_norm,
        )  # fmt: skip
        if evaluate is not None:
            module.eval()
            with torch.no_grad():
                latest |= evaluate(model)
        for name, value in latest.items():
            curves.setdefault(name, []).append(float(value))
        complete = epoch + 1 == epochs
        tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
        if not complete:
            tensors |= _optimizer_tensors(optimizer)
        header = {"audio": config.to_dict(), "model": recipe["model"], "recipe": recipe}
        header |= {"epoch": epoch + 1, "curves": curves, "provenance": provenance or {}}
        ckpt.save(Path(path), tensors, header)
        _report(bar, label, epoch + 1, epochs, latest, time.perf_counter() - started)
    model.eval()
    return curves


def _resume(model, optimizer, path: Path, recipe: dict, epochs: int) -> tuple[dict, int]:
    """Load what an earlier run of the same recipe left: (curves, epochs done)."""
    import json

    if not path.is_file():
        return {}, 0
    header = ckpt.read_header(path)
    if header.get("recipe") != json.loads(json.dumps(recipe)):
        return {}, 0
    model.load_state_dict(ckpt.read_tensors(path, prefix="model."))
    if header["epoch"] < epochs:
        _restore_optimizer(optimizer, ckpt.read_tensors(path, prefix="optimizer."))
    return header["curves"], header["epoch"]


def _train_epoch(
    fabric, module, optimizer, step, batches, epoch, seed, *,
    first_step, total, warmup, lr, clip_norm,
) -> dict[str, float]:  # fmt: skip
    """One pass over `batches`; means of loss, gradient norm and metrics, read once at the end."""
    module.train()
    torch.manual_seed(seed * 100_003 + epoch)
    sums: dict[str, Tensor] = {}
    n = 0
    for n, batch in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = lr * _cosine_schedule(first_step + n - 1, total, warmup)
        loss, metrics = step(module, batch)
        fabric.backward(loss)
        limit = clip_norm if clip_norm is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(module.parameters(), limit)
        optimizer.step()
        optimizer.zero_grad()
        values = {"train_loss": loss, "grad_norm": norm}
        values |= {f"train_{k}": v for k, v in metrics.items()}
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value.detach()
    return {name: float(value / n) for name, value in sums.items()}
