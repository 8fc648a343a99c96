"""Eigenvalues of symmetric matrices in NumPy, on a part of the processor's cores."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

SMALL = 128
"""Up to this width one thread is enough."""


def eigenpairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of a symmetric matrix, ascending, and its eigenvectors in columns.

    The threads of BLAS wait for each other in a loop, and wait long where other work takes a core
    from one of them: a matrix of width 1,100 took 0.2 to 6 s on two threads of two cores, and
    0.2 s on one; one of width 64 took 113 ms on two, and 2 ms on one. So half of the cores are
    left to others, and small matrices have one.

    Parameters
    ----------
    matrix
        Shape ``(p, p)``, of any floating type.
    """
    with blas_threads(_cores(len(matrix))):
        return np.linalg.eigh(matrix)


def eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Return the eigenvalues of a symmetric matrix, ascending; see `eigenpairs`."""
    with blas_threads(_cores(len(matrix))):
        return np.linalg.eigvalsh(matrix)


def blas_threads(count: int) -> AbstractContextManager[Any]:
    """Return a context in which NumPy's products take so many threads at most."""
    return _controller().limit(limits=count, user_api="blas")


def _cores(width: int) -> int:
    return 1 if width <= SMALL else max((os.cpu_count() or 2) // 2, 1)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
