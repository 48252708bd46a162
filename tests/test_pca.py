"""Trivial predictors have their analytic values; PCA is scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from audiostyle_lib.evaluation import metrics
from audiostyle_lib.signal import features, pca


def log_mels(n: int, seed: int = 0, n_mels: int = 16, n_frames: int = 32) -> torch.Tensor:
    """Correlated over bands and frames, in dB, every band with its own mean."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, n_mels // 4, n_frames // 4, generator=generator)
    x = coarse.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    x = x + 0.3 * torch.randn(n, n_mels, n_frames, generator=generator)
    return -40 - torch.arange(n_mels)[:, None] + 8 * x


@given(n=st.integers(1, 4), n_patches=st.integers(1, 5), n_frames=st.integers(1, 6))
def test_patches_and_back(n, n_patches, n_frames):
    x = torch.randn(n, 3, n_patches * n_frames)
    flat = pca.patches(x, n_frames)
    assert flat.shape == (n * n_patches, 3 * n_frames)
    assert torch.equal(pca.from_patches(flat, n, 3), x)


def test_patches_are_consecutive_frames():
    x = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    cut = pca.patches(x, 4)
    assert torch.equal(cut[1], x[0, :, 4:].flatten()) and torch.equal(cut[2], x[1, :, :4].flatten())


@pytest.mark.parametrize("n_components", [1, 5, 12])
def test_pca_is_scikit_learns(n_components):
    train, test = log_mels(40), log_mels(10, seed=1)
    ours = pca.fit_pca(train, n_frames=4, n_components=12)
    theirs = PCA(n_components).fit(pca.patches(train, 4).numpy())
    np.testing.assert_allclose(ours.variances[:n_components], theirs.explained_variance_, rtol=1e-3)
    flat = pca.patches(test, 4).numpy()
    expected = theirs.inverse_transform(theirs.transform(flat))
    found = pca.patches(ours.rebuild(test, n_components), 4)
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_pca_of_everything_is_perfect_and_of_few_patches_is_small():
    x = log_mels(40)
    full = pca.fit_pca(x, n_frames=2, n_components=999)
    assert len(full.components) == 32
    torch.testing.assert_close(full.rebuild(x), x, atol=1e-2, rtol=0)
    assert len(pca.fit_pca(x[:1], n_frames=8, n_components=99).components) == 3


def test_pca_of_spread_patches_is_nearly_that_of_all():
    x = log_mels(100)
    some = pca.fit_pca(x, n_frames=4, n_components=4, at_most=200)
    every = pca.fit_pca(x, n_frames=4, n_components=4)
    error = [float((p.rebuild(x) - x).square().mean()) for p in (some, every)]
    assert error[1] <= error[0] < 1.2 * error[1]


def test_track_means_know_the_track_only():
    x, track = log_mels(5), torch.tensor([0, 0, 1, 1, 1])
    means = metrics.track_means(x, track)
    expected = x[2:].mean(dim=(0, 2))
    for i in (2, 3, 4):
        torch.testing.assert_close(means[i], expected[:, None].expand(16, 32))


def test_trivial_predictors_have_their_analytic_values():
    """Standardised: the training mean scores R2 0 and cosine 0 on its own tracks, the error is 1."""
    train, track = log_mels(60), torch.arange(60) // 6
    standardize = features.Standardizer(16).fit(train)
    guesses = metrics.trivial_predictions(train, train, track)
    scores = {
        name: metrics.reconstruction_scores(x, train, standardize) for name, x in guesses.items()
    }
    assert list(scores) == ["constant", "training mean", "track mean"]
    mean = scores["training mean"]
    assert mean["R2"] == pytest.approx(0, abs=1e-5) and mean["MSE"] == pytest.approx(1, abs=1e-3)
    assert mean["cosine"] == pytest.approx(0, abs=0.05)
    assert scores["constant"]["R2"] < 0, "bands differ in level"
    assert 0 < scores["track mean"]["R2"] < 0.2, "it knows the track, and tracks hardly differ"
    # where the data are dB below a maximum, a constant's cosine is |mu| / sqrt(mu^2 + sigma^2)
    below = metrics.db_below_maximum(train)
    by_item = [x.mean().abs() / x.square().mean().sqrt() for x in below]
    constant = torch.full_like(below, -12.3)
    assert metrics.cosine_similarity(constant, below) == pytest.approx(
        float(torch.stack(by_item).mean()), abs=1e-5
    )
