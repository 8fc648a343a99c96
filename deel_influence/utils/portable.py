"""Objects that can be pickled and copied, without what is compiled for them and without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


class SharedDataset:
    """A dataset in a copy, which shares it; a pickle leaves it behind.

    Parameters
    ----------
    dataset
        The dataset, or None.
    refusal
        Why a pickle would be of no use without it; None where it is.
    """

    def __init__(self, dataset: tf.data.Dataset | None, refusal: str | None = None) -> None:
        self.dataset = dataset
        self.refusal = refusal

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedDataset:
        """Return itself: nothing changes a dataset."""
        return self

    def __reduce__(self) -> tuple:
        """Leave the dataset behind.

        Raises
        ------
        TypeError
            If what has it is of no use without it.
        """
        if self.refusal is not None:
            raise TypeError(self.refusal)
        return SharedDataset, (None,)


def portable(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an object with every dataset in a `SharedDataset`."""
    return {
        name: SharedDataset(value) if isinstance(value, tf.data.Dataset) else value
        for name, value in attributes.items()
    }


def unpacked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `portable`; a dataset that a pickle left behind is None."""
    return {
        name: value.dataset if isinstance(value, SharedDataset) else value
        for name, value in attributes.items()
    }
