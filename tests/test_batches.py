"""Minibatches, crops and random equalisers: what they are made of, and that they repeat."""

from __future__ import annotations

import pytest
import torch

from audiostyle_lib.training import batches


def test_minibatches_shuffle_by_seed_and_epoch_and_keep_rows_together():
    def order(seed, epoch):
        found = list(
            batches.minibatches(
                torch.arange(10), 10 * torch.arange(10), batch_size=4, seed=seed, epoch=epoch
            )
        )
        assert [len(a) for a, _ in found] == [4, 4, 2]
        assert all(torch.equal(b, 10 * a) for a, b in found)
        return torch.cat([a for a, _ in found]).tolist()

    assert sorted(order(0, 0)) == list(range(10))
    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


@pytest.mark.parametrize("as_list", [False, True])
def test_crops_are_consecutive_frames_of_the_clips_asked_for(as_list):
    clips = (100.0 * torch.arange(3)[:, None] + torch.arange(50)).half()[:, None].expand(3, 8, 50)
    which, starts = torch.tensor([2, 0, 2]), torch.tensor([40, 7, 0])
    found = batches.crops(list(clips) if as_list else clips, which, starts, 10)
    assert found.shape == (3, 8, 10) and found.dtype == torch.float32
    assert found[:, 0, 0].tolist() == [240, 7, 200]
    assert (found.diff(dim=2) == 1).all() and (found == found[:, :1]).all()


def test_random_equalisers_are_smooth_and_as_strong_as_asked():
    def draw(seed=0, **settings):
        return batches.random_equalizer(500, 128, torch.Generator().manual_seed(seed), **settings)

    gain = draw(db=3.0, points=10)
    assert gain.shape == (500, 128, 1) and torch.equal(gain, draw(db=3.0, points=10))
    assert not torch.equal(gain, draw(1, db=3.0, points=10))
    assert float(gain[:, -1].std()) == pytest.approx(3.0, rel=0.1)  # at a point, where it is drawn
    bends = gain.diff(n=2, dim=1).abs() > 1e-3  # linear between the points
    assert int(bends.any(dim=0).sum()) <= 2 * 8
    assert float(draw().std()) > float(gain.std())


def test_other_style_is_of_the_same_genre_half_of_the_time():
    generator = torch.Generator().manual_seed(0)
    style = torch.arange(8).repeat(500)
    other = batches.draw_other_style(style, 8, generator)
    assert (other != style).all() and set(other.tolist()) == set(range(8))
    assert float((other // 2 == style // 2).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert batches.draw_other_style(torch.tensor([0, 1]), 2, generator).tolist() == [1, 0]
