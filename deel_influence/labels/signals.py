"""The signals of a wrong label, each one number for each example, larger for more suspicious."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..training_dynamics.record import RecordedDynamics
from .confident_joint import WrongLabelEstimate, calibrated, estimate_wrong_labels
from .head import held_out_head, standardised, stratified_folds
from .held_out import CrossFit
from .leave_one_out import leave_one_out_losses
from .neighbours import Neighbours, nearest_neighbours
from .reading import Evidence, losses_of, margins_of, ranked

SHOWN_NEIGHBOURS = 5
"""So many neighbours of an example are kept for those who ask why it is suspicious."""


class Sources:
    """What signals are made of, each computed when the first signal asks for it.

    Parameters
    ----------
    evidence
        Of one pass over the n examples.
    dynamics
        The record of the training, if there is one.
    cross_fit
        The models that were trained on parts, if there are any.
    num_folds, seed
        How often the last layer is fitted anew, and what fixes who is left out when.
    num_neighbours
        The number k of neighbours; None takes ``√n``.
    class_names
        What the classes 0, 1, ... are called, where it is known.
    """

    def __init__(
        self,
        evidence: Evidence,
        dynamics: RecordedDynamics | None = None,
        cross_fit: CrossFit | None = None,
        num_folds: int = 5,
        num_neighbours: int | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.evidence, self._names = evidence, class_names
        self._dynamics = dynamics
        self._cross_fit = None if cross_fit is None else cross_fit.of(evidence.ids, evidence.labels)
        self._num_folds, self._num_neighbours, self._seed = num_folds, num_neighbours, seed

    @property
    def class_names(self) -> Sequence[str] | None:
        """What the labels mean, given and suggested."""
        return self._names

    @cached_property
    def _features(self) -> np.ndarray:
        return standardised(self.evidence.features)

    @property
    def _strata(self) -> np.ndarray:
        return self.evidence.labels

    @cached_property
    def _folds(self) -> np.ndarray:
        folds = np.empty(len(self.evidence.ids), np.int64)
        # By id, so that the order of the data has no part in who is left out with whom.
        order = np.argsort(self.evidence.ids, kind="stable")
        folds[order] = stratified_folds(self._strata[order], self._num_folds, self._seed)
        return folds

    @cached_property
    def head(self) -> np.ndarray:
        """Logarithms of the probabilities by the last layer, held out, ``(n, c)``."""
        labels, num_classes = self.evidence.labels, self.evidence.num_classes
        return held_out_head(self._features, labels, num_classes, self._folds)

    def leave_one_out(self) -> np.ndarray:
        """Return the losses ``(n,)`` of the last layer, fitted without each example in turn."""
        labels, num_classes = self.evidence.labels, self.evidence.num_classes
        return leave_one_out_losses(self._features, labels, num_classes)

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """The same, at the temperature that fits the given labels best, ``(n, c)``."""
        return calibrated(self.head, self.evidence.labels)

    @cached_property
    def _nearest(self) -> Neighbours:
        return nearest_neighbours(self._features, max(self._k, SHOWN_NEIGHBOURS))

    @property
    def _k(self) -> int:
        return self._num_neighbours or max(round(float(np.sqrt(len(self.evidence.ids)))), 1)

    @cached_property
    def neighbours(self) -> np.ndarray:
        """The share of each class among the nearest neighbours, ``(n, c)``."""
        return self._nearest.first(self._k).shares(self.evidence.labels, self.evidence.num_classes)

    @property
    def _apart(self) -> float:
        """By how much two labels differ at most that do not dispute each other."""
        return 0.0

    def signals(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return signals by their names, each ``(n,)``."""
        return {name: SIGNALS[name](self) for name in names}

    def suggestions(self) -> dict[str, Any]:
        """Return the columns of `LabelIssues` that tell what labels seem to be."""
        found, rows = self.log_probabilities, np.arange(len(self.evidence.ids))
        suggested = found.argmax(axis=1)
        return {
            "suggested": suggested,
            "given_probability": np.exp(found[rows, self.evidence.labels]),
            "suggested_probability": np.exp(found[rows, suggested]),
        }

    def around(self) -> dict[str, np.ndarray]:
        """Return the columns of `LabelIssues` that tell of the neighbours."""
        ids = self.evidence.ids
        copies = self._nearest.disputing_copies(self.evidence.labels, self._apart)
        return {
            "outlier_score": self._nearest.first(self._k).outlier_scores(),
            "duplicate_of": np.where(copies < 0, None, ids[copies].astype(object)),
            "neighbours": ids[self._nearest.first(SHOWN_NEIGHBOURS).indices],
        }

    def estimate(self) -> WrongLabelEstimate:
        """Return how many labels are wrong, by all that there is."""
        head, refits = np.exp(self.log_probabilities), self._cross_fit
        held_out = None if refits is None else refits.held_out
        return estimate_wrong_labels(head, self.neighbours, held_out, self.evidence.labels)

    def recorded(self, name: str) -> np.ndarray:
        """Return a statistic of the training, averaged over its epochs, ``(n,)``."""
        record = _given(self._dynamics, dynamics="TrainingDynamics")
        return record.mean(name)[record.positions_of(self.evidence.keys)]

    @property
    def refits(self) -> CrossFit:
        """What models say that were trained on parts, in the order of the examples."""
        return _given(self._cross_fit, cross_fit="CrossFit")


Signal = Callable[[Sources], np.ndarray]

SIGNALS: dict[str, Signal] = {
    "loss": lambda s: losses_of(s.evidence.log_probabilities, s.evidence.labels),
    "margin": lambda s: -margins_of(s.evidence.log_probabilities, s.evidence.labels),
    "head": lambda s: losses_of(s.head, s.evidence.labels),
    "head_margin": lambda s: -margins_of(s.head, s.evidence.labels),
    "leave_one_out": lambda s: s.leave_one_out(),
    "neighbours": lambda s: 1 - s.neighbours[np.arange(len(s.evidence.ids)), s.evidence.labels],
    "recorded_loss": lambda s: s.recorded("loss"),
    "recorded_margin": lambda s: -s.recorded("margin"),
    "in_sample": lambda s: -s.refits.in_sample_margins,
    "held_out": lambda s: s.refits.held_out_losses,
}

UNSEEN = ("held_out", "recorded_loss", "recorded_margin")
"""Signals of models before they had learnt the label, or that never have; the best one first."""

HALF = float(np.log(2))
DISPUTING = {
    **dict.fromkeys(("margin", "head_margin", "recorded_margin", "in_sample"), 0.0),
    "neighbours": 0.5,
}
"""Beyond what a signal says that a label is wrong; the others are losses, which do for π_y < ½."""


def default_signals(
    dynamics: RecordedDynamics | None, cross_fit: CrossFit | None
) -> tuple[str, ...]:
    """Return the names of the signals that are taken where none are asked for."""
    names = ["head", "neighbours"]
    if dynamics is not None:
        names.append("recorded_loss" if "loss" in dynamics.names else "recorded_margin")
    if cross_fit is not None:
        names += ["in_sample", "held_out"]
    return tuple(names)


def check_signals(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of signals.

    Raises
    ------
    ValueError
        If there are none, one is unknown, or one comes twice.
    """
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given or set(given) - set(SIGNALS) or len(set(given)) < len(given):
        message = (
            f"Argument `signals` must name some of {', '.join(SIGNALS)}, each once. "
            f"Received: {names!r}."
        )
        raise ValueError(message)
    return given


def suspicion_of(signals: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return how suspicious labels are by several signals ``(n,)``, from 0 to 1, shape ``(n,)``.

    It is the mean rank where none of the signals is `UNSEEN`. Else a signal has the weight w, the
    share of the labels disputed by the first of these that it disputes too, and with ranks r from
    0 to 1 the suspicion is ``1 - Π (1 - r)^(w / Σw)``.
    """
    ranks = np.array([ranked(values) for values in signals.values()])
    unseen = next((name for name in UNSEEN if name in signals), None)
    if unseen is None or len(signals) == 1:
        return ranks.mean(axis=0)
    disputed = np.array([values > DISPUTING.get(name, HALF) for name, values in signals.items()])
    told = disputed[:, signals[unseen] > DISPUTING.get(unseen, HALF)]
    weights = told.mean(axis=1) if told.size else np.ones(len(ranks))
    # The highest rank counts as half a step below 1, so that no signal decides alone.
    below = np.maximum(1 - ranks, 0.5 / ranks.shape[1])
    return 1 - np.exp(weights @ np.log(below) / weights.sum())


def _given(value: Any, **kinds: str) -> Any:
    if value is not None:
        return value
    ((argument, kind),) = kinds.items()
    message = (
        f"Argument `{argument}` must be a {kind} for the signals that are made of it. Received: "
        f"{argument}=None. Pass one, or ask for other signals."
    )
    raise ValueError(message)
