"""What a row of the table of models says, and the pieces that rows share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from deel_influence.errors import CurvatureWarning, DeelInfluenceError

CLASSES = 3
STRATEGIES = ("identity", "exact", "ekfac", "cgd")

Data = Callable[[np.random.Generator, int], tuple]


@dataclass(frozen=True)
class Refusal:
    """What a strategy has to say about a model that it cannot serve.

    Attributes
    ----------
    text
        Part of the message, a regular expression.
    kinds
        Classes of errors and warnings that may say it.
    """

    text: str
    kinds: tuple[type[Exception], ...] = (DeelInfluenceError, CurvatureWarning)


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model as its user compiles it, its data, and what is asked of it.

    Attributes
    ----------
    build
        Makes the model, compiled.
    data
        Draws so many examples, as `keras.Model.fit` takes them: ``(x, y)`` or
        ``(x, y, sample_weight)``.
    curved
        Parts of the paths of the variables, some 300 numbers at most, that are watched where
        curvature is asked for; empty: all of them.
    differentiated
        The same for the variables whose per-example gradients are compared.
    positions
        For a model whose losses are added up over positions: how many of them count in ``y``, by
        which Keras's own loss has divided. None asks the library for the mean.
    rtol
        Relative tolerance of gradients. Float32 keeps seven digits; sums of some hundred terms,
        in another order here and there, cost one of them.
    warns
        Part of the message of the `LayerRuleWarning` that the model has to give, if any.
    refusals
        By strategy, what it has to say instead of giving scores.
    """

    id: str
    build: Callable[[], keras.Model]
    data: Data
    curved: tuple[str, ...] = ()
    differentiated: tuple[str, ...] = ()
    positions: Callable[[Any], float] | None = None
    rtol: float = 1e-6
    warns: str | None = None
    refusals: Mapping[str, Refusal] = field(default_factory=dict)


def compiled(model: keras.Model, loss: Any = None, **options: Any) -> keras.Model:
    """Compile a model, for classes given as numbers unless a loss says otherwise."""
    if loss is None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **options)
    return model


def sequential(
    *parts: Callable[[], keras.layers.Layer],
    shape: tuple[int | None, ...],
    dtype: str | None = None,
    loss: Any = None,
    **options: Any,
) -> Callable[[], keras.Model]:
    """Return what builds a compiled Sequential from what makes its layers."""

    def build() -> keras.Model:
        stack = [keras.Input(shape, dtype=dtype), *(part() for part in parts)]
        return compiled(keras.Sequential(stack), loss, **options)

    return build


def head(units: int = CLASSES, **options: Any) -> Callable[[], keras.layers.Layer]:
    """Return what makes the last layer, which many rows watch alone."""
    return lambda: keras.layers.Dense(units, name="head", **options)


def shaken(model: keras.Model, scale: float = 0.3) -> keras.Model:
    """Move what is trained off its initial values, of which some are zero."""
    generator = np.random.default_rng(3)
    for variable in model.trainable_variables:
        variable.assign(variable + scale * generator.normal(size=variable.shape))
    return model


def normal(*shape: int) -> Data:
    """Return what draws examples of this shape, with a class each."""

    def draw(generator: np.random.Generator, n: int) -> tuple:
        return reals(generator, n, *shape), classes(generator, n)

    return draw


def indices(bound: int, *shape: int) -> Data:
    """Return what draws integers from 0 to the bound, with a class each."""

    def draw(generator: np.random.Generator, n: int) -> tuple:
        return generator.integers(0, bound, (n, *shape)), classes(generator, n)

    return draw


def reals(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype("float32")


def classes(generator: np.random.Generator, *shape: int, count: int = CLASSES) -> np.ndarray:
    return generator.integers(0, count, shape)
