"""What examples are called: integers or texts, given, read off a batch, or made of the content."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

POSITION, CONTENT = "position", "content"
"""What `id_fn` may be besides a function."""


@dataclass(frozen=True)
class Names:
    """What is known of a dataset besides its examples.

    Attributes
    ----------
    ids
        What the n examples are called, in the order of the dataset, shape ``(n,)``.
    class_names
        What the labels 0, 1, ... mean.
    feature_names
        What the columns of a table of inputs mean.
    find_unreadable
        Looks for the file that cannot be read, and returns the error that names it, or None.
    """

    ids: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    find_unreadable: Callable[[], Exception | None] = lambda: None


_NAMES: weakref.WeakKeyDictionary[tf.data.Dataset, Names] = weakref.WeakKeyDictionary()


def names_of(dataset: tf.data.Dataset) -> Names:
    """Return what goes with a dataset; what is made of it, such as a part, has no names."""
    return _NAMES.get(dataset, Names())


def with_names(dataset: tf.data.Dataset, **names: Any) -> tf.data.Dataset:
    """Have fields of `Names` go with a dataset, beside those that it has."""
    _NAMES[dataset] = replace(names_of(dataset), **names)
    return dataset


def ids_of(dataset: tf.data.Dataset) -> np.ndarray | None:
    """Return the ids ``(n,)`` that go with a dataset, in its order; None where it has none."""
    return names_of(dataset).ids


def attach_ids(dataset: tf.data.Dataset, ids: Any, argument: str = "ids") -> tf.data.Dataset:
    """Have ids go with a dataset, in place of positions.

    What is made of the dataset, such as ``dataset.take(1)``, has none.

    Parameters
    ----------
    dataset
        A batched dataset of n examples.
    ids
        Integers or texts, shape ``(n,)``, all different.
    argument
        What they are, for messages.

    Raises
    ------
    ValueError
        If they are no ids.
    """
    return with_names(dataset, ids=check_unique(as_ids(ids, argument), argument))


def check_id_fn(id_fn: Any) -> None:
    """Refuse what tells no ids.

    Raises
    ------
    ValueError
        For anything but None, a function, ``"position"`` and ``"content"``.
    """
    known = isinstance(id_fn, str) and id_fn in (POSITION, CONTENT)
    if not (id_fn is None or callable(id_fn) or known):
        message = (
            "Argument `id_fn` must be a function of a batch that returns its ids, 'content', "
            f"'position' or None. Received: {id_fn!r}."
        )
        raise ValueError(message)


def as_ids(ids: Any, argument: str) -> np.ndarray:
    """Return ids as int64 or as texts, shape ``(n,)``.

    Raises
    ------
    ValueError
        If they are neither integers that int64 holds, nor texts.
    """
    values = np.asarray(ids)
    if values.dtype.kind in "OS":
        flat = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.ravel()]
        kinds = {str if isinstance(value, str) else type(value) for value in flat}
        # A mixture would become texts without a word.
        values = np.array(flat, None if len(kinds) == 1 else object).reshape(values.shape)
    if values.ndim != 1 or values.dtype.kind not in "iuUT":
        message = (
            f"Argument `{argument}` must give an integer or a text for each example, shape (n,). "
            f"Received: shape {values.shape}, dtype {values.dtype}."
        )
        raise ValueError(message)
    if values.dtype.kind in "UT":
        return values.astype(str)
    largest = np.iinfo(np.int64).max
    if len(values) and values.max() > largest:
        message = (
            f"Argument `{argument}` must give ids of at most {largest}, which int64 can hold. "
            f"Received: {values.max()}. Pass them as texts."
        )
        raise ValueError(message)
    return values.astype(np.int64)


def check_unique(ids: np.ndarray, argument: str) -> np.ndarray:
    """Return ids ``(n,)`` if they are all different.

    Raises
    ------
    ValueError
        If one comes twice.
    """
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        message = (
            f"Argument `{argument}` must give every example an id of its own. Received: the id "
            f"{unique[counts > 1][0].item()!r} for {counts[counts > 1][0]} examples."
        )
        raise ValueError(message)
    return ids


def shared_ids(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the ids that two parts have in common.

    Raises
    ------
    ValueError
        If those of one are integers, and those of the other texts.
    """
    if len(one) and len(other) and (one.dtype.kind == "U") != (other.dtype.kind == "U"):
        message = (
            "Argument `other` must have ids of the same type. Received: "
            f"{one[0].item()!r} beside {other[0].item()!r}. Read both with the same `id_fn=`."
        )
        raise ValueError(message)
    return np.intersect1d(one, other)


def numbers_of(ids: np.ndarray) -> np.ndarray:
    """Return an integer for each id: itself, or a hash of a text that is always the same."""
    if ids.dtype.kind == "i":
        return ids
    return tf.strings.to_hash_bucket_fast(ids.tolist(), 2**63 - 1).numpy()


class ContentIds:
    """Ids that are 16 hexadecimal digits of the content of an example.

    The second of two equal examples of a pass has ``-2`` behind, and so on.
    """

    def __init__(self) -> None:
        self._seen: Counter[int] = Counter()

    def of(self, keys: np.ndarray) -> np.ndarray:
        """Return the ids of the next examples, whose contents have the keys ``(b,)``."""
        ids = []
        for key in keys.tolist():
            self._seen[key] += 1
            again = f"-{self._seen[key]}" if self._seen[key] > 1 else ""
            ids.append(f"{key % 2**64:016x}{again}")
        return np.array(ids, str)
