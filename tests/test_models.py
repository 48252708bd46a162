"""Shapes for any length, and the properties that each block is built for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch import nn
from torch.testing import assert_close

from audiostyle_lib.models.blocks import (
    ChannelNorm,
    CrossAttention,
    FiLMBlock,
    ResidualBlock,
    mean_and_std,
)
from audiostyle_lib.models.recombine import (
    GainTransfer,
    LatentTransfer,
    StyleCode,
    floored_difference,
    log_spectral_loss,
)
from audiostyle_lib.models.style import CNNStyleEncoder, CNNStylePredictor, LinearStyleAutoencoder
from audiostyle_lib.models.vae import ConvVAE, FrameConv, elbo_loss, kl_divergence
from audiostyle_lib.signal.pca import fit_pca, patches

SMALL = {"channels": 12, "heads": 2, "style_dim": 6}
FRAMES = st.integers(43, 2584)  # 1 s to 60 s


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def log_mel(batch: int, n_frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -30 + 10 * torch.randn(batch, 128, n_frames, generator=generator)


def gain_transfer(**sizes) -> GainTransfer:
    """An untrained network whose last layer is not zero, so that it does something."""
    model = GainTransfer(**{**SMALL, **sizes}).eval()
    model.standardize.fit(log_mel(2, 50))
    nn.init.normal_(model.head.weight, std=0.05)
    nn.init.normal_(model.head.bias, std=0.05)
    return model


# Blocks ---------------------------------------------------------------------------------------


def test_channel_norm_normalises_each_frame_alone():
    x = 5 + 3 * torch.randn(2, 16, 9)
    y = ChannelNorm(16)(x)
    assert_close(y.mean(dim=1), torch.zeros(2, 9), atol=1e-5, rtol=0)
    assert_close(y.var(dim=1, correction=0), torch.ones(2, 9), atol=1e-3, rtol=0)
    assert_close(ChannelNorm(16)(x[:, :, 4:5]), y[:, :, 4:5])


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_residual_block_spans_three_dilated_frames(dilation):
    block = ResidualBlock(4, dilation=dilation)
    x = torch.randn(1, 4, 31)
    changed = x.clone()
    changed[0, 0, 15] += 1
    touched = (block(changed) - block(x)).abs().amax(dim=(0, 1)) > 0
    assert touched.nonzero()[:, 0].tolist() == [15 - dilation, 15, 15 + dilation]


def test_film_block_scales_and_shifts_by_the_style():
    """With gamma = -1 the input of the convolution is beta: the frames stop mattering."""
    block = FiLMBlock(4, 3)
    nn.init.zeros_(block.film.weight)
    with torch.no_grad():
        block.film.bias[:4], block.film.bias[4:] = -1.0, 0.7
    x = torch.randn(2, 4, 20)
    added = block(x, torch.randn(2, 3)) - x
    inner = added[:, :, 1:-1]
    assert_close(inner, inner[:1, :, :1].expand_as(inner), atol=1e-5, rtol=1e-5)
    by_hand = block.project(nn.functional.gelu(block.conv(torch.full((1, 4, 20), 0.7))))
    assert_close(added, by_hand.expand_as(added), atol=1e-5, rtol=1e-5)


def test_mean_and_std_forget_the_order():
    x = torch.randn(3, 5, 40)
    found = mean_and_std(x).numpy()
    expected = np.concatenate([x.numpy().mean(axis=2), x.numpy().std(axis=2)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    shuffled = x[:, :, torch.randperm(40)]
    assert_close(mean_and_std(shuffled), mean_and_std(x))


# Content VAE ----------------------------------------------------------------------------------


@given(n_frames=FRAMES, n_down=st.integers(1, 5), batch=st.integers(1, 2))
def test_vae_gives_the_shape_back(n_frames, n_down, batch):
    model = ConvVAE(channels=8, latent_channels=4, n_down=n_down).eval()
    with torch.no_grad():
        rebuilt, mean, log_var = model(log_mel(batch, n_frames))
    assert rebuilt.shape == (batch, 128, n_frames)
    assert mean.shape == log_var.shape == (batch, 4, -(-n_frames // 2**n_down))
    assert torch.isfinite(rebuilt).all()


def test_vae_speaks_db():
    """Untrained it puts out about zero, which is the mean of the standardised data."""
    model = ConvVAE(channels=8, latent_channels=4).eval()
    x = log_mel(4, 64)
    model.standardize.fit(x)
    assert float(model(x)[0].detach().mean()) == pytest.approx(-30, abs=5)


def test_vae_samples_only_in_training():
    model, x = ConvVAE(channels=8, latent_channels=4), log_mel(1, 64)
    nn.init.normal_(model.decoder[-1].weight)  # which starts at zero
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])
    assert_close(model(x)[0], model.decode(model.encode(x)[0], 64))
    model.train()
    assert not torch.allclose(model(x)[0], model(x)[0])


def test_vae_latent_keeps_time():
    model = ConvVAE(channels=8, latent_channels=4, n_down=3, patch=8).eval()
    x = log_mel(1, 256)
    nn.init.normal_(model.encoder[-1].linear.weight)  # which starts at zero
    changed = x.clone()
    changed[:, :, 128:136] += 20 * torch.randn(128, 1)
    with torch.no_grad():
        moved = (model.encode(changed)[0] - model.encode(x)[0]).abs().amax(dim=(0, 1))
    assert int(moved.argmax()) == 16  # frame 128
    assert float(moved[:13].max()) == float(moved[20:].max()) == 0  # three convolutions of width 3


def test_frame_conv_is_a_convolution_over_time():
    ours, theirs = FrameConv(5, 7), nn.Conv1d(5, 7, 3, padding=1)
    with torch.no_grad():
        weight = ours.linear.weight.unflatten(1, (3, 5))  # (C_out, width, C_in)
        theirs.weight.copy_(weight.transpose(1, 2))
        theirs.bias.copy_(ours.linear.bias)
    x = torch.randn(2, 5, 11)
    assert_close(ours(x.transpose(1, 2)).transpose(1, 2), theirs(x), atol=1e-5, rtol=0)


def test_vae_started_from_pca_is_the_pca_of_its_patches():
    """With 6 numbers for 4 frames it explains what scikit-learn's PCA with 6 components explains."""
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(16, 10, generator=generator) @ torch.diag(1.5 ** -torch.arange(10.0))
    x = -30 + 8 * (spread @ torch.randn(20, 10, 200, generator=generator))
    model = ConvVAE(n_mels=16, channels=8, latent_channels=6, n_down=2).eval()
    model.standardize.fit(x)
    ours = fit_pca(model.standardize(x), n_frames=4, n_components=9)
    model.start_from_pca(ours, noise_variance=0.01)
    flat = patches(model.standardize(x), 4).double().numpy()
    pca = PCA(6).fit(flat)
    with torch.no_grad():
        rebuilt, mean, log_var = model(x)
    error = (model.standardize(rebuilt) - model.standardize(x)).square().mean()
    expected = np.mean((pca.inverse_transform(pca.transform(flat)) - flat) ** 2)
    assert float(error) == pytest.approx(expected, rel=0.01)
    codes = mean.transpose(0, 1).flatten(1)
    assert_close(codes.mean(dim=1), torch.zeros(6), atol=1e-3, rtol=0)
    assert_close(torch.cov(codes), torch.eye(6), atol=1e-2, rtol=0)
    assert_close(log_var[0, :, 0], (0.01 / ours.variances[:6]).log(), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="PCA of 4 frames for patches of 8"):
        ConvVAE(n_mels=16, n_down=3).start_from_pca(ours, noise_variance=0.01)


def test_refining_the_latent_lowers_the_error_and_leaves_the_decoder_alone():
    model, x = ConvVAE(channels=8, latent_channels=4).eval(), log_mel(3, 128)
    model.standardize.fit(x)
    nn.init.normal_(model.decoder[-1].weight, std=0.1)
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def error(z):
        return float((model.decode(z, 128) - x).square().mean().detach())

    assert torch.equal(model.refine(x, steps=0), model.encode(x)[0])
    start, end = (model.refine(x, steps=n) for n in (0, 40))
    assert end.shape == start.shape and not end.requires_grad
    assert error(end) < error(start) - 0.1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_elbo_is_relative_error_plus_weighted_kl():
    """The untrained model predicts the mean: error 1 whatever the level, KL 0 at the prior."""
    model = ConvVAE(channels=8, latent_channels=4).train()
    x = log_mel(3, 128)
    model.standardize.fit(x)
    loss, parts = elbo_loss(
        model, -30 + torch.tensor([1.0, 3.0, 0.2])[:, None, None] * (x + 30), beta=5.0
    )
    assert float(parts["error"].detach()) == pytest.approx(1.0, abs=1e-3)
    assert float(parts["kl"].detach()) == 0 and float(loss.detach()) == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        model.encoder[-1].linear.bias[:4] = 2.0  # means of 2: KL 2 nats a number
    loss, parts = elbo_loss(model, x, beta=5.0)
    assert float(parts["kl"].detach()) == pytest.approx(2.0)
    assert float((loss - parts["error"]).detach()) == pytest.approx(
        5.0 * 2.0 * 4 * 4 / (128 * 128), rel=1e-4
    )


def test_kl_is_zero_at_the_prior_only():
    assert float(kl_divergence(torch.zeros(3), torch.zeros(3)).abs().max()) == 0
    grid = torch.linspace(-3, 3, 25, dtype=torch.float64)
    mean, log_var = torch.meshgrid(grid, grid, indexing="ij")
    kl = kl_divergence(mean, log_var)
    away = (mean != 0) | (log_var != 0)
    assert (kl[away] > 0).all()
    assert kl.argmin() == (~away).flatten().nonzero()[0, 0]


@given(mean=st.floats(-5, 5), log_var=st.floats(-8, 4))
def test_kl_equals_torch_distributions(mean, log_var):
    ours = kl_divergence(torch.tensor(mean).double(), torch.tensor(log_var).double())
    posterior = torch.distributions.Normal(mean, float(np.exp(log_var / 2)))
    theirs = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert float(ours) == pytest.approx(float(theirs), abs=1e-4, rel=1e-4)


# Style encoders -------------------------------------------------------------------------------


def test_style_encoders_give_one_vector_for_any_length():
    encoder = CNNStyleEncoder(channels=8, dim=6).eval()
    predictor = CNNStylePredictor(n_features=45, channels=8, dim=6).eval()
    for n_frames in (5, 44, 129, 400):
        assert encoder(log_mel(2, n_frames)).shape == (2, 6)
        features, style = predictor(log_mel(2, n_frames))
        assert features.shape == (2, 45) and style.shape == (2, 6)
    linear = LinearStyleAutoencoder(n_features=45, bottleneck=7, hidden=16)
    rebuilt, code = linear(torch.randn(3, 45))
    assert rebuilt.shape == (3, 45) and code.shape == (3, 7)


def test_style_cnn_starts_as_a_ridge_regression():
    """Of features that depend linearly on the mean and deviation over time, here without penalty."""
    x, n_features = log_mel(60, 20) + 3 * torch.randn(60, 1, 1), 5
    pooled = mean_and_std(x[:, :8])
    features = pooled @ torch.randn(16, n_features) + 100
    model = CNNStylePredictor(n_features=n_features, n_mels=8, channels=4, dim=6).eval()
    model.standardize.fit(x[:, :8])
    model.standardize_features.fit(features)
    model.start_from_ridge(x[:, :8], features, penalty=0.0)
    predicted, style = model(x[:, :8])
    assert_close(predicted, model.standardize_features(features), atol=1e-2, rtol=0)
    assert_close(predicted, model.head(style))
    style.square().sum().backward()
    convolution = model.encoder.layers[0].weight
    assert float(convolution.grad.abs().max()) == 0, "the convolutions do not count yet"


def test_style_vector_of_a_repeated_clip_is_nearly_that_of_the_clip():
    encoder = CNNStyleEncoder(channels=8, dim=6).eval()
    x = log_mel(1, 64) / 30
    once, four_times, other = encoder(x), encoder(x.repeat(1, 1, 4)), encoder(-x)
    assert (once - four_times).norm() < 0.15 * (once - other).norm()


# Recombination --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_frames", [64, 65])
def test_gain_transfer_starts_as_a_static_equaliser(n_frames):
    """The gain of each band is the difference of the clips' means in dB, floored at -55 dB."""
    model = GainTransfer(**SMALL)
    model.standardize.fit(log_mel(2, 50))
    content, style = log_mel(2, n_frames), log_mel(2, 90, seed=1) - 12
    out = model(content, style)
    content, style = content.clamp_min(-55.0), style.clamp_min(-55.0)
    gain = (style.mean(dim=2) - content.mean(dim=2))[:, :, None]
    assert_close(out, content + gain, atol=1e-3, rtol=0)
    assert_close(model(content, content), content, atol=1e-3, rtol=0)
    longer = model.encode_style(torch.cat([content, content + 6], dim=2))
    assert_close(model.gain(content, longer, longer), torch.zeros_like(content), atol=1e-3, rtol=0)


@settings(max_examples=15)
@given(content=st.integers(1, 400), style=st.integers(5, 400))
def test_gain_has_the_contents_frames_odd_or_even(content, style):
    model = gain_transfer()
    with torch.no_grad():
        code = model.encode_style(log_mel(1, style))
        gain = model.gain(log_mel(1, content), code, code)
    assert gain.shape == (1, 128, content)
    assert torch.isfinite(gain).all() and float(gain.abs().max()) > 0.1


@pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
def test_calibration_takes_the_mistake_about_the_own_style_away(share):
    model = gain_transfer()
    content, other = log_mel(1, 64), log_mel(1, 80, seed=1)
    with torch.no_grad():
        own, style = model.encode_style(content), model.encode_style(other)
        mistake = model.gain(content, own, own)
        towards_own = model.gain(content, own, own, calibration=share)
        gain = model.gain(content, style, own, calibration=share)
        assert mistake.abs().mean() > 1, "untrained, it is one"
        assert_close(towards_own, (1 - share) * mistake)
        assert_close(gain, model.gain(content, style, own) - share * mistake)


@pytest.mark.parametrize("at", [200, 201])
def test_context_bounds_the_field_of_view(at):
    """What one frame changes lies within CONTEXT_FRAMES of it, and not only beside it."""
    model = gain_transfer()
    x = log_mel(1, 401)
    with torch.no_grad():
        style, own = model.encode_style(log_mel(1, 90, 1)), model.encode_style(log_mel(1, 90, 2))
        changed = x.clone()
        changed[:, :, at] += 30
        difference = (model.gain(changed, style, own) - model.gain(x, style, own)).abs()
    touched = (difference.amax(dim=(0, 1)) > 0).nonzero()[:, 0]
    reach = max(at - int(touched[0]), int(touched[-1]) - at)
    # The cross-fade takes a quarter of the margin, analysis and synthesis two frames each.
    assert 32 < reach <= GainTransfer.CONTEXT_FRAMES * 3 // 4 - 4


def test_style_is_used_after_a_training_step():
    """Beyond its mean spectrum: the two style clips of this test have equal means."""
    model = GainTransfer(**SMALL)
    model.standardize.fit(log_mel(2, 50))
    content = log_mel(2, 64)
    steady = torch.full((1, 128, 64), -30.0)
    beating = steady + 10 * torch.tensor([1.0, -1.0]).repeat(32)
    style = torch.cat([steady, beating])
    truth = content + 10 * torch.tensor([1.0, -1.0])[:, None, None]

    def gap() -> float:
        with torch.no_grad():
            own, vectors = model.encode_style(content), model.encode_style(style)
            swapped = StyleCode(*(x.roll(1, dims=0) for x in vectors))
            return float(
                (model.gain(content, vectors, own) - model.gain(content, swapped, own)).abs().mean()
            )

    assert gap() < 1e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    film = model.blocks[0].film.weight.detach().clone()
    for _ in range(2):
        log_spectral_loss(floored_difference(model(content, style), truth)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert gap() > 5e-3
    moved = (model.blocks[0].film.weight.detach() - film).abs()
    assert float(moved.mean()) > 1e-3, "the gradient reaches the first FiLM block"


@pytest.mark.parametrize("conditioning", ["film", "adain", "attention"])
def test_both_style_vectors_count_each_in_its_place(conditioning):
    model = gain_transfer(conditioning=conditioning)
    content = log_mel(1, 64)
    with torch.no_grad():
        a, b = model.encode_style(log_mel(1, 90, 1)), model.encode_style(log_mel(1, 90, 2))
        a.vector[:, -128:] = b.vector[:, -128:]  # equal mean spectra: no static equaliser
        b = b._replace(tokens=a.tokens)
        base = model.gain(content, a, a)
        other_style, other_own = model.gain(content, b, a), model.gain(content, a, b)
    for one, two in ((base, other_style), (base, other_own), (other_style, other_own)):
        assert float((one - two).abs().mean()) > 1e-4  # dB, untrained


def test_only_attention_hears_when_the_style_sounds():
    """Other tokens under the same vector change the gain with cross-attention, else not."""
    content = log_mel(1, 64)
    for conditioning in ("film", "adain", "attention"):
        model = gain_transfer(conditioning=conditioning)
        with torch.no_grad():
            style = model.encode_style(log_mel(1, 90, 1))
            other = style._replace(tokens=model.encode_style(log_mel(1, 70, 2)).tokens)
            gap = (model.gain(content, style, style) - model.gain(content, other, style)).abs()
        assert (float(gap.mean()) > 1e-3) == (conditioning == "attention")


def test_attention_forgets_the_order_of_the_other_clip():
    attention = CrossAttention(12, heads=3)
    x, other = torch.randn(2, 12, 9), torch.randn(2, 12, 7)
    y = attention(x, other)
    assert y.shape == x.shape
    assert_close(attention(x, other.flip(2)), y, atol=1e-5, rtol=1e-4)
    uniform = other[:, :, :1].expand(-1, -1, 7)  # one token seven times is that token
    assert_close(attention(x, uniform), attention(x, other[:, :, :1]), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="12 channels cannot be shared by 5 heads"):
        CrossAttention(12, heads=5)


def test_a_log_mel_output_owes_the_content_nothing():
    model = gain_transfer(output="log_mel")
    nn.init.zeros_(model.head.weight)
    content, style = log_mel(2, 64), log_mel(2, 90, seed=1)
    made = model(content, style)
    assert_close(made, made[:1, :, :2].repeat(2, 1, 32), atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrong", [{"conditioning": "sum"}, {"output": "mask"}])
def test_unknown_variants_are_refused(wrong):
    with pytest.raises(ValueError, match=r"unknown (conditioning 'sum'|output 'mask')"):
        GainTransfer(**SMALL, **wrong)


def test_gain_transfer_ignores_what_lies_below_its_floor():
    model, style = gain_transfer(), log_mel(1, 60, seed=1)
    quiet = torch.full((1, 128, 40), -70.0)
    assert torch.equal(model(quiet, style), model(quiet - 25, style))


@pytest.fixture
def latent_transfer() -> LatentTransfer:
    vae = ConvVAE(channels=8, latent_channels=4)
    vae.standardize.fit(log_mel(2, 50))
    return LatentTransfer(vae, CNNStylePredictor(n_features=45, channels=8, dim=6), channels=8)


@pytest.mark.parametrize("n_frames", [43, 64, 1001])
def test_latent_transfer_has_the_contents_shape(latent_transfer, n_frames):
    out = latent_transfer.eval()(log_mel(2, n_frames), log_mel(2, 77, seed=1))
    assert out.shape == (2, 128, n_frames)
    assert float(out.detach().mean()) == pytest.approx(-30, abs=5), "in dB, not standardised"


def test_latent_transfer_trains_its_decoder_only(latent_transfer):
    model = latent_transfer.train()
    style = log_mel(2, 64, seed=1)
    model(log_mel(2, 64), style).square().mean().backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"expand", "decoder"}
    assert float(model.decoder.blocks[-1].film.weight.grad.abs().max()) > 0
    model.eval()
    content = log_mel(2, 64)
    assert not torch.allclose(model(content, style), model(content, style.flip(0)), atol=1e-3)


# Loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "target", "difference", "slope"),
    [
        (-20.0, -30.0, 10.0, 1.0),
        (-40.0, -30.0, -10.0, 1.0),
        (-90.0, -30.0, -60.0, 1.0),  # below the floor, but ought not to be: keeps its gradient
        (-20.0, -80.0, 35.0, 1.0),  # the target counts as the floor
        (-80.0, -70.0, 0.0, 0.0),  # both inaudible
        (-55.0, -55.0, 0.0, None),
    ],
)
def test_floored_difference(predicted, target, difference, slope):
    p = torch.tensor([predicted], requires_grad=True)
    found = floored_difference(p, torch.tensor([target]))
    found.sum().backward()
    assert float(found.detach()) == difference
    assert slope is None or float(p.grad) == slope


def test_log_spectral_loss_is_the_mean_of_both_distances():
    """With 1e-3 dB^2 under the root, which keeps the gradient finite at zero."""
    assert float(log_spectral_loss(torch.full((2, 128, 40), -3.0))) == pytest.approx(3, abs=1e-3)
    by_band = torch.linspace(0, 10, 128)[:, None].expand(1, 128, 40)
    expected = (5.0 + float(by_band.square().mean().sqrt())) / 2
    assert float(log_spectral_loss(by_band)) == pytest.approx(expected, abs=2e-3)
    by_frame = torch.linspace(0, 10, 40).expand(1, 128, 40)
    expected = (5.0 + float(by_frame.square().mean().sqrt())) / 2
    assert float(log_spectral_loss(by_frame)) == pytest.approx(expected, abs=2e-3)
    zero = torch.zeros(1, 128, 40, requires_grad=True)
    log_spectral_loss(zero).backward()
    assert torch.isfinite(zero.grad).all()
