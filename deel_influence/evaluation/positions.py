"""Rows of the training set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def checked_positions(positions: Sequence[int] | np.ndarray, num_examples: int) -> np.ndarray:
    """Return rows as int64, shape ``(k,)``.

    Parameters
    ----------
    positions
        What was given.
    num_examples
        Rows that there are.

    Raises
    ------
    ValueError
        If they are no rows of the training set, or one comes twice.
    """
    positions = np.asarray(positions)
    whole = positions.ndim == 1 and len(positions) and np.issubdtype(positions.dtype, np.integer)
    if not whole or positions.min() < 0 or positions.max() >= num_examples:
        numbers = positions.size and positions.dtype.kind in "iuf"
        span = f", {positions.min()} to {positions.max()}" if numbers else ""
        message = (
            "Argument `positions` must hold rows of the training set, whole numbers from 0 to "
            f"{num_examples - 1}, at least one. Received: shape {positions.shape}, dtype "
            f"{positions.dtype}{span}. Of a mask, take np.flatnonzero(mask)."
        )
        raise ValueError(message)
    if len(np.unique(positions)) < len(positions):
        message = (
            "Argument `positions` must name each row once. Received: "
            f"{len(np.unique(positions))} different ones of {len(positions)}. Use np.unique."
        )
        raise ValueError(message)
    return positions.astype(np.int64)
