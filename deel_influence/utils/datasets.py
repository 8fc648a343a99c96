"""What the library asks of a `tf.data.Dataset`: batches, an end, and an order that stays."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import (
    DatasetOrderError,
    EmptyDatasetError,
    InfiniteDatasetError,
    NotBatchedError,
)
from ..types import Batch, IdFunction
from .digests import example_digests
from .example_ids import CONTENT, ContentIds, as_ids, ids_of, numbers_of


@dataclass(frozen=True)
class Item:
    """One batch.

    Attributes
    ----------
    index
        Its place in the dataset, from 0.
    ids
        The ids of its examples, int64 or texts, shape ``(b,)``.
    batch
        As the dataset yielded it.
    features
        What the frozen part of the model gives for it, where that was computed.
    """

    index: int
    ids: np.ndarray
    batch: Batch
    features: tuple[tf.Tensor, ...] = ()

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.ids)

    @property
    def numbers(self) -> np.ndarray:
        """An integer for each example that depends on its id alone, int64, shape ``(b,)``."""
        return numbers_of(self.ids)


def check_dataset(dataset: Any, argument: str = "dataset", input_rank: int | None = None) -> None:
    """Refuse what is no finite, batched dataset.

    Parameters
    ----------
    dataset
        What the user passed.
    argument
        The name of the argument, for the message.
    input_rank
        Rank of the model's first input, batch axis included, where it is known.

    Raises
    ------
    TypeError
        If it is no `tf.data.Dataset`.
    NotBatchedError
        If its elements are single examples.
    InfiniteDatasetError
        If it is known never to end.
    """
    if not isinstance(dataset, tf.data.Dataset):
        message = (
            f"Argument `{argument}` must be a batched tf.data.Dataset. Received: "
            f"{type(dataset).__name__}. From arrays: "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(128)."
        )
        raise TypeError(message)
    if not _is_batched(dataset.element_spec, input_rank):
        message = (
            f"Argument `{argument}` must yield batches of examples. Received: elements of "
            f"{_describe(dataset.element_spec)}. Add .batch(128)."
        )
        raise NotBatchedError(message)
    if tf.data.experimental.cardinality(dataset) == tf.data.INFINITE_CARDINALITY:
        message = (
            f"Argument `{argument}` must end. Received: an infinite dataset. Remove .repeat(), "
            "or cut it with .take(number_of_batches)."
        )
        raise InfiniteDatasetError(message)


class OrderGuard:
    """Refuse datasets whose first batch differs from pass to pass.

    What the first batch was is remembered, at the cost of reading a few thousand numbers of it. A
    dataset that was not read before is opened once more for it.
    """

    def __init__(self) -> None:
        self._first_batches: weakref.WeakKeyDictionary[tf.data.Dataset, list[bytes]] = (
            weakref.WeakKeyDictionary()
        )
        # Those whose first batch was the same twice.
        self._confirmed: weakref.WeakSet[tf.data.Dataset] = weakref.WeakSet()

    def check(self, dataset: tf.data.Dataset, argument: str) -> None:
        """Open a dataset, twice if nothing has read it, unless its order was confirmed before.

        Raises
        ------
        DatasetOrderError
            If positions in the dataset identify nothing.
        """
        if dataset not in self._confirmed:
            self.compare(dataset, _first_batch(dataset), argument)

    def compare(self, dataset: tf.data.Dataset, first_batch: Batch, argument: str) -> None:
        """Compare the first batch of a pass with what it was before.

        Raises
        ------
        DatasetOrderError
            If it is another one.
        """
        before = self._first_batches.get(dataset)
        if before is None:
            before = fingerprint(_first_batch(dataset))
        if before == fingerprint(first_batch):
            self._first_batches[dataset] = before
            self._confirmed.add(dataset)
            return
        option = "query_id_fn" if argument == "dataset_to_evaluate" else "id_fn"
        message = (
            f"Argument `{argument}` must yield its examples in the same order on every pass, "
            "because their positions are their ids. Received: a dataset whose first batch "
            "changed. Load it with shuffle=False or shuffle(..., reshuffle_each_iteration=False), "
            f"or pass `{option}=`, a function of a batch that returns the ids of its examples."
        )
        raise DatasetOrderError(message)

    def note(self, dataset: tf.data.Dataset, first_batch: Batch) -> None:
        """Remember the first batch of a pass in which the order does not matter."""
        self._first_batches.setdefault(dataset, fingerprint(first_batch))


def _first_part(batch: Batch) -> Any:
    return batch[0] if isinstance(batch, tuple) else batch


def check_fixed_order(dataset: tf.data.Dataset, argument: str = "dataset") -> None:
    """Open a dataset twice, and refuse it if its first batch differs.

    Raises
    ------
    DatasetOrderError
        If positions in the dataset identify nothing.
    """
    OrderGuard().check(dataset, argument)


def numbered_batches(
    dataset: tf.data.Dataset,
    id_fn: IdFunction | None = None,
    argument: str = "dataset",
    inputs_of: Callable[[Batch], Any] = _first_part,
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yield the batches of a dataset with the ids ``(b,)`` of their examples.

    Parameters
    ----------
    dataset
        A batched dataset.
    id_fn
        Reads the ids off a batch. None takes the ids that go with the dataset, and counts
        positions from 0 where there are none; ``"position"`` counts in any case; ``"content"``
        makes them of the inputs.
    argument
        The name of the argument, for messages.
    inputs_of
        Takes the inputs out of a batch.

    Raises
    ------
    EmptyDatasetError
        If the dataset yields nothing.
    ValueError
        If ids are none, or there are not as many as examples.
    """
    known = ids_of(dataset) if id_fn is None else None
    if id_fn == CONTENT:
        contents = ContentIds()
        id_fn = lambda batch: contents.of(example_digests(inputs_of(batch)).numpy())  # noqa: E731
    position = 0
    for batch in dataset:
        size = batch_size_of(batch)
        if known is not None:
            ids = known[position : position + size]
        elif callable(id_fn):
            ids = as_ids(id_fn(batch), "id_fn")
        else:
            ids = np.arange(position, position + size, dtype=np.int64)
        position += size
        if len(ids) != size:
            _refuse_ids(argument if id_fn is None else "id_fn", len(ids), size)
        if size:
            yield batch, ids
    if position == 0:
        message = (
            f"Argument `{argument}` must yield at least one example. Received: an empty dataset. "
            "Does a filter, or take(0), remove everything?"
        )
        raise EmptyDatasetError(message)
    if known is not None and len(known) != position:
        _refuse_ids(argument, len(known), position)


def _refuse_ids(argument: str, found: int, size: int) -> None:
    message = (
        f"Argument `{argument}` must give an id for each example, {size} of them. Received: "
        f"{found} ids."
    )
    raise ValueError(message)


def numbered_items(dataset: tf.data.Dataset, *arguments: Any) -> Iterator[Item]:
    """Yield what `numbered_batches` does of the same arguments, each batch with its place."""
    for index, (batch, ids) in enumerate(numbered_batches(dataset, *arguments)):
        yield Item(index, ids, batch)


def batch_size_of(batch: Batch) -> int:
    """Return the number of examples in a batch."""
    first = tf.nest.flatten(batch)[0]
    return int(tf.shape(first)[0]) if first.shape.rank is None else int(first.shape[0])


def count_examples(dataset: tf.data.Dataset) -> int:
    """Count the examples of a batched dataset in one pass.

    The cardinality that a dataset reports counts batches, takes the last for a full one, and is
    unknown after a filter or an unbatch; counting is always right.
    """
    sizes = dataset.map(lambda *batch: tf.shape(tf.nest.flatten(batch)[0])[0])
    return int(sizes.reduce(np.int64(0), lambda total, size: total + tf.cast(size, tf.int64)))


def sample_examples(
    dataset: tf.data.Dataset, num_examples: int, seed: int | None
) -> tf.data.Dataset:
    """Draw examples from a batched dataset, uniformly and without replacement.

    Parameters
    ----------
    dataset
        A batched dataset.
    num_examples
        How many to draw; all of them where there are fewer.
    seed
        Fixes the draw; None draws anew for each call, not for each pass.

    Raises
    ------
    ValueError
        If the number is no integer of at least 1.
    """
    whole = isinstance(num_examples, (int, np.integer)) and not isinstance(num_examples, bool)
    if not whole or num_examples < 1:
        message = (
            "Argument `n_samples_for_hessian` must be None or an integer of at least 1. "
            f"Received: {num_examples!r}."
        )
        raise ValueError(message)
    batch_size = max((batch_size_of(batch) for batch in dataset.take(1)), default=1)
    n = count_examples(dataset)
    # NumPy's generator, because TensorFlow's draws depend on its global seed too.
    drawn = np.random.default_rng(seed).choice(n, min(num_examples, n), replace=False)
    chosen = np.zeros(n, dtype=bool)
    chosen[drawn] = True
    chosen = tf.constant(chosen)
    if not _has_one_shape(dataset.element_spec):
        return _rows_of_batches(dataset, chosen).cache()
    numbered = dataset.unbatch().enumerate().filter(lambda i, _: tf.gather(chosen, i))
    return numbered.map(lambda _, example: example).batch(batch_size).cache()


def _has_one_shape(element_spec: Any) -> bool:
    """Tell whether all examples are known to have the same shapes."""
    specs = tf.nest.flatten(element_spec)
    return all(spec.shape.rank and spec.shape[1:].is_fully_defined() for spec in specs)


def _rows_of_batches(dataset: tf.data.Dataset, chosen: tf.Tensor) -> tf.data.Dataset:
    """Keep the chosen examples of each batch, whose sequences other batches may not fit."""

    def step(start: tf.Tensor, *batch: Any) -> tuple[tf.Tensor, Any]:
        end = start + tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], tf.int64)
        kept = chosen[start:end]
        some = tf.nest.map_structure(lambda part: tf.boolean_mask(part, kept), batch)
        return end, some if len(batch) > 1 else some[0]

    rows = dataset.scan(np.int64(0), step)
    return rows.filter(lambda *batch: tf.shape(tf.nest.flatten(batch)[0])[0] > 0)


def array_to_dataset(
    array: Any, batch_size: int | None = None, shuffle: bool = False, buffer_size: int = 1000
) -> tf.data.Dataset:
    """Make a dataset of arrays.

    Parameters
    ----------
    array
        An array, or a nest such as ``(x, y)``, the examples on the first axis.
    batch_size
        None leaves single examples, to be batched by the caller.
    shuffle
        Whether the examples are drawn in another order, the same on every pass.
    buffer_size
        From how many examples the next one is drawn.
    """
    dataset = tf.data.Dataset.from_tensor_slices(array)
    if shuffle:
        dataset = dataset.shuffle(buffer_size, reshuffle_each_iteration=False)
    if batch_size is None:
        return dataset
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _is_batched(element_spec: Any, input_rank: int | None) -> bool:
    specs = [s for s in tf.nest.flatten(element_spec) if isinstance(s, tf.TensorSpec)]
    known = [s.shape for s in specs if s.shape.rank is not None]
    if any(shape.rank == 0 for shape in known):
        return False
    if len({shape[0] for shape in known if shape[0] is not None}) > 1:
        return False
    first_rank = specs[0].shape.rank if specs else None
    return input_rank is None or first_rank is None or first_rank != input_rank - 1


def _describe(element_spec: Any) -> str:
    shapes = [str(getattr(s, "shape", s)) for s in tf.nest.flatten(element_spec)]
    return f"shapes {', '.join(shapes)}"


def _first_batch(dataset: tf.data.Dataset) -> Batch | None:
    """Return the first batch that is not empty, as `numbered_batches` would yield it."""
    return next((batch for batch in dataset if batch_size_of(batch)), None)


def fingerprint(batch: Batch | None) -> list[bytes]:
    """Return some thousand numbers, spread evenly over each tensor of a batch, as bytes."""
    if batch is None:
        return []
    flat = [np.ravel(t) for t in tf.nest.flatten(batch, expand_composites=True)]
    some = [values[:: max(len(values) // 4096, 1)] for values in flat]
    # The bytes of an array of strings are addresses, not texts.
    return [repr(v.tolist()).encode() if v.dtype == object else v.tobytes() for v in some]
