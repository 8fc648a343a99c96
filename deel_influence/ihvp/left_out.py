"""What a pseudo-inverse leaves out of the training gradients."""

from __future__ import annotations

import tensorflow as tf

from ..gradients.engine import GradientEngine
from ..gradients.rows import first_gradients
from ..linalg.dense_inverse import DenseInverse

EXAMINED = 1024
"""How many examples are looked at."""


def warn_if_lost(
    inverse: DenseInverse, engine: GradientEngine, dataset: tf.data.Dataset, owner: str
) -> None:
    """Say so where directions that an inverse leaves out carry a part of training gradients.

    Queries may have a part in them all the same: it meets no training gradient, and adds nothing
    to an influence value.

    Parameters
    ----------
    inverse
        The inverse of a curvature.
    engine, dataset
        The model's engine, and the training set; its first examples are looked at.
    owner
        Who uses the inverse.

    Warns
    -----
    CurvatureWarning
        Says how many directions are left out, and what they carry.
    """
    if not inverse.num_dropped:
        return
    rows = first_gradients(engine, dataset, EXAMINED)
    inverse.warn_if_lost(rows, inverse.apply(rows), owner, stacklevel=3)
