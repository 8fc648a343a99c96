"""The frozen part of a model against the whole model, in float64."""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.frozen import FrozenPart, find_frozen_part
from deel_influence.errors import BatchError, LabelError
from deel_influence.gradients.engine import GradientEngine
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.model.keras_internals import all_layers
from deel_influence.utils.kernels import Kernel
from tests.cases import FALLBACK_CASES, RULED_CASES, ModelCase
from tests.curvature.split_models import (
    SPLITS,
    WHOLE,
    Argmax,
    N,
    cnn,
    folded,
    leaky,
    normal,
    tokens,
    two_dense,
)
from tests.oracles import assert_close

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
# The same operations in the same order; only the size of a batch may round otherwise.
EXACT = 1e-12
# A frozen layer runs as it is, whatever its options: of the convolutions and normalisations that
# differ in those alone, one of each kind.
KINDS = (
    "dense",
    "dense-on-sequence",
    "conv2d",
    "conv2d-groups",
    "depthwise2d",
    "separable1d-strides",
    "conv1d-causal-dilated-batch-normalisation",
    "conv3d-group-normalisation",
)
OPTIONS = ("dense", "conv", "depthwise", "separable", "group-normalisation", "batch-normalisation")
CASES = [
    case
    for case in RULED_CASES + FALLBACK_CASES
    if case.id in KINDS or not case.id.startswith(OPTIONS)
]


def with_targets(model: keras.Model, x: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    y = np.random.default_rng(2).normal(size=model(x).shape)
    return tf.constant(x), tf.constant(y)


def found(model: BaseInfluenceModel, batch: tuple) -> FrozenPart:
    search = find_frozen_part(model, batch)
    assert search.part is not None, search.reason
    assert search.reason == ""
    return search.part


def flat(model: BaseInfluenceModel, parts: list) -> tf.Tensor:
    return model.layout.flatten([tf.convert_to_tensor(part) for part in parts])


def derivatives(model: BaseInfluenceModel, batch: tuple, vector: tf.Tensor) -> tuple:
    """Return the losses, their gradient, and a Hessian-vector product, reverse over reverse."""
    values = [v.value for v in model.weights]
    with tf.GradientTape(watch_accessed_variables=False) as outer:
        outer.watch(values)
        with tf.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(values)
            losses = model.per_example_losses(batch)
        gradient = flat(model, inner.gradient(losses, values, unconnected_gradients="zero"))
        along = tf.tensordot(gradient, vector, 1)
    product = flat(model, outer.gradient(along, values, unconnected_gradients="zero"))
    return losses, gradient, product


def replayed_kernel(part: FrozenPart) -> Kernel:
    def run(batch: tuple, features: tuple, vector: tf.Tensor) -> tuple:
        with part.replayed(features):
            return derivatives(part.model, batch, vector)

    return Kernel(run)


def assert_replays(part: FrozenPart, batch: tuple) -> None:
    """Compare with the whole model, also for a part of the batch with its rows of the features."""
    model, kernel = part.model, replayed_kernel(part)
    whole = Kernel(lambda batch, vector: derivatives(model, batch, vector))
    vector = tf.constant(normal(model.nb_params))
    features = part.compute(batch)
    for rows in (slice(None), slice(2, 5), slice(1)):
        some, kept = tf.nest.map_structure(lambda t, rows=rows: t[rows], (batch, features))
        for actual, expected in zip(kernel(some, kept, vector), whole(some, vector), strict=True):
            assert_close(actual, expected, EXACT)
    assert kernel.num_traces == 1


def operations(function: Callable, *arguments: tuple) -> set[str]:
    """Return the kinds of operations in the graph of a function."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*arguments)
    return {operation.type for operation in concrete.graph.get_operations()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_last_layer_sees_the_same_from_features_as_from_the_whole_model(case: ModelCase):
    keras_model = case.build()
    batch = tf.nest.map_structure(tf.constant, case.data(keras_model))
    model = InfluenceModel(keras_model, loss_function="mse")
    assert_replays(found(model, batch), batch)


def split(name: str) -> tuple[BaseInfluenceModel, tuple[tf.Tensor, tf.Tensor], list[str]]:
    build, x, first, last, kept = SPLITS[name]
    keras_model = build()
    model = InfluenceModel(keras_model, first, last, loss_function="mse")
    return model, with_targets(keras_model, x), kept


@pytest.mark.parametrize("name", SPLITS)
def test_replaying_gives_losses_gradients_and_products_of_the_whole_model(name: str):
    model, batch, kept = split(name)
    part = found(model, batch)
    assert sorted(part.layers) == sorted(kept)
    assert_replays(part, batch)


@pytest.mark.parametrize("name", ["cnn-head", "skips", "nested-head", "masked-pooling"])
def test_products_forward_over_reverse_are_those_of_the_whole_model(name: str):
    model, batch, _ = split(name)
    part = found(model, batch)
    values = [v.value for v in model.weights]
    tangents = model.layout.unflatten(tf.constant(normal(model.nb_params)))

    def product(batch: tuple) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(values, tangents) as accumulator:
            gradient = model.batch_gradient_tensor(batch)
        return accumulator.jvp(gradient)

    def replayed(batch: tuple, features: tuple) -> tf.Tensor:
        with part.replayed(features):
            return product(batch)

    actual = Kernel(replayed)(batch, part.compute(batch))
    assert_close(actual, Kernel(product)(batch), EXACT)


def test_the_features_decide_on_what_is_replayed():
    model, (x, y), _ = split("cnn-head")
    part = found(model, (x, y))
    with part.replayed(part.compute((x[::-1], y))):
        actual = model.per_example_losses((x, y))
    assert_close(actual, model.per_example_losses((x[::-1], y)), EXACT)


@pytest.mark.parametrize(
    ("name", "gone"),
    [("cnn-head", "Conv2D"), ("recurrent", "While"), ("masked-loss", "GatherV2")],
)
def test_a_replayed_graph_is_without_the_operations_of_the_frozen_layers(name: str, gone: str):
    model, batch, _ = split(name)
    part = found(model, batch)

    def replayed(batch: tuple, features: tuple) -> tuple:
        with part.replayed(features):
            return derivatives(model, batch, tf.zeros(model.nb_params, model.dtype))

    assert gone in operations(model.per_example_losses, batch)
    assert gone not in operations(replayed, batch, part.compute(batch))


def test_the_model_may_run_several_times_and_outside_of_what_is_replayed():
    model, batch, _ = split("repeated")
    part = found(model, batch)
    expected = model.per_example_losses(batch)
    with part.replayed(part.compute(batch)):
        for _ in range(2):
            assert_close(model.per_example_losses(batch), expected, EXACT)
        layer = model.model.get_layer("shared")
        assert_close(layer(batch[0]), np.tanh(batch[0] @ layer.kernel.value), EXACT)


def test_outputs_without_a_loss_are_right_too():
    inputs = keras.Input((5,))
    stem = layers.Dense(4, activation="tanh")(layers.Dense(3)(inputs))
    keras_model = keras.Model(inputs, [stem, layers.Dense(2)(layers.Dense(4)(stem))])
    model = InfluenceModel(keras_model, loss_function=[None, "mse"])
    batch = tf.constant(normal(N, 5)), (tf.zeros((N, 4)), tf.constant(normal(N, 2)))
    part = found(model, batch)
    expected = model.predict_batch(batch)
    with part.replayed(part.compute(batch)):
        actual = model.predict_batch(batch)
    tf.nest.map_structure(lambda one, other: assert_close(one, other, EXACT), actual, expected)


@pytest.mark.parametrize("name", ["cnn-two-layers", "skips", "masked-pooling", "repeated"])
def test_per_example_gradients_can_be_taken_of_what_is_replayed(name: str):
    """The engine overlays the same attributes of the same layers, inside."""
    model, batch, _ = split(name)
    engine = GradientEngine.of(model)
    engine.prepare(batch)
    part = found(model, batch)

    def rows(batch: tuple, features: tuple) -> tf.Tensor:
        with part.replayed(features):
            return engine.gradients(batch).materialize()

    expected = Kernel(lambda batch: engine.gradients(batch).materialize())(batch)
    assert_close(Kernel(rows)(batch, part.compute(batch)), expected, EXACT)


def test_logits_can_be_read_of_what_is_replayed():
    keras_model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation="tanh"),
            layers.Dense(3),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model = InfluenceModel(keras_model, 1, 2, loss_function="sparse_categorical_crossentropy")
    batch = tf.constant(normal(N, 5)), tf.constant(tokens(N) % 3)
    part, engine = found(model, batch), GradientEngine.of(model)
    expected = engine.forward_to_logits(batch, [], [])
    with part.replayed(part.compute(batch)):
        forward, logits = engine.forward_to_logits(batch, [], [])
    assert_close(forward.losses, expected[0].losses, EXACT)
    assert_close(logits, expected[1], EXACT)


def test_xla_compiles_what_is_replayed():
    model, batch, _ = split("cnn-head")
    part = found(model, batch)

    def run(batch: tuple, features: tuple) -> tf.Tensor:
        with part.replayed(features):
            return model.batch_gradient_tensor(batch)

    actual = Kernel(run, jit_compile=True)(batch, part.compute(batch))
    assert_close(actual, model.batch_gradient_tensor(batch), EXACT)


def test_tensors_without_a_row_per_example_are_not_kept():
    keras_model = folded()
    model = InfluenceModel(keras_model, loss_function="mse")
    batch = with_targets(keras_model, normal(N, 6, 4))
    part = found(model, batch)
    assert part.layers == ["folded_6"]
    assert_replays(part, batch)


def test_what_depends_on_the_watched_weights_without_a_gradient_is_not_frozen():
    inputs = keras.Input((5,))
    watched = layers.Dense(4, name="watched")(layers.Dense(4, name="stem")(inputs))
    chosen = layers.Embedding(4, 3, name="chosen")(Argmax()(watched))
    keras_model = keras.Model(inputs, layers.Dense(3)(watched) + chosen)
    model = InfluenceModel(keras_model, "watched", loss_function="mse")
    assert found(model, with_targets(keras_model, normal(N, 5))).layers == ["stem"]


def test_what_was_found_is_kept_with_the_model():
    model, batch, _ = split("cnn-head")
    fewer = tf.nest.map_structure(lambda t: t[:4].numpy(), batch)
    assert find_frozen_part(model, fewer) is find_frozen_part(model, batch)


def test_the_memory_of_the_features_is_that_of_one_example():
    model, batch, _ = split("skips")
    part = found(model, batch)
    assert part.bytes_per_example == (4 + 6) * 8
    held = sum(feature.numpy().nbytes for feature in part.compute(batch))
    assert held == N * part.bytes_per_example


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_low_precision_is_no_reason_to_run_the_whole_model(policy: str):
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)
    keras_model = cnn()
    model = InfluenceModel(keras_model, "hidden", "head", loss_function="mse")
    x, y = normal(N, 8, 8, 2).astype("float32"), normal(N, 2).astype("float32")
    assert found(model, (x, y)).layers == ["flatten"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_model_that_cannot_be_split_runs_whole_and_the_reason_is_given(name: str):
    build, x, watched, reason = WHOLE[name]
    keras_model = build()
    model = InfluenceModel(keras_model, watched, loss_function="mse")
    search = find_frozen_part(model, with_targets(keras_model, x))
    assert search.part is None
    assert re.search(reason, search.reason), search.reason


def test_losses_without_watched_weights_are_a_reason_too():
    inputs = keras.Input((5,))
    outputs = [layers.Dense(2)(layers.Dense(3)(inputs)), layers.Dense(2, name="watched")(inputs)]
    model = InfluenceModel(keras.Model(inputs, outputs), "watched", loss_function=["mse", None])
    search = find_frozen_part(model, (normal(N, 5), (normal(N, 2), normal(N, 2))))
    assert search.part is None
    assert search.reason == "the losses do not depend on the watched weights"


def test_labels_that_do_not_fit_are_reported_as_such():
    model = InfluenceModel(
        two_dense(layers.ReLU())(), loss_function="sparse_categorical_crossentropy"
    )
    with pytest.raises(BatchError, match="Batch 0"):
        find_frozen_part(model, (normal(N, 5), np.full(N, 9)))


def test_examples_that_the_model_fits_perfectly_are_no_reason_to_run_it_whole():
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras_model = cnn()
    x = normal(N, 8, 8, 2).astype("float32")
    model = InfluenceModel(keras_model, loss_function="mse")
    found(model, (x, keras_model(x)))


def attributes(model: BaseInfluenceModel) -> list[dict]:
    return [dict(vars(layer)) for layer in all_layers(model.model)]


@pytest.mark.parametrize("name", ["cnn-head", "nested", "masked-nested"])
def test_the_model_is_as_it_was_after_success_and_after_an_exception(name: str):
    model, batch, _ = split(name)
    before = attributes(model)
    part = found(model, batch)
    features = part.compute(batch)
    assert attributes(model) == before
    overlaid = []

    def fail() -> None:
        with part.replayed(features):
            overlaid.append(attributes(model) != before)
            model.per_example_losses((batch[0], tf.constant(["text"] * N)))

    with pytest.raises(LabelError):
        fail()
    assert overlaid == [True]
    assert attributes(model) == before


def test_the_model_is_as_it_was_after_the_features_could_not_be_computed():
    model, (x, y), _ = split("cnn-head")
    part = found(model, (x, y))
    with pytest.raises(ValueError, match="Negative dimension"):
        part.compute((x[:, :2], y))
    assert all("call" not in names for names in attributes(model))


def test_the_model_is_as_it_was_after_a_part_was_refused():
    keras_model = leaky()
    model = InfluenceModel(keras_model, loss_function="mse")
    assert find_frozen_part(model, with_targets(keras_model, normal(N, 5))).part is None
    assert all("call" not in names for names in attributes(model))


def test_another_number_of_features_is_refused():
    model, batch, _ = split("skips")
    part = found(model, batch)
    with pytest.raises(ValueError, match="must hold 2 tensors.* Received: 1"):
        part.replayed(part.compute(batch)[:1]).__enter__()
