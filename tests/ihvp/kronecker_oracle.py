"""What the tests of the Kronecker-factored strategies share."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import tensorflow as tf

from deel_influence.ihvp.kronecker import KroneckerIHVP
from deel_influence.model.influence_model import BaseInfluenceModel
from tests.cases import RULED_CASES, ModelCase

CASES = [
    case
    for case in RULED_CASES
    if case.id
    in (
        "dense",
        "dense-wide",
        "dense-on-sequence",
        "conv2d-strides",
        "conv2d-many-channels-gram",
        "separable2d-dilated",
        "transformer",
        "shared-dense",
        "shared-convolution",
    )
]
N, M = 7, 4


# Made once: the probe of an engine costs more than most of the tests.
@cache
def problem(case: ModelCase) -> tuple[BaseInfluenceModel, tf.data.Dataset, tf.data.Dataset]:
    """Return a model, n training examples with a partial last batch, and m queries."""
    model = BaseInfluenceModel(case.build(), loss_function="mse")
    x, y = case.data(model.model, N + M)
    make = tf.data.Dataset.from_tensor_slices
    return model, make((x[:N], y[:N])).batch(3), make((x[N:], y[N:])).batch(3)


def arrays_of(dataset: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples of a dataset."""
    x, y = zip(*((np.asarray(x), np.asarray(y)) for x, y in dataset), strict=True)
    return np.concatenate(x), np.concatenate(y)


def dense_curvature_of(ihvp: KroneckerIHVP, damping: np.ndarray) -> np.ndarray:
    """Assemble H ``(p, p)`` in NumPy from what was fitted and a damping for each parameter."""
    layout = ihvp.model.layout
    full = np.diag(damping)
    for block in ihvp.curvature.blocks:
        entries = np.concatenate([np.arange(*layout.slots[part]) for part in block.parts])
        basis = np.eye(len(entries)) if block.left is None else block.left
        basis = basis if block.right is None else np.kron(basis, block.right)
        full[np.ix_(entries, entries)] += basis @ np.diag(block.values.ravel()) @ basis.T
    return full


def auto_damping_of(ihvp: KroneckerIHVP) -> np.ndarray:
    """Return a tenth of the mean eigenvalue of each layer, for each parameter, ``(p,)``."""
    layout = ihvp.model.layout
    diagonal = np.diag(dense_curvature_of(ihvp, np.zeros(layout.size)))
    floor = 1e-6 * diagonal.mean()
    means = [max(diagonal[slice(*block.slot)].mean(), floor) for block in layout.blocks]
    return np.repeat(0.1 * np.array(means), [block.size for block in layout.blocks])


def small_classifier() -> tuple[BaseInfluenceModel, tf.data.Dataset]:
    """Return a network with two layers and 19 examples in batches of 8."""
    parts = [keras.layers.Dense(5, "tanh", name="hidden"), keras.layers.Dense(3, name="head")]
    keras_model = keras.Sequential([keras.Input((4,)), *parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    generator = np.random.default_rng(0)
    data = generator.normal(size=(19, 4)), generator.integers(0, 3, 19)
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(8)
    return BaseInfluenceModel(keras_model, loss_function=loss), dataset
