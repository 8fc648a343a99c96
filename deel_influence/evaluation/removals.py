"""Predicted and actual changes of a query's output when training examples are left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .checks import finite_array
from .correlations import correlate_queries, is_constant, rowwise_pearson, rowwise_spearman
from .subsets import sums_of_removed


@dataclass(frozen=True, eq=False)
class RemovalCorrelation:
    """How predicted changes go with the actual ones.

    Queries of NaN are in none of the means.

    Attributes
    ----------
    pearson, spearman
        The means over queries of the correlations over removals.
    slope
        Actual change per unit of predicted change, by least squares within each query: 1 where
        the size is right. NaN if no prediction differs from another of its query.
    per_query_pearson, per_query_spearman
        Shape ``(m,)``. They are 0 where the predictions, and NaN where the actual changes of a
        query are all the same.
    per_query_slope
        Shape ``(m,)``; NaN where either are all the same.
    constant_predictions
        How many queries have the same prediction for all removals; their 0 counts in the means.
    constant_changes
        How many queries have the same actual change for all removals; they do not count.
    """

    pearson: float
    spearman: float
    slope: float
    per_query_pearson: np.ndarray
    per_query_spearman: np.ndarray
    per_query_slope: np.ndarray
    constant_predictions: int
    constant_changes: int


def predicted_changes(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return what scores predict for removals: the sums of the removed examples' scores.

    Influence scores carry no 1/n. Divided by the number of training examples, those of
    `FirstOrderInfluenceCalculator` are changes of the loss; `predict_loss_change` is that already.

    Parameters
    ----------
    scores
        Influence of each training example on each query, shape ``(m, n)``: positive where it helps.
    kept
        Which examples each retraining has, mask ``(s, n)``, as `leave_one_out` gives it.

    Returns
    -------
    Shape ``(s, m)``, positive where the query gets worse.
    """
    return sums_of_removed(scores, kept)


def removal_correlation(
    predicted_changes: np.ndarray, true_changes: np.ndarray
) -> RemovalCorrelation:
    """Compare predicted with actual changes, query by query [1]_.

    Parameters
    ----------
    predicted_changes
        For each of s removals how much worse each query should become, shape ``(s, m)``, or
        ``(s,)`` for one query.
    true_changes
        How much worse it became after retraining, the same shape.

    Returns
    -------
    Correlations and slopes.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, there is one removal only, or no query has changes
        that differ between removals.

    References
    ----------
    .. [1] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017, figure 2.
    """
    predicted, actual = _pair(predicted_changes, true_changes)
    pearson = correlate_queries(rowwise_pearson, predicted, actual)
    spearman = correlate_queries(rowwise_spearman, predicted, actual)
    counted = np.isfinite(pearson)
    flat = is_constant(predicted.T)
    products, squares = _moments(predicted, actual)
    usable = counted & ~flat
    slopes = np.full(len(pearson), np.nan)
    slopes[usable] = products[usable] / squares[usable]
    return RemovalCorrelation(
        pearson=float(pearson[counted].mean()),
        spearman=float(spearman[counted].mean()),
        slope=float(products[usable].sum() / squares[usable].sum()) if usable.any() else np.nan,
        per_query_pearson=pearson,
        per_query_spearman=spearman,
        per_query_slope=slopes,
        constant_predictions=int((flat & counted).sum()),
        constant_changes=int((~counted).sum()),
    )


def _pair(predicted: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shape = "s" if np.ndim(predicted) == 1 else "sm"
    predicted = finite_array(predicted, "predicted_changes", shape)
    sizes = dict(zip(shape, predicted.shape, strict=True))
    actual = finite_array(actual, "true_changes", shape, **sizes)
    if len(actual) < 2:
        message = (
            "Argument `predicted_changes` must hold at least two removals. "
            "Received: 1. Some tens are usual."
        )
        raise ValueError(message)
    return predicted.reshape(len(actual), -1), actual.reshape(len(actual), -1)


def _moments(predicted: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over removals of products and squares of the deviations, each ``(m,)``."""
    deviations = predicted - predicted.mean(axis=0)
    return np.sum(deviations * (actual - actual.mean(axis=0)), axis=0), np.sum(deviations**2, 0)
