"""Going over a dataset: the one place that checks, numbers and shows its batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tensorflow as tf

from ..model.reading import check_density
from ..types import IdFunction
from ..utils.datasets import Item, check_dataset, joined_items, numbered_items
from ..utils.devices import check_device
from ..utils.example_ids import POSITION, check_id_fn, ids_of, names_of, with_names
from ..utils.lazy import is_lazy
from ..utils.progress import check_verbose, progress_bar
from ..utils.running import check_finite_inputs
from .engine import MAX_PROBES, GradientEngine

JOINED_EXAMPLES = 1024
"""Up to about this many examples are computed together: a larger product is a faster one."""

JOINED_BYTES = 2**23
"""Up to about this many bytes of examples are joined."""


@dataclass(frozen=True)
class Pass:
    """How a dataset is gone over.

    Attributes
    ----------
    dataset
        A batched dataset.
    argument
        Its name in messages.
    description
        What is being done, in a few words, for the progress bar.
    id_fn
        Reads the ids off a batch, see `numbered_batches`; None takes the ids that go with the
        dataset, or the positions.
    device
        Where batches are computed; None leaves it to TensorFlow.
    verbose
        As in Keras.
    in_order
        Whether the order has to be the same on every pass, because positions are ids. A fit, in
        which examples only add up, does not ask for it.
    ahead
        Whether batches are prepared while others are computed, where the dataset does not do it.
    wanted
        Whether a batch is yielded; the others are read and passed over. None takes all.
    joined
        Up to about how many examples small batches are joined to, where that takes little memory:
        see `Plan.is_flat`.
    at_most
        How many examples are yielded at a time: larger batches come in pieces. 0 sets no bound.
    """

    dataset: tf.data.Dataset
    argument: str = "train_set"
    description: str = ""
    id_fn: IdFunction | None = None
    device: str | None = None
    verbose: str | int = 0
    in_order: bool = True
    ahead: bool = False
    wanted: Callable[[Item], bool] | None = None
    joined: int = 0
    at_most: int = 0

    def checked(self, engine: GradientEngine, opened: bool = False) -> Pass:
        """Refuse what cannot be gone over, and return the pass.

        Parameters
        ----------
        engine
            The engine of the model that the examples are for.
        opened
            Whether the dataset is opened, unless its order was confirmed before, to find out
            whether it changes. A pass by positions finds that out too: at its first batch, which
            for a lazy result is when that is gone over.

        Raises
        ------
        DeelInfluenceError
            If the dataset is not batched, never ends or, with ``opened``, changes its order.
        ValueError
            If the device or `verbose` is none.
        """
        check_dataset(self.dataset, self.argument, engine.model.input_rank)
        check_density(self.dataset, self.argument, engine.model)
        check_id_fn(self.id_fn)
        check_device(self.device)
        check_verbose(self.verbose)
        if opened and self._by_position:
            engine.order_guard.check(self.dataset, self.argument)
        return self

    def items(self, engine: GradientEngine, *others: GradientEngine) -> Iterator[Item]:
        """Yield the batches, under a progress bar; the engines have settled on their plans.

        Raises
        ------
        TypeError
            If the dataset is none, as in what was pickled.
        NonFiniteError
            If one of the batches that settle the plans holds NaN or infinity; `run` looks at the
            others.
        """
        check_dataset(self.dataset, self.argument)
        total = int(tf.data.experimental.cardinality(self.dataset))
        items = progress_bar(
            self._settled((engine, *others)),
            self.description,
            total if total >= 0 else None,
            self.verbose,
        )
        wanted = filter(self.wanted, items) if self.wanted is not None else items
        first = next(wanted, None)  # which has settled the plan
        if first is None:
            return
        wanted = itertools.chain([first], wanted)
        if self.joined and engine.plan.is_flat:
            wanted = joined_items(wanted, self.joined, JOINED_BYTES)
        for item in wanted:
            yield from item.pieces(self.at_most or item.size)

    def id_type(self, engine: GradientEngine) -> tf.DType:
        """Return the type of the ids; where a function reads them, of those of the first batch."""
        if self.id_fn in (None, POSITION) and ids_of(self.dataset) is None:
            return tf.int64
        return tf.as_dtype(next(self._numbered(engine)).ids.dtype)

    def _numbered(self, engine: GradientEngine) -> Iterator[Item]:
        """Yield the batches with the ids of their examples."""
        data, process = self.dataset, engine.model.process_batch_for_loss_fn
        if self.ahead and not is_lazy(data):
            data = with_names(data.prefetch(tf.data.AUTOTUNE), **vars(names_of(data)))
        return numbered_items(data, self.id_fn, self.argument, lambda batch: process(batch)[0])

    @property
    def _by_position(self) -> bool:
        return self.id_fn in (None, POSITION) and self.in_order

    def _settled(self, engines: tuple[GradientEngine, ...]) -> Iterator[Item]:
        """Let the first batches settle the plans before any batch is yielded."""
        items = self._numbered(engines[0])
        held = []
        for item in items:
            if item.index == 0:
                self._note_first(engines[0], item)
            held.append(item)
            check_finite_inputs(item)
            for engine in engines:
                engine.prepare(item.batch)
            if len(held) == MAX_PROBES or all(engine.is_final for engine in engines):
                break
        yield from held
        yield from items

    def _note_first(self, engine: GradientEngine, item: Item) -> None:
        if self._by_position:
            engine.order_guard.compare(self.dataset, item.batch, self.argument)
        elif self.id_fn in (None, POSITION):
            engine.order_guard.note(self.dataset, item.batch)


def query_and_train_passes(
    engine: GradientEngine,
    dataset_to_evaluate: tf.data.Dataset,
    train_set: tf.data.Dataset,
    id_fn: IdFunction | None,
    device: str | None,
    verbose: str | int,
    description: str = "Influence",
    opened: bool = False,
    query_id_fn: IdFunction | None = None,
    queries_in_order: bool = True,
) -> tuple[Pass, Pass]:
    """Check queries and training examples, see `Pass.checked`, and return how each is gone over."""
    queries = Pass(
        *(dataset_to_evaluate, "dataset_to_evaluate", "Queries", query_id_fn, device),
        in_order=queries_in_order,
    )
    train = Pass(train_set, "train_set", description, id_fn, device, verbose)
    return queries.checked(engine, opened), train.checked(engine, opened)
