"""Random projections of gradients: what all kinds share."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ...linalg.checks import check_count
from ...model.influence_model import BaseInfluenceModel, check_influence_model
from ..batch_gradients import BatchGradients
from ..blocks import GradientBlock, Piece, RowsBlock

DEFAULT_DIM = 2048
"""How many features there are, unless told."""


class Projection(ABC):
    """A random linear map ``P`` from gradients of p numbers to features of k numbers.

    ``E PᵀP = I`` over the seeds, so that inner products of features are unbiased estimates of
    inner products of gradients. One seed gives the same map on every device and in every process.

    To be implemented by subclasses: `size`, `apply` and `adjoint`. One that can do without
    gradient rows overrides `project` too, and one whose seed decides nothing but some tensors
    yields those from `draw` and reads them from `tensors`. A complete projection::

        class FirstEntries(Projection):
            name = "first"

            @property
            def size(self):
                return int(self.projection_dim)

            def apply(self, vectors):
                return vectors[:, : self.size]

            def adjoint(self, coordinates):
                return tf.pad(coordinates, [[0, 0], [0, self.layout.size - self.size]])

    Parameters
    ----------
    model
        The wrapped model whose gradients are projected; only the shapes of its watched weights
        count.
    projection_dim
        How far; what the number means is the kind's business.
    seed
        Fixes the map.
    """

    name: ClassVar[str]
    """What `projection=` calls the kind; the name of the class where it has none."""

    _registered: ClassVar[dict[str, type[Projection]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the kind under its name, so that saved settings find it."""
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            cls._registered[cls.name] = cls
        elif not hasattr(cls, "name"):
            cls.name = cls.__name__

    def __init__(self, model: BaseInfluenceModel, projection_dim: Any, seed: int = 0) -> None:
        check_influence_model(model)
        self.layout = model.layout
        self.dtype = model.dtype
        self.projection_dim = projection_dim
        self.seed = check_count("seed", seed, 0)

    @property
    @abstractmethod
    def size(self) -> int:
        """The number k of features. To be implemented by subclasses."""

    @abstractmethod
    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``P v`` for rows ``(r, p)``: ``(r, k)``. To be implemented by subclasses."""

    @abstractmethod
    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        """Return ``Pᵀ c`` for rows ``(r, k)``: ``(r, p)``. To be implemented by subclasses."""

    def project(self, gradients: BatchGradients) -> tf.Tensor:
        """Return the features ``P g_i`` of a batch, shape ``(b, k)``; traceable."""
        return self.apply(gradients.materialize())

    def draw(self, seed: int) -> Iterator[tf.Tensor] | None:
        """Yield the tensors that a seed decides, of shapes that are the same for every seed.

        None where the map is not made of such tensors, as for kinds that do not override this.
        """
        return None

    @cached_property
    def tensors(self) -> tuple[Any, ...]:
        """What `draw` yields for this seed, or variables that hold it; kept once it is drawn."""
        with tf.init_scope():  # kept for every function that is traced, and part of none
            return tuple(self.draw(self.seed) or ())

    def with_tensors(self, tensors: Iterable[Any]) -> Projection:
        """Return the same map, which reads its tensors from others of the same shapes."""
        twin = copy(self)
        twin.tensors = tuple(tensors)
        return twin

    @property
    def form(self) -> str:
        """What the map is, besides the tensors that it draws."""
        form = {**self.get_config(), "tensors": [list(t.shape) for t in self.tensors]}
        if self.tensors:
            form.pop("seed", None)  # which decides nothing but them
        return json.dumps(form)

    def with_seed(self, seed: int, model: BaseInfluenceModel) -> Projection:
        """Return a map of the same kind and settings, from another seed.

        Raises
        ------
        TypeError
            If the kind cannot be made from what `get_config` returns.
        """
        settings = {**self.get_config(), "seed": seed}
        settings.pop("name")
        try:
            return type(self)(model, **settings)
        except TypeError as error:
            message = (
                "Argument `projection` must be made by its kind from `model` and the settings of "
                "its `get_config`, to be drawn for each checkpoint. Received: "
                f"{type(self).__name__}, which does not take {sorted(settings)}. Let its "
                "constructor take them, or pass one checkpoint."
            )
            raise TypeError(message) from error

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of: settings, and not what is drawn from them."""
        return {name: value for name, value in vars(self).items() if name != "tensors"}

    @property
    def layer_of_feature(self) -> np.ndarray | None:
        """Which of `ParameterLayout.blocks` each feature sees, int, shape ``(k,)``.

        None where a feature mixes layers.
        """
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the kind and its settings, as `resolve_projection` takes them."""
        return {"name": self.name, "projection_dim": self.projection_dim, "seed": self.seed}

    @classmethod
    def of_dim(cls, model: BaseInfluenceModel, projection_dim: Any, seed: int) -> Projection:
        """Return the projection to so many features; None takes `DEFAULT_DIM`.

        With p features or more it is the identity.
        """
        wanted = DEFAULT_DIM if projection_dim is None else projection_dim
        size = check_count("projection_dim", wanted)
        if size >= model.nb_params:
            return IdentityProjection(model, size, seed)
        return cls(model, size, seed)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], model: BaseInfluenceModel) -> Projection:
        """Return the projection that `get_config` describes, for a model.

        Raises
        ------
        ValueError
            If no kind has that name.
        """
        settings = dict(config)
        name = settings.pop("name", None)
        if name not in cls._registered:
            message = (
                f"Argument `projection` must be one of {sorted(cls._registered)}, a Projection or "
                f"None. Received: {name!r}."
            )
            raise ValueError(message)
        return cls._registered[name](model, **settings)


class IdentityProjection(Projection):
    """All p numbers as they are: what a projection to p or more features comes to."""

    name = "identity"

    def __init__(
        self, model: BaseInfluenceModel, projection_dim: int | None = None, seed: int = 0
    ) -> None:
        super().__init__(model, projection_dim, seed)

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def layer_of_feature(self) -> np.ndarray:
        return np.repeat(
            np.arange(len(self.layout.blocks)), [block.size for block in self.layout.blocks]
        )

    def draw(self, seed: int) -> Iterator[tf.Tensor]:
        """Yield nothing: every seed gives this map."""
        yield from ()

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(vectors)

    def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
        return tf.convert_to_tensor(coordinates)


class SummedProjection(Projection):
    """A projection that goes through the parameters piece by piece.

    One block comes after the other, so that only one has its gradient rows in memory; a dense layer
    applied once has none: its pieces are made as they are needed.

    To be implemented by subclasses: `_added`.
    """

    def project(self, gradients: BatchGradients) -> tf.Tensor:
        blocks = [(placed.block, placed.parts) for placed in gradients.blocks]
        return self._summed(blocks, tf.shape(gradients.losses)[0])

    def apply(self, vectors: tf.Tensor) -> tf.Tensor:
        parts = tuple(range(len(self.layout.sizes)))
        return self._summed([(RowsBlock(vectors), parts)], tf.shape(vectors)[0])

    @abstractmethod
    def _added(self, part: int, piece: Piece, total: tf.Tensor) -> tf.Tensor:
        """Return the features ``(b, k)`` with those of a variable. To be implemented by subclasses.

        Parameters
        ----------
        part
            The index of the variable.
        piece
            Gives some of its columns at a time, see `GradientBlock.in_pieces`.
        total
            The features of others.
        """

    def _summed(
        self, blocks: Sequence[tuple[GradientBlock, tuple[int, ...]]], num_rows: tf.Tensor
    ) -> tf.Tensor:
        total = tf.zeros((num_rows, self.size), self.dtype)
        for block, parts in blocks:
            with tf.control_dependencies([total]):
                piece, first = block.in_pieces(), 0
                for part in parts:
                    total = self._added(part, partial(_later, piece, first), total)
                    first += self.layout.sizes[part]
        return total


def _later(piece: Piece, first: int, start: tf.Tensor, count: int) -> tf.Tensor:
    return piece(first + start, count)


def over_pieces(
    size: int,
    width: int,
    step: Callable[[tf.Tensor, int, tf.Tensor], tf.Tensor],
    total: tf.Tensor,
) -> tf.Tensor:
    """Return what ``step(index, count, total)`` makes of a total, for one piece after the other.

    They come one after the other also where TensorFlow could take several at a time, whose
    tensors would fill the memory.

    Parameters
    ----------
    size
        Entries of a variable.
    width
        How many of them are a piece; the last may have fewer.
    step
        Takes which piece it is, from 0, and its number of entries.
    total
        The first one.
    """
    whole, rest = divmod(size, width)
    if whole == 1:
        total = step(tf.constant(0), width, total)
    else:
        _, total = tf.while_loop(
            lambda i, _: i < whole,
            lambda i, so_far: (i + 1, step(i, width, so_far)),
            (tf.constant(0), total),
            parallel_iterations=1,
        )
    return step(tf.constant(whole), rest, total) if rest else total
