"""Influence on fixed queries, step by step, while a model is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import listening
from ..gradients.directions import Directions
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..linalg.checks import check_count
from ..model.influence_model import BaseInfluenceModel
from ..model.measurements import Measurement, measured_model
from ..types import Data, IdFunction
from ..utils.takes_data import TakesData
from .fit_recorder import FitRecorder
from .record import EpochRecord
from .recorder import StepRecorder

TOTAL = "influence"
"""The name of the influence on the mean of all queries."""

REFRESH_SHARE = 0.1
"""About this share of the examples of training is what the queries are computed for besides."""


class InRunRecorder(FitRecorder, TakesData):
    """Record what each training example did to the loss on queries, in every step of `fit`.

    A step with learning rate η on the objective ``L = Σ_i L_i`` of its batch, of which example i
    has the part ``L_i`` (``w_i ℓ_i / b`` under a mean over b examples), changes the loss on a query
    by ``-η ∇Lᵀ g(query)`` to first order. The value of example i is its part of the fall,

        Σ_t  η_t ∇L_i(θ_t)ᵀ g(query, θ_t)

    over the steps that had it in their batch, in the units of the loss. Positive: it helped. This
    is the first order of In-Run Data Shapley [1]_ and, query by query, what TracIn approximates by
    checkpoints [2]_. What example i did at later steps by way of other examples has no part in it.

    ``∇L_i`` is read off the backward pass that the step makes anyway, in training mode, with
    dropout, sample and class weights as they are; regularisers and weight decay are no example's.
    The queries' gradients, in inference mode, are computed anew every so many steps.

    Whatever the optimizer, the step that is divided is ``η_t ∇L``, that of gradient descent.
    Momentum μ lets each gradient act ``1 / (1 - μ)`` times in all; Adam and its like scale each
    coordinate, which does not count here. Clipping is not seen either.

    Examples are known as `TrainingDynamics` knows them, and so are epochs, files and what is left
    in the model: nothing. Examples that are equal count as one, with the sum of their values.

    Parameters
    ----------
    model
        The wrapped model that is going to be fitted: its watched weights are what counts.
    queries
        The m queries, held in memory.
    each_query
        Whether each query has values of its own; else they are on the mean over the queries.
    measurement
        What is looked at on the queries in place of their loss; see `measured_model`. Positive then
        means that a step of the example lowered it.
    refresh
        After how many calls of the train function the queries' gradients are computed anew; 1 takes
        those of the very step. None chooses it so that they take about a tenth of the work.
    by_epoch
        Whether the values of epochs are kept apart.
    epochs, id_fn, batch_size, path, resume
        As for `TrainingDynamics`.
    query_id_fn
        Gives ids to the queries; None takes those that go with them, or positions.

    Raises
    ------
    UnsupportedModelError
        In training, if automatic differentiation, not a rule, gives the gradients of a watched
        variable, or the optimizer scales the loss.
    NonFiniteError
        In training, if a value is NaN or infinite.

    References
    ----------
    .. [1] J. T. Wang, P. Mittal, D. Song, R. Jia. Data Shapley in One Training Run. ICLR 2025.
       arXiv:2406.11011.
    .. [2] G. Pruthi, F. Liu, S. Kale, M. Sundararajan. Estimating Training Data Influence by
       Tracing Gradient Descent. NeurIPS 2020.

    Notes
    -----
    A record takes 4 bytes for each example and column, of which there are m with ``each_query``
    and else one; with ``by_epoch`` for each epoch.
    """

    _adds_up = True

    def __init__(
        self,
        model: BaseInfluenceModel,
        queries: Data,
        each_query: bool = False,
        measurement: Measurement = None,
        refresh: int | None = None,
        by_epoch: bool = False,
        epochs: Collection[int] | None = None,
        id_fn: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        path: str | Path | None = None,
        resume: bool = False,
        query_id_fn: IdFunction | None = None,
    ) -> None:
        self._wrapped = model
        self._engine = GradientEngine.of(model)
        self._query_engine = GradientEngine.of(measured_model(model, measurement))
        self._refresh = None if refresh is None else check_count("refresh", refresh)
        self._by_epoch = by_epoch
        data = Pass(queries, "queries", id_fn=query_id_fn).checked(self._query_engine)
        # Their batches settle both plans: training differs from them in its labels alone.
        items = list(data.items(self._query_engine, self._engine))
        ids = np.concatenate([item.ids for item in items])
        self._directions = Directions(
            self._query_engine, [item.batch for item in items], not each_query
        )
        self._calls = 0
        self._batches: list[tuple[Any, Any]] = []
        names = tuple(json.dumps(name) for name in ids.tolist()) if each_query else (TOTAL,)
        super().__init__(names, epochs, id_fn, batch_size, path, resume)

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare a train function that computes the values."""
        self._check_fitted()
        self._calls = 0
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Decide whether the epoch is recorded."""
        records = self._records
        super().on_epoch_begin(epoch, logs)
        if not self._by_epoch and len(self._records) < len(records):
            self._records = records
            message = (
                "Argument `initial_epoch` of `fit` must go on where the record ends, after epoch "
                f"{records[-1].epoch} (counting from 0). Received: epoch {epoch}. Record with "
                "by_epoch=True, which replaces epochs, or with a new InRunRecorder."
            )
            raise ValueError(message)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Have the next step recorded, with gradients of the queries that are recent enough."""
        if self._records_epoch:
            if self._calls % self._calls_between() == 0:
                self._directions.refresh()
            self._calls += 1
        super().on_train_batch_begin(batch, logs)

    def _calls_between(self) -> int:
        """Return after how many calls the queries' gradients are computed anew."""
        if self._refresh is None and self._recorder is not None:
            self._recorder.read()
            share = self._directions.count / max(self._recorder.largest_call, 1)
            self._refresh = max(round(share / REFRESH_SHARE), 1)
        return self._refresh or 1

    def _make_recorder(self) -> StepRecorder:
        rows = self._rows_per_call()
        dtype = self._wrapped.dtype
        return StepRecorder(len(self._names), dtype, self._id_fn, rows, is_finite=True)

    def _loss_computed(self, x: Any, y: Any, y_pred: Any) -> None:  # noqa: ARG002
        self._batches.append((x, y))

    def _step(self, data: Any) -> Any:
        """Run a training step, and divide what it does among its examples."""
        optimizer, plan = self.model.optimizer, self._engine.plan
        rate = tf.cast(tf.convert_to_tensor(optimizer.learning_rate), self._wrapped.dtype)
        # As a whole, such a step is taken after so many batches, along the mean of their gradients.
        rate /= getattr(optimizer, "gradient_accumulation_steps", None) or 1
        self._batches.clear()
        with listening([ruled.layer for ruled in plan.ruled]) as taps:
            logs = super()._step(data)
        if self._recorder is not None:
            if len(self._batches) != 1:
                message = (
                    "InRunRecorder needs a training step that computes one loss. Received: a "
                    f"{type(self.model).__name__} that calls `compute_loss` {len(self._batches)} "
                    "times. Call it once in `train_step`."
                )
                raise UnsupportedModelError(message)
            values = rate * self._directions.dot(plan.blocks_in_training(taps))
            self._recorder.write(*self._batches.pop(), values)
        return logs

    def _record_of_epoch(self, recorder: StepRecorder) -> EpochRecord:
        found = super()._record_of_epoch(recorder)
        if self._by_epoch or not self._records:
            return found
        before = self._records.pop()
        keys = np.concatenate([before.keys, found.keys])
        values = np.concatenate([before.values, found.values])
        return EpochRecord.of_rows(found.epoch, keys, values, total=True)

    def _check_fitted(self) -> None:
        """Refuse a fit whose steps cannot be divided among examples."""
        if self.model is not self._wrapped.model:
            message = (
                "Argument `model` must wrap the model that is fitted. Received: a wrap of "
                f"{self._wrapped.model.name!r}, in a fit of {self.model.name!r}. Wrap that one."
            )
            raise ValueError(message)
        optimizer = self.model.optimizer
        scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        if scales or getattr(optimizer, "loss_scale_factor", None):
            message = (
                "InRunRecorder needs an optimizer that does not scale the loss. Received: "
                f"{type(optimizer).__name__}. Train in float32 or bfloat16."
            )
            raise UnsupportedModelError(message)
        unruled = [variable.path for variable in self._engine.fallback_variables]
        if unruled:
            message = (
                "InRunRecorder needs a rule for the gradients of all watched variables. Received: "
                f"{', '.join(unruled)}, which automatic differentiation serves. Watch other layers."
            )
            raise UnsupportedModelError(message)
