"""What was recorded of each example in each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..utils.files import npz_path
from ..utils.records import Arrays, RecordKind, Settings
from .recorder import example_keys

DYNAMICS = RecordKind(
    "record of training", "Delete it and train anew with TrainingDynamics(path=...).", version=2
)


@dataclass(frozen=True)
class EpochRecord:
    """The statistics of one epoch.

    Attributes
    ----------
    epoch
        Its number, from 0.
    keys
        Of the examples seen in it, ascending and each once, int64, shape ``(r,)``.
    values
        Their statistics, shape ``(r, q)``.
    """

    epoch: int
    keys: np.ndarray
    values: np.ndarray

    @classmethod
    def of_rows(
        cls, epoch: int, keys: np.ndarray, values: np.ndarray, total: bool = False
    ) -> EpochRecord:
        """Sort rows by key; several rows of one key become their mean, or with ``total`` their sum.

        A NaN becomes minus infinity, because in a record NaN stands for what was not seen. A score
        of what is infinite in any epoch is not finite either, and so is refused.
        """
        values = np.where(np.isnan(values), -np.inf, values)
        order = np.argsort(keys, kind="stable")
        keys, values = keys[order], values[order]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
        if len(starts) == len(keys):
            return cls(epoch, keys, values)
        counts = 1 if total else np.diff(np.append(starts, len(keys)))[:, None]
        totals = np.add.reduceat(values.astype(np.float64), starts)
        return cls(epoch, keys[starts], (totals / counts).astype(values.dtype))


@dataclass(frozen=True)
class RecordedDynamics:
    """Statistics of n examples over t epochs of training.

    Attributes
    ----------
    names
        Of the q statistics.
    epochs
        Numbers of the recorded epochs, ascending, int64, shape ``(t,)``.
    keys
        Of the examples, ascending, int64, shape ``(n,)``.
    values
        Shape ``(t, n, q)``; NaN where an example was not seen in an epoch.
    next_epoch
        The number of epochs that have run, recorded or not.
    id_fn
        What gave the keys, if not the content of the examples.
    """

    names: tuple[str, ...]
    epochs: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    next_epoch: int
    id_fn: Callable[[Any], Any] | None = None

    @classmethod
    def of_epochs(
        cls,
        names: Sequence[str],
        records: Sequence[EpochRecord],
        next_epoch: int,
        id_fn: Callable[[Any], Any] | None = None,
    ) -> RecordedDynamics:
        """Line up the records of several epochs."""
        keys = np.zeros(0, np.int64)
        for record in records:
            if not np.array_equal(keys, record.keys):
                keys = np.union1d(keys, record.keys)
        dtype = np.result_type(np.float32, *(record.values.dtype for record in records))
        values = np.full((len(records), len(keys), len(names)), np.nan, dtype)
        for table, record in zip(values, records, strict=True):
            table[np.searchsorted(keys, record.keys)] = record.values
        epochs = np.array([record.epoch for record in records], np.int64)
        return cls(tuple(names), epochs, keys, values, next_epoch, id_fn)

    def __len__(self) -> int:
        """Return n."""
        return len(self.keys)

    def statistic(self, name: str) -> np.ndarray:
        """Return one statistic of every example in every epoch, shape ``(t, n)``.

        Raises
        ------
        ValueError
            If it was not recorded.
        """
        if name not in self.names:
            message = (
                f"Argument `name` {name!r} must have been recorded. Received: a record of "
                f"{', '.join(self.names)}. Train with TrainingDynamics(record=[{name!r}, ...])."
            )
            raise ValueError(message)
        return self.values[:, :, self.names.index(name)]

    def mean(self, name: str) -> np.ndarray:
        """Return the mean of one statistic over the epochs in which an example was seen.

        Returns
        -------
        float64, shape ``(n,)``.
        """
        values = self.statistic(name).astype(np.float64)
        seen = ~np.isnan(values)
        return np.sum(values, axis=0, where=seen) / seen.sum(axis=0)

    def select(self, epochs: Iterable[int]) -> RecordedDynamics:
        """Return what was recorded in some epochs, such as the first ones.

        Examples that were seen in none of them are left out.

        Raises
        ------
        ValueError
            If none of them was recorded.
        """
        wanted = list(epochs)
        chosen = np.isin(self.epochs, wanted)
        if not chosen.any():
            message = (
                f"Argument `epochs` must name recorded epochs, {self.epochs.tolist()}. "
                f"Received: {wanted}."
            )
            raise ValueError(message)
        values = self.values[chosen]
        seen = ~np.isnan(values).all(axis=(0, 2))
        return replace(
            self, epochs=self.epochs[chosen], keys=self.keys[seen], values=values[:, seen]
        )

    def records(self) -> list[EpochRecord]:
        """Return the record of each epoch."""
        parts = []
        for epoch, values in zip(self.epochs, self.values, strict=True):
            seen = ~np.isnan(values).all(axis=1)
            parts.append(EpochRecord(int(epoch), self.keys[seen], values[seen]))
        return parts

    def keys_of(self, x: Any, y: Any) -> tf.Tensor:
        """Return the keys of examples, int64, shape ``(b,)``; traceable."""
        return example_keys(x, y, self.id_fn)

    def positions_of(self, keys: np.ndarray) -> np.ndarray:
        """Return where the keys ``(b,)`` stand among those recorded, shape ``(b,)``.

        Raises
        ------
        ValueError
            If some were never seen in training.
        """
        positions = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        missing = int((self.keys[positions] != keys).sum())
        if missing:
            message = (
                "Argument `train_set` must hold the examples of the training run, inputs and "
                f"labels as `fit` got them. Received: {missing} of {len(keys)} examples of a batch "
                "that were not seen in the recorded epochs. If the pipeline augments the inputs, "
                "train with TrainingDynamics(id_fn=...), or put the augmentation into the model."
            )
            raise ValueError(message)
        return positions

    def save(self, path: str | Path) -> Path:
        """Write everything but ``id_fn`` to an ``.npz`` file, which appears whole or not at all."""
        arrays = {
            "names": np.array(self.names),
            "epochs": self.epochs,
            "keys": self.keys,
            "values": self.values,
            "next_epoch": np.array(self.next_epoch),
            "has_ids": np.array(self.id_fn is not None),
        }
        return DYNAMICS.write(npz_path(path), {}, arrays)

    @classmethod
    def load(cls, path: str | Path, id_fn: Callable[[Any], Any] | None = None) -> RecordedDynamics:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file.
        id_fn
            What gave the ids, for runs that were recorded with one.

        Raises
        ------
        DataSourceError
            If the file is damaged, or of another version.
        ValueError
            If it goes with an ``id_fn`` and none is given, or the other way round.
        """
        path = npz_path(path)
        has_ids, record = DYNAMICS.read(path, cls._parsed)
        if has_ids != (id_fn is not None):
            wanted = "the one of the recorded run" if has_ids else "None, as in that run"
            message = f"Argument `id_fn` must be {wanted}. Received: {id_fn!r} for {path}."
            raise ValueError(message)
        return replace(record, id_fn=id_fn)

    @classmethod
    def _parsed(cls, _: Settings, arrays: Arrays) -> tuple[bool, RecordedDynamics]:
        names = tuple(str(name) for name in arrays["names"])
        kept = (arrays["epochs"], arrays["keys"], arrays["values"])
        return bool(arrays["has_ids"]), cls(names, *kept, int(arrays["next_epoch"]))
