"""Audio in, audio out: the notes of one clip in the sound of another. Notebooks 00 and 07.

Every method answers the same question, which gain in dB turns the content's log-mel into the
result's, so that `strength` and the vocoders work alike for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import vocoding
from .config import AudioConfig
from .models import checkpoint
from .models.recombine import GainTransfer, LatentTransfer
from .paths import PRETRAINED
from .signal import features
from .signal.audio import rms_dbfs

DEFAULT_MODEL = PRETRAINED / "gain_transfer.safetensors"
LEVEL_DBFS = -20.0  # at which the networks hear every clip
GAIN_LIMITS_DB = (-60.0, 30.0)
BLOCK_FRAMES = 1280  # about 30 s; even, because the network halves the time resolution
MARGIN_FRAMES = GainTransfer.CONTEXT_FRAMES
EXCERPT_SECONDS, EXCERPT_PIECES = 120.0, 12
PEAK = 0.99
# Of `learned`, by output stage; notebook 07 shows the choice, on validation triplets of bands.
_OF_A_GAIN = {"calibration": 0.1, "variance": 0.15}
_OF_A_LOG_MEL = {"calibration": 0.5, "variance": 0.75}
CORRECTIONS = {
    vocoder: _OF_A_LOG_MEL if vocoder in vocoding.FROM_LOG_MEL else _OF_A_GAIN
    for vocoder in vocoding.VOCODERS
}
# Through either stage; by both timbre columns on 40 pairs of GTZAN's training and validation tracks.
FOR_RECORDINGS = {"calibration": 1.0, "variance": 0.5}
VARIANCE_LIMIT = 2.0  # see `with_global_variance`

# (content log-mel (1, n_mels, T)) -> gain (1, n_mels, T) or (1, n_mels, 1)
GainFunction = Callable[[Tensor], Tensor]


def excerpt(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """At most two minutes of `waveform` (n_samples,), as evenly spaced pieces joined together.

    A style is a summary; computing it from more of a long recording only costs memory.
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
    calibration: float = _OF_A_GAIN["calibration"],
    variance: float = _OF_A_GAIN["variance"],
) -> Callable[[Tensor, Tensor], GainFunction]:
    """The method of a trained `GainTransfer`: (content excerpt, style) log-mels -> gain function.

    Two corrections of what a regression does where it is not sure, each from 0 to 1: `calibration` on
    the content's own style (`GainTransfer.gain`), and `variance`, how much of what averaging took is
    given back (`with_global_variance`). `CORRECTIONS` has the settings for each output stage, of which
    the defaults are those for ``gain``; `FOR_RECORDINGS` those for sounds that no SoundFont has.
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
    """`gain_of` with a result that varies over time more nearly as the style clip does.

    In doubt a regression gives the mean of what may be true, which varies less than any of it. Speech
    synthesis meets this by scaling each trajectory about its mean to the variance of natural speech
    (Toda & Tokuda, 2007; as a filter, Silen et al., Interspeech 2012). Here each band (of log-mels
    (1, n_mels, T) in dB) is scaled by (style's / result's standard deviation) ^ `amount`, never below 1
    or above `VARIANCE_LIMIT`.
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
    """The method of a trained `LatentTransfer`: its log-mel, as a gain on the content's own.

    Meant for a vocoder that finds a new phase; the latent is too coarse for the content's phase.
    """

    def prepare(content: Tensor, style: Tensor) -> GainFunction:
        target = model.encode_style(style)
        return lambda x: model.decode(model.encode_content(x), target, x.shape[2]) - x

    return prepare


def ltas_eq(content: Tensor, style: Tensor) -> GainFunction:
    """The long-term average spectrum equaliser as a method.

    One fixed gain per band that gives the content the style's mean power in that band.
    """

    def mean_power_db(log_mel: Tensor) -> Tensor:
        return 10 * (10 ** (log_mel / 10)).mean(dim=2, keepdim=True).log10()

    gain = mean_power_db(style) - mean_power_db(content)  # (1, n_mels, 1)
    return lambda log_mel: gain


@torch.no_grad()
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
    """Return `content` in the style of `style`.

    Parameters
    ----------
    content, style : np.ndarray (n_samples,), mono at the front end's sample rate; any lengths
    method : `learned(model)` or `ltas_eq`
    strength : scales the gain in dB; 0 gives the content back, 1 the full transfer
    vocoder : one of `vocoding.VOCODERS`
    progress : called with (blocks done, blocks)

    Returns
    -------
    np.ndarray (n_samples,), float32
        As long and as loud (RMS) as the content, quieter where it would clip.

    Notes
    -----
    Works through the content in blocks of 30 s with a margin wider than the network's field of view,
    so memory hardly grows with the recording. A vocoder that finds phases gets the joined log-mel.
    """
    config = config or AudioConfig()
    vocoding.vocoder_named(vocoder)  # before any work
    offset = LEVEL_DBFS - rms_dbfs(content)
    gain_of = method(
        *(
            features.log_mel_at_level(excerpt(x, config), config, device=device)
            for x in (content, style)
        )
    )
    block, margin = BLOCK_FRAMES * config.hop_length, MARGIN_FRAMES * config.hop_length
    starts = range(0, len(content), block)
    result = np.zeros(len(content) + block + 2 * margin, dtype=np.float32)
    log_mels = []  # of the result, for a vocoder that has to see all of it
    for done, start in enumerate(starts, start=1):
        first, last = max(0, start - margin), min(len(content), start + block + margin)
        piece = torch.from_numpy(np.ascontiguousarray(content[first:last])).to(device)[None]
        if piece.shape[1] < config.n_fft:  # torch's iSTFT wants a whole window
            piece = torch.nn.functional.pad(piece, (0, config.n_fft - piece.shape[1]))
        spectrum, log_mel, gain = _transferred(piece, gain_of, offset, strength, config)
        if vocoder in vocoding.FROM_LOG_MEL:
            inner = (start - first) // config.hop_length
            last_one = done == len(starts)  # holds a frame more
            stop = None if last_one else inner + BLOCK_FRAMES
            log_mels.append((log_mel + gain)[:, :, inner:stop])
        else:
            out = vocoding.render(
                spectrum, gain, config, n_samples=piece.shape[1], vocoder=vocoder
            )[0, : last - first]
            fade = _fade(first, last, start, block, len(content), margin)
            result[first:last] += out.cpu().numpy() * fade
        if progress is not None:
            progress(done, len(starts))
    result = result[: len(content)]
    if log_mels:
        n_frames = config.n_frames(len(content))
        whole = torch.cat(log_mels, dim=2)[:, :, :n_frames]
        settings = {"n_samples": len(content), "vocoder": vocoder}
        result = vocoding.mel_to_waveform(whole, config, **settings)[0].numpy()
    return _leveled(result, content)


def _transferred(piece, gain_of, offset, strength, config) -> tuple[Tensor, Tensor, Tensor]:
    """STFT (1, F, T) and log-mel (1, n_mels, T) of a piece, and the gain of its transfer in dB."""
    spectrum = features.stft(piece, config)
    mel = features.mel_power(spectrum.abs() ** 2, config)
    log_mel = features.power_to_db(mel, amin=config.amin)
    gain = strength * gain_of(log_mel + offset).clamp(*GAIN_LIMITS_DB)
    return spectrum, log_mel, gain.expand(-1, -1, log_mel.shape[2])


def _fade(first: int, last: int, start: int, block: int, total: int, margin: int) -> np.ndarray:
    """Weights of a block: 1 inside, linear over half the margin around either seam; they sum to 1."""
    position = np.arange(first, last)
    half = margin // 4
    weight = np.ones(last - first, dtype=np.float32)
    if start > 0:
        weight *= np.clip((position - (start - half)) / (2 * half), 0, 1)
    if start + block < total:
        weight *= np.clip((start + block + half - position) / (2 * half), 0, 1)
    return weight


def _leveled(result: np.ndarray, content: np.ndarray) -> np.ndarray:
    gain = 10 ** ((rms_dbfs(content) - rms_dbfs(result)) / 20)
    peak = np.abs(result).max() * gain
    return (result * gain * min(1.0, PEAK / max(peak, 1e-9))).astype(np.float32)


def load_model(
    path: Path = DEFAULT_MODEL, *, config: AudioConfig | None = None, device: str = "cpu"
) -> GainTransfer:
    """The pretrained recombination, in evaluation mode."""
    return checkpoint.load_model(
        path, build=GainTransfer, config=config or AudioConfig(), device=device
    )


METHODS = ("learned", "ltas_eq")


def method_named(name: str, *, device: str = "cpu", **corrections: float):
    """The method called `name`; ``learned`` loads the pretrained model and takes `corrections`."""
    if name == "ltas_eq":
        return ltas_eq
    if name == "learned":
        return learned(load_model(device=device), **corrections)
    raise ValueError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
