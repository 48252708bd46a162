"""Snakemake for `pipeline.reproduce`, in a process that does not outlive it.

A process that is killed cannot end what it has started. Snakemake and the notebooks under it would go on
and write into a folder that the next run writes into, too. So the system tells this process that the
other one is gone, by closing the pipe between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

COMPILED_ON_IMPORT = (
    "librosa.beat",
    "librosa.core.audio",
    "librosa.core.pitch",
    "librosa.util.utils",
)


def _end_with_parent() -> None:
    import psutil

    os.read(0, 1)  # returns when nobody holds the other end any more
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


def _compile_librosa() -> None:
    """Fill the cache of the functions that librosa compiles on import, in one process.

    Two at once, as notebooks are run, leave it with parts of both, and every process that then calls
    such a function crashes (numba issue 10128).
    """
    subprocess.run([sys.executable, "-c", f"import {', '.join(COMPILED_ON_IMPORT)}"], check=True)


if __name__ == "__main__":
    from snakemake.cli import main

    threading.Thread(target=_end_with_parent, daemon=True).start()
    _compile_librosa()
    main(sys.argv[1:])
