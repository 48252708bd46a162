"""Audio in, audio out: the notes of one clip in the sound of another.

A method predicts a gain in dB: what has to be added to the content's log-mel to get the result's. So
`strength` and the vocoders work in the same way for all methods. Used by
``notebooks/00_listen_first.ipynb``, ``notebooks/07_recombination.ipynb`` and the command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import vocoding
from .config import AudioConfig, choose_device
from .errors import InputError
from .models import checkpoint
from .models.recombine import GainTransfer, LatentTransfer
from .paths import PRETRAINED
from .rendering import (
    LARGE_RUMBLE,
    LOWEST_HZ,
    SOUNDING,
    GainRenderer,
    Gains,
    Result,
    render,
)
from .signal import features
from .signal.audio import as_floats, as_waveform, heard_channel
from .signal.recording import Recording

DEFAULT_MODEL = PRETRAINED / "gain_transfer.safetensors"
GAIN_LIMITS_DB = (-60.0, 30.0)
BLOCK_FRAMES = 1280  # about 30 s; even, because the network halves the time resolution
MARGIN_FRAMES = GainTransfer.CONTEXT_FRAMES
EXCERPT_SECONDS, EXCERPT_PIECES = 120.0, 12
VARIANCE_LIMIT = 2.0  # see `with_global_variance`
# Corrections of `learned`. The defaults, here and on the command line:
DEFAULTS = {"calibration": 0.0, "variance": 0.15}
# For clips of the corpus bands, by output stage: chosen in notebook 07 on validation triplets.
_OF_A_GAIN = {"calibration": 0.1, "variance": 0.15}
_OF_A_LOG_MEL = {"calibration": 0.5, "variance": 0.75}
FOR_BANDS = {
    vocoder: _OF_A_LOG_MEL if vocoder in vocoding.FROM_LOG_MEL else _OF_A_GAIN
    for vocoder in vocoding.VOCODERS
}
# Chosen by both timbre columns of the benchmark on 40 pairs of GTZAN's training and validation tracks.
FOR_RECORDINGS = {"calibration": 1.0, "variance": 0.5}

# (content log-mel (1, n_mels, T)) -> gain (1, n_mels, T) or (1, n_mels, 1)
GainFunction = Callable[[Tensor], Tensor]


def excerpt(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """At most two minutes of `waveform` (n_samples,): twelve evenly spaced pieces, joined together.

    A style is a summary of a clip. Two minutes are enough for it and bound the memory that it takes.
    """
    longest = round(EXCERPT_SECONDS * config.sample_rate)
    if len(waveform) <= longest:
        return waveform
    piece = longest // EXCERPT_PIECES
    starts = np.linspace(0, len(waveform) - piece, EXCERPT_PIECES).astype(int)
    return np.concatenate([waveform[s : s + piece] for s in starts])


def learned(
    model: GainTransfer,
    *,
    calibration: float = DEFAULTS["calibration"],
    variance: float = DEFAULTS["variance"],
) -> Callable[[Tensor, Tensor], GainFunction]:
    """The method of a trained network, with two corrections of errors that regression makes.

    Parameters
    ----------
    model : GainTransfer
        In evaluation mode, for example from `load_model`.
    calibration : float
        From 0 to 1: which share of the gain towards the content's own style to subtract. That gain should
        be zero, so what the network gives instead is its error about this content.
    variance : float
        From 0 to 1: how far each band's variation over time, which regression makes too small, is raised
        to that of the style clip. See `with_global_variance`.

    Returns
    -------
    callable
        Takes the log-mels of content and style, each (1, n_mels, T) at -20 dBFS, and returns a function
        from a log-mel of the content (1, n_mels, T) to its gain in dB.

    Notes
    -----
    `FOR_BANDS` and `FOR_RECORDINGS` are other settings for ``learned(model, **settings)``.
    """

    def prepare(content: Tensor, style: Tensor) -> GainFunction:
        own, target = model.encode_style(content), model.encode_style(style)

        def gain_of(log_mel: Tensor) -> Tensor:
            return model.gain(log_mel, target, own, calibration=calibration)

        if not variance:
            return gain_of
        return with_global_variance(gain_of, content, style, amount=variance)

    return prepare


def with_global_variance(
    gain_of: GainFunction, content: Tensor, style: Tensor, *, amount: float
) -> GainFunction:
    """Change a gain so that the result varies over time about as much as the style clip does.

    Where several results are plausible, a regression predicts their mean, which varies less over time
    than each of them. Therefore each band's deviation from its mean is scaled by (standard deviation of
    the style / of the result) ** `amount`, limited to 1..`VARIANCE_LIMIT`.

    Parameters
    ----------
    gain_of : callable
        From a log-mel in dB (1, n_mels, T) to its gain in dB.
    content, style : torch.Tensor [shape=(1, n_mels, T)]
        Log-mels in dB at -20 dBFS, from which the standard deviations are computed.
    amount : float
        0 leaves the gain as it is, 1 scales fully.

    Returns
    -------
    callable
        Like `gain_of`.

    References
    ----------
    Toda & Tokuda, "A speech parameter generation algorithm considering global variance," IEICE Trans.
    E90-D(5), 2007. Silen et al., "Ways to implement global variance in statistical speech synthesis,"
    Interspeech 2012.
    """
    floor = features.FLOOR_DB
    content, style = content.clamp_min(floor), style.clamp_min(floor)
    result = content + gain_of(content)
    mean = result.mean(dim=2, keepdim=True)
    of_style, of_result = (x.std(dim=2, keepdim=True) for x in (style, result))
    scale = (of_style / of_result.clamp_min(1e-3)).clamp(1.0, VARIANCE_LIMIT) ** amount

    def scaled(log_mel: Tensor) -> Tensor:
        gain = gain_of(log_mel)
        return gain + (scale - 1) * (log_mel.clamp_min(floor) + gain - mean)

    return scaled


def latent(model: LatentTransfer) -> Callable[[Tensor, Tensor], GainFunction]:
    """The method of a trained `LatentTransfer`: the difference of its log-mel to the content's.

    Its result is too blurred in time to fit the content's phase: choose a vocoder of
    `vocoding.FROM_LOG_MEL` for it.
    """

    def prepare(content: Tensor, style: Tensor) -> GainFunction:
        target = model.encode_style(style)
        return lambda x: model.decode(model.encode_content(x), target, x.shape[2]) - x

    return prepare


def ltas_eq(content: Tensor, style: Tensor) -> GainFunction:
    """The equaliser of the long-term average spectrum, as a method.

    Each band gets one gain for the whole clip, which gives it the mean power that it has in the style.

    Parameters
    ----------
    content, style : torch.Tensor [shape=(1, n_mels, T)]
        Log-mels in dB at -20 dBFS.

    Returns
    -------
    callable
        From a log-mel of the content to the gain in dB, (1, n_mels, 1).
    """

    def mean_power_db(log_mel: Tensor) -> Tensor:
        return 10 * (10 ** (log_mel / 10)).mean(dim=2, keepdim=True).log10()

    gain = mean_power_db(style) - mean_power_db(content)  # (1, n_mels, 1)
    return lambda log_mel: gain


def transfer(
    content: np.ndarray,
    style: np.ndarray,
    *,
    method: Callable[[Tensor, Tensor], GainFunction],
    strength: float = 1.0,
    vocoder: str = "gain",
    config: AudioConfig | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Give the notes of one clip the sound of another.

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        At the front end's sample rate; lengths may differ. Models hear what `audio.as_waveform` makes of
        them.
    method : callable
        ``learned(model)``, ``latent(model)`` or `ltas_eq`.
    strength : float
        Factor of the gain in dB: 0 gives the content back, 1 is the full transfer.
    vocoder : str
        One of `vocoding.VOCODERS`.
    config : AudioConfig
        The front end.
    device : str
        Where the network computes.
    progress : callable
        Called with the number of blocks done and the number of blocks.

    Returns
    -------
    np.ndarray [shape=(n_samples,) or (n_samples, n_channels), dtype=float32]
        As long as the content and with its RMS level, or quieter where that cannot be without clipping.
        It has the content's channels through ``gain``; the other vocoders make one.

    Raises
    ------
    ValueError
        If the vocoder is unknown, or content or style cannot be used: see `audio.as_waveform`.

    Notes
    -----
    A sound file of any rate and sample format is the business of `transfer_recording`.

    The content is processed in blocks of 30 s, with margins wider than the network's field of view, so a
    long recording takes hardly more memory than a short one. A vocoder that finds new phases gets the
    log-mel of all blocks, joined.
    """
    config = config or AudioConfig()
    result = transfer_recording(
        _Clip.of(content, config), style, method=method, strength=strength, vocoder=vocoder,
        config=config, device=device, progress=progress,
    )  # fmt: skip
    kept = list(result.pairs())  # small enough not to be made twice
    result.pairs = lambda: iter(kept)
    found = np.concatenate(list(result.blocks()))
    return found if np.ndim(content) == 2 and vocoder == "gain" else found[:, 0]


@torch.no_grad()
def transfer_recording(
    content: Recording,
    style: np.ndarray,
    *,
    method: Callable[[Tensor, Tensor], GainFunction],
    strength: float = 1.0,
    vocoder: str = "gain",
    config: AudioConfig | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """`transfer` of a sound file, whose rate, channels and sample format the result has.

    Parameters
    ----------
    content : Recording
        From `audio.open_recording`, checked by `audio.require_sound`, and still open when the result is
        asked for.
    style : np.ndarray [shape=(n_samples,)]
        From `audio.read_audio`.
    method, strength, vocoder, config, device, progress
        As of `transfer`. Other vocoders than ``gain`` make one channel at the front end's sample rate.

    Returns
    -------
    Result
        Made in blocks as it is asked for: ``result.write("result.wav")``.

    Raises
    ------
    ValueError
        As `transfer`.
    """
    vocoding.vocoder_named(vocoder)  # before any work
    if not math.isfinite(strength):
        raise InputError(f"a strength of {strength} is none: 1 is the full transfer")
    config, device = config or AudioConfig(), choose_device(device)
    heard = as_waveform(content.waveform, what=content.name, config=config)
    style = as_waveform(style, what="style", config=config)
    gains, log_mel = _predicted(heard, style, method, strength, config, device, progress)
    if vocoder == "gain":
        rate, length, channels = content.sample_rate, content.n_samples, content.n_channels
        renderer = GainRenderer(gains, rate, length, content.channel)
        pairs = partial(render, content.blocks, channels, renderer)
        return Result(rate, channels, length, content.subtype, pairs)
    mono = _Clip(config.sample_rate, heard, heard[:, None])
    if vocoder in vocoding.FROM_LOG_MEL:
        target = torch.from_numpy((log_mel + gains.db).T[None])
        made = vocoding.mel_to_waveform(target, config, n_samples=len(heard), vocoder=vocoder)
        pairs = partial(iter, [(mono.samples, made[0].numpy()[:, None])])
    else:
        pairs = partial(render, mono.blocks, 1, _PhaseKeeper(gains, vocoder))
    return Result(config.sample_rate, 1, len(heard), content.subtype, pairs)


@dataclass(frozen=True)
class _Clip:
    """An array with the attributes of a `Recording`."""

    sample_rate: int
    waveform: np.ndarray  # (n_samples,), what models hear
    samples: np.ndarray  # (n_samples, n_channels)
    name: str = "content"
    subtype: str = ""

    @classmethod
    def of(cls, content: np.ndarray, config: AudioConfig) -> _Clip:
        heard = as_waveform(content, what=cls.name, config=config)
        if np.ndim(content) == 1:
            return cls(config.sample_rate, heard, heard[:, None])
        return cls(config.sample_rate, heard, as_floats(content, cls.name).astype(np.float32))

    @property
    def n_samples(self) -> int:
        return len(self.samples)

    @property
    def n_channels(self) -> int:
        return self.samples.shape[1]

    @property
    def channel(self) -> int | None:
        return heard_channel(self.samples)

    def blocks(self, n_frames: int) -> Iterator[np.ndarray]:
        yield from (self.samples[i : i + n_frames] for i in range(0, self.n_samples, n_frames))


def _predicted(
    content: np.ndarray, style: np.ndarray, method, strength: float, config: AudioConfig, device: str,
    progress: Callable[[int, int], None] | None,
) -> tuple[Gains, np.ndarray]:  # fmt: skip
    """Gains of a content (n_samples,), and its log-mel (T, n_mels)."""
    # without their offsets, and loud enough for the floor of the log-mel to lie below them
    at_level, keeps_rumble = _leveling(content, config)
    style_at_level, _ = _leveling(style, config)
    gain_of = method(
        _analysed(at_level(excerpt(content, config)), config, device)[1],
        _analysed(style_at_level(excerpt(style, config)), config, device)[1],
    )
    log_mels, gains = [], []
    power = np.zeros(2)  # of content and result
    n_blocks = -(-len(content) // (BLOCK_FRAMES * config.hop_length))
    for done in range(n_blocks):
        log_mel, gain, of_block = _block(content, done, at_level, gain_of, strength, config, device)
        log_mels.append(log_mel)
        gains.append(gain)
        power += of_block
        if progress is not None:
            progress(done + 1, n_blocks)
    level_db = float(10 * np.log10(max(power[0], 1e-20) / max(power[1], 1e-20)))
    log_mel = np.concatenate(log_mels)
    gain = _from_inside(np.concatenate(gains), log_mel, level_db, len(content), config)
    return Gains(gain, level_db, config, keeps_rumble), log_mel


def _block(
    content: np.ndarray, index: int, at_level: Callable[[np.ndarray], np.ndarray],
    gain_of: GainFunction, strength: float, config: AudioConfig, device: str,
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:  # fmt: skip
    """Log-mel and gains (T, n_mels) of a block, and the power of content and result in it."""
    hop, start = config.hop_length, index * BLOCK_FRAMES
    first, last = max(0, start - MARGIN_FRAMES), start + BLOCK_FRAMES + MARGIN_FRAMES
    spectrum, log_mel = _analysed(at_level(content[first * hop : last * hop]), config, device)
    is_last = (start + BLOCK_FRAMES) * hop >= len(content)  # which holds a frame more
    stop = config.n_frames(len(content)) if is_last else start + BLOCK_FRAMES
    inner = slice(start - first, stop - first)
    gain = strength * gain_of(log_mel).clamp(*GAIN_LIMITS_DB)
    gain, spectrum = gain.expand_as(log_mel)[:, :, inner], spectrum[:, :, inner]
    changed = spectrum * 10 ** ((vocoding.band_to_bin(config, device) @ gain) / 10)
    arrays = (x[0].T.cpu().numpy() for x in (log_mel[:, :, inner], gain))
    return (*arrays, (float(spectrum.sum()), float(changed.sum())))


def _leveling(
    waveform: np.ndarray, config: AudioConfig
) -> tuple[Callable[[np.ndarray], np.ndarray], bool]:
    """What takes the offset from parts of a clip and sets them to -20 dBFS; whether rumble is small.

    The level is that of what sounds. Rumble is what hardly moves within a hop: an offset, a drift.
    """
    hop = config.hop_length
    pieces = waveform[: len(waveform) // hop * hop].reshape(-1, hop)
    means = pieces.mean(axis=1)
    power = (np.einsum("ij,ij->i", pieces, pieces) / hop - means**2).clip(0)
    sounding = power >= SOUNDING * power.max()
    level = max(float(power[sounding].mean()), 1e-20)
    offset = np.float32(waveform.mean(dtype=np.float64))
    gain = np.float32(10 ** (features.LEVEL_DBFS / 20) / level**0.5)
    return lambda part: (part - offset) * gain, bool(np.square(means).mean() < LARGE_RUMBLE * level)


def _analysed(waveform: np.ndarray, config: AudioConfig, device: str) -> tuple[Tensor, Tensor]:
    """Power (1, F, T) of a clip from 20 Hz on, and its log-mel (1, n_mels, T)."""
    power = features.stft(torch.from_numpy(waveform).to(device)[None], config).abs() ** 2
    power[:, : math.ceil(LOWEST_HZ * config.n_fft / config.sample_rate)] = 0
    return power, features.power_to_db(features.mel_power(power, config), amin=config.amin)


def _from_inside(
    gain: np.ndarray, log_mel: np.ndarray, level_db: float, n_samples: int, config: AudioConfig
) -> np.ndarray:
    """Gains (T, n_mels) whose first and last are those of the nearest frames that lie inside the clip.

    The others see the ends. Where a clip is cut in the middle of a note, there is sound in bands that are
    empty inside, and it is not to be raised with them: a band is raised by as much less as it is louder
    than inside.
    """
    half, hop = config.n_fft // 2, config.hop_length
    frame = np.arange(len(gain))
    inside = frame.clip(-(-half // hop), (n_samples - half) // hop)
    gain, excess = gain[inside], (log_mel - log_mel[inside]).clip(0)
    return gain - np.minimum(excess, (gain + level_db).clip(0))


class _PhaseKeeper:
    """`vocoding.render` in chunks, for a vocoder that keeps the content's phases."""

    def __init__(self, gains: Gains, vocoder: str) -> None:
        config = gains.config
        self.gains, self.vocoder = gains, vocoder
        self.n_fft, self.hop_length, self.sample_rate = (
            config.n_fft, config.hop_length, config.sample_rate,
        )  # fmt: skip

    def __call__(self, chunk: np.ndarray, first_frame: int) -> np.ndarray:
        config = self.gains.config
        spectrum = features.stft(torch.from_numpy(np.ascontiguousarray(chunk.T)), config)
        seconds = (first_frame + np.arange(spectrum.shape[2])) / config.frames_per_second
        gain = torch.from_numpy(self.gains.at(seconds).T[None])
        settings = {"n_samples": len(chunk), "vocoder": self.vocoder}
        return vocoding.render(spectrum, gain, config, **settings).numpy().T


def load_model(
    path: Path = DEFAULT_MODEL, *, config: AudioConfig | None = None, device: str = "cpu"
) -> GainTransfer:
    """A trained network in evaluation mode, the pretrained one if no `path` is given.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ConfigMismatchError
        If the network was trained for another front end.
    """
    return checkpoint.load_model(
        path, build=GainTransfer, config=config or AudioConfig(), device=device
    )
