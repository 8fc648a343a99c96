"""The best of an index are the best of all its products, however they are looked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import deel_influence.store.search as search_module
from deel_influence.calculators.parts import part_at, parts_in
from deel_influence.store.parts import DTYPES, Header
from deel_influence.store.search import Search
from deel_influence.utils import ORDER

N, D, M, SIZE = 700, 24, 6, 300


def written(folder: Path, dtype: str) -> tuple[Header, np.ndarray]:
    """Write parts of random vectors, many of them nearly alike; return them as they are kept."""
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(5, D))
    rows = centres[draws.integers(0, 5, N)] + 0.02 * draws.normal(size=(N, D))
    lengths = draws.uniform(0.5, 2, N).astype(np.float32)
    lengths[10] = 0
    kept = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(DTYPES[dtype])
    header = Header("Some", "origin", D, dtype, 1, (), part_size=SIZE)
    for start in range(0, N, SIZE):
        stretch = slice(start, min(start + SIZE, N))
        arrays = {"vectors": kept[stretch], "lengths": lengths[stretch]}
        arrays["ids"] = np.arange(N)[stretch]
        part_at(folder, 0, stretch.start, stretch.stop).write(header, "data", arrays)
    return header, kept.astype(np.float64) * lengths[:, None]


@pytest.mark.parametrize("order", list(ORDER))
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_best_are_those_of_float64_products(dtype, order, tmp_path, monkeypatch):
    header, rows = written(tmp_path, dtype)
    asked = np.random.default_rng(1).normal(size=(M, D)).astype(np.float32)
    asked[0] = 0
    exact = asked.astype(np.float64) @ rows.T
    sign = -1 if order is ORDER.DESCENDING else 1
    for at_once, k in ((2**23, 3), (64 * D, 3), (64 * D, 100), (2 * D, 3), (64 * D, N + 5)):
        monkeypatch.setattr(search_module, "ENTRIES_AT_ONCE", at_once)
        values, ids = Search(header, parts_in(tmp_path), asked).best(k, order)
        assert ids.shape == (M, min(k, N))
        expected = np.sort(sign * exact, axis=1)[:, :k]
        np.testing.assert_allclose(sign * values, expected, rtol=1e-5, atol=1e-5)
        own = np.take_along_axis(exact, ids, axis=1)
        np.testing.assert_allclose(values, own, rtol=1e-5, atol=1e-5)


def test_rough_products_leave_few_to_be_looked_at_again(tmp_path, monkeypatch):
    header, _ = written(tmp_path, "bfloat16")
    monkeypatch.setattr(search_module, "ENTRIES_AT_ONCE", 100 * D)
    looked_at = []
    products = Search._products

    def counted(self, vectors, lengths):
        looked_at.append(len(vectors))
        return products(self, vectors, lengths)

    monkeypatch.setattr(Search, "_products", counted)
    asked = np.random.default_rng(1).normal(size=(1, D)).astype(np.float32)
    Search(header, parts_in(tmp_path), asked).best(3, ORDER.DESCENDING)
    assert sum(looked_at) < N / 4
