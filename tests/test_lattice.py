"""Paired items: the truth is the content's score in the style clip's style."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import torch

from audiostyle_lib import bands
from audiostyle_lib.bands import lattice, synth
from audiostyle_lib.config import AudioConfig
from audiostyle_lib.evaluation import metrics
from audiostyle_lib.signal import audio, features

SIZE = lattice.SIZE


def marked_lattice(n_groups, *, seed, split, sample_rate):
    """Groups whose constant samples say group, score and style: 100 g + 10 (i + 1) + (j + 1)."""
    for g in range(n_groups):
        marks = 100 * g + 10 * np.arange(1, SIZE + 1)[:, None] + np.arange(1, SIZE + 1)
        samples = np.repeat(marks[:, :, None], 50, axis=2).astype(np.int16)
        styles = [SimpleNamespace(genre=bands.GENRES[j], index=j) for j in range(SIZE)]
        scores = [SimpleNamespace(tempo=120.0, index=i) for i in range(SIZE)]
        yield SimpleNamespace(audio=samples, styles=styles, scores=scores, starts=[4.0] * SIZE)


def marked_arrangement(score, style):
    """A note held from before the excerpt, one inside, one after it, and a drum; pitches say which."""
    pitch = 50 + 10 * score.index + style.index
    notes = [synth.Note(start, start + 2, pitch, 80) for start in (3.0, 5.0, 4.0 + 2 * 9)]
    drum = synth.Note(5.02, 5.1, 36, 80), synth.Note(7.0, 7.1, 36, 80)
    return [SimpleNamespace(is_drum=False, notes=notes), SimpleNamespace(is_drum=True, notes=drum)]


@pytest.fixture
def marked(monkeypatch):
    monkeypatch.setattr(lattice, "render_lattice", marked_lattice)
    monkeypatch.setattr(lattice, "arrange", marked_arrangement)


def marks(triplet: lattice.Triplet) -> list[tuple[int, int, int]]:
    """(group, score, style) of content, style clip and truth."""
    found = []
    for clip in (triplet.content, triplet.style, triplet.truth):
        mark = round(float(clip[0]) * 32768)
        found.append((mark // 100, mark % 100 // 10 - 1, mark % 10 - 1))
    return found


@pytest.mark.parametrize("tier", [None, 1, 2])
def test_truth_has_the_contents_score_in_the_style_clips_style(marked, tier):
    made = lattice.triplets(3, split="test", seed=1, per_group=20, tier=tier)
    assert len(made) == 60
    for triplet in made:
        content, style, truth = marks(triplet)
        assert content[0] == style[0] == truth[0]
        assert content[1] == truth[1] != style[1], "the style clip plays another score"
        assert content[2] != truth[2] == style[2]
        assert triplet.content_genre == bands.GENRES[content[2]]
        assert triplet.style_genre == bands.GENRES[style[2]]
        pitch = 50 + 10 * truth[1] + truth[2]  # 120 BPM: two beats a second, from beat 4 on
        assert triplet.notes.tolist() == [[-0.5, 0.5, pitch], [0.5, 1.5, pitch]]
        assert triplet.onsets.tolist() == [0.5, 1.5], "the drum 10 ms later is the same onset"
        assert triplet.tier == (1 if {content[2], style[2]} in ({0, 1}, {2, 3}) else 2)
    tiers = [t.tier for t in made]
    assert tiers == [tier] * 60 if tier else tiers == [1, 2] * 30
    assert len({tuple(marks(t)) for t in made}) > 30, "drawn from all there are"


def test_triplets_repeat_with_the_seed(marked):
    def draw(seed):
        return [marks(t) for t in lattice.triplets(1, split="test", seed=seed, per_group=10)]

    assert draw(0) == draw(0) != draw(1)


def test_tiers_of_a_group():
    table = [[lattice.tier_of(a, b) for b in range(4)] for a in range(4)]
    assert table == [[1, 1, 2, 2], [1, 1, 2, 2], [2, 2, 1, 1], [2, 2, 1, 1]]


def test_int16_becomes_full_scale_float():
    x = lattice.as_float(np.array([-32768, 0, 16384], np.int16))
    assert x.dtype == np.float32 and x.tolist() == [-1.0, 0.0, 0.5]
    y = np.array([0.25], np.float32)
    assert lattice.as_float(y) is y


# Rendered -------------------------------------------------------------------------------------


def test_rendered_truth_has_the_contents_notes(config):
    pytest.importorskip("symusic")
    for t in lattice.triplets(1, split="test", seed=0, per_group=8):
        assert t.content.shape == t.style.shape == t.truth.shape == (round(8.0 * 22_050),)
        assert audio.rms_dbfs(t.truth) == pytest.approx(-20, abs=2)
        same = metrics.pitch_class_agreement(t.content, t.truth, config)
        other = metrics.pitch_class_agreement(t.content, t.style, config)
        assert same > other + 0.2
        assert same > (0.6 if t.tier == 1 else 0.3), "tier 1 plays the very same notes"


def test_pairs_are_rendered_at_the_front_ends_sample_rate(config):
    pytest.importorskip("symusic")
    double = AudioConfig(sample_rate=44_100)
    log_mels, _ = lattice.render_log_mels(1, split="test", seed=0, config=double)
    assert log_mels.shape == (1, SIZE, SIZE, 128, double.n_frames(round(8.0 * 44_100)))
    settings = {"split": "test", "seed": 0, "per_group": 2}
    (usual, _), (fine, _) = (
        lattice.triplets(1, sample_rate=rate, **settings) for rate in (22_050, 44_100)
    )
    assert len(fine.truth) == 2 * len(usual.truth)
    assert np.array_equal(fine.notes, usual.notes)
    halved = soxr.resample(fine.truth, 44_100, 22_050)
    assert metrics.pitch_class_agreement(halved, usual.truth, config) > 0.9


def test_rendered_log_mels_are_floored_and_at_level(monkeypatch, config, clip):
    def render(n_groups, **_):
        for g in range(n_groups):
            rows = [[clip(1.0, 10 * i + j + g) / (1 + i) for j in range(2)] for i in range(2)]
            styles = [SimpleNamespace(genre=bands.GENRES[k]) for k in (3, 5)]
            audio = np.rint(32767 * np.array(rows)).astype(np.int16)
            yield SimpleNamespace(audio=audio, styles=styles)

    monkeypatch.setattr(lattice, "render_lattice", render)
    x, genres = lattice.render_log_mels(2, split="train", seed=0, config=config)
    assert genres.tolist() == [[3, 5], [3, 5]]
    assert x.shape == (2, 2, 2, 128, 44) and x.dtype == torch.float16
    assert float(x.min()) == features.FLOOR_DB
    expected = features.log_mel_at_level(clip(1.0, 11), config)[0].clamp_min(-55.0)
    difference = (x[0, 1, 1].float() - expected).abs()
    assert float(difference[expected > -30].max()) < 0.2  # half precision, and 16 bit below that
