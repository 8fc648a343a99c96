"""What the fit of a TRAK computed for its examples serves their scores."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients import GradientEngine
from deel_influence.trak import TRAK
from deel_influence.trak.known_rows import KnownRows
from tests.oracles import assert_close
from tests.trak.problems import M, N, batches, data, network, wrapped

ROOM = "deel_influence.trak.trak.bytes_to_hold"


@pytest.fixture(scope="module", params=[1, 2])
def models(request) -> list:
    return [wrapped(network()) for _ in range(request.param)]


def calculator(models: list) -> TRAK:
    return TRAK(models, batches(), projection="gaussian", projection_dim=6, damping=0.1, verbose=0)


def matrix(found: TRAK, train: tf.data.Dataset) -> np.ndarray:
    return found.influence_matrix(batches(M, 1), train, verbose=0)


def test_scores_are_those_of_a_fit_that_keeps_nothing(models, monkeypatch):
    found = calculator(models)
    monkeypatch.setattr(ROOM, lambda: 0)
    anew = calculator(models)
    for train in (batches(), batches(size=7), batches(N + 3, seed=0), batches(9, seed=5)):
        assert_close(matrix(found, train), matrix(anew, train), 1e-5)
        one, other = (c.score(train, verbose=0).values for c in (found, anew))
        assert_close(one, other, 1e-5)


def test_no_gradients_are_taken_again_of_the_examples_of_the_fit(models, monkeypatch):
    models = [wrapped(network()) for _ in models]  # for which nothing is compiled yet
    found, taken = calculator(models), []
    plain = GradientEngine.gradients
    monkeypatch.setattr(
        GradientEngine, "gradients", lambda self, batch: taken.append(1) or plain(self, batch)
    )
    matrix(found, batches(size=5))  # other batches of the same examples
    assert len(taken) == 1  # the queries'
    x, y = data()
    x[4] += 1
    matrix(found, tf.data.Dataset.from_tensor_slices((x, y)).batch(8))
    assert len(taken) == 2


def test_a_copy_computes_anew(models):
    found = calculator(models)
    assert_close(matrix(copy.copy(found), batches()), matrix(found, batches()), 1e-5)


def test_rows_are_known_by_content_and_form_alone():
    x = np.arange(12.0, dtype="float32").reshape(6, 2)
    known = KnownRows(2**10)
    for rows in (slice(0, 4), slice(4, 6)):
        known.note((tf.constant(x[rows]),), tf.constant(10 * x[rows]))
    np.testing.assert_array_equal(known.of((tf.constant(x[[5, 0, 3]]),)), 10 * x[[5, 0, 3]])
    assert known.of((tf.constant(x[[5, 0]] + 1),)) is None
    padded = np.pad(x, [(0, 0), (0, 1)])
    assert known.of((tf.constant(padded),)) is None


def test_more_rows_than_there_is_room_for_are_not_kept():
    x = tf.ones((3, 2))
    known = KnownRows(2 * 3 * 2 * 4 - 1)
    known.note((x,), x)
    known.note((x,), x)
    assert known.of((x,)) is None
