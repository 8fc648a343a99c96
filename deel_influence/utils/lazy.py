"""Datasets whose elements are computed when they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf


def lazy_dataset(
    generate: Callable[[], Iterator[Any]], element_spec: Any, cardinality: int | None = None
) -> tf.data.Dataset:
    """Return the dataset of what a generator yields, anew for each pass.

    Like `tf.data.Dataset.from_generator`, but that an error of the generator reaches those who go
    over the dataset itself in Python. TensorFlow makes errors of its own of it, a hundred lines
    long; those still come out of what is made of the dataset, such as ``dataset.take(1)``.

    Parameters
    ----------
    generate
        Starts a pass. A function, and not the method of an object that nothing else holds.
    element_spec
        What it yields, as type specs.
    cardinality
        How many elements there are, where that is known.
    """
    raised: list[Exception] = []
    # TensorFlow keeps what it is given for as long as the process lives.
    reference = weakref.ref(generate)

    def elements() -> Iterator[Any]:
        start = reference()
        try:
            yield from start() if start else ()
        except Exception as error:
            raised.append(error)
            raise

    dataset = tf.data.Dataset.from_generator(elements, output_signature=element_spec)
    if cardinality is not None:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(cardinality))
    _extend(dataset, "__iter__", lambda iterate: _explained(iterate(), raised))
    # So it lives as long as the dataset, and as all that are made of it.
    type(dataset).generate = staticmethod(generate)
    return dataset


def is_lazy(dataset: tf.data.Dataset) -> bool:
    """Tell whether it is a dataset that `lazy_dataset` made."""
    return hasattr(dataset, "generate")


def _explained(iterator: Any, raised: list[Exception]) -> Any:
    """Let an iterator raise the error of the generator."""

    def step(advance: Callable[[], Any]) -> Any:
        try:
            return advance()
        except tf.errors.OpError:
            if not raised:
                raise
            error = raised.pop()
        raise error from error.__cause__

    _extend(iterator, "__next__", step)
    return iterator


def _extend(instance: Any, name: str, around: Callable[[Callable[[], Any]], Any]) -> None:
    """Have a method without arguments of one object do something around what it did.

    Python looks such methods up in the class, which therefore becomes a subclass.
    """
    kind = type(instance)

    def method(self: Any) -> Any:
        return around(lambda: getattr(super(extended, self), name)())

    extended = type(kind.__name__, (kind,), {name: method})
    instance.__class__ = extended
