"""How many labels are wrong, and which classes they confuse, from held-out probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUREST = 0.1
"""The share of each class that the anchor points are."""

SPREAD = 1.96
"""Standard deviations that the ends of the interval are moved out by."""

TEMPERATURES = np.logspace(-1, 1, 81)


@dataclass(frozen=True)
class WrongLabelEstimate:
    """How many of n labels are wrong.

    Attributes
    ----------
    number
        The estimate: the geometric mean of what the anchor points and the confident joint say,
        which err on opposite sides.
    interval
        Low and high: the two, each with its sampling error.
    joint
        The confident joint, given class × class that it seems to be, in numbers of examples,
        shape ``(c, c)``; its sum is n.
    """

    number: int
    interval: tuple[int, int]
    joint: np.ndarray


def estimate_wrong_labels(log_probabilities: np.ndarray, labels: np.ndarray) -> WrongLabelEstimate:
    """Estimate how many labels are wrong.

    Parameters
    ----------
    log_probabilities
        Of each class, by a model that has not seen the example, shape ``(n, c)``.
    labels
        Given classes, int64, shape ``(n,)``.
    """
    n, num_classes = log_probabilities.shape
    probabilities = np.exp(log_probabilities)
    joint = confident_joint(probabilities, labels)
    high = n - np.trace(joint)
    low, seen = _anchored(probabilities, labels, num_classes)
    low, high = min(n * low, high), max(n * low, high)
    ends = low - SPREAD * _deviation(low / n, seen) * n, high + SPREAD * _deviation(high / n, n) * n
    interval = int(max(np.floor(ends[0]), 0)), int(min(np.ceil(ends[1]), n))
    return WrongLabelEstimate(round(float(np.sqrt(low * high))), interval, joint)


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many examples of each given class seem to be of each class, shape ``(c, c)``.

    An example is counted for the class of highest probability among those that it reaches the
    threshold of, which is the mean probability of a class where it is the label [1]_. Each row is
    then scaled to the number of examples that have the label.

    Parameters
    ----------
    probabilities
        Held out, shape ``(n, c)``.
    labels
        Given classes, int64, shape ``(n,)``.

    References
    ----------
    .. [1] C. G. Northcutt, L. Jiang, I. L. Chuang. Confident Learning: Estimating Uncertainty in
       Dataset Labels. JAIR 2021.
    """
    num_classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_classes)
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], num_classes)
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    reached = probabilities >= thresholds
    likely = np.where(reached, probabilities, -1.0).argmax(axis=1)
    confident = reached.any(axis=1)
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (labels[confident], likely[confident]), 1.0)
    # A class that no example is counted for counts as right.
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1.0
    return joint / joint.sum(axis=1, keepdims=True) * counts[:, None]


def calibrated(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return logarithms of probabilities ``(n, c)`` at the temperature of the least mean loss."""

    def at(temperature: float) -> np.ndarray:
        logits = log_probabilities / temperature
        logits = logits - logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    rows = np.arange(len(labels))
    losses = [-at(temperature)[rows, labels].mean() for temperature in TEMPERATURES]
    return at(float(TEMPERATURES[int(np.argmin(losses))]))


def _anchored(probabilities: np.ndarray, labels: np.ndarray, num_classes: int) -> tuple[float, int]:
    """Return the share of wrong labels where the model is surest, and among how many.

    Where a class is all but certain, a label that disagrees is wrong. Labels that are hard are
    wrong more often, so that the share errs on the low side.
    """
    counts = np.bincount(labels, minlength=num_classes)
    share, seen = 0.0, 0
    for label in np.flatnonzero(counts):
        number = int(np.ceil(SUREST * counts[label]))
        surest = np.argsort(-probabilities[:, label], kind="stable")[:number]
        share += counts[label] / len(labels) * float(np.mean(labels[surest] != label))
        seen += number
    return share, seen


def _deviation(share: float, number: int) -> float:
    """Return the standard deviation of a share of a number of examples."""
    # One more success and one more failure, so that no share is known for certain.
    share = (share * number + 1) / (number + 2)
    return float(np.sqrt(share * (1 - share) / number))
