"""Definitions of every metric, each with its source. Used by notebooks 03 to 10 and the report.

Arrays are numpy or torch; log-mel spectrograms are in dB, (n_mels, T). ``lower`` or ``higher`` in a
docstring's first line says which is better.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..config import AudioConfig
from ..signal import features
from . import pitch

TOP_DB = 80.0
VISQOL_SAMPLE_RATE = 48_000  # Hz, what its model was made for
PUBLISHED_SAMPLE_RATE = 16_000  # Hz, of the published log-spectral distance
ONSET_TOLERANCE_S = 0.05


def cosine_similarity(predicted: Tensor, target: Tensor) -> float:
    """Cosine between flattened items, mean over axis 0 (higher). 1 for equal directions."""
    p, t = predicted.flatten(1).double(), target.flatten(1).double()
    return float(torch.nn.functional.cosine_similarity(p, t, dim=1).mean())


def mean_absolute_error(predicted: Tensor, target: Tensor) -> float:
    """Mean of |predicted - target| over everything (lower), in the unit of the data."""
    return float((predicted.double() - target.double()).abs().mean())


def mean_squared_error(predicted: Tensor, target: Tensor) -> float:
    """Mean of (predicted - target)^2 over everything (lower), in the squared unit of the data."""
    return float((predicted.double() - target.double()).square().mean())


def r2_score(predicted: Tensor, target: Tensor) -> float:
    """Coefficient of determination, mean over the columns of (N, F) (higher).

    1 - sum (t - p)^2 / sum (t - mean t)^2 per column, as `sklearn.metrics.r2_score` with uniform
    average; predicting each column's mean scores 0. A constant column scores 1 if predicted exactly,
    else 0.
    """
    p, t = predicted.double(), target.double()
    residual = (t - p).square().sum(dim=0)
    total = (t - t.mean(dim=0)).square().sum(dim=0)
    score = torch.where(total > 0, 1.0 - residual / total, (residual == 0).double())
    return float(score.mean())


def db_below_maximum(log_mel: Tensor, reference: Tensor | None = None) -> Tensor:
    """dB below the maximum of each segment of `reference`, in -80..0, of (N, n_mels, T) in dB.

    `reference` is `log_mel` itself if None: then this is what `librosa.power_to_db` gives with
    ``ref=np.max``, the likely domain of the report's cosine. A prediction takes its target's.
    """
    reference = log_mel if reference is None else reference
    return (log_mel - reference.amax(dim=(1, 2), keepdim=True)).clamp(-TOP_DB, 0.0)


def reconstruction_scores(
    predicted: Tensor, target: Tensor, standardize, track: Tensor | None = None
) -> dict[str, float]:
    """How near log-mels in dB (N, n_mels, T) are to their targets.

    Parameters
    ----------
    standardize : `features.Standardizer` fitted on the training tracks
    track : (N,) index of the track of each segment

    Returns
    -------
    dict
        ``cosine`` (mean over segments, per-band standardised), ``R2`` (over frames, mean over
        bands), ``MSE`` (standardised), ``MAE`` in dB, ``cosine in dB`` (`db_below_maximum`) and,
        with `track`, ``clip cosine``: as ``cosine``, with all segments of a track as one vector
    """
    p, t = standardize(predicted), standardize(target)
    by_clip = {}
    if track is not None:
        clips = [
            torch.nn.functional.cosine_similarity(
                p[track == i].flatten().double(), t[track == i].flatten().double(), dim=0
            )
            for i in track.unique()
        ]
        by_clip = {"clip cosine": float(torch.stack(clips).mean())}
    by_frame = [x.transpose(1, 2).flatten(0, 1) for x in (p, t)]  # (N * T, n_mels)
    return {
        **by_clip,
        "cosine": cosine_similarity(p, t),
        "R2": r2_score(*by_frame),
        "MSE": mean_squared_error(p, t),
        "MAE": mean_absolute_error(predicted, target),
        "cosine in dB": cosine_similarity(
            db_below_maximum(predicted, target), db_below_maximum(target)
        ),
    }


def comparison_log_mel(waveform: np.ndarray, config: AudioConfig) -> Tensor:
    """Log-mel (n_mels, T) for comparing clips: at -20 dBFS RMS, floored 80 dB below its maximum."""
    return features.log_mel_at_level(waveform, config, top_db=TOP_DB)[0]


def log_spectral_distance(a: Tensor, b: Tensor, *, axis: str = "time") -> float:
    """Log-spectral distance in dB between log-mels (n_mels, T) (lower).

    ``axis="time"``: root mean square over time, mean over bands, as published for one-shot timbre
    transfer (Cifka et al., ICASSP 2021, ss-vq-vae). ``axis="frequency"``: root mean square over
    bands, mean over frames, the usual per-frame definition.
    """
    dim = {"time": 1, "frequency": 0}[axis]
    n_frames = min(a.shape[1], b.shape[1])
    difference = a[:, :n_frames].double() - b[:, :n_frames].double()
    return float(difference.square().mean(dim=dim).sqrt().mean())


def published_log_spectral_distance(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Log-spectral distance in dB between waveforms exactly as ss-vq-vae's evaluation has it (lower).

    At 16 kHz and an RMS of 1, librosa's default mel spectrogram and dB (top 80), root mean square over
    time, mean over bands (Cifka et al., ICASSP 2021).
    """
    import librosa
    import soxr

    def log_mel(x: np.ndarray) -> np.ndarray:
        x = soxr.resample(x.astype(np.float32), config.sample_rate, PUBLISHED_SAMPLE_RATE)
        x = x / (np.sqrt(np.mean(x**2)) + np.finfo(x.dtype).eps)
        return librosa.power_to_db(librosa.feature.melspectrogram(y=x, sr=PUBLISHED_SAMPLE_RATE))

    n = min(len(a), len(b))
    difference = log_mel(a[:n]) - log_mel(b[:n])
    return float(np.mean(np.sqrt(np.mean(difference**2, axis=1))))


def mfcc_cosine(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Mean over frames of the cosine between MFCC 1 to 12 of waveforms (higher).

    Of many embeddings the one that agreed best with listeners' timbre triplets. Frames in which either
    clip is 60 dB below its loudest are left out. For clips that play the same score.
    """
    n = min(len(a), len(b))
    both = torch.from_numpy(np.stack([a[:n], b[:n]]))
    first, second = features.mfcc(features.log_mel(both, config), config)[:, 1:13]
    level = features.rms(both, config)[:, 0]
    loud = (level > 1e-3 * level.amax(dim=1, keepdim=True)).all(dim=0)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
    return float(cosine[loud].mean())


def mfcc_distance(a: Tensor, b: Tensor, config: AudioConfig) -> float:
    """Mean over frames of the Euclidean distance between MFCC 1 to 12 of log-mels (n_mels, T) (lower).

    Coefficient 0, the level, is left out. Frame by frame: for clips that play the same score.
    """
    n_frames = min(a.shape[1], b.shape[1])
    both = torch.stack([a[:, :n_frames], b[:, :n_frames]])
    first, second = features.mfcc(both, config)[:, 1:13]
    return float((first - second).square().sum(dim=0).sqrt().mean())


def spectral_convergence(estimate: np.ndarray, reference: np.ndarray, config: AudioConfig) -> float:
    """Distance in dB between magnitude spectrograms of waveforms (n_samples,) (lower).

    20 log10(||abs(S_ref) - abs(S_est)|| / ||abs(S_ref)||) with Frobenius norms (Sturmel & Daudet, 2011).
    """
    n = min(len(estimate), len(reference))
    both = torch.from_numpy(np.stack([estimate[:n], reference[:n]]))
    est, ref = features.stft(both, config).abs().double()
    return float(20 * torch.log10((ref - est).norm() / ref.norm()))


def log_mel_l1(estimate: np.ndarray, reference: np.ndarray, config: AudioConfig) -> float:
    """Mean absolute difference in dB between the log-mels of waveforms, top 80 dB (lower)."""
    n = min(len(estimate), len(reference))
    both = torch.from_numpy(np.stack([estimate[:n], reference[:n]]).astype(np.float32))
    est, ref = features.log_mel(both, config)
    floor = ref.max() - TOP_DB
    return float((est.clamp_min(floor) - ref.clamp_min(floor)).abs().mean())


def multi_resolution_stft(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Spectral convergence plus log-magnitude L1, at three resolutions, of waveforms (lower).

    Mean over resolutions of ||S_ref - S_est|| / ||S_ref|| + mean |log S_ref - log S_est|, with magnitudes
    S of 512, 1024 and 2048 samples (Yamamoto et al., ICASSP 2020; Steinmetz & Reiss, auraloss, 2020).
    """
    import auraloss

    n = min(len(estimate), len(reference))
    est, ref = torch.from_numpy(np.stack([estimate[:n], reference[:n]]))[:, None, None]
    return float(auraloss.freq.MultiResolutionSTFTLoss()(est, ref))


@lru_cache(maxsize=1)
def _visqol_api():
    from visqol import VisqolApi

    api = VisqolApi()
    api.create(mode="audio")
    return api


def visqol(estimate: np.ndarray, reference: np.ndarray, config: AudioConfig) -> float:
    """Predicted mean opinion score, 1 to about 4.73 for equal clips, of waveforms (higher).

    ViSQOL in audio mode, at 48 kHz (Chinen et al., QoMEX 2020): similarity of gammatone spectrograms,
    mapped to listeners' scores. NaN if a clip is silent.

    Raises
    ------
    ValueError
        If the clips are shorter than about a second.
    """
    import soxr

    n = min(len(estimate), len(reference))
    if n < config.sample_rate:
        raise ValueError(f"ViSQOL needs a second of audio, not {n / config.sample_rate:.2f} s")
    if not (np.any(estimate[:n]) and np.any(reference[:n])):
        return float("nan")
    est, ref = (
        soxr.resample(x[:n].astype(np.float64), config.sample_rate, VISQOL_SAMPLE_RATE)
        for x in (estimate, reference)
    )
    return float(_visqol_api().measure_from_arrays(ref, est, VISQOL_SAMPLE_RATE).moslqo)


def chroma_similarity(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Mean cosine between the chroma frames of waveforms (n_samples,) (higher): are the notes kept?"""
    n = min(len(a), len(b))
    power = features.stft(torch.from_numpy(np.stack([a[:n], b[:n]])), config).abs() ** 2
    first, second = features.chroma(power, config)
    loud = power.sum(dim=1).amin(dim=0) > 0
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0)[loud].mean())


def pitch_class_agreement(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Mean cosine between centred chroma vectors of waveforms (n_samples,), half a second each (higher).

    Centring over the twelve pitch classes makes it 0 for noise and for unrelated notes, where
    `chroma_similarity` is already high.
    """
    n = min(len(a), len(b))
    power = features.stft(torch.from_numpy(np.stack([a[:n], b[:n]])), config).abs() ** 2
    chroma = features.chroma(power, config)
    frames = min(round(0.5 * config.frames_per_second), chroma.shape[2])
    pooled = torch.nn.functional.avg_pool1d(chroma, frames)
    first, second = pooled - pooled.mean(dim=1, keepdim=True)  # (12, T)
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0).mean())


def pitch_jaccard_distance(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Mean over frames of 1 - |A & B| / |A | B|, A and B the sets of notes heard (lower).

    As in ss-vq-vae's evaluation (Cifka et al., ICASSP 2021), where a frame without notes in both clips
    counts 0; the notes are `pitch.piano_roll`'s instead of Melodia's.
    """
    n = min(len(a), len(b))
    first, second = (pitch.piano_roll(x[:n], config) for x in (a, b))
    union = (first | second).sum(axis=1)
    shared = (first & second).sum(axis=1)
    return float(np.mean(np.where(union > 0, 1 - shared / np.maximum(union, 1), 0.0)))


def multi_pitch_f(waveform: np.ndarray, notes: np.ndarray, config: AudioConfig) -> float:
    """F-measure of the notes heard, `pitch.piano_roll`, against known ones (higher).

    By mir_eval's multipitch precision and recall over all frames (Bay, Ehmann & Downie, ISMIR 2009).

    Parameters
    ----------
    notes : (n, 3) rows of start and end in s and MIDI pitch
    """
    import mir_eval

    heard = pitch.piano_roll(waveform, config)
    known = pitch.true_roll(notes, len(heard), config)
    times = np.arange(len(heard)) / config.frames_per_second

    def hertz(roll: np.ndarray) -> list[np.ndarray]:
        return [mir_eval.util.midi_to_hz(frame.nonzero()[0]) for frame in roll]

    if not (heard.any() and known.any()):
        return 0.0
    precision, recall, *_ = mir_eval.multipitch.metrics(times, hertz(known), times, hertz(heard))
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def detected_onsets(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Onsets in s, by librosa's spectral flux (Böck & Widmer, DAFx 2013) at a quarter of the hop."""
    import librosa

    return librosa.onset.onset_detect(
        y=waveform, sr=config.sample_rate, hop_length=config.hop_length // 4, units="time"
    )


def onset_f1(waveform: np.ndarray, onsets: np.ndarray, config: AudioConfig) -> float:
    """F-measure of `detected_onsets` against known ones in s, within 50 ms, by mir_eval (higher)."""
    import mir_eval

    heard = detected_onsets(waveform, config)
    if len(heard) == 0 or len(onsets) == 0:
        return float(len(heard) == len(onsets))
    return float(mir_eval.onset.f_measure(onsets, heard, window=ONSET_TOLERANCE_S)[0])


def _timbre_covariance(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    import librosa

    spectrum = features.stft(torch.from_numpy(waveform)[None], config)
    mel = features.mel_power(spectrum.abs() ** 2, config)
    cepstra = features.mfcc(features.power_to_db(mel, amin=config.amin), config)[0, 1:14].numpy()
    both = np.concatenate([cepstra, librosa.feature.delta(cepstra, mode="nearest")])
    level = features.rms(torch.from_numpy(waveform)[None], config)[0, 0].numpy()
    return np.cov(both[:, level > 0.05 * level.max()])


def timbre_distance(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Bures distance between covariances of MFCC 1 to 13 and their deltas (lower).

    sqrt(tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2) over frames above 5 % of the peak RMS. Means are
    removed, so a static equaliser, which only shifts the cepstrum, cannot buy it. For clips with
    different notes. NaN if a clip is silent.
    """
    from scipy.linalg import sqrtm

    if not (np.any(a) and np.any(b)):
        return float("nan")

    cov_a, cov_b = _timbre_covariance(a, config), _timbre_covariance(b, config)
    root = sqrtm(cov_a).real
    cross = np.trace(sqrtm(root @ cov_b @ root).real)
    return float(np.sqrt(max(0.0, np.trace(cov_a) + np.trace(cov_b) - 2 * cross)))


# Trivial predictors -------------------------------------------------------------------------------


def track_means(x: Tensor, track: Tensor) -> Tensor:
    """Each segment of `x` (N, n_mels, T) replaced by the mean spectrum of its own track."""
    means = torch.empty_like(x)
    for index in track.unique():
        mine = track == index
        means[mine] = x[mine].mean(dim=(0, 2))[:, None]
    return means


def trivial_predictions(train: Tensor, test: Tensor, track: Tensor) -> dict[str, Tensor]:
    """Predictions of `test` (N, n_mels, T) that know nothing of what happens in a segment.

    Parameters
    ----------
    train : (M, n_mels, T), log-mels in dB as `test`
    track : (N,) index of the track of each test segment

    Returns
    -------
    dict of (N, n_mels, T) in dB: ``constant`` (one number for everything), ``training mean`` (one a
    band, which knows the corpus) and ``track mean`` (one a band and track, which knows the track)
    """
    return {
        "constant": train.mean().expand_as(test),
        "training mean": train.mean(dim=(0, 2))[:, None].expand_as(test),
        "track mean": track_means(test, track),
    }
