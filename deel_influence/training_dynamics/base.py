"""Scores that are looked up in a record of training."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from ..calculators.self_influence import SelfInfluenceCalculator
from ..extras import require
from ..gradients.passes import Pass
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data, IdFunction
from .fit_recorder import FitRecorder, recorded_dynamics
from .record import RecordedDynamics

if TYPE_CHECKING:
    import pandas as pd


class RecordedScore(SelfInfluenceCalculator):
    """Base class of scores that follow from what `TrainingDynamics` recorded.

    Scoring reads the data once and runs no model. Only examples of the training run have a score;
    another one is refused. To be implemented by subclasses: `_scores_of`.

    Parameters
    ----------
    model
        The wrapped model; it says how a batch of the dataset is read.
    dynamics
        The callback that was in the fit, or its record, whole or `RecordedDynamics.select`-ed. It
        is read once: what is recorded later does not count.
    """

    _eager_hooks = frozenset({"_self_scores"})

    def __init__(self, model: BaseInfluenceModel, dynamics: FitRecorder | RecordedDynamics) -> None:
        super().__init__(model)
        self.dynamics = recorded_dynamics(dynamics)
        # A copy is made of what was read, and not of what the callback may have recorded since.
        self._arguments = {**self._arguments, "dynamics": self.dynamics}
        self._scores = self._scores_of(self.dynamics)

    @abstractmethod
    def _scores_of(self, dynamics: RecordedDynamics) -> np.ndarray:
        """Return the scores ``(n,)`` of the recorded examples. To be implemented by subclasses."""

    def to_pandas(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        verbose: str | int = "auto",
    ) -> pd.DataFrame:
        """Return a row for each example and recorded epoch, a column for each statistic.

        Parameters
        ----------
        train_set, id_fn, verbose
            As for `score`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = require("pandas", "report", "`to_pandas` needs")
        ids, positions = [], []
        data = Pass(train_set, "train_set", "Dynamics", id_fn, verbose=verbose)
        for item in self._stream(data):
            ids.append(item.ids)
            positions.append(self._positions(item.batch))
        # (t, n, q) -> (n, t, q): the epochs of an example stand together.
        values = self.dynamics.values[:, np.concatenate(positions)].swapaxes(0, 1)
        names = self.dynamics.names
        index = pandas.MultiIndex.from_product(
            [np.concatenate(ids), self.dynamics.epochs], names=["id", "epoch"]
        )
        return pandas.DataFrame(values.reshape(-1, len(names)), index=index, columns=list(names))

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        return tf.constant(self._scores[self._positions(batch)], self.model.dtype)

    def _positions(self, batch: Batch) -> np.ndarray:
        """Return where the examples of a batch stand in the record, shape ``(b,)``."""
        keys = self._kernel(self._keys)(batch)
        return self.dynamics.positions_of(keys.numpy())

    def _keys(self, batch: Batch) -> tf.Tensor:
        inputs, targets, _ = self.model.process_batch_for_loss_fn(batch)
        return self.dynamics.keys_of(inputs, targets)
