"""How many labels are wrong, and which classes they confuse, from held-out probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SUREST, UNANIMOUS = 0.1, 0.3
"""Shares of each class that count as anchor points, by models and by the neighbours."""

OWN_MISTAKES = 0.5
"""Share of the disagreements where models are surest of all that may be their own mistakes."""

SPREAD = 1.96
"""Standard deviations that the ends of the interval are moved out by."""

TEMPERATURES = np.logspace(-1, 1, 81)


@dataclass(frozen=True)
class WrongLabelEstimate:
    """How many of n labels are wrong.

    Attributes
    ----------
    number
        The estimate.
    interval
        From a low to a high estimate, each with its sampling error.
    entries
        Where labels are sets of classes, for each class how many of them wrongly have it or lack
        it, shape ``(c,)``.
    """

    number: int
    interval: tuple[int, int]
    entries: np.ndarray | None = None


def estimate_wrong_labels(
    head: np.ndarray, neighbours: np.ndarray, held_out: np.ndarray | None, labels: np.ndarray
) -> WrongLabelEstimate:
    """Estimate how many labels are wrong.

    With models that were not trained on the example, it is halfway between the share of other
    labels at the surest tenth of each class, among which are mistakes of the models, and that at
    the surest tenth of all, which are easy for people too. The interval goes from half the share
    at the surest twentieth of all to the share at the surest fifth of each class.

    Without them, features have learnt wrong labels too, and the middle one is taken of three
    estimates: the share of other labels where the head is surest of a class and where most
    neighbours have it, which take no hard example for a wrong label, and the part of the confident
    joint beside its diagonal, which takes many.

    Parameters
    ----------
    head
        Probabilities by the refitted head, shape ``(n, c)``.
    neighbours
        Shares of each class among the neighbours, shape ``(n, c)``.
    held_out
        Probabilities by models that have not been trained on the example, averaged over the
        epochs, shape ``(n, c)``; None where there are none.
    labels
        Given classes, int64, shape ``(n,)``.
    """
    n = len(labels)
    if held_out is None:
        joint = 1 - np.trace(confident_joint(head, labels)) / n
        surest = _anchored(head, labels, SUREST), _anchored(neighbours, labels, UNANIMOUS)
        low, (share, _), high = sorted([*surest, (joint, n)])
    else:
        each, of_all = _anchored(held_out, labels, SUREST), _surest(held_out, labels, SUREST)
        share = (each[0] + of_all[0]) / 2
        easiest, seen = _surest(held_out, labels, SUREST / 2)
        low = min((OWN_MISTAKES * easiest, seen), of_all)
        high = max(_anchored(held_out, labels, 2 * SUREST), each)
    ends = low[0] - SPREAD * _deviation(*low), high[0] + SPREAD * _deviation(*high)
    interval = int(max(np.floor(n * ends[0]), 0)), int(min(np.ceil(n * ends[1]), n))
    return WrongLabelEstimate(round(n * share), interval)


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
    return min(map(at, TEMPERATURES), key=lambda found: -found[rows, labels].mean())


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


def _surest(probabilities: np.ndarray, labels: np.ndarray, part: float) -> tuple[float, int]:
    """Return the same for the examples that are most probably of any class."""
    number = int(np.ceil(part * len(labels)))
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[:number]
    return float(np.mean(probabilities[surest].argmax(axis=1) != labels[surest])), number


def _deviation(share: float, number: int) -> float:
    """Return the standard deviation of a share of a number of examples."""
    # One more success and one more failure, so that no share is known for certain.
    share = (share * number + 1) / (number + 2)
    return float(np.sqrt(share * (1 - share) / number))
