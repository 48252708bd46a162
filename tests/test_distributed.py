"""Two processes train as one does with the joint batch, and each can continue the other's checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from audiostyle_lib.models import checkpoint

TRAINING = """
    import os
    import sys
    import torch
    from torch import nn
    from audiostyle_lib.config import AudioConfig
    from audiostyle_lib.training import loop
    from audiostyle_lib.training.batches import minibatches

    path, last_epoch = sys.argv[1], int(sys.argv[2])
    torch.manual_seed(0)
    inputs = torch.randn(35, 6)
    targets = inputs @ torch.randn(6, 3)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def step(model, batch):
        x, y = batch
        loss = (model(x) - y).square().mean()
        return loss, {"error": loss}

    def batches(epoch):  # of 8, 8, 8, 8 and 3
        return minibatches(inputs, targets, batch_size=8, seed=0, epoch=epoch)

    save = loop.ckpt.save

    def save_and_die(path, tensors, header):
        save(path, tensors, header)
        if header["epoch"] == last_epoch:
            os._exit(3)

    loop.ckpt.save = save_and_die
    loop.fit(
        model, step=step, batches=batches, steps=20, steps_per_epoch=5, path=path, arguments={},
        data={}, config=AudioConfig(), lr=1e-2, warmup=2,
    )
"""


@pytest.fixture
def train(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(TRAINING))

    def run(name: str, processes: int, killed_after: int = 0):
        launcher = []
        if processes > 1:
            launcher = ["-m", "lightning_fabric.cli", "--accelerator=cpu", "--strategy=ddp"]
            launcher += [f"--devices={processes}"]
        done = subprocess.run(
            [sys.executable, *launcher, str(script), str(tmp_path / name), str(killed_after)],
            capture_output=True, text=True, check=False, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1", "AUDIOSTYLE_BATCH": "1"},
        )  # fmt: skip
        assert (done.returncode != 0) == bool(killed_after), done.stderr
        return tmp_path / name, done.stdout

    return run


def test_two_processes_train_as_one(train):
    (one, _), (two, said) = train("one.safetensors", 1), train("two.safetensors", 2)
    assert said.count("training: 20 steps") == 1, "one process speaks"
    header, other = checkpoint.read_header(one), checkpoint.read_header(two)
    assert header["made_of"] == other["made_of"]
    for name in ("train_loss", "train_error", "grad_norm"):
        assert other["curves"][name] == pytest.approx(header["curves"][name], rel=1e-4)
    for name, weight in checkpoint.read_tensors(one, prefix="model.").items():
        torch.testing.assert_close(
            checkpoint.read_tensors(two, prefix="model.")[name], weight, atol=1e-6, rtol=1e-4
        )
    assert "found in two.safetensors" in train("two.safetensors", 1)[1]


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_killed_training_goes_on_with_another_number_of_processes(train, before, after):
    train("killed.safetensors", before, killed_after=2)
    path, said = train("killed.safetensors", after)
    assert "2 of 4 epochs found" in said
    other, _ = train("whole.safetensors", 1)
    for name, weight in checkpoint.read_tensors(other, prefix="model.").items():
        continued = checkpoint.read_tensors(path, prefix="model.")[name]
        torch.testing.assert_close(continued, weight, atol=1e-6, rtol=1e-4)
