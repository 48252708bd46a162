"""Multiple pitch estimation on notes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from audiostyle_lib.evaluation import metrics, pitch

RATE = 22_050


def harmonic(midi: int, seconds: float = 1.0, partials: int = 8, cents: float = 0.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((midi + cents / 100 - 69) / 12)
    return sum(np.sin(2 * np.pi * k * hz * time) / k for k in range(1, partials + 1))


def notes_inside(roll: np.ndarray) -> set[int]:
    """Notes of at least half the frames, the edges apart."""
    inner = roll[5:-5]
    return set((inner.mean(axis=0) > 0.5).nonzero()[0].tolist())


@pytest.mark.parametrize("midi", [36, 45, 57, 69, 84])
@pytest.mark.parametrize("cents", [-20, 0, 20])
def test_a_single_note_is_found_and_no_other(config, midi, cents):
    assert notes_inside(pitch.piano_roll(harmonic(midi, cents=cents), config)) == {midi}


@pytest.mark.parametrize("chord", [(60, 64, 67), (48, 60, 64), (57, 61, 64, 69)])
def test_chords_are_found_with_their_octaves(config, chord):
    x = sum(harmonic(note) for note in chord)
    assert notes_inside(pitch.piano_roll(x, config)) == set(chord)


def test_silence_holds_no_notes_and_a_pause_none_either(config):
    assert not pitch.piano_roll(np.zeros(RATE, np.float32), config).any()
    x = np.concatenate([harmonic(69), np.zeros(RATE)])
    roll = pitch.piano_roll(x, config)
    assert roll[10:30, 69].all() and not roll[60:80].any()


def test_the_true_roll_holds_a_note_for_as_long_as_it_sounds(config):
    roll = pitch.true_roll(np.array([[0.5, 1.0, 60], [-1.0, 0.25, 64]]), 100, config)
    assert roll[:, 60].nonzero()[0].tolist() == list(range(22, 44))  # 0.5 s is frame 21.5
    assert roll[:, 64].nonzero()[0].tolist() == list(range(11))
    assert roll.sum() == 33


def test_f_and_jaccard_of_known_notes(config):
    notes = np.array([[0.0, 2.0, 60], [0.0, 2.0, 67]])
    both, one = harmonic(60, 2.0) + harmonic(67, 2.0), harmonic(60, 2.0)
    assert metrics.multi_pitch_f(both, notes, config) > 0.97
    assert metrics.multi_pitch_f(one, notes, config) == pytest.approx(2 / 3, abs=0.03)
    assert metrics.multi_pitch_f(harmonic(61, 2.0), notes, config) < 0.05
    assert metrics.multi_pitch_f(np.zeros(RATE, np.float32), notes, config) == 0
    assert metrics.pitch_jaccard_distance(both, both, config) == 0
    assert metrics.pitch_jaccard_distance(one, both, config) == pytest.approx(0.5, abs=0.05)
    assert metrics.pitch_jaccard_distance(one, harmonic(61, 2.0), config) > 0.95  # a semitone off
    silence = np.zeros(RATE, np.float32)
    assert metrics.pitch_jaccard_distance(silence, silence, config) == 0  # as published


def test_level_changes_nothing(config):
    x = harmonic(60) + harmonic(64)
    np.testing.assert_array_equal(pitch.piano_roll(x, config), pitch.piano_roll(0.01 * x, config))


def plain_roll(spectrum, loud) -> np.ndarray:
    """Klapuri's estimate written plainly: every sum anew after each note."""
    hz = 440 * 2 ** ((np.arange(pitch.LOWEST, pitch.HIGHEST + 1 / 3, 1 / 3) - 69) / 12)
    partials = hz[:, None] * np.arange(1, pitch.HARMONICS + 1)
    spread = 0.5 * (2 ** (1 / 36) - 1)
    bins = partials * pitch.PADDED / RATE
    low, high = (np.floor(bins * f + 0.5).astype(int) for f in (1 - spread, 1 + spread))
    weight = (hz[:, None] + pitch.ALPHA_HZ) / (partials + pitch.BETA_HZ)
    n_inside = (high < spectrum.shape[1]).sum(axis=1)
    roll = np.zeros((len(spectrum), 128), dtype=bool)

    def loudest(y, c):
        return [low[c, m] + np.argmax(y[low[c, m] : high[c, m] + 1]) for m in range(n_inside[c])]

    for t in np.flatnonzero(loud):
        y, total, best = spectrum[t].copy(), 0.0, 0.0
        for n in range(1, pitch.MOST_NOTES + 1):
            sums = [weight[c, : n_inside[c]] @ y[loudest(y, c)] for c in range(len(hz))]
            winner = int(np.argmax(sums))
            total += sums[winner]
            if total / n**pitch.POLYPHONY <= best:
                break
            best = total / n**pitch.POLYPHONY
            roll[t, pitch.LOWEST + int(np.floor(winner / 3 + 0.5))] = True
            for m in range(n_inside[winner]):
                k = loudest(y, winner)[m]
                for j in range(max(0, k - 3), min(len(y), k + 4)):
                    y[j] *= max(0.0, 1 - pitch.CANCEL * weight[winner, m] * (1 - abs(j - k) / 4))
    return roll


def test_looking_up_only_what_has_changed_finds_the_same_notes(config):
    noise = np.random.default_rng(0).standard_normal(RATE // 4)
    x = sum(harmonic(note, 0.25) for note in (45, 52, 61, 76)) + 0.3 * noise
    spectrum, level = pitch._whitened(x.astype(np.float32), config)
    expected = plain_roll(spectrum, level > level.max() + pitch.SILENT_DB)
    assert expected.any()
    np.testing.assert_array_equal(pitch.piano_roll(x, config), expected)
