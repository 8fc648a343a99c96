"""In-run data Shapley values of training examples, looked up in what a fit recorded."""

from __future__ import annotations

import json

import numpy as np

from ..calculators.blocks import InfluenceBlock
from ..gradients.passes import Pass
from ..types import Data, IdFunction
from .base import RecordedScore
from .in_run import TOTAL
from .record import RecordedDynamics


class InRunShapley(RecordedScore):
    """How far the steps of a training example lowered the loss on queries [1]_.

        score(z_i) = Σ_t η_t ∇L_i(θ_t)ᵀ (1/m) Σ_queries g(query, θ_t)

    as `InRunRecorder` recorded it, in the units of the loss. **Positive: the example helped**; the
    lowest scores are the most suspicious. The scores of all examples add up to about the fall of
    the mean loss on the queries that steps of gradient descent caused, the less the larger they
    are.

    Parameters
    ----------
    model
        The wrapped model.
    dynamics
        The `InRunRecorder` that was in the fit, or its record.

    References
    ----------
    .. [1] J. T. Wang, P. Mittal, D. Song, R. Jia. Data Shapley in One Training Run. ICLR 2025.
       arXiv:2406.11011.
    """

    def _scores_of(self, dynamics: RecordedDynamics) -> np.ndarray:
        if not _query_ids(dynamics):
            return np.nansum(dynamics.statistic(TOTAL), axis=0)
        return np.nansum(dynamics.values, axis=0).mean(axis=1)

    def influence_block(
        self, train_set: Data, id_fn: IdFunction | None = None, verbose: str | int = "auto"
    ) -> InfluenceBlock:
        """Return the value of each training example for each query.

        Parameters
        ----------
        train_set, id_fn, verbose
            As for `score`.

        Returns
        -------
        A block of ``(m, n)``.

        Raises
        ------
        ValueError
            If ``each_query`` was not asked of the recorder.
        """
        query_ids = _query_ids(self.dynamics)
        if not query_ids:
            message = (
                "Argument `dynamics` must have values for each query. Received: a record of "
                f"{', '.join(self.dynamics.names)}. Record with InRunRecorder(each_query=True)."
            )
            raise ValueError(message)
        data = Pass(train_set, "train_set", "Influence", id_fn, verbose=verbose)
        found = [(item.ids, self._positions(item.batch)) for item in self._stream(data)]
        ids, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
        values = np.nansum(self.dynamics.values, axis=0)[positions].T
        return InfluenceBlock(np.array(query_ids), ids, values)


def _query_ids(dynamics: RecordedDynamics) -> list:
    """Return the ids of the queries that a record has columns for; empty where it has none."""
    try:
        return [json.loads(name) for name in dynamics.names]
    except json.JSONDecodeError:
        return []
