"""Shares of classes among neighbours, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from deel_influence.labels import neighbours
from deel_influence.labels.neighbours import neighbour_shares


@pytest.mark.parametrize("pairs", [2**24, 100])
@pytest.mark.parametrize("k", [1, 5, 29, 500])
def test_they_are_those_of_scikit_learn(k, pairs, monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_PAIRS", pairs)
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(30, 4)), generator.integers(0, 3, 30)
    near = NearestNeighbors(n_neighbors=min(k, 29), algorithm="brute").fit(features)
    expected = np.eye(3)[labels[near.kneighbors(return_distance=False)]].mean(axis=1)
    found = neighbour_shares(features, labels, 3, k)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_an_example_is_no_neighbour_of_itself_even_among_equal_ones():
    labels = np.array([0, 1, 1, 1])
    shares = neighbour_shares(np.zeros((4, 2)), labels, 2, 3)
    np.testing.assert_allclose(shares, [[0, 1], [1 / 3, 2 / 3], [1 / 3, 2 / 3], [1 / 3, 2 / 3]])


def test_a_single_example_has_none():
    assert neighbour_shares(np.zeros((1, 2)), np.array([0]), 2, 3).tolist() == [[0.0, 0.0]]
