"""Projections of one kind and several seeds, one of which is there at a time."""

from __future__ import annotations

from collections.abc import Iterable

import tensorflow as tf

from ...model.influence_model import BaseInfluenceModel
from .base import Projection


class LoadedProjection:
    """A projection whose seed changes under functions that were traced with it.

    The tensors that a seed decides are in variables, which another seed overwrites. A kind that
    is not made of such tensors, see `Projection.draw`, is made anew for each seed, and functions
    have to be traced with each: `trace` tells them apart.

    Parameters
    ----------
    first
        The projection whose kind, settings and shapes all have. It is left as it is.
    model
        The wrapped model whose gradients are projected.

    Attributes
    ----------
    current
        The projection that was loaded last.
    trace
        What functions that were traced with `current` belong to.
    """

    def __init__(self, first: Projection, model: BaseInfluenceModel) -> None:
        self._first, self._model = first, model
        self._seed: int | None = None
        self._variables: tuple[tf.Variable, ...] = ()
        self.current = first
        self.trace: int | None = None

    def __reduce__(self) -> tuple:
        """Pickle and copy what it is made of; the next `load` draws again."""
        return LoadedProjection, (self._first, self._model)

    def over(self, drawn: Iterable[tf.Tensor]) -> LoadedProjection:
        """Return the like whose `current` reads its tensors from others."""
        twin = LoadedProjection(self._first, self._model)
        twin.current = self.current.with_tensors(drawn)
        return twin

    def load(self, seed: int) -> None:
        """Make `current` the projection of a seed."""
        if seed == self._seed:
            return
        drawn = self._first.draw(seed)
        if drawn is None:
            again = seed == self._first.seed
            self.current = self._first if again else self._first.with_seed(seed, self._model)
            self.trace = seed
        elif self._seed is None:
            self._variables = tuple(tf.Variable(value, trainable=False) for value in drawn)
            self.current = self._first.with_tensors(self._variables)
        else:
            # One after the other: of the new map only one tensor is there beside the old one.
            for variable, value in zip(self._variables, drawn, strict=True):
                variable.assign(value)
        self._seed = seed
