"""How well scores find examples that are known to be mislabelled.

All measures read the n examples from the highest score down. Examples of equal score stand in no
particular order; where that matters, the mean over all their orders is meant, so that no measure
depends on how ties happen to be broken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import suspects, whole_examples


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
    scores, mislabelled = suspects(scores, mislabelled)
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
        Shares of the list that are read, each from 0 to 1, shape ``(t,)``; a broken example is not
        read.

    Returns
    -------
    Shares from 0 to 1, shape ``(t,)``.
    """
    read, found = detection_curve(scores, mislabelled)
    return np.interp(whole_examples(budgets, read[-1]), read, found) / found[-1]


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
