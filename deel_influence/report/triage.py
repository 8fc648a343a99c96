"""Every training example with its label, prediction, loss and score, ranked by suspicion."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from deel_influence.errors import DataSourceError, NonFiniteError
from deel_influence.extras import require
from deel_influence.model.influence_model import BaseInfluenceModel
from deel_influence.types import Batch, Verbosity
from deel_influence.utils.datasets import as_int64
from deel_influence.utils.digests import array_digest
from deel_influence.utils.files import replacing
from deel_influence.utils.formatting import printable_column
from deel_influence.utils.kernels import Kernel
from deel_influence.utils.records import UNREADABLE

from .labels import read_labels

_CHECKSUM = "deel_influence.sha256"

# Name in files and data frames, and name of the attribute.
_COLUMNS = {
    "id": "ids",
    "label": "labels",
    "predicted": "predicted",
    "loss": "losses",
    "score": "scores",
    "rank": "ranks",
}


class SelfInfluence(Protocol):
    """What triage needs of a calculator; `SelfInfluenceCalculator` and its kin have it."""

    def scored_batches(
        self, train_set: tf.data.Dataset, *, verbose: str | int
    ) -> Iterator[tuple[Batch, np.ndarray, tf.Tensor]]:
        """Yield each batch, its ids ``(b,)`` and its scores ``(b,)``."""


@dataclass(frozen=True, eq=False)
class Triage:
    """The examples of a training set in its own order, one row each.

    Attributes
    ----------
    ids
        Example ids, shape ``(n,)``, int64, all different.
    labels
        Given labels, shape ``(n,)``: int64 for classes, floating for values.
    predicted
        What the model predicts, in the terms of ``labels``, shape ``(n,)``.
    losses
        Losses, shape ``(n,)``.
    scores
        Scores, shape ``(n,)``, the larger the more suspicious.
    ranks
        Ranks, shape ``(n,)``, int64; 1 is the most suspicious, and equal scores go by id.
    """

    ids: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray

    def __post_init__(self) -> None:
        """Check that the columns are of one length."""
        shapes = {name: np.shape(getattr(self, name)) for name in _COLUMNS.values()}
        if len(set(shapes.values())) != 1 or len(shapes["ids"]) != 1:
            message = (
                "Argument `ids` and the other columns must all have one shape (n,). Received: "
                f"{shapes}."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        """Return the number n of examples."""
        return len(self.ids)

    def most_suspicious(self, k: int) -> np.ndarray:
        """Return the positions ``(k,)`` of the k most suspicious examples, the worst first.

        Parameters
        ----------
        k
            How many, at least 1; more than n gives n.
        """
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            message = f"Argument `k` must be an integer of at least 1. Received: k={k!r}."
            raise ValueError(message)
        return np.argsort(self.ranks)[:k]

    def to_pandas(self) -> Any:
        """Return a data frame with the columns id, label, predicted, loss, score and rank."""
        return require("pandas", "report", "Data frames need").DataFrame(self._columns())

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the columns of `to_pandas` to a Parquet file, whole or not at all."""
        with replacing(path) as temporary:
            columns = {name: printable_column(part) for name, part in self._columns().items()}
            sealed = pa.table(columns).replace_schema_metadata(
                {_CHECKSUM: array_digest(*columns.values())}
            )
            pq.write_table(sealed, temporary)

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str]) -> Triage:
        """Read what `to_parquet` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, is no Parquet file, or lacks a column.
        """
        try:
            # Opened here: given a path, pyarrow would look for other file systems and partitions.
            with open(path, "rb") as file:
                table = pq.ParquetFile(file).read()
                found = {n: printable_column(table[n].to_numpy()) for n in table.column_names}
        except (*UNREADABLE, pa.ArrowException) as error:
            message = f"A triage must be a Parquet file. Received: {os.fspath(path)!r} ({error})."
            raise DataSourceError(message) from error
        missing = sorted(set(_COLUMNS) - set(found))
        if missing:
            message = (
                f"A triage must have the columns {', '.join(_COLUMNS)}. Received: "
                f"{os.fspath(path)!r} without {', '.join(missing)}. Write it with `to_parquet`."
            )
            raise DataSourceError(message)
        columns = {name: found[key] for key, name in _COLUMNS.items()}
        metadata = table.schema.metadata or {}
        if metadata.get(_CHECKSUM.encode()) != array_digest(*columns.values()).encode():
            message = (
                "A triage must be what `to_parquet` wrote. Received: "
                f"{os.fspath(path)!r}, whose checksum is another: it was changed or damaged since. "
                "Write it again."
            )
            raise DataSourceError(message)
        return cls(**columns)

    def _columns(self) -> dict[str, np.ndarray]:
        return {key: getattr(self, name) for key, name in _COLUMNS.items()}


def run_triage(
    influence_model: BaseInfluenceModel,
    calculator: SelfInfluence,
    dataset: tf.data.Dataset,
    ids: np.ndarray | None = None,
    verbose: Verbosity = "auto",
) -> Triage:
    """Score every example of a training set in one pass.

    Parameters
    ----------
    influence_model
        The model whose predictions and losses are shown; the one that ``calculator`` uses.
    calculator
        Gives the self-influence of each example.
    dataset
        The training set, in batches and in a fixed order.
    ids
        Ids of the examples, shape ``(n,)``, integers, all different; None means their positions.
    verbose
        As for `progress_bar`.

    Raises
    ------
    NonFiniteError
        If a score, loss or prediction is NaN or infinite; the message says in which batch.
    LabelError
        If the examples do not have one label each.
    EmptyDatasetError
        If there are no examples.
    """
    given_ids = None if ids is None else _check_ids(ids)
    read = _batch_reader(influence_model)
    loss = influence_model.loss_function.loss
    parts = []
    scored = calculator.scored_batches(dataset, verbose=verbose)
    for number, (batch, _, scores) in enumerate(scored):
        targets, outputs, losses = read(batch)
        labels, predicted = read_labels(targets, outputs, loss)
        part = {"predicted": predicted, "losses": losses.numpy(), "scores": scores.numpy()}
        _check_finite(part, number)
        parts.append({"labels": labels, **part})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ids = _ids_for(given_ids, len(columns["scores"]))
    return Triage(ids=ids, ranks=_ranks(columns["scores"], ids), **columns)


def _batch_reader(influence_model: BaseInfluenceModel) -> Kernel:
    """Compile a function from a batch to its targets, outputs and losses ``(b,)``."""

    def read(batch: Batch) -> tuple:
        targets = influence_model.process_batch_for_loss_fn(batch)[1]
        outputs = influence_model.predict_batch(batch)
        return targets, outputs, influence_model.per_example_losses(batch)

    return Kernel(read)


def _check_finite(columns: dict[str, np.ndarray], batch_number: int) -> None:
    for name, values in columns.items():
        wrong = np.flatnonzero(~np.isfinite(values))
        if wrong.size:
            message = (
                f"The {name} of the training examples must be finite. Received: "
                f"{values[wrong[0]]} in batch {batch_number} (counted from 0), example {wrong[0]} "
                f"of the batch, and {wrong.size - 1} more there. Look for NaN in its inputs, or "
                "for weights that diverged in training."
            )
            raise NonFiniteError(message)


def _check_ids(ids: np.ndarray) -> np.ndarray:
    """Return ids ``(n,)`` as int64 if they are integers and all different."""
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        message = (
            "Argument `ids` must hold one integer per example, shape (n,). "
            f"Received: shape {array.shape}, dtype {array.dtype}."
        )
        raise ValueError(message)
    unique, counts = np.unique(array, return_counts=True)
    if len(unique) != len(array):
        message = (
            "Argument `ids` must give every example an id of its own. "
            f"Received: the id {unique[counts > 1][0]} for {counts[counts > 1][0]} examples."
        )
        raise ValueError(message)
    return as_int64(array, "ids")


def _ids_for(ids: np.ndarray | None, count: int) -> np.ndarray:
    if ids is None:
        return np.arange(count, dtype=np.int64)
    if len(ids) != count:
        message = (
            "Argument `ids` must have one id per example of the dataset. "
            f"Received: {len(ids)} ids for {count} examples."
        )
        raise ValueError(message)
    return ids


def _ranks(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores), dtype=np.int64)
    # The last key is the first one to sort by.
    ranks[np.lexsort((ids, -scores))] = np.arange(1, len(scores) + 1)
    return ranks
