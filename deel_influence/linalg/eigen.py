"""Eigenvalues of symmetric matrices in NumPy, on a part of the processor's cores."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

SMALL = 128
"""Up to this width a matrix is not worth the change of the number of threads."""


def eigenpairs(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of a symmetric matrix, ascending, and its eigenvectors in columns.

    The threads of BLAS wait for each other in a loop, and wait long where other work takes a core
    from one of them: a matrix of width 1,100 took 0.2 to 6 s on two threads of two cores, and
    0.2 s on one. So half of the cores are left to others.

    Parameters
    ----------
    matrix
        Shape ``(p, p)``, of any floating type.
    """
    if len(matrix) <= SMALL:
        return np.linalg.eigh(matrix)
    with _controller().limit(limits=max((os.cpu_count() or 2) // 2, 1), user_api="blas"):
        return np.linalg.eigh(matrix)


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
