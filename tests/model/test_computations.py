"""Other functions, losses and layers have other descriptions, and the same ones the same."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.model.computations import describe, describe_layers

layers = keras.layers
SCALE = 1.0
CALLS = 0


def scaling(factor: Any) -> Callable[[Any], Any]:
    return lambda value: factor * value


def with_inner(factor: float) -> Callable[[Any], Any]:
    inner = scaling(factor)
    return lambda values: [inner(value) for value in values]


def scaled(value: float, factor: float) -> float:
    return factor * value


def by_keyword(factor: float) -> Callable[..., Any]:
    def function(value: Any, *, by: float = factor) -> Any:
        return by * value

    return function


def written(expression: str, **values: Any) -> Callable[[Any], Any]:
    """Return what an expression gives, without a source, and with its own global variables."""
    return eval(expression, {"np": np, **values})


class Scaling:
    """An object that is called; its methods may be too."""

    def __init__(self, factor: Any) -> None:
        self._factor = factor
        self.calls = 0

    def __call__(self, value: Any) -> Any:
        self.calls += 1
        return self.scale(value)

    def scale(self, value: Any) -> Any:
        return self._factor * value


class WithoutConfig(keras.losses.Loss):
    """A loss whose configuration says nothing of its weights."""

    def __init__(self, weights: Any) -> None:
        super().__init__()
        self.weights = weights

    def call(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(self.weights * (targets - outputs) ** 2, axis=-1)


class Experiment:
    """Holds a setting of a function, and what comes and goes besides."""

    def __init__(self, factor: float) -> None:
        self.factor, self.results = factor, [np.random.default_rng().normal()]

    def loss(self) -> Callable[[Any], Any]:
        return lambda value: self.factor * value


MAKERS = {
    "a constant": lambda number: written(f"lambda x: x - {number}"),
    "a constant of an inner function": lambda n: written(f"lambda x: [i - {n} for i in x]"),
    "a closure": scaling,
    "an array in a closure": lambda number: scaling(np.array([1.0, number])),
    "a large array in a closure": lambda number: scaling(np.full(99, number)),
    "a tensor in a closure": lambda number: scaling(tf.constant([number])),
    "a variable in a closure": lambda number: scaling(tf.Variable(number)),
    "weights of classes in a closure": lambda number: scaling({0: 1.0, 1: number}),
    "a set in a closure": lambda number: scaling({"a", "b", number}),
    "a function in a closure": with_inner,
    "an object in a closure": lambda number: Experiment(number).loss(),
    "a default": lambda number: written(f"lambda x, by={number}: by * x"),
    "a default of a keyword": by_keyword,
    "a global number": lambda number: written("lambda x: factor * x", factor=number),
    "a global function": lambda number: written("lambda x: inner(x)", inner=scaling(number)),
    "a partial": lambda number: functools.partial(scaled, factor=number),
    "a called object": Scaling,
    "a method": lambda number: Scaling(number).scale,
    "a tf.function": lambda number: tf.function(scaling(number)),
    "a loss without a configuration": lambda number: WithoutConfig(np.array([1.0, number])),
    "a loss of Keras": lambda number: keras.losses.Huber(number),
    "a regulariser of Keras": lambda number: keras.regularizers.L1L2(0.5, number),
    "losses by output": lambda number: {"a": "mse", "b": [keras.losses.Huber(number)]},
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_other_values_have_other_descriptions_and_the_same_ones_the_same(make):
    one, same, other = (json.dumps(describe(make(number))) for number in (1.5, 1.5, 2.5))
    assert one == same
    assert one != other


def test_other_code_has_another_description_whatever_the_names():
    functions = [
        *(lambda x: x + 1, lambda x: x - 1, lambda x: np.sin(x), lambda x: np.cos(x)),
        *(lambda x, y: x, lambda x, y: y, lambda *x: x, lambda x: x, np.sin, np.cos, abs, len),
        *(keras.activations.relu, keras.activations.gelu, tf.nn.relu, Scaling(1.0), Scaling),
    ]
    descriptions = {json.dumps(describe(function)) for function in functions}
    assert len(descriptions) == len(functions)
    assert describe(lambda first: first - 1) == describe(lambda other: other - 1)


def test_what_a_computation_counts_is_no_part_of_it():
    calls = 0

    def counting(value: Any) -> Any:
        nonlocal calls
        global CALLS  # noqa: PLW0603
        calls, CALLS = calls + 1, CALLS + 1
        return value

    scale = Scaling(2.0)
    experiment = Experiment(1.0)
    read = experiment.loss()
    before = [describe(one) for one in (counting, scale, read)]
    counting(scale(1.0))
    experiment.results.append(1.0)
    assert (calls, CALLS, scale.calls) == (1, 1, 1)
    assert [describe(one) for one in (counting, scale, read)] == before


def test_what_refers_to_itself_is_described():
    def even(value: int) -> bool:
        return value == 0 or odd(value - 1)

    def odd(value: int) -> bool:
        return value != 0 and even(value - 1)

    held: list[Any] = []
    scale = Scaling(held)
    held.append(scale)
    assert describe(even) != describe(odd)
    assert describe(scale) == describe(scale)


def test_another_model_that_a_function_runs_counts_with_its_weights():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(2, "tanh")])
    before = describe(scaling(inner))
    inner.layers[0].bias.assign([1.0, 2.0])
    changed = describe(scaling(inner))
    inner.layers[0].activation = keras.activations.relu
    assert len({json.dumps(one) for one in (before, changed, describe(scaling(inner)))}) == 3
    # Where it is known, something else has its weights and its layers.
    known = [inner, *inner.layers]
    before = describe(scaling(inner), known)
    inner.layers[0].bias.assign([3.0, 4.0])
    assert describe(scaling(inner), known) == before


class Broken(layers.Layer):
    """A layer that trains, and whose configuration is of no use."""

    def __init__(self, factor: Any, config: Callable[[], dict]) -> None:
        super().__init__()
        self._factor, self._config = factor, config
        self.calls = 0

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        self.calls += 1
        return self._factor(inputs) if callable(self._factor) else inputs * self._factor

    def get_config(self) -> dict:
        return {**super().get_config(), **self._config()}


class HeldFunction(keras.Model):
    """A model with a function of its own."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self.function, self.dense = function, layers.Dense(2)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.dense(self.function(inputs))


class DoubledDense(layers.Dense):
    """A layer of Keras with something more."""

    def __init__(self, units: int, factor: float) -> None:
        super().__init__(units)
        self.factor = factor

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self.factor * super().call(inputs)


def misspelt() -> dict:
    return {"factor": Broken.facto}


def without_source() -> dict:
    raise OSError


def of_layer(layer: Callable[[float], layers.Layer], *shape: int) -> Callable[[float], Any]:
    return lambda number: keras.Sequential([keras.Input(shape or (4,)), layer(number)])


def minus(number: float) -> Callable[[Any], Any]:
    return written(f"lambda z: z - {number}")


def inside(number: float) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Lambda(minus(number)), layers.Dense(2)])


def subclassed(function: Callable[[Any], Any]) -> keras.Model:
    model = HeldFunction(function)
    model(np.zeros((1, 4)))
    return model


MODELS = {
    "Lambda": inside,
    "Lambda with arguments": of_layer(
        lambda n: layers.Lambda(scaled, output_shape=(4,), arguments={"factor": n})
    ),
    "nested": lambda number: keras.Sequential([keras.Input((4,)), inside(number)]),
    "in a wrapper": of_layer(lambda n: layers.TimeDistributed(layers.Lambda(minus(n))), 3, 4),
    "model in a wrapper": of_layer(lambda n: layers.TimeDistributed(inside(n)), 3, 4),
    "activation": of_layer(lambda n: layers.Dense(2, minus(n))),
    "Activation": of_layer(lambda n: layers.Activation(minus(n))),
    "activation in a wrapper": of_layer(
        lambda n: layers.TimeDistributed(layers.Dense(2, minus(n))), 3, 4
    ),
    "recurrent": of_layer(lambda n: layers.LSTM(2, activation=minus(n)), 3, 4),
    "partial": of_layer(lambda n: layers.Dense(2, functools.partial(scaled, factor=n))),
    "called object": of_layer(lambda n: layers.Dense(2, Scaling(n))),
    "method": of_layer(lambda n: layers.Dense(2, Scaling(n).scale)),
    "layer as activation": of_layer(lambda n: layers.Dense(2, layers.LeakyReLU(n))),
    "setting of Keras": of_layer(lambda n: layers.LayerNormalization(epsilon=n)),
    "broken configuration": of_layer(lambda n: Broken(n, misspelt)),
    "no source": of_layer(lambda n: Broken(minus(n), without_source)),
    "unsortable configuration": of_layer(lambda n: Broken(n, lambda: {"a": {1: 2, "b": 3}})),
    "array": of_layer(lambda n: Broken(np.full(4, n, "float32"), misspelt)),
    "of a subclass": of_layer(lambda n: DoubledDense(2, n)),
    "of a subclassed model": lambda number: subclassed(minus(number)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_other_layers_have_other_descriptions_and_the_same_ones_the_same(make):
    one, same, other = (json.dumps(describe_layers(make(number))) for number in (1.5, 1.5, 2.5))
    assert one == same
    assert one != other


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.filterwarnings("ignore:The layer.*PolymorphicFunction")
def test_running_a_model_changes_no_description(make):
    number = float(np.random.default_rng().uniform(1, 2))  # new to this process
    model = make(number)
    before = describe_layers(model)
    inputs = getattr(model, "inputs", [np.zeros((1, 4))])
    shape = (2, *inputs[0].shape[1:])
    for function in (model, tf.function(model)):
        function(tf.ones(shape) * number)
    assert describe_layers(model) == before


@pytest.mark.parametrize("make", [inside, MODELS["nested"], MODELS["model in a wrapper"]])
def test_a_saved_model_keeps_its_description(make, tmp_path):
    model = make(1.5)
    before = describe_layers(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert describe_layers(loaded) == before


def test_weights_names_and_how_they_began_are_no_computation():
    def make(initializer: Any) -> keras.Model:
        dense = layers.Dense(2, kernel_initializer=initializer, bias_constraint="non_neg")
        return keras.Sequential([keras.Input((4,)), dense])

    one, other = make(lambda shape, dtype: tf.ones(shape, dtype)), make("zeros")
    assert describe_layers(one) == describe_layers(other)
