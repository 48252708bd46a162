"""What counts of the things that make a trained model, beside what `test_loop` changes one by one."""

from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from audiostyle_lib.models.recombine import GainTransfer
from audiostyle_lib.training import content, recombination
from audiostyle_lib.training.fingerprint import fingerprint


@dataclass
class Settings:
    rate: float = 1.0
    changes: list = field(default_factory=list)

    @property
    def twice(self) -> float:
        raise AssertionError("a property is not called")


def cells(source: str, **names) -> dict:
    """What a notebook holds after a cell has run."""
    names = {"__name__": "__main__", **names}
    exec(textwrap.dedent(source), names)
    return names


def test_values_count_and_where_a_file_lies_does_not():
    values = [None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, {1: 1}, Settings(), Settings(2.0)]
    assert len({fingerprint(v) for v in values}) == len(values)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"x", "y", "z"}) == fingerprint({"z", "y", "x"})
    assert fingerprint(Path("a")) == fingerprint(Path("b")) != fingerprint("a")
    assert fingerprint(1, 2) != fingerprint((1, 2))


def test_arrays_count_but_not_their_last_bits():
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 1000, 7, generator=generator)
    noise = 1 + 1e-7 * noise
    assert fingerprint(x) == fingerprint(x * noise) == fingerprint(x.clone())
    one, standardised = x.clone(), x - x.mean()
    one[500, 3] += 0.5
    others = [one, x.flip(0), x.T, x.double(), 1.001 * x, x.numpy(), x.to(torch.complex64)]
    assert len({fingerprint(y) for y in [x, *others]}) == 1 + len(others)
    assert fingerprint(standardised) == fingerprint(standardised * noise), "its mean is rounding"
    for empty in (
        torch.zeros(0, 3),
        np.zeros((0, 3)),
        torch.tensor([float("nan")]),
        np.array(["a"]),
    ):
        assert fingerprint(empty) == fingerprint(empty)


def test_large_arrays_are_looked_at_in_every_column():
    x = torch.zeros(30_000, 128)
    before = fingerprint(x)
    for column in (0, 1, 77):
        changed = x.clone()
        changed[:, column] = 1
        assert fingerprint(changed) != before
    assert fingerprint(x.numpy()) == fingerprint(x.clone().numpy())


def test_networks_count_by_code_attributes_and_weights():
    def network(seed=0, activation=torch.tanh, p=0.1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(p), nn.GELU())
        model.activation = activation
        return model

    assert fingerprint(network()) == fingerprint(network().eval())
    others = [network(1), network(activation=torch.relu), network(p=0.2), network().double()]
    others.append(network().requires_grad_(False))
    assert len({fingerprint(m) for m in [network(), *others]}) == 1 + len(others)
    sizes = {"channels": 12, "heads": 2, "style_dim": 6}
    of_gain, of_log_mel = (GainTransfer(**sizes, output=o) for o in ("gain", "log_mel"))
    of_log_mel.load_state_dict(of_gain.state_dict())
    assert fingerprint(of_gain) != fingerprint(of_log_mel)


STEP = """
    import numpy as np
    from audiostyle_lib.signal import features

    def helper(x, *, scale=1.0):
        return scale * x

    class Loss:
        weight = 1.0
        def __call__(self, x):
            return self.weight * helper(x)

    loss = Loss()

    def step(x):
        return [loss(y + np.pi) for y in x], features.log_mel, run.rate
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("scale=1.0", "scale=2.0"), ("weight = 1.0", "weight = 2.0"), ("y + np.pi", "y - np.pi"),
     ("np.pi", "np.e"), ("scale * x", "scale + x"), ("features.log_mel,", "features.stft,")],
)  # fmt: skip
def test_what_a_function_names_counts_all_the_way_down(old, new):
    first, again, changed = (
        cells(source, run=Settings())["step"] for source in (STEP, STEP, STEP.replace(old, new))
    )
    assert fingerprint(first) == fingerprint(again) != fingerprint(changed)


def test_of_an_object_only_the_attributes_that_are_named_count():
    run = Settings()
    step = cells(STEP, run=run)["step"]
    before = fingerprint(step)
    run.changes.append("a metric was recorded")
    assert fingerprint(step) == before
    run.rate = 2.0
    assert fingerprint(step) != before
    named = "step = lambda: (run.twice, run.missing)"
    assert fingerprint(cells(named, run=run)["step"]) == fingerprint(cells(named, run=run)["step"])


def test_an_attribute_is_no_global_of_the_same_name():
    """`x.mean()` has nothing to do with a `mean` that the notebook computes later."""
    source = "def step(x):\n    return x.mean(), [mean for mean in x]"
    assert fingerprint(cells(source)["step"]) == fingerprint(cells(source, mean=3.0)["step"])


def test_closures_lambdas_partials_and_decorated_functions():
    def weighed(weight):
        def step(x):
            return (lambda y: weight * y)(x)

        return step

    def found(weight):
        step = weighed(weight)
        return [
            fingerprint(f)
            for f in (
                step,
                lambda x: weight * x,
                functools.partial(max, weight),
                torch.no_grad()(step),
                functools.lru_cache(step),
                Settings(weight).__eq__,
            )
        ]

    one, same, other = found(1.0), found(1.0), found(2.0)
    assert one == same and all(a != b for a, b in zip(one, other, strict=True))


def test_what_refers_to_itself_ends():
    names = cells("def step(n):\n    return step(n - 1), held\nheld = []")
    names["held"].append(names)
    assert len(fingerprint(names["step"])) == 64


SCRIPT = """
from audiostyle_lib.models.recombine import GainTransfer
from audiostyle_lib.training import content, recombination
from audiostyle_lib.training.fingerprint import fingerprint
import torch
torch.manual_seed(0)
model = GainTransfer(channels=12, heads=2, style_dim=6)
print(fingerprint(model, {"b", "a"}, content.random_crops, recombination.regression_step))
"""


def test_every_process_finds_the_same():
    def elsewhere(seed: str) -> str:
        environment = {"PYTHONHASHSEED": seed, "PATH": "", "OMP_NUM_THREADS": seed}
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True,
            env=environment, cwd=Path(__file__).parents[1],
        )  # fmt: skip
        return result.stdout.strip()

    torch.manual_seed(0)
    model = GainTransfer(channels=12, heads=2, style_dim=6)
    here = fingerprint(model, {"b", "a"}, content.random_crops, recombination.regression_step)
    assert here == elsewhere("1") == elsewhere("2")


def test_cells_of_a_kernel_count_like_any_code(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    cell = "WEIGHT = 2\ndef step(x):\n    {}\n    return WEIGHT * x"

    def after(text: str) -> str:
        shell.run_cell(text).raise_error()
        return fingerprint(shell.user_ns["step"])

    before = after(cell.format("y = x"))
    assert after(cell.format("# a comment\n    y = x")) == before
    assert after(cell.format("'''A docstring.'''\n    y = x")) == before
    assert after(cell.format("y = -x")) != before
    assert after(cell.format("y = x").replace("WEIGHT = 2", "WEIGHT = 3")) != before
