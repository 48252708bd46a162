"""A run that is killed ends like one that was not; checkpoints say what they are."""

from __future__ import annotations

import json
import struct
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from audiostyle_lib.config import AudioConfig, ConfigMismatchError
from audiostyle_lib.errors import InputError
from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.style import CNNStylePredictor
from audiostyle_lib.paths import NOTEBOOKS
from audiostyle_lib.signal.features import Standardizer
from audiostyle_lib.training import loop
from audiostyle_lib.training.batches import minibatches

EPOCHS, STEPS = 4, 5
GENERATOR = torch.Generator().manual_seed(7)
INPUTS = torch.randn(40, 6, generator=GENERATOR)
MATRIX, OFFSET = torch.randn(6, 3, generator=GENERATOR), torch.tensor([1.0, -2.0, 0.5])
TARGETS = INPUTS @ MATRIX + OFFSET


class Small(nn.Module):
    """With dropout, so that the state of the random generator matters, and a buffer."""

    def __init__(self, *, hidden: int = 8, dropout: float = 0.3):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.layers = nn.Sequential(
            nn.Linear(6, hidden), nn.Tanh(), nn.Dropout(dropout), nn.Linear(hidden, 3)
        )

    def forward(self, x):
        self.calls += 1
        return self.layers(x)


class Killed(Exception):
    pass


def squared_error(model, batch):
    x, y = batch
    loss = (model(x) - y).square().mean()
    return loss, {"twice": 2 * loss}


def fit(path: Path, *, step=squared_error, evaluate=None, batches=None, model=None, **changes):
    seed = changes.get("seed", 3)
    torch.manual_seed(99)  # the same initial weights, whatever happened before
    model = model or Small()
    settings = {
        "steps": EPOCHS * STEPS,
        "steps_per_epoch": STEPS,
        "lr": 1e-2,
        "warmup": 3,
        "arguments": {"hidden": 8},
        "data": {"corpus": "abc"},
        "config": AudioConfig(),
        "seed": seed,
        **changes,
    }
    curves = loop.fit(
        model,
        step=step,
        batches=batches
        or (lambda epoch: minibatches(INPUTS, TARGETS, batch_size=8, seed=seed, epoch=epoch)),
        path=path,
        evaluate=evaluate,
        **settings,
    )
    return model, curves


def assert_same(one, other):
    (model, curves), (other_model, other_curves) = one, other
    for name, value in model.state_dict().items():
        assert torch.equal(value, other_model.state_dict()[name]), name
    assert without_times(curves) == without_times(other_curves)


def without_times(curves):
    return {name: values for name, values in curves.items() if name != "seconds"}


def weight(model):
    return {"weight": float(model.layers[0].weight.sum())}


def kill_at(call: int, function):
    """`function`, which is no part of the training's code, killed at its `call`-th call."""
    calls = []

    def dying(*arguments, **settings):
        calls.append(0)
        if len(calls) == call:
            raise Killed
        return function(*arguments, **settings)

    return dying


# Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_killed_between_epochs_ends_the_same(tmp_path, monkeypatch, capsys, killed_after):
    whole = fit(tmp_path / "whole.safetensors", evaluate=weight)
    path = tmp_path / "killed.safetensors"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", kill_at(killed_after + 1, checkpoint.save))
        fit(path, evaluate=weight)
    assert path.is_file() == (killed_after > 0)
    if killed_after:
        assert checkpoint.read_header(path)["epoch"] == killed_after
    torch.rand(17)  # another process: the generator stands elsewhere
    capsys.readouterr()
    assert_same(fit(path, evaluate=weight), whole)
    found = f"{killed_after} of 4 epochs found in killed.safetensors, continued: same model, code"
    assert (found in capsys.readouterr().out) == (killed_after > 0)
    stored = [
        (checkpoint.read_header(f), checkpoint.read_tensors(f)) for f in sorted(tmp_path.iterdir())
    ]
    for header, _ in stored:
        header["curves"] = without_times(header["curves"])
        assert header.pop("seconds")["step"] > 0
    assert stored[0][0] == stored[1][0] and stored[0][1].keys() == stored[1][1].keys()


def test_killed_inside_an_epoch_ends_the_same(tmp_path, monkeypatch, capsys):
    whole = fit(tmp_path / "whole.safetensors")
    path = tmp_path / "killed.safetensors"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        clip = kill_at(2 * STEPS + 3, nn.utils.clip_grad_norm_)
        patch.setattr(nn.utils, "clip_grad_norm_", clip)
        fit(path)
    assert_same(fit(path), whole)
    assert "2 of 4 epochs found" in capsys.readouterr().out


def test_killed_while_saving_keeps_the_epoch_before(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole.safetensors")
    path, saved = tmp_path / "killed.safetensors", []
    save = checkpoint.save

    def dying_save(target, tensors, header):
        saved.append(0)
        if len(saved) == 3:
            monkeypatch.setattr(Path, "write_bytes", half_written)
        save(target, tensors, header)

    def half_written(target, data):
        target.write_text("half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dying_save)
        with pytest.raises(Killed):
            fit(path)
    monkeypatch.undo()
    assert checkpoint.read_header(path)["epoch"] == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == [path.name, "whole.safetensors"]
    assert_same(fit(path), whole)


def test_a_training_has_as_many_steps_as_asked(tmp_path):
    """Also where that is no multiple of an epoch."""
    seen = []

    def counted(model, batch):
        seen.append(float(batch[0][0, 0]))
        return squared_error(model, batch)

    _, curves = fit(tmp_path / "m.safetensors", step=counted, steps=3 * STEPS + 2)
    assert len(seen) == 3 * STEPS + 2 and len(curves["train_loss"]) == 4


def test_too_few_batches_are_no_training(tmp_path):
    with pytest.raises(ValueError, match="epoch 0 has 5 batches instead of 6"):
        fit(tmp_path / "m.safetensors", steps_per_epoch=STEPS + 1)


# Found again ------------------------------------------------------------------------------------

NOTEBOOK = """
import torch
from audiostyle_lib.training.batches import minibatches

WEIGHT = 1.0

class Net(torch.nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(6, hidden), torch.nn.Linear(hidden, 3)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))

def weigh(error):
    return WEIGHT * error.square().mean()

def step(model, batch):
    x, y = batch
    return weigh(model(x) - y), {}

def batches_of(size):
    return lambda epoch: minibatches(inputs, targets, batch_size=size, seed=0, epoch=epoch)

def evaluate(model):
    return {"error": float((model(inputs) - targets).abs().mean())}
"""


def run_notebook(path, *, source=NOTEBOOK, inputs=INPUTS, hidden=8, batch_size=8, **changes):
    """Train what the cells of a notebook define; returns the curves."""
    cells = {"__name__": "__main__", "inputs": inputs, "targets": TARGETS}
    exec(source, cells)
    torch.manual_seed(99)
    return fit(
        path, model=cells["Net"](hidden), arguments={"hidden": hidden}, step=cells["step"],
        batches=cells["batches_of"](batch_size), evaluate=cells["evaluate"], **changes,
    )[1]  # fmt: skip


def edited(old: str, new: str) -> dict:
    assert old in NOTEBOOK
    return {"source": NOTEBOOK.replace(old, new)}


OTHER_INPUTS = INPUTS.clone()
OTHER_INPUTS[3, 2] += 0.1


CHANGES = {
    "steps": ({"steps": 18}, "steps (20, now 18)"),
    "steps an epoch": ({"steps_per_epoch": 4}, "steps_per_epoch (5, now 4)"),
    "batch size": ({"batch_size": 10, "steps_per_epoch": 4}, "code, steps_per_epoch (5, now 4)"),
    "precision": ({"precision": "bf16-mixed"}, "precision (32-true, now bf16-mixed)"),
    "warm-up": ({"warmup": 4}, "warmup (3, now 4)"),
    "seed": ({"seed": 4}, "seed (3, now 4)"),
    "learning rate": ({"lr": 2e-2}, "lr (0.01, now 0.02)"),
    "weight decay": ({"weight_decay": 0.0}, "weight_decay (0.01, now 0.0)"),
    "betas": ({"betas": (0.8, 0.9)}, "betas ([0.9, 0.999], now [0.8, 0.9])"),
    "clipping": ({"clip_norm": None}, "clip_norm (1.0, now None)"),
    "corpus": ({"data": {"corpus": "another"}}, "corpus (abc, now another)"),
    "front end": ({"config": AudioConfig(hop_length=256)}, "hop_length (512, now 256)"),
    "data": ({"inputs": OTHER_INPUTS}, "code"),
    "width": ({"hidden": 9}, "model"),
    "activation": (edited("torch.tanh", "torch.relu"), "model"),
    "initial weights": (edited("torch.nn.Linear(hidden, 3)", "torch.nn.Linear(hidden, 3)\n"
                               "        torch.nn.init.zeros_(self.outer.bias)"), "model"),
    "loss": (edited("error.square()", "error.abs()"), "code"),
    "constant": (edited("WEIGHT = 1.0", "WEIGHT = 2.0"), "code"),
    "batches": (edited("epoch=epoch)", "epoch=epoch + 1)"), "code"),
    "number in the code": (edited("seed=0,", "seed=1,"), "code"),
    "evaluation": (edited(".abs().mean()", ".abs().max()"), "code"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_every_input_that_changes_by_itself_trains_again(tmp_path, capsys, change, said):
    path = tmp_path / "model.safetensors"
    run_notebook(path)
    capsys.readouterr()
    changed = run_notebook(path, **change)
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"training: model.safetensors was made with another {said}: trained again"
    fresh = run_notebook(tmp_path / "fresh.safetensors", **change)
    assert without_times(changed) == without_times(fresh)
    capsys.readouterr()
    assert changed == run_notebook(path, **change)
    assert "(found in " in capsys.readouterr().out


@pytest.mark.parametrize(
    "same",
    [
        {},
        edited("    x, y = batch", "    # of both\n    x, y = batch  # tensors"),
        edited("    x, y = batch", '    """Loss of a batch."""\n    x, y = batch'),
        edited("    def forward", '    """A network."""\n\n    def forward'),
        edited("x, y = batch\n", "x, y = batch\n\n\n"),
        edited("def weigh(error):", "def weigh(error: torch.Tensor) -> torch.Tensor:"),
    ],
    ids=["nothing", "comment", "docstring", "class docstring", "blank lines", "type hints"],
)
def test_what_does_not_count_is_found_again(tmp_path, capsys, monkeypatch, same):
    path = tmp_path / "model.safetensors"
    curves = run_notebook(path)
    capsys.readouterr()
    monkeypatch.setattr(checkpoint, "save", None)  # nothing is trained or written
    assert run_notebook(path, **same) == curves
    line = capsys.readouterr().out
    assert "(found in model.safetensors: same model, code, data and settings)" in line
    assert line.count("\n") == 1


def test_a_checkpoint_of_before_there_were_fingerprints_is_no_match(tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    model, _ = fit(path)
    header = checkpoint.read_header(path)
    del header["made_of"]
    checkpoint.save(path, {f"model.{k}": v for k, v in model.state_dict().items()}, header)
    capsys.readouterr()
    fit(path)
    assert "made with another model, code, " in capsys.readouterr().out


def test_exercise_2_of_notebook_06_changes_the_curves(tmp_path, capsys):
    """Its own cells, on a few made-up segments."""
    wanted = ("def fit(model, name", "def cnn_batches", "def cnn_step", "cnn_curves = fit(")
    cells = json.loads((NOTEBOOKS / "06_style_encoder.ipynb").read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    code = "\n".join(next(c for c in code if start in c) for start in wanted)
    instruction = ('f["train"][wanted]', 'f["train"][heard]')
    assert instruction[0] in code

    def curves(source):
        generator = torch.Generator().manual_seed(0)
        run = types.SimpleNamespace(
            device="cpu", corpus=types.SimpleNamespace(sha256="abc"), provenance=dict,
            checkpoint=lambda name: tmp_path / f"{name}.safetensors",
        )  # fmt: skip
        names = {
            "__name__": "__main__", "torch": torch, "loop": loop, "run": run, "seed": 0,
            "CNNStylePredictor": CNNStylePredictor, "config": AudioConfig(),
            "p": types.SimpleNamespace(epochs=2, steps_per_epoch=6),
            "members": {"train": [torch.arange(3 * i, 3 * i + 3) for i in range(4)]},
            "mel": {"train": torch.randn(12, 128, 100, generator=generator)},
            "f": {"train": torch.randn(12, 5, generator=generator)},
            "cnn_sizes": {"n_features": 5, "n_mels": 128, "channels": 4, "dim": 4},
            "standardize": Standardizer(5),
            "following": lambda split: torch.arange(12).roll(-1),
        }  # fmt: skip
        exec(source, names)
        return names["cnn_curves"]

    before = curves(code)
    assert curves(code) == before
    assert "(found in " in capsys.readouterr().out
    after = curves(code.replace(*instruction))
    assert "style_cnn.safetensors was made with another code: trained" in capsys.readouterr().out
    assert after["train_loss"] != before["train_loss"]


# Checkpoints ----------------------------------------------------------------------------------


def test_checkpoint_is_safetensors_with_everything_in_the_header(tmp_path):
    path = tmp_path / "model.safetensors"
    _, curves = fit(path, provenance={"commit": "abc123"})
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])  # JSON, so nothing is unpickled
    stored = {k: json.loads(v) for k, v in header.pop("__metadata__").items()}
    assert stored["audio"] == AudioConfig().to_dict()
    assert stored["model"] == {"hidden": 8} and stored["provenance"] == {"commit": "abc123"}
    assert (stored["epoch"], stored["curves"]) == (EPOCHS, curves)
    made_of = stored["made_of"]
    assert made_of["data"] == {"corpus": "abc"} and made_of["lr"] == 1e-2
    assert len(made_of["model"]) == len(made_of["code"]) == 64
    assert set(header) == {f"model.{k}" for k in Small().state_dict()}, "no optimiser state is kept"
    assert 8 + length + max(t["data_offsets"][1] for t in header.values()) == len(content)


def test_incomplete_checkpoint_carries_the_optimiser(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    monkeypatch.setattr(checkpoint, "save", kill_at(2, checkpoint.save))
    with pytest.raises(Killed):
        fit(path)
    state = checkpoint.read_tensors(path, prefix="optimizer.")
    assert set(state) == {f"{i}.{k}" for i in range(4) for k in ("step", "exp_avg", "exp_avg_sq")}
    assert float(state["0.step"]) == STEPS


def test_model_is_loaded_as_it_was_trained(tmp_path):
    path = tmp_path / "model.safetensors"
    trained, _ = fit(path)
    loaded = checkpoint.load_model(path, build=Small, config=AudioConfig())
    assert not loaded.training
    assert torch.equal(loaded(INPUTS), trained(INPUTS))


def test_other_front_end_is_refused_by_name(tmp_path):
    path = tmp_path / "model.safetensors"
    fit(path, steps=STEPS)
    with pytest.raises(
        ConfigMismatchError, match=r"model\.safetensors .*hop_length 512 instead of 256"
    ):
        checkpoint.load_model(path, build=Small, config=AudioConfig(hop_length=256))


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .*nowhere"):
        checkpoint.load_model(tmp_path / "nowhere.safetensors", build=Small, config=AudioConfig())


def test_what_is_no_checkpoint_of_the_model_is_refused_by_name(tmp_path):
    path = tmp_path / "file.safetensors"

    def load(build=Small):
        return checkpoint.load_model(path, build=build, config=AudioConfig())

    path.write_text("no tensors")
    with pytest.raises(ValueError, match=r"file\.safetensors: no checkpoint"):
        load()
    checkpoint.save(path, {"x": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="does not say which model"):
        load()
    fit(path, steps=STEPS)
    for other in (CNNStylePredictor, lambda hidden: nn.Linear(6, hidden)):
        with pytest.raises(ValueError, match="another kind of model"):
            load(other)


# The loop -------------------------------------------------------------------------------------


def test_a_linear_map_is_learned(tmp_path):
    model, curves = fit(
        tmp_path / "line.safetensors",
        model=nn.Linear(6, 3),
        steps=60 * STEPS,
        lr=0.1,
        weight_decay=0.0,
        clip_norm=None,
    )
    assert_close(model.weight.detach(), MATRIX.T, atol=5e-3, rtol=0)
    assert_close(model.bias.detach(), OFFSET, atol=5e-3, rtol=0)
    assert curves["train_loss"][-1] < 1e-4 < 1 < curves["train_loss"][0]


def test_curves_have_one_value_an_epoch_and_are_means(tmp_path):
    losses = []

    def recording(model, batch):
        loss, metrics = squared_error(model, batch)
        losses.append(float(loss.detach()))
        return loss, metrics

    _, curves = fit(tmp_path / "m.safetensors", step=recording, evaluate=weight)
    assert set(curves) == {"train_loss", "grad_norm", "train_twice", "weight", "seconds"}
    assert {len(v) for v in curves.values()} == {EPOCHS}
    means = torch.tensor(losses).reshape(EPOCHS, STEPS).mean(dim=1).tolist()
    assert curves["train_loss"] == pytest.approx(means, rel=1e-5)
    assert curves["train_twice"] == pytest.approx([2 * m for m in means], rel=1e-5)


def test_evaluation_sees_the_model_without_dropout_and_gradients(tmp_path):
    seen = []

    def evaluate(model):
        seen.append((model.training, torch.is_grad_enabled()))
        return {}

    model, _ = fit(tmp_path / "m.safetensors", evaluate=evaluate)
    assert seen == [(False, False)] * EPOCHS and not model.training


def test_gradients_are_clipped_to_the_norm(tmp_path, monkeypatch):
    """One step from zero momentum moves by lr whatever the gradient; its first moment does not."""

    for clip_norm in (None, 1e-3):
        path = tmp_path / f"{clip_norm}.safetensors"
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(checkpoint, "save", kill_at(2, checkpoint.save))
            fit(
                path,
                clip_norm=clip_norm,
                steps_per_epoch=1,
                batches=lambda epoch: [(INPUTS, TARGETS)],
            )
        state = checkpoint.read_tensors(path, prefix="optimizer.")
        moments = torch.cat([v.flatten() for k, v in state.items() if k.endswith("exp_avg")])
        norm = float(moments.norm()) / 0.1  # 1 - beta1
        reported = checkpoint.read_header(path)["curves"]["grad_norm"][0]
        assert norm == pytest.approx(reported if clip_norm is None else clip_norm, rel=1e-2)
        assert reported > 0.1, "the curve shows the norm before clipping"


def test_a_training_shows_every_epoch_and_leaves_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_BATCH", "1")
    _, curves = fit(tmp_path / "m.safetensors", label="style encoder")
    printed = capsys.readouterr()
    *epochs, last = printed.out.rstrip("\n").split("\r")
    assert [line.split(":")[0] for line in epochs] == [
        f"style encoder epoch {k}/4" for k in range(1, 5)
    ]
    assert all("loss " in line and " s left" in line for line in epochs)
    assert last.startswith("style encoder: 20 steps in ") and printed.out.count("\n") == 1
    assert f"loss {curves['train_loss'][-1]:.4g}" in last
    assert len(curves["seconds"]) == 4 and min(curves["seconds"]) > 0
    assert "epoch" not in printed.err, "no progress bar"


def test_learning_rate_warms_up_and_falls_to_one_percent():
    rates = [loop._cosine_schedule(step, total=100, warmup=10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.505, abs=1e-6)
    assert all(b < a for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
