"""How well scores find examples that are known to be mislabelled.

All measures read the n examples from the highest score down. Examples of equal score stand in no
particular order; where that matters, the mean over all their orders is meant, so that no measure
depends on how ties happen to be broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def detection_curve(scores: np.ndarray, mislabelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many mislabelled examples are found as the list is read.

    Between two points the curve is a straight line: the mean over the orders of equal scores.

    Parameters
    ----------
    scores
        One score per example, shape ``(n,)``, larger for more suspicious ones.
    mislabelled
        Which examples are mislabelled, shape ``(n,)``, bool.

    Returns
    -------
    The numbers of examples read, shape ``(t + 1,)``, from 0 to n, and of mislabelled ones among
    them, shape ``(t + 1,)``, for the t different scores.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, or not both kinds of examples are there.
    """
    scores, mislabelled = _check(scores, mislabelled)
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    ends = np.append(np.flatnonzero(descending[1:] != descending[:-1]) + 1, len(scores))
    found = np.cumsum(mislabelled[order])[ends - 1]
    return np.append(0, ends), np.append(0, found)


def recall_at_budget(
    scores: np.ndarray, mislabelled: np.ndarray, budgets: Sequence[float]
) -> np.ndarray:
    """Return the share of the mislabelled examples found within each budget.

    Parameters
    ----------
    scores, mislabelled
        As for `detection_curve`.
    budgets
        Shares of the list that are read, each from 0 to 1; a broken example is not read.

    Returns
    -------
    Shares from 0 to 1, one per budget.
    """
    shares = np.asarray(budgets, dtype=np.float64)
    if not np.all((shares >= 0.0) & (shares <= 1.0)):
        message = (
            "Argument `budgets` must hold shares from 0 to 1 (a tenth of the list is 0.1). "
            f"Received: budgets={budgets!r}."
        )
        raise ValueError(message)
    read, found = detection_curve(scores, mislabelled)
    # 0.29 * 100 is a little less than 29 in floating point, which must not cost an example.
    whole_examples = np.floor(shares * read[-1] + 1e-9)
    return np.interp(whole_examples, read, found) / found[-1]


def roc_auc(scores: np.ndarray, mislabelled: np.ndarray) -> float:
    """Return the area under the ROC curve.

    It is the probability that a mislabelled example scores above a rightly labelled one, ties
    counting half.

    Parameters
    ----------
    scores, mislabelled
        As for `detection_curve`.
    """
    read, found = detection_curve(scores, mislabelled)
    false_alarms = read - found
    widths = np.diff(false_alarms)
    area = np.sum(widths * (found[1:] + found[:-1]) / 2)
    return float(area / (found[-1] * false_alarms[-1]))


def average_precision(scores: np.ndarray, mislabelled: np.ndarray) -> float:
    """Return the mean, over the mislabelled examples, of the precision where each is found.

    Examples of equal score are read together.

    Parameters
    ----------
    scores, mislabelled
        As for `detection_curve`.
    """
    read, found = detection_curve(scores, mislabelled)
    precision = found[1:] / read[1:]
    return float(np.sum(np.diff(found) * precision) / found[-1])


def _check(scores: np.ndarray, mislabelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, mislabelled = np.asarray(scores), np.asarray(mislabelled)
    if scores.ndim != 1 or scores.shape != mislabelled.shape:
        message = (
            "Arguments `scores` and `mislabelled` must both have the shape (n,). "
            f"Received: {scores.shape} and {mislabelled.shape}."
        )
        raise ValueError(message)
    if mislabelled.dtype != bool:
        message = (
            "Argument `mislabelled` must be a mask of dtype bool. "
            f"Received: dtype {mislabelled.dtype}. Compare the labels: given != true."
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
    return scores, mislabelled
