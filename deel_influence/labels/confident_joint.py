"""How many labels are wrong, and which classes they confuse, from held-out probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUREST, UNANIMOUS = 0.1, 0.3
"""Shares of each class that count as anchor points, by the head and by the neighbours."""

SPREAD = 1.96
"""Standard deviations that the ends of the interval are moved out by."""

TEMPERATURES = np.logspace(-1, 1, 81)


@dataclass(frozen=True)
class WrongLabelEstimate:
    """How many of n labels are wrong.

    Attributes
    ----------
    number
        The middle one of three estimates.
    interval
        From the lowest to the highest of them, each with its sampling error.
    """

    number: int
    interval: tuple[int, int]


def estimate_wrong_labels(
    head: np.ndarray, neighbours: np.ndarray, held_out: np.ndarray, labels: np.ndarray
) -> WrongLabelEstimate:
    """Estimate how many labels are wrong.

    Three estimates are made: the share of other labels where the head is surest of a class, the
    same where most neighbours have it, and the part of the confident joint beside its diagonal. No
    data tell hard examples from wrong labels for certain: the first takes none of the hard ones
    for wrong, and the last many.

    Parameters
    ----------
    head
        Probabilities by the refitted head, shape ``(n, c)``.
    neighbours
        Shares of each class among the neighbours, shape ``(n, c)``.
    held_out
        Probabilities by a model that has not seen the example, shape ``(n, c)``.
    labels
        Given classes, int64, shape ``(n,)``.
    """
    n = len(labels)
    joint = 1 - np.trace(confident_joint(held_out, labels)) / n
    found = sorted(
        [_anchored(head, labels, SUREST), _anchored(neighbours, labels, UNANIMOUS), (joint, n)]
    )
    low, high = found[0], found[-1]
    ends = low[0] - SPREAD * _deviation(*low), high[0] + SPREAD * _deviation(*high)
    interval = int(max(np.floor(n * ends[0]), 0)), int(min(np.ceil(n * ends[1]), n))
    return WrongLabelEstimate(round(n * found[1][0]), interval)


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


def _anchored(probabilities: np.ndarray, labels: np.ndarray, part: float) -> tuple[float, int]:
    """Return the share of wrong labels at the anchor points, and how many there are.

    They are the examples that are most probably of a class, ``part`` of its number, where a label
    that disagrees is wrong.
    """
    counts = np.bincount(labels)
    share, seen = 0.0, 0
    for label in np.flatnonzero(counts):
        number = int(np.ceil(part * counts[label]))
        surest = np.argsort(-probabilities[:, label], kind="stable")[:number]
        share += counts[label] / len(labels) * float(np.mean(labels[surest] != label))
        seen += number
    return share, seen


def _deviation(share: float, number: int) -> float:
    """Return the standard deviation of a share of a number of examples."""
    # One more success and one more failure, so that no share is known for certain.
    share = (share * number + 1) / (number + 2)
    return float(np.sqrt(share * (1 - share) / number))
