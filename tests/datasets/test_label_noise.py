"""Label noise: exact counts, real changes, one draw per seed."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.datasets.label_noise import flip_labels

LABELS = np.random.default_rng(3).integers(0, 10, size=997)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.333, 1.0])
@pytest.mark.parametrize("seed", [0, 7])
def test_exactly_the_asked_share_is_flipped_to_another_class(fraction, seed):
    noisy, flipped = flip_labels(LABELS, fraction, seed=seed)
    assert flipped.sum() == round(fraction * len(LABELS))
    np.testing.assert_array_equal(noisy != LABELS, flipped)
    assert noisy.min() >= 0
    assert noisy.max() <= 9


def test_the_same_seed_gives_the_same_noise_and_another_seed_another():
    first, again, other = (flip_labels(LABELS, 0.2, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_given_labels_stay_as_they_are():
    labels = LABELS.copy()
    flip_labels(labels, 0.5)
    np.testing.assert_array_equal(labels, LABELS)


def test_flips_reach_all_other_classes_about_equally_often():
    noisy, _ = flip_labels(np.zeros(9000, dtype=np.int64), 1.0, num_classes=10)
    counts = np.bincount(noisy, minlength=10)
    assert counts[0] == 0
    # 1000 each are expected; five standard deviations of a binomial count are 149.
    assert np.abs(counts[1:] - 1000).max() < 150


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.int64])
def test_the_dtype_of_the_labels_is_kept(dtype):
    noisy, flipped = flip_labels(LABELS.astype(dtype), 0.5)
    assert noisy.dtype == dtype
    np.testing.assert_array_equal(noisy != LABELS, flipped)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.eye(3), {}, r"shape \(3, 3\)\. Turn one-hot labels.*argmax"),
        (np.ones((4, 1), int), {}, r"shape \(4, 1\)\. Flatten them"),
        (np.ones(4), {}, r"integer dtype.*float64"),
        (np.array(["a", "b"]), {}, r"integer dtype.*np\.unique"),
        (np.array([], dtype=int), {}, r"at least one label"),
        (np.array([0, -1]), {}, r"lie in 0\.\.0.*from -1 to 0"),
        (np.array([0, 5]), {"num_classes": 5}, r"lie in 0\.\.4 for 5 classes.*from 0 to 5"),
        (np.zeros(3, int), {}, r"`num_classes` must be at least 2.*num_classes=1"),
        (np.array([0, 1]), {"fraction": 10}, r"`fraction` must be a share.*fraction=10"),
        (np.array([0, 1]), {"fraction": np.nan}, r"`fraction` must be a share"),
    ],
)
def test_unusable_arguments_are_refused_with_a_remedy(labels, options, message):
    with pytest.raises(ValueError, match=message):
        flip_labels(labels, **{"fraction": 0.1, **options})
