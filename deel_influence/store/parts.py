"""What an index keeps in its folder of parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from ..calculators.parts import PartsHeader
from ..utils.records import Arrays, RecordKind

INDEX = RecordKind("folder of vectors", "Build it again, with `build_index`.")
PART = RecordKind(
    "part of an index",
    "Remove the file, and call `build_index` again: parts that are there are not computed again.",
)

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(tf.bfloat16.as_numpy_dtype),
}
"""How vectors may be kept."""


@dataclass(frozen=True)
class Header(PartsHeader):
    """What the parts of an index have in common.

    Attributes
    ----------
    calculator
        The class of the calculator.
    origin
        A digest of class, weights, loss, fit and settings.
    dimension
        The number d of columns of the vectors.
    dtype
        How they are kept, see `DTYPES`.
    num_shards
        Of how many shards the training set consists.
    layers
        Each layer with the first of its columns, and their end; empty where columns mix layers.
    part_size
        How many examples a part has, the last one of a shard apart.
    """

    file: ClassVar[str] = "index.json"
    folder_kind: ClassVar[RecordKind] = INDEX
    part_kind: ClassVar[RecordKind] = PART

    calculator: str
    origin: str
    dimension: int
    dtype: str
    num_shards: int
    layers: tuple[tuple[str, int, int], ...]

    def __post_init__(self) -> None:
        """Check what is read of a file."""
        if self.dtype not in DTYPES or self.dimension < 1:
            message = f"{self.dimension} numbers of type {self.dtype!r}"
            raise ValueError(message)

    def to_disk(self, arrays: Arrays) -> Arrays:
        # As plain words, because NumPy's files know no bfloat16.
        vectors = arrays["vectors"]
        return (
            {**arrays, "vectors": vectors.view(np.uint16)} if self.dtype == "bfloat16" else arrays
        )

    def from_disk(self, arrays: Arrays) -> Arrays:
        vectors, count = arrays["vectors"], len(arrays["ids"])
        if vectors.shape != (count, self.dimension) or {*map(len, arrays.values())} != {count}:
            message = f"vectors of shape {vectors.shape} for {count} examples"
            raise ValueError(message)
        return {**arrays, "vectors": vectors.view(DTYPES[self.dtype])}
