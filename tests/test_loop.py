"""A run that is killed ends like one that was not; checkpoints say what they are."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from audiostyle_lib.config import AudioConfig, ConfigMismatchError
from audiostyle_lib.models import checkpoint
from audiostyle_lib.training import loop

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
    seed = changes.pop("seed", 3)
    torch.manual_seed(99)  # the same initial weights, whatever happened before
    model = model or Small()
    settings = {
        "epochs": EPOCHS,
        "steps_per_epoch": STEPS,
        "lr": 1e-2,
        "warmup": 3,
        "recipe": {"model": {"hidden": 8}, "corpus": "abc"},
        "config": AudioConfig(),
        **changes,
    }
    curves = loop.fit(
        model,
        step=step,
        batches=batches
        or (lambda epoch: loop.minibatches(INPUTS, TARGETS, batch_size=8, seed=seed, epoch=epoch)),
        path=path,
        seed=seed,
        evaluate=evaluate,
        **settings,
    )
    return model, curves


def assert_same(one, other):
    (model, curves), (other_model, other_curves) = one, other
    for name, value in model.state_dict().items():
        assert torch.equal(value, other_model.state_dict()[name]), name
    assert curves == other_curves


def kill_at(call: int):
    """An `evaluate` that is killed at its `call`-th call, before the epoch is stored."""
    calls = []

    def evaluate(model):
        calls.append(0)
        if len(calls) == call:
            raise Killed
        return {"weight": float(model.layers[0].weight.sum())}

    return evaluate


# Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3])
def test_killed_between_epochs_ends_the_same(tmp_path, killed_after):
    whole = fit(tmp_path / "whole.safetensors", evaluate=kill_at(0))
    path = tmp_path / "killed.safetensors"
    with pytest.raises(Killed):
        fit(path, evaluate=kill_at(killed_after + 1))
    assert path.is_file() == (killed_after > 0)
    if killed_after:
        assert checkpoint.read_header(path)["epoch"] == killed_after
    torch.rand(17)  # another process: the generator stands elsewhere
    assert_same(fit(path, evaluate=kill_at(0)), whole)
    stored = [
        (checkpoint.read_header(f), checkpoint.read_tensors(f)) for f in sorted(tmp_path.iterdir())
    ]
    assert stored[0][0] == stored[1][0] and stored[0][1].keys() == stored[1][1].keys()


def test_killed_inside_an_epoch_ends_the_same(tmp_path):
    whole = fit(tmp_path / "whole.safetensors")
    steps = []

    def dying_step(model, batch):
        steps.append(0)
        if len(steps) == 2 * STEPS + 3:
            raise Killed
        return squared_error(model, batch)

    path = tmp_path / "killed.safetensors"
    with pytest.raises(Killed):
        fit(path, step=dying_step)
    assert_same(fit(path), whole)


def test_killed_while_saving_keeps_the_epoch_before(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole.safetensors")
    path, saved = tmp_path / "killed.safetensors", []
    save = checkpoint.save

    def dying_save(target, tensors, header):
        saved.append(0)
        if len(saved) == 3:
            monkeypatch.setattr("safetensors.torch.save_file", half_written)
        save(target, tensors, header)

    def half_written(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dying_save)
        with pytest.raises(Killed):
            fit(path)
    monkeypatch.undo()
    assert checkpoint.read_header(path)["epoch"] == 2
    assert sorted(f.name for f in tmp_path.iterdir()) == [path.name, "whole.safetensors"]
    assert_same(fit(path), whole)


def never(*_):
    raise AssertionError("trained again")


def test_complete_checkpoint_is_loaded_not_trained(tmp_path, capsys):
    path = tmp_path / "done.safetensors"
    first = fit(path)
    written = path.stat().st_mtime_ns
    again = fit(path, step=never)
    assert_same(again, first)
    assert not again[0].training and path.stat().st_mtime_ns == written
    assert "4 epochs found in done.safetensors, not trained again" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"seed": 4},
        {"lr": 2e-2},
        {"weight_decay": 0.0},
        {"clip_norm": None},
        {"recipe": {"model": {"hidden": 8}, "corpus": "another"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_recipe_is_trained_from_the_beginning(tmp_path, change):
    path = tmp_path / "model.safetensors"
    fit(path)
    with pytest.raises(AssertionError, match="trained again"):
        fit(path, step=never, **change)
    changed = fit(path, **change)
    assert_same(changed, fit(tmp_path / "fresh.safetensors", **change))
    assert len(changed[1]["train_loss"]) == change.get("epochs", EPOCHS)


def test_changed_code_is_trained_again(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    fit(path)
    monkeypatch.setattr(loop, "code_sha256", lambda *parts: "edited")
    with pytest.raises(AssertionError, match="trained again"):
        fit(path, step=never)


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
    assert stored["recipe"]["corpus"] == "abc" and len(stored["recipe"]["code"]) == 64
    assert set(header) == {f"model.{k}" for k in Small().state_dict()}, "no optimiser state is kept"
    assert 8 + length + max(t["data_offsets"][1] for t in header.values()) == len(content)


def test_incomplete_checkpoint_carries_the_optimiser(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(Killed):
        fit(path, evaluate=kill_at(2))
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
    fit(path, epochs=1)
    with pytest.raises(
        ConfigMismatchError, match=r"model\.safetensors .*hop_length 512 instead of 256"
    ):
        checkpoint.load_model(path, build=Small, config=AudioConfig(hop_length=256))


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere"):
        checkpoint.load_model(tmp_path / "nowhere.safetensors", build=Small, config=AudioConfig())


# The loop -------------------------------------------------------------------------------------


def test_a_linear_map_is_learned(tmp_path):
    model, curves = fit(
        tmp_path / "line.safetensors",
        model=nn.Linear(6, 3),
        epochs=60,
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

    _, curves = fit(tmp_path / "m.safetensors", step=recording, evaluate=kill_at(0))
    assert set(curves) == {"train_loss", "grad_norm", "train_twice", "weight"}
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


def test_gradients_are_clipped_to_the_norm(tmp_path):
    """One step from zero momentum moves by lr whatever the gradient; its first moment does not."""

    for clip_norm in (None, 1e-3):
        path = tmp_path / f"{clip_norm}.safetensors"
        with pytest.raises(Killed):
            fit(
                path,
                evaluate=kill_at(2),
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


def test_batch_runs_print_one_line_an_epoch(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_BATCH", "1")
    fit(tmp_path / "m.safetensors", label="style encoder")
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        f"style encoder epoch {k}/4" for k in range(1, 5)
    ]
    assert all("train_loss " in line and " s left" in line for line in lines)
    assert "epoch" not in printed.err, "no progress bar"


def test_learning_rate_warms_up_and_falls_to_one_percent():
    rates = [loop._cosine_schedule(step, total=100, warmup=10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == pytest.approx(1.0) and rates[55] == pytest.approx(0.505, abs=1e-6)
    assert all(b < a for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)


def test_minibatches_shuffle_by_seed_and_epoch_and_keep_rows_together():
    def order(seed, epoch):
        batches = list(
            loop.minibatches(
                torch.arange(10), 10 * torch.arange(10), batch_size=4, seed=seed, epoch=epoch
            )
        )
        assert [len(a) for a, _ in batches] == [4, 4, 2]
        assert all(torch.equal(b, 10 * a) for a, b in batches)
        return torch.cat([a for a, _ in batches]).tolist()

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


def test_code_hash_follows_the_modules_of_model_and_step():
    from audiostyle_lib.models.style import LinearStyleAutoencoder
    from audiostyle_lib.models.vae import ConvVAE
    from audiostyle_lib.training import content

    vae, style = ConvVAE(channels=4), LinearStyleAutoencoder(n_features=8, bottleneck=2, hidden=4)
    hashes = {loop.code_sha256(*p) for p in ((vae,), (style,), (vae, content.mix), ())}
    assert len(hashes) == 4
    assert loop.code_sha256(nn.Linear(2, 2), squared_error) == loop.code_sha256()


def test_code_hash_ignores_comments_and_layout(monkeypatch):
    read = Path.read_text
    before = loop.code_sha256()
    monkeypatch.setattr(Path, "read_text", lambda self: "# note\n\n" + read(self) + "\n# end\n")
    assert loop.code_sha256() == before
    monkeypatch.setattr(Path, "read_text", lambda self: read(self) + "\nx = 1\n")
    assert loop.code_sha256() != before
