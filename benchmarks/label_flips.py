"""Labels made wrong on purpose, as people make mistakes: in some classes, or on hard examples."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

LEAST_RATE, HIGHEST_RATE = 0.5, 1.5
"""How often a class is mistaken, against the mean over the classes."""

NUM_FOLDS, MOST_STEPS = 5, 200


def class_conditional(
    labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flip labels at a rate that is drawn for each class, each class to one other.

    Parameters
    ----------
    labels
        Right classes, int64, shape ``(n,)``.
    fraction
        Share of the labels to flip, from 0 to 1.
    seed
        Fixes the draw.

    Returns
    -------
    The labels, shape ``(n,)``, and which of them are wrong, shape ``(n,)``, bool.
    """
    generator = np.random.default_rng(seed)
    classes = int(labels.max()) + 1
    rates = generator.uniform(LEAST_RATE, HIGHEST_RATE, classes)
    # The next one around a circle in which the classes stand in an order that is drawn.
    circle = generator.permutation(classes)
    taken_for = np.empty(classes, np.int64)
    taken_for[circle] = np.roll(circle, -1)
    return _flipped(labels, taken_for[labels], rates[labels], fraction, generator)


def hard_examples(
    inputs: np.ndarray, labels: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flip labels of examples that are hard, each to the class that it is most like.

    A logistic regression that has not seen the example tells how hard it is: they are drawn in
    proportion to ``1 - π_y``.

    Parameters
    ----------
    inputs
        Shape ``(n, ...)``.
    labels, fraction, seed
        As for `class_conditional`.
    """
    rows = StandardScaler().fit_transform(inputs.reshape(len(inputs), -1))
    split = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=MOST_STEPS, C=0.01)
    found = cross_val_predict(model, rows, labels, cv=split, method="predict_proba")
    at = np.arange(len(labels))
    hardness = 1 - found[at, labels]
    found[at, labels] = -1.0
    generator = np.random.default_rng(seed)
    return _flipped(labels, found.argmax(axis=1), hardness, fraction, generator)


def _flipped(
    labels: np.ndarray,
    others: np.ndarray,
    weights: np.ndarray,
    fraction: float,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Put others ``(n,)`` in the place of some labels, drawn by weights ``(n,)``."""
    count = round(fraction * len(labels))
    chances = weights / weights.sum()
    chosen = generator.choice(len(labels), count, replace=False, p=chances)
    wrong = np.zeros(len(labels), bool)
    wrong[chosen] = True
    return np.where(wrong, others, labels), wrong
