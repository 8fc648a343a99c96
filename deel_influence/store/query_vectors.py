"""What an index is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..calculators.base import BaseInfluenceCalculator
from ..gradients.passes import Pass
from ..types import Data, IdFunction
from ..utils.example_ids import shared_ids
from ..utils.files import npz_path
from ..utils.records import RecordKind
from ..utils.takes_data import TakesData

QUERIES = RecordKind("file of query vectors", "Compute them again, with `QueryVectors.of`.")


@dataclass(frozen=True, eq=False)
class QueryVectors(TakesData):
    """Queries in the form in which an index is asked, without their inputs and without a model.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(m,)``.
    vectors
        Shape ``(m, d)``.
    origin
        A digest of the calculator that they are of: an index of another one refuses them.

    Raises
    ------
    ValueError
        If there is not one vector for each id.
    """

    ids: np.ndarray
    vectors: np.ndarray
    origin: str

    stands_for_data: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that there is a vector for each id."""
        shapes = np.shape(self.ids), np.shape(self.vectors)
        if len(shapes[1]) != 2 or shapes[0] != shapes[1][:1]:
            message = (
                "Argument `vectors` must have a row for each of `ids`. Received: shape "
                f"{shapes[1]}, and ids of shape {shapes[0]}."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number m of queries."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many there are."""
        return f"<QueryVectors of {len(self)} queries, {self.vectors.shape[1]} numbers each>"

    @classmethod
    def of(
        cls,
        calculator: BaseInfluenceCalculator,
        dataset_to_evaluate: Data,
        id_fn: IdFunction | None = None,
        device: str | None = None,
        verbose: str | int = "auto",
    ) -> QueryVectors:
        """Compute them.

        Parameters
        ----------
        calculator
            The calculator of the index; its `measurement` may be another one.
        dataset_to_evaluate
            The queries, batched.
        id_fn, device, verbose
            As for `score`.

        Raises
        ------
        ValueError
            If scores are no products of vectors.
        """
        given = Pass(dataset_to_evaluate, "dataset_to_evaluate", "Queries", id_fn, device, verbose)
        parts = list(calculator.asking_vectors(given.checked(calculator.engine)))
        ids = np.concatenate([item.ids for item, _ in parts])
        return cls(ids, np.concatenate([rows for _, rows in parts]), calculator.origin())

    def merge(self, other: QueryVectors) -> QueryVectors:
        """Join two sets, ordered by id, so that merges commute.

        Raises
        ------
        ValueError
            If they are of different calculators, or an id is in both.
        """
        both = shared_ids(self.ids, other.ids)
        if len(both) or self.origin != other.origin:
            message = (
                "Argument `other` must hold other queries, of the same calculator. Received: "
                f"{len(both)} ids that are in both, and "
                f"{'the same' if self.origin == other.origin else 'another'} calculator."
            )
            raise ValueError(message)
        ids = np.concatenate([self.ids, other.ids])
        order = np.argsort(ids, kind="stable")
        vectors = np.concatenate([self.vectors, other.vectors])[order]
        return QueryVectors(ids[order], vectors, self.origin)

    def save(self, path: str | Path) -> Path:
        """Write them to an ``.npz`` file, which appears whole or not at all."""
        arrays = {"ids": self.ids, "vectors": self.vectors}
        return QUERIES.write(npz_path(path), {"origin": self.origin}, arrays)

    @classmethod
    def load(cls, path: str | Path) -> QueryVectors:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds something else.
        """
        return QUERIES.read(
            npz_path(path),
            lambda settings, arrays: cls(arrays["ids"], arrays["vectors"], settings["origin"]),
        )
