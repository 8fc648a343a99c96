from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DeelInfluenceError, LayerRuleWarning
from deel_influence.gradients import GradientEngine
from deel_influence.gradients.fallback import MODES
from deel_influence.gradients.rules.base import LayerUse
from deel_influence.gradients.rules.convolution import ConvolutionRule
from deel_influence.gradients.rules.dense import DenseRule
from deel_influence.model import BaseInfluenceModel
from tests.cases import RULED_CASES
from tests.oracles import assert_close, gradient_rows

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")


def small_model(**options: object) -> BaseInfluenceModel:
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, activation="tanh", **options), layers.Dense(2)]
    )
    return BaseInfluenceModel(model, loss_function="mse")


def data(n: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, 5)), generator.normal(size=(n, 2))


def test_a_partial_last_batch_needs_no_second_trace():
    model = small_model()
    engine = GradientEngine(model)
    dataset = tf.data.Dataset.from_tensor_slices(data(10)).batch(4)
    engine.prepare(next(iter(dataset)))
    kernel = engine.kernel("norms", lambda b: engine.gradients(b).squared_norms())
    sizes = [len(kernel(batch)) for batch in dataset]
    assert sizes == [4, 4, 2]
    assert kernel.num_traces == 1


def test_gradients_before_the_probe_are_refused():
    with pytest.raises(DeelInfluenceError, match=r"engine.prepare\(batch\)"):
        GradientEngine(small_model()).gradients(data())


def test_a_rule_that_is_wrong_is_set_aside_with_a_warning_that_names_the_layer(monkeypatch):
    """The negative control of the probe: break a rule on purpose."""
    right = DenseRule.blocks

    def wrong(self, layer, uses, watched):
        doubled = [type(use)(use.inputs, 1.01 * use.delta) for use in uses]
        return right(self, layer, doubled, watched)

    monkeypatch.setattr(DenseRule, "blocks", wrong)
    model = small_model(name="suspect")
    engine = GradientEngine(model)
    x, y = data()
    with pytest.warns(LayerRuleWarning, match="'suspect' .Dense.*does not agree"):
        engine.prepare((x, y))
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())((x, y))
    assert_close(rows, gradient_rows(model, x, y))


@pytest.fixture(scope="module")
def recurrent() -> dict:
    """An engine on a recurrent layer: its probe is slow, and the same for every mode."""
    return {}


@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_the_fallback_gives_the_same_gradients_also_of_a_batch_of_one(mode, recurrent):
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 2, 3)), generator.normal(size=(5, 2))
    if not recurrent:
        network = keras.Sequential([keras.Input((2, 3)), layers.LSTM(3), layers.Dense(2)])
        recurrent["model"] = BaseInfluenceModel(network, loss_function="mse")
        recurrent["engine"] = GradientEngine(recurrent["model"])
        recurrent["engine"].prepare((x, y))
    model, engine = recurrent["model"], recurrent["engine"]
    engine.plan = replace(engine.plan, fallback_mode=mode)
    kernel = engine.kernel(mode, lambda b: engine.gradients(b).materialize())
    for n in (5, 1):
        assert_close(kernel((x[:n], y[:n])), gradient_rows(model, x[:n], y[:n]))


class Fuse:
    """Fails on demand, and remembers which attributes of a layer were overlaid then."""

    def __init__(self) -> None:
        self.watched: keras.layers.Layer | None = None
        self.overlaid: list[set[str]] = []

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self.watched is not None:
            self.overlaid.append({"call", "activation"} & set(vars(self.watched)))
            message = "the fuse has blown"
            raise RuntimeError(message)
        return tf.tanh(x)


class FuseLayer(layers.Layer):
    """A layer whose call fails on demand."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.fuse(x)


def in_a_layer(fuse: Fuse) -> list[keras.layers.Layer]:
    return [layers.Dense(4, activation="tanh"), FuseLayer(fuse), layers.Dense(2)]


def in_an_activation(fuse: Fuse) -> list[keras.layers.Layer]:
    return [layers.Dense(4, activation=fuse), layers.Dense(2)]


def _eagerly(engine: GradientEngine) -> None:
    engine.plan.gradients(data())


def _while_tracing(engine: GradientEngine) -> None:
    engine.kernel("norms", lambda b: engine.gradients(b).squared_norms())(data())


def _to_the_logits(engine: GradientEngine) -> None:
    engine.forward_to_logits(data(), [], [])


@pytest.mark.parametrize("parts", [in_a_layer, in_an_activation])
@pytest.mark.parametrize("run", [_eagerly, _while_tracing, _to_the_logits])
def test_the_model_is_as_before_even_after_an_exception(parts, run):
    fuse = Fuse()
    model = keras.Sequential([keras.Input((5,)), *parts(fuse)])
    engine = GradientEngine(BaseInfluenceModel(model, loss_function="mse"))
    engine.prepare(data())
    predictions = model(data()[0])
    before = [dict(vars(layer)) for layer in model.layers]
    fuse.watched = model.layers[0]
    with pytest.raises(RuntimeError, match="the fuse has blown"):
        run(engine)
    # The control: the layer was overlaid when the exception came.
    assert [found for found in fuse.overlaid if "call" in found]
    for layer, attributes in zip(model.layers, before, strict=True):
        assert vars(layer).keys() == attributes.keys()
        assert [name for name, kept in attributes.items() if vars(layer)[name] is not kept] == []
    fuse.watched = None
    np.testing.assert_array_equal(model(data()[0]), predictions)


def test_half_precision_models_give_float32_gradients():
    keras.config.set_floatx("float32")  # the fixture puts it back
    policy = keras.mixed_precision.DTypePolicy("mixed_bfloat16")
    parts = [layers.Dense(4, activation="relu", dtype=policy), layers.Dense(2, dtype=policy)]
    model = BaseInfluenceModel(keras.Sequential([keras.Input((5,)), *parts]), loss_function="mse")
    x, y = (part.astype("float32") for part in data())
    engine = GradientEngine(model)
    engine.prepare((x, y))
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())((x, y))
    assert rows.dtype == tf.float32
    # bfloat16 keeps eight bits: a per cent or two after two layers.
    assert_close(rows, gradient_rows(model, x, y), rtol=0.05)


def test_kernels_run_on_the_device_that_is_asked_for():
    model = small_model()
    engine = GradientEngine(model)
    engine.prepare(data())
    kernel = engine.kernel("norms", lambda b: engine.gradients(b).squared_norms())
    devices = [kernel(data(), device=name).device for name in ("/CPU:0", "/CPU:1")]
    assert [device[-5:] for device in devices] == ["CPU:0", "CPU:1"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 1), "padding": "same"},
        {"dilation_rate": 2, "use_bias": False},
        {"groups": 2},
    ],
    ids=["plain", "strides-same", "dilation-no-bias", "groups"],
)
def test_channels_first_gives_the_rows_of_channels_last(options):
    """From tensors alone: TensorFlow has no channels-first convolution on CPU to run."""
    last, first = (
        layers.Conv2D(6, (2, 3), data_format=f"channels_{which}", **options)
        for which in ("last", "first")
    )
    last.build((None, 7, 8, 4))
    first.build((None, 4, 7, 8))
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, 7, 8, 4))
    delta = generator.normal(size=last.compute_output_shape(x.shape))
    transposed = np.moveaxis(x, -1, 1), np.moveaxis(delta, -1, 1)
    assert first.compute_output_shape(transposed[0].shape) == transposed[1].shape
    assert_close(_rows_of_convolution(first, *transposed), _rows_of_convolution(last, x, delta))


def _rows_of_convolution(layer: layers.Conv2D, x: np.ndarray, delta: np.ndarray) -> np.ndarray:
    use = LayerUse(tf.convert_to_tensor(x), tf.convert_to_tensor(delta))
    (found,) = ConvolutionRule().blocks(layer, [use], lambda variable: True)
    assert len(found.variables) == 1 + layer.use_bias
    return found.block.rows().numpy()


def test_unknown_sequence_lengths_are_served_by_the_rules():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Dense(4, activation="tanh")(layers.Embedding(9, 8)(inputs))
    model = BaseInfluenceModel(
        keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x))),
        loss_function="mse",
    )
    generator = np.random.default_rng(0)
    y = generator.normal(size=(5, 2))
    engine = GradientEngine(model)
    engine.prepare((generator.integers(0, 9, (5, 4)), y))
    kernel = engine.kernel("rows", lambda b: engine.gradients(b).materialize())
    for length in (4, 6):
        x = generator.integers(0, 9, (5, length))
        assert_close(kernel((x, y)), gradient_rows(model, x, y))
    assert not engine.fallback_variables


def test_the_table_of_cases_has_no_two_of_a_name():
    names = [case.id for case in RULED_CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_strides_over_images_of_unknown_size_are_served_by_the_rules(padding):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=(2, 3), padding=padding, activation="tanh")(inputs)
    model = BaseInfluenceModel(
        keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))),
        loss_function="mse",
    )
    generator = np.random.default_rng(0)
    y = generator.normal(size=(3, 2))
    engine = GradientEngine(model)
    for size in ((9, 8), (6, 11)):
        x = generator.normal(size=(3, *size, 3))
        engine.prepare((x, y))
        kernel = engine.kernel("rows", lambda b: engine.gradients(b).materialize())
        assert_close(kernel((x, y)), gradient_rows(model, x, y))
    assert not engine.fallback_variables
