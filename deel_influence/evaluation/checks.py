"""What the measures ask of their arguments, each checked in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..extras import require


def finite_array(values: np.ndarray, name: str, shape: str, **sizes: int) -> np.ndarray:
    """Return the values as float64 if they have the shape and are finite.

    Parameters
    ----------
    values
        What was given.
    name
        Of the argument, for the message.
    shape
        A letter for each axis, ``"mn"``.
    sizes
        What some of the letters must be.

    Raises
    ------
    ValueError
        If the shape differs, an axis is empty, or a value is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    letters = f"({', '.join(shape)}{',' if len(shape) == 1 else ''})"
    wanted = [sizes.get(letter) for letter in shape]
    fits = array.ndim == len(shape) and all(
        size > 0 and expected in (None, size)
        for size, expected in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        known = "".join(f", {letter}={size}" for letter, size in sizes.items() if letter in shape)
        message = f"Argument `{name}` must have the shape {letters}{known}, and hold something. "
        message += f"Received: shape {array.shape}."
        raise ValueError(message)
    _check_finite(array, name)
    return array


def _check_finite(array: np.ndarray, name: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    first = tuple(int(axis[0]) for axis in np.nonzero(~finite))
    message = (
        f"Argument `{name}` must hold no NaN and no infinity, which cannot be compared. Received: "
        f"{array.size - int(finite.sum())} of {array.size}, the first at position "
        f"{first[0] if len(first) == 1 else first}. Leave out what could not be computed."
    )
    raise ValueError(message)


def kept_mask(kept: np.ndarray) -> np.ndarray:
    """Return ``kept`` if it is a mask ``(s, n)`` that keeps an example in every row.

    Raises
    ------
    ValueError
        If it is not.
    """
    kept = np.asarray(kept)
    if kept.ndim != 2 or kept.dtype != bool or kept.size == 0:
        message = (
            "Argument `kept` must be a mask (s, n) of dtype bool: a row for each subset, True for "
            f"the examples in it. Received: shape {kept.shape}, dtype {kept.dtype}. "
            "See `random_subsets` and `leave_one_out`."
        )
        raise ValueError(message)
    empty = np.flatnonzero(~kept.any(axis=1))
    if len(empty):
        message = (
            "Argument `kept` must keep at least one example in every row. "
            f"Received: {len(empty)} of {len(kept)} rows without any, the first is row {empty[0]}."
        )
        raise ValueError(message)
    return kept


def suspects(scores: np.ndarray, mislabelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores ``(n,)`` and the mask ``(n,)`` of the examples that they should find.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, or not both kinds of examples are there.
    """
    scores, mislabelled = np.asarray(scores), np.asarray(mislabelled)
    if scores.ndim != 1 or scores.shape != mislabelled.shape:
        message = (
            "Argument `scores` and argument `mislabelled` must both have the shape (n,). "
            f"Received: {scores.shape} and {mislabelled.shape}."
        )
        raise ValueError(message)
    if mislabelled.dtype != bool:
        message = (
            "Argument `mislabelled` must be a mask of dtype bool. Received: dtype "
            f"{mislabelled.dtype}. Compare the labels: given != true."
        )
        raise ValueError(message)
    if np.isnan(scores).any():
        message = (
            "Argument `scores` must hold no NaN, which has no place in an order. "
            f"Received: {int(np.isnan(scores).sum())} of {len(scores)}, "
            f"the first at position {int(np.flatnonzero(np.isnan(scores))[0])}."
        )
        raise ValueError(message)
    if not mislabelled.any() or mislabelled.all():
        message = (
            "Argument `mislabelled` must mark some examples, and not all. "
            f"Received: {int(mislabelled.sum())} of {len(mislabelled)}."
        )
        raise ValueError(message)
    # Bools have no negative, and that of an unsigned number is a large one: they could not be
    # sorted from the highest down.
    return (scores.astype(np.float64) if scores.dtype.kind in "bu" else scores), mislabelled


def whole_examples(budgets: Sequence[float], num_examples: int) -> np.ndarray:
    """Return how many examples each share of the list comes to, int.

    A broken example does not count.

    Raises
    ------
    ValueError
        If a budget is no share from 0 to 1.
    """
    shares = np.asarray(budgets, dtype=np.float64)
    if not np.all((shares >= 0.0) & (shares <= 1.0)):
        message = (
            "Argument `budgets` must hold shares from 0 to 1 (a tenth of the list is 0.1). "
            f"Received: budgets={budgets!r}."
        )
        raise ValueError(message)
    # 0.29 * 100 is a little less than 29 in floating point, which must not cost an example.
    return np.floor(shares * num_examples + 1e-9).astype(np.int64)


def require_pandas() -> Any:
    """Import and return pandas.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    return require("pandas", "evaluation", "Evaluations need")
