"""Hutchinson's estimates of the trace and the diagonal of an operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from .checks import check_count, check_products
from .linear_operator import LinearOperator
from .probes import rademacher_rows


@dataclass(frozen=True)
class Estimate:
    """A number known by sampling.

    Attributes
    ----------
    value
        The mean of the samples.
    standard_error
        Its standard error; infinite for one sample.
    """

    value: float
    standard_error: float


def hutchinson_trace(
    operator: LinearOperator, num_probes: int = 32, seed: int | None = None
) -> Estimate:
    """Estimate the trace of an operator without bias, by ``zᵀ A z`` for random signs z.

    Exact for a diagonal operator: the error comes from the entries beside the diagonal.

    Parameters
    ----------
    operator
        An operator of size p.
    num_probes
        How many products, taken at once.
    seed
        Draws the signs.
    """
    probes = rademacher_rows(operator, check_count("num_probes", num_probes), seed)
    products = tf.cast(probes * operator.apply(probes), tf.float64)
    samples = tf.reduce_sum(products, axis=1).numpy()
    check_products(samples, "the products with random signs")
    if num_probes == 1:
        return Estimate(float(samples[0]), float("inf"))
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(num_probes)))


def hutchinson_diagonal(
    operator: LinearOperator, num_probes: int = 32, seed: int | None = None
) -> tf.Tensor:
    """Estimate the diagonal of an operator without bias, by the mean of ``z * (A z)``.

    Exact for a diagonal operator. Entries may come out negative, even of a positive definite one.

    Parameters
    ----------
    operator
        An operator of size p.
    num_probes
        How many products, taken at once.
    seed
        Draws the signs.

    Returns
    -------
    Shape ``(p,)``, in the operator's dtype.
    """
    probes = rademacher_rows(operator, check_count("num_probes", num_probes), seed)
    diagonal = tf.reduce_mean(probes * operator.apply(probes), axis=0)
    check_products(tf.reduce_sum(diagonal).numpy(), "the products with random signs")
    return diagonal
