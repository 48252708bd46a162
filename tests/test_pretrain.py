"""`audiostyle pretrain` and what reads its weights, through the command line and in tiny sizes."""

from __future__ import annotations

import pytest
import torch

from audiostyle_lib import __main__, corpora, transfer, vocoding
from audiostyle_lib.bands import lattice
from audiostyle_lib.evaluation import benchmark, judges
from audiostyle_lib.models import checkpoint
from audiostyle_lib.models.judge import GenreNet, TimbreNet
from audiostyle_lib.models.vocos import Vocos
from audiostyle_lib.paths import PRETRAINED
from audiostyle_lib.training import recombination, vocoders

SMALL = {
    "transfer": ("--groups", 2, "--batch-size", 2, "--channels", 64, "--steps", 1),
    "judges": ("--groups", 2, "--steps", 1),
    "vocoder": ("--profile", "smoke", "--steps", 1),
}


@pytest.fixture(autouse=True)
def few_renderings(monkeypatch, tmp_path, clip):
    """Noise in place of rendered music, of the same shape."""

    def render(n_groups, *, split, seed, config, device="cpu", soundfonts=(), progress=None):
        generator = torch.Generator().manual_seed(seed)
        log_mels = -30 + 8 * torch.randn(n_groups, 4, 4, 128, 345, generator=generator)
        return log_mels.half(), torch.zeros(n_groups, 4).long()

    def corpus(name, *, profile, seed=0, progress=None):
        assert name == "bands"
        return corpora.Corpus("bands", tmp_path, tracks=(), faults=(), split_source="manifest")

    monkeypatch.setattr(lattice, "render_log_mels", render)
    monkeypatch.setattr(corpora, "open_corpus", corpus)
    pcm = torch.from_numpy(32_000 * clip(2.0))[None].short().numpy()
    monkeypatch.setattr(vocoders, "load_pcm", lambda *_, **__: pcm)


@pytest.fixture
def shipped():
    """Bytes of the shipped weights, which are the same after the test; nothing is added to them."""

    def read():
        return {file.name: file.read_bytes() for file in PRETRAINED.iterdir()}

    before = read()
    yield
    assert read() == before


def pretrain(model: str, *arguments) -> int:
    return __main__.main(["pretrain", model, "--device", "cpu", *map(str, arguments)])


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize(
    ("destination", "why"),
    [
        ((), "either -o, or --ship"),
        (("--ship", "-o", "a.safetensors"), "either -o, or --ship"),
        (("-o", PRETRAINED), "only --ship overwrites"),
        (("-o", PRETRAINED / "gain_transfer.safetensors"), "only --ship overwrites"),
        (("-o", "nowhere/a.safetensors"), "folder"),
    ],
)
def test_a_destination_is_needed_before_any_work(
    shipped, monkeypatch, capsys, model, destination, why
):
    for module, name in ((lattice, "render_log_mels"), (corpora, "open_corpus")):
        monkeypatch.setattr(module, name, None)
    assert pretrain(model, *destination) == 2
    error = capsys.readouterr().err
    assert why in error and error.count("\n") == 1


@pytest.mark.parametrize("model", SMALL)
def test_a_file_of_another_kind_is_no_destination(tmp_path, capsys, model):
    path = tmp_path / "a.pt"
    path.touch()
    assert pretrain(model, "-o", path) == 2
    wanted = "a folder" if model == "judges" else "must end in .safetensors"
    error = capsys.readouterr().err
    assert wanted in error and str(path) in error and path.read_bytes() == b""


def test_transfer_writes_what_transfer_loads(shipped, tmp_path, capsys):
    path = tmp_path / "made.safetensors"
    assert pretrain("transfer", *SMALL["transfer"], "--adversarial-steps", 2, "-o", path) == 0
    assert f"{path}: written" in capsys.readouterr().out
    stored = transfer.load_model(path).stem.weight
    assert stored.shape[0] == 64
    first, last = (
        checkpoint.read_tensors(tmp_path / f"made.training{name}.safetensors", prefix=prefix)
        for name, prefix in (("", "model."), (".2", "model.generator."))
    )
    assert not torch.equal(first["stem.weight"], last["stem.weight"])
    assert torch.equal(stored, last["stem.weight"].half().float())
    header = checkpoint.read_header(path)
    assert header["provenance"]["command"].startswith("audiostyle pretrain transfer --device cpu")
    assert "train_discriminator" in header["curves"] and "train_copy" in header["before"]["curves"]


def test_judges_are_written_to_a_folder(shipped, tmp_path, config, capsys):
    folder = tmp_path / "new"
    assert pretrain("judges", *SMALL["judges"], "-o", folder) == 0
    names = {judges.GENRE_MODEL.name: GenreNet}
    names |= {path.name: TimbreNet for path in judges.TIMBRE_MODELS.values()}
    said = capsys.readouterr().out
    for name, build in names.items():
        checkpoint.load_model(folder / name, build=build, config=config)
        assert f"{folder / name}: written" in said
    assert len(list(folder.iterdir())) == 2 * len(names)  # and the trainings


def test_vocoder_is_written_to_a_file(shipped, tmp_path, config):
    path = tmp_path / "vocoder.safetensors"
    assert pretrain("vocoder", *SMALL["vocoder"], "-o", path) == 0
    checkpoint.load_model(path, build=lambda **s: Vocos(config=config, **s), config=config)


@pytest.mark.parametrize(
    ("model", "module", "name"),
    [("transfer", transfer, "DEFAULT_MODEL"), ("vocoder", vocoding, "DEFAULT_MODEL")],
)
def test_ship_overwrites_the_shipped_file(shipped, monkeypatch, tmp_path, model, module, name):
    path = tmp_path / "shipped.safetensors"
    path.write_bytes(b"old")
    monkeypatch.setattr(module, name, path)
    assert pretrain(model, *SMALL[model], "--ship") == 0
    assert "model" in checkpoint.read_header(path)


def test_a_quarter_of_a_batch_is_recordings(monkeypatch, tmp_path):
    asked = []
    batch = recombination.self_supervised_batch

    def counted(recordings, *, generator, batch_size):
        asked.append((tuple(recordings.shape), batch_size))
        return batch(recordings, generator=generator, batch_size=batch_size)

    monkeypatch.setattr(recombination, "self_supervised_batch", counted)
    monkeypatch.setattr(__main__, "_recordings", lambda *_: torch.randn(2, 128, 300))
    path = tmp_path / "made.safetensors"
    sizes = ("--groups", 1, "--batch-size", 4, "--channels", 64, "--steps", 2)
    assert pretrain("transfer", *sizes, "--conditioning", "film", "-o", path) == 0
    assert asked == [((2, 128, 300), 1)] * 2
    assert checkpoint.read_header(path)["model"]["conditioning"] == "film"
    assert pretrain("transfer", "--batch-size", 2, "-o", path) == 2  # none would fit


def test_benchmark_scores_weights_of_another_width(monkeypatch, tmp_path, config, clip, capsys):
    path = tmp_path / "narrow.safetensors"
    assert pretrain("transfer", *SMALL["transfer"], "-o", path) == 0
    heard = []

    def run(items, named, *_, **__):
        heard.append(named["narrow"](clip(1.0), clip(1.0, 1)))
        return {}

    monkeypatch.setattr(benchmark, "items", lambda *_, **__: {"tier 1": []})
    monkeypatch.setattr(benchmark, "run", run)
    monkeypatch.setattr(benchmark, "describe", lambda table: "")
    asked = ["benchmark", "--corpus", "bands", "--device", "cpu", "--methods", "narrow", "--model"]
    assert __main__.main([*asked, str(path)]) == 0
    assert heard[0].shape == clip(1.0).shape
    assert __main__.main([*asked, str(judges.GENRE_MODEL)]) == 2
    assert "another kind of model" in capsys.readouterr().err
