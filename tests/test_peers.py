"""Peers on clips for which the right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiostyle_lib.evaluation import metrics, peers


def test_musaicing_of_a_clip_by_itself_gives_it_back(clip, config):
    """Its own frames are among the templates, so little is lost but what the constraints forbid."""
    x = clip(3.0)
    y = peers.musaicing(x, x, config)
    assert len(y) == len(x) and np.isfinite(y).all()
    itself = metrics.spectral_convergence(y, x, config)
    other = metrics.spectral_convergence(peers.musaicing(x, clip(3.0, 1), config), x, config)
    assert itself < -6 and itself < other - 3


def test_musaicing_uses_only_frames_of_the_style(tone, config):
    """A content of 1000 Hz from a style of 300 Hz cannot sound at 1000 Hz."""
    y = peers.musaicing(tone(1000.0, 2.0), tone(300.0, 2.0), config)
    spectrum = np.abs(np.fft.rfft(y[4096:-4096]))
    hz = np.fft.rfftfreq(len(y[4096:-4096]), 1 / config.sample_rate)
    assert hz[spectrum.argmax()] == pytest.approx(300, abs=15)


def test_constraints_of_musaicing_by_hand():
    h = np.array([[1.0, 3.0, 2.0, 0.5], [2.0, 2.5, 1.0, 4.0], [5.0, 0.1, 0.2, 0.3]])
    kept = peers._suppress(h, 0.0, repetition=1, polyphony=1)
    # local maxima in time: (0, 1), (1, 1), (1, 3), (2, 0), (2, 3); of these the largest per frame
    expected = np.zeros_like(h)
    expected[2, 0], expected[0, 1], expected[1, 3] = 5.0, 3.0, 4.0
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(peers._suppress(h, 1.0, repetition=1, polyphony=1), h)
    diagonal = peers._along_diagonals(np.eye(5), 1)
    np.testing.assert_array_equal(np.diag(diagonal), [2, 3, 3, 3, 2])
    assert diagonal.sum() == 13


@pytest.mark.parametrize("method", [peers.gram_random, peers.gram_representations])
def test_gram_matching_keeps_the_content_and_moves_to_the_style(method, clip, tone, config):
    """The style is a lone tone: with all weight on it, it is heard; with none, the content is."""
    content, style = clip(1.5), tone(1000.0, 1.5)
    small = {"n_filters": 1024, "iterations": 40}
    kept, moved = (method(content, style, config, style_weight=w, **small) for w in (0.0, 1e4))
    for y in (kept, moved):
        assert len(y) == len(content) and np.isfinite(y).all()
    to_content, to_style = (
        [metrics.chroma_similarity(y, x, config) for y in (kept, moved)] for x in (content, style)
    )
    assert to_content[0] > 0.8 and to_content[0] > to_content[1] + 0.1
    assert to_style[1] > to_style[0] + 0.15


@pytest.mark.parametrize("n_features", [5, 40])  # fewer and more than frames
def test_gram_distance_is_that_of_the_matrices(n_features):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(n_features, n, generator=generator).double() for n in (20, 31))
    a.requires_grad_()
    expected = (peers.gram_matrix(a) - peers.gram_matrix(b)).square().sum()
    found = peers.gram_distance(a, b)
    torch.testing.assert_close(found, expected)
    slopes = (torch.autograd.grad(x, a)[0] for x in (found, expected))
    torch.testing.assert_close(*slopes)


def test_gram_matrix_does_not_depend_on_the_order_of_frames():
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    shuffled = rows[:, torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(peers.gram_matrix(rows), peers.gram_matrix(shuffled))
    torch.testing.assert_close(peers.gram_matrix(2 * rows), 4 * peers.gram_matrix(rows))


@pytest.mark.parametrize("midi", [36, 60, 81])
def test_constant_q_has_its_peak_at_the_note(tone, config, midi):
    hz = 440 * 2 ** ((midi - 69) / 12)
    magnitude = peers.constant_q(torch.from_numpy(tone(hz, 2.0)), config)
    assert magnitude.shape == (84, config.n_frames(44_100))
    assert int(magnitude[:, 40].argmax()) == midi - 24  # C1 is MIDI 24
