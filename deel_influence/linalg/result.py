"""What every solver returns: the solution, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True, eq=False)
class SolveResult:
    """Solutions of ``A x = b`` for k right-hand sides, one for each row.

    Attributes
    ----------
    solution
        Shape ``(k, p)``.
    num_steps
        Steps taken for each right-hand side, int64, shape ``(k,)``.
    residual_norm
        ``‖b - A x‖ / ‖b‖`` of each, measured at the end by a product of its own (0 where b is 0),
        float64, shape ``(k,)``.
    converged
        Whether the residual reached the tolerance, bool, shape ``(k,)``.
    reason
        Why a solve that did not converge ended, in a few words; empty if all did.
    """

    solution: tf.Tensor
    num_steps: np.ndarray
    residual_norm: np.ndarray
    converged: np.ndarray
    reason: str = ""

    @property
    def all_converged(self) -> bool:
        """Whether every right-hand side converged."""
        return bool(np.all(self.converged))

    @classmethod
    def join(cls, results: Sequence[SolveResult]) -> SolveResult:
        """Put the results of several sets of right-hand sides one after the other."""
        return cls(
            tf.concat([result.solution for result in results], axis=0),
            np.concatenate([result.num_steps for result in results]),
            np.concatenate([result.residual_norm for result in results]),
            np.concatenate([result.converged for result in results]),
            next((result.reason for result in results if result.reason), ""),
        )


def relative_residuals(
    rhs: tf.Tensor, products: tf.Tensor, accumulate: tf.DType = tf.float64
) -> np.ndarray:
    """Return ``‖b - A x‖ / ‖b‖`` of each row, 0 where b is 0, float64, shape ``(k,)``.

    Parameters
    ----------
    rhs
        The right-hand sides b, shape ``(k, p)``.
    products
        ``A x``, shape ``(k, p)``.
    accumulate
        Type in which the sums of squares are kept.
    """
    difference = tf.norm(tf.cast(rhs - products, accumulate), axis=1)
    scale = tf.norm(tf.cast(rhs, accumulate), axis=1)
    return tf.math.divide_no_nan(difference, scale).numpy().astype(np.float64)
