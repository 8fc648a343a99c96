"""Tells when an upgrade of Keras takes away what the library reads of its internals."""

from __future__ import annotations

import keras
import numpy as np

from deel_influence.model.keras_internals import keras_mask


def test_outputs_carry_the_mask_of_an_embedding():
    tokens = keras.Input((3,), dtype="int32")
    embedded = keras.layers.Embedding(5, 2, mask_zero=True)(tokens)
    model = keras.Model(tokens, keras.layers.Dense(2)(embedded))
    mask = keras_mask(model(np.array([[1, 2, 0]])))
    assert mask is not None, "Keras no longer attaches masks as `_keras_mask`"
    np.testing.assert_array_equal(mask, [[True, True, False]])


def test_outputs_without_a_mask_have_none():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    assert keras_mask(model(np.zeros((1, 3)))) is None


def test_an_attribute_of_a_layer_instance_shadows_its_method():
    """The capture of layer inputs overlays `call` in the instance dictionary."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    vars(layer)["call"] = lambda inputs: "overlaid"
    assert layer(np.zeros((1, 3))) == "overlaid"
