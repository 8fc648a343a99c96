"""Eigenpairs, and the threads that they take."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from deel_influence.linalg import eigen
from tests.oracles import assert_close


@pytest.mark.parametrize("width", [3, eigen.SMALL + 1])
def test_eigenpairs_are_those_of_the_matrix(width):
    rows = np.random.default_rng(0).normal(size=(width, width))
    matrix = rows + rows.T
    values, vectors = eigen.eigenpairs(matrix)
    assert np.all(np.diff(values) >= 0)
    assert_close((vectors * values) @ vectors.T, matrix)
    assert_close(vectors.T @ vectors, np.eye(width))
    assert_close(eigen.eigenvalues(matrix), values)


@pytest.mark.parametrize(("width", "left"), [(eigen.SMALL, 1), (eigen.SMALL + 1, 2)])
def test_half_of_the_cores_are_left_and_the_threads_come_back(width, left, monkeypatch):
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before, seen = threads(), []
    monkeypatch.setattr(eigen.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(eigen.np.linalg, "eigh", lambda matrix: seen.append(threads()))
    monkeypatch.setattr(eigen.np.linalg, "eigvalsh", lambda matrix: seen.append(threads()))
    eigen.eigenpairs(np.eye(width))
    eigen.eigenvalues(np.eye(width))
    assert seen == [[left] * len(before)] * 2
    assert threads() == before
