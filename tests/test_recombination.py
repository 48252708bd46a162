"""Training on paired renderings: batches, losses, both trainings."""

from __future__ import annotations

import pytest
import torch

from audiostyle_lib import transfer
from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.recombine import GainTransfer
from audiostyle_lib.training import recombination

SIZE = 4

# Training batches -----------------------------------------------------------------------------

N_FRAMES = 345  # of 8 s


def numbered_log_mels(n_groups: int = 3) -> torch.Tensor:
    """Every frame is its position, every mel band 0 .. 3 tells group, score, style, frame."""
    x = torch.zeros(n_groups, SIZE, SIZE, 128, N_FRAMES)
    x[..., 0, :] = torch.arange(n_groups)[:, None, None, None]
    x[..., 1, :] = torch.arange(SIZE)[None, :, None, None]
    x[..., 2, :] = torch.arange(SIZE)[None, None, :, None]
    x[..., 3, :] = torch.arange(N_FRAMES)
    return x


@pytest.fixture
def without_eq(monkeypatch):
    monkeypatch.setattr(
        recombination, "random_equalizer", lambda n, n_mels, generator: torch.zeros(n, n_mels, 1)
    )


def test_batch_keeps_content_and_truth_aligned(without_eq):
    batch = recombination.sample_batch(
        numbered_log_mels(), generator=torch.Generator().manual_seed(0), batch_size=200
    )
    length = recombination.CROP_FRAMES
    for x in batch:  # one rendering an item, frames in a row
        assert x.shape == (200, 128, length)
        assert (x[:, :3] == x[:, :3, :1]).all() and (x[:, 3].diff(dim=1) == 1).all()
    parts = (x[:, :4, 0].unbind(dim=1) for x in batch)  # group, score, style, frame
    (cg, cs, cj, cf), (sg, ss, sj, sf), (tg, ts, tj, tf) = parts
    assert torch.equal(cg, tg) and torch.equal(cg, sg)
    assert torch.equal(cs, ts) and torch.equal(cf, tf), "the same excerpt of the same score"
    assert (ss != cs).all() and torch.equal(sj, tj) and (tj != cj).all()
    for drawn, n in ((cg, 3), (cs, SIZE), (cj, SIZE), (ss, SIZE), (sj, SIZE)):
        assert len(drawn.unique()) == n
    assert 0.4 < (cj // 2 == sj // 2).float().mean() < 0.6, "both tiers alike"
    for starts in (cf, sf):
        assert starts.min() < 10 and starts.max() > N_FRAMES - length - 10


def test_equaliser_is_shared_by_style_and_truth_only():
    flat = torch.zeros(2, SIZE, SIZE, 128, N_FRAMES)
    batch = recombination.sample_batch(
        flat, generator=torch.Generator().manual_seed(0), batch_size=50
    )
    for x in batch:
        assert (x == x[:, :, :1]).all(), "constant in time"
    content, style, truth = (x[:, :, 0] for x in batch)
    assert torch.equal(style, truth)
    assert (content - truth).abs().mean() > 1
    assert 2 < float(content.std()) < 5  # knots of 4 dB, interpolated
    assert float(content.diff(dim=1).abs().max()) < 1  # smooth


def test_batches_repeat_with_their_generator():
    x = numbered_log_mels()

    def draw(seed):
        return recombination.sample_batch(
            x, generator=torch.Generator().manual_seed(seed), batch_size=4
        )

    assert all(torch.equal(a, b) for a, b in zip(draw(0), draw(0), strict=True))
    assert not torch.equal(draw(0)[0], draw(1)[0])


def test_recordings_give_a_truth_that_differs_from_the_content_by_an_equaliser(without_eq):
    levels = 10.0 * torch.arange(3)[:, None, None]  # tells the recordings apart
    recordings = levels + torch.randn(3, 128, 400)
    batch = [
        recombination.self_supervised_batch(
            recordings, generator=torch.Generator().manual_seed(0), batch_size=5
        )
        for _ in range(2)
    ]
    for first, again in zip(*batch, strict=True):
        assert torch.equal(first, again) and first.shape == (5, 128, recombination.CROP_FRAMES)
    content, style, truth = batch[0]
    assert torch.equal(content, truth)  # both equalisers being flat
    assert not torch.equal(content, style)
    near = (content.mean(dim=(1, 2)) - style.mean(dim=(1, 2))).abs()
    assert near.max() < 1  # of the same recording


def test_step_measures_the_model_against_copying():
    content = torch.full((2, 128, 32), -20.0)
    truth = torch.full((2, 128, 32), -26.0)
    loss, found = recombination.regression_step(
        lambda content, style: content - 4, (content, truth, truth)
    )
    assert float(loss) == pytest.approx(2, abs=1e-3)
    assert float(found["copy"]) == pytest.approx(6, abs=1e-3)


SIZES = {"channels": 12, "heads": 2, "style_dim": 6, "encoder_depth": 1, "decoder_depth": 1}


@pytest.fixture
def separable() -> torch.Tensor:
    """Renderings that are a score plus a style, which a static equaliser turns into each other."""
    generator = torch.Generator().manual_seed(0)
    score = 8 * torch.randn(2, SIZE, 1, 128, N_FRAMES, generator=generator)
    style = 8 * torch.randn(2, 1, SIZE, 128, 1, generator=generator)
    return (-30 + score + style).half()


def test_training_lowers_the_loss_and_repeats(tmp_path, config, separable):
    def train(name):
        return recombination.train_gain_transfer(
            separable, steps=6, path=tmp_path / name, config=config, lr=3e-3, valid=separable,
            batch_size=8, **SIZES,
        )  # fmt: skip

    model, curves = train("a.safetensors")
    again, same = train("b.safetensors")
    assert curves.pop("seconds") and same.pop("seconds")  # what a clock says does not repeat
    assert curves == same and not model.training
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert curves["train_loss"][-1] < curves["train_copy"][-1]
    assert curves["valid"][-1] < min(curves["valid_copy"][-1], curves["valid_shuffled"][-1])
    loaded = transfer.load_model(tmp_path / "a.safetensors")
    assert torch.equal(loaded.standardize.mean, model.standardize.mean)
    assert float(loaded.standardize.mean.mean()) == pytest.approx(-30, abs=2)


def test_adversarial_training_goes_on_from_the_regression(tmp_path, config, separable):
    """Both sides move, each by its own losses, and the recombination can be stored alone."""
    model = GainTransfer(**SIZES)
    model.standardize.fit(separable.flatten(0, 2).float())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    path = tmp_path / "c.safetensors"
    curves = recombination.train_adversarially(
        model, separable, steps=4, path=path, arguments=SIZES, config=config, valid=separable,
        batch_size=4, width=4,
    )  # fmt: skip
    assert curves["train_discriminator"][-1] > 0 and curves["train_generator"]
    checkpoint.store_pretrained(path, tmp_path / "d.safetensors", command="", part="generator")
    stored = transfer.load_model(tmp_path / "d.safetensors").state_dict()
    assert stored.keys() == before.keys()
    assert any(not torch.equal(stored[k], before[k].half().float()) for k in before)
    assert torch.equal(stored["standardize.std"], before["standardize.std"].half().float())


def test_each_side_gets_its_own_gradient():
    """The recombination's losses leave the discriminator alone, and the other way round."""
    torch.manual_seed(0)
    model = GainTransfer(**SIZES)
    torch.nn.init.normal_(model.head.weight, std=0.05)
    both = recombination.TransferAdversaries(model, width=4)
    losses = both(*(-30 + 10 * torch.randn(3, 2, 128, 64)))
    for name, loss in losses.items():
        both.zero_grad()
        loss.backward(retain_graph=True)
        reached = {
            part: any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())
            for part, module in both.named_children()
        }
        assert reached == {
            "generator": name != "discriminator",
            "discriminator": name == "discriminator",
        }


def test_recordings_need_a_place_in_the_batch(tmp_path, config, separable):
    with pytest.raises(ValueError, match="take at least 4"):
        recombination.train_gain_transfer(
            separable, steps=1, path=tmp_path / "a.safetensors", config=config, batch_size=2,
            recordings=torch.zeros(1, 128, 300), **SIZES,
        )  # fmt: skip


@pytest.mark.parametrize(("steps", "epochs"), [(7, 1), (55, 2), (100, 2)])
def test_no_step_is_lost_to_whole_epochs(monkeypatch, tmp_path, config, separable, steps, epochs):
    """And 20 000 steps are told from 21 000, which have as many epochs."""
    drawn = []

    def counted(*arguments, **settings):
        drawn.append(0)
        return tuple(torch.zeros(1, 128, 8) for _ in range(3))

    monkeypatch.setattr(recombination, "sample_batch", counted)
    _, curves = recombination.train_gain_transfer(
        separable, steps=steps, path=tmp_path / "a.safetensors", config=config, **SIZES
    )
    assert len(drawn) == steps and len(curves["train_loss"]) == epochs
