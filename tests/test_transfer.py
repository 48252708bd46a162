"""Audio in, audio out: length, level, blocks, strength, and what an equaliser must do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from audiostyle_lib import transfer, vocoding
from audiostyle_lib.config import AudioConfig, ConfigMismatchError
from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.recombine import GainTransfer, LatentTransfer
from audiostyle_lib.models.style import CNNStylePredictor
from audiostyle_lib.models.vae import ConvVAE
from audiostyle_lib.signal import audio, blocks, features

RATE = 22_050
SMALL = {"channels": 12, "heads": 2, "style_dim": 6}


@pytest.fixture(scope="module")
def model(config, clip) -> GainTransfer:
    """Untrained, but with a last layer that makes gains of several dB."""
    torch.manual_seed(0)
    model = GainTransfer(**SMALL)
    model.standardize.fit(features.log_mel_at_level(clip(2.0), config))
    nn.init.normal_(model.head.weight, std=0.05)
    with torch.no_grad():  # so that the far ends of the field of view weigh as much as the middle
        for block in model.blocks:
            block.conv.weight.mul_(2), block.project.weight.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def latent_model(config, clip) -> LatentTransfer:
    torch.manual_seed(0)
    vae = ConvVAE(channels=8, latent_channels=4)
    vae.standardize.fit(features.log_mel_at_level(clip(2.0), config))
    return LatentTransfer(
        vae, CNNStylePredictor(n_features=45, channels=8, dim=6), channels=8
    ).eval()


@pytest.fixture
def short_blocks(monkeypatch):
    monkeypatch.setattr(transfer, "BLOCK_FRAMES", 128)


def peak(x: np.ndarray) -> float:
    return float(np.abs(x).max())


# Variance -------------------------------------------------------------------------------------


def varied(std: float, mean: float = -20.0) -> torch.Tensor:
    x = torch.randn(1, 128, 400, generator=torch.Generator().manual_seed(3))
    return mean + std * (x - x.mean(dim=2, keepdim=True)) / x.std(dim=2, keepdim=True)


@pytest.mark.parametrize(
    ("halved", "style_std", "amount", "expected"),
    [
        (0.5, 8.0, 1.0, 8.0),  # what both clips have
        (0.5, 8.0, 0.0, 4.0),
        (0.5, 5.0, 1.0, 5.0),  # as calm as the style
        (0.9, 10.0, 1.0, 10.0),  # livelier than the content
        (0.1, 8.0, 1.0, 1.6),  # at most twice
        (2.0, 8.0, 1.0, 16.0),  # never taken away
        (0.5, 8.0, 0.5, 4.0 * 2**0.5),
    ],
)
def test_variance_is_raised_towards_that_of_the_style(halved, style_std, amount, expected):
    content, style = varied(8.0), varied(style_std)

    def gain_of(x):  # towards its mean, and 3 dB up
        return (halved - 1) * (x - content.mean(dim=2, keepdim=True)) + 3.0

    gain = transfer.with_global_variance(gain_of, content, style, amount=amount)
    result = content + gain(content)
    assert result.std(dim=2).mean() == pytest.approx(expected, rel=1e-3)
    assert result.mean() == pytest.approx(-17.0, abs=1e-3)
    if amount == 0:
        torch.testing.assert_close(gain(content), gain_of(content))


# Length and blocks ----------------------------------------------------------------------------


@settings(max_examples=20)
@given(n_samples=st.one_of(st.integers(2048, 70_000), st.integers(120_000, 200_000)))
def test_length_is_kept_below_and_above_a_block(model, clip, short_blocks, n_samples):
    content = clip(n_samples / RATE + 0.01)[:n_samples]
    out = transfer.transfer(content, clip(1.0, 1), method=transfer.learned(model))
    assert out.shape == (n_samples,) and out.dtype == np.float32
    assert np.isfinite(out).all() and audio.rms_dbfs(out) > -60


@pytest.mark.parametrize("n_blocks", [2, 5.03, 4.6])
def test_blocks_give_what_one_pass_gives(model, clip, monkeypatch, n_blocks):
    content, style = clip(n_blocks * 128 * 512 / RATE), clip(3.0, 1)

    def run(block_frames):
        monkeypatch.setattr(transfer, "BLOCK_FRAMES", block_frames)
        done = []
        out = transfer.transfer(
            content,
            style,
            method=transfer.learned(model),
            progress=lambda k, n: done.append((k, n)),
        )
        return out, done

    whole, once = run(10_000)
    pieces, often = run(128)
    assert once == [(1, 1)]
    count = int(np.ceil(n_blocks))
    assert often == [(k, count) for k in range(1, count + 1)]
    assert peak(pieces - whole) < 2e-6 * peak(whole)  # float32 rounding
    assert peak(whole - content) > 0.05, "the network does change something"


@pytest.mark.parametrize("n_blocks", [0.1, 2, 4.6])
def test_a_vocoder_that_finds_phases_gets_the_log_mel_of_all_blocks(
    model, clip, monkeypatch, n_blocks
):
    content, style = clip(n_blocks * 128 * 512 / RATE), clip(3.0, 1)
    seen = []

    def vocoder(log_mel, config, *, n_samples, vocoder):
        seen.append(log_mel)
        return torch.from_numpy(content[:n_samples])[None]

    monkeypatch.setattr(vocoding, "mel_to_waveform", vocoder)
    for block_frames in (10_000, 128):
        monkeypatch.setattr(transfer, "BLOCK_FRAMES", block_frames)
        method = transfer.learned(model)
        transfer.transfer(content, style, method=method, vocoder="griffin_lim")
    assert seen[0].shape == (1, 128, 1 + len(content) // 512)
    torch.testing.assert_close(seen[1], seen[0], atol=1e-3, rtol=0)  # dB


def test_blocks_of_the_latent_method_agree_too(latent_model, clip, monkeypatch):
    content, style = clip(7.0), clip(3.0, 1)

    def run(block_frames):
        monkeypatch.setattr(transfer, "BLOCK_FRAMES", block_frames)
        return transfer.transfer(content, style, method=transfer.latent(latent_model))

    whole = run(10_000)
    assert peak(run(128) - whole) < 1e-3 * peak(whole)
    assert peak(whole - content) > 0.05


def test_seams_do_not_show_without_a_gain(clip, short_blocks):
    content = clip(20_000 * 5 / RATE)
    out = transfer.transfer(content, content, method=transfer.ltas_eq)
    np.testing.assert_allclose(out, content, atol=1e-5)


# Strength and level ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["learned", "ltas_eq", "latent"])
def test_strength_zero_gives_the_content_back(model, latent_model, clip, name):
    content, style = clip(2.0), clip(2.0, 1) ** 2
    method = {
        "learned": transfer.learned(model),
        "ltas_eq": transfer.ltas_eq,
        "latent": transfer.latent(latent_model),
    }[name]
    out = transfer.transfer(content, style, method=method, strength=0.0)
    error_db = audio.rms_dbfs(out - content) - audio.rms_dbfs(content)
    assert error_db < -39  # the difference of 0.1 dB
    assert peak(out - content) < 1e-4


def test_strength_scales_the_gain_in_db(clip, config):
    content, style = clip(3.0), np.cumsum(clip(3.0, 1) - 0.001).astype(np.float32)

    def levels(strength):
        out = transfer.transfer(content, style, method=transfer.ltas_eq, strength=strength)
        return features.log_mel_at_level(out, config)[0, 5:100].mean(dim=1)

    none, half, full = (levels(s) for s in (0.0, 0.5, 1.0))
    change, slope = full - none, (half - none) - (full - none) / 2
    assert float(change.std()) > 3
    assert float((slope - slope.mean()).abs().mean()) < 0.35 * float(change.std())


@pytest.mark.parametrize("vocoder", vocoding.VOCODERS)
def test_result_is_as_loud_as_the_content_and_as_long(model, clip, vocoder):
    content = 0.05 * clip(1.0)
    out = transfer.transfer(content, clip(1.0, 1), method=transfer.learned(model), vocoder=vocoder)
    assert out.shape == content.shape
    assert audio.rms_dbfs(out) == pytest.approx(audio.rms_dbfs(content), abs=0.01)


@given(gain_db=st.floats(-100, 100), seed=st.integers(0, 5), amplitude=st.floats(0.01, 1.0))
def test_result_never_clips(clip, gain_db, seed, amplitude):
    """Even where the content is a square wave, as loud as can be: any change raises its peaks."""
    content = (amplitude * np.sign(clip(0.3, seed))).astype(np.float32)

    def wild(content_mel, style_mel):
        generator = torch.Generator().manual_seed(seed)
        return lambda x: gain_db + 30 * torch.randn(x.shape, generator=generator)

    out = transfer.transfer(content, content, method=wild)
    assert np.isfinite(out).all() and peak(out) <= blocks.PEAK + 1e-6


def test_level_of_the_inputs_does_not_matter(model, clip):
    content, style = clip(2.0), clip(2.0, 1)
    loud = transfer.transfer(content, style, method=transfer.learned(model))
    quiet = transfer.transfer(0.1 * content, 0.3 * style, method=transfer.learned(model))
    np.testing.assert_allclose(quiet, 0.1 * loud, atol=1e-3 * peak(loud))


# Methods --------------------------------------------------------------------------------------


def test_ltas_gain_is_the_difference_of_mean_powers():
    content = torch.full((1, 128, 40), -20.0)
    style = torch.cat([torch.full((1, 128, 30), -10.0), torch.full((1, 128, 30), -200.0)], dim=2)
    gain = transfer.ltas_eq(content, style)(content)
    assert gain.shape == (1, 128, 1)
    half_the_time = -10 - 3.0103 + 20
    torch.testing.assert_close(gain, torch.full((1, 128, 1), half_the_time), atol=1e-3, rtol=0)


def test_ltas_eq_gives_the_styles_band_levels(config):
    rng = np.random.default_rng(0)
    f = np.fft.rfftfreq(4 * RATE, 1 / RATE)
    noise = [np.fft.rfft(rng.standard_normal(4 * RATE)) for _ in range(2)]
    tilts = [(100 + f) ** -0.5, 1 / (1 + ((f - 2000) / 1500) ** 2) + 0.03]
    content, style = (
        audio.to_level(np.fft.irfft(n * t).astype(np.float32))
        for n, t in zip(noise, tilts, strict=True)
    )
    out = transfer.transfer(content, style, method=transfer.ltas_eq)

    def band_levels(x):
        mel = 10 ** (features.log_mel_at_level(x, config)[0] / 10)
        return 10 * mel.mean(dim=1).log10()

    # the lowest band has bins below 20 Hz, which pass as they are
    before = (band_levels(content) - band_levels(style)).abs()[1:]
    after = (band_levels(out) - band_levels(style)).abs()[1:]
    assert float(before.mean()) > 5
    assert float(after.mean()) < 0.3 and float(after.max()) < 1.5  # dB


def test_unknown_vocoders_are_refused(clip):
    with pytest.raises(ValueError, match="unknown vocoder"):
        transfer.transfer(clip(0.2), clip(0.2), method=transfer.ltas_eq, vocoder="world")


def test_the_defaults_are_written_down_once(model, clip):
    content, style = clip(1.0), clip(1.0, 1)
    plain, named = transfer.learned(model), transfer.learned(model, **transfer.DEFAULTS)
    assert transfer.DEFAULTS == {"calibration": 0.0, "variance": 0.15}
    outs = [transfer.transfer(content, style, method=m) for m in (plain, named)]
    assert np.array_equal(*outs)
    assert set(transfer.FOR_BANDS) == set(vocoding.VOCODERS)


# Arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["content", "style"])
def test_arrays_of_any_kind_are_converted(model, clip, role):
    x, y = clip(1.0), clip(1.0, 1)
    sixteen_bits = (32767 * x).astype(np.int16)

    def run(clip_of_role):
        pair = (clip_of_role, y) if role == "content" else (y, clip_of_role)
        return transfer.transfer(*pair, method=transfer.learned(model))

    expected = run(x)
    for array in (x.astype(np.float64), np.repeat(x, 2)[::2]):
        np.testing.assert_allclose(run(array), expected, atol=1e-6)
    stereo = run(np.stack([x, x], axis=1))
    assert stereo.ndim == (2 if role == "content" else 1)  # the result has the content's channels
    for channel in stereo.reshape(len(x), -1).T:
        np.testing.assert_allclose(channel, expected, atol=1e-6)
    np.testing.assert_allclose(run(sixteen_bits), expected, atol=2e-3)
    assert run(sixteen_bits).dtype == np.float32


@pytest.mark.parametrize("role", ["content", "style"])
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda x: x[:0], "lasts 0.000 s, shorter than one window"),
        (lambda x: x[:2047], "shorter than one window"),
        (lambda x: np.where(np.arange(len(x)) == 9, np.nan, x), "not finite"),
        (lambda x: np.stack([x, x]), "wanted .n_samples,. or .n_samples, n_channels."),
    ],
    ids=["empty", "short", "NaN", "channels first"],
)
def test_arrays_that_are_no_clip_are_refused_in_one_line(clip, role, make, why):
    clips = {"content": clip(0.5), "style": clip(0.5, 1)}
    clips[role] = make(clips[role])
    with pytest.raises(ValueError, match=f"^{role}: .*{why}") as error:
        transfer.transfer(**clips, method=transfer.ltas_eq)
    assert "\n" not in str(error.value)


def test_a_method_may_know_the_gain_of_every_frame(clip, config):
    """Oracles and notebook 00 do: of a clip of one block, they are shown its log-mel and nothing else."""
    content = clip(3.0)
    known = torch.linspace(-6, 6, config.n_frames(len(content))).expand(1, 128, -1)
    seen = []

    def prepare(content_mel, style_mel):
        return lambda x: seen.append(x) or known

    transfer.transfer(content, clip(2.0, 1), method=prepare)
    assert [x.shape for x in seen] == [known.shape]
    expected = features.log_mel_at_level(content, config)  # whose lowest bands have the offset, too
    torch.testing.assert_close(seen[0][:, 4:], expected[:, 4:], atol=0.5, rtol=0)


# Memory and files -----------------------------------------------------------------------------


def test_excerpt_is_bounded_and_spread_over_the_recording(config):
    short = np.arange(120 * RATE, dtype=np.float32)
    assert transfer.excerpt(short, config) is short
    recording = np.arange(5 * 60 * RATE, dtype=np.float64)  # each sample is its position
    found = transfer.excerpt(recording, config)
    assert len(found) == 120 * RATE
    assert found[0] == 0 and found[-1] == recording[-1]
    jumps = np.diff(found)
    assert (jumps == 1).sum() == len(found) - 12 and (jumps >= 1).all()
    pieces = found.reshape(12, -1)[:, 0]
    np.testing.assert_allclose(np.diff(pieces), np.diff(pieces)[0], atol=1)


def test_network_never_sees_more_than_a_block(model, clip, short_blocks):
    seen = []

    def watching(content, style):
        seen.append(content.shape[2])
        gain_of = transfer.learned(model)(content, style)

        def gain(x):
            seen.append(x.shape[2])
            return gain_of(x)

        return gain

    transfer.transfer(clip(12.0), clip(1.0, 1), method=watching)
    assert len(seen) == 1 + 5
    assert max(seen[1:]) <= 128 + 2 * transfer.MARGIN_FRAMES + 1


def test_pretrained_model_is_stored_in_half_precision(model, clip, tmp_path, config):
    path, kept = tmp_path / "trained.safetensors", tmp_path / "kept.safetensors"
    header = {"audio": config.to_dict(), "model": SMALL, "epoch": 1}
    checkpoint.save(path, {f"model.{k}": v for k, v in model.state_dict().items()}, header)
    checkpoint.store_pretrained(path, kept, command="audiostyle pretrain")
    assert kept.stat().st_size < 0.6 * path.stat().st_size
    assert checkpoint.read_header(kept) == header | {
        "provenance": {"command": "audiostyle pretrain"}
    }
    loaded = transfer.load_model(kept)
    assert next(loaded.parameters()).dtype == torch.float32 and not loaded.training
    x = features.log_mel(torch.from_numpy(clip(1.0))[None], config)
    with torch.no_grad():
        difference = (loaded(x, x.flip(1)) - model(x, x.flip(1))).abs()
    assert 0 < float(difference.max()) < 0.3  # dB
    with pytest.raises(ConfigMismatchError, match="n_mels"):
        transfer.load_model(kept, config=AudioConfig(n_mels=80))
