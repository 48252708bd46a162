"""Audio in, audio out: the notes of one clip in the sound of another.

A method predicts a gain in dB: what has to be added to the content's log-mel to get the result's. So
`strength` and the vocoders work in the same way for all methods. Used by
``notebooks/00_listen_first.ipynb``, ``notebooks/07_recombination.ipynb`` and the command line.
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
from .signal.audio import as_waveform, rms_dbfs

DEFAULT_MODEL = PRETRAINED / "gain_transfer.safetensors"
GAIN_LIMITS_DB = (-60.0, 30.0)
BLOCK_FRAMES = 1280  # about 30 s; even, because the network halves the time resolution
MARGIN_FRAMES = GainTransfer.CONTEXT_FRAMES
EXCERPT_SECONDS, EXCERPT_PIECES = 120.0, 12
PEAK = 0.99
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
    """Give the notes of one clip the sound of another.

    Parameters
    ----------
    content, style : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
        At the front end's sample rate; lengths may differ. Converted by `audio.as_waveform`.
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
    np.ndarray [shape=(n_samples,), dtype=float32]
        Mono, as long as the content and with its RMS level, or quieter where it would clip.

    Raises
    ------
    ValueError
        If the vocoder is unknown, or content or style cannot be used: see `audio.as_waveform`.

    Notes
    -----
    The content is processed in blocks of 30 s, with margins wider than the network's field of view, so a
    long recording takes hardly more memory than a short one. A vocoder that finds new phases gets the
    log-mel of all blocks, joined.
    """
    config = config or AudioConfig()
    vocoding.vocoder_named(vocoder)  # before any work
    content = as_waveform(content, what="content", config=config)
    style = as_waveform(style, what="style", config=config)
    offset = features.LEVEL_DBFS - rms_dbfs(content)
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
        piece = torch.from_numpy(content[first:last]).to(device)[None]
        spectrum, log_mel, gain = _transferred(piece, gain_of, offset, strength, config)
        if vocoder in vocoding.FROM_LOG_MEL:
            inner = (start - first) // config.hop_length
            last_one = done == len(starts)  # holds a frame more
            stop = None if last_one else inner + BLOCK_FRAMES
            log_mels.append((log_mel + gain)[:, :, inner:stop])
        else:
            out = vocoding.render(
                spectrum, gain, config, n_samples=last - first, vocoder=vocoder
            )[0]  # fmt: skip
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
    """Weights of the samples `first` to `last` of a block, which fades into its neighbours.

    They rise and fall linearly within a quarter of the margin on either side of a seam, so that the
    weights of two neighbours sum to 1.
    """
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
