"""Speed, memory and quality of ours beside librosa, torchaudio and other peers, in one run.

Seconds depend on the machine, so only their ratios are compared. All pools of threads (torch, BLAS,
numba) are set to one size, which every table states.

Used by ``audiostyle bench``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import librosa
import numpy as np
import torch
import torchaudio

from .. import bands, paths, transfer, vocoding
from ..config import AudioConfig
from ..evaluation import metrics, peers
from ..models import checkpoint
from ..models.vae import ConvVAE, elbo_loss
from ..models.vocos import Vocos
from ..paths import written_beside
from ..signal import augment, features
from ..training import content
from ..training.content import N_FRAMES, random_crops
from .prose import markdown_table, replace_between

ITERATIONS = 32
TRACK_SECONDS = 30
PAUSE = 0.1  # s before each call, until the threads of the one before have stopped waiting for work
Task = dict[str, Callable[[], np.ndarray | None]]  # method -> what it does; the first one is ours


@dataclass(frozen=True)
class Row:
    """One method of one task.

    Parameters
    ----------
    task, method : str
    size : str
        Of what is processed.
    seconds : float
        Shortest time.
    real_time_factor : float or None
        Seconds of computation for a second of audio.
    ratio : float
        To the time of ours, the first method of the task.
    megabytes : float
        Most memory that the process takes beyond what it had before.
    spectral_convergence, log_mel_l1 : float or None
        In dB; see `metrics`. These two and the next are None where the task makes no waveform.
    multi_resolution_stft : float or None
    visqol : float or None
        From 1 to 4.73; None also for clips shorter than a second.
    roofline : float or None
        On a GPU: the time that the fewest bytes take to move, as a share of the time taken.
    """

    task: str
    method: str
    size: str
    seconds: float
    real_time_factor: float | None
    ratio: float
    megabytes: float
    spectral_convergence: float | None = None
    log_mel_l1: float | None = None
    multi_resolution_stft: float | None = None
    visqol: float | None = None
    roofline: float | None = None


# Measuring ----------------------------------------------------------------------------------------


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
            time.sleep(PAUSE)
            started = time.perf_counter()
            method()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds


def peak_megabytes(method: Callable[[], object]) -> float:
    """Most resident memory of this process during a call, beyond what it had before, in MB."""
    import psutil

    process, done = psutil.Process(), threading.Event()
    _give_back()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = method()  # a result that is freed at once could be missed
        peak = max(peak, process.memory_info().rss)
    finally:
        done.set()
        watcher.join()
    del kept
    return (peak - before) / 1e6


def _give_back() -> None:
    """Return freed memory to the system, where the C library can: else it would not count again."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def set_threads(threads: int) -> None:
    """Give torch, numba and the BLAS of numpy and scipy `threads` threads each."""
    import numba
    import threadpoolctl

    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    threadpoolctl.threadpool_limits(threads)
    torch.set_num_threads(threads)


# Tasks --------------------------------------------------------------------------------------------


def _sizes(config: AudioConfig) -> dict[str, int]:
    return {"n_fft": config.n_fft, "hop_length": config.hop_length}


def _log_mel(clips: np.ndarray, config: AudioConfig) -> Task:
    sizes = _sizes(config) | {"n_mels": config.n_mels}
    theirs = torchaudio.transforms.MelSpectrogram(
        config.sample_rate, **sizes, norm="slaney", mel_scale="slaney", pad_mode="constant"
    )
    batch = torch.from_numpy(clips)

    def librosas(x: np.ndarray) -> np.ndarray:
        power = librosa.feature.melspectrogram(y=x, sr=config.sample_rate, **sizes)
        return librosa.power_to_db(power, top_db=None)

    return {
        "ours": lambda: features.log_mel(batch, config).numpy(),
        "librosa": lambda: np.stack([librosas(x) for x in clips]),
        "torchaudio": lambda: features.power_to_db(theirs(batch)).numpy(),
    }


def _style_features(clips: np.ndarray, config: AudioConfig) -> Task:
    of, sr, sizes = librosa.feature, config.sample_rate, _sizes(config)
    frame = {"frame_length": config.n_fft, "hop_length": config.hop_length}

    def librosas(x: np.ndarray) -> np.ndarray:
        rows = [
            of.mfcc(y=x, sr=sr, n_mfcc=config.n_mfcc, n_mels=config.n_mels, **sizes),
            of.zero_crossing_rate(x, **frame),
            of.spectral_centroid(y=x, sr=sr, **sizes),
            of.spectral_bandwidth(y=x, sr=sr, **sizes),
            of.spectral_rolloff(y=x, sr=sr, **sizes),
            of.spectral_contrast(y=x, sr=sr, **sizes),
            librosa.power_to_db(of.spectral_flatness(y=x, **sizes), top_db=None),
            librosa.amplitude_to_db(of.rms(y=x, **frame), top_db=None),
            of.chroma_stft(y=x, sr=sr, tuning=0.0, **sizes),
        ]
        return np.concatenate(rows)

    batch = torch.from_numpy(clips)
    return {
        "ours": lambda: features.style_features(batch, config).numpy(),
        "librosa, one by one": lambda: np.stack([librosas(x) for x in clips]),
    }


def _time_stretch(clips: np.ndarray, config: AudioConfig) -> Task:
    rate, x = 1 + augment.STRETCH, clips[0]
    turn = torch.linspace(0, np.pi * config.hop_length, config.n_fft // 2 + 1)[:, None]
    n_samples = round(len(x) / rate)

    def torchaudios() -> np.ndarray:
        spectrum = features.stft(torch.from_numpy(x)[None], config)
        slower = torchaudio.functional.phase_vocoder(spectrum, rate, turn)
        return features.istft(slower, config, n_samples)[0].numpy()

    return {
        "ours": lambda: augment.time_stretch(x, rate, config=config),
        "librosa": lambda: librosa.effects.time_stretch(x, rate=rate),
        "torchaudio phase_vocoder": torchaudios,
    }


def _pitch_shift(clips: np.ndarray, config: AudioConfig) -> Task:
    x, sr, steps = clips[0], config.sample_rate, augment.SEMITONES
    return {
        "ours": lambda: augment.pitch_shift(x, steps, config=config),
        "librosa": lambda: librosa.effects.pitch_shift(x, sr=sr, n_steps=steps),
        "torchaudio": lambda: torchaudio.functional.pitch_shift(
            torch.from_numpy(x), sr, round(steps), n_fft=config.n_fft
        ).numpy(),
    }


def _griffin_lim(clips: np.ndarray, config: AudioConfig) -> Task:
    n_samples = clips.shape[1]
    magnitude = features.stft(torch.from_numpy(clips[:1]), config).abs()
    theirs = torchaudio.transforms.GriffinLim(
        **_sizes(config), n_iter=ITERATIONS, power=1.0, length=n_samples
    )
    settings = {"n_samples": n_samples, "iterations": ITERATIONS}
    return {
        "ours": lambda: vocoding.griffin_lim(magnitude, config, **settings)[0].numpy(),
        "librosa": lambda: librosa.griffinlim(
            magnitude[0].numpy(), **_sizes(config), n_iter=ITERATIONS, length=n_samples,
            random_state=0,
        ),
        "torchaudio": lambda: theirs(magnitude)[0].numpy(),
    }  # fmt: skip


def _heap_integration(clips: np.ndarray, config: AudioConfig) -> Task:
    magnitude = features.stft(torch.from_numpy(clips[:1]), config).abs()

    def ours(iterations: int) -> np.ndarray:
        settings = {"n_samples": clips.shape[1], "iterations": iterations}
        start = vocoding.heap_integration(magnitude, config)
        return vocoding.griffin_lim(magnitude, config, phase=start, **settings)[0].numpy()

    return {
        "ours": lambda: ours(8),
        "ours, 4 iterations": lambda: ours(4),
        "librosa griffinlim": _griffin_lim(clips, config)["librosa"],
    }


def _mel_to_waveform(clips: np.ndarray, config: AudioConfig) -> Task:
    n_samples = clips.shape[1]
    log_mel = features.log_mel(torch.from_numpy(clips[:1]), config)
    mel = 10 ** (log_mel[0].numpy() / 10)

    def ours(vocoder: str) -> np.ndarray:
        made = vocoding.mel_to_waveform(log_mel, config, n_samples=n_samples, vocoder=vocoder)
        return made[0].numpy()

    return {
        "ours": lambda: ours("pghi"),
        "ours, Griffin-Lim": lambda: ours("griffin_lim"),
        "ours, neural": lambda: ours("neural"),
        "librosa mel_to_audio": lambda: librosa.feature.inverse.mel_to_audio(
            mel, sr=config.sample_rate, **_sizes(config), n_iter=ITERATIONS, length=n_samples
        ),
    }


def _transfer(clips: np.ndarray, config: AudioConfig) -> Task:
    one = clips[0]
    other = np.ascontiguousarray(one[::-1][: TRACK_SECONDS * config.sample_rate])
    learned = transfer.learned(transfer.load_model())
    ways = {"ours": learned, "LTAS-EQ": transfer.ltas_eq}
    made = {
        name: lambda method=method: transfer.transfer(one, other, method=method)
        for name, method in ways.items()
    }
    return made | {"musaicing": lambda: peers.musaicing(one, other, config)}


def _rendering(clips: np.ndarray, config: AudioConfig) -> Task:
    """A piece of bands; as a peer pretty_midi's own synthesizer, which plays sines."""
    import pretty_midi

    seconds = clips.shape[1] / config.sample_rate
    piece = bands.compose(0, genre="rock", split="train", seconds=seconds)
    style = bands.draw_style(0, genre="rock", split="train")
    beat = 60 / piece.tempo
    midi = pretty_midi.PrettyMIDI()
    for part in bands.arrange(piece, style):
        instrument = pretty_midi.Instrument(part.program, is_drum=part.is_drum)
        instrument.notes = [
            pretty_midi.Note(round(n.velocity), n.pitch, n.start * beat, n.end * beat)
            for n in part.notes
            if n.end * beat <= seconds
        ]
        midi.instruments.append(instrument)
    return {
        "ours": lambda: bands.render(piece, style, seconds=seconds),
        "pretty_midi, sines": lambda: midi.synthesize(config.sample_rate),
    }


def _training_step(clips: np.ndarray, config: AudioConfig) -> Task:
    """One step of the content VAE on crops; as a peer a DataLoader that computes what it loads."""
    n_samples = N_FRAMES * config.hop_length - 1
    clips = np.stack([np.resize(x, max(len(x), 2 * n_samples)) for x in clips])
    log_mels = list(features.log_mel(torch.from_numpy(clips), config))
    model = ConvVAE(n_mels=config.n_mels)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch_size = 16
    drawn = random_crops(log_mels, batch_size=batch_size, n_batches=1, seed=0, varied=0.0)

    def step(x: torch.Tensor) -> None:
        loss, _ = elbo_loss(model, x, beta=0.02)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    class Crops(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return batch_size

        def __getitem__(self, index: int) -> torch.Tensor:
            x = clips[index % len(clips)]
            start = np.random.default_rng(index).integers(len(x) - n_samples + 1)
            power = librosa.feature.melspectrogram(
                y=x[start : start + n_samples], sr=config.sample_rate, n_mels=config.n_mels,
                **_sizes(config),
            )  # fmt: skip
            return torch.from_numpy(librosa.power_to_db(power, top_db=None))

    loader = torch.utils.data.DataLoader(Crops(), batch_size=batch_size)
    return {
        "ours": lambda: step(next(iter(drawn(0)))),
        "DataLoader with librosa": lambda: [step(x) for x in loader] and None,
    }


def _start(clips: np.ndarray, config: AudioConfig) -> Task:
    def python(*arguments: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True)

    return {
        "ours": python("-c", "import audiostyle_lib"),
        "ours, --help": python("-m", "audiostyle_lib", "--help"),
        "Python alone": python("-c", ""),
        "import librosa": python("-c", "import librosa, librosa.feature, librosa.effects"),
        "import torchaudio": python("-c", "import torchaudio"),
    }


# On a GPU ---------------------------------------------------------------------------------------


def _on_device(device: str, config: AudioConfig, *, n_clips: int, seconds: float) -> dict:
    """Tasks of a device: name -> (methods, seconds of audio, fewest bytes moved through its memory).

    Training is `training.content.fit` itself, whose own clock says what a step takes.
    """
    n_samples, few = round(seconds * config.sample_rate), max(1, n_clips // 16)
    generator = torch.Generator(device).manual_seed(0)
    clips = 0.1 * torch.randn(n_clips, n_samples, generator=generator, device=device)
    theirs = torchaudio.transforms.MelSpectrogram(
        config.sample_rate, **_sizes(config), n_mels=config.n_mels, norm="slaney",
        mel_scale="slaney", pad_mode="constant",
    ).to(device)  # fmt: skip
    magnitude = features.stft(clips[:few], config).abs()
    griffin_lim = torchaudio.transforms.GriffinLim(
        **_sizes(config), n_iter=ITERATIONS, power=1.0, length=n_samples
    ).to(device)
    log_mel = features.log_mel(clips[:few], config)
    network = Vocos(config=config, predict_phase=True).to(device).eval()

    def by_hundreds(function) -> torch.Tensor:
        return torch.cat([function(part) for part in clips.split(100)])

    settings = {"n_samples": n_samples, "iterations": ITERATIONS}
    n_frames, n_bins = magnitude.shape[2], magnitude.shape[1]
    audio_bytes, mel_bytes = 4 * clips.numel(), 4 * n_clips * config.n_mels * n_frames
    pass_bytes = 4 * few * (n_samples + 2 * n_bins * n_frames)
    return {
        f"log-mel of {n_clips} clips": (
            {
                "ours": lambda: by_hundreds(lambda x: features.log_mel(x, config)),
                "torchaudio": lambda: by_hundreds(lambda x: features.power_to_db(theirs(x))),
            },
            n_clips * seconds, audio_bytes + mel_bytes,
        ),
        f"Griffin-Lim, {ITERATIONS} iterations, {few} clips": (
            {
                "ours": lambda: vocoding.griffin_lim(magnitude, config, **settings),
                "torchaudio": lambda: griffin_lim(magnitude),
            },
            few * seconds, 2 * ITERATIONS * pass_bytes,
        ),
        f"Vocos, log-mel to waveform, {few} clips": (
            {"ours": lambda: network(log_mel)}, few * seconds, pass_bytes,
        ),
    }  # fmt: skip


def _training_seconds(clips: torch.Tensor, config: AudioConfig, device: str, steps: int) -> float:
    """Seconds of a step of `content.fit` with the content VAE, from its second epoch on."""
    log_mels = list(features.log_mel(clips, config))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        path = Path(folder) / "content.safetensors"
        content.fit(
            ConvVAE(n_mels=config.n_mels), path=path, log_mels=log_mels, probes={}, steps=steps,
            steps_per_epoch=-(-steps // 2), config=config, arguments={}, data={}, seed=0,
            device=device, varied=0.0,
        )  # fmt: skip
        return checkpoint.read_header(path)["seconds"]["step"]


def run_on(
    device: str,
    config: AudioConfig,
    *,
    n_clips: int = 1000,
    seconds: float = 30.0,
    steps: int = 200,
    repeats: int = 5,
    progress=print,
) -> list[Row]:
    """Time what a device computes in large batches, beside torchaudio on the same device.

    Parameters
    ----------
    device : str
        "cuda", or "cpu" for a look at small size.
    config : AudioConfig
    n_clips : int
        Of noise; a sixteenth of them go through the vocoders.
    seconds : float
        Of each.
    steps : int
        Of the training.
    repeats : int
        See `shortest_seconds`.
    progress : callable
        Called with a line of text for each row.

    Returns
    -------
    list of Row
        `Row.roofline` compares with the device's memory, whose rate a copy of 1 GB tells.
    """
    is_cuda = device.startswith("cuda")
    wait = torch.cuda.synchronize if is_cuda else (lambda: None)

    def waited(method):
        def call():
            with torch.inference_mode():
                method()
            wait()

        return call

    block = torch.empty(250_000_000 if is_cuda else 1_000_000, device=device)
    copied = shortest_seconds({"copy": waited(block.clone)}, repeats=repeats)["copy"]
    rate = 2 * 4 * block.numel() / copied  # bytes/s, read and written
    del block
    rows = []
    tasks = _on_device(device, config, n_clips=n_clips, seconds=seconds)
    for name, (methods, duration, least) in tasks.items():
        timed = {k: waited(m) for k, m in methods.items()}
        taken = shortest_seconds(timed, repeats=repeats)
        for method, s in taken.items():
            peak = _device_megabytes(timed[method], device)
            ratio = s / taken["ours"]
            row = Row(name, method, device, s, s / duration, ratio, peak, roofline=least / rate / s)
            rows.append(row)
            progress(describe(row))
    clips = torch.randn(8, round(max(seconds, 6.0) * config.sample_rate), device=device)
    step = _training_seconds(clips, config, device, steps)
    heard = content.BATCH_SIZE * N_FRAMES / config.frames_per_second
    rows.append(Row("training step, content VAE", "ours", device, step, step / heard, 1.0, 0.0))
    progress(describe(rows[-1]))
    return rows


def _device_megabytes(method: Callable[[], object], device: str) -> float:
    if not device.startswith("cuda"):
        return peak_megabytes(method)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    method()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


ONE_CLIP = ("one clip",)
SIZES = {  # name -> (clips, seconds of each; None: as the clip given)
    "one clip": (1, None),
    "10 clips": (10, None),
    "100 clips": (100, None),
    "10 s": (1, 10.0),
    "10 minutes": (1, 600.0),
    "1 hour": (1, 3600.0),
}
TASKS: dict[str, tuple[Callable[[np.ndarray, AudioConfig], Task], tuple[str, ...]]] = {
    "waveform to log-mel": (_log_mel, tuple(SIZES)),
    "style features": (
        _style_features,
        ("one clip", "10 clips", "100 clips", "10 s", "10 minutes"),
    ),
    "time stretch by 1.2": (_time_stretch, ONE_CLIP),
    "pitch shift by 2 semitones": (_pitch_shift, ONE_CLIP),
    "Griffin-Lim, 32 iterations": (_griffin_lim, ONE_CLIP),
    "PGHI and 8 iterations": (_heap_integration, ONE_CLIP),
    "log-mel to waveform": (_mel_to_waveform, ONE_CLIP),
    "style transfer": (_transfer, ("one clip", "10 s", "10 minutes")),
    "rendering a piece": (_rendering, ONE_CLIP),
    "training step of the content VAE": (_training_step, ONE_CLIP),
    "start": (_start, ()),
}
WAVEFORMS = ("Griffin-Lim, 32 iterations", "PGHI and 8 iterations", "log-mel to waveform")


def run(
    waveform: np.ndarray,
    config: AudioConfig,
    *,
    repeats: int = 3,
    grow: bool = False,
    progress=print,
) -> list[Row]:
    """Time and score every method of every task.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n_samples,)]
    config : AudioConfig
    repeats : int
        See `shortest_seconds`; at more than a minute of audio there is one.
    grow : bool
        All sizes of a task, not its first alone.
    progress : callable
        Called with a line of text for each row.

    Returns
    -------
    list of Row
    """
    rows = []
    for name, (prepare, sizes) in TASKS.items():
        for size in (sizes if grow else sizes[:1]) or ("",):
            clips = _clips(waveform, size, config)
            task = prepare(clips, config)
            duration = clips.size / config.sample_rate if size else None
            seconds = shortest_seconds(task, repeats=1 if (duration or 0) > 60 else repeats)
            ours = next(iter(seconds.values()))
            for method, taken in seconds.items():
                peak = peak_megabytes(task[method])
                rtf = None if duration is None else taken / duration
                row = Row(name, method, size, taken, rtf, taken / ours, peak)
                if name in WAVEFORMS:
                    row = replace(row, **_quality(task[method](), clips[0], config))
                rows.append(row)
                progress(describe(row))
    return rows


def _clips(waveform: np.ndarray, size: str, config: AudioConfig) -> np.ndarray:
    """The waveform, repeated or cut, as clips (n, n_samples) of a size; each begins elsewhere in it."""
    n, seconds = SIZES[size] if size else (1, None)
    n_samples = len(waveform) if seconds is None else round(seconds * config.sample_rate)
    return np.stack([np.resize(np.roll(waveform, -7919 * i), n_samples) for i in range(n)])


def _quality(made: np.ndarray, waveform: np.ndarray, config: AudioConfig) -> dict:
    """The fields of `Row` that say how near to `waveform` a waveform is."""
    long_enough = len(waveform) >= config.sample_rate
    return {
        "spectral_convergence": metrics.spectral_convergence(made, waveform, config),
        "log_mel_l1": metrics.log_mel_l1(made, waveform, config),
        "multi_resolution_stft": metrics.multi_resolution_stft(made, waveform),
        "visqol": metrics.visqol(made, waveform, config) if long_enough else None,
    }


def describe(row: Row) -> str:
    """A row as a line of text, below `HEADER`."""
    rtf = "" if row.real_time_factor is None else f"{row.real_time_factor:.5f}"
    line = f"{row.task:33}{row.method:25}{row.size:11}{row.seconds:9.3f} s{rtf:>9}"
    line += f"{row.ratio:8.2f}{row.megabytes:7.0f} MB"
    if row.roofline is not None:
        return f"{line}{row.roofline:8.1%} of the roofline"
    if row.log_mel_l1 is None:
        return line
    line += f"{row.spectral_convergence:9.2f} dB{row.log_mel_l1:8.3f} dB"
    line += f"{row.multi_resolution_stft:9.3f}"
    return line if row.visqol is None else f"{line}{row.visqol:8.3f}"


HEADER = (
    f"{'task':33}{'method':25}{'size':11}{'time':>11}{'RTF':>9}{'ratio':>8}{'memory':>10}"
    f"{'SC':>12}{'log-mel L1':>11}{'MR-STFT':>9}{'ViSQOL':>8}\n"
    "RTF: seconds a second of audio; ratio: times as long as ours; memory: most beyond what was taken "
    "before; SC: spectral convergence"
)


def write(path: Path, rows: list[Row], *, threads: int) -> None:
    """Write rows as JSON, with the machine and the number of threads."""
    facts = {"threads": threads, "machine": platform.machine(), "python": platform.python_version()}
    facts |= {m.__name__: m.__version__ for m in (torch, torchaudio, librosa, np)}
    with written_beside(path) as file:
        file.write_text(json.dumps(facts | {"rows": [asdict(r) for r in rows]}, indent=1) + "\n")


def readme_table(path: Path) -> str:
    """What `write` wrote as a Markdown table: times of ours, and how much longer others take."""
    by_task: dict[tuple[str, str], list[dict]] = {}
    for row in json.loads(path.read_text())["rows"]:
        by_task.setdefault((row["task"], row["size"]), []).append(row)
    rows = []
    for (task, size), (ours, *others) in by_task.items():
        beside = ", ".join(f"{r['method']} {r['ratio']:.1f} x" for r in others)
        memory = f"{ours['megabytes']:.0f} MB" if size else ""  # of this process
        rows.append([task, size, f"{ours['seconds']:.3g} s", memory, beside])
    return markdown_table(["task", "size", "ours", "memory", "others take"], rows)


def cost_table(path: Path, *, n_tracks: int = 100_000) -> str:
    """What a large corpus costs at the rates that `write` wrote, as a Markdown table.

    Disk is 16 bits a sample for audio, float32 for features.
    """
    one_clip = {
        row["task"]: row["real_time_factor"]
        for row in json.loads(path.read_text())["rows"]
        if row["method"] == "ours" and row["size"] == "one clip"
    }
    config, hours = AudioConfig(), n_tracks * TRACK_SECONDS / 3600
    per_frame = {
        "rendering a piece": 2 * config.hop_length,
        "waveform to log-mel": 4 * config.n_mels,
        "style features": 4 * len(features.style_feature_names(config)),
    }
    names = {"training step of the content VAE": "one epoch of the content VAE"}
    rows = []
    for task in (*per_frame, "style transfer", *names):
        disk = per_frame.get(task, 0) * config.frames_per_second * hours * 3600 / 1e9
        text = f"{disk:.0f} GB" if disk else ""
        rows.append([names.get(task, task), f"{one_clip[task] * hours:.1f}", text])
    return markdown_table(
        [f"{n_tracks:,} tracks of {TRACK_SECONDS} s".replace(",", " "), "core hours", "disk"], rows
    )


def store(rows: list[Row], *, threads: int) -> None:
    """Make rows the committed ones: ``figures/speed.json`` and the README's two tables."""
    file, readme = paths.REFERENCES / "speed.json", paths.ROOT / "README.md"
    write(file, rows, threads=threads)
    replace_between(readme, "speed", readme_table(file))
    replace_between(readme, "cost", cost_table(file))
