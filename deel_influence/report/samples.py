"""The inputs of a few examples, picked from a streamed dataset by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ..utils.display import shown_of
from .pictures import thinned

# Longer vectors without names are no rows of a table, but waves and the like.
MAX_TABLE_WIDTH = 256


class Moments:
    """Mean and variance of d features, updated batch by batch in float64."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviation of each feature, shape ``(d,)``."""
        return np.sqrt(self.squares / self.count)

    def standardize(self, row: np.ndarray) -> np.ndarray:
        """Return how many standard deviations each feature ``(d,)`` is off its mean."""
        # A feature that never changes is never off, and must not divide by zero.
        return (row - self.mean) / np.where(self.squares == 0, 1.0, self.deviation)

    def add(self, rows: np.ndarray) -> None:
        """Take in rows, shape ``(b, d)``."""
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        total = self.count + len(rows)
        shift = mean - self.mean
        # Chan et al. (1979): sums of squares around the two means, and the distance between them.
        self.squares += ((rows - mean) ** 2).sum(axis=0)
        self.squares += shift**2 * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.count = total


@dataclass(frozen=True, eq=False)
class Samples:
    """The inputs of the chosen examples.

    Attributes
    ----------
    inputs
        One per position asked for, in that order: an array without the batch axis, or a nest.
    shown
        What of each to show in place of the input, as in `shown_of`; None where nobody says it.
    moments
        Mean and deviation of the features over the whole dataset, where the inputs are rows of a
        table ``(d,)`` and shown; None otherwise.
    """

    inputs: list[Any]
    shown: list[Any] | None = None
    moments: Moments | None = None


def read_samples(
    dataset: tf.data.Dataset,
    positions: np.ndarray,
    count: int,
    display: Any = None,
    feature_names: Sequence[str] | None = None,
    num_large: int | None = None,
) -> Samples:
    """Pick the inputs of some examples in one pass, which ends early where it can.

    Only feature vectors need the rest of the pass, for what is usual among them.

    Parameters
    ----------
    dataset
        The training set, in batches and in the order in which positions count.
    positions
        Positions of the wanted examples, shape ``(k,)``.
    count
        The number n of examples that the dataset must have.
    display
        What to show in place of the inputs, as `shown_of` takes it, or a function of a batch that
        returns such for its examples.
    feature_names
        Names of features, with which any vectors of numbers are rows of a table.
    num_large
        Of the others, which come after so many, pictures are wanted as thumbnails alone.

    Raises
    ------
    ValueError
        If the dataset turns out to be another one, with fewer or more examples, or there is not
        one entry of ``display`` for each.
    """
    large = set(positions[:num_large].tolist())
    wanted = np.sort(positions)
    found: dict[int, Any] = {}
    shown: dict[int, Any] = {}
    moments: Moments | None = None
    seen = 0
    if display is not None and not callable(display):
        shown.update(zip(positions, shown_of(display, count, positions, "display"), strict=True))
    for batch in dataset:
        inputs = _numpy_nest(batch[0] if isinstance(batch, tuple) else batch)
        size = len(tf.nest.flatten(inputs)[0])
        here = wanted[np.searchsorted(wanted, seen) : np.searchsorted(wanted, seen + size)]
        for at in here.tolist():
            found[at] = _example(inputs, at - seen, at not in large)
        if callable(display) and len(here):
            entries = shown_of(display(batch), size, here - seen, "display(batch)")
            shown.update(zip(here, entries, strict=True))
        shows_inputs = display is None or feature_names is not None
        if seen == 0 and shows_inputs and is_table(inputs, feature_names):
            moments = Moments(inputs.shape[1])
        seen += size
        if moments is not None:
            moments.add(inputs)
        elif len(found) == len(wanted):
            break
    if len(found) < len(wanted) or (moments is not None and seen != count):
        message = (
            f"Argument `dataset` must be the one that the triage was made from, with {count} "
            f"examples. Received: a dataset of {seen} examples."
        )
        raise ValueError(message)
    ordered = [found[int(at)] for at in positions]
    return Samples(ordered, [shown[int(at)] for at in positions] if shown else None, moments)


def is_table(inputs: Any, feature_names: Sequence[str] | None) -> bool:
    """Tell whether a batch of inputs holds rows of a table, shape ``(b, d)``.

    Without names, long vectors are waves and the like, and integers are tokens.
    """
    if not isinstance(inputs, np.ndarray) or inputs.ndim != 2:
        return False
    if feature_names is not None:
        return inputs.dtype.kind in "biuf"
    return inputs.dtype.kind in "bf" and inputs.shape[1] <= MAX_TABLE_WIDTH


def _numpy_nest(inputs: Any) -> Any:
    return tf.nest.map_structure(_to_numpy, inputs)


def _to_numpy(tensor: Any) -> np.ndarray:
    if isinstance(tensor, tf.RaggedTensor):
        tensor = tensor.to_tensor()
    elif isinstance(tensor, tf.SparseTensor):
        tensor = tf.sparse.to_dense(tensor)
    array = tensor.numpy()
    # Half-precision types that NumPy does not know have the kind "V".
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _example(inputs: Any, index: int, is_small: bool) -> Any:
    def part(array: np.ndarray) -> np.ndarray:
        # A copy, so that one example does not keep its whole batch in memory.
        return np.copy(thinned(array[index]) if is_small else array[index])

    return tf.nest.map_structure(part, inputs)
