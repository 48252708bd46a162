"""The benchmark: columns on cases whose answer is known, intervals, files, an outsider's table."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from audiostyle_lib import corpora
from audiostyle_lib import transfer as transfers
from audiostyle_lib.bands import lattice
from audiostyle_lib.evaluation import benchmark, judges, metrics, tables
from audiostyle_lib.models.judge import GenreNet, TimbreNet, triplet_hinge_loss
from audiostyle_lib.models.recombine import GainTransfer, StyleCode
from audiostyle_lib.signal import audio, features
from audiostyle_lib.training import judges as training_judges

SHIFT = 2 ** (1 / 12)


@pytest.fixture(scope="module")
def panel(clip, config) -> judges.Judges:
    """Untrained judges: what they say means nothing, but equal clips are equal to them."""
    torch.manual_seed(0)
    genre = GenreNet(channels=4)
    genre.standardize.fit(features.log_mel_at_level(clip(2.0), config))
    return judges.Judges(genre.eval(), TimbreNet().eval(), TimbreNet().eval())


@pytest.fixture(scope="module")
def items() -> list[lattice.Triplet]:
    return lattice.triplets(1, split="test", seed=0, per_group=2)


def test_triplets_know_their_notes_and_onsets(items):
    for item in items:
        start, end, pitch = item.notes.T
        assert (end > start).all() and (start < lattice.SECONDS).all() and (end > 0).all()
        assert set(pitch) <= set(range(20, 110))
        assert (np.diff(item.onsets) > lattice.ONSET_GAP_S).all()
        assert item.onsets[0] >= 0 and item.onsets[-1] < lattice.SECONDS


def test_the_truth_is_perfect_where_it_can_be(items, panel, config):
    for item in items:
        found = benchmark.score(item.truth, item, panel, config)
        for name in ("LSD", "LSD per frame", "LSD published", "pitch Jaccard", "perceptual"):
            assert found[name] == 0, name
        assert found["MFCC cosine"] == pytest.approx(1, abs=1e-5)
        assert found["timbre"] == pytest.approx(0, abs=1e-5)
        assert set(found) == {n for n, c in benchmark.COLUMNS.items() if item.tier in c.tiers}


def test_a_gain_changes_no_column(items, panel, config):
    item = items[0]
    loud, quiet = (benchmark.score(a * item.content, item, panel, config) for a in (1.0, 0.25))
    for name in found_everywhere(loud):
        assert quiet[name] == pytest.approx(loud[name], rel=0.02, abs=2e-3), name


def found_everywhere(scores: dict[str, float]) -> list[str]:
    return [name for name in scores if name != benchmark.SPEED]


def test_a_semitone_is_seen_by_pitch_and_not_by_onsets(items, panel, config):
    import librosa

    item = items[0]
    shifted = librosa.effects.pitch_shift(item.truth, sr=config.sample_rate, n_steps=1)
    true, off = (benchmark.score(x, item, panel, config) for x in (item.truth, shifted))
    assert off["multi-pitch F"] < 0.4 * true["multi-pitch F"]
    assert off["pitch Jaccard"] > 0.8
    assert off["onset F1"] > 0.6 * true["onset F1"]


def test_silence_scores_badly_and_does_not_fail(items, panel, config):
    item = items[1]
    found = benchmark.score(np.zeros_like(item.truth), item, panel, config)
    copied = benchmark.score(item.content, item, panel, config)
    assert found["multi-pitch F"] == found["onset F1"] == 0
    assert found["LSD"] > copied["LSD"]


def test_an_equaliser_moves_the_timbre_column_but_not_the_centred_one(clip, config, panel):
    from scipy.signal import lfilter

    x = clip(4.0)
    equalized = lfilter([1.0, -0.9], [1.0], x).astype(np.float32)
    plain, centred = (panel.timbre_distance(equalized, x, config, centred=c) for c in (False, True))
    assert plain > 5 * centred


def test_distances_of_the_genre_network_to_itself_are_zero_and_to_noise_are_not(
    clip, config, panel
):
    x, noise = clip(3.0), np.random.default_rng(0).standard_normal(66_150).astype(np.float32)
    for distance in (panel.gram_distance, panel.perceptual_distance):
        assert distance(x, x, config) == 0
        assert distance(noise, x, config) > distance(clip(3.0, 1), x, config) > 0


def test_gram_distance_does_not_hear_the_order(clip, config, panel):
    """The second half first: what sounds together stays, but for the new seam."""
    x = clip(4.0)
    swapped = np.concatenate([x[len(x) // 2 :], x[: len(x) // 2]])
    assert panel.gram_distance(swapped, x, config) < 0.3 * panel.gram_distance(
        clip(4.0, 1), x, config
    )
    assert panel.perceptual_distance(swapped, x, config) > 0


def test_published_distance_is_librosas_formula_at_16_khz(clip, config):
    import librosa
    import soxr

    a, b = clip(2.0), clip(2.0, 1)
    first, second = (
        librosa.power_to_db(librosa.feature.melspectrogram(y=x / np.sqrt(np.mean(x**2)), sr=16_000))
        for x in (soxr.resample(x, 22_050, 16_000) for x in (a, b))
    )
    expected = np.sqrt(((first - second) ** 2).mean(axis=1)).mean()
    assert metrics.published_log_spectral_distance(a, b, config) == pytest.approx(
        expected, rel=1e-5
    )
    assert metrics.published_log_spectral_distance(0.3 * a, a, config) == pytest.approx(0, abs=1e-3)


def test_onsets_within_fifty_milliseconds_count(config):
    x = np.zeros(4 * 22_050, np.float32)
    true = np.array([0.5, 1.2, 1.9, 3.0])
    for onset in true:
        start = round(onset * 22_050)
        x[start : start + 2000] += np.random.default_rng(0).standard_normal(2000) * np.exp(
            -np.arange(2000) / 300
        )
    assert metrics.onset_f1(x, true, config) == 1
    assert metrics.onset_f1(x, true + 0.2, config) == 0
    assert metrics.onset_f1(0 * x, true, config) == 0
    assert metrics.onset_f1(0 * x, np.array([]), config) == 1


def test_mfcc_cosine_of_a_clip_with_itself_and_with_noise(clip, config):
    x = clip(2.0)
    assert metrics.mfcc_cosine(x, x, config) == pytest.approx(1, abs=1e-6)
    noise = np.random.default_rng(0).standard_normal(len(x)).astype(np.float32)
    assert metrics.mfcc_cosine(noise, x, config) < metrics.mfcc_cosine(clip(2.0, 1), x, config)


# Intervals ------------------------------------------------------------------------------------


def test_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(200):
        low, high = benchmark.interval(rng.normal(3.0, 2.0, size=40), seed=i)
        inside += low <= 3.0 <= high
    assert 0.89 <= inside / 200 <= 0.98


def test_paired_difference_is_narrower_than_either_mean():
    rng = np.random.default_rng(0)
    hard = rng.normal(10, 4, size=30)  # what makes an item hard for all
    table = {
        benchmark.COPY: [{"LSD": v} for v in hard],
        "better": [
            {"LSD": v - 1 + e} for v, e in zip(hard, 0.2 * rng.normal(size=30), strict=True)
        ],
    }
    found = benchmark.summary(table)["better"]["LSD"]
    low, high = found["difference"]
    assert -1.2 < low < high < -0.8
    wide = found["interval"]
    assert wide[1] - wide[0] > 5 * (high - low)
    assert found["n"] == 30 and found["mean"] == pytest.approx(hard.mean() - 1, abs=0.1)


def rows(*values: float) -> list[dict[str, float]]:
    return [{"LSD": value} for value in values]


def test_a_slow_peer_is_compared_on_the_items_that_it_has():
    table = {"ours": rows(5.0, 9.0, 100.0), "peer": rows(6.0, 11.0), "other": rows(1.0)}
    for method, against, mean, n in (("peer", "ours", 1.5, 2), ("ours", "peer", -1.5, 2)):
        found = benchmark.difference(table, method, against, "LSD")
        assert (found["mean"], found["n"]) == (mean, n)
        assert found["interval"] == tuple(sorted((mean / 1.5, 2 * mean / 1.5)))
        named = {benchmark.COPY: table[against], method: table[method]}
        entry = benchmark.summary(named)[method]["LSD"]
        assert entry["difference"] == found["interval"]
        assert entry["n"] == len(table[method])
    assert benchmark.difference(table, "other", "ours", "LSD")["interval"] == (-4.0, -4.0)


def test_without_the_copy_there_are_means_and_no_differences(tmp_path):
    table = {"a": rows(1.0, 3.0), "b": rows(2.0, 2.0)}
    found = benchmark.summary(table)
    assert set(found["a"]["LSD"]) == {"mean", "n", "interval"}
    benchmark.write(tmp_path / "b.json", {"x": table}, {})
    assert json.loads((tmp_path / "b.json").read_text())["splits"]["x"]["summary"]["b"]


def test_a_difference_leaves_out_what_either_lacks():
    table = {"a": rows(1.0, np.nan, 3.0, 7.0), "b": [*rows(0.0, 1.0), {}, *rows(np.inf)]}
    assert benchmark.difference(table, "a", "b", "LSD") == {
        "mean": 1.0, "n": 1, "interval": (1.0, 1.0),
    }  # fmt: skip
    assert benchmark.difference(table, "a", "b", "timbre") == {"n": 0}
    assert benchmark.summary({"b": rows(np.nan)}) == {}


def test_names_of_any_length_line_up_and_one_item_has_no_interval():
    long = "a method whose name is longer than any other's, neural"
    text = benchmark.describe({"one": rows(2.0), long: rows(1.0, 3.0), "none": [{"timbre": 0.5}]})
    header, one, two, none = text.splitlines()
    assert one.split() == ["one", "2.000"] and none.split() == ["none", "0.500"]
    assert two.startswith(f"{long} ") and two.split()[-2:] == ["±", "1.000"]
    assert one.index("2.000") == two.index("2.000") < header.index("LSD") + 3
    assert header.index("LSD") + 3 < none.index("0.500") < len(header)


def test_what_json_cannot_say_becomes_null(tmp_path):
    table = {"a": rows(np.nan, 1.0, float("-inf"))}
    benchmark.write(tmp_path / "b.json", {"x": table}, {"nothing": np.nan, "n": 3})

    def refuse(constant):
        raise AssertionError(constant)

    stored = json.loads((tmp_path / "b.json").read_text(), parse_constant=refuse)
    assert stored["facts"] == {"nothing": None, "n": 3}
    assert [row["LSD"] for row in stored["splits"]["x"]["items"]["a"]] == [None, 1.0, None]
    assert stored["splits"]["x"]["summary"]["a"]["LSD"]["mean"] == 1.0


# Methods --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> GainTransfer:
    """Untrained, but with a head that listens to the style."""
    torch.manual_seed(0)
    model = GainTransfer(channels=16, encoder_depth=1, decoder_depth=1, heads=2, style_dim=8)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.eval()


def test_a_model_has_a_row_for_each_output_stage(network, config):
    named = benchmark.methods({"net": network}, config)
    assert list(named)[-2:] == ["net", "net, neural"]


def test_a_method_is_corrected_as_its_output_stage_wants(network, monkeypatch):
    given = []
    monkeypatch.setattr(
        transfers, "learned", lambda model, **corrections: given.append(corrections)
    )
    for vocoder in ("gain", "neural"):
        benchmark.as_method(network, vocoder=vocoder)
    benchmark.as_method(network, vocoder="neural", calibration=1.0)
    assert given[:2] == [transfers.FOR_BANDS["gain"], transfers.FOR_BANDS["neural"]]
    assert given[0] != given[1]
    assert given[2] == transfers.FOR_BANDS["neural"] | {"calibration": 1.0}


def test_a_zeroed_style_is_a_code_of_zeros_and_hears_no_style_clip(network, clip, config):
    content, style, other = (clip(1.0, seed) for seed in range(3))
    told, zeroed = (benchmark.as_method(network, zeroed=z) for z in (False, True))
    assert np.array_equal(zeroed(content, style), zeroed(content, other))
    assert not np.allclose(told(content, style), told(content, other), atol=1e-3)

    def static(content_log_mel, style_log_mel):
        own = network.encode_style(content_log_mel)
        tokens = torch.zeros_like(network.encode_style(style_log_mel).tokens)
        nothing = StyleCode(torch.zeros(1, 8 + 128), tokens)
        calibration = transfers.FOR_BANDS["gain"]["calibration"]
        return lambda x: network.gain(x, nothing, own, calibration=calibration)

    expected = transfers.transfer(content, style, method=static)
    assert np.allclose(zeroed(content, style), expected, atol=1e-5)


# Runs -----------------------------------------------------------------------------------------


def test_slow_methods_get_the_first_items_of_a_tier_and_one_without_truth(items, panel, config):
    slow, quick = benchmark.SLOW[0], benchmark.COPY
    named = dict.fromkeys((slow, quick), lambda content, style: content)
    paired = [items[0]] * 3
    for given, expected in (
        (paired, 2),
        ([replace(i, truth=None, notes=None, tier=benchmark.UNPAIRED) for i in paired], 1),
    ):
        table = benchmark.run(given, named, panel, config, slow_items=2)
        assert (len(table[slow]), len(table[quick])) == (expected, 3)


def test_a_run_scores_methods_oracles_and_truth(items, panel, config, tmp_path):
    named = {benchmark.COPY: lambda content, style: content, "half": lambda c, s: c[: len(c) // 2]}
    heard = []
    table = benchmark.run(
        items, named, panel, config, ablated={benchmark.COPY: lambda c, s: 0 * c},
        progress=heard.append,
    )  # fmt: skip
    assert heard == ["item 1/2", "item 2/2"]
    assert set(table) == {
        *named, f"{benchmark.COPY}, shuffled style", f"{benchmark.COPY}, zeroed style",
        "oracle, gain", "oracle, neural", "oracle, pghi", "truth", "style's own halves",
    }  # fmt: skip
    mean = {k: v["LSD"]["mean"] for k, v in benchmark.summary(table).items() if "LSD" in v}
    assert mean["truth"] == 0 < mean["oracle, gain"] < mean[benchmark.COPY] < mean["half"]
    for stage in ("neural", "pghi"):  # they owe the content nothing
        assert mean[f"oracle, {stage}"] < 0.5 * mean[benchmark.COPY]
    assert mean[f"{benchmark.COPY}, zeroed style"] > mean[f"{benchmark.COPY}, shuffled style"]
    benchmark.write(tmp_path / "benchmark.json", {"both": table}, {"profile": "test"})
    stored = json.loads((tmp_path / "benchmark.json").read_text())
    assert stored["splits"]["both"]["summary"] == json.loads(json.dumps(benchmark.summary(table)))
    assert set(stored["columns"]) == set(benchmark.COLUMNS)
    assert "half" in benchmark.describe(table)


def test_a_shuffled_style_is_another_items_and_a_single_item_has_none(items, panel, config):
    heard, lines = [], []

    def method(content, style):
        heard.append(id(style))
        return content

    one, two = (id(item.style) for item in items)
    settings = {"ablated": {"x": lambda c, s: c}, "progress": lines.append}
    table = benchmark.run(items, {"x": method}, panel, config, **settings)
    assert heard == [one, two, two, one] and len(table["x, shuffled style"]) == 2
    assert not any("a single item" in line for line in lines)
    heard.clear()
    table = benchmark.run(items[:1], {"x": method}, panel, config, **settings)
    assert heard == [one] and "x, shuffled style" not in table
    assert len(table["x, zeroed style"]) == 1
    assert any("a single item" in line for line in lines)


def test_samples_that_are_not_finite_are_refused(items, panel, config):
    broken = items[0].content.copy()
    broken[7] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        benchmark.score(broken, items[0], panel, config)


def test_unpaired_items_are_test_tracks_of_two_genres(gtzan_subset, config):
    corpus = corpora.read_folder(gtzan_subset, name="gtzan")
    items = benchmark.unpaired(corpus, n=4, config=config)
    assert len(items) == 4
    for item in items:
        assert item.truth is None and item.content_genre != item.style_genre
        assert len(item.content) <= benchmark.UNPAIRED_SECONDS * 22_050 and len(item.onsets) > 0


def test_a_table_of_files_is_scored(clip, panel, config, tmp_path):
    for name, seed in (("content", 0), ("style", 1), ("truth", 2)):
        audio.write_audio(tmp_path / f"{name}.wav", clip(2.0, seed), sample_rate=22_050)
    table = tmp_path / "table.csv"
    table.write_text(
        "content,style,truth,output\n"
        "content.wav,style.wav,truth.wav,truth.wav\n"
        "content.wav,style.wav,,content.wav\n"
    )
    first, second = (
        benchmark.score(output, item, panel, config)
        for item, output in (benchmark.read_files(r, config) for r in tables.read_rows(table))
    )
    assert first["LSD"] == 0 and "LSD" not in second
    assert second["pitch Jaccard"] == 0  # of the content with itself
    assert "genre hit" not in first and "multi-pitch F" not in first  # nobody knows them


# Judges ---------------------------------------------------------------------------------------


def test_timbre_network_is_the_published_one():
    net = TimbreNet()
    assert sum(p.numel() for p in net.parameters()) == 44_800
    assert net(torch.randn(2, 12, 300)).shape == (2, 64)


def test_hinge_is_zero_once_the_margin_is_kept():
    net = TimbreNet().eval()
    x, y = torch.randn(1, 12, 200), torch.randn(1, 12, 200)
    gap = float(net.distance(x, y))
    assert float(triplet_hinge_loss(net, x, x, y)) == pytest.approx(max(0, 0.1 - gap), abs=1e-6)
    assert float(triplet_hinge_loss(net, x, y, x)) == pytest.approx(0.1 + gap, abs=1e-6)


def test_genre_judge_learns_genres_that_are_plain_to_hear(config, tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 4
    log_mels = -40 + 5 * torch.randn(40, 128, 300, generator=generator)
    for i, label in enumerate(labels.tolist()):
        log_mels[i, :, label :: 4 + label] += 20  # a rhythm each
    model, curves = training_judges.train_genre(
        log_mels, labels, steps=40, path=tmp_path / "j.safetensors", config=config,
        corpus="", channels=6,
    )  # fmt: skip
    assert curves["train_loss"][-1] < 2.3
    with torch.no_grad():
        assert (model(log_mels).argmax(dim=1) == labels).float().mean() > 0.8


def test_timbre_judge_learns_to_tell_styles_from_notes(config, tmp_path):
    generator = torch.Generator().manual_seed(0)
    style = 8 * torch.randn(6, 1, 4, 128, 1, generator=generator)
    notes = 4 * torch.randn(6, 4, 1, 128, 300, generator=generator)
    _, curves = training_judges.train_timbre(
        -30 + style + notes, centred=False, steps=60, path=tmp_path / "t.safetensors",
        config=config, corpus="",
    )  # fmt: skip
    assert curves["train_triplets_right"][-1] > 0.9
