"""Datasets whose elements are computed when they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import tensorflow as tf


def lazy_dataset(
    generate: Callable[[], Iterator[Any]],
    element_spec: Callable[[], Any] | Any,
    cardinality: int | None = None,
) -> tf.data.Dataset:
    """Return the dataset of what a generator yields, anew for each pass.

    Like `tf.data.Dataset.from_generator`, but that Python code which goes over the dataset itself
    gets the elements straight from the generator: at no cost beyond it, and with its errors as
    they are. What TensorFlow needs, and takes longer than many a pass, is made when the dataset is
    handed to it, as in ``dataset.take(1)`` or ``model.fit(dataset)``; errors of the generator are
    then TensorFlow's, a hundred lines long.

    Parameters
    ----------
    generate
        Starts a pass. A function, and not the method of an object that nothing else holds.
    element_spec
        What it yields, as type specs, or a function that finds these once they are asked for.
    cardinality
        How many elements there are, where that is known.
    """
    dataset: Any = object.__new__(_kinds()[0])
    find = element_spec if callable(element_spec) else lambda: element_spec
    vars(dataset).update(start=generate, find_spec=cache(find), size=cardinality)
    return dataset


def is_lazy(dataset: tf.data.Dataset) -> bool:
    """Tell whether it is a dataset that `lazy_dataset` made."""
    return isinstance(dataset, _LazyDataset)


class _OnDemand:
    """An object of TensorFlow's without its content, which one of its like has once it is needed.

    Here that is a dataset; a subclass for something else extends `make`.
    """

    start: Callable[[], Iterator[Any]]
    find_spec: Callable[[], Any]
    size: int | None

    def __getattr__(self, name: str) -> Any:
        """Return what TensorFlow looks for, and does not find here."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.content(), name)

    def content(self) -> Any:
        """Return the object of TensorFlow's that stands behind this one."""
        if "made" not in vars(self):
            with tf.init_scope():  # in no graph, whichever is being traced
                vars(self)["made"] = self.make()
        return vars(self)["made"]

    def make(self) -> Any:
        """Make it; here the dataset. May be extended."""
        # TensorFlow keeps what it is given for as long as the process lives.
        reference = weakref.ref(self.start)

        def elements() -> Iterator[Any]:
            start = reference()
            yield from start() if start else ()

        dataset = tf.data.Dataset.from_generator(elements, output_signature=self.find_spec())
        if self.size is None:
            return dataset
        return dataset.apply(tf.data.experimental.assert_cardinality(self.size))


class _LazyDataset(_OnDemand):
    """What a dataset of TensorFlow's does otherwise where it is lazy."""

    @property
    def element_spec(self) -> Any:
        return self.find_spec()

    def __len__(self) -> int:
        if self.size is None:
            message = (
                "Argument `dataset` of len() must have a known size. Received: a lazy one, whose "
                "size shows when it is gone over. Count what it yields."
            )
            raise TypeError(message)
        return self.size

    def __iter__(self) -> Iterator[Any]:
        if not tf.executing_eagerly():
            return iter(self.content())
        iterator: Any = object.__new__(_kinds()[1])
        elements = self.start()
        vars(iterator).update(source=self, elements=elements, start=lambda: elements)
        vars(iterator).update(find_spec=self.find_spec, size=None)
        return iterator


class _LazyIterator(_OnDemand):
    """What an iterator of TensorFlow's does otherwise where it is lazy.

    One that is handed to TensorFlow after some steps goes on from there.
    """

    elements: Iterator[Any]

    def make(self) -> Any:
        return iter(super().make())

    def __next__(self) -> Any:
        if "made" in vars(self) or not tf.executing_eagerly():
            return next(self.content())
        return tf.nest.map_structure(_as_tensor, next(self.elements))


def _as_tensor(value: Any) -> Any:
    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)


@cache
def _kinds() -> tuple[type, type]:
    """Return the classes of lazy datasets and of their iterators.

    TensorFlow's own are abstract, so that these are made of some of its concrete ones.
    """
    with tf.init_scope():
        some = tf.data.Dataset.range(0)
        iterator = type(iter(some))
    dataset_kind = type("LazyDataset", (_LazyDataset, type(some)), {})
    return dataset_kind, type("LazyIterator", (_LazyIterator, iterator), {})
