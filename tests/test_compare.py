"""When two values of a metric agree, what a comparison says, and its exit code."""

from __future__ import annotations

import pytest

from audiostyle_lib import paths
from audiostyle_lib.__main__ import main
from audiostyle_lib.course import compare, run

NOTEBOOK = "05_content_vae"


def metric(value=1.0, **changes) -> dict:
    return {
        "name": "cosine", "split": "test", "value": value, "spread": None, "seeds": 1, "diverged": 0,
        "unit": "1", "definition": "Cosine.", "trivial": 0.5, "trivial_name": "mean", "report": None,
        "n": 20, "higher_is_better": True, "notebook": NOTEBOOK, "tolerance": 0.01,
    } | changes  # fmt: skip


def results(*metrics, seed=0, corpus_sha256="abc") -> run.Results:
    provenance = {
        "seed": seed, "corpus_sha256": corpus_sha256, "profile": "quick", "corpus": "bands",
        "device": "CPU", "wall_seconds": 1.0, "settings": {},
    }  # fmt: skip
    return run.Results("quick-bands", list(metrics), {m["notebook"]: provenance for m in metrics})


def diverged(n: int, of: int) -> dict:
    return {"diverged": n, "seeds": of, **({"value": None} if n == of else {})}


@pytest.mark.parametrize(
    ("ours", "reference", "agree"),
    [
        # a share of the reference's value
        ({"value": 1.01}, {"value": 1.0}, True),
        ({"value": 1.011}, {"value": 1.0}, False),
        ({"value": -0.989}, {"value": -1.0}, False),
        ({"value": 1.4}, {"value": 1.0, "tolerance": 0.5}, True),
        # the reference's tolerance counts; the run's own where the reference was stored without one
        ({"value": 1.4, "tolerance": 0.5}, {"value": 1.0}, False),
        # plus the reference's spread over seeds, not the run's
        ({"value": 1.10}, {"value": 1.0, "spread": 0.1}, True),
        ({"value": 1.12}, {"value": 1.0, "spread": 0.1}, False),
        ({"value": 1.10, "spread": 0.1}, {"value": 1.0}, False),
        # a thousandth of the trivial predictor's value is nothing
        ({"value": 3e-5}, {"value": 1e-6, "trivial": 0.5}, True),
        ({"value": 6e-4}, {"value": 1e-6, "trivial": 0.5}, False),
        ({"value": 6e-4}, {"value": 1e-6, "trivial": None}, False),
        ({"value": 0.0}, {"value": 0.0, "trivial": 0.0}, True),
        # one item of a share
        ({"value": 7 / 12, "unit": "share", "n": 12}, {"value": 8 / 12}, True),
        ({"value": 1 / 12, "unit": "share", "n": 12}, {"value": 0.0, "trivial": 0.0}, True),
        ({"value": 6 / 12, "unit": "share", "n": 12}, {"value": 8 / 12}, False),
        # diverged seeds agree with diverged seeds alone
        (diverged(1, 1), {}, False),
        ({}, diverged(1, 1), False),
        (diverged(1, 3), {}, False),
        (diverged(1, 1), diverged(1, 1), True),
        (diverged(1, 3), diverged(2, 3), True),
    ],
)
def test_when_a_metric_agrees(ours, reference, agree):
    assert compare.agrees(metric(**ours), metric(**reference)) is agree


def test_tolerance_of_a_reference_stored_without_one_is_the_runs():
    old = metric()
    del old["tolerance"]
    assert compare.tolerance(metric(tolerance=0.3), old) == 0.3
    assert compare.tolerance(metric(tolerance=None), old) is None
    assert compare.tolerance(old, old) == run.TOLERANCE


def test_what_falls_out_or_is_missing_is_named():
    ours = results(
        metric(0.91), metric(2.0, name="loss"), metric(3.0, name="new", split="train"),
        metric(9.9, name="speed", tolerance=None),
    )  # fmt: skip
    reference = results(
        metric(0.93, spread=0.001), metric(2.001, name="loss"), metric(1.0, name="old"),
        metric(1.0, name="speed", tolerance=None),
    )  # fmt: skip
    text, agrees = compare.compare(ours, reference, name="figures/quick-bands")
    assert not agrees
    assert text.splitlines() == [
        "1 of 2 metrics agree with figures/quick-bands, these do not:",
        "  cosine, test: 0.91, reference 0.9300 ± 0.0010 (tolerance 0.01)",
        "  old, test: not in this run",
        "  new, train: not in the reference",
    ]


def test_a_run_that_agrees_is_one_line():
    text, agrees = compare.compare(results(metric()), results(metric()), name="x")
    assert (text, agrees) == ("1 of 1 metrics agree with x", True)


def test_notebooks_of_one_side_alone_are_not_compared():
    other = metric(name="other", notebook="02_features")
    third = metric(name="third", notebook="03_failed_resnet")
    text, agrees = compare.compare(results(metric(), other), results(metric(), third), name="x")
    assert agrees
    assert text.splitlines() == [
        "1 of 1 metrics agree with x",
        "not compared, for it is not in this run: notebook 03",
        "not compared, for it is not in the reference: notebook 02",
    ]
    assert not compare.compare(results(other), results(third), name="x")[1]  # nothing agrees


def test_another_seed_or_corpus_is_said():
    text, _ = compare.compare(
        results(metric(), seed=1, corpus_sha256="def"), results(metric()), name="x"
    )
    assert "the reference was made with another seed" in text
    assert "the reference was made with another corpus" in text


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A run and its reference that agree, and a way to write others."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "REFERENCES", tmp_path / "figures")

    def write(name, *metrics):
        made = results(*metrics)
        run.write_metrics(tmp_path / name / "metrics.json", made.metrics, made.provenance)
        return tmp_path / name

    write("figures/quick-bands", metric())
    return write


def test_compare_on_the_command_line(folders, tmp_path, capsys, monkeypatch):
    same, other = folders("runs/quick-bands", metric()), folders("runs/x", metric(0.9))
    assert main(["compare", str(same)]) == 0
    assert capsys.readouterr().out == "1 of 1 metrics agree with figures/quick-bands\n"
    assert main(["compare", str(same), str(other)]) == 1
    assert "  cosine, test: 1, reference 0.9 (tolerance 0.01)\n" in capsys.readouterr().out
    monkeypatch.chdir(same)
    assert main(["compare", "."]) == 0
    for without_metrics in ([str(tmp_path)], [str(other)], [str(same), str(tmp_path)]):
        assert main(["compare", *without_metrics]) == 2
        assert "no metrics of a run here" in capsys.readouterr().err
