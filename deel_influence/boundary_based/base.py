"""What the boundary calculators share: their settings, and the account of each search."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..calculators.self_influence import SelfInfluenceCalculator
from ..errors import ConvergenceWarning
from ..gradients.passes import Pass
from ..linalg.checks import check_count, check_positive
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data, IdFunction
from ..utils.datasets import Item
from ..utils.running import run
from .deepfool import BoundaryPoints, DeepFool
from .logits import ClassLogits
from .norms import PNorm

NUM_NAMED = 5


@dataclass(frozen=True)
class BoundarySearch:
    """How the search went for each example of a dataset.

    Attributes
    ----------
    ids
        int64, shape ``(n,)``, in the order of the dataset.
    num_steps
        Steps that each example was moved, int64, shape ``(n,)``.
    reached
        Whether it reached the boundary, bool, shape ``(n,)``. Where it did not, the score is
        minus the square of how far it was moved until the search ended.
    """

    ids: np.ndarray
    num_steps: np.ndarray
    reached: np.ndarray

    @property
    def unreached_ids(self) -> np.ndarray:
        """The ids of the examples that did not reach the boundary."""
        return self.ids[~self.reached]


class BoundaryCalculator(SelfInfluenceCalculator):
    """Base class of scores ``-distance²`` to the decision boundary.

    To be implemented by subclasses: `_points`.

    Parameters
    ----------
    model
        The wrapped classifier; a Keras model is wrapped, with all its weights watched.
    step_nbr
        How many steps to take at most.
    eps
        Two logits that differ by no more count as the same: the boundary is reached.
    norm_type
        The norm of the distance.
    num_classes_considered
        How many classes each step considers.

    Attributes
    ----------
    last_search
        The `BoundarySearch` of the last complete pass over a dataset, None before the first.
    """

    _max_examples: int | None = None
    """How many examples a kernel takes at a time; None leaves batches as they are."""

    def __init__(
        self,
        model: BaseInfluenceModel | keras.Model,
        step_nbr: int,
        eps: float,
        norm_type: Any,
        num_classes_considered: int | None,
    ) -> None:
        super().__init__(_wrapped(model) if isinstance(model, keras.Model) else model)
        if num_classes_considered is not None:
            check_count("num_classes_considered", num_classes_considered, minimum=2)
        self.step_nbr = check_count("step_nbr", step_nbr)
        self.eps = check_positive("eps", eps)
        self.logits = ClassLogits(self.model)
        self.deepfool = DeepFool(
            norm=PNorm(norm_type),
            step_nbr=self.step_nbr,
            eps=self.eps,
            resolution=self.logits.resolution,
            num_classes_considered=num_classes_considered,
        )
        self.last_search: BoundarySearch | None = None

    @abstractmethod
    def _points(self, batch: Batch) -> BoundaryPoints:
        """Search the boundary for each example of a batch; traceable."""

    def _self_scores(self, batch: Batch) -> tf.Tensor:
        return self._account(batch)[0]

    def _account(self, batch: Batch) -> tf.Tensor:
        """Return scores, numbers of steps and whether the boundary was reached, ``(3, b)``."""
        points = self._points(batch)
        parts = [-tf.square(points.distances), points.num_steps, points.reached]
        return tf.stack([tf.cast(part, self.model.dtype) for part in parts])

    def scored_batches(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Score batch after batch, as the base class does, and keep account of the searches.

        Warns
        -----
        ConvergenceWarning
            At the end, if examples did not reach the boundary; `last_search` has their ids.
        """
        data = Pass(train_set, "train_set", "Boundary", id_fn, device, verbose)
        seen, accounts = [], []
        for item in self._stream(data.checked(self.engine)):
            kernel = self._kernel(self._account)
            parts = [run(kernel, part, (part.batch,), device) for part in self._parts(item)]
            account = tf.concat(parts, axis=1)
            seen.append(item.ids)
            accounts.append(account[1:].numpy())
            yield item.batch, item.ids, account[0]
        steps, reached = np.concatenate(accounts, axis=1)
        self.last_search = BoundarySearch(
            np.concatenate(seen), steps.astype(np.int64), reached.astype(bool)
        )
        self._report(self.last_search)

    def _parts(self, item: Item) -> Iterator[Item]:
        """Cut a batch into parts that a kernel takes."""
        step = self._max_examples or item.size
        if item.size <= step:
            yield item
            return
        for start in range(0, item.size, step):
            rows = slice(start, start + step)
            part = tf.nest.map_structure(lambda t, rows=rows: t[rows], item.batch)
            yield Item(item.index, item.ids[rows], part)

    def _report(self, search: BoundarySearch) -> None:
        missing = search.unreached_ids
        if not len(missing):
            return
        named = ", ".join(map(str, missing[:NUM_NAMED])) + (", ..." * (len(missing) > NUM_NAMED))
        message = (
            f"{len(missing)} of {len(search.ids)} examples (ids {named}) did not reach the "
            f"decision boundary in step_nbr={self.step_nbr} steps, or came to where the model is "
            "flat. Their scores tell how far they were moved until then, and look closer to the "
            "boundary than they are; `last_search.reached` tells which they are. Raise `step_nbr`, "
            "or leave them out."
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)


def _wrapped(model: keras.Model) -> BaseInfluenceModel:
    """Wrap a Keras model, which may have no loss: the boundary needs none."""
    compiled = getattr(model, "loss", None) is not None
    return BaseInfluenceModel(model, loss_function=None if compiled else _sum_of_outputs)


def _sum_of_outputs(targets: Any, outputs: tf.Tensor) -> tf.Tensor:  # noqa: ARG001
    return tf.reduce_sum(outputs, axis=-1)
