"""Sums of scores over groups of training examples."""

from __future__ import annotations

from typing import Any

import numpy as np


def sum_by_group(values: np.ndarray, groups: Any) -> np.ndarray:
    """Add up the columns of each group.

    Parameters
    ----------
    values
        Shape ``(m, n)``.
    groups
        The group of each column, from 0, or -1 for none; int, shape ``(n,)``. None returns
        ``values``.

    Returns
    -------
    Shape ``(m, number of groups)``.

    Raises
    ------
    ValueError
        If there is not one integer of at least -1 for each column.
    """
    if groups is None:
        return values
    groups = np.asarray(groups)
    valid = groups.shape == (values.shape[1],) and np.issubdtype(groups.dtype, np.integer)
    if not valid or groups.min(initial=0) < -1 or groups.max(initial=-1) < 0:
        message = (
            f"Argument `groups` must hold {values.shape[1]} integers, one for each training "
            "example: the number of its group from 0, or -1 for none. Received: shape "
            f"{groups.shape}, dtype {groups.dtype}."
        )
        raise ValueError(message)
    chosen = groups >= 0
    sums = np.zeros((values.shape[0], int(groups.max()) + 1), values.dtype)
    np.add.at(sums.T, groups[chosen], values[:, chosen].T)
    return sums
