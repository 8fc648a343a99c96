"""Curvatures of the mean loss as operators, whose products stream over the training set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..errors import NonFiniteError
from ..gradients.engine import GradientEngine
from ..linalg.linear_operator import BlockDiagonalOperator, LinearOperator
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data
from ..utils.datasets import Item
from ..utils.devices import check_device
from ..utils.kernels import Kernel
from ..utils.running import call
from ..utils.takes_data import TakesData
from .data import CurvatureData
from .frozen import FrozenPart

Product = Callable[
    [Batch, tuple[tf.Tensor, ...], tf.Tensor, tuple[tf.Tensor, tf.Tensor]], tf.Tensor
]
"""Takes a batch, its features, vectors ``(k, p)``, a seed and ids ``(b,)``; returns products."""


class CurvatureOperator(TakesData, LinearOperator):
    """``v ↦ (1/n) Σ_i C(z_i) v`` over the n examples of a dataset, for k vectors at once.

    A product goes over the data batch by batch, so that its memory is bounded by the batch and by
    the k vectors. The batches are held in memory if they fit a quarter of what is free; where
    only late layers are watched, what the frozen layers before them give is computed once.

    To be implemented by subclasses: `_kernel`.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        A batched dataset: all of the training set, or a part of it.
    device
        Where to compute; None leaves it to TensorFlow.
    jit_compile
        Whether XLA compiles the products, once for each batch size.
    held_bytes
        Bound on the batches held in memory; None means a quarter of what is free.

    Raises
    ------
    NonFiniteError
        If the data, or a product, hold NaN or infinity; the message names the batch.
    """

    kind: ClassVar[str]
    """What ``curvature=`` calls it."""

    seed: int = 0
    """Fixes the draws of an operator that samples."""

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        *,
        device: str | None = None,
        jit_compile: bool = False,
        held_bytes: int | None = None,
    ) -> None:
        check_influence_model(model)
        super().__init__(model.nb_params, model.dtype)
        self.model = model
        self.engine = GradientEngine.of(model)
        self.data = CurvatureData(model, dataset, held_bytes)
        self._device = check_device(device)
        self._jit_compile = jit_compile

    @property
    def num_examples(self) -> int:
        """The number n of examples."""
        return self.data.num_examples

    @abstractmethod
    def _kernel(self, single: bool) -> Kernel:
        """Return the compiled ``(batch, features, vectors, draws) -> Σ_i C(z_i) v (k, p)``.

        To be implemented by subclasses; ``single`` tells that k is 1. ``draws`` are the seed and
        the ids ``(b,)``, for those that sample.
        """

    def by_layer(self) -> BlockDiagonalOperator:
        """Return the curvature of each watched layer on its own, without what couples them.

        A product costs as many as there are layers.
        """
        slots = [block.slot for block in self.model.layout.blocks]
        return BlockDiagonalOperator(self, slots)

    def minibatches(self, batch_size: int, seed: int | None = None) -> Iterator[LinearOperator]:
        """Yield, for ever, the same curvature over random batches of examples.

        Parameters
        ----------
        batch_size
            Examples in each batch.
        seed
            Fixes the draws.
        """
        for items in self.data.draws(batch_size, seed):
            yield _ItemsOperator(self, items)

    def product_with(self, item: Item, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``Σ_i C(z_i) v`` over one batch, shape ``(k, p)``."""
        draws = tf.constant(self.seed, tf.int64), tf.constant(item.numbers, tf.int64)
        arguments = (item.batch, item.features, vectors, draws)
        return call(self._kernel(int(vectors.shape[0]) == 1), item, arguments, self._device)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        total = tf.zeros_like(vectors)
        for item in self.data:
            total += self.product_with(item, vectors)
        self._check_finite(total, vectors)
        return total / tf.cast(self.num_examples, self.dtype)

    def _check_finite(self, total: tf.Tensor, vectors: tf.Tensor) -> None:
        """Refuse NaN and infinity; only then is it worth a second pass to find the batch."""
        if np.isfinite(float(tf.reduce_sum(total))) or np.isfinite(total.numpy()).all():
            return
        if not np.isfinite(vectors.numpy()).all():
            message = (
                "Argument `vectors` must be finite. Received: NaN or infinity in row "
                f"{int(np.argmin(np.isfinite(vectors.numpy()).all(axis=1)))}."
            )
            raise NonFiniteError(message)
        for item in self.data:
            if not np.isfinite(self.product_with(item, vectors).numpy()).all():
                message = (
                    f"The curvature must be finite. Received: NaN or infinity from batch "
                    f"{item.index} (examples {item.ids[0]} to {item.ids[-1]}). Check its inputs "
                    "and labels, and that the model's weights are finite."
                )
                raise NonFiniteError(message)
        message = "The sum over all batches overflows, though each batch is finite."
        raise NonFiniteError(message)

    def _compiled(
        self,
        name: str,
        make: Callable[[BaseInfluenceModel, FrozenPart | None, bool], Product],
        single: bool = False,
    ) -> Kernel:
        """Return the kernel that ``make(model, part, single)`` gives, kept with the model.

        The function must not hold the operator, whose batches would then live as long as the
        model.
        """
        part = self.data.frozen
        key = (self.kind, name, part, single, self._jit_compile)
        return self.engine.kernel(key, make(self.model, part, single), self._jit_compile)


class _ItemsOperator(LinearOperator):
    """The mean over the examples of a few batches."""

    def __init__(self, parent: CurvatureOperator, items: Sequence[Item]) -> None:
        super().__init__(parent.size, parent.dtype)
        self._parent, self._items = parent, items

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        total = tf.add_n([self._parent.product_with(item, vectors) for item in self._items])
        return total / sum(item.size for item in self._items)


def frozen_replayed(
    part: FrozenPart | None, features: tuple[tf.Tensor, ...]
) -> AbstractContextManager[Any]:
    """Let the model take the features in place of its frozen part, while a function is traced."""
    return nullcontext() if part is None else part.replayed(features)


VectorMap = Callable[[tf.Tensor], tf.Tensor]
"""``v ↦ Σ_i C(z_i) v`` for one vector ``(p,)``."""


def vector_by_vector(
    linearize: Callable[[Batch, tuple[tf.Tensor, ...]], VectorMap], single: bool
) -> Product:
    """Return products that share one linearisation, without a loop if there is one vector."""

    def product(
        batch: Batch,
        features: tuple[tf.Tensor, ...],
        vectors: tf.Tensor,
        draws: tuple,  # noqa: ARG001 - for the operators that sample
    ) -> tf.Tensor:
        along = linearize(batch, features)
        return along(vectors[0])[None] if single else tf.map_fn(along, vectors)

    return product
