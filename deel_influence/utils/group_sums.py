"""Groups of training examples, and sums of scores over them."""

from __future__ import annotations

from typing import Any

import numpy as np


def group_labels(groups: Any, num_examples: int) -> np.ndarray:
    """Return the group of each example, shape ``(n,)``.

    Parameters
    ----------
    groups
        The number of each example's group, from 0, or -1 for none; or its name, and the groups are
        numbered in the order of the sorted names; or whether it belongs to the only group; shape
        ``(n,)``. None takes each example as a group of its own.
    num_examples
        The number n of examples.

    Raises
    ------
    ValueError
        If there is not one integer of at least -1 for each example, or no group at all.
    """
    if groups is None:
        return np.arange(num_examples)
    try:
        groups = np.asarray(groups)
    except ValueError as error:  # lists of different lengths
        raise _no_groups(num_examples, "lists of different lengths") from error
    if groups.shape != (num_examples,):
        raise _no_groups(num_examples, f"shape {groups.shape}")
    if groups.dtype == bool:
        groups = np.where(groups, 0, -1)
    elif all(isinstance(name, str) for name in groups.tolist()):
        groups = np.unique(groups.astype(str), return_inverse=True)[1]
    is_number = np.issubdtype(groups.dtype, np.integer)
    if not is_number or groups.min(initial=0) < -1 or groups.max(initial=-1) < 0:
        raise _no_groups(num_examples, f"dtype {groups.dtype}, or no group at all")
    return groups


def _no_groups(num_examples: int, received: str) -> ValueError:
    message = (
        f"Argument `groups` must hold {num_examples} integers, one for each training example: the "
        "number of its group from 0, or -1 for none; or as many names of groups; or a mask of the "
        f"only group. Received: {received}."
    )
    return ValueError(message)


def sum_by_group(values: np.ndarray, groups: Any) -> np.ndarray:
    """Add up the columns of each group.

    Parameters
    ----------
    values
        Shape ``(m, n)``.
    groups
        As for `group_labels`; None returns ``values``.

    Returns
    -------
    Shape ``(m, number of groups)``.
    """
    if groups is None:
        return values
    labels = group_labels(groups, values.shape[1])
    chosen = labels >= 0
    sums = np.zeros((values.shape[0], int(labels.max()) + 1), values.dtype)
    np.add.at(sums.T, labels[chosen], values[:, chosen].T)
    return sums
