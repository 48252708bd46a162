"""Folders do not depend on the working directory; files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiostyle_lib import paths
from audiostyle_lib.errors import InputError

OVERRIDES = [
    ("AUDIOSTYLE_DATA", paths.data, "data"),
    ("AUDIOSTYLE_FIGURES", paths.runs, "figures/runs"),
]


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch):
    for name in ("AUDIOSTYLE_DATA", "AUDIOSTYLE_FIGURES", "AUDIOSTYLE_GTZAN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("variable", "function", "name"), OVERRIDES)
def test_defaults_lie_in_the_project_wherever_one_stands(
    variable, function, name, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert (paths.ROOT / "pyproject.toml").is_file()
    assert function() == paths.ROOT / name
    monkeypatch.setenv(variable, "")
    assert function() == paths.ROOT / name


@pytest.mark.parametrize(("variable", "function", "name"), OVERRIDES)
def test_overrides_are_absolute(variable, function, name, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert function() == tmp_path / "elsewhere"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "relative")
    assert function() == tmp_path / "relative"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/mine")
    assert function() == tmp_path / "mine"


def test_gtzan_is_looked_for_in_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    assert paths.gtzan() is None
    (tmp_path / "gtzan").mkdir()
    assert paths.gtzan() == tmp_path / "gtzan"


def test_named_gtzan_folder_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    for name in ("gtzan", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("AUDIOSTYLE_GTZAN", str(tmp_path / "other"))
    assert paths.gtzan() == tmp_path / "other"


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_named_gtzan_that_is_no_folder_raises(kind, monkeypatch, tmp_path):
    (tmp_path / "gtzan").mkdir()  # the fallback that must not be taken silently
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUDIOSTYLE_DATA", str(tmp_path))
    monkeypatch.setenv("AUDIOSTYLE_GTZAN", str(tmp_path / kind))
    with pytest.raises(InputError, match=f"AUDIOSTYLE_GTZAN .*{kind}"):
        paths.gtzan()


def test_written_beside_renames_and_makes_folders(tmp_path):
    target = tmp_path / "a" / "b" / "result.json"
    with paths.written_beside(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".json"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [True, False])
def test_written_beside_leaves_nothing_behind_on_failure(tmp_path, error, written):
    target = tmp_path / "result.json"
    target.write_text("old")
    with pytest.raises(error), paths.written_beside(target) as temporary:
        if written:
            temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_written_beside_takes_text_paths(tmp_path):
    with paths.written_beside(str(tmp_path / "x.txt")) as temporary:
        Path(temporary).write_text("x")
    assert (tmp_path / "x.txt").read_text() == "x"
