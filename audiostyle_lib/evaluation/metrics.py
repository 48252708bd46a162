"""Definitions of every metric, each with its source.

The first line of a docstring says whether ``higher`` or ``lower`` is better. Two clips or log-mels of
different lengths are compared over the length of the shorter one.

Used by ``notebooks/00_listen_first.ipynb`` to ``notebooks/10_future_work.ipynb`` and by the benchmark.
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
    """Cosine between flattened items, mean over items (higher).

    Parameters
    ----------
    predicted, target : torch.Tensor [shape=(N, ...)]

    Returns
    -------
    float
        1 for equal directions, 0 where one of the two is all zeros. torchmetrics, which the other
        scores come from, gives NaN there, and a mean that was subtracted leaves such an item.
    """
    p, t = predicted.flatten(1).double(), target.flatten(1).double()
    return float(torch.nn.functional.cosine_similarity(p, t, dim=1).mean())


def mean_absolute_error(predicted: Tensor, target: Tensor) -> float:
    """Mean of |predicted - target| over everything (lower), in the unit of the data.

    Parameters
    ----------
    predicted, target : torch.Tensor
        Of one shape.
    """
    from torchmetrics import functional

    return float(functional.mean_absolute_error(*_flat(predicted, target)))


def mean_squared_error(predicted: Tensor, target: Tensor) -> float:
    """Mean of (predicted - target)^2 over everything (lower), in the squared unit of the data.

    Parameters
    ----------
    predicted, target : torch.Tensor
        Of one shape.
    """
    from torchmetrics import functional

    return float(functional.mean_squared_error(*_flat(predicted, target)))


def _flat(*tensors: Tensor) -> list[Tensor]:
    """In double precision and contiguous, which torchmetrics expects."""
    return [x.double().flatten() for x in tensors]


def r2_score(predicted: Tensor, target: Tensor) -> float:
    """Coefficient of determination, mean over columns (higher).

    1 - sum (t - p)^2 / sum (t - mean t)^2 per column, as `sklearn.metrics.r2_score` with uniform
    average.

    Parameters
    ----------
    predicted, target : torch.Tensor [shape=(N, F)]
        N at least 2.

    Returns
    -------
    float
        1 for a perfect prediction, 0 for each column's mean. A constant column counts 1 if it is
        predicted exactly, else 0.
    """
    from torchmetrics import functional

    return float(functional.r2_score(predicted.double(), target.double()))


def db_below_maximum(log_mel: Tensor, reference: Tensor | None = None) -> Tensor:
    """Level below the maximum of each segment, the likely domain of the report's cosine.

    Parameters
    ----------
    log_mel : torch.Tensor [shape=(N, n_mels, T)]
        In dB.
    reference : torch.Tensor [shape=(N, n_mels, T)], optional
        Whose maxima count as 0 dB; for a prediction, give its target. By default `log_mel` itself,
        which gives what `librosa.power_to_db` does with ``ref=np.max``.

    Returns
    -------
    torch.Tensor [shape=(N, n_mels, T)]
        From -80 to 0 dB.
    """
    reference = log_mel if reference is None else reference
    return (log_mel - reference.amax(dim=(1, 2), keepdim=True)).clamp(-TOP_DB, 0.0)


def reconstruction_scores(
    predicted: Tensor, target: Tensor, standardize, track: Tensor | None = None
) -> dict[str, float]:
    """How near log-mels are to their targets.

    Parameters
    ----------
    predicted, target : torch.Tensor [shape=(N, n_mels, T)]
        In dB.
    standardize : features.Standardizer
        Fitted on the training tracks.
    track : torch.Tensor [shape=(N,)], optional
        Index of the track of each segment.

    Returns
    -------
    dict of str to float
        ``cosine``: mean over segments, each band standardised. ``R2``: over frames, mean over bands.
        ``MSE``: of standardised values. ``MAE``: in dB. ``cosine in dB``: of `db_below_maximum`.
        With `track` also ``clip cosine``: as ``cosine``, with all segments of a track as one vector.
    """
    p, t = standardize(predicted), standardize(target)
    by_clip = {}
    if track is not None:
        clips = [
            cosine_similarity(p[track == i][None], t[track == i][None]) for i in track.unique()
        ]
        by_clip = {"clip cosine": float(np.mean(clips))}
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
    """Log-mel for comparing clips, whatever their level.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    torch.Tensor [shape=(n_mels, T)]
        In dB, of the clip at -20 dBFS RMS; nothing lies more than 80 dB below the maximum.
    """
    return features.log_mel_at_level(waveform, config, top_db=TOP_DB)[0]


def log_spectral_distance(a: Tensor, b: Tensor, *, axis: str = "time") -> float:
    """Log-spectral distance in dB between log-mels (lower).

    Parameters
    ----------
    a, b : torch.Tensor [shape=(n_mels, T)]
        In dB.
    axis : str
        ``"time"``: root mean square over time, mean over bands, as published for one-shot timbre
        transfer (Cifka et al., ICASSP 2021, ss-vq-vae). ``"frequency"``: root mean square over bands,
        mean over frames, the usual definition.

    Returns
    -------
    float

    Raises
    ------
    KeyError
        For another axis.
    """
    dim = {"time": 1, "frequency": 0}[axis]
    n_frames = min(a.shape[1], b.shape[1])
    difference = a[:, :n_frames].double() - b[:, :n_frames].double()
    return float(difference.square().mean(dim=dim).sqrt().mean())


def published_log_spectral_distance(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Log-spectral distance in dB between waveforms, as ss-vq-vae's evaluation computes it (lower).

    At 16 kHz and an RMS of 1, librosa's default mel spectrogram and dB (top 80), root mean square over
    time, mean over bands (Cifka et al., ICASSP 2021).

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
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

    For clips that play the same score. Frames in which either clip is 60 dB below its loudest are left
    out. Of many embeddings this one agreed best with listeners' timbre triplets.

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
    """
    n = min(len(a), len(b))
    both = torch.from_numpy(np.stack([a[:n], b[:n]]))
    first, second = features.mfcc(features.log_mel(both, config), config)[:, 1:13]
    level = features.rms(both, config)[:, 0]
    loud = (level > 1e-3 * level.amax(dim=1, keepdim=True)).all(dim=0)
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
    return float(cosine[loud].mean())


def spectral_convergence(estimate: np.ndarray, reference: np.ndarray, config: AudioConfig) -> float:
    """Distance in dB between magnitude spectrograms of waveforms (lower).

    20 log10(||abs(S_ref) - abs(S_est)|| / ||abs(S_ref)||) with Frobenius norms (Sturmel & Daudet, 2011).

    Parameters
    ----------
    estimate, reference : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
        0 for silence, minus infinity for equal clips.
    """
    n = min(len(estimate), len(reference))
    both = torch.from_numpy(np.stack([estimate[:n], reference[:n]]))
    est, ref = features.stft(both, config).abs().double()
    return float(20 * torch.log10((ref - est).norm() / ref.norm()))


def log_mel_l1(estimate: np.ndarray, reference: np.ndarray, config: AudioConfig) -> float:
    """Mean absolute difference in dB between the log-mels of waveforms (lower).

    What lies more than 80 dB below the reference's maximum does not count.

    Parameters
    ----------
    estimate, reference : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
    """
    n = min(len(estimate), len(reference))
    both = torch.from_numpy(np.stack([estimate[:n], reference[:n]]).astype(np.float32))
    est, ref = features.log_mel(both, config)
    floor = ref.max() - TOP_DB
    return float((est.clamp_min(floor) - ref.clamp_min(floor)).abs().mean())


def multi_resolution_stft(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Spectral convergence plus log-magnitude L1, at three resolutions, of waveforms (lower).

    Mean over resolutions of ||S_ref - S_est|| / ||S_ref|| + mean |log S_ref - log S_est|, with magnitudes
    S of 512, 1024 and 2048 samples (Yamamoto et al., ICASSP 2020; Steinmetz & Reiss, auraloss, 2020).

    Parameters
    ----------
    estimate, reference : np.ndarray [shape=(n_samples,)]

    Returns
    -------
    float
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
    """Predicted mean opinion score of a waveform beside its reference (higher).

    ViSQOL in audio mode, at 48 kHz (Chinen et al., QoMEX 2020): similarity of gammatone spectrograms,
    mapped to listeners' scores.

    Parameters
    ----------
    estimate, reference : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
        From 1 to about 4.73, which equal clips get; NaN if a clip is silent.

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
    """Mean cosine between the chroma frames of waveforms (higher): are the notes kept?

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
        High already for unrelated notes: compare it with the value of another pair.
    """
    n = min(len(a), len(b))
    power = features.stft(torch.from_numpy(np.stack([a[:n], b[:n]])), config).abs() ** 2
    first, second = features.chroma(power, config)
    loud = power.sum(dim=1).amin(dim=0) > 0
    return float(torch.nn.functional.cosine_similarity(first, second, dim=0)[loud].mean())


def pitch_class_agreement(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Mean cosine between centred chroma vectors of waveforms, half a second each (higher).

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
        About 0 for noise and for unrelated notes, where `chroma_similarity` is already high: the mean
        over the twelve pitch classes is taken out.
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
    counts 0. The notes are found by `pitch.piano_roll` instead of Melodia.

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
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
    waveform : np.ndarray [shape=(n_samples,)]
    notes : np.ndarray [shape=(n, 3)]
        Rows of start in s, end in s and MIDI pitch.
    config : AudioConfig

    Returns
    -------
    float
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
    """Onsets by librosa's spectral flux (Böck & Widmer, DAFx 2013) at a quarter of the hop.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    np.ndarray [shape=(n_onsets,)]
        In s, ascending.
    """
    import librosa

    return librosa.onset.onset_detect(
        y=waveform, sr=config.sample_rate, hop_length=config.hop_length // 4, units="time"
    )


def onset_f1(waveform: np.ndarray, onsets: np.ndarray, config: AudioConfig) -> float:
    """F-measure of `detected_onsets` against known ones, within 50 ms, by mir_eval (higher).

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    onsets : np.ndarray [shape=(n_onsets,)]
        In s, ascending.
    config : AudioConfig

    Returns
    -------
    float
    """
    import mir_eval

    heard = detected_onsets(waveform, config)
    if len(heard) == 0 or len(onsets) == 0:
        return float(len(heard) == len(onsets))
    return float(mir_eval.onset.f_measure(onsets, heard, window=ONSET_TOLERANCE_S)[0])


def _timbre_covariance(waveform: np.ndarray, config: AudioConfig) -> np.ndarray:
    """Covariance (26, 26) of MFCC 1 to 13 and their deltas over the frames that are not quiet."""
    import librosa

    spectrum = features.stft(torch.from_numpy(waveform)[None], config)
    mel = features.mel_power(spectrum.abs() ** 2, config)
    cepstra = features.mfcc(features.power_to_db(mel, amin=config.amin), config)[0, 1:14].numpy()
    both = np.concatenate([cepstra, librosa.feature.delta(cepstra, mode="nearest")])
    level = features.rms(torch.from_numpy(waveform)[None], config)[0, 0].numpy()
    return np.cov(both[:, level > 0.05 * level.max()])


def timbre_distance(a: np.ndarray, b: np.ndarray, config: AudioConfig) -> float:
    """Bures distance between covariances of MFCC 1 to 13 and their deltas (lower).

    sqrt(tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2) over frames above 5 % of the peak RMS. For clips with
    different notes. A static equaliser shifts the cepstrum's mean, which a covariance does not contain,
    so it cannot lower this distance.

    Parameters
    ----------
    a, b : np.ndarray [shape=(n_samples,)]
    config : AudioConfig

    Returns
    -------
    float
        NaN if a clip is silent.
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
    """Each segment replaced by the mean spectrum of its own track.

    Parameters
    ----------
    x : torch.Tensor [shape=(N, n_mels, T)]
    track : torch.Tensor [shape=(N,)]
        Index of the track of each segment.

    Returns
    -------
    torch.Tensor [shape=(N, n_mels, T)]
    """
    means = torch.empty_like(x)
    for index in track.unique():
        mine = track == index
        means[mine] = x[mine].mean(dim=(0, 2))[:, None]
    return means


def trivial_predictions(train: Tensor, test: Tensor, track: Tensor) -> dict[str, Tensor]:
    """Predictions of test segments that know nothing of what happens in a segment.

    Parameters
    ----------
    train : torch.Tensor [shape=(M, n_mels, T)]
        Log-mels in dB.
    test : torch.Tensor [shape=(N, n_mels, T)]
        Log-mels in dB.
    track : torch.Tensor [shape=(N,)]
        Index of the track of each test segment.

    Returns
    -------
    dict of str to torch.Tensor [shape=(N, n_mels, T)]
        In dB. ``constant``: the mean of all training values. ``training mean``: the mean of each band
        over the training segments. ``track mean``: the mean of each band over the track's own segments.
    """
    return {
        "constant": train.mean().expand_as(test),
        "training mean": train.mean(dim=(0, 2))[:, None].expand_as(test),
        "track mean": track_means(test, track),
    }
