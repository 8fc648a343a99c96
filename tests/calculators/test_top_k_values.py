"""Ids and scores of the best training examples, as values that merge."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.calculators import InfluenceBlock, TopK
from deel_influence.errors import DataSourceError
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.trac_in import TracIn
from deel_influence.utils import ORDER, with_ids
from tests.calculators.test_contract import QUERIES, TRAIN
from tests.calculators.test_values import model
from tests.oracles import assert_close


def best(values: np.ndarray, ids: np.ndarray, k: int, order: ORDER) -> tuple[list, list]:
    """Return ids and scores by sorting them all."""
    sign = -1 if order is ORDER.DESCENDING else 1
    places = [np.lexsort((ids, sign * row))[:k] for row in values]
    return [ids[p].tolist() for p in places], [v[p].tolist() for v, p in zip(values, places)]  # noqa: B905


@pytest.mark.parametrize("order", list(ORDER))
def test_the_best_are_those_of_the_matrix_and_of_top_k(order):
    calculator = FirstOrderInfluenceCalculator(model(), TRAIN, "identity")
    found = calculator.find_top_k(QUERIES, TRAIN, 3, order, verbose=0)
    matrix, rows, columns = calculator.influence_matrix(QUERIES, TRAIN, return_ids=True, verbose=0)
    ids, values = best(matrix, columns, 3, order)
    assert found.train_ids.tolist() == ids
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    assert found.query_ids.tolist() == rows.tolist()
    lazy = list(calculator.top_k(QUERIES, TRAIN, 3, order=order, return_ids=True))
    assert np.concatenate([item[3] for item in lazy]).tolist() == ids


def test_shards_merge_to_the_whole_and_more_than_there_are_is_all():
    calculator = FirstOrderInfluenceCalculator(model(), TRAIN, "identity")
    examples = TRAIN.unbatch()
    ids = [f"example {i}" for i in range(len(list(examples)))]
    train = with_ids(TRAIN, ids)
    halves = (
        with_ids(examples.take(5).batch(2), ids[:5]),
        with_ids(examples.skip(5).batch(3), ids[5:]),
    )
    for k in (3, 7, 1000):
        whole = calculator.find_top_k(QUERIES, train, k, verbose=0)
        one, two = (calculator.find_top_k(QUERIES, half, k, verbose=0) for half in halves)
        for merged in (one.merge(two), two.merge(one)):
            np.testing.assert_array_equal(merged.train_ids, whole.train_ids)
            np.testing.assert_allclose(merged.values, whole.values, rtol=1e-5)
    assert whole.train_ids.shape[1] == len(ids)


@pytest.mark.parametrize(
    ("make", "at_once"),
    [
        (lambda m: FirstOrderInfluenceCalculator(m, TRAIN, "identity"), 2),
        (lambda m: TracIn([m, m], 0.1), 1),  # with vectors of twice the length
    ],
    ids=["influence", "tracin"],
)
def test_a_batch_of_queries_with_too_long_vectors_is_computed_in_pieces(make, at_once, monkeypatch):
    calculator = make(model())
    queries = QUERIES.unbatch().batch(5)
    matrix = calculator.influence_matrix(queries, TRAIN, verbose=0)
    best = calculator.find_top_k(queries, TRAIN, 3, verbose=0)
    vector = calculator.model.nb_params * calculator.model.dtype.size
    monkeypatch.setattr("deel_influence.calculators.pairs.MAX_BATCH_BYTES", 2 * vector + 1)
    blocks = list(calculator.influence_blocks(queries, TRAIN, verbose=0))
    # Those of a chunk have more bytes than this, so that pieces are not joined again.
    monkeypatch.setattr("deel_influence.calculators.queries.MAX_CHUNK_BYTES", 1)
    pieces = list(calculator.influence_blocks(queries, TRAIN, verbose=0))
    assert [len(block.query_ids) for block in blocks] == [len(matrix)]
    assert max(len(block.query_ids) for block in pieces) == at_once
    # Products of matrices of another height may round otherwise.
    assert_close(np.concatenate([block.values for block in pieces]), matrix, 1e-6)
    found = calculator.find_top_k(queries, TRAIN, 3, verbose=0)
    np.testing.assert_array_equal(found.train_ids, best.train_ids)
    sizes = [len(scores) for _, scores, _ in calculator.top_k(queries, TRAIN, 3)]
    assert sizes == [len(batch[0]) for batch in queries]


def parts() -> tuple[TopK, TopK]:
    rows = np.array([["b", "a"], ["c", "a"]]), np.array([[2.0, 1.0], [4.0, 3.0]])
    return TopK(np.array([5, 3]), *rows, k=2), TopK(np.array([4, 9]), *rows, k=2)


def test_other_queries_are_put_together_by_id():
    one, two = parts()
    for merged in (one.merge(two), two.merge(one)):
        assert merged.query_ids.tolist() == [3, 4, 5, 9]
        assert merged.train_ids.tolist() == [["c", "a"], ["b", "a"], ["b", "a"], ["c", "a"]]


def test_what_makes_no_whole_is_refused():
    one, two = parts()
    with pytest.raises(ValueError, match="2 queries and 3 training examples that are in both"):
        one.merge(one)
    fewer = TopK(two.query_ids, two.train_ids[:, :1], two.values[:, :1], k=2)
    with pytest.raises(ValueError, match="1 beside 2"):
        one.merge(fewer)
    for other in (TopK(two.query_ids, two.train_ids, two.values, k=3), _ascending(two)):
        with pytest.raises(ValueError, match="in the same order"):
            one.merge(other)
    with pytest.raises(ValueError, match=r"shape \(2, 2\), beside 3 queries"):
        TopK(np.arange(3), two.train_ids, two.values, k=2)


def _ascending(found: TopK) -> TopK:
    return TopK(found.query_ids, found.train_ids, found.values, 2, ORDER.ASCENDING)


def test_they_are_saved_and_shown_and_open_in_pandas(tmp_path):
    one = _ascending(parts()[0])
    loaded = TopK.load(one.save(tmp_path / "best"))
    assert (loaded.k, loaded.order, loaded.train_ids.tolist()) == (
        2,
        one.order,
        [*one.train_ids.tolist()],
    )
    frame = one.to_pandas()
    assert frame["id"].tolist() == ["b", "a", "c", "a"]
    assert frame["rank"].tolist() == [1, 2, 1, 2]
    assert repr(one) == "<TopK: 2 lowest scores for each of 2 queries>"
    assert "b: 2" in one._repr_html_()
    block = InfluenceBlock(np.arange(1), np.arange(2), np.ones((1, 2)))
    with pytest.raises(DataSourceError):
        TopK.load(block.save(tmp_path / "block.npz"))
