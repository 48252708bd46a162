"""Damaged and odd inputs by the thousand: each is read, or refused in one line, within limits.

    python tests/campaigns/fuzz.py                      # 10 000 inputs, `make fuzz`
    python tests/campaigns/fuzz.py --inputs 500 --seed 7 --family audio commands
    python tests/campaigns/fuzz.py --replay fuzz-failures/audio-00017

Five families: audio files, manifests (with what else is kept as JSON beside a corpus), tables of the
benchmark, checkpoints, command lines. An input is a folder of files, drawn from the seed, its family and
its number, and is tried in a worker process that tries many. It fails where

- a function raises anything but `InputError` or `OSError`, or gives samples that are not finite,
- a command ends with another exit code than 0, 1 and 2, or with 2 and more than a line (below argparse's
  usage), or shows a traceback,
- a result is not what it should be: a manifest that is rendered again, a training that is made anew,
- it takes over 20 s, the process has taken over 2 GB, or has died,
- a file is left that nobody asked for, or one that was there is changed by a command that refuses.

Folders of inputs that fail are kept. Command lines never reach rendering, notebooks, trainings and
timings: of commands that would, each has an argument that has to be refused before the work, and
``--ship`` and ``--store``, which write into the checkout, are never given.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

NOT_OURS = (
    "block ",
    "Note: ",
    "Warning: ",
    "[src/libmpg123",
)  # progress; what libmpg123 prints itself
LIMIT_S, LIMIT_MB = 20.0, 2048
START_S = 120.0  # for imports and the compiled functions
SAMPLE_RATE, SECONDS = 22_050, 0.6  # a clip has to last 0.5 s to be scored
ROOT = Path(__file__).resolve().parents[2]

# What is damaged, how --------------------------------------------------------------------------------

INTEGERS = (0, 1, 2, 255, 1000, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def _flip(rng: random.Random, data: bytearray) -> None:
    reach = rng.choice((64, 512, len(data)))
    for _ in range(rng.choice((1, 4, 32))):
        data[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.choice((rng.randrange(64), rng.randrange(len(data)), len(data) - 1)) :]


def _set_field(rng: random.Random, data: bytearray) -> None:
    kind = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(kind)
    at = rng.randrange(max(1, min(len(data), 256) - size))
    data[at : at + size] = struct.pack(kind, rng.choice(INTEGERS) % 256**size)


def _set_number(rng: random.Random, data: bytearray) -> None:
    """Put another number where one stands that a header is likely to hold: rate, lengths, channels."""
    n = round(SAMPLE_RATE * SECONDS)
    known = [SAMPLE_RATE, n, 2 * n, len(data), len(data) - 8, len(data) - 44, 16, 1]
    places = [
        (kind, at)
        for kind in ("<I", ">I", "<H", ">H")
        for value in known
        if 0 <= value < 256 ** struct.calcsize(kind)
        and (at := data.find(struct.pack(kind, value), 4, 512)) >= 0
    ]
    kind, at = rng.choice(places or [("<I", min(4, len(data)))])
    size = struct.calcsize(kind)
    data[at : at + size] = struct.pack(kind, rng.choice(INTEGERS) % 256**size)


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.choice((0, 4, 12, 36, rng.randrange(len(data) + 1)))
    text = rng.choice(
        (b"not audio, but text\n", bytes(1000), b"ID3\x03\0\0\x7f\x7f\x7f\x7f", b"LIST")
    )
    data[at:at] = rng.choice((text, rng.randbytes(rng.randrange(1, 2000))))


def _repeat(rng: random.Random, data: bytearray) -> None:
    a, b = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    at = rng.randrange(len(data))
    data[at:at] = data[a : min(b, a + 100_000)]


def _overwrite(rng: random.Random, data: bytearray) -> None:
    a = rng.randrange(len(data))
    size = min(len(data) - a, rng.choice((4, 100, 5000)))
    data[a : a + size] = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))


def damage(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One to three faults of the kinds that transfers, disks and other programs make."""
    data = bytearray(content)
    kinds = (
        _flip,
        _cut,
        _set_field,
        _set_field,
        _set_number,
        _set_number,
        _insert,
        _repeat,
        _overwrite,
    )
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        if rng.random() < 0.1:
            other = rng.choice(others)
            data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]
        else:
            rng.choice(kinds)(rng, data)
    return bytes(data)


ODD_VALUES = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**30, "", "x" * 10_000, "../../x", "\0",
    "\ud800", [], {}, [[]], {"": None}, [1, "a"],
)  # fmt: skip


def damage_json(rng: random.Random, text: str) -> bytes:
    """A JSON file with bytes damaged, one value replaced or gone, or in an encoding of its own."""
    kind = rng.random()
    if kind < 0.3:
        return damage(rng, text.encode(), [b'{"clips": [1, 2]}', b"[" * 3000])
    if kind < 0.4:
        strange = ("[" * 100_000, "null", "3", '""', "[]", "{}", '{"a": 1}', "", "NaN", text * 2)
        return rng.choice(strange).encode()
    if kind < 0.5:
        return rng.choice(
            (text.encode("utf-16"), text.encode("utf-8-sig"), text.encode() + b"\xe9")
        )
    content = json.loads(text)
    for _ in range(rng.choice((1, 1, 3))):
        _damage_value(rng, content)
    return json.dumps(content).encode()


def _damage_value(rng: random.Random, content) -> None:
    while isinstance(content, (dict, list)) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        key = rng.choice(keys)
        inside = content[key]
        if isinstance(inside, (dict, list)) and inside and rng.random() < 0.8:
            content = inside
        elif rng.random() < 0.3:
            del content[key]
            return
        else:
            content[key] = copy.deepcopy(rng.choice(ODD_VALUES))
            return


# Families: each draws an input into a folder, and tries one ------------------------------------------


class Audio:
    """Files in every format that libsndfile writes, under every ending, read or transferred."""

    EXTRA = (
        ("OGG", "OPUS"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "IMA_ADPCM"), ("CAF", "ALAC_16"),
    )  # fmt: skip
    ENDINGS = (
        ".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf", ".w64", ".raw", ".txt", "",
    )  # fmt: skip

    def __init__(self, base: Path):
        import numpy as np
        import soundfile as sf

        noise = np.random.default_rng(0).standard_normal(round(SAMPLE_RATE * SECONDS))
        x = (0.3 * noise * np.linspace(1, 0.1, len(noise))).astype(np.float32)
        self.files: list[bytes] = []
        self.names: list[str] = []
        kinds = [
            (name, None) for name in sorted(sf.available_formats()) if name not in ("RAW", "SD2")
        ]
        for name, subtype in (*kinds, *self.EXTRA):
            for channels in (1, 2):
                out = io.BytesIO()
                with suppress(sf.LibsndfileError, ValueError):  # formats for one rate or channel
                    samples = x if channels == 1 else np.stack([x, -x / 2], axis=1)
                    sf.write(out, samples, SAMPLE_RATE, format=name, subtype=subtype)
                    self.files.append(out.getvalue())
                    self.names.append(name)
        sf.write(base / "good.wav", x, SAMPLE_RATE)
        self.good = base / "good.wav"

    def draw(self, rng: random.Random, folder: Path) -> dict:
        i = rng.randrange(len(self.files))
        ending = f".{self.names[i].lower()}" if rng.random() < 0.7 else rng.choice(self.ENDINGS)
        file = folder / f"clip{ending}"
        file.write_bytes(damage(rng, self.files[i], self.files))
        return {"file": file.name, "transferred": rng.random() < 0.1}

    def attempt(self, folder: Path, case: dict) -> str:
        import numpy as np

        from audiostyle_lib.signal import audio

        file = folder / case["file"]
        if case["transferred"]:
            result = folder / "result.wav"
            return command(["transfer", file, self.good, "-o", result], written=[result])
        read = np.asarray(audio.read_audio(file))
        require(read.size > 0 and np.isfinite(read).all(), "samples that are not finite")
        return "read"


class Manifests:
    """manifest.json beside a corpus, and what a run remembers of it, in the reader and the renderer."""

    def __init__(self, base: Path):
        from audiostyle_lib import bands, config, corpora

        self.profile = replace(config.profile("smoke"), clips_per_genre=1, clip_seconds=1.0)
        self.settings = {"clips_per_genre": 1, "seconds": 1.0, "seed": 0}
        self.corpus = base / corpora.bands_folder(self.profile).relative_to(paths_data())
        bands.write_corpus(self.corpus, **self.settings)
        self.manifest = (self.corpus / "manifest.json").read_text()
        self.clips = [c["sha256"] for c in json.loads(self.manifest)["clips"]]
        memory = base / "memory.json"
        with environment(AUDIOSTYLE_DATA=base):
            corpora.open_again("bands", profile=self.profile, seed=0, memory=memory)
        self.memory = memory.read_text()

    def draw(self, rng: random.Random, folder: Path) -> dict:
        kind = rng.choice(("read", "check", "render", "remember"))
        text = damage_json(rng, self.memory if kind == "remember" else self.manifest)
        (folder / "damaged.json").write_bytes(text)
        return {"kind": kind}

    def attempt(self, folder: Path, case: dict) -> str:
        from audiostyle_lib import bands, corpora

        root = folder / self.corpus.relative_to(self.corpus.parents[1])
        shutil.copytree(self.corpus, root, copy_function=os.link)
        damaged, manifest = folder / "damaged.json", root / "manifest.json"
        try:
            if case["kind"] == "remember":
                memory = Path(shutil.copy(damaged, folder / "memory.json"))
                with environment(AUDIOSTYLE_DATA=folder):
                    corpora.open_again("bands", profile=self.profile, seed=0, memory=memory)
                made_anew = memory.read_bytes() != damaged.read_bytes()
                memory.unlink()
                return "made anew" if made_anew else "read"
            manifest.unlink()
            shutil.copy(damaged, manifest)
            if case["kind"] == "render":
                bands.write_corpus(root, **self.settings)
                clips = json.loads(manifest.read_text())["clips"]
                require([c["sha256"] for c in clips] == self.clips, "another manifest")
                return "made anew"
            if case["kind"] == "check":
                return command(["data", "check", root])
            corpora.describe(corpora.read_folder(root, name="x"))
            return "read"
        finally:
            no_temporaries(folder)
            shutil.rmtree(root.parent, ignore_errors=True)


class Tables:
    """CSV tables of the benchmark, from spreadsheets and worse."""

    CELLS = (
        "", " ", "nowhere.wav", ".", "/", "~", "good.wav ", '"good.wav"', "GOOD.WAV", "é.wav", "音.wav",
        "silent.wav", "text.wav", "folder", "x" * 300, "x" * 140_000, "good.wav\0", "=1+1", "#REF!",
    )  # fmt: skip

    def __init__(self, base: Path):
        import numpy as np
        import soundfile as sf

        self.base = base / "table"
        (self.base / "folder").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in ("good", "other"):
            x = 0.1 * rng.standard_normal(round(SAMPLE_RATE * SECONDS))
            sf.write(self.base / f"{name}.wav", x, SAMPLE_RATE)
        sf.write(self.base / "silent.wav", np.zeros(10_000), SAMPLE_RATE)
        (self.base / "text.wav").write_text("no audio")

    def draw(self, rng: random.Random, folder: Path) -> dict:
        columns = ["content", "style", "truth", "output"]
        rng.shuffle(columns)
        if rng.random() < 0.2:
            columns.remove(rng.choice(columns))
        if rng.random() < 0.2:
            columns.append(rng.choice(("note", "content", "", "Style")))
        rows = [columns] + [
            [
                rng.choice(self.CELLS)
                if rng.random() < 0.1
                else rng.choice(("good.wav", "other.wav"))
                for _ in range(max(0, len(columns) + rng.choice((0, 0, 0, 0, 0, 0, -1, 1))))
            ]
            for _ in range(rng.choice((0, 1, 1, 2, 3)))
        ]
        comma, end = rng.choice(",,,;\t|"), rng.choice(("\n", "\n", "\r\n", "\r"))
        text = end.join(comma.join(row) for row in rows) + rng.choice(("", end, end * 3))
        encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"))
        data = text.encode(encoding, errors="replace")
        if rng.random() < 0.3:
            data = damage(rng, data, [b'"', b"\0", data])
        (folder / "table.csv").write_bytes(data)
        return {"output": rng.random() < 0.5}

    def attempt(self, folder: Path, case: dict) -> str:
        place, result = folder / "here", folder / "result.json"
        shutil.copytree(self.base, place, copy_function=os.link)
        table = Path(shutil.copy(folder / "table.csv", place / "table.csv"))
        options = ["-o", result] if case["output"] else []
        try:
            return command(["benchmark", "--table", table, *options], written=[result])
        finally:
            shutil.rmtree(place)


class Checkpoints:
    """safetensors of models, of unfinished trainings and of rendered pairs."""

    def __init__(self, base: Path):
        import torch

        from audiostyle_lib import config, transfer
        from audiostyle_lib.bands import lattice, shards
        from audiostyle_lib.models import checkpoint
        from audiostyle_lib.models.recombine import GainTransfer

        self.config = config.AudioConfig()
        torch.manual_seed(0)
        sizes = checkpoint.read_header(transfer.DEFAULT_MODEL)["model"]
        sizes |= {"channels": 64, "heads": 1}
        tensors = {f"model.{k}": v.half() for k, v in GainTransfer(**sizes).state_dict().items()}
        header = {"audio": self.config.to_dict(), "model": sizes, "made_of": {}, "curves": {}}
        checkpoint.save(base / "model.safetensors", tensors, header)
        self._unfinished(base / "fit.safetensors")
        # stands for minutes of rendering; what is written and read of it is real
        lattice.render_log_mels = lambda which, **_: (torch.zeros(len(which), 1, 2), torch.zeros(0))
        self.pairs = {"n_groups": 2, "split": "train", "seed": 0, "config": self.config}
        part = shards.write_pairs(base, shard=(1, 1), **self.pairs)
        part.replace(base / "pairs.safetensors")
        self.part = part.name
        self.files = {
            k: (base / f"{k}.safetensors").read_bytes() for k in ("model", "fit", "pairs")
        }

    def _fit(self, path: Path) -> dict:
        import torch
        from torch import nn

        from audiostyle_lib.training import loop

        torch.manual_seed(0)
        x = torch.arange(24.0).reshape(8, 3)
        return loop.fit(
            nn.Linear(3, 2), step=lambda model, batch: (model(batch[0]).square().mean(), {}),
            batches=lambda epoch: [(x + epoch,)] * 2, steps=4, steps_per_epoch=2, path=path,
            arguments={}, data={}, config=self.config, label="fuzz",
        )  # fmt: skip

    def _unfinished(self, path: Path) -> None:
        """What a training leaves that was killed after its first epoch."""
        from audiostyle_lib.models import checkpoint

        save = checkpoint.save

        def save_once(*arguments):
            save(*arguments)
            raise InterruptedError

        checkpoint.save = save_once
        with suppress(InterruptedError):
            self._fit(path)
        checkpoint.save = save

    def draw(self, rng: random.Random, folder: Path) -> dict:
        kind = rng.choice(("model", "fit", "read pairs", "write pairs"))
        data = self.files[kind.split()[-1]]
        length = struct.unpack("<Q", data[:8])[0]
        if rng.random() < 0.6:  # in the JSON header: names, types, shapes, offsets, settings
            header = json.loads(data[8 : 8 + length])
            self._damage_header(rng, header)
            text = json.dumps(header).encode()
            length = rng.choice((len(text),) * 8 + INTEGERS) % 2**64
            data = struct.pack("<Q", length) + text + data[8 + struct.unpack("<Q", data[:8])[0] :]
        else:
            pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
            data = damage(rng, data, [*self.files.values(), pointer])
        (folder / "damaged.safetensors").write_bytes(data)
        return {"kind": kind}

    @staticmethod
    def _damage_header(rng: random.Random, header: dict) -> None:
        name = rng.choice(list(header))
        if name == "__metadata__":
            key = rng.choice(list(header[name]))
            header[name][key] = damage_json(rng, header[name][key]).decode("latin-1")
            return
        change = rng.choice(("dtype", "shape", "data_offsets", "name"))
        if change == "name":
            header[rng.choice(("x", name + ".x", ""))] = header.pop(name)
        elif change == "dtype":
            header[name]["dtype"] = rng.choice(
                ("F16", "F32", "F64", "I8", "BOOL", "BF16", "nonsense")
            )
        else:
            values = header[name][change]
            values[:] = rng.choice((values[::-1], [0], [], [2**40, 2**40], [-1, 1], [*values, 1]))

    def attempt(self, folder: Path, case: dict) -> str:
        from audiostyle_lib import transfer
        from audiostyle_lib.bands import shards
        from audiostyle_lib.models import checkpoint

        damaged, kind = folder / "damaged.safetensors", case["kind"]
        place = folder / "place"
        place.mkdir()
        try:
            if kind == "model":
                transfer.load_model(damaged)
                return "read"
            if kind == "fit":
                copy = Path(shutil.copy(damaged, place / "x.safetensors"))
                curves = self._fit(copy)
                require(len(curves["train_loss"]) == 2, "a training without its end")
                require(checkpoint.read_header(copy)["epoch"] == 2, "a checkpoint without its end")
                return "made anew"
            part = Path(shutil.copy(damaged, place / self.part))
            if kind == "write pairs":
                shards.write_pairs(place, shard=(1, 1), **self.pairs)
                require(part.stat().st_size > 100, "no part")
                return "made anew"
            shards.read_pairs(place, **self.pairs)
            return "read"
        finally:
            no_temporaries(place)
            shutil.rmtree(place)


# the first of each is a good one, and taken more often
NUMBERS = (
    "1", "nan", "inf", "-inf", "-1", "0", "2", "0.5", "1.5", "1e308", "9" * 30, "", " 3", "١", "0x10",
)  # fmt: skip
TEXTS = (
    "", " ", "ä", "音楽", "-", "a" * 300, "../..", "%s", "{}", "\\", "'", "a\nb", "\udce4", "*",
)  # fmt: skip
FILES = (
    "@/good.wav", "@/other.flac", "@/silent.wav", "@/empty.wav", "@/text.wav", "@/short.wav",
    "@/nan.wav", "@/folder", "@/nowhere", "@/nowhere/deep.wav", "@/broken_link.wav", "@/loop.wav",
    "@/table.csv", "@/model.safetensors", "@/cut.safetensors", "@/corpus", "@/run", "@/cut_run",
    "@/ä ö.wav", "@/" + "n" * 300 + ".wav", "@/good.wav/inside.wav",
)  # fmt: skip
OUTPUTS = (
    *(f"@/out/result{e}" for e in (".wav", ".flac", ".mp3", ".ogg", ".json", ".xyz", "")),
    "@/out", "@/nowhere/x.wav", "@/good.wav", "@/out/" + "n" * 300 + ".wav", "@/out/音.wav",
)  # fmt: skip
TABLES, RUNS, FOLDERS = (("@/" + name, *FILES) for name in ("table.csv", "run", "corpus"))
METHODS = ("learned", "ltas_eq", *TEXTS)
VOCODERS = ("gain", "neural", "pghi", "griffin_lim", "content_phase", *TEXTS)
DEVICES = ("cpu", "auto", "banana", "cuda", "cuda:99", "meta", "", "cpu:0")
PROFILES = ("smoke", "nonsense", "", "ä")
CORPORA = ("auto", "bands", "gtzan", "nonsense", "")
SHARDS = ("1/2", "0/2", "3/2", "1", "a/b", "1/0", "-1/-1", "١/٢", "1/2/3")
SEED, DEVICE, PROFILE = ("--seed", NUMBERS), ("--device", DEVICES), ("--profile", PROFILES)

# command: (positionals, options, arguments of which one has to be refused before any long work)
GRAMMAR = {
    ("transfer",): (
        (FILES, FILES),
        (("-o", OUTPUTS), ("--method", METHODS), ("--vocoder", VOCODERS), ("--strength", NUMBERS),
         ("--calibration", NUMBERS), ("--variance", NUMBERS), DEVICE),
        (),
    ),
    ("data", "check"): ((FOLDERS,), (PROFILE, SEED, ("--shard", SHARDS)), ()),
    ("data", "gtzan"): ((), (PROFILE, SEED, ("--shard", SHARDS), ("--groups", NUMBERS)), ()),
    ("data", "bands"): (
        (), (SEED, ("--groups", NUMBERS)),
        (("--profile", "nonsense"), ("--profile", ""), ("--shard", "3/2"), ("--shard", "x")),
    ),
    ("data", "pairs"): (
        (FILES,), (SEED, PROFILE, ("--shard", SHARDS)),
        (("--groups", "0"), ("--groups", "nan"), ("--split", "x"), ("--soundfont", "@/nowhere")),
    ),
    ("reproduce",): (
        (), (SEED, DEVICE, ("--corpus", CORPORA), ("--cores", NUMBERS)),
        (("--profile", "nonsense"), ("--only", "99"), ("--only", ""), ("--rehearse", "1"),
         ("--corpus", "x"), ("--cores", "x")),
    ),
    ("compare",): ((RUNS, RUNS), (SEED,), ()),
    ("report",): ((RUNS,), (SEED,), ()),
    ("bench",): (
        (), (("--threads", ("1", "0", "x")), ("-o", OUTPUTS)),
        (("@/silent.wav",), ("@/nowhere",), ("@/folder",), ("--seconds", "nan"), ("--seconds", "1e9"),
         ("--repeats", "0"), ("--threads", "-3")),
    ),
    ("benchmark", "--table"): ((TABLES,), (("-o", OUTPUTS), SEED, PROFILE, DEVICE), ()),
    ("benchmark",): (
        (), (("-o", OUTPUTS), SEED, DEVICE, ("--corpus", CORPORA)),
        (("--methods", "nonsense"), ("--methods", ""), ("--model", "@/cut.safetensors"),
         ("--model", "@/nowhere"), ("--profile", "nonsense")),
    ),
    ("pretrain", "transfer"): (
        (), (SEED, DEVICE, ("--batch-size", NUMBERS), ("--conditioning", TEXTS), ("--pairs", FILES)),
        (("-o", "@/nowhere/x.safetensors"), ("-o", "@/out/x.wav"), (), ("--groups", "0"),
         ("--soundfont", "@/nowhere"), ("--soundfont", "@/text.wav"), ("--steps", "nan")),
    ),
    ("pretrain", "judges"): (
        (), (SEED, DEVICE), (("-o", "@/nowhere/deep"), ("-o", "@/good.wav"), (), ("--steps", "0")),
    ),
    ("pretrain", "vocoder"): (
        (), (SEED, DEVICE), (("-o", "@/out/x"), ("--profile", "nonsense"), (), ("--steps", "x")),
    ),
    (): ((TEXTS, FILES), (("--help", TEXTS), ("--version", TEXTS)), ()),
}  # fmt: skip


def _mostly_first(rng: random.Random, pool: tuple):
    return pool[0] if rng.random() < 0.7 else rng.choice(pool)


class Commands:
    """Command lines of every subcommand with odd values, missing files and folders in place of files."""

    def __init__(self, base: Path):
        import numpy as np
        import soundfile as sf

        self.base = base / "here"
        for name in ("folder", "out", "run", "cut_run/metrics", "corpus/blues"):
            (self.base / name).mkdir(parents=True)
        rng = np.random.default_rng(0)
        x = (0.1 * rng.standard_normal(round(SAMPLE_RATE * SECONDS))).astype(np.float32)
        for name in ("good.wav", "other.flac", "ä ö.wav", "corpus/blues/a.wav"):
            sf.write(self.base / name, x, SAMPLE_RATE)
        sf.write(self.base / "silent.wav", 0 * x, SAMPLE_RATE)
        sf.write(self.base / "short.wav", x[:100], SAMPLE_RATE)
        sf.write(self.base / "nan.wav", np.full(9000, np.nan), SAMPLE_RATE, subtype="FLOAT")
        (self.base / "empty.wav").touch()
        (self.base / "text.wav").write_text("no audio\n" * 100)
        (self.base / "broken_link.wav").symlink_to("nowhere")
        (self.base / "loop.wav").symlink_to("loop.wav")
        (self.base / "table.csv").write_text("content,style,output\ngood.wav,ä ö.wav,good.wav\n")
        shutil.copy(ROOT / "figures" / "quick-bands" / "metrics.json", self.base / "run")
        (self.base / "cut_run" / "metrics" / "02_features.json").write_text('{"metrics": [')
        whole = (ROOT / "data" / "pretrained" / "judge_timbre.safetensors").read_bytes()
        (self.base / "model.safetensors").write_bytes(whole)
        (self.base / "cut.safetensors").write_bytes(whole[:5000])

    def draw(self, rng: random.Random, folder: Path) -> dict:
        name = rng.choice(list(GRAMMAR))
        positionals, options, refused = GRAMMAR[name]
        groups = [[_mostly_first(rng, pool)] for pool in positionals if rng.random() < 0.97]
        for option, pool in options:
            if option == "-o" or rng.random() < 0.3:
                groups.append([option, _mostly_first(rng, pool)])
        if options and rng.random() < 0.2:
            option, pool = rng.choice(options)
            groups.append([option, rng.choice((*pool, *TEXTS, *NUMBERS))])
        if rng.random() < 0.05:
            groups.append([rng.choice(("--nonsense", "-x", "--", "--help", "extra"))])
        if rng.random() < 0.3:
            rng.shuffle(groups)
        arguments = [*name, *(text for group in groups for text in group)]
        if refused:  # last, so that no other value of the option takes its place
            arguments += rng.choice(refused)
        return {"arguments": arguments}

    def attempt(self, folder: Path, case: dict) -> str:
        here = folder / "here"
        shutil.copytree(self.base, here, symlinks=True)
        arguments = [a.replace("@/", f"{here}/") for a in case["arguments"]]
        named = [Path(a) for a in arguments if a.startswith(f"{here}/out/")]
        named += [here / "run" / name for name in ("report.md", "metrics.json")]
        named += [here / "good.wav"] if arguments.count(f"{here}/good.wav") == 1 else []
        try:
            return command(arguments, written=named)
        finally:
            shutil.rmtree(here)


FAMILIES = {
    "audio": Audio, "manifests": Manifests, "tables": Tables, "checkpoints": Checkpoints,
    "commands": Commands,
}  # fmt: skip


# What has to hold ------------------------------------------------------------------------------------


class Failure(Exception):
    """What an input shows to be wrong."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Failure(what)


def no_temporaries(folder: Path) -> None:
    left = [f.name for f in folder.rglob(".*")]
    require(not left, f"left behind: {left}")


def paths_data() -> Path:
    from audiostyle_lib import paths

    return paths.data()


@contextmanager
def environment(**variables):
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update({name: str(value) for name, value in variables.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def captured():
    """What the process, its libraries in C included, writes to stderr; stdout is thrown away."""
    text = io.StringIO()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as file, Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield text
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)
            file.seek(0)
            text.write(file.read().decode(errors="replace"))


def _state(folder: Path) -> dict[Path, str]:
    files = (f for f in folder.rglob("*") if f.is_file())
    return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def command(arguments: list, *, written: list[Path] = ()) -> str:
    """Run a command line; it may write `written`. Exit code and stderr have to be as they should."""
    from audiostyle_lib.__main__ import main

    places = [p for p in map(Path, map(str, arguments)) if len(p.name) < 200 and p.is_absolute()]
    folder = min((p.parent for p in places), key=lambda p: len(p.parts), default=None)
    before = _state(folder) if folder else {}
    with captured() as stderr:
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as error:  # argparse
            code = error.code
    text = stderr.getvalue()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(NOT_OURS)]
    if lines and lines[0].startswith("usage:"):
        lines = lines[-1:]
    require(code in (0, 1, 2), f"exit code {code!r}")
    require("Traceback" not in text, text)
    rows = [
        line for line in lines if re.search(r"\.csv, line \d+: ", line)
    ]  # each bad row has its own
    whole = [line for line in lines if line not in rows] or rows[:1]
    require(code != 2 or len(whole) == 1, f"refused in {len(lines)} lines: {text[:2000]!r}")
    after = _state(folder) if folder else {}
    changed = {f for f in before | after if before.get(f) != after.get(f)}
    allowed = set() if code == 2 else set(written)
    require(
        changed <= allowed, f"exit code {code}, but changed: {sorted(map(str, changed - allowed))}"
    )
    return "refused" if code == 2 else "read"


# A worker, and the process that watches it -----------------------------------------------------------


def draw(families: dict, name: str, seed: int, number: int, folder: Path) -> dict:
    rng = random.Random(f"{seed} {name} {number}")
    case = {"family": name, **families[name].draw(rng, folder)}
    (folder / "case.json").write_text(json.dumps(case, indent=1))
    return case


def attempt(families: dict, case: dict, folder: Path) -> str:
    """Outcome of one input: "read", "made anew", "refused", or "failed: ..." with the reason."""
    from audiostyle_lib.errors import InputError

    try:
        with captured():
            outcome = families[case["family"]].attempt(folder, case)
        left = {f.name for f in folder.iterdir()}
        known = {"case.json", "damaged.json", "damaged.safetensors", "table.csv", "result.wav"}
        known |= {"result.json", case.get("file", "")}
        require(left <= known, f"left behind: {left - known}")
    except InputError as error:
        text = str(error)
        if len(text.splitlines()) != 1 or len(text) > 1000:
            return f"failed: refused in no short line: {text[:1000]!r}"
        return "refused"
    except OSError as error:
        if error.filename is None:
            return f"failed: names no file: {error!r}"
        return "refused"
    except Failure as error:
        return f"failed: {error}"
    except Exception:
        return f"failed: {traceback.format_exc()}"
    return outcome


def work(seed: int, base: Path, names: list[str]) -> None:
    """Try the inputs that are named on stdin, and answer on stdout, one line each."""
    import faulthandler

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed goes to the log
    faulthandler.enable()  # of a crash, or of the SIGABRT that ends a hang
    data = tempfile.mkdtemp(dir=base)
    os.environ |= {"AUDIOSTYLE_DATA": data, "AUDIOSTYLE_FIGURES": data, "AUDIOSTYLE_BATCH": "1"}
    os.environ.pop("AUDIOSTYLE_GTZAN", None)
    families = {}
    for name in names:
        own = Path(tempfile.mkdtemp(dir=base))
        with captured():
            families[name] = FAMILIES[name](own)
    import torch  # noqa: F401  # before the limit: what it maps is no input's fault

    resource.setrlimit(
        resource.RLIMIT_DATA, (6 << 30, 6 << 30)
    )  # rather an error than a dead machine
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        if request["number"] is None:
            case = json.loads((folder / "case.json").read_text())
        else:
            case = draw(families, request["family"], seed, request["number"], folder)
        started = time.perf_counter()
        outcome = attempt(families, case, folder)
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux
        answer = {"outcome": outcome, "seconds": seconds, "peak": peak}
        print(json.dumps(answer), file=answers, flush=True)


class Worker:
    """A process that tries inputs; the next input starts another one where it has died."""

    def __init__(self, seed: int, base: Path, names: list[str]):
        self.seed, self.base, self.names, self.process = seed, base, names, None

    def _start(self) -> None:
        self.log = (self.base / "worker.log").open("w+")
        command_line = [sys.executable, __file__, "--worker", "--seed", str(self.seed)]
        self.process = subprocess.Popen(
            [*command_line, "--base", str(self.base), "--family", *self.names],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if self._answer(START_S) != "ready":
            raise SystemExit(f"the worker does not start:\n{self._end()}")

    def _answer(self, seconds: float) -> str | None:
        """A line of the worker's; empty where it died, None where it takes too long."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        return self.process.stdout.readline().strip() if ready else None

    def _end(self) -> str:
        """End the worker and tell the last of its log."""
        self.process.send_signal(signal.SIGABRT)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process = None
        self.log.seek(0)
        text = self.log.read()[-3000:]
        self.log.close()
        return text

    def attempt(self, family: str, number: int | None, folder: Path) -> dict:
        """Have one input tried; ``number`` None takes the one that lies in `folder`."""
        if self.process is None:
            self._start()
        request = {"family": family, "number": number, "folder": str(folder)}
        self.process.stdin.write(json.dumps(request) + "\n")
        text = self._answer(LIMIT_S)
        if not text:
            what = f"over {LIMIT_S:.0f} s" if text is None else "the process died"
            return {"outcome": f"failed: {what}\n{self._end()}", "seconds": LIMIT_S, "peak": 0.0}
        answer = json.loads(text)
        if answer["peak"] > LIMIT_MB:
            answer["outcome"] = (
                f"failed: {answer['peak']:.0f} MB\n{answer['outcome']}\n{self._end()}"
            )
        return answer

    def close(self) -> None:
        if self.process is not None:
            self._end()


def _kind(outcome: str) -> str:
    return outcome.split(":")[0]


def campaign(inputs: int, *, seed: int, names: list[str], failures: Path) -> int:
    """Try `inputs` inputs, as many of each family, print a line a family; return how many failed."""
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="audiostyle-fuzz-") as base:
        worker = Worker(seed, Path(base), names)
        try:
            for i, name in enumerate(names):
                own = len(range(i, inputs, len(names)))
                n_failed += _one_family(worker, name, own, Path(base), failures)
        finally:
            worker.close()
    print(f"seed {seed}: {inputs} inputs, {n_failed} failed", flush=True)
    return n_failed


def _one_family(worker: Worker, name: str, inputs: int, base: Path, failures: Path) -> int:
    outcomes, slowest, peak, started = Counter(), 0.0, 0.0, time.perf_counter()
    for number in range(inputs):
        folder = base / "input"
        folder.mkdir()
        answer = worker.attempt(name, number, folder)
        outcomes[_kind(answer["outcome"])] += 1
        slowest, peak = max(slowest, answer["seconds"]), max(peak, answer["peak"])
        if _kind(answer["outcome"]) == "failed":
            kept = failures / f"{name}-{number:05d}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
            (kept / "why.txt").write_text(answer["outcome"])
            last = [line for line in answer["outcome"].splitlines() if line.strip()][-1]
            print(f"  {kept}: {last[:300]}", flush=True)
        shutil.rmtree(folder)
    counts = ", ".join(f"{outcomes[k]} {k}" for k in ("refused", "read", "made anew", "failed"))
    print(
        f"{name}: {inputs} inputs, {counts}; slowest {slowest:.1f} s, peak {peak:.0f} MB, "
        f"{time.perf_counter() - started:.0f} s in all",
        flush=True,
    )
    return outcomes["failed"]


def replay(folder: Path, seed: int) -> int:
    """Try once more the input that lies in a folder."""
    name = json.loads((folder / "case.json").read_text())["family"]
    with tempfile.TemporaryDirectory(prefix="audiostyle-fuzz-") as base:
        copy = Path(shutil.copytree(folder, Path(base) / "input", symlinks=True))
        (copy / "why.txt").unlink(missing_ok=True)
        worker = Worker(seed, Path(base), [name])
        answer = worker.attempt(name, None, copy)
        worker.close()
    print(f"{answer['outcome']}\n{answer['seconds']:.1f} s, {answer['peak']:.0f} MB")
    return _kind(answer["outcome"]) == "failed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--failures", type=Path, default=ROOT / "fuzz-failures")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="of an input that failed")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.seed, arguments.base, arguments.family)
        return 0
    if arguments.replay:
        return int(replay(arguments.replay, arguments.seed))
    settings = {"seed": arguments.seed, "names": arguments.family, "failures": arguments.failures}
    return int(campaign(arguments.inputs, **settings) > 0)


if __name__ == "__main__":
    sys.exit(main())
