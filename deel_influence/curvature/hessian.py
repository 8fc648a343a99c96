"""Products with the Hessian of the mean loss."""

from __future__ import annotations

import time
from typing import Any

import tensorflow as tf

from ..model.influence_model import BaseInfluenceModel
from ..types import Batch, Data
from ..utils.kernels import Kernel
from .data import Item
from .frozen import FrozenPart
from .operator import CurvatureOperator, Product, VectorMap, frozen_replayed, vector_by_vector

MODES = ("reverse_over_reverse", "forward_over_reverse")

PATIENCE = 1.0
"""Seconds of products after which it pays to find out which mode is the faster one."""


class HessianOperator(CurvatureOperator):
    """``v ↦ (1/n) Σ_i ∇²ℓ(z_i) v``, by automatic differentiation of the gradient [1]_.

    Reverse over reverse shares one forward and one backward pass among all k vectors, and each
    vector costs the differentiation of the gradient along it. Forward over reverse starts anew
    for each vector. Which is faster depends on the model and the machine: the first is used until
    a second has been spent on products, then both are timed on one batch.

    Parameters
    ----------
    model, dataset, device, jit_compile, held_bytes
        As for `CurvatureOperator`.
    mode
        ``"reverse_over_reverse"``, ``"forward_over_reverse"``, or ``"auto"``.

    References
    ----------
    .. [1] B. A. Pearlmutter. Fast Exact Multiplication by the Hessian. Neural Computation 1994.

    Examples
    --------
    >>> import keras, numpy as np, tensorflow as tf
    >>> from deel_influence.model import InfluenceModel
    >>> x, y = np.random.randn(50, 3).astype("float32"), np.random.randn(50, 1).astype("float32")
    >>> net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    >>> data = tf.data.Dataset.from_tensor_slices((x, y)).batch(20)
    >>> hessian = HessianOperator(InfluenceModel(net, loss_function="mse"), data)
    >>> bool(np.allclose(hessian.to_dense(), 2 * x.T @ x / 50, atol=1e-5))
    True
    """

    kind = "hessian"

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        *,
        mode: str = "auto",
        device: str | None = None,
        jit_compile: bool = False,
        held_bytes: int | None = None,
    ) -> None:
        if mode not in (*MODES, "auto"):
            message = f'Argument `mode` must be "auto" or one of {MODES}. Received: {mode!r}.'
            raise ValueError(message)
        super().__init__(
            model, dataset, device=device, jit_compile=jit_compile, held_bytes=held_bytes
        )
        self.mode = MODES[0] if mode == "auto" else mode
        self._undecided = mode == "auto"
        self._spent = 0.0

    def _kernel(self, single: bool) -> Kernel:
        return self._compiled(self.mode, _MAKERS[self.mode], single)

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        start = time.perf_counter()
        result = super()._apply(vectors)
        self._spent += time.perf_counter() - start
        if self._undecided and self._spent > PATIENCE:
            self._undecided = False
            self.mode = self._faster_mode(vectors)
        return result

    def _faster_mode(self, vectors: tf.Tensor) -> str:
        """Time the modes on the first batch; the choice is kept with the model."""

        def measure() -> str:
            item = next(iter(self.data))
            times = {mode: self._seconds(mode, item, vectors) for mode in MODES}
            return min(times, key=lambda mode: times[mode])

        return self.model.resource(("hessian_mode", self.data.frozen), measure)

    def _seconds(self, mode: str, item: Item, vectors: tf.Tensor) -> float:
        self.mode = mode
        self.product_with(item, vectors)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self.product_with(item, vectors).numpy()
            times.append(time.perf_counter() - start)
        return min(times)


class ForwardOverBackwardHVP(HessianOperator):
    """`HessianOperator` under the name, and with the arguments, of Influenciae.

    Parameters
    ----------
    model, train_dataset
        The wrapped model and a batched dataset.
    weights
        Must be None, or the model's watched weights: products are in those.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data,
        weights: Any = None,
    ) -> None:
        super().__init__(model, train_dataset, mode="forward_over_reverse")
        watched = [id(w) for v in model.weights for w in (v, v.value)]
        if weights is not None and any(id(w) not in watched for w in weights):
            message = (
                "Argument `weights` must be None, or weights that the model watches. Received: "
                "others. Choose them in the model: BaseInfluenceModel(model, weights_to_watch)."
            )
            raise ValueError(message)


def _reverse_over_reverse(
    model: BaseInfluenceModel, part: FrozenPart | None, single: bool
) -> Product:
    def linearize(batch: Batch, features: tuple[tf.Tensor, ...]) -> VectorMap:
        values = [v.value for v in model.weights]
        with tf.GradientTape(watch_accessed_variables=False, persistent=True) as outer:
            outer.watch(values)
            gradients = _gradients(model, part, batch, features, values)

        def along(vector: tf.Tensor) -> tf.Tensor:
            # Weighting the gradients and differentiating the sum is one backward pass.
            seeds = _like(model.layout.unflatten(vector), gradients)
            parts = outer.gradient(
                gradients, values, output_gradients=seeds, unconnected_gradients="zero"
            )
            return _flat(model, parts)

        return along

    return vector_by_vector(linearize, single)


def _forward_over_reverse(
    model: BaseInfluenceModel, part: FrozenPart | None, single: bool
) -> Product:
    def linearize(batch: Batch, features: tuple[tf.Tensor, ...]) -> VectorMap:
        values = [v.value for v in model.weights]

        def along(vector: tf.Tensor) -> tf.Tensor:
            tangents = _like(model.layout.unflatten(vector), values)
            with tf.autodiff.ForwardAccumulator(values, tangents) as accumulator:
                gradients = _gradients(model, part, batch, features, values)
            return _flat(model, accumulator.jvp(gradients, unconnected_gradients="zero"))

        return along

    return vector_by_vector(linearize, single)


_MAKERS = {MODES[0]: _reverse_over_reverse, MODES[1]: _forward_over_reverse}


def _gradients(
    model: BaseInfluenceModel,
    part: FrozenPart | None,
    batch: Batch,
    features: tuple[tf.Tensor, ...],
    values: list[tf.Variable],
) -> list[tf.Tensor]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        with frozen_replayed(part, features):
            total = tf.reduce_sum(model.per_example_losses(batch))
    gradients = tape.gradient(total, values, unconnected_gradients="zero")
    return [tf.convert_to_tensor(g) for g in gradients]


def _like(tensors: list[tf.Tensor], others: list) -> list[tf.Tensor]:
    return [tf.cast(t, other.dtype) for t, other in zip(tensors, others, strict=True)]


def _flat(model: BaseInfluenceModel, parts: list[tf.Tensor]) -> tf.Tensor:
    return model.layout.flatten(
        [tf.cast(tf.convert_to_tensor(part), model.dtype) for part in parts]
    )
