"""The command line: ``audiostyle transfer``, ``data``, ``reproduce``, ``benchmark``, and more."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path

from . import console
from .config import choose_device
from .errors import InputError

INTERRUPTED, CLOSED_PIPE = 130, 141  # as a shell counts SIGINT and SIGPIPE
MAX_SEED = 2**31 - 1  # numpy takes 32 bits, and a course of several seeds counts on from it
CHECK_CODES = """The exit code is 0 where nothing is wrong or all is dealt with: files that nobody
can use are left out, short ones are padded, copies of a sound are kept in one split. It is 1 where
you have to decide: one sound under two genres, or on two sides of a manifest's split; one name for
two files, or that of another genre; music that is not read because of its place, its format or the
spelling of its genre; a manifest that knows only some of the files; nothing usable. It is 2 where
there are no genre folders."""
VOCODERS = ("gain", "content_phase", "griffin_lim", "pghi", "neural")  # vocode imports torch


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 done in part, 2 bad input.

    What the user can mend is one line: an `InputError`, and what the system says of a file or of memory.
    Any other exception is a mistake of the program and goes on as a traceback.
    """
    console.prepare_streams()
    try:
        return _run(argv)
    finally:
        if argv is None:  # what is left is Python's own end, which Ctrl-C would turn into a failure
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(argv: list[str] | None) -> int:
    try:
        try:
            with console.notes():
                arguments = _parser().parse_args(argv)
                words = sys.argv[1:] if argv is None else argv
                arguments.command = shlex.join(["audiostyle", *words])
                return arguments.run(arguments) or 0
        finally:
            console.flush()
    except BrokenPipeError:
        return CLOSED_PIPE  # whoever read the output has seen enough, as of `audiostyle ... | head`
    except (InputError, OSError) as error:
        return console.refused(console.reason(error))
    except MemoryError:
        return console.refused("out of memory")
    except KeyboardInterrupt:
        print("audiostyle: interrupted", file=sys.stderr)
        return INTERRUPTED


_share = console.number(float, 0, 1)
_seed = console.number(int, 0, MAX_SEED)
_count = console.number(int, 1, 1_000_000)


def _device(text: str) -> str:
    """A device that is there, or "auto", which a command resolves when it imports torch anyway."""
    try:
        return text if text == "auto" else choose_device(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_soundfonts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--soundfont", type=Path, action="append", default=[], metavar="FILE",
        help="General MIDI SoundFont whose instruments play too; repeat for several",
    )  # fmt: skip


def _shard(text: str) -> tuple[int, int]:
    """Part 3 of 16 from "3/16"."""
    index, _, count = text.partition("/")
    numbers = index.isdecimal() and count.isdecimal() and len(count) <= 5  # as in names of parts
    if not (numbers and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} is no part such as 1/16 to 16/16")
    return int(index), int(count)


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="quick", help="how many clips a genre, and how long")
    parser.add_argument("--seed", type=_seed, default=0)


def _add_destination(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-o", "--output", type=Path, help=f"{what} to write")
    parser.add_argument(
        "--ship", action="store_true", help="overwrite the weights that come with the library"
    )


def _destination(arguments, shipped: Path) -> Path:
    """What `pretrain` writes: -o, or with --ship the shipped file or folder."""
    if (arguments.output is None) != arguments.ship:
        raise InputError("pretrain needs either -o, or --ship to overwrite the shipped weights")
    if arguments.ship:
        return shipped
    from .paths import PRETRAINED, expanded

    output = expanded(arguments.output)
    if PRETRAINED in (output, *output.parents):
        raise InputError(f"{output}: there lie the shipped weights, which only --ship overwrites")
    return output


def _model_file(arguments, shipped: Path) -> Path:
    from .paths import check_writable

    output = _destination(arguments, shipped)
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: the file name must end in .safetensors")
    return check_writable(output)


def _prepared(soundfonts: list[Path]) -> list[Path]:
    for file in soundfonts:
        if not (file.is_file() or file.is_dir()):
            raise InputError(f"no SoundFont at {file}")
    from .bands import instruments

    return [instruments.prepare(file) for file in soundfonts]


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(prog="audiostyle", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    p = commands.add_parser("transfer", help="CONTENT's notes in the sound of STYLE")
    p.add_argument("content", type=Path, help="audio file whose notes are kept")
    p.add_argument("style", type=Path, help="audio file whose sound is wanted")
    p.add_argument(
        "-o", "--output", type=Path, required=True,
        help="file to write; its ending decides the format, such as wav, flac, ogg or mp3. 24 bits "
        "and floats stay so where the format has them",
    )  # fmt: skip
    p.add_argument(
        "--method", default="learned", choices=("learned", "ltas_eq"),
        help="the pretrained network (default), or an equaliser that matches the average spectrum",
    )  # fmt: skip
    p.add_argument(
        "--vocoder", default="gain", choices=VOCODERS,
        help="gain (default) changes the levels in CONTENT's own spectrogram and keeps its channels "
        "and sample rate; the others make mono at 22050 Hz: content_phase keeps CONTENT's phases, "
        "the rest make a new waveform from the predicted log-mel",
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
    p.add_argument("--overwrite", action="store_true", help="let OUTPUT replace CONTENT or STYLE")
    p.add_argument("--device", type=_device, default="auto", help="cpu, cuda, or auto (default)")
    p.set_defaults(run=_transfer)

    p = commands.add_parser("data", help="render bands or pairs, look for gtzan, or check a folder")
    kinds = p.add_subparsers(required=True, metavar="WHAT")
    m = kinds.add_parser("bands", help="render the embedded corpus of a profile")
    _add_size(m)
    m.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="one of N parts")
    m.set_defaults(run=_data_bands)
    m = kinds.add_parser("gtzan", help="read GTZAN where it is")
    _add_size(m)
    m.set_defaults(run=_data_gtzan)
    m = kinds.add_parser(
        "check", help="what is in a folder and what is wrong with it", epilog=CHECK_CODES
    )
    m.add_argument("folder", type=Path, help="holds the genre folders, itself or in genres/")
    m.add_argument("--json", action="store_true", help="every track and fault, for programs")
    m.set_defaults(run=_data_check)
    m = kinds.add_parser("pairs", help="render the pairs that `pretrain transfer --pairs` reads")
    m.add_argument("folder", type=Path, help="to write to")
    m.add_argument("--seed", type=_seed, default=0)
    m.add_argument("--shard", type=_shard, default=(1, 1), metavar="I/N", help="one of N parts")
    m.add_argument("--groups", type=_count, default=600, help="of 16 pairs, in all parts")
    m.add_argument("--split", default="train", choices=("train", "valid", "test"))
    _add_soundfonts(m)
    m.set_defaults(run=_data_pairs)

    p = commands.add_parser("reproduce", help="run the notebooks that are not up to date")
    p.add_argument("--profile", default="quick")
    p.add_argument("--corpus", default="auto", choices=("auto", "bands", "gtzan"))
    p.add_argument("--seed", type=_seed, default=0)
    p.add_argument("--device", type=_device, default="auto")
    p.add_argument("--only", nargs="+", metavar="NN", help="these notebooks and what they need")
    p.add_argument("--cores", type=console.number(int, 1, 1024), default=os.cpu_count() or 1)
    p.add_argument(
        "--store", action="store_true",
        help="make the run the reference: figures/<profile>-<corpus>, notebooks/ and the README's table",
    )  # fmt: skip
    p.add_argument(
        "--rehearse", type=console.number(int, 2, 1_000_000), metavar="STEPS",
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
        "--seconds", type=console.number(float, 0.5, 600), default=30.0,
        help="the clip is repeated or cut to that",
    )  # fmt: skip
    p.add_argument("--repeats", type=console.number(int, 1, 1000), default=3)
    p.add_argument(
        "--threads", type=console.number(int, 1, 1024), default=1, help="of torch, BLAS and numba"
    )
    p.add_argument("--grow", action="store_true", help="also 10 and 100 clips, and up to an hour")
    p.add_argument("-o", "--output", type=Path, help="JSON file to write")
    p.add_argument(
        "--store", action="store_true", help="write figures/speed.json and README's table"
    )
    p.add_argument(
        "--device", type=_device, default="cpu", help="cuda: large batches on the GPU, instead"
    )
    p.set_defaults(run=_bench)

    p = commands.add_parser("benchmark", help="methods side by side on held-out triplets")
    p.add_argument("--profile", default="quick", help="how many items")
    p.add_argument("--corpus", default="auto", choices=("auto", "bands", "gtzan"), help="of pairs")
    p.add_argument("--methods", nargs="+", metavar="NAME", help="only these, e.g. 'LTAS-EQ'")
    p.add_argument(
        "--model", type=Path, nargs="+", default=[], metavar="FILE", dest="models",
        help="weights of `pretrain transfer -o` to score beside the pretrained ones",
    )  # fmt: skip
    p.add_argument(
        "--table", type=Path, metavar="CSV",
        help="score files instead: one row each, with the columns content, style, output and, where it "
        "is known, truth; paths are relative to the table",
    )  # fmt: skip
    p.add_argument("-o", "--output", type=Path, help="benchmark.json to write")
    p.add_argument("--seed", type=_seed, default=0)
    p.add_argument("--device", type=_device, default="auto")
    p.set_defaults(run=_benchmark)

    p = commands.add_parser("pretrain", help="train the models that transfer uses, on bands only")
    models = p.add_subparsers(required=True, metavar="MODEL")
    m = models.add_parser("transfer", help="the recombination")
    m.add_argument("--groups", type=_count, default=240, help="of 16 paired renderings")
    m.add_argument("--steps", type=_count, default=1500, help="of regression")
    m.add_argument(
        "--adversarial-steps", type=console.number(int, 0, 1_000_000), default=0,
        help="then, from its weights, against a discriminator",
    )  # fmt: skip
    m.add_argument("--batch-size", type=_count, default=16)
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
    m.add_argument("--seed", type=_seed, default=1)
    m.add_argument("--device", type=_device, default="auto")
    m.set_defaults(run=_pretrain_transfer)
    m = models.add_parser("judges", help="the genre and timbre judges of the benchmark")
    m.add_argument("--groups", type=_count, default=240, help="of 16 paired renderings")
    m.add_argument("--steps", type=_count, default=1_000)
    _add_destination(m, "folder of three .safetensors")
    _add_soundfonts(m)
    m.add_argument("--seed", type=_seed, default=2)
    m.add_argument("--device", type=_device, default="auto")
    m.set_defaults(run=_pretrain_judges)
    m = models.add_parser("vocoder", help="log-mel to magnitudes")
    m.add_argument("--profile", default="long", help="whose corpus it hears")
    m.add_argument("--steps", type=_count, default=8_000)
    _add_destination(m, "a .safetensors")
    m.add_argument("--seed", type=_seed, default=0)
    m.add_argument("--device", type=_device, default="auto")
    m.set_defaults(run=_pretrain_vocoder)
    return parser


def _transfer(arguments) -> None:
    from .signal import audio

    options = {"calibration": arguments.calibration, "variance": arguments.variance}
    corrections = {name: value for name, value in options.items() if value is not None}
    if corrections and arguments.method != "learned":
        raise InputError(f"--{next(iter(corrections))} is a correction of --method learned only")
    output = audio.check_writable(arguments.output)
    _keep_inputs(arguments)
    with audio.open_recording(arguments.content) as content:
        audio.require_sound(content)
        style = audio.read_audio(arguments.style)
        if arguments.vocoder == "gain":  # before the gains are predicted
            sizes = {"sample_rate": content.sample_rate, "n_channels": content.n_channels}
            audio.output_settings(output, **sizes)
        result = _transferred(arguments, content, style, corrections)
        is_long = content.seconds > 60
        result.write(output, console.progress("block rendered, %") if is_long else None)
    if result.quieter_db >= 0.1:
        console.note(
            f"{output}: {result.quieter_db:.1f} dB quieter than {arguments.content}, to keep peaks "
            "below full scale"
        )
    seconds = result.n_samples / result.sample_rate
    channels = "mono" if result.n_channels == 1 else f"{result.n_channels} channels"
    print(f"{output}: {seconds:.2f} s, {channels}, {result.sample_rate} Hz")


def _transferred(arguments, content, style, corrections: dict):
    # Only now, so that bad input is refused in a moment: torch takes seconds to import.
    from . import config as cfg
    from . import transfer

    config, device = cfg.AudioConfig(), cfg.choose_device(arguments.device)
    if arguments.vocoder != "gain" and (content.n_channels, content.sample_rate) != (
        1, config.sample_rate,
    ):  # fmt: skip
        console.note(
            f"{arguments.vocoder} makes mono at {config.sample_rate} Hz; gain would keep "
            f"{content.n_channels} channels at {content.sample_rate} Hz"
        )
    method = transfer.ltas_eq
    if arguments.method == "learned":
        method = transfer.learned(transfer.load_model(device=device), **corrections)
    return transfer.transfer_recording(
        content,
        style,
        method=method,
        strength=arguments.strength,
        vocoder=arguments.vocoder,
        config=config,
        device=device,
        progress=console.progress("block") if content.seconds > 60 else None,
    )


def _keep_inputs(arguments) -> None:
    """Refuse to write over an input, unless that was asked for."""
    output = arguments.output
    if arguments.overwrite or not output.exists():
        return
    for path in (arguments.content, arguments.style):
        if os.path.exists(path) and path.samefile(output):  # noqa: PTH110, False for any bad name
            raise InputError(f"{output}: is an input; with --overwrite the result replaces it")


def _data_bands(arguments) -> None:
    from . import bands, corpora
    from . import config as cfg

    profile = cfg.profile(arguments.profile)
    if arguments.shard == (1, 1):
        _describe_corpus("bands", arguments)
        return
    bands.write_corpus(
        corpora.bands_folder(profile, seed=arguments.seed), clips_per_genre=profile.clips_per_genre,
        seconds=profile.clip_seconds, seed=arguments.seed, shard=arguments.shard,
        progress=console.progress("rendered"),
    )  # fmt: skip


def _data_gtzan(arguments) -> None:
    _describe_corpus("gtzan", arguments)


def _describe_corpus(name: str, arguments) -> None:
    from . import config as cfg
    from . import corpora

    profile = cfg.profile(arguments.profile)
    settings = {
        "profile": profile,
        "seed": arguments.seed,
        "progress": console.progress("rendered"),
    }
    print(corpora.describe(corpora.open_corpus(name, **settings)))


def _data_check(arguments) -> int:
    from . import corpora

    corpus = corpora.check(
        arguments.folder,
        name=arguments.folder.absolute().name,
        progress=console.progress("read") if sys.stderr.isatty() else None,
    )
    print(corpora.to_json(corpus) if arguments.json else corpora.describe(corpus))
    return int(any(fault.wrong for fault in corpus.faults))


def _data_pairs(arguments) -> None:
    from . import config as cfg
    from .bands import shards

    written = shards.write_pairs(
        arguments.folder, n_groups=arguments.groups, shard=arguments.shard, split=arguments.split,
        seed=arguments.seed, config=cfg.AudioConfig(), soundfonts=_prepared(arguments.soundfont),
        progress=console.progress("groups rendered"),
    )  # fmt: skip
    print(written)


def _reproduce(arguments) -> int:
    from . import config as cfg
    from . import corpora, paths
    from .course import compare, pipeline

    paths.require_checkout("reproduce")
    if not os.access(paths.ROOT, os.W_OK):
        raise InputError(f"{paths.ROOT}: reproduce keeps its records here, and it is not writable")
    for place in (paths.ROOT, paths.data(), paths.runs()):
        if set("{}") & set(str(place)):
            raise InputError(
                f"{place}: reproduce takes no braces in a path, which mean more to snakemake"
            )
    cfg.profile(arguments.profile)
    corpus = corpora.resolve(arguments.corpus)
    if arguments.rehearse:
        if arguments.store:
            raise InputError("a rehearsal is no run to --store")
        os.environ["AUDIOSTYLE_REHEARSE"] = str(arguments.rehearse)
        os.environ["AUDIOSTYLE_FIGURES"] = str(paths.runs() / "rehearsal")
    code = pipeline.reproduce(
        profile=arguments.profile, corpus=corpus, seed=arguments.seed,
        device=arguments.device, cores=arguments.cores, only=arguments.only,
    )  # fmt: skip
    folder = paths.runs() / f"{arguments.profile}-{corpus}"
    if code:
        console.complain(f"not every notebook ran; those that did are in {folder / 'notebooks'}")
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
    from . import paths
    from .signal import audio

    if arguments.device != "cpu" and (arguments.store or arguments.grow or arguments.clip):
        raise InputError(
            "a clip, --grow and --store are for the CPU: with --device write to -o FILE"
        )
    if arguments.output is not None:
        paths.check_writable(arguments.output)
    if arguments.store:
        paths.require_checkout("bench --store")
    clip = None if arguments.clip is None else audio.read_audio(arguments.clip)
    from .bands import lattice  # only now: torch takes seconds to import
    from .course import speed

    if arguments.device != "cpu":
        rows = speed.run_on(arguments.device, cfg.AudioConfig(), repeats=arguments.repeats)
        if arguments.output is not None:
            speed.write(arguments.output, rows, threads=arguments.threads)
        return
    if clip is None:
        clip = next(iter(lattice.triplets(1, split="test", seed=0, per_group=1))).content
    config = cfg.AudioConfig()
    speed.set_threads(arguments.threads)
    print(f"threads of torch, BLAS and numba each: {arguments.threads}\n{speed.HEADER}")
    clip = np.resize(clip, round(arguments.seconds * config.sample_rate))
    rows = speed.run(clip, config, repeats=arguments.repeats, grow=arguments.grow)
    if arguments.output is not None:
        speed.write(arguments.output, rows, threads=arguments.threads)
    if arguments.store:
        speed.store(rows, threads=arguments.threads)


def _benchmark(arguments) -> int:
    from . import config as cfg
    from . import paths

    facts = {"profile": arguments.profile, "seed": arguments.seed}
    facts["peer_iterations"] = cfg.profile(arguments.profile).peer_iterations
    if arguments.output is not None:
        paths.check_writable(arguments.output)
    from .evaluation import benchmark  # only now: torch takes seconds to import

    config, device = cfg.AudioConfig(), choose_device(arguments.device)
    facts["device"] = device
    tables, code = {}, 0
    try:
        if arguments.table is not None:
            code = _score_files(arguments.table, config, device, tables, facts)
        else:
            for split, table in _tables_of_methods(arguments, config, device):
                tables[split] = table
    finally:  # also what was scored before an interruption
        if tables and arguments.output is not None:
            benchmark.write(arguments.output, tables, facts)
    for split, table in tables.items():  # last, as printing can fail
        print(f"{split}\n{benchmark.describe(table)}\n")
    return code


def _score_files(path: Path, config, device: str, tables: dict, facts: dict) -> int:
    """Score the rows of a table of files one by one, into `tables`, and return the exit code.

    A row that cannot be scored is said on stderr. `facts` gets the line of each item, and the lines that
    failed with their reasons.
    """
    from .evaluation import benchmark, judges
    from .evaluation.tables import read_rows

    rows = read_rows(path)
    panel = judges.load(config, device)
    progress = console.progress("rows scored") if len(rows) > 10 else None
    scored, failed, lines, first = [], [], [], {}
    facts |= {"table": str(path), "lines": lines, "failed": failed}
    for done, row in enumerate(rows, start=1):
        try:
            item, output = benchmark.read_files(row, config)
            scored.append(benchmark.score(output, item, panel, config))
        except (InputError, OSError) as error:
            reason = console.reason(error)
            failed.append({"line": row.line, "reason": reason})
            console.complain(f"{row}: {reason}")
        else:
            tables["files"] = {"output": scored}
            lines.append(row.line)
            same = first.setdefault(tuple(row.cells.values()), row.line)
            if same != row.line:
                console.complain(f"{row}: the same files as in line {same}, which count twice")
        if progress is not None:
            progress(done, len(rows))
    if not scored:
        return console.USAGE_ERROR
    return 1 if failed else 0


def _tables_of_methods(arguments, config, device: str):
    """Yield the name and the table of each split, when it is done."""
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
    for split, items in benchmark.items(corpus, **settings).items():
        yield split, benchmark.run(
            items, named, panel, config, slow_items=profile.peer_items,
            progress=lambda text, split=split: print(f"{split}: {text}", file=sys.stderr),
        )  # fmt: skip


def _pretrain_judges(arguments) -> None:
    from .paths import PRETRAINED

    folder = _destination(arguments, PRETRAINED)
    if not folder.parent.is_dir() or folder.is_file():
        raise InputError(f"{folder}: needs to be a folder, in one that is there")
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
        progress=console.progress("groups rendered"), **settings,
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
    if arguments.pairs is None:
        log_mels, _ = lattice.render_log_mels(
            arguments.groups, split="train", soundfonts=soundfonts,
            progress=console.progress("groups rendered"), **rendering,
        )  # fmt: skip
    else:
        log_mels = shards.read_pairs(
            arguments.pairs, n_groups=arguments.groups, split="train", soundfonts=soundfonts,
            **rendering,
        )  # fmt: skip
    valid, _ = lattice.render_log_mels(12, split="valid", **rendering)
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
    corpus = corpora.open_corpus("bands", profile=profile, progress=console.progress("rendered"))
    settings = {"config": config, "seconds": profile.clip_seconds}
    train = vocoders.load_pcm(corpus.split("train"), **settings, progress=console.progress("read"))
    training = output.with_suffix(".training.safetensors")
    vocoders.train_magnitude(
        train, vocoders.load_pcm(corpus.split("valid"), **settings),
        steps=arguments.steps, path=training, config=config, corpus_sha256=corpus.sha256,
        seed=arguments.seed, device=device,
    )  # fmt: skip
    checkpoint.store_pretrained(training, output, command=arguments.command)


if __name__ == "__main__":
    sys.exit(main())
