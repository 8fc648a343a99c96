"""The head that is fitted anew, its folds and its features."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from deel_influence.labels.head import held_out_head, standardised, stratified_folds
from tests.labels.problems import clouds


def of_scikit_learn(rows, labels, folds, num_classes, strength):
    """Fit the same objective with another solver."""
    rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    result = np.empty((len(rows), num_classes))
    # Of two classes scikit-learn has one vector of weights, the difference of ours.
    factor = 2 if num_classes > 2 else 1
    for fold in np.unique(folds):
        held = folds == fold
        inverse = 1 / (factor * strength * (~held).sum())
        head = LogisticRegression(C=inverse, fit_intercept=False, tol=1e-10, max_iter=10_000)
        head.fit(rows[~held], labels[~held])
        result[held] = head.predict_log_proba(rows[held])
    return result


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("strength", [1e-3, 0.03, 1.0])
def test_it_is_the_minimum_that_scikit_learn_finds(num_classes, strength):
    x, labels = clouds()
    labels = np.minimum(labels, num_classes - 1)
    rows, folds = standardised(x), stratified_folds(labels, 4)
    found = held_out_head(rows, labels, num_classes, folds, strength)
    expected = of_scikit_learn(rows, labels, folds, num_classes, strength)
    # The gradient is left at a hundredth of that of the penalty.
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_label_has_no_part_in_what_is_said_of_its_own_example():
    x, labels = clouds()
    folds = stratified_folds(labels, 3)
    before = held_out_head(standardised(x), labels, 3, folds)
    changed = labels.copy()
    changed[folds == 0] = (labels[folds == 0] + 1) % 3
    after = held_out_head(standardised(x), changed, 3, folds)
    np.testing.assert_allclose(after[folds == 0], before[folds == 0], atol=1e-8)
    assert np.abs(after[folds != 0] - before[folds != 0]).max() > 0.1


def test_a_class_that_only_one_fold_has_is_improbable_there_and_nothing_breaks():
    x, labels = clouds()
    labels = np.where(np.arange(len(labels)) == 5, 3, labels)
    found = held_out_head(standardised(x), labels, 4, stratified_folds(labels, 3))
    assert np.isfinite(found).all()
    assert found[5, 3] < np.log(0.1)


@pytest.mark.parametrize(("n", "num_folds"), [(90, 4), (7, 3), (3, 3)])
def test_folds_have_their_share_of_everything(n, num_folds):
    labels = np.random.default_rng(1).integers(0, 3, n)
    folds = stratified_folds(labels, num_folds, seed=2)
    for part in (folds, *(folds[labels == label] for label in np.unique(labels))):
        assert np.ptp(np.bincount(part, minlength=num_folds)) <= 1
    assert (stratified_folds(labels, num_folds, seed=2) == folds).all()


def test_other_seeds_give_other_folds():
    labels = np.zeros(50, int)
    assert (stratified_folds(labels, 5, 0) != stratified_folds(labels, 5, 1)).any()


def test_a_constant_feature_is_zero():
    features = np.array([[1.0, 5.0], [3.0, 5.0]], "float32")
    assert standardised(features).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
