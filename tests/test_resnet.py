"""The ResNet autoencoder keeps its shapes, whatever comes in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiostyle_lib.config import AudioConfig
from audiostyle_lib.models.resnet import ResidualStage, ResNetVAE

FRAMES = tuple(AudioConfig().n_frames(s * AudioConfig().sample_rate) for s in (1, 60))


@pytest.mark.parametrize("unet", [False, True])
@settings(max_examples=12, deadline=None)
@given(n_frames=st.integers(*FRAMES))
def test_every_length_from_a_second_to_a_minute_comes_back(unet, n_frames):
    model = ResNetVAE(width=2, latent_channels=16, unet=unet).eval()
    log_mel = torch.randn(1, 128, n_frames)
    with torch.no_grad():
        rebuilt, mean, log_var = model(log_mel)
    assert rebuilt.shape == log_mel.shape
    assert mean.shape == log_var.shape == (1, 16, -(-n_frames // 32))


def test_without_unet_everything_passes_through_the_latent():
    assert ResNetVAE(width=2, latent_channels=16).shortcut_numbers(128) == 0
    assert ResNetVAE(width=2, latent_channels=16, unet=True).shortcut_numbers(128) > 16 / 32


def test_decoding_needs_nothing_but_the_latent_and_the_length():
    model = ResNetVAE(width=2, latent_channels=16).eval()
    with torch.no_grad():
        rebuilt, mean, _ = model(torch.randn(2, 128, 130))
        assert torch.allclose(model.decode(mean, 130), rebuilt, atol=1e-5)


@pytest.mark.parametrize("up", [False, True])
def test_both_branches_of_a_residual_stage_have_one_shape(up):
    stage = ResidualStage(3, 5, up=up).eval()
    for size in (2, 4, 8):
        x = torch.randn(1, 3, size, 2 * size)
        factor = 2 if up else 0.5
        assert stage(x).shape == stage.skip(x).shape == (1, 5, size * factor, 2 * size * factor)


def test_only_unet_skips_pass_the_latent_by():
    x = torch.randn(1, 128, 128)
    for unet in (False, True):
        model = ResNetVAE(width=2, latent_channels=8, unet=unet).eval()
        zero = torch.zeros(1, 8, 4)
        first, second = (
            model.decode(zero, 128, model.encode_stages(v)[2] if unet else None)
            for v in (x, x + 10)
        )
        assert torch.allclose(first, second) != unet
        assert (model.shortcut_numbers(128) > 0) == unet
