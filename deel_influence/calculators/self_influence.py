"""Calculators that give every training example one score."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..errors import NoGradientWarning
from ..gradients.engine import GradientEngine
from ..gradients.passes import Pass
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..types import Batch, Data, IdFunction
from ..utils.datasets import Item
from ..utils.kernels import Kernel
from ..utils.lazy import lazy_dataset
from ..utils.running import run
from ..utils.separable import Separable
from ..utils.top_k import ORDER, BatchSort
from .described import SELF, Described
from .sample_pool import SamplePool
from .scores import Scores
from .specs import relaxed_element_spec


class SelfInfluenceCalculator(Described, Separable, ABC):
    """Base class of methods that score each example on its own.

    To be implemented by subclasses: `_self_scores`, which is traced once and then runs on every
    batch. A complete calculator::

        class GradientNorm(SelfInfluenceCalculator):
            def _self_scores(self, batch):
                return tf.sqrt(self.engine.gradients(batch).squared_norms())

    Parameters
    ----------
    model
        The wrapped model.
    """

    _eager_hooks: frozenset[str] = frozenset()
    """Names of the hooks that run as plain Python, for instance because they go over the data."""

    answers = frozenset({SELF})

    _made_again = frozenset({"_kernels"})

    _zeros_are_usual: ClassVar[bool] = True
    """Whether scores may all be zero and say so, as distances and products of features do."""

    scores_each_alone: ClassVar[bool] = True
    """Whether the score of an example does not depend on which others are scored with it."""

    def __init__(self, model: BaseInfluenceModel) -> None:
        check_influence_model(model)
        self.model = model
        self.engine = GradientEngine.of(model)
        self._kernels: dict[tuple, Kernel] = {}

    def _make_again(self) -> None:
        super()._make_again()
        self._kernels = {}

    @abstractmethod
    def _self_scores(self, batch: Batch) -> tf.Tensor:
        """Return the scores ``(b,)`` of a batch; traceable. To be implemented by subclasses."""

    def compute_influence_values(
        self, train_set: Data, device: str | None = None
    ) -> tf.data.Dataset:
        """Score every example, lazily.

        Parameters
        ----------
        train_set
            A batched dataset.
        device
            Where to compute; None leaves it to TensorFlow.

        Returns
        -------
        A dataset of ``((batch...), scores (b,))``, in the order of ``train_set``.
        """
        Pass(train_set, device=device).checked(self.engine, opened=True)
        signature = (
            relaxed_element_spec(train_set),
            tf.TensorSpec((None,), self.model.dtype),
        )

        def generate() -> Iterator[tuple[Any, tf.Tensor]]:
            for batch, _, scores in self.scored_batches(train_set, None, device, verbose=0):
                yield batch, scores

        return lazy_dataset(generate, signature)

    def score(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Scores:
        """Score every example in one pass.

        Parameters
        ----------
        train_set
            A batched dataset.
        id_fn
            Reads ids ``(b,)``, integers or texts, off a batch. ``"content"`` makes them of the
            inputs. None takes those that the data have, such as the index of a DataFrame, and else
            the positions.
        device
            Where to compute; None leaves it to TensorFlow.
        verbose
            As in Keras.

        Returns
        -------
        Ids and scores, in the order of ``train_set``.

        Warns
        -----
        NoGradientWarning
            If all scores are 0.
        """
        scored = self.scored_batches(train_set, id_fn, device, verbose)
        parts = [(ids, scores.numpy()) for _, ids, scores in scored]
        values = np.concatenate([values for _, values in parts])
        self.warn_of_zeros(values)
        return Scores(np.concatenate([ids for ids, _ in parts]), values)

    def warn_of_zeros(self, values: np.ndarray) -> None:
        """Warn of scores ``(n,)`` of a whole training set that are all 0.

        Warns
        -----
        NoGradientWarning
            If they are, and that is not usual.
        """
        if not np.any(values) and not self._zeros_are_usual:
            message = (
                f"All {len(values)} scores of {type(self).__name__} are 0, so that they order "
                "nothing: no example has a gradient. Check the loss and its `from_logits`, and "
                "that the model does not fit its data exactly."
            )
            warnings.warn(message, NoGradientWarning, stacklevel=3)

    def scored_batches(
        self,
        train_set: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Score batch after batch; what every other way of scoring goes through.

        Parameters
        ----------
        train_set, id_fn, device, verbose
            As for `score`.

        Yields
        ------
        Each batch, the ids ``(b,)`` of its examples, and their scores ``(b,)``.
        """
        data = Pass(train_set, "train_set", "Self-influence", id_fn, device, verbose)
        for item, scores in self._computed(data.checked(self.engine), self._self_scores):
            yield item.batch, item.ids, scores

    def compute_top_k_from_training_dataset(
        self,
        train_set: Data,
        k: int,
        order: ORDER = ORDER.DESCENDING,
        return_ids: bool = False,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> tuple[Any, ...]:
        """Return the examples with the k highest, or lowest, scores, best first.

        Parameters
        ----------
        train_set
            A batched dataset.
        k
            How many; all n where there are fewer.
        order
            `ORDER.DESCENDING` for the highest.
        return_ids
            Whether the ids are returned as well.
        id_fn, device, verbose
            As for `score`.

        Returns
        -------
        ``(training_samples, influence_values)``: the inputs ``(k, ...)``, in the nest that the
        model takes, and the scores ``(k,)``; with ``return_ids`` the ids ``(k,)`` third.
        Ties go to the smaller id.
        """
        best, pool = BatchSort(1, k, order), SamplePool(self.model)
        for batch, ids, scores in self.scored_batches(train_set, id_fn, device, verbose):
            best.add(scores.numpy()[None], ids)
            pool.update(batch, ids, best.get()[1])
        values, ids = best.get()
        samples = tf.nest.map_structure(lambda t: t[0], pool.collect(ids))
        result = (samples, tf.convert_to_tensor(values[0]))
        return (*result, tf.convert_to_tensor(ids[0])) if return_ids else result

    @property
    def _engines(self) -> tuple[GradientEngine, ...]:
        """The engines that the hooks use, which see each batch before the hooks do."""
        return (self.engine,)

    def _stream(self, data: Pass) -> Iterator[Item]:
        """Yield the batches of a pass, all engines prepared."""
        return data.items(*self._engines)

    def _computed(
        self, data: Pass, hook: Callable[..., Any], arguments: tuple = (), axis: int | None = -1
    ) -> Iterator[tuple[Item, Any]]:
        """Run a hook on each batch of a pass.

        Parameters
        ----------
        data
            The pass.
        hook
            A method that takes the arguments and a batch.
        arguments
            What comes before the batch, nests of tensors.
        axis
            Which axis of the result is the batch; None where it has none.
        """
        for item in self._stream(data):
            kernel = self._kernel(hook)
            yield item, run(kernel, item, (*arguments, item.batch), data.device, axis)

    def _handed_out(
        self, data: Pass, known: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Yield the batches of a second pass with scores that the first gave for all examples.

        Where ids are the user's, it may come in another order.
        """
        order = np.argsort(known, kind="stable")
        for item in self._stream(replace(data, verbose=0)):
            found = order[np.searchsorted(known, item.ids, sorter=order)]
            yield item.batch, item.ids, tf.constant(scores[found], self.model.dtype)

    def _summed(self, data: Pass, hook: Callable[..., Any]) -> Any:
        """Return the sum of what a hook gives over all batches of a pass."""
        return sum(values for _, values in self._computed(data, hook, axis=None))

    def _summed_gradients(self, batch: Batch) -> tf.Tensor:
        """Return ``Σ ∇ℓ(z_i)`` of a batch, shape ``(p,)``; a hook for `_summed`."""
        return self.model.batch_gradient_tensor(batch)

    def _kernel(self, hook: Callable[..., Any], *form: Hashable) -> Kernel:
        """Return the compiled form of a hook, made at first use for the engines' plans.

        ``form`` tells apart what else the hook is compiled for.
        """
        key = (hook.__name__, *form, *(engine.plan for engine in self._engines))
        if key not in self._kernels:
            eager = hook.__name__ in self._eager_hooks
            self._kernels[key] = Kernel(hook, compiled=False) if eager else self._made(hook, key)
        return self._kernels[key]

    def _made(self, hook: Callable[..., Any], key: tuple) -> Kernel:
        """Return a kernel whose compiled forms serve other calculators of the model as well."""
        mine = self.separated()
        if mine is None:
            return Kernel(hook)

        def over(tensors: list[tf.Tensor], *arguments: Any) -> Any:
            twin = mine.over(tf.nest.pack_sequence_as(mine.tensors, tensors))
            return getattr(twin, hook.__name__)(*arguments)

        traces = self.engine.traces((type(self), mine.form, *key))
        return Kernel(over, state=tf.nest.flatten(mine.tensors), traces=traces)
