"""Values that are likely to be wrong: what the last layer misses, held out, against its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .confident_joint import WrongLabelEstimate
from .head import STRENGTH
from .signals import Sources

DEVIATIONS = 1.4826
"""The standard deviation of a normal law is so many medians of its absolute values."""

BEYOND = (2.0, 3.0, 4.0)
"""Standard deviations beyond which residuals are counted."""

_LEAST_SPREAD = 1e-300


def held_out_ridge(
    features: np.ndarray, values: np.ndarray, folds: np.ndarray, strength: float = STRENGTH
) -> np.ndarray:
    """Return what a linear layer says of the examples that it was not fitted on.

    For each fold, ``(1/m) Σ (w f_i + b - y_i)² + λ ‖w‖²`` is minimised over the m examples of the
    others.

    Parameters
    ----------
    features
        Of mean 0 and variance 1, shape ``(n, d)``.
    values
        Given values y, float64, shape ``(n,)``.
    folds
        The fold of each example, shape ``(n,)``.
    strength
        λ.

    Returns
    -------
    float64, shape ``(n,)``.
    """
    result = np.empty(len(values))
    for fold in np.unique(folds):
        held = folds == fold
        centre, mean = features[~held].mean(axis=0), values[~held].mean()
        rows, m = features[~held] - centre, int((~held).sum())
        matrix = rows.T @ rows / m + strength * np.eye(rows.shape[1])
        weights = np.linalg.solve(matrix, rows.T @ (values[~held] - mean) / m)
        result[held] = (features[held] - centre) @ weights + mean
    return result


def estimate_wrong_values(residuals: np.ndarray) -> WrongLabelEstimate:
    """Estimate how many values are wrong: how many more are far off than a normal law has.

    They are counted beyond 2, 3 and 4 standard deviations. Mistakes that are smaller than the
    spread of right values are not among them.

    Parameters
    ----------
    residuals
        Absolute ones, in standard deviations, shape ``(n,)``.
    """
    n = len(residuals)
    counts = [(residuals > beyond).sum() - n * math.erfc(beyond / 2**0.5) for beyond in BEYOND]
    low, middle, high = sorted(max(round(float(count)), 0) for count in counts)
    return WrongLabelEstimate(middle, (low, high))


class ValueSources(Sources):
    """The sources where labels are values, float64, shape ``(n,)``."""

    @property
    def _strata(self) -> np.ndarray:
        return np.zeros(len(self.evidence.labels))

    @cached_property
    def _predicted(self) -> np.ndarray:
        return held_out_ridge(self._features, self.evidence.labels, self._folds)

    @cached_property
    def _absolute(self) -> np.ndarray:
        return np.abs(self.evidence.labels - self._predicted)

    @cached_property
    def _residuals(self) -> np.ndarray:
        """In standard deviations, of which one half is of the neighbours, the other of all."""
        near = self._absolute[self._nearest.first(self._k).indices]
        spread = DEVIATIONS * (np.median(near, axis=1) + np.median(self._absolute)) / 2
        return self._absolute / np.maximum(spread, _LEAST_SPREAD)

    @property
    def _apart(self) -> float:
        return BEYOND[1] * DEVIATIONS * float(np.median(self._absolute))

    def signals(self, names: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: ARG002 - has one
        return {"residual": self._residuals}

    def suggestions(self) -> dict[str, Any]:
        return {
            "suggested": self._predicted,
            "given_probability": None,
            "suggested_probability": None,
        }

    def estimate(self) -> WrongLabelEstimate:
        return estimate_wrong_values(self._residuals)
