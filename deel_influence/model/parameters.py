"""Watched variables as one flat vector."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class ParameterBlock:
    """The watched variables of one layer, a stretch of the parameter vector.

    Attributes
    ----------
    name
        The path of the layer in the model.
    parts
        The indices of its variables among the watched ones.
    slot
        Its first entry and its end.
    """

    name: str
    parts: tuple[int, ...]
    slot: tuple[int, int]

    @property
    def size(self) -> int:
        """Its number of entries."""
        return self.slot[1] - self.slot[0]


class ParameterLayout:
    """Where each watched variable lies in the flat parameter vector ``(p,)``.

    Parameters
    ----------
    variables
        Keras variables, in the order in which their entries, row by row, fill the vector.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self.variables = tuple(variables)
        self.shapes = tuple(tuple(int(d) for d in v.shape) for v in self.variables)
        self.sizes = tuple(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes)
        ends = np.cumsum(self.sizes, dtype=np.int64)
        self.slots = tuple(
            (int(end) - size, int(end)) for end, size in zip(ends, self.sizes, strict=True)
        )
        self.size = int(ends[-1]) if len(ends) else 0

    @cached_property
    def blocks(self) -> tuple[ParameterBlock, ...]:
        """The layers, in order: each a run of variables with one path but for their own names."""

        def layer_of(part: int) -> str:
            return self.variables[part].path.rpartition("/")[0]

        runs = itertools.groupby(range(len(self.variables)), layer_of)
        blocks = []
        for name, run in runs:
            parts = tuple(run)
            slot = (self.slots[parts[0]][0], self.slots[parts[-1]][1])
            blocks.append(ParameterBlock(name, parts, slot))
        return tuple(blocks)

    @property
    def layer_names(self) -> list[str]:
        """What the layers of `blocks` are called, each name once.

        Their paths begin with the model where it was built, and not where it was loaded or
        unpickled; these names are the same.
        """
        names = [block.name.rpartition("/")[2] for block in self.blocks]
        again = [names[:place].count(name) for place, name in enumerate(names)]
        return [f"{n} {count + 1}" if count else n for n, count in zip(names, again, strict=True)]

    def layer_of(self, part: int) -> int:
        """Return which of `blocks` the watched variable with index ``part`` belongs to."""
        return next(i for i, block in enumerate(self.blocks) if part in block.parts)

    def __contains__(self, variable: keras.Variable) -> bool:
        """Tell whether ``variable`` is watched."""
        return any(v is variable for v in self.variables)

    def position(self, variable: keras.Variable) -> int:
        """Return the index of ``variable`` among the watched ones.

        Raises
        ------
        KeyError
            If it is not watched.
        """
        for index, watched in enumerate(self.variables):
            if watched is variable:
                return index
        raise KeyError(variable.path)

    def flatten(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Join tensors of the variables' shapes into ``(p,)``."""
        return tf.concat([tf.reshape(tensor, (-1,)) for tensor in tensors], axis=0)

    def flatten_rows(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """Join tensors ``(b, *variable.shape)`` into ``(b, p)``."""
        rows = [
            tf.reshape(tensor, (-1, size)) for tensor, size in zip(tensors, self.sizes, strict=True)
        ]
        return tf.concat(rows, axis=1)

    def unflatten(self, vector: tf.Tensor) -> list[tf.Tensor]:
        """Split ``(p,)`` into tensors of the variables' shapes."""
        return [
            tf.reshape(vector[start:end], shape)
            for (start, end), shape in zip(self.slots, self.shapes, strict=True)
        ]
