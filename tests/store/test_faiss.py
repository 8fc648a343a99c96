"""FAISS finds what the index finds, as far as it looks."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.errors import MissingExtraError
from deel_influence.store import FaissIndex, QueryVectors, build_index
from deel_influence.utils import ORDER
from tests.store.test_index import QUERIES, TRAIN, first_order, model  # noqa: F401 - a fixture


@pytest.mark.parametrize("order", list(ORDER))
def test_it_finds_the_best_where_it_looks_at_every_cluster(order, model, tmp_path):  # noqa: F811
    pytest.importorskip("faiss")
    calculator = first_order(model)
    index = build_index(calculator, TRAIN, tmp_path / "index", "float32", part_size=8, verbose=0)
    asked = QueryVectors.of(calculator, QUERIES, verbose=0)
    found = FaissIndex(tmp_path / "index")
    with pytest.raises(ValueError, match="^Argument `k` must not exceed what FAISS finds"):
        found.top_k(asked, 37)
    found.faiss.nprobe = 6
    for searched in (found, FaissIndex(tmp_path / "index", calculator, "Flat")):
        best = searched.top_k(asked, 4, order)
        expected = index.top_k(asked, 4, order)
        np.testing.assert_array_equal(best.train_ids, expected.train_ids)
        np.testing.assert_allclose(best.values, expected.values, rtol=1e-5)
    names = [name for name, *_ in index.header.layers][:1]
    best = searched.top_k(QUERIES, 3, order, names)
    np.testing.assert_array_equal(best.train_ids, index.top_k(QUERIES, 3, order, names).train_ids)


def test_without_faiss_the_extra_is_named(model, tmp_path, monkeypatch):  # noqa: F811
    build_index(first_order(model), TRAIN, tmp_path / "index", verbose=0)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"faiss-cpu.*deel-influence\[faiss\]"):
        FaissIndex(tmp_path / "index")
