"""Crops of whole tracks: where they come from, that they repeat, and that training on them helps."""

from __future__ import annotations

import pytest
import torch

from audiostyle_lib.models.vae import ConvVAE
from audiostyle_lib.signal import pca
from audiostyle_lib.training import content


def tracks(*lengths: int, level: float = 0.0) -> list[torch.Tensor]:
    """Log-mels (128, T) whose value tells the track (hundreds) and the frame (units)."""
    return [
        (level + 1000.0 * i + torch.arange(n, dtype=torch.float32)).expand(128, n)
        for i, n in enumerate(lengths)
    ]


def test_crops_are_consecutive_frames_of_one_track():
    batches = content.random_crops(
        tracks(128, 300, 140), batch_size=32, n_batches=3, seed=1, varied=0.0
    )
    seen = list(batches(0))
    assert len(seen) == 3 and all(x.shape == (32, 128, 128) for x in seen)
    for crop in torch.cat(seen):
        steps = crop[:, 1:] - crop[:, :-1]
        assert (steps == 1).all(), "a crop crosses the border of two tracks"
    tracks_heard = {int(c[0, 0]) // 1000 for c in torch.cat(seen)}
    assert tracks_heard == {0, 1, 2}


def test_crops_depend_on_seed_and_epoch_only():
    def draw(seed, epoch):
        make = content.random_crops(
            tracks(300, 300), batch_size=4, n_batches=2, seed=seed, varied=0.3
        )
        return torch.cat(list(make(epoch)))

    assert torch.equal(draw(1, 2), draw(1, 2))
    assert not torch.equal(draw(1, 2), draw(1, 3))
    assert not torch.equal(draw(1, 2), draw(2, 2))


def test_mixing_adds_powers():
    generator = torch.Generator().manual_seed(0)
    x = torch.full((8, 2, 3), -30.0)
    assert torch.equal(content.mix(x, share=0.0, generator=generator), x)
    mixed = content.mix(x, share=1.0, generator=generator)
    assert (mixed > x).all()
    constant = mixed.flatten(1)
    assert (constant == constant[:, :1]).all(), "one level a crop"
    level = 10 * torch.log10(10 ** ((constant[:, 0] + 30) / 10) - 1)  # of what was added
    assert float(level.std()) == pytest.approx(content.LEVEL_DB, rel=0.6)


def test_track_log_mels_leave_the_padding_out(clip, config):
    waveforms = torch.zeros(2, 4 * config.sample_rate)
    waveforms[0] = torch.from_numpy(clip(4.0))
    whole, short = content.track_log_mels(waveforms, [4 * config.sample_rate] * 2, config)
    assert whole.shape == short.shape == (128, 1 + 4 * config.sample_rate // config.hop_length)
    assert (
        content.track_log_mels(waveforms, [config.sample_rate, 66_150], config)[0].shape[1] == 130
    )


def test_training_improves_on_pca_and_records_the_probe(tmp_path, config):
    """A mixture of two patterns of which one is always the other's square: not linear, learnable."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(2, 128, 1, generator=generator)

    def track(n):
        a = torch.randn(1, n // 8, generator=generator).repeat_interleave(8, dim=1)
        return -40 + 6 * (basis[0] * a + basis[1] * (a**2 - 1) / 1.4)

    data = [track(256) for _ in range(12)]
    segments = torch.stack([x[:, :128] for x in data])
    torch.manual_seed(0)
    sizes = {"channels": 32, "latent_channels": 1, "n_down": 3, "blocks": 1}
    model = ConvVAE(**sizes)
    model.standardize.fit(segments)
    found = pca.fit_pca(model.standardize(segments), n_frames=8, n_components=1)
    model.start_from_pca(found, noise_variance=0.01)
    model.eval()
    x = model.standardize(segments)
    before = torch.cosine_similarity(
        model.standardize(content.reconstruct(model, segments)[0]).flatten(1), x.flatten(1)
    ).mean()
    curves = content.fit(
        model, path=tmp_path / "c.safetensors", log_mels=data, probes={"all": segments}, steps=160,
        steps_per_epoch=40, config=config, arguments=sizes, data={}, seed=0, device="cpu", varied=0.0,
    )  # fmt: skip
    assert len(curves["all cosine"]) == 4
    assert curves["all cosine"][-1] > float(before) + 0.05


def test_bands_move_together_and_the_edge_is_repeated():
    x = torch.arange(6.0)[None, :, None].expand(2, 6, 4)
    seen = {
        tuple(
            content.shift_bands(x, 2, generator=torch.Generator().manual_seed(s))[0, :, 0].tolist()
        )
        for s in range(30)
    }
    assert seen == {
        (0, 1, 2, 3, 4, 5), (0, 0, 1, 2, 3, 4), (0, 0, 0, 1, 2, 3), (1, 2, 3, 4, 5, 5),
        (2, 3, 4, 5, 5, 5),
    }  # fmt: skip


def test_a_varied_crop_keeps_its_floor():
    x = torch.full((200, 128, 3), -40.0)
    x[:, 60:70] = -100.0
    y = content.vary(x, 1.0, generator=torch.Generator().manual_seed(0))
    assert float(y.min()) == -100.0 and float((y[:, 100:] - x[:, 100:]).std()) > 1
    assert (y == y[:, :, :1]).all(), "the equaliser is constant over time"


def test_tracks_seen_often_are_varied_and_others_hardly():
    amounts = [content.variation(n) for n in (100, 5_000, 10_000, 1e6)]
    assert amounts == [0.01, 0.5, 1.0, 1.0]
