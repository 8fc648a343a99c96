"""What the library asks of a `tf.data.Dataset`: batches, an end, and an order that stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..errors import (
    EmptyDatasetError,
    InfiniteDatasetError,
    LabelError,
    NotBatchedError,
)
from ..types import Batch, IdFunction
from .digests import example_digests
from .example_ids import CONTENT, ContentIds, as_ids, check_id_fn, ids_of, numbers_of
from .memory import bytes_of
from .reasons import readable, reading
from .tensors import dense_dataset, described


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
    parts
        The batches that it was joined of, if it was.
    """

    index: int
    ids: np.ndarray
    batch: Batch
    features: tuple[tf.Tensor, ...] = ()
    parts: tuple[Item, ...] = ()

    @property
    def size(self) -> int:
        """The number of examples."""
        return len(self.ids)

    @property
    def numbers(self) -> np.ndarray:
        """An integer for each example that depends on its id alone, int64, shape ``(b,)``."""
        return numbers_of(self.ids)

    @property
    def form(self) -> tuple:
        """The shapes of an example's tensors."""
        return tuple(tuple(t.shape[1:]) for t in tf.nest.flatten((self.batch, self.features)))

    def pieces(self, size: int) -> Iterator[Item]:
        """Yield the examples in items of so many; the last may have fewer."""
        if self.size <= size:
            yield self
            return
        for start in range(0, self.size, size):
            rows = slice(start, start + size)
            batch, features = tf.nest.map_structure(
                lambda t, rows=rows: t[rows], (self.batch, self.features)
            )
            yield replace(self, ids=self.ids[rows], batch=batch, features=features, parts=())

    @classmethod
    def joined(cls, parts: Sequence[Item]) -> Item:
        """Return the examples of several batches of one form, under the number of the first."""
        if len(parts) == 1:
            return parts[0]
        nests = [(part.batch, part.features) for part in parts]
        batch, features = tf.nest.map_structure(lambda *t: tf.concat(t, axis=0), *nests)
        ids = np.concatenate([part.ids for part in parts])
        return cls(parts[0].index, ids, batch, features, tuple(parts))


def joined_items(items: Iterable[Item], num_examples: int, max_bytes: int) -> Iterator[Item]:
    """Join batches of one form that follow each other, in order.

    Parameters
    ----------
    items
        The batches.
    num_examples
        From so many examples on, a batch is large enough.
    max_bytes
        So many bytes are enough too.
    """
    held: list[Item] = []
    count, size = 0, 0
    for item in items:
        if held and (held[0].form != item.form or count >= num_examples or size >= max_bytes):
            yield Item.joined(held)
            held, count, size = [], 0, 0
        held.append(item)
        count, size = count + item.size, size + bytes_of(item.batch)
    if held:
        yield Item.joined(held)


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
    LabelError
        If it is known to yield batches with other numbers of labels than of inputs.
    """
    if not isinstance(dataset, tf.data.Dataset):
        message = (
            f"Argument `{argument}` must be a batched tf.data.Dataset. Received: "
            f"{type(dataset).__name__}. From arrays: "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(128)."
        )
        raise TypeError(message)
    _check_batched(dataset.element_spec, argument, input_rank)
    if tf.data.experimental.cardinality(dataset) == tf.data.INFINITE_CARDINALITY:
        message = (
            f"Argument `{argument}` must end. Received: an infinite dataset. Remove .repeat(), "
            "or cut it with .take(number_of_batches)."
        )
        raise InfiniteDatasetError(message)


def _first_part(batch: Batch) -> Any:
    return batch[0] if isinstance(batch, tuple) else batch


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
    DataSourceError
        If it cannot be read to its end.
    LabelError
        If a batch has another number of labels than of inputs.
    ValueError
        If ids are none, or there are not as many as examples.
    """
    check_id_fn(id_fn)
    known = ids_of(dataset) if id_fn is None else None
    if id_fn == CONTENT:
        contents = ContentIds()
        id_fn = lambda batch: contents.of(example_digests(inputs_of(batch)).numpy())  # noqa: E731
    position = 0
    for batch in readable(dense_dataset(dataset), argument):
        size = batch_size_of(batch)
        _check_even(batch, argument)
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


def count_examples(dataset: tf.data.Dataset, argument: str = "dataset") -> int:
    """Count the examples of a batched dataset in one pass; ``argument`` is its name in messages.

    The cardinality that a dataset reports counts batches, takes the last for a full one, and is
    unknown after a filter or an unbatch; counting is always right.

    Raises
    ------
    DataSourceError
        If it cannot be read to its end.
    """
    with reading(argument, dataset):
        return int(_sizes(dataset).reduce(np.int64(0), lambda total, size: total + size))


def batch_sizes(dataset: tf.data.Dataset, argument: str = "dataset") -> np.ndarray:
    """Count the examples of each batch in one pass, as `count_examples` does; int64, ``(B,)``."""
    with reading(argument, dataset):
        return np.array(list(_sizes(dataset).as_numpy_iterator()), np.int64)


def _sizes(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dense_dataset(dataset).map(
        lambda *batch: tf.cast(tf.shape(tf.nest.flatten(batch)[0])[0], tf.int64)
    )


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
    dataset = dense_dataset(dataset)
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


def _check_batched(element_spec: Any, argument: str, input_rank: int | None) -> None:
    """Refuse single examples, and batches whose parts have other numbers of examples."""
    shapes = [spec.shape for spec in tf.nest.flatten(element_spec) if hasattr(spec, "shape")]
    known = [shape for shape in shapes if shape.rank is not None]
    first_rank = shapes[0].rank if shapes else None
    is_single = input_rank is not None and first_rank == input_rank - 1
    if is_single and isinstance(element_spec, dict) and all(shape.rank == 1 for shape in known):
        message = (
            f"Argument `{argument}` must yield inputs and labels. Received: the columns "
            f"{list(element_spec)} alone. Pass (features, labels) as a tuple, as in "
            "(frame.drop(columns=['label']), frame['label'])."
        )
        raise LabelError(message)
    if is_single or any(shape.rank == 0 for shape in known):
        message = (
            f"Argument `{argument}` must yield batches of examples. Received: elements of "
            f"{_describe(element_spec)}. Add .batch(128)."
        )
        raise NotBatchedError(message)
    if len({shape[0] for shape in known if shape[0] is not None}) < 2:
        return
    is_batch = input_rank is not None and first_rank == input_rank
    message = (
        f"Argument `{argument}` must yield batches of as many labels, and sample weights, as "
        f"inputs. Received: elements of {_describe(element_spec)}. "
    )
    if is_batch:
        raise LabelError(message + "Keep inputs, labels and weights of the same examples.")
    raise NotBatchedError(message + "Where these are single examples: Add .batch(128).")


def _check_even(batch: Batch, argument: str) -> None:
    """Refuse a batch whose parts have other numbers of examples."""
    sizes = {part.shape[0] for part in tf.nest.flatten(batch) if part.shape.rank}
    if len(sizes) > 1:
        message = (
            f"Argument `{argument}` must yield batches of as many labels, and sample weights, as "
            f"inputs. Received: {described(batch)}. Keep inputs, labels and weights of the same "
            "examples."
        )
        raise LabelError(message)


def _describe(element_spec: Any) -> str:
    shapes = [str(getattr(s, "shape", s)) for s in tf.nest.flatten(element_spec)]
    return f"shapes {', '.join(shapes)}"
