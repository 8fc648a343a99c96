"""What one pass over a training set tells of its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LabelError


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of n examples before any signal.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(n,)``.
    labels
        Given classes, or numbers of sets of classes, int64, or values, float64, shape ``(n,)``.
    log_probabilities
        Of the model, float64, shape ``(n, c)``; for values without classes, shape ``(n, 0)``; for
        sets the log-odds of each class.
    features
        The inputs of its last layer, shape ``(n, d)``.
    keys
        By which a record of training knows them, int64, shape ``(n,)``.
    """

    ids: np.ndarray
    labels: np.ndarray
    log_probabilities: np.ndarray
    features: np.ndarray
    keys: np.ndarray

    @property
    def num_classes(self) -> int:
        """The number c of classes."""
        return self.log_probabilities.shape[1]


def losses_of(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``-log π_y``, shape ``(n,)``, for ``(n, c)`` and ``(n,)``."""
    return -log_probabilities[np.arange(len(labels)), labels]


def margins_of(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return ``log π_y - max_{j≠y} log π_j``, shape ``(n,)``, for ``(n, c)`` and ``(n,)``."""
    others = log_probabilities.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return -losses_of(log_probabilities, labels) - others.max(axis=1)


def ranked(values: np.ndarray) -> np.ndarray:
    """Return where each value stands among the n, from 0 to 1, the largest highest; ties share."""
    if len(values) < 2:
        return np.zeros(len(values))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - (counts + 1) / 2) / (len(values) - 1))[inverse]


def check_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return classes ``(n,)``, int64, from 0 to c - 1.

    Raises
    ------
    LabelError
        If they are values, or there is no such class.
    """
    if labels.dtype.kind == "f":
        message = (
            "Labels must be classes for a cross-fit. Received: values of dtype "
            f"{labels.dtype}. Regression is read by `find_label_issues` without one."
        )
        raise LabelError(message)
    if num_classes == 2:
        labels = np.maximum(labels, 0)  # hinge losses name two classes -1 and 1
    if len(labels) and (labels.min() < 0 or labels.max() >= num_classes):
        message = (
            f"Labels must be below the number of classes of the model, {num_classes}. Received: "
            f"labels from {labels.min()} to {labels.max()}. Number the classes from 0."
        )
        raise LabelError(message)
    return labels
