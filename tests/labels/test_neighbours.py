"""Neighbours against scikit-learn, and what they tell against definitions one pair at a time."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from deel_influence.labels import neighbours
from deel_influence.labels.neighbours import COPIES, nearest_neighbours


@pytest.mark.parametrize("pairs", [2**24, 100])
@pytest.mark.parametrize("k", [1, 5, 29, 500])
def test_they_are_those_of_scikit_learn(k, pairs, monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_PAIRS", pairs)
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(30, 4)), generator.integers(0, 3, 30)
    near = NearestNeighbors(n_neighbors=min(k, 29), algorithm="brute").fit(features)
    distances, indices = near.kneighbors()
    found = nearest_neighbours(features, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
    shares = found.shares(labels, 3)
    np.testing.assert_allclose(shares, np.eye(3)[labels[indices]].mean(axis=1))
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_nearest_of_many_are_the_nearest_of_few():
    features = np.random.default_rng(0).normal(size=(30, 4))
    few, many = nearest_neighbours(features, 3), nearest_neighbours(features, 9).first(3)
    np.testing.assert_array_equal(few.indices, many.indices)
    np.testing.assert_array_equal(few.distances, many.distances)


def test_an_example_is_no_neighbour_of_itself_even_among_equal_ones():
    found = nearest_neighbours(np.zeros((4, 2)), 3)
    shares = found.shares(np.array([0, 1, 1, 1]), 2)
    np.testing.assert_allclose(shares, [[0, 1], [1 / 3, 2 / 3], [1 / 3, 2 / 3], [1 / 3, 2 / 3]])
    assert found.outlier_scores().tolist() == [0.0] * 4


def test_a_single_example_has_none():
    found, labels = nearest_neighbours(np.zeros((1, 2)), 3), np.array([0])
    assert found.shares(labels, 2).tolist() == [[0.0, 0.0]]
    assert found.outlier_scores().tolist() == [0.0]
    assert found.disputing_copies(labels).tolist() == [-1]


def test_what_is_far_from_everything_is_an_outlier():
    features = np.random.default_rng(0).normal(size=(40, 3))
    features[7] += 30
    found = nearest_neighbours(features, 5)
    pairs = np.linalg.norm(features[:, None] - features, axis=2)
    means = np.sort(pairs, axis=1)[:, 1:6].mean(axis=1)
    expected = 1 - np.exp(-means / np.median(means))
    np.testing.assert_allclose(found.outlier_scores(), expected, rtol=1e-5)
    assert found.outlier_scores().argmax() == 7
    assert found.outlier_scores()[7] > 0.99


def disputing_by_pairs(features, labels):
    pairs = np.linalg.norm(features[:, None] - features, axis=2) + np.diag([np.inf] * len(labels))
    bound, result = COPIES * np.median(pairs.min(axis=1)), []
    for distances, label in zip(pairs, labels, strict=True):
        others = np.where(labels == label, np.inf, distances)
        result.append(int(others.argmin()) if others.min() <= bound else -1)
    return result


def test_copies_with_another_label_are_found_and_no_others():
    features = np.random.default_rng(0).normal(size=(40, 300)) * 100
    labels = np.arange(40) % 3
    features[3] = features[0]  # of the same label
    features[[5, 6]] = features[20]  # of labels 2, 0 and 2
    features[8] = features[9] + 0.5
    found = nearest_neighbours(features, 6).disputing_copies(labels)
    assert found.tolist() == disputing_by_pairs(features, labels)
    assert {i: j for i, j in enumerate(found.tolist()) if j >= 0} == {5: 6, 6: 5, 8: 9, 9: 8, 20: 6}


def test_among_many_copies_only_copies_dispute():
    features = np.repeat([[0.0], [1.0], [1.0001]], [6, 6, 1], axis=0)
    labels = np.array([0] * 5 + [1] * 8)
    found = nearest_neighbours(features, 12).disputing_copies(labels)
    assert found.tolist() == [5] * 5 + [0] + [-1] * 7
