"""Objects that can be pickled and copied, without what is compiled for them and without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import tensorflow as tf

from .takes_data import TakesData


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


class Portable(TakesData):
    """What can be copied and pickled, though it has data, compiled functions and locks.

    A copy has the same datasets. A pickle holds no data: what needs them, see `_needed_data`,
    cannot be pickled.
    """

    _made_again: ClassVar[frozenset[str]] = frozenset()
    """Attributes of this class that pickles and copies leave out, and `_make_again` makes."""

    _needed_data: ClassVar[frozenset[str]] = frozenset()
    """Datasets without which a pickle would give something else."""

    def __reduce__(self) -> tuple:
        """Pickle and copy the attributes; what is compiled for them is made again."""
        return _unpacked, (type(self), self._packed())

    def _packed(self) -> dict[str, Any]:
        # Counted before, because a pickle is without the data.
        getattr(self, "num_train_examples", None)
        left = {name for kind in type(self).__mro__ for name in vars(kind).get("_made_again", ())}
        return {n: self._shared(n, value) for n, value in vars(self).items() if n not in left}

    def _shared(self, name: str, value: Any) -> Any:
        if not isinstance(value, tf.data.Dataset):
            return value
        refusal = (
            f"A pickle of this {type(self).__name__} would lack `{name}`, as no pickle holds data. "
            "Make it anew in the other process."
        )
        return SharedDataset(value, refusal if name in self._needed_data else None)

    def _make_again(self) -> None:
        """Make what `__reduce__` leaves out."""


def _unpacked(kind: type[Portable], attributes: Mapping[str, Any]) -> Portable:
    result = object.__new__(kind)
    vars(result).update({name: _without_share(value) for name, value in attributes.items()})
    result._make_again()
    return result


def _without_share(value: Any) -> Any:
    if isinstance(value, SharedDataset):
        return value.dataset
    if isinstance(value, dict):
        return {name: _without_share(part) for name, part in value.items()}
    return value
