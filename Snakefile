# The notebooks as a DAG, each run by papermill.
#
#   snakemake --cores 2 --config profile=quick corpus=auto
#
# `audiostyle reproduce` and `make reproduce` call this file. On a cluster (README, "More than one
# machine") a large corpus is rendered in parts, and so are the pairs of a large pretraining:
#
#   snakemake --profile profiles/slurm --config profile=long shards=16 -- corpus
#   snakemake --profile profiles/slurm --config groups=2400 shards=16 -- pretrained

import sys
from pathlib import Path

from audiostyle_lib import bands, corpora, paths
from audiostyle_lib import config as cfg
from audiostyle_lib.course import pipeline

PROFILE = config.get("profile", "quick")
CORPUS = corpora.resolve(config.get("corpus", "auto"))
SEED = int(config.get("seed", 0))
DEVICE = config.get("device", "auto")
SHARDS = int(config.get("shards", 1))  # parts of what is rendered
GROUPS = int(config.get("groups", 600))  # of paired renderings
STEPS = int(config.get("steps", 2000))
GPUS = int(config.get("gpus", 1))

RUN = paths.runs() / f"{PROFILE}-{CORPUS}"
if CORPUS == "bands":
    CORPUS_READY = corpora.bands_folder(cfg.profile(PROFILE), seed=SEED) / "manifest.json"
    CORPUS_STATE = str(bands.corpus.VERSION)
else:
    CORPUS_READY = RUN / "checkpoints" / f"corpus-seed{SEED}.checked"
    CORPUS_STATE = corpora.listing(paths.gtzan())
LIBRARY = sorted(str(f) for f in paths.PACKAGE.rglob("*.py"))
WEIGHTS = [f for f in paths.PRETRAINED.glob("*.safetensors") if ".training" not in f.name]
PYTHON = sys.executable
COMMAND = Path(PYTHON).with_name("audiostyle")  # fabric runs a script, no module
# Two notebooks at a time: a training rarely gains from more than half of the cores, and threads that
# compete for a core slow each other down many times over.
THREADS = max(1, (workflow.cores or 2) // 2)
PAIRS = paths.data() / "pairs" / f"{GROUPS}-seed{SEED}"


def parts(name):
    return [local(name.format(k, SHARDS)) for k in range(1, SHARDS + 1)]


rule report:
    input:
        local(RUN / "notebooks" / "11_report.ipynb"),


rule corpus_part:
    output:
        touch(local(CORPUS_READY.parent / ".parts" / "{part}-of-{n}")),
    params:
        state=CORPUS_STATE,
    threads: workflow.cores or 4
    shell:
        "{PYTHON:q} -m audiostyle_lib data bands --profile {PROFILE:q} --seed {SEED} "
        "--shard {wildcards.part}/{wildcards.n}"


rule corpus:
    input:
        parts(f"{CORPUS_READY.parent}/.parts/{{}}-of-{{}}") if SHARDS > 1 and CORPUS == "bands" else [],
    output:
        touch(local(CORPUS_READY)),
    params:
        state=CORPUS_STATE,
    threads: workflow.cores or 4
    shell:
        "{PYTHON:q} -m audiostyle_lib data {CORPUS} --profile {PROFILE:q} --seed {SEED}"


# A shell command, because snakemake does not quote the path of the interpreter that runs a rule's Python.
rule notebook:
    input:
        local(CORPUS_READY),
        [local(f) for f in LIBRARY],
        [local(f) for f in WEIGHTS],
        source=local(paths.NOTEBOOKS / "{name}.ipynb"),
        after=lambda w: [local(RUN / "notebooks" / f"{n}.ipynb") for n in pipeline.DEPENDS[w.name]],
    output:
        local(RUN / "notebooks" / "{name}.ipynb"),
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


rule pairs:
    output:
        local(PAIRS / "train-{part}-of-{n}.safetensors"),
    params:
        state=str(bands.corpus.VERSION),
    threads: workflow.cores or 4
    shell:
        "{PYTHON:q} -m audiostyle_lib data pairs {PAIRS:q} --groups {GROUPS} --seed {SEED} "
        "--shard {wildcards.part}/{wildcards.n}"


rule pretrained:
    input:
        parts(f"{PAIRS}/train-{{:05d}}-of-{{:05d}}.safetensors"),
    output:
        local(PAIRS / "transfer.safetensors"),
    threads: workflow.cores or 4
    resources:
        gpu=GPUS,
    shell:
        "{PYTHON:q} -m lightning_fabric.cli --devices {GPUS} --strategy ddp {COMMAND:q} "
        "pretrain transfer --pairs {PAIRS:q} --groups {GROUPS} --seed {SEED} --steps {STEPS} -o {output:q}"
