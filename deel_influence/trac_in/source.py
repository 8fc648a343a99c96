"""Influence as what a training of several stretches did, with the curvature of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators.checkpointed import CheckpointedCalculator, added
from ..curvature.kronecker import APPROXIMATIONS
from ..curvature.kronecker_passes import FISHERS
from ..gradients.passes import Pass
from ..ihvp.damping import check_damping
from ..linalg.checks import check_choice, check_count, check_positive
from ..model.checkpoints import CopiedCheckpoints, WeightSource
from ..model.copies import BuildFunction
from ..model.influence_model import BaseInfluenceModel
from ..model.manifest import read_checkpoints
from ..model.measurements import Measurement
from ..types import Batch, Data
from ..utils.datasets import Item, check_dataset
from ..utils.running import run
from .segments import AdamSteps, MeanPass, Segment, fit_segment
from .tracin import checked_rates

OPTIMIZERS = ("sgd", "adam")

_OF_QUERIES = frozenset({"_query_factors", "_query_vectors", "_asking_vectors"})
"""Hooks that look at the queries, with the weights that the training ended with."""


class SOURCE(CheckpointedCalculator):
    """Influence through a training that is cut in segments of constant curvature [1]_.

    The score of training example z_i for query z is ``Σ_l u_lᵀ ḡ_l(z_i)``, with the mean gradient
    ḡ_l over the checkpoints of segment l, and ``u_l = H_l⁻¹ (I - exp(-t_l H_l)) v_l``. ``v_L`` of
    the last segment is the gradient of z at the last checkpoint, ``v_(l-1) = exp(-t_l H_l) v_l``,
    t_l is the sum of the learning rates of the steps of the segment, and H_l the EKFAC curvature,
    a mean over its checkpoints. It is what all steps of gradient descent on z_i change in the loss
    on z, so that the model need not be at a minimum.

    Adam steps by ``θ ← θ - η D g``, ``D = 1 / (√v + epsilon)``. Then ``exp(-t_l H_l D_l)`` takes
    the place of the exponential, and ``D^½ M⁻¹ (I - exp(-t_l M)) D^½`` with ``M = D^½ H D^½`` that
    of the other factor. v, the mean square of the gradients of batches, is estimated from those of
    examples, and √v of a layer with two Kronecker factors by the means of its rows and columns.

    Positive: z_i helps z, that is, without z_i the loss on z would rise. There is no 1/n in the
    score: divided by n it is the change of the loss in first order.

    Parameters
    ----------
    model
        The wrapped model that was trained, or one with the same layers.
    dataset
        The batched training set, over which curvature is taken.
    checkpoints
        The files with its weights in the order of training, or wrapped models, see `TracIn`.
    learning_rates
        The learning rate at each checkpoint, or one for all.
    steps
        How many steps the training had taken at each checkpoint.
    num_segments
        In how many segments the checkpoints are cut; no more than there are checkpoints.
    optimizer
        Whose steps the training took: ``"sgd"``, or ``"adam"`` for Adam and AdamW.
    momentum
        The momentum of SGD, with which a learning rate moves ``1 / (1 - momentum)`` times as far.
    batch_size, epsilon
        Those of a training with Adam, as in Keras.
    damping
        What is added to each H_l, for Adam to each M, as a number or by layer, see `EKFACIHVP`:
        the ``weight_decay`` of the optimizer, times ``1 - momentum`` for SGD, whose decay momentum
        does not lengthen. For SGD also ``2λ`` for an L2 penalty ``λ‖w‖²``; that of a training with
        Adam goes through D, and is no such number.
    fisher, approximation
        As for `EKFACIHVP`.
    build
        Makes a Keras model with the layers of ``model``, where Keras cannot clone it.
    seed
        Fixes the draws of the Fisher matrix.
    measurement
        Another number than the loss that is looked at on the queries; see
        `BaseInfluenceCalculator`.
    verbose
        As in Keras.

    Attributes
    ----------
    segments
        The segments, in the order of training.

    References
    ----------
    .. [1] J. Bae, W. Lin, J. Lorraine, R. Grosse. Training Data Attribution via Approximate
       Unrolled Differentiation. NeurIPS 2024.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: Data,
        checkpoints: Sequence[str | Path | WeightSource | BaseInfluenceModel],
        learning_rates: float | Sequence[float],
        steps: Sequence[int],
        num_segments: int = 3,
        optimizer: str = "sgd",
        momentum: float = 0.0,
        batch_size: int | None = None,
        epsilon: float = 1e-7,
        damping: Any = 0.0,
        fisher: str = "true",
        approximation: str = "expand",
        build: BuildFunction | None = None,
        seed: int = 0,
        measurement: Measurement = None,
        verbose: str | int = "auto",
    ) -> None:
        rates = checked_rates(learning_rates, len(checkpoints))
        super().__init__(CopiedCheckpoints(model, checkpoints, build), measurement)
        check_dataset(dataset, "dataset", model.input_rank)
        check_choice("fisher", fisher, FISHERS)
        check_choice("approximation", approximation, APPROXIMATIONS)
        adam = _checked_adam(optimizer, batch_size, epsilon)
        taken = _checked_steps(steps, len(rates))
        moved = np.array(rates) * taken / (1 - _checked_momentum(momentum))
        cuts = np.array_split(np.arange(len(rates)), _checked_segments(num_segments, len(rates)))
        damping = check_damping(damping, self.model.layout)
        given = (self.engine, dataset, fisher, seed, verbose)
        self.segments: list[Segment] = []
        for numbers in cuts:
            passes = MeanPass(*given, numbers=numbers.tolist(), enter=self._enter_checkpoint)
            time = float(moved[numbers].sum())
            with self._lock:
                self.segments.append(fit_segment(passes, time, damping, approximation, adam))

    @classmethod
    def from_folder(
        cls, model: BaseInfluenceModel, dataset: Data, folder: str | Path, **settings: Any
    ) -> SOURCE:
        """Return the calculator for all checkpoints that a `CheckpointRecorder` wrote.

        Parameters
        ----------
        model, dataset
            As for the class.
        folder
            The folder of the recorder, which noted learning rates and steps.
        **settings
            Other arguments of the constructor.

        Raises
        ------
        DataSourceError
            If there are no checkpoints in the folder, or one of them is damaged.
        """
        found = read_checkpoints(folder)
        sources = [checkpoint.source for checkpoint in found]
        rates = [checkpoint.learning_rate for checkpoint in found]
        return cls(model, dataset, sources, rates, [c.step for c in found], **settings)

    def _train_vectors(self, batch: Batch) -> tf.Tensor:
        return self.engine.gradients(batch).materialize()

    def _query_vectors(self, batch: Batch) -> tf.Tensor:
        """Return what each checkpoint's gradients are multiplied with, ``(b, T·p)``."""
        vectors = self.query_engine.gradients(batch).materialize()
        parts: list[tf.Tensor] = []
        for segment in reversed(self.segments):
            size = segment.num_checkpoints
            parts = [segment.done(vectors) / size] * size + parts
            vectors = segment.left(vectors)
        return tf.concat(parts, axis=1)

    def _scores_of_batch(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        return tf.transpose(self.engine.gradients(batch).dot(factors))

    def _own_scores(self, factors: tf.Tensor, batch: Batch) -> tf.Tensor:
        """Return the product of each example's gradient with its own row of factors, ``(b,)``."""
        return tf.reduce_sum(factors * self._train_vectors(batch), axis=1)

    def _computed(
        self, data: Pass, hook: Callable[..., Any], arguments: tuple = (), axis: int | None = -1
    ) -> Iterator[tuple[Item, Any]]:
        """Run a hook at every checkpoint; those of queries at the last one alone."""
        if hook.__name__ == "_self_scores":
            yield from self._scored_alone(data)
        elif hook.__name__ in _OF_QUERIES:
            for item in self._stream(data):
                yield item, self._asked(item, data.device, hook)
        else:
            yield from super()._computed(data, hook, arguments, axis)

    def _scored_alone(self, data: Pass) -> Iterator[tuple[Item, tf.Tensor]]:
        """Yield each batch with the scores of its examples for themselves, ``(b,)``."""
        width = self._vector_size * self.checkpoints.count
        for block in self._blocks_of(self._stream(data), width):
            with self._lock:
                factors = {item.index: self._asked(item, data.device) for item in block}
                own = {i: tf.split(f, self.checkpoints.count, axis=1) for i, f in factors.items()}

                def compute(t: int, item: Item, own: dict = own) -> tf.Tensor:
                    given = (own[item.index][t], item.batch)
                    return run(self._kernel(self._own_scores), item, given, data.device)

                results = added(self._passes(block, compute, replace(data, verbose=0)))
            yield from zip(block, results, strict=True)

    def _asked(
        self, item: Item, device: str | None, hook: Callable[..., Any] | None = None
    ) -> tf.Tensor:
        """Return what a hook of queries gives at the last checkpoint, ``(b, T·p)``."""
        with self._lock:
            self.checkpoints.verify(item.batch)
            self._enter_checkpoint(self.checkpoints.count - 1)
            kernel = self._kernel(hook or self._query_factors)
            return run(kernel, item, (item.batch,), device, axis=0)

    def _vector_settings(self) -> tuple:
        return (*super()._vector_settings(), *(segment.digest() for segment in self.segments))


def _checked_steps(steps: Sequence[int], count: int) -> np.ndarray:
    """Return for each checkpoint the number of steps since the one before."""
    taken = np.diff([check_count("steps", step) for step in steps], prepend=0)
    if len(taken) != count or (taken <= 0).any():
        message = (
            "Argument `steps` must tell for each checkpoint how many steps the training had taken, "
            f"more from one to the next. Received: {list(steps)} for {count} checkpoints."
        )
        raise ValueError(message)
    return taken


def _checked_segments(num_segments: int, count: int) -> int:
    if check_count("num_segments", num_segments) > count:
        message = (
            "Argument `num_segments` must not be above the number of checkpoints. Received: "
            f"{num_segments} for {count}. Record more checkpoints, or cut fewer segments."
        )
        raise ValueError(message)
    return num_segments


def _checked_adam(optimizer: str, batch_size: Any, epsilon: float) -> AdamSteps | None:
    check_choice("optimizer", optimizer, OPTIMIZERS)
    if optimizer != "adam":
        return None
    return AdamSteps(check_count("batch_size", batch_size), check_positive("epsilon", epsilon))


def _checked_momentum(momentum: float) -> float:
    if not 0 <= momentum < 1:
        message = f"Argument `momentum` must be from 0 to below 1. Received: {momentum!r}."
        raise ValueError(message)
    return momentum
