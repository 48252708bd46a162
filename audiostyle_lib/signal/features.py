"""Log-mel, MFCC and descriptors of a batch of waveforms from one STFT, equal to librosa's.

Functions take and return torch tensors with a leading batch axis B, on any device. Axes: F = n_fft // 2
+ 1 bins, T = 1 + n_samples // hop_length frames. Used by ``notebooks/02_features.ipynb``, which
compares each function with librosa's.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torchaudio.functional import create_dct

from ..config import AudioConfig
from . import frame_features
from .audio import as_waveform, rms_dbfs

LEVEL_DBFS = -20.0  # at which networks and distances hear every clip
FLOOR_DB = -55.0  # of log-mels of clips at -20 dBFS: networks hear what is quieter as this level
TOP_DB = 80.0  # librosa's default dynamic range of `power_to_db`
CONTRAST_F_MIN, CONTRAST_BANDS, CONTRAST_QUANTILE = 200.0, 6, 0.02
ROLLOFF = 0.85
DESCRIPTORS = {  # name -> number of rows
    "zero_crossing_rate": 1,
    "centroid": 1,
    "bandwidth": 1,
    "rolloff": 1,
    "contrast": CONTRAST_BANDS + 1,
    "flatness": 1,
    "rms": 1,
    "chroma": 12,
}


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a cached inference tensor could not take part in training later
def _mel_basis(config: AudioConfig, device: str) -> Tensor:
    basis = librosa.filters.mel(sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels)
    return torch.from_numpy(basis).to(device)  # (n_mels, n_fft // 2 + 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _chroma_basis(config: AudioConfig, device: str) -> Tensor:
    basis = librosa.filters.chroma(sr=config.sample_rate, n_fft=config.n_fft, tuning=0.0)
    return torch.from_numpy(basis).to(device)  # (12, n_fft // 2 + 1)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _dct_basis(config: AudioConfig, device: str) -> Tensor:
    return create_dct(config.n_mfcc, config.n_mels, norm="ortho").T.to(device)  # (n_mfcc, n_mels)


@lru_cache(maxsize=16)
def _on_cpu(config: AudioConfig) -> dict:
    """The constants of `frame_features.describe`."""
    sizes = {"n_fft": config.n_fft, "hop_length": config.hop_length}
    banks = {"mel": _mel_basis(config, "cpu"), "chroma": _chroma_basis(config, "cpu")}
    return sizes | {
        **{name: frame_features.sparse_rows(bank.numpy()) for name, bank in banks.items()},
        "contrast": _contrast_bands(config),
        "frequency": frequencies(config)[:, 0].numpy(),
        "rolloff": ROLLOFF,
        "amin": 1e-10,
    }


def _without_gradient_on_cpu(waveform: Tensor) -> bool:
    return waveform.device.type == "cpu" and not (
        waveform.requires_grad and torch.is_grad_enabled()
    )


def _as_batch(waveform: Tensor) -> Tensor:
    """`waveform` as float32 (B, n_samples); NaN stays NaN, so that a diverged training can show it."""
    waveform = torch.as_tensor(waveform)
    if waveform.ndim != 2 or waveform.shape[1] == 0 or not waveform.is_floating_point():
        raise ValueError(
            "wanted waveforms (B, n_samples) as floats in -1..1 with at least one sample, "
            f"got shape {tuple(waveform.shape)} of {waveform.dtype}"
        )
    return waveform.float()


def stft(waveform: Tensor, config: AudioConfig) -> Tensor:
    """Short-time Fourier transform with a periodic Hann window, frames centred, ends padded with zeros.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
        Floating-point, in -1..1.
    config : AudioConfig
        The front end.

    Returns
    -------
    torch.Tensor [shape=(B, F, T), dtype=complex64]

    Raises
    ------
    ValueError
        If `waveform` has another number of axes, no samples, or integer samples.
    """
    waveform = _as_batch(waveform)
    window = torch.hann_window(config.n_fft, device=waveform.device)
    return torch.stft(
        waveform,
        config.n_fft,
        config.hop_length,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )


def istft(spectrum: Tensor, config: AudioConfig, n_samples: int) -> Tensor:
    """Waveform (B, n_samples) of a complex STFT (B, F, T), by least-squares overlap-add."""
    window = torch.hann_window(config.n_fft, device=spectrum.device)
    return torch.istft(
        spectrum, config.n_fft, config.hop_length, window=window, center=True, length=n_samples
    )


def power_to_db(power: Tensor, *, amin: float = 1e-10, top_db: float | None = None) -> Tensor:
    """Convert power to decibels: 10 log10(max(power, amin)).

    Parameters
    ----------
    power : torch.Tensor [shape=(B, ...)]
        Not negative.
    amin : float
        Smallest power that counts.
    top_db : float or None
        Raise values that lie more than `top_db` dB below the maximum of their own item of the batch.

    Returns
    -------
    torch.Tensor [shape=(B, ...)]
        In dB.
    """
    db = 10.0 * torch.log10(power.clamp_min(amin))
    if top_db is None:
        return db
    peak = db.flatten(1).amax(dim=1).reshape(-1, *[1] * (db.ndim - 1))
    return torch.maximum(db, peak - top_db)


def mel_power(power: Tensor, config: AudioConfig) -> Tensor:
    """Mel spectrogram (B, n_mels, T) of a power spectrogram (B, F, T)."""
    return _mel_basis(config, str(power.device)) @ power


def log_mel(waveform: Tensor, config: AudioConfig) -> Tensor:
    """Log-mel spectrogram in dB: 10 log10(max(mel power, 1e-10)), without reference or `top_db`.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
        Floating-point, in -1..1.
    config : AudioConfig
        The front end.

    Returns
    -------
    torch.Tensor [shape=(B, n_mels, T)]

    Raises
    ------
    ValueError
        As of `stft`.
    """
    waveform = _as_batch(waveform)
    if not _without_gradient_on_cpu(waveform):
        return power_to_db(mel_power(stft(waveform, config).abs() ** 2, config), amin=config.amin)
    settings = {name: _on_cpu(config)[name] for name in ("n_fft", "hop_length")}

    def of_clip(clip: np.ndarray) -> Tensor:
        mel = frame_features.mel_power(clip, _on_cpu(config)["mel"], **settings)
        return power_to_db(torch.from_numpy(mel), amin=config.amin).mT  # while it is in the cache

    return torch.stack([of_clip(x) for x in waveform.detach().contiguous().numpy()])


def log_mel_at_level(
    waveform: np.ndarray,
    config: AudioConfig,
    *,
    top_db: float | None = None,
    device: str = "cpu",
) -> Tensor:
    """Log-mel of one clip scaled to an RMS level of -20 dBFS, so that every clip counts as equally loud.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
        A clip, as `audio.as_waveform` takes it. Its level is not limited: the scaled samples may exceed
        1.
    config : AudioConfig
        The front end.
    top_db : float or None
        As of `power_to_db`.
    device : str
        Where to compute.

    Returns
    -------
    torch.Tensor [shape=(1, n_mels, T)]
        In dB.

    Raises
    ------
    AudioError
        If `audio.as_waveform` refuses the clip.
    """
    waveform = as_waveform(waveform, what="the clip", config=config)
    scaled = waveform * np.float32(10 ** ((LEVEL_DBFS - rms_dbfs(waveform)) / 20))
    found = log_mel(torch.from_numpy(scaled).to(device)[None], config)
    return found if top_db is None else found.clamp_min(found.max() - top_db)


def mfcc(log_mel_db: Tensor, config: AudioConfig, *, top_db: float | None = TOP_DB) -> Tensor:
    """Mel-frequency cepstral coefficients: an orthonormal DCT-II over the bands of a log-mel.

    Parameters
    ----------
    log_mel_db : torch.Tensor [shape=(B, n_mels, T)]
        In dB.
    config : AudioConfig
        The front end.
    top_db : float or None
        Before the DCT, values more than `top_db` dB below the item's maximum are raised to that level, as
        `librosa.feature.mfcc` does.

    Returns
    -------
    torch.Tensor [shape=(B, n_mfcc, T)]
    """
    if top_db is not None:
        peak = log_mel_db.flatten(1).amax(dim=1)[:, None, None]
        log_mel_db = torch.maximum(log_mel_db, peak - top_db)
    return _dct_basis(config, str(log_mel_db.device)).to(log_mel_db.dtype) @ log_mel_db


def frequencies(config: AudioConfig, device: torch.device | str = "cpu") -> Tensor:
    """Centre frequencies of the STFT's bins, (F, 1), in Hz."""
    return torch.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1, device=device)[:, None]


def _distribution(magnitude: Tensor) -> Tensor:
    total = magnitude.sum(dim=1, keepdim=True)
    return magnitude / torch.where(total > 0, total, 1.0)


def spectral_centroid(magnitude: Tensor, config: AudioConfig) -> Tensor:
    """Mean frequency in Hz, (B, 1, T), weighted by the magnitudes (B, F, T)."""
    f = frequencies(config, magnitude.device)
    return (f * _distribution(magnitude)).sum(dim=1, keepdim=True)


def spectral_bandwidth(magnitude: Tensor, config: AudioConfig) -> Tensor:
    """Standard deviation in Hz around the centroid, (B, 1, T): sqrt(sum_f p(f) (f - centroid)^2)."""
    deviation = frequencies(config, magnitude.device) - spectral_centroid(magnitude, config)
    return (_distribution(magnitude) * deviation**2).sum(dim=1, keepdim=True).sqrt()


def spectral_rolloff(magnitude: Tensor, config: AudioConfig) -> Tensor:
    """Lowest frequency in Hz, (B, 1, T), below which 85 % of the magnitude lies."""
    cumulative = magnitude.cumsum(dim=1)
    reached = cumulative >= ROLLOFF * cumulative[:, -1:]
    first = reached.int().argmax(dim=1, keepdim=True)
    return frequencies(config, magnitude.device)[:, 0][first]


def spectral_flatness(power: Tensor, *, amin: float = 1e-10) -> Tensor:
    """Geometric over arithmetic mean of the power spectrum (B, F, T): (B, 1, T), 0 tone, 1 noise."""
    power = power.clamp_min(amin)
    return power.log().mean(dim=1, keepdim=True).exp() / power.mean(dim=1, keepdim=True)


@lru_cache(maxsize=16)
def _contrast_bands(config: AudioConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First bin, the bin after the last one, and 2 % of the bins, of each band, as in librosa."""
    f = frequencies(config)[:, 0].numpy()
    edges = np.concatenate([[0.0], CONTRAST_F_MIN * 2.0 ** np.arange(CONTRAST_BANDS + 1)])
    bands = []
    for band, (low, high) in enumerate(pairwise(edges)):
        bins = np.flatnonzero((f >= low) & (f <= high))
        first = bins[0] - (band > 0)  # librosa's bands overlap their lower neighbour by one bin
        last = len(f) - 1 if band == CONTRAST_BANDS else bins[-1]
        count = max(int(np.rint(CONTRAST_QUANTILE * (last - first + 1))), 1)
        bands.append((first, last + 1 if band == CONTRAST_BANDS else last, count))
    first, stop, count = np.array(bands).T.copy()
    return first, stop, count


def _contrast(peak: Tensor, valley: Tensor) -> Tensor:
    return power_to_db(peak, top_db=TOP_DB) - power_to_db(valley, top_db=TOP_DB)


def spectral_contrast(magnitude: Tensor, config: AudioConfig) -> Tensor:
    """Peak minus valley in dB of octave bands above 200 Hz, (B, 7, T) (Jiang et al., ICME 2002).

    Peak and valley are the means of the top and bottom 2 % of each band's magnitudes.
    """
    by_frame = magnitude.transpose(1, 2).contiguous()  # topk is fast along the last axis only
    peaks, valleys = [], []
    for first, stop, n in zip(*_contrast_bands(config), strict=True):
        inside = by_frame[..., first:stop]
        valleys.append(inside.topk(n, largest=False).values.mean(dim=-1))
        peaks.append(inside.topk(n).values.mean(dim=-1))
    peak, valley = torch.stack(peaks, 1), torch.stack(valleys, 1)
    return _contrast(peak, valley)


def chroma(power: Tensor, config: AudioConfig) -> Tensor:
    """Energy per pitch class, (B, 12, T), of a power spectrogram (B, F, T).

    C comes first, each frame's maximum is 1, and the tuning is A = 440 Hz.
    """
    return _with_peak_1(_chroma_basis(config, str(power.device)) @ power)


def _with_peak_1(raw: Tensor) -> Tensor:
    peak = raw.amax(dim=1, keepdim=True)
    return raw / torch.where(peak > torch.finfo(raw.dtype).tiny, peak, 1.0)


def _frames(signal: Tensor, config: AudioConfig) -> Tensor:
    return signal.unfold(-1, config.n_fft, config.hop_length)  # (B, T, n_fft)


def rms(waveform: Tensor, config: AudioConfig) -> Tensor:
    """Root-mean-square amplitude, (B, 1, T), of centred frames of a waveform (B, n_samples)."""
    waveform = _as_batch(waveform)
    half = config.n_fft // 2
    padded = nn.functional.pad(waveform, (half, half))
    return _frames(padded, config).square().mean(dim=-1).sqrt()[:, None]


def zero_crossing_rate(waveform: Tensor, config: AudioConfig) -> Tensor:
    """Sign changes per sample, (B, 1, T), in 0..1, of centred frames of a waveform (B, n_samples)."""
    waveform = _as_batch(waveform)
    half = config.n_fft // 2
    padded = nn.functional.pad(waveform[:, None], (half, half), mode="replicate")[:, 0]
    negative = torch.signbit(torch.where(padded.abs() <= 1e-10, 0.0, padded))
    # count[:, i] are the changes up to sample i, so those of a frame are one difference
    count = nn.functional.pad((negative[:, 1:] != negative[:, :-1]).cumsum(dim=1), (1, 0))
    starts, ends = count[:, : -config.n_fft + 1], count[:, config.n_fft - 1 :]
    return (ends - starts)[:, None, :: config.hop_length] / config.n_fft


def descriptors(waveform: Tensor, spectrum: Tensor, config: AudioConfig) -> dict[str, Tensor]:
    """Descriptors of each frame.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
        In -1..1.
    spectrum : torch.Tensor [shape=(B, F, T)]
        Its complex STFT.
    config : AudioConfig
        The front end.

    Returns
    -------
    dict of str to torch.Tensor [shape=(B, rows, T)]
        Names and numbers of rows are those of `DESCRIPTORS`.
    """
    magnitude = spectrum.abs()
    power = magnitude**2
    return {
        "zero_crossing_rate": zero_crossing_rate(waveform, config),
        "centroid": spectral_centroid(magnitude, config),
        "bandwidth": spectral_bandwidth(magnitude, config),
        "rolloff": spectral_rolloff(magnitude, config),
        "contrast": spectral_contrast(magnitude, config),
        "flatness": spectral_flatness(power),
        "rms": rms(waveform, config),
        "chroma": chroma(power, config),
    }


def tempo(log_mel_db: Tensor, config: AudioConfig) -> np.ndarray:
    """Tempo in beats per minute, (B,), of log-mels in dB (B, n_mels, T).

    By librosa's autocorrelation of the onset strength. As there, values more than 80 dB below an item's
    maximum are raised to that level first.
    """
    log_mel_db = torch.maximum(log_mel_db, log_mel_db.amax(dim=(1, 2), keepdim=True) - TOP_DB)
    return np.array(
        [
            librosa.feature.tempo(
                onset_envelope=librosa.onset.onset_strength(S=item, sr=config.sample_rate),
                sr=config.sample_rate,
                hop_length=config.hop_length,
            )[0]
            for item in log_mel_db.cpu().numpy()
        ]
    )


def _described_on_cpu(waveform: Tensor, config: AudioConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Mel spectrogram (1, n_mels, T) and `descriptors` of one waveform (1, n_samples)."""
    clip = waveform[0].detach().contiguous().numpy()
    described = frame_features.describe(clip, **_on_cpu(config))
    found = {name: torch.from_numpy(rows)[None].mT for name, rows in described.items()}
    return found["mel"], {
        "zero_crossing_rate": zero_crossing_rate(waveform, config),
        **{name: found[name] for name in ("centroid", "bandwidth", "rolloff")},
        "contrast": _contrast(found["peaks"], found["valleys"]),
        "flatness": found["flatness"],
        "rms": rms(waveform, config),
        "chroma": _with_peak_1(found["chroma"]),
    }


def style_features(waveform: Tensor, config: AudioConfig) -> Tensor:
    """MFCC and descriptors of each frame, one below the other: the style encoder's input.

    Parameters
    ----------
    waveform : torch.Tensor [shape=(B, n_samples)]
        Floating-point, in -1..1.
    config : AudioConfig
        The front end.

    Returns
    -------
    torch.Tensor [shape=(B, n_mfcc + 25, T)]
        Rows as in `style_feature_names`.

    Notes
    -----
    Flatness and RMS are converted to dB, because they span several decades: otherwise a few loud or noisy
    frames would decide their variance.
    """
    waveform = _as_batch(waveform)
    if _without_gradient_on_cpu(waveform):
        if len(waveform) > 1:  # one after the other, each is in the cache
            return torch.cat([style_features(clip, config) for clip in waveform.split(1)])
        mel, rows = _described_on_cpu(waveform, config)
    else:
        spectrum = stft(waveform, config)
        mel = mel_power(spectrum.abs() ** 2, config)
        rows = descriptors(waveform, spectrum, config)
    mel_db = power_to_db(mel, amin=config.amin)
    rows["flatness"] = power_to_db(rows["flatness"], amin=config.amin)
    rows["rms"] = power_to_db(rows["rms"] ** 2, amin=config.amin)
    return torch.cat([mfcc(mel_db, config), *rows.values()], dim=1)


def style_feature_names(config: AudioConfig) -> list[str]:
    """Names of the rows of `style_features`."""
    names = [f"mfcc {i}" for i in range(config.n_mfcc)]
    for name, rows in DESCRIPTORS.items():
        names += [name] if rows == 1 else [f"{name} {i}" for i in range(rows)]
    return names


PERCENTILES = (10, 25, 50, 75, 90)


def functionals(rows: Tensor) -> Tensor:
    """Summary of each row over time, which forgets the order of events.

    Parameters
    ----------
    rows : torch.Tensor [shape=(B, n_rows, T)]
        Features of each frame.

    Returns
    -------
    torch.Tensor [shape=(B, 7 * n_rows)]
        The means of all rows, then their standard deviations, then their percentiles 10, 25, 50, 75, 90.
    """
    levels = torch.tensor(PERCENTILES, dtype=rows.dtype, device=rows.device) / 100
    percentiles = rows.quantile(levels, dim=2).transpose(0, 1).flatten(1)  # (B, 5 * n_rows)
    return torch.cat([rows.mean(dim=2), rows.std(dim=2, correction=0), percentiles], dim=1)


def functional_names(names: list[str]) -> list[str]:
    """Names of the columns of `functionals` for rows called `names`."""
    kinds = ["mean", "std", *(f"percentile {p}" for p in PERCENTILES)]
    return [f"{kind} of {name}" for kind in kinds for name in names]


def segments(
    function,
    waveforms: Tensor,
    valid: list[int],
    config: AudioConfig,
    *,
    n_frames: int = 128,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Features of clips, divided into segments of equal length without overlap.

    Parameters
    ----------
    function : callable
        Takes waveforms (B, n_samples) and the config, returns (B, rows, T); for example `log_mel`.
    waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
        Clips, padded to one length.
    valid : list of int
        Samples of each clip before its padding. Segments that reach into the padding are left out, but
        each clip has at least one segment.
    config : AudioConfig
        The front end.
    n_frames : int
        Length of a segment; 128 frames are 2.97 s.
    device : str
        Where to compute.

    Returns
    -------
    segments : torch.Tensor [shape=(N, rows, n_frames)]
        On `device`.
    track : torch.Tensor [shape=(N,)]
        Index of the clip of each segment.
    """
    found, track = [], []
    for index, (waveform, n_valid) in enumerate(zip(waveforms, valid, strict=True)):
        x = function(waveform[None].to(device), config)[0]
        count = max(1, min(n_valid // config.hop_length, x.shape[1]) // n_frames)
        x = nn.functional.pad(x, (0, max(0, n_frames - x.shape[1])))[:, : count * n_frames]
        found.append(x.unflatten(1, (count, n_frames)).transpose(0, 1))
        track += [index] * count
    return torch.cat(found), torch.tensor(track, device=device)


def temporal_features(
    waveforms: Tensor, valid: list[int], config: AudioConfig, *, n_frames: int = 128
) -> Tensor:
    """The three scalars that the report joins to its spectrogram models (II.B.1, II.B.2).

    Parameters
    ----------
    waveforms : torch.Tensor [shape=(n_tracks, n_samples)]
        Clips, padded to one length.
    valid : list of int
        Samples of each clip before its padding.
    config : AudioConfig
        The front end.
    n_frames : int
        Length of a segment.

    Returns
    -------
    torch.Tensor [shape=(N, 3)]
        Of each segment, in the order of `segments`: tempo of its clip in beats per minute, mean RMS
        amplitude, mean zero-crossing rate.
    """

    def levels(waveform: Tensor, config: AudioConfig) -> Tensor:
        return torch.cat([rms(waveform, config), zero_crossing_rate(waveform, config)], dim=1)

    by_frame, track = segments(levels, waveforms, valid, config, n_frames=n_frames)
    clips = [w[None, :n] for w, n in zip(waveforms, valid, strict=True)]
    bpm = [float(tempo(log_mel(clip, config), config)[0]) for clip in clips]
    return torch.cat([torch.tensor(bpm)[track, None], by_frame.mean(dim=2)], dim=1)


class Standardizer(nn.Module):
    """Scale each row to mean 0 and standard deviation 1, and back.

    Parameters
    ----------
    rows : int
        Length of axis 1 of the tensors (B, rows, T) or (B, rows).
    """

    def __init__(self, rows: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(rows))
        self.register_buffer("std", torch.ones(rows))

    def fit(self, x: Tensor) -> Standardizer:
        """Set mean and standard deviation from `x` (B, rows, ...); a constant row keeps std 1."""
        by_row = x.transpose(0, 1).flatten(1).double()
        std = by_row.std(dim=1)
        self.mean.copy_(by_row.mean(dim=1))
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))
        return self

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return self.mean.reshape(shape), self.std.reshape(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised `x` (B, rows, ...)."""
        mean, std = self._shaped(x)
        return (x - mean) / std

    def inverse(self, x: Tensor) -> Tensor:
        """`x` (B, rows, ...) in its original unit."""
        mean, std = self._shaped(x)
        return x * std + mean
