"""Computing an index, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.part_writer import PartWriter
from ..calculators.parts import fitting
from ..gradients.passes import Pass
from ..linalg.checks import check_count, check_shard
from ..types import Data, IdFunction
from ..utils.example_ids import POSITION, ids_of
from ..utils.records import Arrays
from ..utils.takes_data import takes_data
from .index import Index
from .parts import DTYPES, Header


@takes_data
def build_index(
    calculator: BaseInfluenceCalculator,
    train_set: Data,
    path: str | Path,
    dtype: str = "float16",
    shard: int = 0,
    num_shards: int = 1,
    part_size: int | None = None,
    self_scores: bool = True,
    id_fn: IdFunction | None = None,
    device: str | None = None,
    verbose: str | int = "auto",
) -> Index:
    """Compute what scores need of each training example, and keep it in a folder.

    The folder has a file for each stretch of examples, which appears whole or not at all. Parts
    that are there are not computed again, so that a run that was cut off goes on where it was.
    Shards may be built one after another or by several processes, into one folder.

    Parameters
    ----------
    calculator
        A calculator whose scores are products of vectors. `FirstOrderInfluenceCalculator` with
        ``"logra"`` and `TRAK` keep some hundred or thousand numbers for each example; others keep
        as many as there are watched parameters.
    train_set
        The training set, or one shard of it, batched. Examples of shards need ids of their own.
    path
        The folder.
    dtype
        How the numbers are kept: ``"float32"``, ``"float16"`` or ``"bfloat16"``. Each vector is
        kept at length one, beside its length, so that none is out of range.
    shard, num_shards
        Which of how many shards of the training set this is, counting from 0.
    part_size
        How many examples a file has; None makes files of about 64 MiB.
    self_scores
        Whether the scores of the examples for themselves are computed as well; with ``"logra"``
        they may cost more than all the rest.
    id_fn, device, verbose
        As for `score`.

    Returns
    -------
    The index, as far as it is built, with the calculator at hand for queries.

    Raises
    ------
    DataSourceError
        If the folder holds something else, an index of other weights, settings or data.
    TypeError
        If the calculator scores no pairs.
    ValueError
        If an argument is out of its range, shards have no ids, or scores are no products.
    """
    if dtype not in DTYPES:
        message = f"Argument `dtype` must be one of {sorted(DTYPES)}. Received: {dtype!r}."
        raise ValueError(message)
    if not isinstance(calculator, BaseInfluenceCalculator):
        message = (
            "Argument `calculator` must score pairs by products of vectors, for an index to keep "
            f"these. Received: {calculator!r}. Of nearest neighbours an index keeps the features, "
            "with `RepresentationSimilarity`."
        )
        raise TypeError(message)
    place = check_shard(shard, num_shards)
    if part_size is not None:
        check_count("part_size", part_size)
    data = Pass(train_set, "train_set", "Index", id_fn, device, verbose)
    data.checked(calculator.engine)
    if num_shards > 1 and id_fn in (None, POSITION) and ids_of(train_set) is None:
        message = (
            "Argument `id_fn` must give the examples of shards ids of their own. Received: None, "
            "and data without ids, so that a place in each of the shards is the same id."
        )
        raise ValueError(message)
    folder = Header.checked_folder(path, "path")
    _Row(folder, place, calculator, dtype, part_size).fill(data, self_scores)
    index = Index(folder)
    index.calculator = calculator  # whose origin has been compared, which may cost a pass
    return index


class _Row:
    """The header of an index, and what computes a row of its parts."""

    def __init__(
        self,
        folder: Path,
        place: tuple[int, int],
        calculator: BaseInfluenceCalculator,
        dtype: str,
        part_size: int | None,
    ) -> None:
        self._folder, self._dtype, self._part_size = folder, dtype, part_size
        self._shard, self._num_shards = place
        self._calculator, self._origin = calculator, calculator.origin()

    def fill(self, data: Pass, scored: bool) -> None:
        """Compute and write what is missing."""
        header: Header | Callable[[Arrays], Header] = self._begin
        if (self._folder / Header.file).exists():
            there = Header.read(self._folder)
            self._part_size = self._part_size or there.part_size
            header = self._agreed(there.dimension)

        def computed(missing: Pass) -> Iterator[Arrays]:
            for item, vectors, scores in self._calculator.kept_vectors(missing, scored):
                yield {"ids": item.ids, **_kept(vectors, scores, self._dtype)}

        PartWriter(self._folder, self._shard, header).fill(data, computed)

    def _begin(self, arrays: Arrays) -> Header:
        return self._agreed(arrays["vectors"].shape[1])

    def _agreed(self, dimension: int) -> Header:
        header = Header(
            type(self._calculator).__qualname__,
            self._origin,
            dimension,
            self._dtype,
            self._num_shards,
            tuple(self._calculator.columns_of_layers()),
            part_size=self._part_size or fitting(dimension * DTYPES[self._dtype].itemsize),
        )
        return header.agreed(self._folder)


def _kept(vectors: np.ndarray, scores: np.ndarray | None, dtype: str) -> dict[str, np.ndarray]:
    """Return what a part has of some examples, beside their ids."""
    lengths = np.linalg.norm(vectors, axis=1)
    units = vectors / np.where(lengths > 0, lengths, 1)[:, None]
    found = {"vectors": units.astype(DTYPES[dtype]), "lengths": lengths.astype(np.float32)}
    return found if scores is None else {**found, "scores": scores.astype(np.float32)}
