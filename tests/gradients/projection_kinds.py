"""One projection of each kind, and a network small enough to look at its matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients import GradientEngine
from deel_influence.gradients.projections import (
    FactGraSSProjection,
    GaussianProjection,
    LoGraProjection,
    MaskProjection,
    Projection,
    RademacherProjection,
    SJLTProjection,
    dense,
)
from deel_influence.model import BaseInfluenceModel

layers = keras.layers

Make = Callable[..., Projection]
MAKERS: dict[str, Make] = {
    "gaussian": partial(GaussianProjection, projection_dim=7),
    "rademacher": partial(RademacherProjection, projection_dim=37),
    "sjlt": partial(SJLTProjection, projection_dim=7),
    "sjlt-three": partial(SJLTProjection, projection_dim=7, nonzeros=3),
    "mask": partial(MaskProjection, projection_dim=7),
    "logra": partial(LoGraProjection, projection_dim=(3, 2)),
    "logra-outputs-whole": partial(LoGraProjection, projection_dim=(2, 99)),
    "factgrass": partial(FactGraSSProjection, projection_dim=5, mask_dim=(4, 3)),
    "factgrass-inputs-whole": partial(FactGraSSProjection, projection_dim=4, mask_dim=(99, 2)),
}
KINDS = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def two_layers(width: int = 5) -> BaseInfluenceModel:
    """A network of 5·width + width + 2·width + 2 parameters."""
    parts = [keras.Input((5,)), layers.Dense(width, activation="tanh"), layers.Dense(2)]
    return BaseInfluenceModel(keras.Sequential(parts), loss_function="mse")


def matrix_of(projection: Projection) -> np.ndarray:
    """Return P, shape ``(k, p)``."""
    return projection.apply(tf.eye(projection.layout.size, dtype=projection.dtype)).numpy().T


def in_slices(projection: Projection, is_held: bool, monkeypatch) -> Projection:
    """Return a dense projection that multiplies in slices, drawn once or each time."""
    monkeypatch.setattr(dense, "KEPT_ENTRIES", 0)
    monkeypatch.setattr(dense, "bytes_to_hold", lambda: 2**30 if is_held else 0)
    assert projection.is_held == is_held
    return projection


def batch(n: int = 7) -> tuple[tf.Tensor, tf.Tensor]:
    generator = np.random.default_rng(0)
    return tf.constant(generator.normal(size=(n, 5))), tf.constant(generator.normal(size=(n, 2)))


def prepared(model: BaseInfluenceModel) -> GradientEngine:
    engine = GradientEngine.of(model)
    engine.prepare(batch())
    return engine
