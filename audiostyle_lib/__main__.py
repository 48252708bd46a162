"""The command line: ``audiostyle transfer``, ``data``, ``reproduce``, ``benchmark``, and more."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

USAGE_ERROR = 2
VOCODERS = ("gain", "content_phase", "griffin_lim", "pghi", "neural")  # vocode imports torch


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 bad input."""
    arguments = _parser().parse_args(argv)
    arguments.command = shlex.join(["audiostyle", *(sys.argv[1:] if argv is None else argv)])
    try:
        return arguments.run(arguments) or 0
    except (ValueError, FileNotFoundError) as error:
        # AudioError, ConfigMismatchError and the like: the input is at fault, not the program
        print(f"audiostyle: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("audiostyle: interrupted", file=sys.stderr)
        return 130


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _at_least(least: float, number: type, *, most: float | None = None):
    def parse(text: str):
        value = number(text)
        if not value >= least:  # NaN is not
            raise argparse.ArgumentTypeError(f"{text} is not at least {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{text} is not at least {least} and at most {most}")
        return value

    return parse


def _add_soundfonts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--soundfont", type=Path, action="append", default=[], metavar="FILE",
        help="General MIDI SoundFont whose instruments play too; repeat for several",
    )  # fmt: skip


def _shard(text: str) -> tuple[int, int]:
    """Part 3 of 16 from "3/16"."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no part such as 1/16 to 16/16")
    return int(index), int(count)


def _add_destination(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", type=Path, help=f"{what} to write")
    parser.add_argument(
        "--ship", action="store_true", help="overwrite the weights that come with the library"
    )


def _destination(arguments, shipped: Path) -> Path:
    """What `pretrain` writes: -o, or with --ship the shipped file or folder."""
    if (arguments.output is None) != arguments.ship:
        raise ValueError("pretrain needs either -o, or --ship to overwrite the shipped weights")
    if arguments.ship:
        return shipped
    from .paths import PRETRAINED

    output = arguments.output.expanduser().resolve()
    if PRETRAINED in (output, *output.parents):
        raise ValueError(f"{output}: there lie the shipped weights, which only --ship overwrites")
    return output


def _model_file(arguments, shipped: Path) -> Path:
    output = _destination(arguments, shipped)
    if output.suffix != ".safetensors" or not output.parent.is_dir():
        raise ValueError(f"{output}: needs a folder that is there and a name in .safetensors")
    return output


def _prepared(soundfonts: list[Path]) -> list[Path]:
    for file in soundfonts:
        if not file.exists():
            raise FileNotFoundError(f"no SoundFont at {file}")
    from .bands import instruments

    return [instruments.prepare(file) for file in soundfonts]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="audiostyle", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("transfer", help="CONTENT's notes in the sound of STYLE")
    p.add_argument("content", type=Path, help="audio file whose notes are kept")
    p.add_argument("style", type=Path, help="audio file whose sound is wanted")
    p.add_argument(
        "-o", "--output", type=Path, required=True,
        help="file to write; its ending decides the format: wav, flac, ogg, mp3, au or aiff",
    )  # fmt: skip
    p.add_argument(
        "--method", default="learned", choices=("learned", "ltas_eq"),
        help="the pretrained network (default), or an equaliser that matches the average spectrum",
    )  # fmt: skip
    p.add_argument(
        "--vocoder", default="gain", choices=VOCODERS,
        help="gain (default) changes the levels in CONTENT's own spectrogram, content_phase keeps "
        "only its phases; the others make a new waveform from the predicted log-mel",
    )  # fmt: skip
    p.add_argument(
        "--strength", type=_share, default=1.0, metavar="0..1",
        help="0 gives CONTENT back, 1 is the full transfer (default)",
    )  # fmt: skip
    p.add_argument(
        "--calibration", type=_share, metavar="0..1",
        help="with learned: subtract this share of what the network changes when CONTENT itself is "
        "the style, which should be nothing (default 0)",
    )  # fmt: skip
    p.add_argument(
        "--variance", type=_share, metavar="0..1",
        help="with learned: how far to raise the variation over time, which the network makes too "
        "small, to that of STYLE (default 0.15)",
    )  # fmt: skip
    p.add_argument("--device", default="auto", help="cpu, cuda, or auto (default)")
    p.set_defaults(run=_transfer)

    p = commands.add_parser("data", help="render bands or pairs, look for gtzan, or check a folder")
    p.add_argument("what", choices=("bands", "gtzan", "check", "pairs"))
    p.add_argument("folder", type=Path, nargs="?", help="to check, or for the pairs")
    p.add_argument("--profile", default="quick")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="one of N parts")
    p.add_argument(
        "--groups", type=_at_least(1, int), default=600, help="of 16 pairs, in all parts"
    )
    p.add_argument(
        "--split", default="train", choices=("train", "valid", "test"), help="of the pairs"
    )
    _add_soundfonts(p)
    p.set_defaults(run=_data)

    p = commands.add_parser("reproduce", help="run the notebooks that are not up to date")
    p.add_argument("--profile", default="quick")
    p.add_argument("--corpus", default="auto", choices=("auto", "bands", "gtzan"))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto")
    p.add_argument("--only", nargs="+", metavar="NN", help="these notebooks and what they need")
    p.add_argument("--cores", type=_at_least(1, int), default=os.cpu_count() or 1)
    p.add_argument(
        "--store", action="store_true",
        help="make the run the reference: figures/<profile>-<corpus>, notebooks/ and the README's table",
    )  # fmt: skip
    p.add_argument(
        "--rehearse", type=_at_least(2, int), metavar="STEPS",
        help="cut every training to so many steps and say what the whole run would take",
    )  # fmt: skip
    p.set_defaults(run=_reproduce)

    p = commands.add_parser("compare", help="which metrics of a run agree with its reference")
    p.add_argument("folder", type=Path, metavar="RUN", help="figures/runs/<profile>-<corpus>")
    p.add_argument(
        "reference", type=Path, nargs="?", help="another run; figures/<profile>-<corpus> if left out",
    )  # fmt: skip
    p.set_defaults(run=_compare)

    p = commands.add_parser("report", help="write the report page of a run")
    p.add_argument("folder", type=Path, help="figures/runs/<profile>-<corpus>, or a reference")
    p.set_defaults(run=_report)

    p = commands.add_parser("bench", help="speed beside librosa and torchaudio, in one run")
    p.add_argument("clip", type=Path, nargs="?", help="an audio file; a clip of bands if left out")
    p.add_argument(
        "--seconds", type=_at_least(0.5, float, most=600), default=30.0,
        help="the clip is repeated or cut to that",
    )  # fmt: skip
    p.add_argument("--repeats", type=_at_least(1, int), default=3)
    p.add_argument("--threads", type=_at_least(1, int), default=1, help="of torch, BLAS and numba")
    p.add_argument("--grow", action="store_true", help="also 10 and 100 clips, and up to an hour")
    p.add_argument("-o", "--output", type=Path, help="JSON file to write")
    p.add_argument(
        "--store", action="store_true", help="write figures/speed.json and README's table"
    )
    p.add_argument("--device", default="cpu", help="cuda: large batches on the GPU, instead")
    p.set_defaults(run=_bench)

    p = commands.add_parser("benchmark", help="methods side by side on held-out triplets")
    p.add_argument("--profile", default="quick", help="how many items")
    p.add_argument("--corpus", default="auto", choices=("auto", "bands", "gtzan"), help="of pairs")
    p.add_argument("--methods", nargs="+", metavar="NAME", help="only these, e.g. 'LTAS-EQ'")
    p.add_argument(
        "--model", type=Path, nargs="+", default=[], metavar="FILE", dest="models",
        help="weights of `pretrain transfer -o` to score beside the pretrained ones",
    )  # fmt: skip
    p.add_argument("--table", type=Path, help="score files: CSV of content, style, truth, output")
    p.add_argument("-o", "--output", type=Path, help="benchmark.json to write")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto")
    p.set_defaults(run=_benchmark)

    p = commands.add_parser("pretrain", help="train the models that transfer uses, on bands only")
    models = p.add_subparsers(required=True, metavar="MODEL")
    m = models.add_parser("transfer", help="the recombination")
    m.add_argument("--groups", type=_at_least(1, int), default=240, help="of 16 paired renderings")
    m.add_argument("--steps", type=_at_least(1, int), default=1500, help="of regression")
    m.add_argument(
        "--adversarial-steps", type=_at_least(0, int), default=0,
        help="then, from its weights, against a discriminator",
    )  # fmt: skip
    m.add_argument("--batch-size", type=_at_least(1, int), default=16)
    m.add_argument(
        "--channels", type=int, default=320, choices=(64, 128, 192, 256, 320),
        help="width of the network",
    )  # fmt: skip
    m.add_argument("--conditioning", default="attention", choices=("attention", "film", "adain"))
    m.add_argument(
        "--recordings", metavar="CORPUS",
        help="a corpus (gtzan) whose training tracks make a quarter of each batch, self-supervised",
    )  # fmt: skip
    m.add_argument(
        "--pairs", type=Path, metavar="FOLDER",
        help="read what `audiostyle data pairs` rendered, in place of rendering it",
    )  # fmt: skip
    _add_destination(m, "a .safetensors")
    _add_soundfonts(m)
    m.add_argument("--seed", type=int, default=1)
    m.add_argument("--device", default="auto")
    m.set_defaults(run=_pretrain_transfer)
    m = models.add_parser("judges", help="the genre and timbre judges of the benchmark")
    m.add_argument("--groups", type=_at_least(1, int), default=240, help="of 16 paired renderings")
    m.add_argument("--steps", type=_at_least(1, int), default=1_000)
    _add_destination(m, "folder of three .safetensors")
    _add_soundfonts(m)
    m.add_argument("--seed", type=int, default=2)
    m.add_argument("--device", default="auto")
    m.set_defaults(run=_pretrain_judges)
    m = models.add_parser("vocoder", help="log-mel to magnitudes")
    m.add_argument("--profile", default="long", help="whose corpus it hears")
    m.add_argument("--steps", type=_at_least(1, int), default=8_000)
    _add_destination(m, "a .safetensors")
    m.add_argument("--seed", type=int, default=0)
    m.add_argument("--device", default="auto")
    m.set_defaults(run=_pretrain_vocoder)
    return parser


def _progress(label: str):
    def show(done: int, total: int) -> None:
        end = "\n" if done == total or not sys.stderr.isatty() else "\r"
        print(f"{label} {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show


def _transfer(arguments) -> None:
    from .signal import audio

    options = {"calibration": arguments.calibration, "variance": arguments.variance}
    corrections = {name: value for name, value in options.items() if value is not None}
    if corrections and arguments.method != "learned":
        raise ValueError(f"--{next(iter(corrections))} is a correction of --method learned only")
    output = audio.check_writable(arguments.output)
    content, style = audio.read_audio(arguments.content), audio.read_audio(arguments.style)
    # Only now, so that bad input is refused in a moment: torch takes seconds to import.
    from . import config as cfg
    from . import transfer

    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    method = transfer.ltas_eq
    if arguments.method == "learned":
        method = transfer.learned(transfer.load_model(device=device), **corrections)
    result = transfer.transfer(
        content,
        style,
        method=method,
        strength=arguments.strength,
        vocoder=arguments.vocoder,
        config=config,
        device=device,
        progress=_progress("block") if len(content) > 60 * config.sample_rate else None,
    )
    audio.write_audio(output, result, sample_rate=config.sample_rate)
    print(f"{output}: {len(result) / config.sample_rate:.2f} s")


def _data(arguments) -> None:
    from . import config as cfg
    from . import corpora

    if arguments.what == "check":
        if arguments.folder is None:
            raise ValueError("data check needs a folder")
        print(corpora.describe(corpora.read_folder(arguments.folder, name=arguments.folder.name)))
        return
    if arguments.what == "pairs":
        print(_rendered_pairs(arguments))
        return
    if arguments.shard != (1, 1):
        _rendered_part(arguments)
        return
    opened = corpora.open_corpus(
        arguments.what,
        profile=cfg.profile(arguments.profile),
        seed=arguments.seed,
        progress=_progress("rendered"),
    )
    print(corpora.describe(opened))


def _rendered_pairs(arguments) -> Path:
    if arguments.folder is None:
        raise ValueError("data pairs needs a folder to write to")
    from . import config as cfg
    from .bands import shards

    return shards.write_pairs(
        arguments.folder, n_groups=arguments.groups, shard=arguments.shard, split=arguments.split,
        seed=arguments.seed, config=cfg.AudioConfig(), soundfonts=_prepared(arguments.soundfont),
        progress=_progress("groups rendered"),
    )  # fmt: skip


def _rendered_part(arguments) -> None:
    from . import bands, corpora
    from . import config as cfg

    if arguments.what != "bands":
        raise ValueError(
            f"--shard is for what is rendered, bands and pairs, not for {arguments.what}"
        )
    profile = cfg.profile(arguments.profile)
    bands.write_corpus(
        corpora.bands_folder(profile, seed=arguments.seed), clips_per_genre=profile.clips_per_genre,
        seconds=profile.clip_seconds, seed=arguments.seed, shard=arguments.shard,
        progress=_progress("rendered"),
    )  # fmt: skip


def _reproduce(arguments) -> int:
    from . import config as cfg
    from . import corpora, paths
    from .course import compare, pipeline

    paths.require_checkout("reproduce")
    cfg.profile(arguments.profile)
    corpus = corpora.resolve(arguments.corpus)
    if arguments.rehearse:
        if arguments.store:
            raise ValueError("a rehearsal is no run to --store")
        os.environ["AUDIOSTYLE_REHEARSE"] = str(arguments.rehearse)
        os.environ["AUDIOSTYLE_FIGURES"] = str(paths.runs() / "rehearsal")
    code = pipeline.reproduce(
        profile=arguments.profile, corpus=corpus, seed=arguments.seed,
        device=arguments.device, cores=arguments.cores, only=arguments.only,
    )  # fmt: skip
    folder = paths.runs() / f"{arguments.profile}-{corpus}"
    if code:
        return 1
    if arguments.rehearse:
        print(pipeline.estimate(folder))
        return 0
    verdict = compare.with_reference(folder)  # before `store` puts the run in the reference's place
    if arguments.store:
        pipeline.store(folder, only=arguments.only)
    print(f"figures, metrics and report: {folder}\n{verdict}")
    return 0


def _compare(arguments) -> int:
    from .course import compare

    text, agrees = compare.compare_folders(arguments.folder, arguments.reference)
    print(text)
    return 0 if agrees else 1


def _report(arguments) -> None:
    from .course import report

    print(report.write(arguments.folder))


def _bench(arguments) -> None:
    import numpy as np

    from . import config as cfg
    from .bands import lattice
    from .course import speed
    from .signal import audio

    if arguments.device != "cpu":
        if arguments.store or arguments.grow or arguments.clip:
            raise ValueError(
                "a clip, --grow and --store are for the CPU: with --device write to -o FILE"
            )
        rows = speed.run_on(arguments.device, cfg.AudioConfig(), repeats=arguments.repeats)
        if arguments.output is not None:
            speed.write(arguments.output, rows, threads=arguments.threads)
        return
    if arguments.clip is None:
        clip = next(iter(lattice.triplets(1, split="test", seed=0, per_group=1))).content
    else:
        clip = audio.read_audio(arguments.clip)
    config = cfg.AudioConfig()
    speed.set_threads(arguments.threads)
    print(f"threads of torch, BLAS and numba each: {arguments.threads}\n{speed.HEADER}")
    clip = np.resize(clip, round(arguments.seconds * config.sample_rate))
    rows = speed.run(clip, config, repeats=arguments.repeats, grow=arguments.grow)
    if arguments.output is not None:
        speed.write(arguments.output, rows, threads=arguments.threads)
    if arguments.store:
        speed.store(rows, threads=arguments.threads)


def _benchmark(arguments) -> None:
    from . import config as cfg
    from .evaluation import benchmark

    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    made = _tables_of_files if arguments.table is not None else _tables_of_methods
    tables = made(arguments, config, device)
    for split, table in tables.items():
        print(f"{split}\n{benchmark.describe(table)}\n")
    if arguments.output is not None:
        facts = {"profile": arguments.profile, "seed": arguments.seed, "device": device}
        facts["peer_iterations"] = cfg.profile(arguments.profile).peer_iterations
        benchmark.write(arguments.output, tables, facts)


def _tables_of_files(arguments, config, device: str) -> dict:
    from .evaluation import benchmark, judges

    items, outputs = benchmark.from_csv(arguments.table, config)
    panel = judges.load(config, device)
    pairs = zip(outputs, items, strict=True)
    return {"files": {"output": [benchmark.score(y, item, panel, config) for y, item in pairs]}}


def _tables_of_methods(arguments, config, device: str) -> dict:
    from . import config as cfg
    from . import corpora, paths, transfer
    from .evaluation import benchmark
    from .training import judges

    profile, name = cfg.profile(arguments.profile), corpora.resolve(arguments.corpus)
    models = {"attention network": transfer.load_model(device=device)}
    models |= {
        p.stem: transfer.load_model(p, config=config, device=device) for p in arguments.models
    }
    named = benchmark.methods(models, config, device=device)
    for stage, vocoder in benchmark.STAGES.items():
        named[f"attention network, for recordings{stage}"] = benchmark.as_method(
            models["attention network"], vocoder=vocoder, device=device, **transfer.FOR_RECORDINGS
        )
    named |= benchmark.slow_peers(config, iterations=profile.peer_iterations, device=device)
    named = benchmark.chosen(named, arguments.methods)  # before any work
    corpus = corpora.open_corpus(name, profile=profile, seed=arguments.seed)
    checkpoints = paths.runs() / f"{profile.name}-{name}" / "checkpoints"
    panel = judges.for_corpus(
        corpus, steps=profile.judge_steps, seconds=profile.clip_seconds, config=config,
        path=checkpoints / "judge_genre.safetensors", device=device,
    )  # fmt: skip
    settings = {"n_groups": profile.test_groups, "config": config, "seed": arguments.seed}
    return {
        split: benchmark.run(
            items, named, panel, config, slow_items=profile.peer_items,
            progress=lambda text, split=split: print(f"{split}: {text}", file=sys.stderr),
        )
        for split, items in benchmark.items(corpus, **settings).items()
    }  # fmt: skip


def _pretrain_judges(arguments) -> None:
    from .paths import PRETRAINED

    folder = _destination(arguments, PRETRAINED)
    if not folder.parent.is_dir() or folder.is_file():
        raise ValueError(f"{folder}: needs to be a folder, in one that is there")
    folder.mkdir(exist_ok=True)
    from . import bands
    from . import config as cfg
    from .bands import lattice
    from .evaluation.judges import GENRE_MODEL, TIMBRE_MODELS
    from .models import checkpoint
    from .training import judges

    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    cfg.set_deterministic(arguments.seed)
    settings = {"config": config, "seed": arguments.seed, "device": device}
    soundfonts = _prepared(arguments.soundfont)
    log_mels, genres = lattice.render_log_mels(
        arguments.groups, split="train", soundfonts=soundfonts,
        progress=_progress("groups rendered"), **settings,
    )  # fmt: skip
    names = ", ".join(soundfont.name for soundfont in soundfonts) or "default"
    settings["corpus"] = f"bands {bands.corpus.VERSION}, {arguments.groups} groups, {names}"
    settings["steps"] = arguments.steps
    for centred, shipped in TIMBRE_MODELS.items():
        output = folder / shipped.name
        training = output.with_suffix(".training.safetensors")
        judges.train_timbre(log_mels, centred=centred, path=training, **settings)
        checkpoint.store_pretrained(training, output, command=arguments.command)
    output = folder / GENRE_MODEL.name
    training = output.with_suffix(".training.safetensors")
    judges.train_genre(*judges.labelled(log_mels, genres), path=training, **settings)
    checkpoint.store_pretrained(training, output, command=arguments.command)


def _recordings(name: str | None, config, device: str):
    """Log-mels of 15 s of the training tracks of a corpus, or None without a name."""
    from . import config as cfg
    from . import corpora
    from .training import judges

    if name is None:
        return None
    corpus = corpora.open_corpus(name, profile=cfg.profile("quick"), seed=0)
    return judges.labelled_log_mels(corpus.split("train"), seconds=15.0, config=config)[0].to(
        device
    )


def _pretrain_transfer(arguments) -> None:
    from . import config as cfg
    from . import transfer
    from .bands import lattice, shards
    from .models import checkpoint
    from .training import recombination

    output = _model_file(arguments, transfer.DEFAULT_MODEL)
    soundfonts = _prepared(arguments.soundfont)
    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    cfg.set_deterministic(arguments.seed)
    recordings = _recordings(arguments.recordings, config, device)
    rendering = {"seed": arguments.seed, "config": config, "device": device}
    valid, _ = lattice.render_log_mels(12, split="valid", **rendering)
    if arguments.pairs is None:
        log_mels, _ = lattice.render_log_mels(
            arguments.groups, split="train", soundfonts=soundfonts,
            progress=_progress("groups rendered"), **rendering,
        )  # fmt: skip
    else:
        log_mels = shards.read_pairs(
            arguments.pairs, n_groups=arguments.groups, split="train", soundfonts=soundfonts,
            **rendering,
        )  # fmt: skip
    training = output.with_suffix(".training.safetensors")
    settings = {"config": config, "valid": valid, "seed": arguments.seed, "device": device}
    settings |= {"batch_size": arguments.batch_size, "recordings": recordings}
    model, _ = recombination.train_gain_transfer(
        log_mels, steps=arguments.steps, path=training, channels=arguments.channels,
        heads=arguments.channels // 64, conditioning=arguments.conditioning, **settings,
    )  # fmt: skip
    checkpoint.store_pretrained(training, output, command=arguments.command)
    if not arguments.adversarial_steps:
        return
    sizes = checkpoint.read_header(training)["model"]
    first, training = training, training.with_suffix(".2.safetensors")
    recombination.train_adversarially(
        model, log_mels, steps=arguments.adversarial_steps, path=training, arguments=sizes,
        **settings,
    )  # fmt: skip
    checkpoint.store_pretrained(
        training, output, command=arguments.command, part="generator", before=first
    )


def _pretrain_vocoder(arguments) -> None:
    from . import config as cfg
    from . import corpora, vocoding
    from .models import checkpoint
    from .training import vocoders

    output = _model_file(arguments, vocoding.DEFAULT_MODEL)
    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    profile = cfg.profile(arguments.profile)
    cfg.set_deterministic(arguments.seed)
    corpus = corpora.open_corpus("bands", profile=profile, progress=_progress("rendered"))
    settings = {"config": config, "seconds": profile.clip_seconds}
    train = vocoders.load_pcm(corpus.split("train"), **settings, progress=_progress("read"))
    training = output.with_suffix(".training.safetensors")
    vocoders.train_magnitude(
        train, vocoders.load_pcm(corpus.split("valid"), **settings),
        steps=arguments.steps, path=training, config=config, corpus_sha256=corpus.sha256,
        seed=arguments.seed, device=device,
    )  # fmt: skip
    checkpoint.store_pretrained(training, output, command=arguments.command)


if __name__ == "__main__":
    sys.exit(main())
