"""Verdicts on the report's claims: each changes with the numbers, and rests on a metric that exists."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from audiostyle_lib import paths
from audiostyle_lib.config import PROFILES
from audiostyle_lib.course import claims, run


def metric(name, value, trivial, *, split="test", report=None, unit="1", higher=True, spread=None,
           error=None):  # fmt: skip
    return {
        "name": name, "split": split, "value": value, "trivial": trivial, "trivial_name": "PCA, 4",
        "report": report, "unit": unit, "higher_is_better": higher, "spread": spread, "seeds": 1,
        "diverged": 0, "tolerance": 0.01, "notebook": "05_content_vae", "cell": "05-025", "n": 10,
        "error": error,
    }  # fmt: skip


def results(*metrics, corpus="bands", profile="quick"):
    provenance = {"corpus": corpus, "profile": profile, "settings": asdict(PROFILES[profile])}
    return run.Results("r", list(metrics), {"05_content_vae": provenance})


def verdict(*metrics, **where):
    """The verdict on the claim that rests on the first of these metrics."""
    claim = next(c for c in claims.CLAIMS if c.name == metrics[0]["name"]
                 and c.split in (None, metrics[0]["split"]))  # fmt: skip
    (row,) = [
        r for r in claims.rows([results(*metrics, **where)], notebooks="") if r[0] == claim.text
    ]
    return row[6]


COSINE = "content VAE, clip cosine"


@pytest.mark.parametrize(
    "value, trivial, words",
    [
        (0.94, 0.90, "reproduced; PCA stays behind"),
        (0.95, 0.94, "better, but so is PCA"),
        (0.91, 0.90, "not reached; ahead of PCA"),
        (0.91, 0.92, "not reached; no better than PCA"),
        (0.9101, 0.91, "not reached; no better than PCA"),  # within what machines differ by
    ],
)
def test_a_number_is_reached_or_not(value, trivial, words):
    assert verdict(metric(COSINE, value, trivial, report=0.9337)) == words


def test_a_spread_as_wide_as_the_lead_is_no_lead():
    assert verdict(metric(COSINE, 0.91, 0.90, report=0.9337, spread=0.02)).endswith(
        "better than PCA"
    )


def test_a_number_that_the_trivial_predictor_exceeds_means_nothing():
    name = "content VAE, cosine in dB below the maximum"
    assert verdict(metric(name, 0.99, 0.97, report=0.9337)).startswith("cannot mean what it says")
    assert verdict(metric(name, 0.99, 0.80, report=0.9337)).startswith("reproduced")


def test_generalisation_compares_training_and_test():
    train = metric(COSINE, 0.93, 0.9, split="train", report=0.9294)
    for test, word in (
        (0.91, "refuted: the test has 0.91"),
        (0.94, "reproduced: the test has 0.94"),
    ):
        assert verdict(train, metric(COSINE, test, 0.9, report=0.9337)) == word


@pytest.mark.parametrize(
    "with_copies, without, words",
    [
        (0.897, 0.8971, "no difference found"),
        (0.91, 0.89, "reproduced"),
        (0.88, 0.9, "refuted: it is worse"),
    ],
)
def test_augmentation_is_judged_against_the_training_without(with_copies, without, words):
    name = "content VAE, short training, {}, cosine"
    of = [metric(name.format(k), v, 0.85) for k, v in
          (("as above", with_copies), ("no copies", without))]  # fmt: skip
    assert verdict(*of) == words


@pytest.mark.parametrize(
    "distance, words",
    [
        (6.0, "nearer to the truth than the content itself by 25 %"),
        (7.999, "no nearer to the truth than the content itself"),
        (9.0, "farther from the truth than the content itself"),
    ],
)
def test_a_transfer_is_judged_against_the_content_as_it_is(distance, words):
    name = "report's design, tier 1, LSD time"
    m = metric(name, distance, 8.0, split=claims.PAIRED, unit="dB", higher=False)
    assert verdict(m) == words
    of_few_items = m | {"error": 3.0}  # their differences scatter more than any of these
    assert verdict(of_few_items) == "no nearer to the truth than the content itself"


@pytest.mark.parametrize(
    "adamw, sgd, words",
    [
        (1.0, 0.0, "reproduced with SGD, not with AdamW"),
        (0.5, 1.0, "reproduced with AdamW, not with SGD"),
        (0.5, 0.0, "reproduced: fewer pass than without, with AdamW and with SGD"),
        (1.0, 1.0, "not reproduced: as many pass as without, with AdamW and with SGD"),
    ],
)
def test_scalars_are_judged_with_both_optimisers(adamw, sgd, words):
    name = "ResNet with raw scalars joined{}, trainings that pass"
    of = [metric(name.format(k), v, 1.0, split="valid", unit="share") for k, v in
          (("", adamw), (" (SGD)", sgd))]  # fmt: skip
    assert verdict(*of) == words


def test_corpora_that_disagree_each_get_a_verdict():
    bands = results(metric(COSINE, 0.94, 0.90, report=0.9337))
    real = results(metric(COSINE, 0.92, 0.90, report=0.9337), corpus="gtzan", profile="long")
    (row,) = claims.rows([bands, real], notebooks="../")
    assert row[2:4] == ["0.94", "0.92"] and row[5] == "2 400 / 12 000 steps"
    assert row[6] == "bands: reproduced; PCA stays behind; real clips: not reached; ahead of PCA"
    assert row[7] == "[05](../05_content_vae.ipynb#cell-id=05-025)"


@pytest.mark.parametrize(
    "unit, higher, value, trivial, skill",
    [
        ("1", True, 0.95, 0.9, 0.5),
        ("1", True, 0.8, 0.9, -1.0),
        ("dB", False, 6.0, 8.0, 0.25),
        ("MOS", True, 4.5, 4.0, 0.5),
        ("dB", True, 6.0, 8.0, None),
        ("share", True, 1.0, 1.0, None),
    ],
)
def test_skill_is_zero_for_the_trivial_predictor_and_one_at_best(
    unit, higher, value, trivial, skill
):
    m = metric("any", value, trivial, unit=unit, higher=higher)
    found = claims.skill(m, value)
    assert found == (None if skill is None else pytest.approx(skill))
    if skill is not None:
        assert claims.skill(m, trivial) == pytest.approx(0)


def test_every_claim_rests_on_a_stored_metric():
    stored = run.read_run(paths.REFERENCES / "quick-bands")
    assert [c.text for c in claims.CLAIMS if not claims.find(c, [stored])] == []
    assert len(claims.rows([stored], notebooks="")) == len(claims.CLAIMS)


def test_the_plot_has_a_row_a_claim_and_shows_what_lies_beyond_its_edge():
    low = metric(COSINE, 0.95, 0.9, report=0.2)
    _, ax = claims.plot([results(low)])
    marks = {line.get_marker(): line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 1}
    assert marks["o"] == pytest.approx([0.5]) and marks["<"] == pytest.approx([claims.LEFT])
    assert len(ax.get_yticks()) == 1
