"""Passes over the data for Fisher matrices: sums of functions of the gradients, in float64."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..gradients.engine import GradientEngine
from ..gradients.passes import JOINED_EXAMPLES, Pass
from ..types import Batch
from ..utils.datasets import Item
from ..utils.kernels import Kernel
from ..utils.memory import bytes_of, bytes_to_hold
from ..utils.progress import progress_bar
from ..utils.running import named_by_part, run
from .draws import Draws
from .sampling import sampled_gradients, summed_gradients
from .sums import PartialFit, Parts, total_over

FISHERS = ("true", "expected", "empirical")

Factors: TypeAlias = dict[Parts, tuple[tf.Tensor, tf.Tensor]]
"""By the variables of a block, its inputs ``(b, t, r)`` and output gradients ``(b, t, s)``."""


class HeldFactors:
    """Inputs and output gradients of a whole pass, held for the next one if they fit in memory.

    Parameters
    ----------
    max_bytes
        Bound on what is held; None means a quarter of the free memory.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        if max_bytes is None:
            max_bytes = bytes_to_hold()
        self._left = max_bytes
        self._items: list[tuple[int, np.ndarray, Factors]] = []
        self.num_examples = 0

    @property
    def is_complete(self) -> bool:
        """Whether everything that was added is there."""
        return self._left >= 0 and bool(self._items)

    def add(self, index: int, ids: np.ndarray, sets: Sequence[Factors]) -> None:
        """Hold the factors of a batch, or let go of all of them if they are too many."""
        self._left -= bytes_of(sets)
        self._items += [(index, ids, factors) for factors in sets]
        self.num_examples += len(ids)
        if self._left < 0:
            self._items.clear()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, Factors]]:
        """Yield the number of a batch, the ids of its examples, and its factors.

        Small batches come joined, under the number of the first, where each example has one
        position: a larger product is a faster one, and takes little memory there.
        """
        group: list[tuple[int, np.ndarray, Factors]] = []
        for item in self._items:
            single = all(inputs.shape[1] == 1 for inputs, _ in item[2].values())
            if not single:
                yield item
                continue
            group.append(item)
            if sum(len(ids) for _, ids, _ in group) >= JOINED_EXAMPLES:
                yield _joined(group)
                group = []
        if group:
            yield _joined(group)


def _joined(group: list[tuple[int, np.ndarray, Factors]]) -> tuple[int, np.ndarray, Factors]:
    if len(group) == 1:
        return group[0]
    factors = tf.nest.map_structure(lambda *t: tf.concat(t, axis=0), *[item[2] for item in group])
    return group[0][0], np.concatenate([ids for _, ids, _ in group]), factors


@dataclass
class FisherPass:
    """Passes over the data, with the same draws of targets in each of them.

    Attributes
    ----------
    engine
        The gradient engine of the model.
    dataset
        A batched dataset, or the parts of a fit.
    fisher
        ``"true"``: gradients for one draw of targets from the model for each example.
        ``"expected"``: their exact expectation, at one backward pass for each output.
        ``"empirical"``: gradients for the labels of the data.
    seed
        Fixes the draws, together with the ids of the examples: positions, where there are none.
    verbose
        As in Keras.
    num_examples
        How many examples the last pass had.
    """

    engine: GradientEngine
    dataset: tf.data.Dataset | PartialFit
    fisher: str
    seed: int
    verbose: str | int
    num_examples: int = field(default=0, init=False)

    def total(
        self,
        name: tuple[Hashable, ...],
        sums: Callable[..., tuple[dict[Parts, Any], list[Factors]]],
        description: str,
        arguments: tuple = (),
        held: HeldFactors | None = None,
    ) -> tuple[dict[Parts, Any], int]:
        """Add up a function of the gradients over all batches.

        Parameters
        ----------
        name
            Tells the function, and the Python values that it depends on, from others.
        sums
            Takes sets of `BatchGradients`, whose outer products add up to the curvature of the
            batch, and the arguments; returns, by the variables of a block, nests of tensors to be
            added up, and the factors of each set to be held; traceable.
        description
            What is being done, in a few words.
        arguments
            More arguments, nests of tensors.
        held
            Takes the factors.

        Returns
        -------
        The sums, arrays in float64, and the number of examples that they are taken over.

        Raises
        ------
        NonFiniteError
            If a batch gives NaN or infinity; the message names it.
        """
        engine, fisher = self.engine, self.fisher

        def of_batch(batch: Batch, draws: tuple, *arguments: Any) -> tuple:
            sets = _gradients(engine, batch, fisher, Draws(*draws))
            return sums(sets, *arguments)

        def given(item: Item) -> tuple:
            draws = tf.constant(self.seed, tf.int64), tf.constant(item.numbers, tf.int64)
            return item.batch, draws, *arguments

        def compute(data: Pass) -> tuple[dict[Parts, Any], np.ndarray]:
            items = replace(data, joined=JOINED_EXAMPLES).items(engine)
            # Asked for when the first batch has settled how gradients are found.
            return self._added_up(
                lambda: engine.kernel((*name, fisher), of_batch), items, given, held
            )

        total, self.num_examples = total_over(self.dataset, description, compute, self.verbose)
        return total, self.num_examples

    def total_of_held(
        self,
        held: HeldFactors,
        sums: Callable[..., dict[Parts, Any]],
        description: str,
        arguments: tuple = (),
    ) -> tuple[dict[Parts, Any], int]:
        """Add up a function of `Factors` and the arguments over what is held, as `total` does."""

        def of_factors(factors: Factors, *arguments: Any) -> tuple:
            return sums(factors, *arguments), []

        name = (sums.__qualname__, "of held factors")
        shown = progress_bar(held, description, verbose=self.verbose)
        items = (Item(index, ids, factors) for index, ids, factors in shown)
        kernel = lambda: self.engine.kernel(name, of_factors)  # noqa: E731
        total, _ = self._added_up(kernel, items, lambda item: (item.batch, *arguments))
        return total, held.num_examples

    def _added_up(
        self,
        kernel: Callable[[], Kernel],
        items: Iterable[Item],
        given: Callable[[Item], tuple],
        held: HeldFactors | None = None,
    ) -> tuple[dict[Parts, Any], np.ndarray]:
        """Add up, on the device, what a kernel gives for the arguments of each batch."""
        total: dict[Parts, Any] = {}
        ids: list[np.ndarray] = []
        add = self.engine.kernel("added in float64", _added)
        for item in items:
            added, factors = named_by_part(
                lambda part: run(kernel(), part, given(part), axis=None), item
            )
            total = add(total, added) if total else tf.nest.map_structure(_float64, added)
            ids.append(item.ids)
            if held is not None:
                held.add(item.index, item.ids, factors)
        return tf.nest.map_structure(lambda tensor: tensor.numpy(), total), np.concatenate(ids)


def summed(sets: Sequence[BatchGradients], function: Callable[[BatchGradients], Any]) -> Any:
    """Return the sum of a function, which gives a nest of tensors, over sets of gradients."""
    return tf.nest.map_structure(lambda *t: tf.add_n(t), *[function(part) for part in sets])


def _gradients(
    engine: GradientEngine, batch: Batch, fisher: str, draws: Draws
) -> list[BatchGradients]:
    if fisher == "true":
        return [sampled_gradients(engine, batch, draws)]
    if fisher == "expected":
        return summed_gradients(engine, batch)
    return [engine.gradients(batch)]


def _float64(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, tf.float64)


def _added(total: Any, added: Any) -> Any:
    return tf.nest.map_structure(lambda sum_, part: sum_ + _float64(part), total, added)
