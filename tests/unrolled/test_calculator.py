"""What the calculator makes of a run: windows, epochs, groups, ids and measurements."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import ConvergenceWarning, DataSourceError, NonFiniteError
from deel_influence.unrolled import RecordedRun, UnrolledInfluenceCalculator, record_fit
from deel_influence.unrolled.updates import AdamUpdate
from deel_influence.utils.datasets import Item
from deel_influence.utils.intake import with_ids
from deel_influence.utils.top_k import ORDER
from tests.oracles import assert_close
from tests.unrolled.runs import EPOCHS, RECIPES, M, N, arrays, compiled

IDS = [f"picture {i}" for i in range(N)]
QUERIES = [10, 20, 30]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def run() -> RecordedRun:
    model = compiled(RECIPES["momentum, schedule, decay"])
    data = with_ids(arrays(N, 0), IDS)
    return record_fit(model, data, epochs=EPOCHS, batch_size=4, seed=1, verbose=0)


@pytest.fixture(scope="module")
def queries() -> tf.data.Dataset:
    return with_ids(arrays(M, 9), QUERIES)


@pytest.fixture(scope="module")
def by_epoch(run: RecordedRun, queries: tf.data.Dataset) -> np.ndarray:
    return UnrolledInfluenceCalculator(run).influence_by_epoch(queries, verbose=0).values


def test_the_epochs_add_up_to_the_influence(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    values, query_ids, train_ids = UnrolledInfluenceCalculator(run).influence_matrix(
        queries, return_ids=True, verbose=0
    )
    assert_close(by_epoch.sum(axis=2), values, rtol=1e-6)
    assert query_ids.tolist() == QUERIES
    assert train_ids.tolist() == IDS


def test_values_in_a_folder_go_on_where_they_were_cut_off(
    run: RecordedRun, queries: tf.data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calculator = UnrolledInfluenceCalculator(run, queries_at_once=2)
    kept = calculator.influence_matrix(queries, verbose=0, store=tmp_path)
    np.testing.assert_array_equal(kept, calculator.influence_matrix(queries, verbose=0))
    assert kept.query_ids.tolist() == QUERIES
    assert kept.train_ids.tolist() == IDS
    _, second = sorted(tmp_path.glob("part-*"))
    before = second.read_bytes()
    second.unlink()
    backwards, computed = calculator._backwards, []

    def counted(group: Item) -> Iterator[Any]:
        computed.append(group.index)
        return backwards(group)

    monkeypatch.setattr(calculator, "_backwards", counted)
    calculator.influence_matrix(queries, verbose=0, store=tmp_path)
    assert computed == [1]
    assert second.read_bytes() == before
    for other in (
        UnrolledInfluenceCalculator(run, queries_at_once=2, from_step=4),
        UnrolledInfluenceCalculator(run, queries_at_once=3),
        UnrolledInfluenceCalculator(run, measurement="margin", queries_at_once=2),
    ):
        with pytest.raises(DataSourceError, match="has another"):
            other.influence_matrix(queries, verbose=0, store=tmp_path)
    with pytest.raises(DataSourceError, match="has another queries"):
        calculator.influence_matrix(arrays(M, 9), verbose=0, store=tmp_path)


def test_a_window_has_the_steps_from_its_first_on(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    calculator = UnrolledInfluenceCalculator(run, from_step=4)
    values = calculator.influence_matrix(queries, verbose=0)
    seen = run.order.steps_of_examples() >= 4
    assert_close(values, (by_epoch * seen).sum(axis=2), rtol=1e-6)


def test_queries_that_go_in_groups_get_the_same_values(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    calculator = UnrolledInfluenceCalculator(run, queries_at_once=2)
    assert_close(calculator.influence_matrix(queries, verbose=0), by_epoch.sum(axis=2), rtol=1e-5)


def test_the_change_of_a_group_is_the_sum_of_its_values_over_n(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    groups = np.arange(N) % 3 - 1
    found = UnrolledInfluenceCalculator(run).predict_loss_change(queries, groups, verbose=0)
    values = by_epoch.sum(axis=2) / N
    expected = np.stack([values[:, groups == group].sum(axis=1) for group in (0, 1)], axis=1)
    assert_close(found, expected, rtol=1e-5)


def test_the_best_examples_are_named_by_their_ids(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    found = UnrolledInfluenceCalculator(run).find_top_k(queries, 2, ORDER.ASCENDING, verbose=0)
    places = np.argsort(by_epoch.sum(axis=2), axis=1)[:, :2]
    assert found.train_ids.tolist() == [[IDS[place] for place in row] for row in places]
    assert found.query_ids.tolist() == QUERIES


def test_a_measurement_takes_the_place_of_the_loss(
    run: RecordedRun, queries: tf.data.Dataset, by_epoch: np.ndarray
) -> None:
    twice = UnrolledInfluenceCalculator(run, lambda y, outputs: 2.0 * LOSS.call(y, outputs))
    assert_close(twice.influence_matrix(queries, verbose=0), 2 * by_epoch.sum(axis=2), rtol=1e-5)


def test_derivatives_that_are_not_finite_are_refused(
    run: RecordedRun, queries: tf.data.Dataset
) -> None:
    calculator = UnrolledInfluenceCalculator(run, lambda _, outputs: tf.sqrt(0.0 * outputs[:, 0]))
    with pytest.raises(NonFiniteError, match=rf"batch 0 .*, first for example {QUERIES[0]}"):
        calculator.influence_matrix(queries, verbose=0)
    calculator = UnrolledInfluenceCalculator(run, lambda _, outputs: 1e38 * outputs[:, 0])
    with pytest.raises(NonFiniteError, match=r"NaN or infinity at step \d"):
        calculator.influence_matrix(queries, verbose=0)


def test_a_run_that_was_found_rough_is_warned_of(run: RecordedRun) -> None:
    with pytest.warns(ConvergenceWarning, match=r"smoothness 0.20, below 0.5"):
        UnrolledInfluenceCalculator(replace(run, smoothness=0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UnrolledInfluenceCalculator(replace(run, smoothness=0.8))


def test_the_derivative_of_adam_at_a_gradient_that_was_always_zero_is_that_of_its_momentum() -> (
    None
):
    update, rate, step = AdamUpdate(), tf.constant(1e-3, tf.float64), tf.constant(1.0, tf.float64)
    zero = tf.zeros((), tf.float64)

    def moved(gradient: tf.Tensor) -> tf.Tensor:
        return update(zero, [zero, zero], gradient, rate, step)[0]

    none = tf.constant(0.0, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(none)
        weight = moved(none)
    slope = tape.gradient(weight, none)
    small = 1e-14
    for sign in (1, -1):
        assert_close(slope, moved(tf.constant(sign * small, tf.float64)) / (sign * small), 1e-6)
    assert -317 < float(slope) < -316
