"""Sums over many disjoint groups of examples, each in one pass over the examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..curvature.closed_form import has_closed_form
from ..curvature.dense_layer import dense_terms
from ..curvature.operator import CurvatureOperator
from ..curvature.registry import CURVATURES
from ..errors import NonFiniteError
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..types import Batch
from ..utils.datasets import Item
from ..utils.example_ids import POSITION
from ..utils.running import run


class GroupPasses:
    """Gradients and Hessian-vector products, summed over each of J groups.

    Parameters
    ----------
    engine
        The engine of the wrapped model.
    data
        How the examples are gone over, in a fixed order.
    labels
        The number of each example's group, or -1 for none, shape ``(n,)``.
    """

    def __init__(self, engine: GradientEngine, data: Pass, labels: np.ndarray) -> None:
        self._engine = engine
        self._data = replace(data, id_fn=POSITION)
        self._labels = labels

    @property
    def sizes(self) -> np.ndarray:
        """The number of examples in each group, shape ``(J,)``."""
        return np.bincount(self._labels[self._labels >= 0])

    def gradients(self) -> tf.Tensor:
        """Return ``Σ_i g_i`` over each group, shape ``(J, p)``."""
        return self._total("Gradients of groups", "group_gradients", _gradient_sums, None)

    def products(self, vectors: tf.Tensor, curvature: str) -> tf.Tensor:
        """Return ``Σ_i C(z_i) v_j`` over the examples of each group j, shape ``(J, p)``.

        Where one Dense layer is watched, each example has its product in closed form, and a batch
        takes its groups as they come. Elsewhere each group's examples are gathered to batches of
        their own; the products then cost one pass over all groups together, and as many batches
        more, at most, as there are groups.

        Parameters
        ----------
        vectors
            One for each group, shape ``(J, p)``.
        curvature
            The kind of C, ``"hessian"`` or ``"gauss_newton"``.
        """
        if curvature == "hessian" and has_closed_form(self._engine):
            return self._total("Products of groups", "group_products", _closed_products, vectors)
        total = np.zeros(vectors.shape, vectors.dtype.as_numpy_dtype)
        operator = CURVATURES[curvature](
            self._engine.model, self._data.dataset, device=self._data.device
        )
        for group, item in self._gathered(operator):
            product = operator.product_with(item, vectors[group : group + 1])
            if not np.isfinite(product.numpy()).all():
                message = (
                    "The curvature must be finite. Received: NaN or infinity from group "
                    f"{group} (examples {item.ids.min()} to {item.ids.max()})."
                )
                raise NonFiniteError(message)
            total[group] += product.numpy()[0]
        return tf.constant(total)

    def _total(
        self,
        description: str,
        key: str,
        make: Callable[[GradientEngine], Callable[..., tf.Tensor]],
        vectors: tf.Tensor | None,
    ) -> tf.Tensor:
        """Add up, over the batches, what a kernel gives for the groups present in each."""
        model = self._engine.model
        total = np.zeros((len(self.sizes), model.nb_params), model.dtype.as_numpy_dtype)
        for whole in replace(self._data, description=description).items(self._engine):
            rows = np.flatnonzero(self._labels[whole.ids] >= 0)
            if not len(rows):
                continue
            item = _part(whole, rows)
            present, local = np.unique(self._labels[item.ids], return_inverse=True)
            own = () if vectors is None else (tf.gather(vectors, present),)
            arguments = (item.batch, tf.constant(local, tf.int32), *own)
            kernel = self._engine.kernel(key, make(self._engine))
            total[present] += run(kernel, item, arguments, self._data.device, axis=None).numpy()
        return tf.constant(total)

    def _gathered(self, operator: CurvatureOperator) -> Iterator[tuple[int, Item]]:
        """Yield batches of examples of one group each, with the number of the group."""
        # Batches that are padded to their longest example cannot all be joined.
        waiting: dict[tuple[int, tuple], list[Item]] = defaultdict(list)
        size = None
        for item in operator.data:
            size = size or item.size
            labels = self._labels[item.ids]
            for group in np.unique(labels[labels >= 0]).tolist():
                key = group, item.form
                waiting[key].append(_part(item, np.flatnonzero(labels == group)))
                if sum(part.size for part in waiting[key]) >= size:
                    yield group, Item.joined(waiting.pop(key))
        for (group, _), parts in waiting.items():
            yield group, Item.joined(parts)


def _gradient_sums(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    def sums(batch: Batch, local: tf.Tensor) -> tf.Tensor:
        return _by_group(engine.gradients(batch).materialize(), local)

    return sums


def _closed_products(engine: GradientEngine) -> Callable[..., tf.Tensor]:
    def products(batch: Batch, local: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        terms = dense_terms(engine, batch)
        change = terms.outputs_of(tf.gather(vectors, local))
        # h_i v = φ_i ⊗ S_i Vᵀφ_i
        return _by_group(terms.rows(tf.linalg.matvec(terms.curvature, change)).rows(), local)

    return products


def _by_group(rows: tf.Tensor, local: tf.Tensor) -> tf.Tensor:
    """Add up rows ``(b, p)`` by the place of their group among those of the batch."""
    return tf.math.unsorted_segment_sum(rows, local, tf.reduce_max(local) + 1)


def _take(nest: Any, rows: np.ndarray, size: int) -> Any:
    """Return some examples of a nest of tensors."""
    if len(rows) == size:
        return nest
    return tf.nest.map_structure(lambda t: tf.gather(t, rows), nest)


def _part(item: Item, rows: np.ndarray) -> Item:
    batch, features = _take((item.batch, item.features), rows, item.size)
    return Item(item.index, item.ids[rows], batch, features)
