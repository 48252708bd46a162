"""What a user can mend is one line and exit code 2; our own mistakes are a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from audiostyle_lib import corpora, paths, transfer
from audiostyle_lib.__main__ import main
from audiostyle_lib.course import compare, pipeline
from audiostyle_lib.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "figures" / "quick-bands"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands run in an empty folder, with their data in another."""
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path / "runs"))
    monkeypatch.delenv("AUDIOSTYLE_GTZAN", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    t = np.arange(22_050) / 22_050
    sf.write("tone.flac", 0.1 * np.sin(2 * np.pi * 330 * t), 22_050)


@pytest.fixture
def refused(capsys):
    """Run a command that has to be refused, and return its line."""

    def run(*arguments: str) -> str:
        try:
            code = main(list(arguments))
        except SystemExit as error:  # of the parser
            code = error.code
        printed, complained = capsys.readouterr()
        assert (code, printed) == (2, ""), complained
        (line,) = complained.splitlines()
        assert line.startswith("audiostyle: ") and line.isprintable()
        return line

    return run


TRANSFER = ("transfer", "tone.flac", "tone.flac", "-o", "out.wav")
WITH_DEVICE = (
    TRANSFER, ("reproduce",), ("bench",), ("benchmark",), ("pretrain", "transfer", "-o", "a.safetensors"),
    ("pretrain", "judges", "-o", "judges"), ("pretrain", "vocoder", "-o", "a.safetensors"),
)  # fmt: skip


@pytest.mark.parametrize("command", WITH_DEVICE, ids=lambda c: " ".join(c[:2]))
def test_every_command_with_a_device_says_which_there_are(refused, monkeypatch, command):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("opencl", "cuda:one", "Cpu"):
        assert "choose auto, cpu, cuda or cuda:N" in refused(*command, "--device", device)
    assert "there are auto, cpu, cuda:0" in refused(*command, "--device", "cuda:4")
    assert [p.name for p in Path().iterdir()] == ["tone.flac"]


def test_the_library_refuses_a_device_too():
    with pytest.raises(InputError, match="no device 'xpu'"):
        transfer.load_model(device="xpu")


@pytest.mark.parametrize(
    ("command", "option", "values"),
    [
        (("bench",), "--seconds", ("-inf", "1e300", "0.1", "one")),
        (("bench",), "--repeats", ("0", "1" * 20, "2.5")),
        (("bench",), "--threads", ("0", "-4", "1e3")),
        (("data", "bands"), "--seed", ("-7", "2147483648", "0x10")),
        (("data", "pairs", "p"), "--groups", ("0", "1" * 30, "nan")),
        (("data", "pairs", "p"), "--shard", ("5/4", "1/1000000", "1/-2", "two/3")),
        (("reproduce",), "--cores", ("0", "-1", "1000000000", "all")),
        (("reproduce",), "--rehearse", ("1", "inf")),
        (("pretrain", "transfer", "-o", "a.safetensors"), "--steps", ("0", "1" * 30, "1e4")),
        (("pretrain", "transfer", "-o", "a.safetensors"), "--batch-size", ("0", "many")),
        (TRANSFER, "--strength", ("inf", "-0.1", "half", "")),
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused_by_the_options_name(
    refused, command, option, values
):
    for value in values:
        assert f"argument {option}: " in refused(*command, f"{option}={value}")


@pytest.mark.parametrize(
    "command",
    [(), ("dance",), ("transfer",), ("transfer", "--loud"), (*TRANSFER, "a\nb"), ("data", "polka")],
)  # fmt: skip
def test_the_parsers_refusals_are_one_line_that_leads_to_help(refused, command):
    assert "--help lists the options)" in refused(*command)


@pytest.mark.parametrize("output", [".", "/dev/null", "no/such/place", "tone.flac/inside", "pipe"])
def test_an_output_that_cannot_be_is_refused_before_the_work(refused, output, monkeypatch):
    os.mkfifo("pipe")
    monkeypatch.setattr(corpora, "open_corpus", pytest.fail)
    suffixed = output if output in (".", "/dev/null", "pipe") else f"{output}.json"
    for command in ("bench", "benchmark"):
        assert suffixed in refused(command, "-o", suffixed)
    assert refused("pretrain", "vocoder", "-o", output)
    assert refused("pretrain", "transfer", "-o", f"{output}/a.safetensors".replace("./", "no/"))
    assert sorted(p.name for p in Path().iterdir()) == ["pipe", "tone.flac"]
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("place", ["tone.flac", "nowhere", "empty", "pipe", "n" * 280])
def test_a_file_where_a_folder_belongs_and_the_like(refused, place):
    Path("empty").mkdir()
    os.mkfifo("pipe")
    commands = [("data", "check"), ("compare",), ("report",), ("compare", str(REFERENCE))]
    commands += [("pretrain", "transfer", "-o", "a.safetensors", "--pairs")]
    for command in commands:
        refused(*command, place)
    if place not in ("tone.flac", "pipe"):
        refused("bench", place)
        refused("pretrain", "judges", "-o", f"{place}/judges".replace("empty", "tone.flac"))
    refused("pretrain", "transfer", "-o", "a.safetensors", "--soundfont", place)
    refused("benchmark", "--model", place)


@pytest.mark.parametrize(
    "command",
    [("compare", "loop"), ("compare", str(REFERENCE), "loop"), ("report", "loop"),
     ("data", "check", "loop"),
     ("bench", "loop"), ("transfer", "loop", "tone.flac", "-o", "a.wav")],
)  # fmt: skip
def test_a_link_that_leads_to_itself_is_refused(refused, command):
    Path("loop").symlink_to("loop")
    assert "loop" in refused(*command)


def test_a_damaged_soundfont_is_refused(refused):
    Path("cut.sf2").write_bytes(b"RIFF\x40\0\0\0sfbk" + bytes(200))
    assert "cut.sf2: a damaged SoundFont" in refused(
        "pretrain", "transfer", "-o", "a.safetensors", "--soundfont", "cut.sf2"
    )


@pytest.mark.parametrize(
    "name", ["train-aaaaa-of-bbbbb", "train-00001-of-99999", "train-00001-of-00001"]
)
def test_parts_of_pairs_of_others_are_refused_before_anything_is_rendered(
    refused, name, monkeypatch
):
    monkeypatch.setattr("audiostyle_lib.bands.lattice.render_log_mels", pytest.fail)
    Path(f"{name}.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused("pretrain", "transfer", "-o", "a.safetensors", "--pairs", ".")


def test_names_are_shown_whatever_they_hold(refused):
    odd = os.fsdecode(b"caf\xe9\n\x1b[31m.wav")
    line = refused("transfer", odd, "tone.flac", "-o", "out.wav")
    assert r"caf\udce9\n\x1b[31m.wav: no such file" in line


FOREIGN = {
    "cut": "{", "list": "[]", "nothing": "", "deep": "[" * 50_000, "latin": b"\xe9",
    "other": '{"loss": 1}', "types": '{"metrics": 5, "provenance": []}',
    "no metric": '{"metrics": [{"name": "a"}], "provenance": {}}',
    "no notebook": json.dumps({"metrics": [{}], "provenance": {"n": None}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_metrics_of_others_are_refused_by_the_files_name(refused, kind):
    Path("run/metrics").mkdir(parents=True)
    text = FOREIGN[kind]
    for file in ("run/metrics.json", "run/metrics/02_features.json"):
        Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
        for command in (("compare", "run"), ("report", "run"), ("compare", str(REFERENCE), "run")):
            assert file in refused(*command)
    assert not Path("run/report.md").exists()


@pytest.mark.parametrize(
    "spoilt",
    [{"value": "0.9"}, {"value": None}, {"n": None}, {"trivial": [1]}, {"notebook": "99"}, {"unit": 1}],
    ids=str,
)  # fmt: skip
def test_a_metric_with_a_field_of_another_type_is_refused(refused, spoilt):
    Path("run").mkdir()
    content = json.loads((REFERENCE / "metrics.json").read_text())
    content["metrics"][3] |= spoilt
    Path("run/metrics.json").write_text(json.dumps(content))
    assert "run/metrics.json: entry 4 is no metric" in refused("report", "run")


@pytest.mark.parametrize(
    "value", ["/no/such/folder", "tone.flac", "~nobody-of-that-name/x", "n" * 300]
)
def test_a_gtzan_that_is_none_is_named(refused, monkeypatch, value):
    monkeypatch.setenv("AUDIOSTYLE_GTZAN", value)
    for command in (("data", "gtzan"), ("benchmark", "--profile", "smoke"), ("reproduce",)):
        assert value[:20] in refused(*command)


def test_a_rehearsal_of_nonsense_in_the_environment_is_named(refused, monkeypatch):
    monkeypatch.setenv("AUDIOSTYLE_REHEARSE", "twenty")
    for command in (("reproduce",), ("benchmark",), ("data", "bands")):
        assert "AUDIOSTYLE_REHEARSE" in refused(*command)


def test_reproduce_says_which_paths_snakemake_does_not_take(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "reproduce", pytest.fail)
    monkeypatch.setenv("AUDIOSTYLE_FIGURES", str(tmp_path / "a{b}"))
    assert "braces" in refused("reproduce", "--corpus", "bands")


def test_an_installed_package_says_that_it_has_no_notebooks(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for command in (("reproduce",), ("bench", "--store")):
        assert "needs the notebooks" in refused(*command)


# What is whose fault ---------------------------------------------------------------------------


def run_of(error: BaseException, monkeypatch) -> int:
    def fail(*_):
        raise error

    monkeypatch.setattr(compare, "compare_folders", fail)
    return main(["compare", "x"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a b.wav"), "a b.wav: no such file"),
        (PermissionError(errno.EACCES, "Denied", b"/root/\xff"), r"/root/\udcff: denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "x: file name too long"),
        (MemoryError(), "out of memory"),
        (InputError("two\nlines"), r"two\nlines"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, BaseException) else "",
)  # fmt: skip
def test_what_the_system_says_is_one_line(monkeypatch, capsys, error, line):
    assert run_of(error, monkeypatch) == 2
    complained = capsys.readouterr().err
    assert complained.startswith("audiostyle: ") and complained.endswith(f"{line}\n")
    assert len(complained.splitlines()) == 1


def test_interruptions_and_closed_pipes_have_codes_of_their_own(monkeypatch, capsys):
    assert run_of(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "audiostyle: interrupted\n"
    assert run_of(BrokenPipeError(errno.EPIPE, "Broken pipe"), monkeypatch) == 141
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes do not match"), KeyError("x"), TypeError(), RuntimeError(), OSError("no errno"),
     UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), AssertionError(), RecursionError()],
    ids=lambda e: type(e).__name__,
)  # fmt: skip
def test_a_mistake_of_the_program_is_no_bad_input(monkeypatch, error):
    with pytest.raises(type(error)) as raised:
        run_of(error, monkeypatch)
    assert raised.value is error


# Streams ---------------------------------------------------------------------------------------

AUDIOSTYLE = f"{sys.executable} -m audiostyle_lib"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=60, env=env, check=False
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", [f"compare {REFERENCE}", "--help", f"compare {REFERENCE} 2>&1", "transfer 2>&1"]
)
def test_a_reader_that_leaves_early_is_no_error(command, unbuffered):
    done = shell(f"{AUDIOSTYLE} {command} | true", PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (0, b"")


def test_streams_that_are_closed_or_full():
    done = shell(f"{AUDIOSTYLE} compare {REFERENCE} > /dev/full")
    assert (done.returncode, done.stderr) == (2, b"audiostyle: no space left on device\n")
    for streams in (">&-", ">&- 2>&-", "<&- >&- 2>&-"):
        assert shell(f"{AUDIOSTYLE} compare {REFERENCE} {streams}").returncode == 0
    for streams in ("2>&-", "2>/dev/full"):
        assert shell(f"{AUDIOSTYLE} compare nowhere {streams}").returncode == 2


ASCII = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
]


@pytest.mark.parametrize("environment", ASCII, ids=["stream", "locale"])
def test_a_terminal_without_unicode_gets_all_lines(environment, tmp_path):
    run = tmp_path / "quick-bands"
    run.mkdir()
    (run / "metrics.json").write_bytes((REFERENCE / "metrics.json").read_bytes())
    done = shell(f"{AUDIOSTYLE} report {run} && {AUDIOSTYLE} compare {tmp_path}/ä", **environment)
    assert done.returncode == 2 and done.stdout.decode("ascii").strip() == str(run / "report.md")
    assert done.stderr.decode("ascii").startswith(f"audiostyle: {tmp_path}/")
    assert "±" in (run / "report.md").read_text(encoding="utf-8")


def test_a_table_with_plus_minus_is_printed_in_ascii(tmp_path):
    code = (
        "import sys; from audiostyle_lib import __main__ as m\n"
        "from audiostyle_lib.course import compare\n"
        "compare.compare_folders = lambda *_: ('0.1 ± 0.2 → ' + chr(0xdce9), True)\n"
        "sys.exit(m.main(['compare', 'x']))"
    )
    file = tmp_path / "run.py"
    file.write_text(code, encoding="utf-8")
    done = shell(f"{sys.executable} {file}", **ASCII[0])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == rb"0.1 \xb1 0.2 \u2192 \udce9" + b"\n"


# Folders for what numba compiles ---------------------------------------------------------------


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """An installation and a home that cannot be written, and a folder for temporary files."""
    monkeypatch.setattr(paths, "PACKAGE", Path("/proc/installed"))
    for variable in ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(variable, "/proc/nobody")
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"audiostyle-numba-{os.getuid()}"


def test_numba_gets_a_folder_of_the_users_own(nowhere):
    for _ in range(2):  # the second finds what the first has made
        paths.ensure_numba_cache()
        assert os.environ["NUMBA_CACHE_DIR"] == str(nowhere)
        assert nowhere.stat().st_mode & 0o777 == 0o700
        os.environ["NUMBA_CACHE_DIR"] = "/proc/nobody"


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_numba_never_gets_a_folder_that_others_can_write(nowhere, tmp_path, kind):
    if kind == "open to others":
        nowhere.mkdir()
        nowhere.chmod(0o777)
    elif kind == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        nowhere.symlink_to(tmp_path / "theirs")
    else:
        nowhere.touch(mode=0o600)
    paths.ensure_numba_cache()
    found = Path(os.environ["NUMBA_CACHE_DIR"])
    assert found not in (nowhere, tmp_path / "theirs") and found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_numba_keeps_a_usual_folder_that_can_be_written(nowhere, monkeypatch, tmp_path, variable):
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    before = os.environ["NUMBA_CACHE_DIR"]
    paths.ensure_numba_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == before and not nowhere.exists()
