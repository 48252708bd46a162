# The notebooks as a DAG, each run by papermill.
#
#   snakemake --cores 2 --config profile=quick corpus=auto
#
# `audiostyle reproduce` and `make reproduce` call this file.

import os
from pathlib import Path

from audiostyle_lib import config as cfg
from audiostyle_lib import corpora, paths, pipeline

PROFILE = config.get("profile", "quick")
CORPUS = corpora.resolve(config.get("corpus", "auto"))
SEED = int(config.get("seed", 0))
DEVICE = config.get("device", "auto")

RUN = paths.runs() / f"{PROFILE}-{CORPUS}"
CORPUS_READY = RUN / "checkpoints" / f"corpus-seed{SEED}.txt"
LIBRARY = sorted(str(f) for f in (paths.ROOT / "audiostyle_lib").rglob("*.py"))
# Two notebooks at a time: a training rarely gains from more than half of the cores, and threads that
# compete for a core slow each other down many times over.
THREADS = max(1, workflow.cores // 2)


rule report:
    input:
        RUN / "notebooks" / "11_report.ipynb",


rule corpus:
    output:
        CORPUS_READY,
    threads: workflow.cores
    run:
        opened = corpora.open_corpus(CORPUS, profile=cfg.profile(PROFILE), seed=SEED)
        Path(output[0]).write_text(f"{corpora.describe(opened)}\n")


rule notebook:
    input:
        CORPUS_READY,
        LIBRARY,
        source=paths.NOTEBOOKS / "{name}.ipynb",
        after=lambda w: [RUN / "notebooks" / f"{n}.ipynb" for n in pipeline.DEPENDS[w.name]],
    output:
        RUN / "notebooks" / "{name}.ipynb",
    params:
        profile=PROFILE,
        corpus=CORPUS,
        seed=SEED,
        device=DEVICE,
    threads: THREADS
    priority: lambda w: sum(w.name in after for after in pipeline.DEPENDS.values())  # who waits for it
    run:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[variable] = str(threads)
        pipeline.execute(wildcards.name, Path(output[0]), dict(params.items()))
