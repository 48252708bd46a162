# The notebooks as a DAG, each run by papermill.
#
#   snakemake --cores 2 --config profile=quick corpus=auto
#
# `audiostyle reproduce` and `make reproduce` call this file.

import sys

from audiostyle_lib import bands, corpora, paths
from audiostyle_lib import config as cfg
from audiostyle_lib.course import pipeline

PROFILE = config.get("profile", "quick")
CORPUS = corpora.resolve(config.get("corpus", "auto"))
SEED = int(config.get("seed", 0))
DEVICE = config.get("device", "auto")

RUN = paths.runs() / f"{PROFILE}-{CORPUS}"
if CORPUS == "bands":
    CORPUS_READY = corpora.bands_folder(cfg.profile(PROFILE), seed=SEED) / "manifest.json"
    CORPUS_STATE = str(bands.corpus.VERSION)
else:
    CORPUS_READY = RUN / "checkpoints" / f"corpus-seed{SEED}.checked"
    CORPUS_STATE = pipeline.listing(paths.gtzan())
LIBRARY = sorted(str(f) for f in paths.PACKAGE.rglob("*.py"))
WEIGHTS = [f for f in paths.PRETRAINED.glob("*.safetensors") if ".training" not in f.name]
PYTHON = sys.executable
# Two notebooks at a time: a training rarely gains from more than half of the cores, and threads that
# compete for a core slow each other down many times over.
THREADS = max(1, workflow.cores // 2)


rule report:
    input:
        RUN / "notebooks" / "11_report.ipynb",


rule corpus:
    output:
        touch(CORPUS_READY),
    params:
        state=CORPUS_STATE,
    threads: workflow.cores
    shell:
        "{PYTHON:q} -m audiostyle_lib data {CORPUS} --profile {PROFILE:q} --seed {SEED}"


# A shell command, because snakemake does not quote the path of the interpreter that runs a rule's Python.
rule notebook:
    input:
        CORPUS_READY,
        LIBRARY,
        WEIGHTS,
        source=paths.NOTEBOOKS / "{name}.ipynb",
        after=lambda w: [RUN / "notebooks" / f"{n}.ipynb" for n in pipeline.DEPENDS[w.name]],
    output:
        RUN / "notebooks" / "{name}.ipynb",
    params:
        profile=PROFILE,
        corpus=CORPUS,
        seed=SEED,
        device=DEVICE,
        state=CORPUS_STATE,
    threads: THREADS
    priority: lambda w: int(w.name in pipeline.LONGEST_CHAIN)
    shell:
        "NUMBA_NUM_THREADS={threads} {PYTHON:q} -m audiostyle_lib.course.pipeline {wildcards.name} "
        "{output:q} {params.profile:q} {params.corpus} {params.seed} {params.device:q}"
