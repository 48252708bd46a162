"""Neural vocoders: shapes, receptive fields and sizes as published, and trainings that can be resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchaudio.functional import mu_law_encoding

from audiostyle_lib.config import AudioConfig
from audiostyle_lib.models import checkpoint, discriminators
from audiostyle_lib.models.discriminators import (
    Discriminators,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from audiostyle_lib.models.melgan import PQMF, MelGAN, MultiBandMelGAN
from audiostyle_lib.models.vocos import Vocos
from audiostyle_lib.models.wavenet import WaveNet
from audiostyle_lib.signal import features
from audiostyle_lib.training import vocoders

SMALL_VOCOS = {"channels": 16, "hidden": 24, "blocks": 2}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def pcm(clip) -> np.ndarray:
    return np.stack([32_000 * clip(3.0, seed) for seed in range(3)]).astype(np.int16)


def random_log_mel(n_frames: int, batch: int = 1, n_mels: int = 128) -> torch.Tensor:
    return -30 + 20 * torch.randn(batch, n_mels, n_frames)


def n_parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# Sizes, shapes, receptive fields ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "published"),
    [
        (lambda: MelGAN(n_mels=80, scales=(8, 8, 2, 2)), 4.27e6),
        (lambda: MultiBandMelGAN(n_mels=80, scales=(8, 4, 2)), 2.53e6),
        (lambda: MultiScaleDiscriminator(), 16.9e6),
        (lambda: MultiPeriodDiscriminator(), 41.1e6),
    ],
    ids=["MelGAN", "Multi-band MelGAN", "MSD", "MPD"],
)
def test_number_of_parameters_is_the_published_one(build, published):
    assert n_parameters(build()) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("predict_phase", [False, True])
def test_our_vocos_has_at_most_four_million(predict_phase):
    assert 3e6 < n_parameters(Vocos(predict_phase=predict_phase)) <= 4e6


@pytest.mark.parametrize("build", [MelGAN, MultiBandMelGAN], ids=["MelGAN", "Multi-band MelGAN"])
@settings(max_examples=4)
@given(n_frames=st.integers(4, 40), batch=st.integers(1, 2))
def test_gans_give_a_hop_of_samples_a_frame(build, n_frames, batch):
    model = build(channels=32)
    y = model(random_log_mel(n_frames, batch))
    assert y.shape == (batch, 1, 512 * n_frames) and bool(y.isfinite().all())


@settings(max_examples=6)
@given(n_frames=st.integers(2, 60), batch=st.integers(1, 2))
def test_vocos_gives_magnitudes_or_a_waveform(n_frames, batch):
    log_mel = random_log_mel(n_frames, batch)
    magnitude = Vocos(**SMALL_VOCOS)(log_mel)
    assert magnitude.shape == (batch, 1025, n_frames) and bool((magnitude >= 0).all())
    waveform = Vocos(**SMALL_VOCOS, predict_phase=True)(log_mel)
    assert waveform.shape == (batch, (n_frames - 1) * 512) and bool(waveform.isfinite().all())


def test_receptive_field_of_vocos_is_that_of_the_gradient():
    """Frames of the log-mel that one magnitude of the output depends on."""
    model = Vocos(**SMALL_VOCOS)
    log_mel = random_log_mel(101).requires_grad_()
    (gradient,) = torch.autograd.grad(model(log_mel)[0, 100, 50], log_mel)
    assert int((gradient[0].abs().amax(dim=0) > 0).sum()) == model.receptive_field


def test_a_held_tone_gives_the_network_nothing_to_advance_a_phase_by():
    """Why ours gives magnitudes only: equal frames in, equal frames out, of any convolutional network."""
    model = Vocos(**SMALL_VOCOS, predict_phase=True)
    held = random_log_mel(1).expand(1, 128, 60)
    spectrum = model.spectrum(held)[0, :, 20:40]
    assert_close(spectrum, spectrum[:, :1].expand_as(spectrum), atol=1e-5, rtol=1e-4)


# The filter bank ------------------------------------------------------------------------------


@settings(max_examples=8)
@given(n=st.integers(300, 3000), seed=st.integers(0, 50))
def test_pqmf_gives_the_signal_back(n, seed):
    x = torch.randn(1, 1, 4 * n, generator=torch.Generator().manual_seed(seed))
    bank = PQMF()
    bands = bank.analysis(x)
    assert bands.shape == (1, 4, n)
    error = (bank.synthesis(bands) - x)[..., 64:-64]
    snr = 10 * torch.log10(x[..., 64:-64].square().sum() / error.square().sum())
    assert float(snr) >= 50


def test_pqmf_puts_a_tone_into_its_band(tone):
    bank = PQMF()
    for band in range(4):
        x = torch.from_numpy(tone((band + 0.5) * 22_050 / 8))[None, None, :22_048]
        power = bank.analysis(x)[0].square().mean(dim=1)
        assert int(power.argmax()) == band
        assert float(power.sum() - power[band]) < 1e-4 * float(power[band])


# Discriminators -------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [8192, 9001])
def test_discriminators_score_every_scale_resolution_and_period(n_samples):
    both = Discriminators(MultiPeriodDiscriminator(width=2), MultiResolutionDiscriminator(width=4))
    judged = both(torch.randn(2, 1, n_samples))
    assert len(judged) == 5 + 3
    scales = MultiScaleDiscriminator(width=4, most=32)(torch.randn(2, 1, n_samples))
    assert len(scales) == 3 and scales[0][0].shape[2] > 1.9 * scales[1][0].shape[2]
    for scores, layers in [*judged, *scales]:
        assert scores.shape[:2] == (2, 1) and len(layers) >= 4


def judged(score: float, layer: float) -> list:
    return [(torch.full((2, 1, 5), score), [torch.full((2, 3, 5), layer)])]


def test_hinge_and_feature_losses_of_known_scores():
    assert float(discriminators.discriminator_loss(judged(1.0, 0), judged(-1.0, 0))) == 0
    assert float(discriminators.discriminator_loss(judged(0.5, 0), judged(0.25, 0))) == 1.75
    assert float(discriminators.generator_loss(judged(0.25, 0))) == -0.25
    assert float(discriminators.feature_matching_loss(judged(0, 3.0), judged(0, 1.0))) == 2.0


def tiny_recipe(**changes) -> vocoders.Recipe:
    settings_ = {"lr": 1e-3, "betas": (0.8, 0.9), **changes}
    return vocoders.Recipe(
        lambda config: MelGAN(channels=16),
        lambda width: MultiScaleDiscriminator(width=4, most=16),
        **settings_,
    )


def test_each_side_gets_the_gradient_of_its_own_loss(config):
    sides = vocoders.VocoderAdversaries(
        tiny_recipe(feature_matching=10.0), config=config, steps=10, mpd_width=2
    )
    log_mel, real = random_log_mel(8), 0.1 * torch.randn(1, 8 * 512)
    losses = sides(log_mel, real)
    assert set(losses) == {"discriminator", "generator", "feature_matching"}
    of_generator, of_discriminators = (
        [p for n, p in sides.named_parameters() if n.startswith(side)]
        for side in ("generator", "discriminator")
    )
    by_own = torch.autograd.grad(losses["discriminator"], of_discriminators, retain_graph=True)
    assert all(bool(g.isfinite().all()) for g in by_own) and any(bool(g.any()) for g in by_own)
    for name, others in (
        ("discriminator", of_generator),
        ("generator", of_discriminators),
        ("feature_matching", of_discriminators),
    ):
        crossed = torch.autograd.grad(losses[name], others, retain_graph=True, allow_unused=True)
        assert all(g is None or not bool(g.any()) for g in crossed), name
    own = torch.autograd.grad(losses["generator"], of_generator)
    assert any(bool(g.any()) for g in own)


def test_discriminators_join_when_the_recipe_says(config):
    sides = vocoders.VocoderAdversaries(
        tiny_recipe(starts=0.5, stft=1.0), config=config, steps=4, mpd_width=2
    )
    batch = random_log_mel(8), 0.1 * torch.randn(1, 8 * 512)
    assert ["discriminator" in sides(*batch) for _ in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("name", [*vocoders.RECIPES, "WaveNet"])
def test_every_vocoder_trains_and_is_found_again(name, pcm, config, tmp_path, capsys):
    def train():
        return vocoders.train(
            name, pcm, pcm, steps=2, path=tmp_path / "v.safetensors", config=config,
            corpus_sha256="x", batch_size=1, mpd_width=2,
        )  # fmt: skip

    model, curves = train()
    assert all(np.isfinite(v).all() and len(v) == 2 for v in curves.values())
    again, found = train()
    assert "(found in v.safetensors" in capsys.readouterr().out and found == curves
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


# WaveNet --------------------------------------------------------------------------------------


def small_wavenet() -> WaveNet:
    return WaveNet(channels=8, skip=8, stacks=2, layers=4, hop_length=64)


def test_wavenet_hears_its_receptive_field_and_nothing_later():
    model = small_wavenet()
    receptive_field = 2 * 15 + 1  # two stacks of dilations 1, 2, 4, 8
    x, log_mel = 0.5 * torch.randn(1, 256).clamp(-1, 1), random_log_mel(4)
    reference = model(x, log_mel)[0, :, 200]
    changes = []
    for i in range(150, 256):
        other = x.clone()
        other[0, i] = -other[0, i].sign() * 0.9
        changed = model(other, log_mel)[0, :, 200]
        changes.append(bool((changed - reference).abs().max() > 0))
    heard = 150 + np.flatnonzero(changes)
    assert heard.max() == 199 and heard.min() >= 200 - receptive_field
    assert len(heard) >= receptive_field - 2  # an equal mu-law level hides a change


def test_wavenet_generates_from_the_distributions_it_was_trained_on(monkeypatch):
    """Drawing the likeliest level, each sample is the argmax of what `forward` says after the others."""
    model, log_mel = small_wavenet().eval(), random_log_mel(3)
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: p.argmax()[None])
    made = model.generate(log_mel, 150)
    with torch.no_grad():
        logits = model(made[None], log_mel)[0]
    np.testing.assert_array_equal(logits.argmax(dim=0), mu_law_encoding(made, 256))


def test_wavenet_repeats_with_its_seed_and_reports():
    model, log_mel, seen = small_wavenet(), random_log_mel(2), []
    first = model.generate(log_mel, 100, seed=1, progress=lambda done, n: seen.append(done))
    assert torch.equal(first, model.generate(log_mel, 100, seed=1))
    assert not torch.equal(first, model.generate(log_mel, 100, seed=2))
    assert seen[-1] == 100 and first.shape == (100,) and float(first.abs().max()) <= 1


# Excerpts and the magnitude network -------------------------------------------------------------


def test_excerpts_are_varied_finite_and_repeat(pcm, config):
    def draw(seed):
        rng = np.random.default_rng(seed)
        return vocoders.random_excerpts(pcm, batch_size=8, config=config, rng=rng)

    x = draw(0)
    assert x.shape == (8, 71 * 512) and x.dtype == torch.float32 and bool(x.isfinite().all())
    assert torch.equal(x, draw(0)) and not torch.equal(x, draw(1))
    level = 20 * x.std(dim=1).log10()
    assert float(level.min()) >= -36.1 and float(level.max()) <= -11.9 and float(level.std()) > 2


def test_excerpts_of_silence_and_of_short_clips_are_finite(config):
    rng = np.random.default_rng(0)
    for clips in (np.zeros((1, 60_000), np.int16), np.ones((2, 5000), np.int16)):
        x = vocoders.random_excerpts(clips, batch_size=4, config=config, rng=rng)
        assert x.shape == (4, 71 * 512) and bool(x.isfinite().all())


def test_log_mel_and_waveform_belong_together(pcm, config):
    rng = np.random.default_rng(0)
    excerpts = vocoders.random_excerpts(pcm, batch_size=3, config=config, rng=rng)
    log_mel, x = vocoders.log_mel_and_waveform(excerpts, config)
    assert log_mel.shape == (3, 128, 16) and x.shape == (3, 16 * 512) and float(x.abs().max()) <= 1
    again = features.log_mel(x, config)
    assert_close(again[:, :, 2:15], log_mel[:, :, 2:15], atol=1e-3, rtol=0)  # frames inside only


def test_magnitude_losses_of_a_gain(config):
    target = torch.rand(2, 1025, 7) + 0.5
    log_l1, convergence = vocoders.magnitude_losses(2 * target, target)
    assert float(log_l1) == pytest.approx(np.log(2), rel=1e-5)
    assert float(convergence) == pytest.approx(1, rel=1e-5)


def test_a_network_heard_first_can_be_trained_after():
    """Constants that are kept from a call in inference mode must not refuse a gradient."""
    config = AudioConfig(n_mels=40)  # of no other test, so nothing is kept yet
    waveform = torch.randn(1, 8192)
    with torch.inference_mode():
        log_mel = features.log_mel(waveform, config)
        Vocos(config=config, **SMALL_VOCOS)(log_mel)
    model = Vocos(config=config, **SMALL_VOCOS, predict_phase=True)
    error = (features.log_mel(model(log_mel.clone()), config) - log_mel).abs().mean()
    error.backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_magnitude_network_learns_and_resumes_to_the_same_weights(pcm, config, tmp_path):
    def train(path, steps=4):
        return vocoders.train_magnitude(
            pcm, pcm, steps=steps, path=path, config=config, corpus_sha256="x", batch_size=2,
            **SMALL_VOCOS,
        )  # fmt: skip

    monkey = pytest.MonkeyPatch()
    monkey.setattr(vocoders, "STEPS_PER_EPOCH", 2)
    whole, curves = train(tmp_path / "whole.safetensors", steps=6)
    assert curves["valid_convergence"][-1] < curves["valid_convergence"][0]
    saved, stops = checkpoint.save, []

    def interrupted(*arguments):
        saved(*arguments)
        stops.append(1)
        if len(stops) == 2:
            raise KeyboardInterrupt

    monkey.setattr(checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken.safetensors", steps=6)
    monkey.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocoders, "STEPS_PER_EPOCH", 2)
        resumed, _ = train(tmp_path / "broken.safetensors", steps=6)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
