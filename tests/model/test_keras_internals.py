"""Tells when an upgrade of Keras takes away what the library reads of its internals."""

from __future__ import annotations

import keras
import numpy as np

from deel_influence.model.keras_internals import is_decayed, keras_mask


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


def test_what_an_optimizer_does_not_decay_is_known():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    kernel, bias = model.weights
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss="mse")
    before = [weight.numpy() for weight in (kernel, bias)]
    optimizer.apply([np.zeros_like(value) for value in before], model.trainable_variables)
    assert [is_decayed(optimizer, weight) for weight in (kernel, bias)] == [True, False]
    np.testing.assert_allclose(kernel.numpy(), before[0] * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(bias.numpy(), before[1])
