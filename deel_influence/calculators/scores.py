"""Scores with the ids of the examples that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..utils.files import npz_path, save_arrays
from ..utils.top_k import ORDER, BatchSort

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scores:
    """One score for each example of a dataset.

    Attributes
    ----------
    ids
        int64, shape ``(n,)``, in the order of the dataset.
    values
        Shape ``(n,)``.
    """

    ids: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        """Return n."""
        return len(self.ids)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:  # noqa: ARG002
        """Return the values, so that NumPy functions take the scores as they are."""
        return np.asarray(self.values, dtype=dtype)

    def top_k(self, k: int, order: ORDER = ORDER.DESCENDING) -> Scores:
        """Return the k first scores, best first; ties go to the smaller id."""
        sort = BatchSort(1, k, order)
        sort.add(self.values[None], self.ids)
        values, ids = sort.get()
        return Scores(ids[0], values[0])

    def merge(self, other: Scores) -> Scores:
        """Join the scores of two shards, ordered by id, so that merges commute."""
        ids = np.concatenate([self.ids, other.ids])
        order = np.argsort(ids, kind="stable")
        return Scores(ids[order], np.concatenate([self.values, other.values])[order])

    def to_pandas(self) -> pd.Series:
        """Return a pandas Series of the scores, indexed by id.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = require("pandas", "report", "`Scores.to_pandas` needs")
        return pandas.Series(self.values, index=pandas.Index(self.ids, name="id"), name="score")

    def save(self, path: str | Path) -> Path:
        """Write the scores to an ``.npz`` file, which appears whole or not at all."""
        path = npz_path(path)
        save_arrays(path, ids=self.ids, values=self.values)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote."""
        with np.load(npz_path(path), allow_pickle=False) as file:
            return cls(file["ids"], file["values"])
