"""Values that may be wrong: the rule against its definition, and the table that is made of it."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from deel_influence.errors import LabelError
from deel_influence.evaluation import average_precision
from deel_influence.labels import LabelIssues, LabelSuspicion, cross_fit, find_label_issues
from deel_influence.labels.head import standardised, stratified_folds
from deel_influence.labels.values import estimate_wrong_values, held_out_ridge
from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import TrainingDynamics

N = 120


def network(activation=None):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation)])
    model.compile("sgd", "mse")
    return model


@cache
def problem():
    """Return inputs, values whose noise grows with the first input, and which are wrong."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 3)).astype("float32")
    noise = generator.normal(size=N) * np.where(x[:, 0] > 0, 1.0, 0.1)
    wrong = np.arange(N) % 12 == 5
    return x, (x @ [1, -2, 0.5] + noise + np.where(wrong, 4.0, 0.0)).astype("float32"), wrong


@pytest.fixture(scope="module")
def found():
    x, y, _ = problem()
    return find_label_issues(BaseInfluenceModel(network()), (x, y), num_folds=4, verbose=0)


@pytest.mark.parametrize("strength", [1e-3, 0.03, 3.0])
def test_the_held_out_values_are_those_of_scikit_learn(strength):
    x, y, _ = problem()
    y = y.astype(np.float64)
    rows, folds, expected = standardised(x), np.arange(N) % 3, np.empty(N)
    for fold in range(3):
        held = folds == fold
        model = Ridge(alpha=strength * (~held).sum()).fit(rows[~held], y[~held])
        expected[held] = model.predict(rows[held])
    np.testing.assert_allclose(held_out_ridge(rows, y, folds, strength), expected, rtol=1e-6)


def test_the_signal_is_the_residual_in_deviations_of_the_neighbours_and_of_all(found):
    x, y, _ = problem()
    rows = standardised(x)
    folds = stratified_folds(np.zeros(N), 4)
    absolute = np.abs(y - held_out_ridge(rows, y.astype(float), folds))
    near = NearestNeighbors(n_neighbors=11).fit(rows).kneighbors(return_distance=False)
    deviation = norm.ppf(0.75)  # the median of the absolute values of a normal law
    spread = (np.median(absolute[near], axis=1) + np.median(absolute)) / 2 / deviation
    np.testing.assert_allclose(found.signals["residual"], absolute / spread, rtol=1e-4)


def test_wrong_values_come_first_though_the_noise_is_uneven(found):
    x, y, wrong = problem()
    np.testing.assert_array_equal(found.labels, y)
    assert average_precision(found.suspicion, wrong) > 0.95
    assert found.is_issue.sum() == found.estimated_number
    assert found.interval[0] <= wrong.sum() <= found.interval[1] + 3
    assert np.abs(found.suggested - x @ [1, -2, 0.5])[wrong].max() < 1.5
    scores = LabelSuspicion(BaseInfluenceModel(network()), num_folds=4).score((x, y), verbose=0)
    np.testing.assert_allclose(scores.values, found.suspicion, rtol=1e-6)


def test_the_number_is_what_a_normal_law_does_not_have():
    even = norm.ppf((np.arange(2000) + 0.5) / 2000)
    far = np.array([2.5] * 30 + [9.0] * 50)
    for added, number in ((far[:0], 0), (far, 50)):
        result = estimate_wrong_values(np.abs(np.concatenate([even, added])))
        assert result.number == pytest.approx(number, abs=2)
        assert result.interval[0] <= number <= result.interval[1] + 2
    assert result.interval[1] == pytest.approx(80, abs=5)


def test_copies_dispute_only_where_their_values_are_far_apart():
    x, y, _ = problem()
    x, y = np.concatenate([x, x[:2]]), np.concatenate([y, y[:2] + [0.01, 9.0]])
    found = find_label_issues(BaseInfluenceModel(network()), (x, y), verbose=0)
    assert found.duplicate_of[[0, 1, N, N + 1]].tolist() == [None, N + 1, None, 1]


def test_a_table_of_values_goes_through_files_and_merges(found, tmp_path):
    loaded = LabelIssues.load(found.save(tmp_path / "issues"))
    pd.testing.assert_frame_equal(loaded.to_pandas(), found.to_pandas())
    assert loaded.given_probability is None
    assert "given_probability" not in loaded.to_pandas()
    x, y, _ = problem()
    frame = pd.DataFrame(x, index=np.arange(N) + N)
    other = find_label_issues(BaseInfluenceModel(network()), (frame, y), num_folds=4, verbose=0)
    merged = loaded.merge(other)
    np.testing.assert_allclose(merged.labels, np.tile(y, 2))
    assert merged.given_probability is None
    assert "of the label" not in found._repr_html_()


def test_what_needs_classes_is_refused():
    x, y, _ = problem()
    model = BaseInfluenceModel(network())
    with pytest.raises(ValueError, match="`signals`.*must be None.*signals"):
        find_label_issues(model, (x, y), signals=["head"], verbose=0)
    dynamics = TrainingDynamics(record=["loss"])
    model.model.fit(x, y, epochs=1, verbose=0, callbacks=[dynamics])
    with pytest.raises(ValueError, match="`dynamics`.*Received: dynamics"):
        find_label_issues(model, (x, y), dynamics=dynamics, verbose=0)
    with pytest.raises(LabelError, match="must be classes for a cross-fit"):
        cross_fit(lambda: network("sigmoid"), (x, y), epochs=1, verbose=0)
