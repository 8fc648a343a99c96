"""Correlation of two sets of numbers: of their values, or of their ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .checks import finite_array, require_pandas

if TYPE_CHECKING:
    import pandas as pd

RowwiseCorrelation = Callable[[np.ndarray, np.ndarray], np.ndarray]


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Return the linear correlation of two sets of numbers.

    Parameters
    ----------
    first, second
        The numbers, each shape ``(n,)``.

    Returns
    -------
    A number from -1 to 1.

    Raises
    ------
    ValueError
        If the shapes differ, a number is not finite, or all numbers of a set are the same, which
        correlates with nothing.
    """
    return _of_vectors(rowwise_pearson, first, second)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of the ranks of two sets of numbers.

    Equal numbers share the mean of their ranks.

    Parameters
    ----------
    first, second
        As for `pearson`, which says what is refused.

    Returns
    -------
    A number from -1 to 1.
    """
    return _of_vectors(rowwise_spearman, first, second)


def rowwise_pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return `pearson` for each pair of rows.

    Parameters
    ----------
    first, second
        The numbers, each shape ``(m, n)``.

    Returns
    -------
    Shape ``(m,)``; NaN where all numbers of a row are the same.
    """
    first, second = _pair(first, second, "mn")
    undefined = is_constant(first) | is_constant(second)
    products = np.sum(_unit_rows(first) * _unit_rows(second), axis=1)
    return np.where(undefined, np.nan, np.clip(products, -1.0, 1.0))


def rowwise_spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return `spearman` for each pair of rows.

    Parameters
    ----------
    first, second
        The numbers, each shape ``(m, n)``.

    Returns
    -------
    Shape ``(m,)``; NaN where all numbers of a row are the same.
    """
    first, second = _pair(first, second, "mn")
    return rowwise_pearson(mean_ranks(first), mean_ranks(second))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks in each row from 1, equal values sharing their mean, shape ``(m, n)``."""
    order = np.argsort(values, axis=1)
    starts, ends = tie_bounds(np.take_along_axis(values, order, axis=1))
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (starts + ends) / 2 + 1, axis=1)
    return ranks


def tie_bounds(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the run of equal values of each entry starts and ends.

    Parameters
    ----------
    ascending
        Rows in ascending order, shape ``(m, n)``.

    Returns
    -------
    The first and the last column of the run, int, each shape ``(m, n)``.
    """
    columns = np.arange(ascending.shape[1])
    edge = ascending[:, 1:] != ascending[:, :-1]
    outer = np.ones((len(ascending), 1), bool)
    starts = np.where(np.hstack([outer, edge]), columns, 0)
    ends = np.where(np.hstack([edge, outer]), columns, len(columns) - 1)
    starts = np.maximum.accumulate(starts, axis=1)
    return starts, np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]


def is_constant(values: np.ndarray) -> np.ndarray:
    """Tell for each row whether all its values are the same, bool, shape ``(m,)``."""
    return np.all(values == values[:, :1], axis=1)


def correlate_queries(
    correlation: RowwiseCorrelation, predictions: np.ndarray, truths: np.ndarray
) -> np.ndarray:
    """Return the correlation over retrainings of each query's predictions and truths.

    Parameters
    ----------
    correlation
        `rowwise_pearson` or `rowwise_spearman`.
    predictions, truths
        Each shape ``(s, m)``.

    Returns
    -------
    Shape ``(m,)``. It is 0 for a query whose predictions are all the same, as it would be in the
    mean over all orders of equal predictions, and NaN for one whose truths are all the same: there
    is nothing to predict, and the query says as little about one method as about another.

    Raises
    ------
    ValueError
        If no query has different truths.
    """
    nothing_to_predict = is_constant(truths.T)
    if nothing_to_predict.all():
        message = (
            "Argument `truth` must differ in the output of at least one query. Received: "
            f"the same outputs from all {len(truths)} for each of {truths.shape[1]} queries. Leave "
            "out more examples, or look at an output that is no class, such as the loss."
        )
        raise ValueError(message)
    values = correlation(predictions.T, truths.T)
    return np.where(is_constant(predictions.T) & ~nothing_to_predict, 0.0, values)


def strategy_correlations(
    scores: Mapping[str, np.ndarray], method: str = "spearman"
) -> pd.DataFrame:
    """Return how far strategies agree: the correlation of the scores of each pair.

    Parameters
    ----------
    scores
        The scores by the name of their strategy, arrays of one shape, such as ``(n,)`` or
        ``(m, n)``. They are correlated over all their entries.
    method
        ``"spearman"`` or ``"pearson"``.

    Returns
    -------
    A table with a row and a column for each strategy.

    Raises
    ------
    ValueError
        If the shapes differ, a score is not finite, or all scores of a strategy are the same.
    MissingExtraError
        If pandas is not installed.
    """
    pandas = require_pandas()
    if method not in ("spearman", "pearson"):
        message = f'Argument `method` must be "spearman" or "pearson". Received: method={method!r}.'
        raise ValueError(message)
    size = _check_strategies(scores)
    units = np.empty((len(scores), size))
    # One after the other: on the way each takes several times its own size.
    for unit, (name, values) in zip(units, scores.items(), strict=True):
        row = finite_array(np.ravel(values), f"scores[{name!r}]", "n")[None]
        unit[:] = _unit_rows(mean_ranks(row) if method == "spearman" else row)[0]
    table = np.clip(units @ units.T, -1.0, 1.0)
    np.fill_diagonal(table, 1.0)
    return pandas.DataFrame(table, index=list(scores), columns=list(scores))


def _check_strategies(scores: Mapping[str, np.ndarray]) -> int:
    """Return how many scores each strategy has: the same number, and different ones."""
    shapes = {name: np.shape(values) for name, values in scores.items()}
    if len(set(shapes.values())) != 1:
        message = (
            "Argument `scores` must hold arrays of one shape, by the names of their strategies. "
            f"Received: {shapes}."
        )
        raise ValueError(message)
    constant = [name for name, values in scores.items() if is_constant(_as_row(values))[0]]
    if constant:
        message = (
            "Argument `scores` must hold strategies that tell examples apart. Received: only "
            f"equal scores from {constant}. Leave them out."
        )
        raise ValueError(message)
    return int(np.prod(next(iter(shapes.values()))))


def _as_row(values: np.ndarray) -> np.ndarray:
    return np.reshape(values, (1, -1))


def _of_vectors(correlation: RowwiseCorrelation, first: np.ndarray, second: np.ndarray) -> float:
    first, second = _pair(first, second, "n")
    for name, values in (("first", first), ("second", second)):
        if is_constant(values[None])[0]:
            message = (
                f"Argument `{name}` must hold different numbers: a constant has no correlation "
                f"with anything. Received: {len(values)} times {values[0]}."
            )
            raise ValueError(message)
    return float(correlation(first[None], second[None])[0])


def _pair(first: np.ndarray, second: np.ndarray, shape: str) -> tuple[np.ndarray, np.ndarray]:
    first = finite_array(first, "first", shape)
    sizes = dict(zip(shape, first.shape, strict=True))
    return first, finite_array(second, "second", shape, **sizes)


def _unit_rows(values: np.ndarray) -> np.ndarray:
    """Return rows of mean 0 and length 1; a constant row comes back as zeros."""
    centred = values - values.mean(axis=1, keepdims=True)
    # Divided first, so that no square of a tiny or huge score leaves the range of float64.
    largest = np.abs(centred).max(axis=1, keepdims=True)
    centred = centred / np.where(largest > 0.0, largest, 1.0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(lengths > 0.0, lengths, 1.0)
