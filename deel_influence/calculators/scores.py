"""Scores with the ids of the examples that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ..utils.example_ids import shared_ids
from ..utils.files import npz_path
from ..utils.formatting import format_number
from ..utils.html import Html, html_table
from ..utils.records import RecordKind
from ..utils.top_k import ORDER, BatchSort

if TYPE_CHECKING:
    import pandas as pd

SCORES = RecordKind("file of scores", "Score again, or name the file that `Scores.save` wrote.")

# A notebook shows so many.
_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Scores:
    """One score for each example of a dataset.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(n,)``, in the order of the dataset.
    values
        Shape ``(n,)``.

    Raises
    ------
    ValueError
        If there is not one value for each id.
    """

    ids: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        """Check that there is a value for each id."""
        shapes = np.shape(self.ids), np.shape(self.values)
        if shapes[0] != shapes[1] or len(shapes[0]) != 1:
            message = (
                "Argument `values` must hold a number for each of `ids`, both of shape (n,). "
                f"Received: shape {shapes[1]}, and ids of shape {shapes[0]}."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Return n."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many there are, and their range."""
        if not len(self):
            return "<Scores of 0 examples>"
        low, high = (format_number(float(end(self.values))) for end in (np.min, np.max))
        return f"<Scores of {len(self)} examples, from {low} to {high}>"

    def _repr_html_(self) -> Html:
        """Show the largest scores in a notebook."""
        largest = np.argsort(-self.values, kind="stable")[:_SHOWN]
        rows = [(self.ids[i], format_number(float(self.values[i]), True)) for i in largest]
        title = f"The {len(rows)} largest of {len(self):,} scores"
        return html_table(("id", "score"), rows, title)

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
        """Join the scores of two shards, ordered by id, so that merges commute.

        Raises
        ------
        ValueError
            If an id is in both.
        """
        both = shared_ids(self.ids, other.ids)
        if len(both):
            message = (
                "Argument `other` must hold scores of other examples. Received: "
                f"{len(both)} ids that are in both, such as {both[:3].tolist()}. Score shards "
                "with `id_fn=`, so that positions in them are no ids."
            )
            raise ValueError(message)
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
        return SCORES.write(npz_path(path), {}, {"ids": self.ids, "values": self.values})

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds no scores.
        """
        return SCORES.read(npz_path(path), lambda _, arrays: cls(arrays["ids"], arrays["values"]))
