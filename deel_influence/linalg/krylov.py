"""The Krylov subspace of an operator, which Lanczos and Arnoldi read in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .checks import as_rows, check_count, check_products
from .linear_operator import LinearOperator
from .orthogonal import orthogonalize, rounding
from .probes import gaussian_rows


@dataclass(frozen=True, eq=False)
class KrylovSpace:
    """``A`` seen from the span of ``v, A v, A² v, ...``.

    Attributes
    ----------
    basis
        Orthonormal rows Q, shape ``(t, p)``.
    projection
        ``Q A Qᵀ``, upper Hessenberg, float64, shape ``(t, t)``.
    residual
        Norm of what the last product had outside of the span; 0 if the span is invariant.
    """

    basis: tf.Tensor
    projection: np.ndarray
    residual: float


def krylov_space(
    operator: LinearOperator, num_steps: int, seed: int | None = None, start: Any = None
) -> KrylovSpace:
    """Build the Krylov subspace by one product of one vector a step, fully re-orthogonalised.

    Parameters
    ----------
    operator
        Needs not be symmetric.
    num_steps
        How many vectors, at most; fewer where the subspace turns out to be invariant.
    seed
        Draws the first vector.
    start
        The first vector, shape ``(p,)``, instead of a random one; any norm but 0.

    Raises
    ------
    ValueError
        If ``num_steps`` is no positive number, or ``start`` no vector of positive norm.
    NonFiniteError
        If a product holds NaN or infinity.
    """
    steps = min(check_count("num_steps", num_steps), operator.size)
    row = _first_row(operator, seed, start)
    basis = row
    columns = np.zeros((steps + 1, steps))
    scale = 0.0
    for step in range(steps):
        rest, components = orthogonalize(operator.apply(row), basis)
        norm = tf.norm(rest)
        column = tf.concat([components[0], norm[None]], axis=0).numpy().astype(np.float64)
        check_products(column, f"Krylov step {step + 1}")
        columns[: step + 2, step] = column
        scale = max(scale, float(np.linalg.norm(column)))
        # A rest that is rounding alone would be a random direction: the subspace is invariant.
        if column[-1] <= 10 * rounding(operator.dtype) * scale:
            columns[step + 1, step] = 0.0
            break
        if step + 1 < steps:
            row = rest / norm
            basis = tf.concat([basis, row], axis=0)
    size = step + 1
    return KrylovSpace(basis, columns[:size, :size], float(columns[size, size - 1]))


def _first_row(operator: LinearOperator, seed: int | None, start: Any) -> tf.Tensor:
    if start is None:
        row = gaussian_rows(operator, 1, seed)
    else:
        row = as_rows("start", tf.convert_to_tensor(start)[None], operator)
    norm = tf.norm(row)
    if not (np.isfinite(norm.numpy()) and norm.numpy() > 0):
        message = (
            "Argument `start` must be a vector of positive, finite norm. Received: norm "
            f"{norm.numpy()}. Leave it out for a random one."
        )
        raise ValueError(message)
    return row / norm
