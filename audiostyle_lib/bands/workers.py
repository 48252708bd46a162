"""Run jobs in processes that are ended when they hang.

A worker announces every step of its job. One that has announced nothing for too long is killed, and the
error names the step. `multiprocessing.Pool` would wait for ever: symusic's synthesizer, which renders
the corpus, never returns on some notes far outside an instrument's range.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

_send: Callable[[Any], None] | None = None


def announce(doing: str) -> None:
    """Tell the process that watches this one what starts now; without one, nothing happens."""
    if _send is not None:
        _send(("at", doing))


def _serve(connection) -> None:
    """Run jobs that arrive on a connection until it closes or says None."""
    global _send
    _send = connection.send
    try:
        while (job := connection.recv()) is not None:
            function, arguments = job
            try:
                connection.send(("done", function(*arguments)))
            except OSError as error:  # a full disk, say: of the environment, not of the job
                connection.send(("unwritable", error))
            except Exception as error:  # the parent raises it again, with the job's name
                connection.send(("failed", f"{type(error).__name__}: {error}"))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return  # the parent has gone: nobody is left to tell


@contextmanager
def _no_main():
    """Keep spawned processes from running the caller's script again.

    They would import it as their main module: never needed here, since jobs are found by name in
    importable modules, and it fails for code from stdin and for scripts without a main guard.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    def __init__(self, context, function, limit_s: float):
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _no_main():
            self.process.start()
        theirs.close()
        self.function, self.limit_s = function, limit_s
        self.job: int | None = None
        self.name = self.doing = ""

    def give(self, index: int, name: str, arguments: tuple) -> None:
        self.connection.send((self.function, arguments))
        self.job, self.name, self.doing = index, name, "starting"
        self.since = monotonic()

    def hear(self):
        """One message: None while at work, else the job's result."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"{self.name}: the worker died at: {self.doing}") from None
        if kind == "unwritable":
            raise value
        if kind == "failed":
            raise RuntimeError(f"{self.name}: {value}")
        self.since = monotonic()
        if kind == "at":
            self.doing = value
            return None
        self.job = None
        return (value,)

    def check(self) -> None:
        # Loading the libraries in a fresh process can take long on a busy machine.
        limit = self.limit_s + (60 if self.doing == "starting" else 0)
        if self.job is not None and monotonic() - self.since > limit:
            raise RuntimeError(
                f"{self.name}: no progress for {self.limit_s:.0f} s, ended at: {self.doing}"
            )


def run_jobs(
    function: Callable,
    jobs: Iterable[tuple[str, tuple]],
    *,
    workers: int | None = None,
    limit_s: float = 120.0,
) -> Iterator[Any]:
    """Call a function for every job in worker processes; yield results in the jobs' order.

    Parameters
    ----------
    function : callable
        Importable by name: spawned processes look it up.
    jobs : iterable of (str, tuple)
        Name for messages, positional arguments.
    workers : int, optional
        Number of processes; by default the CPUs this process may use.
    limit_s : float
        Seconds that a worker may go without an announcement; `synth.render_parts` announces every part.

    Yields
    ------
    object
        What the function returned, job by job.

    Raises
    ------
    OSError
        If the function raises one.
    RuntimeError
        One line with the job's name and what it was doing, when it fails, dies or hangs.
    """
    from multiprocessing import get_context
    from multiprocessing.connection import wait

    waiting = list(jobs)
    n_workers = max(1, min(workers or _cpu_count(), len(waiting)))
    context = get_context("spawn")
    crew = [_Worker(context, function, limit_s) for _ in range(n_workers)] if waiting else []
    results: dict[int, Any] = {}
    next_job = next_out = 0
    try:
        while next_out < len(waiting):
            for worker in crew:
                # Few results wait for a slow consumer, so memory stays bounded.
                ahead = next_job < min(len(waiting), next_out + 3 * n_workers)
                if worker.job is None and ahead:
                    worker.give(next_job, *waiting[next_job])
                    next_job += 1
            busy = {w.connection: w for w in crew if w.job is not None}
            for connection in wait(list(busy), timeout=1.0):
                worker = busy[connection]
                index, answer = worker.job, worker.hear()
                if answer is not None:
                    results[index] = answer[0]
            for worker in crew:
                worker.check()
            while next_out in results:
                yield results.pop(next_out)
                next_out += 1
    finally:
        for worker in crew:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def _cpu_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
