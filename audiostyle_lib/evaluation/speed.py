"""Speed and quality of ours, librosa and torchaudio on one clip, in one run.

Seconds depend on the machine, so only their ratios are compared.

Used by ``audiostyle bench``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import librosa
import numpy as np
import torch
import torchaudio

from .. import vocoding
from ..config import AudioConfig
from ..signal import features
from . import metrics

ITERATIONS = 32
Task = dict[str, Callable[[], np.ndarray]]  # method -> what it does; the first one is ours


@dataclass(frozen=True)
class Row:
    """One method of one task.

    Parameters
    ----------
    task, method : str
    seconds : float
        Shortest time.
    real_time_factor : float
        Seconds of computation for a second of audio.
    ratio : float
        To the time of ours, the first method of the task.
    spectral_convergence, log_mel_l1 : float or None
        In dB; see `metrics`. These two and the next are None where the task makes no waveform.
    multi_resolution_stft : float or None
    visqol : float or None
        From 1 to 4.73; None also for clips shorter than a second.
    """

    task: str
    method: str
    seconds: float
    real_time_factor: float
    ratio: float
    spectral_convergence: float | None
    log_mel_l1: float | None
    multi_resolution_stft: float | None
    visqol: float | None


def shortest_seconds(task: Task, *, repeats: int) -> dict[str, float]:
    """Shortest time of each method, after one call that does not count.

    Parameters
    ----------
    task : dict of str to callable
    repeats : int
        Rounds. Each runs every method once, so that a busy moment of the machine slows all of them alike.

    Returns
    -------
    dict of str to float
        In s.
    """
    for method in task.values():
        method()
    seconds = {name: np.inf for name in task}
    for _ in range(repeats):
        for name, method in task.items():
            started = time.perf_counter()
            method()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def _log_mel(x: np.ndarray, config: AudioConfig) -> Task:
    batch = torch.from_numpy(x)[None]
    size = {"n_fft": config.n_fft, "hop_length": config.hop_length, "n_mels": config.n_mels}

    def librosas():
        power = librosa.feature.melspectrogram(y=x, sr=config.sample_rate, **size)
        return librosa.power_to_db(power, top_db=None)

    return {"ours": lambda: features.log_mel(batch, config).numpy(), "librosa": librosas}


def _griffin_lim(x: np.ndarray, config: AudioConfig) -> Task:
    magnitude = features.stft(torch.from_numpy(x)[None], config).abs()
    size = {"n_fft": config.n_fft, "hop_length": config.hop_length}
    theirs = torchaudio.transforms.GriffinLim(**size, n_iter=ITERATIONS, power=1.0, length=len(x))
    settings = {"n_samples": len(x), "iterations": ITERATIONS}
    return {
        "ours": lambda: vocoding.griffin_lim(magnitude, config, **settings)[0].numpy(),
        "librosa": lambda: librosa.griffinlim(
            magnitude[0].numpy(), **size, n_iter=ITERATIONS, length=len(x), random_state=0
        ),
        "torchaudio": lambda: theirs(magnitude)[0].numpy(),
    }


def _heap_integration(x: np.ndarray, config: AudioConfig) -> Task:
    magnitude = features.stft(torch.from_numpy(x)[None], config).abs()

    def ours(iterations: int) -> np.ndarray:
        settings = {"n_samples": len(x), "iterations": iterations}
        start = vocoding.heap_integration(magnitude, config)
        return vocoding.griffin_lim(magnitude, config, phase=start, **settings)[0].numpy()

    return {
        "ours": lambda: ours(8),
        "ours, 4 iterations": lambda: ours(4),
        "librosa griffinlim": _griffin_lim(x, config)["librosa"],
    }


def _mel_to_waveform(x: np.ndarray, config: AudioConfig) -> Task:
    log_mel = features.log_mel(torch.from_numpy(x)[None], config)
    mel = 10 ** (log_mel[0].numpy() / 10)
    size = {"n_fft": config.n_fft, "hop_length": config.hop_length, "sr": config.sample_rate}

    def ours(vocoder: str) -> np.ndarray:
        return vocoding.mel_to_waveform(log_mel, config, n_samples=len(x), vocoder=vocoder)[
            0
        ].numpy()

    return {
        "ours": lambda: ours("pghi"),
        "ours, Griffin-Lim": lambda: ours("griffin_lim"),
        "ours, neural": lambda: ours("neural"),
        "librosa mel_to_audio": lambda: librosa.feature.inverse.mel_to_audio(
            mel, **size, n_iter=ITERATIONS, length=len(x)
        ),
    }


TASKS = {
    "waveform to log-mel": _log_mel,
    "Griffin-Lim, 32 iterations": _griffin_lim,
    "PGHI and 8 iterations": _heap_integration,
    "log-mel to waveform": _mel_to_waveform,
}


def run(
    waveform: np.ndarray, config: AudioConfig, *, repeats: int = 3, progress=print
) -> list[Row]:
    """Time and score every method of every task.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    config : AudioConfig
    repeats : int
        See `shortest_seconds`.
    progress : callable
        Called with a line of text for each row.

    Returns
    -------
    list of Row
    """
    rows = []
    for name, prepare in TASKS.items():
        task = prepare(waveform, config)
        seconds = shortest_seconds(task, repeats=repeats)
        ours = next(iter(seconds.values()))
        for method, taken in seconds.items():
            rtf = taken * config.sample_rate / len(waveform)
            quality = _quality(task[method](), waveform, config)
            rows.append(Row(name, method, taken, rtf, taken / ours, *quality))
            progress(describe(rows[-1]))
    return rows


def _quality(made: np.ndarray, waveform: np.ndarray, config: AudioConfig) -> tuple:
    """The last four fields of `Row`."""
    if made.ndim != 1:
        return (None,) * 4
    long_enough = len(waveform) >= config.sample_rate
    return (
        metrics.spectral_convergence(made, waveform, config),
        metrics.log_mel_l1(made, waveform, config),
        metrics.multi_resolution_stft(made, waveform),
        metrics.visqol(made, waveform, config) if long_enough else None,
    )


def describe(row: Row) -> str:
    """A row as a line of text, below `HEADER`."""
    line = f"{row.task:28}{row.method:22}{row.seconds:8.3f} s{row.real_time_factor:9.4f}"
    line += f"{row.ratio:7.1f}"
    if row.log_mel_l1 is None:
        return line
    line += f"{row.spectral_convergence:9.2f} dB{row.log_mel_l1:8.3f} dB"
    line += f"{row.multi_resolution_stft:9.3f}"
    return line if row.visqol is None else f"{line}{row.visqol:8.3f}"


HEADER = (
    f"{'task':28}{'method':22}{'time':>10}{'RTF':>9}{'ratio':>7}{'SC':>12}{'log-mel L1':>11}"
    f"{'MR-STFT':>9}{'ViSQOL':>8}\n"
    "RTF: seconds a second of audio; ratio: times as long as ours; SC: spectral convergence"
)
