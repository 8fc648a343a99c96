"""Influence vectors kept in memory or on disk between passes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from ..errors import DatasetOrderError, DataSourceError
from ..model.fingerprint import model_fingerprint
from ..utils.digests import settings_digest
from ..utils.files import replacing
from ..utils.records import Arrays, RecordKind, Settings
from .self_influence import SelfInfluenceCalculator

INDEX = "influence_vectors.json"
"""The file that marks a folder of saved vectors, and tells what they were computed with."""

_REMEDY = "Compute and save the vectors again."
VECTORS = RecordKind("folder of influence vectors", _REMEDY)
PART = RecordKind("part of a folder of influence vectors", _REMEDY)

VectorBatch: TypeAlias = tuple[np.ndarray, tf.Tensor] | tuple[np.ndarray, tf.Tensor, np.ndarray]
"""Ids ``(b,)``, vectors ``(b, p)`` and, where the data are at hand, their `example_digests`."""


class CACHE(Enum):
    """Where influence vectors are kept."""

    MEMORY = 0
    DISK = 1
    NO_CACHE = 2


def vector_origin(calculator: SelfInfluenceCalculator, settings: tuple) -> str:
    """Return a digest of what influence vectors depend on besides the data.

    Parameters
    ----------
    calculator
        Its class, and its model: weights, watched layers, loss.
    settings
        Its settings, as values with a `repr` that tells them apart.
    """
    parts = [type(calculator).__qualname__, model_fingerprint(calculator.model), repr(settings)]
    return settings_digest(parts)


def save_vectors(vectors: Iterable[VectorBatch], path: str | Path, origin: str) -> None:
    """Write influence vectors, one file for each batch.

    The directory appears whole or not at all; one that is there already is replaced. (A saved
    `tf.data.Dataset` would do, but TensorFlow's save never returns when its input fails.)

    Parameters
    ----------
    vectors
        A `VectorBatch` for each batch.
    path
        The directory; one that holds anything but saved vectors is left alone.
    origin
        What the vectors were computed with: `VectorReader` refuses others.

    Raises
    ------
    DataSourceError
        If there is something else at that path.
    """
    path = Path(path)
    _check_replaceable(path)
    count = 0
    with replacing(path) as folder:
        for ids, rows, *digests in vectors:
            arrays = {"ids": ids, "vectors": rows.numpy()}
            if digests:
                arrays["digests"] = digests[0]
            PART.write(folder / _part_name(count), {}, arrays)
            count += 1
        VECTORS.write(folder / INDEX, {"origin": origin, "parts": count})


class VectorReader:
    """Read saved influence vectors back, lined up with the batches of a dataset.

    Parameters
    ----------
    path
        A directory that `save_vectors` wrote.
    origin
        What the vectors must have been computed with.

    Raises
    ------
    DataSourceError
        If it is not there, holds no saved vectors, or those of other weights or another method.
    """

    def __init__(self, path: str | Path, origin: str) -> None:
        if not (Path(path) / INDEX).is_file():
            message = (
                "Argument `load_influence_vector_path` must be a directory with saved influence "
                f"vectors. Received: {str(path)!r}, which has none. Write them with "
                "`save_influence_vector_path=`."
            )
            raise DataSourceError(message)
        stored, count = VECTORS.read(
            Path(path) / INDEX, lambda header, _: (header["origin"], int(header["parts"]))
        )
        if stored != origin:
            message = (
                "The saved influence vectors must be of the same weights, method and settings. "
                f"Received: {str(path)!r}, which holds others. {_REMEDY}"
            )
            raise DataSourceError(message)
        self._files = iter([Path(path) / _part_name(index) for index in range(count)])
        self._held: list[Arrays] = []

    def read(self, ids: np.ndarray, digests: np.ndarray | None = None) -> tf.Tensor:
        """Return the vectors ``(b, p)`` of the next examples.

        Parameters
        ----------
        ids
            What the ids of these examples must be.
        digests
            What their `example_digests` must be, where both are known.

        Raises
        ------
        DatasetOrderError
            If the saved vectors are of other examples, or in another order.
        """
        part = self._next(len(ids))
        if part is None or not np.array_equal(part["ids"], ids):
            message = (
                "The saved influence vectors must be of the same examples in the same order as "
                f"`train_set`. Received: others. {_REMEDY}"
            )
            raise DatasetOrderError(message)
        if digests is not None and "digests" in part:
            changed = ids[part["digests"] != digests]
            if len(changed):
                message = (
                    "The saved influence vectors must be of the same examples as `train_set`, "
                    f"inputs and labels. Received: {len(changed)} of {len(ids)} examples of a "
                    f"batch that were others then, such as {changed[:3].tolist()}. {_REMEDY}"
                )
                raise DatasetOrderError(message)
        return tf.convert_to_tensor(part["vectors"])

    def finish(self) -> None:
        """Refuse vectors that are left over at the end of the dataset.

        Raises
        ------
        DatasetOrderError
            If more were saved than read.
        """
        if self._next(1) is not None:
            message = (
                "The saved influence vectors must be of the same examples as `train_set`. "
                f"Received: vectors of more examples. {_REMEDY}"
            )
            raise DatasetOrderError(message)

    def _next(self, size: int) -> Arrays | None:
        """Return the arrays of the next examples; None where fewer are left."""
        while sum(len(part["ids"]) for part in self._held) < size:
            file = next(self._files, None)
            if file is None:
                return None
            self._held.append(PART.read(file, _checked_part))
        joined = self._held[0]
        if len(self._held) > 1:
            names = set.intersection(*(set(part) for part in self._held))
            joined = {n: np.concatenate([part[n] for part in self._held]) for n in names}
        self._held = [{name: array[size:] for name, array in joined.items()}]
        return {name: array[:size] for name, array in joined.items()}


def _checked_part(_: Settings, arrays: Arrays) -> Arrays:
    if len(arrays["ids"]) != len(arrays["vectors"]):
        message = "ids and vectors of different lengths"
        raise ValueError(message)
    return arrays


def _part_name(index: int) -> str:
    return f"{index:08d}.npz"


def _check_replaceable(path: Path) -> None:
    if not path.exists():
        return
    ours = path.is_dir() and (path / INDEX).is_file()
    if not ours and not (path.is_dir() and not any(path.iterdir())):
        message = (
            "Argument `save_influence_vector_path` must be a new directory, or one with saved "
            f"influence vectors, which are replaced. Received: {str(path)!r}, which holds "
            "something else."
        )
        raise DataSourceError(message)
