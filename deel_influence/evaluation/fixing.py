"""What a model gains when the labels that scores point to are read and put right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .checks import suspects, whole_examples


@dataclass(frozen=True, eq=False)
class FixingCurve:
    """Test accuracy against how much of the training set was read.

    Attributes
    ----------
    budgets
        Shares of the training set, shape ``(t,)``.
    read
        How many examples were read, int, shape ``(t,)``.
    fixed
        How many wrong labels were among them and are now right, int, shape ``(t,)``.
    accuracy
        Of the model trained after that, shape ``(t,)``.
    """

    budgets: np.ndarray
    read: np.ndarray
    fixed: np.ndarray
    accuracy: np.ndarray


def accuracy_after_fixing(
    scores: np.ndarray,
    mislabelled: np.ndarray,
    train_and_test: Callable[[np.ndarray], float],
    budgets: Sequence[float],
    seed: int = 0,
) -> FixingCurve:
    """Train anew after the first shares of the list were read and wrong labels put right [1]_.

    Random scores give the curve of reading at random, and ``mislabelled`` as scores the best one.

    Parameters
    ----------
    scores
        One score per training example, shape ``(n,)``, larger for more suspicious ones.
    mislabelled
        Which examples are mislabelled, shape ``(n,)``, bool.
    train_and_test
        ``train_and_test(fixed)`` trains with the right labels where the mask ``fixed``, shape
        ``(n,)``, is True and the given ones elsewhere, and returns the accuracy on the test set. It
        is called once per budget.
    budgets
        Shares of the list that are read, each from 0 to 1, shape ``(t,)``; a broken example is not
        read.
    seed
        Fixes the order of examples of equal score, which is random.

    Returns
    -------
    The accuracies, and how much was read and fixed for them.

    Raises
    ------
    ValueError
        If the shapes differ, a score is NaN, not both kinds of examples are there, a budget is no
        share, or an accuracy is none.

    References
    ----------
    .. [1] P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML
       2017, figure 6.
    """
    scores, mislabelled = suspects(scores, mislabelled)
    read = np.atleast_1d(whole_examples(budgets, len(scores)))
    order = np.lexsort((np.random.default_rng(seed).permutation(len(scores)), -scores))
    places = np.argsort(order)
    masks = [mislabelled & (places < number) for number in read]
    accuracies = [_accuracy(train_and_test(mask.copy())) for mask in masks]
    return FixingCurve(
        budgets=np.atleast_1d(np.asarray(budgets, np.float64)),
        read=read,
        fixed=np.array([mask.sum() for mask in masks]),
        accuracy=np.array(accuracies),
    )


def _accuracy(value: float) -> float:
    accuracy = float(value)
    if not 0.0 <= accuracy <= 1.0:
        message = (
            "Argument `train_and_test` must return an accuracy, a number from 0 to 1. "
            f"Received: {value!r}."
        )
        raise ValueError(message)
    return accuracy
