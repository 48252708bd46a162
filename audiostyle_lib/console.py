"""What the command line says on a terminal, one line each: refusals, notes, progress."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from .errors import AudioWarning, InputError

USAGE_ERROR = 2


@contextmanager
def notes():
    """Print warnings on audio in one line each, others as usual."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message, category, *where, **more) -> None:
            if issubclass(category, AudioWarning):
                note(str(message))
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        warnings.simplefilter("always", AudioWarning)
        yield


def prepare_streams() -> None:
    """Let standard output and error exist, and take any character whatever their encoding."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as by `>&-`: the next file would be opened in its place
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115, for as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush() -> None:
    """Flush standard output here, where a closed pipe or a full disk can still be reported."""
    try:
        sys.stdout.flush()
    except OSError:  # Python would flush once more at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def reason(error: InputError | OSError) -> str:
    """What is wrong, in one line; an `OSError` that no system call made is raised again."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno is None:
        raise error
    why = (error.strerror or type(error).__name__).lower()
    return why if error.filename is None else f"{os.fsdecode(error.filename)}: {why}"


def complain(text: str) -> None:
    """Print `text` as one line on stderr, whatever the names in it hold."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    print(f"audiostyle: {shown}", file=sys.stderr, flush=True)


def refused(text: str) -> int:
    """Complain, and return the exit code of bad input."""
    with suppress(OSError):  # standard error may be closed or full
        complain(text)
    return USAGE_ERROR


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are one line, too."""

    def error(self, message: str) -> NoReturn:
        sys.exit(refused(f"{message} ({self.prog} --help lists the options)"))


def number(kind: type, least: float, most: float):
    """A type of argument: an int or a float within limits, which NaN and infinity are not."""

    def parse(text: str):
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least} and {most}")
        return value

    parse.__name__ = kind.__name__  # which argparse calls by name
    return parse


def progress(label: str):
    """A callable that shows how many of how many are done: a line that moves, or lines in a log."""

    def show(done: int, total: int) -> None:
        end = "\n" if done == total or not sys.stderr.isatty() else "\r"
        print(f"{label} {done}/{total}", end=end, file=sys.stderr, flush=True)

    return show


def note(text: str) -> None:
    """Print one line about what was done otherwise than a user may expect."""
    complain(f"note: {text}")
