"""Gradients for drawn targets against the Gauss-Newton matrix, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.dense import dense_curvature
from deel_influence.curvature.draws import Draws
from deel_influence.curvature.sampling import (
    expected_gradients,
    sampled_gradients,
    square_root,
    summed_gradients,
)
from deel_influence.errors import UnsupportedModelError
from deel_influence.gradients.engine import GradientEngine
from deel_influence.model.influence_model import BaseInfluenceModel
from tests.oracles import assert_close, relative_error

layers, losses = keras.layers, keras.losses
pytestmark = pytest.mark.usefixtures("float64")
N, DRAWS = 5, 8000

# The mean of that many outer products has a relative error of about 1/√(N·DRAWS) times the root
# of the number of parameters, some 2 %; a wrong factor (√w, 1/c, 1/t) gives 10 % and more.
SAMPLING_ERROR = 0.05


def dense_model(activation: str | None = None, units: int = 3) -> Callable[[], keras.Model]:
    return lambda: keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(units, activation)]
    )


def sequence_model() -> keras.Model:
    return keras.Sequential([keras.Input((4, 3)), layers.Dense(2, "tanh"), layers.Dense(3)])


def masked_model() -> keras.Model:
    return keras.Sequential([keras.Input((4, 3)), layers.Masking(), layers.Dense(3)])


def poisson_of_exponential(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return a loss that the library does not know, convex in the outputs."""
    return tf.reduce_sum(tf.exp(outputs) - targets * outputs, axis=-1)


@dataclass(frozen=True)
class LossCase:
    id: str
    loss: object
    build: Callable[[], keras.Model] = field(default_factory=dense_model)
    over_positions: str = "sum"
    weights: tuple[int, ...] | None = None
    compiled_weights: list[float] | None = None

    def model(self) -> BaseInfluenceModel:
        keras_model = self.build()
        if self.compiled_weights is None:
            return BaseInfluenceModel(
                keras_model, loss_function=self.loss, loss_over_positions=self.over_positions
            )
        keras_model.compile(loss=self.loss, loss_weights=self.compiled_weights)
        return BaseInfluenceModel(keras_model)

    def batch(self, model: BaseInfluenceModel, copies: int = 1) -> tuple:
        generator = np.random.default_rng(0)
        x = generator.normal(size=(N, *model.model.input_shape[1:]))
        if self.build is masked_model:
            x[1, 2:] = 0.0
            x[3, 1:] = 0.0
        shape = model.model.output_shape[1:]
        y = generator.integers(0, 2, (N, *shape)).astype(float)
        if "sparse" in self.id:
            y = generator.integers(0, 3, (N, *shape[:-1]))
        batch = (x, y) if self.weights is None else (x, y, generator.uniform(0.1, 5, self.weights))
        return tf.nest.map_structure(
            lambda a: tf.constant(np.tile(a, (copies,) + (1,) * (a.ndim - 1))), batch
        )


CASES = [
    LossCase("sparse-class-logits", losses.SparseCategoricalCrossentropy(from_logits=True)),
    LossCase("sparse-class-name", "sparse_categorical_crossentropy", dense_model("softmax")),
    LossCase("class-smoothed", losses.CategoricalCrossentropy(True, label_smoothing=0.3)),
    LossCase("class-probabilities", losses.CategoricalCrossentropy(), dense_model("softmax")),
    LossCase("bits-logits", losses.BinaryCrossentropy(from_logits=True)),
    LossCase("bits-probabilities", "binary_crossentropy", dense_model("sigmoid")),
    LossCase("one-bit", losses.BinaryCrossentropy(from_logits=True), dense_model(units=1)),
    LossCase("squares", "mse"),
    LossCase("squares-object-weighted", losses.MeanSquaredError(), weights=(N,)),
    LossCase(
        "sparse-class-weighted",
        losses.SparseCategoricalCrossentropy(from_logits=True),
        weights=(N,),
    ),
    LossCase(
        "sparse-class-of-positions",
        losses.SparseCategoricalCrossentropy(from_logits=True),
        sequence_model,
    ),
    LossCase(
        "sparse-class-of-positions-weighted-mean",
        losses.SparseCategoricalCrossentropy(from_logits=True),
        sequence_model,
        over_positions="mean",
        weights=(N, 4),
    ),
    LossCase(
        "sparse-class-with-one-ignored",
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1),
        sequence_model,
    ),
    LossCase("squares-masked-mean", "mse", masked_model, over_positions="mean"),
    LossCase("unknown-loss", poisson_of_exponential),
    LossCase("unknown-loss-weighted", poisson_of_exponential, weights=(N,)),
    LossCase("squares-with-a-loss-weight", "mse", compiled_weights=[3.0]),
]


def prepared(case: LossCase) -> tuple[BaseInfluenceModel, GradientEngine]:
    model = case.model()
    engine = GradientEngine.of(model)
    engine.prepare(case.batch(model))
    return model, engine


def gauss_newton(case: LossCase, model: BaseInfluenceModel) -> np.ndarray:
    dataset = tf.data.Dataset.from_tensor_slices(case.batch(model)).batch(N)
    return dense_curvature(model, dataset, "gauss_newton", regularizer=False, verbose=0).matrix


def draws(count: int, seed: int = 0, first: int = 0) -> Draws:
    """Return the random numbers of ``count`` examples."""
    return Draws(seed, tf.range(first, first + count, dtype=tf.int64))


def mean_outer_product(rows: tf.Tensor) -> np.ndarray:
    return np.asarray(tf.matmul(rows, rows, transpose_a=True)) / len(rows)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_mean_outer_product_of_sampled_gradients_is_the_gauss_newton_matrix(case):
    model, engine = prepared(case)
    function = tf.function(
        lambda b: sampled_gradients(engine, b, draws(N * DRAWS, 1)).materialize()
    )
    sampled = mean_outer_product(function(case.batch(model, copies=DRAWS)))
    assert relative_error(sampled, gauss_newton(case, model)) < SAMPLING_ERROR


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_expectation_over_the_draws_is_the_gauss_newton_matrix_exactly(case):
    model, engine = prepared(case)
    sets = expected_gradients(engine, case.batch(model))
    rows = tf.concat([gradients.materialize() for gradients in sets], axis=0)
    assert_close(mean_outer_product(rows), gauss_newton(case, model), 1e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_sets_of_gradients_add_up_to_the_gauss_newton_matrix(case):
    model, engine = prepared(case)
    sets = summed_gradients(engine, case.batch(model))
    total = sum(mean_outer_product(gradients.materialize()) for gradients in sets)
    assert_close(total, gauss_newton(case, model), 1e-6)


SEEDED = [CASES[0], CASES[4], CASES[7], CASES[-3]]


@pytest.mark.parametrize("case", SEEDED, ids=lambda case: case.id)
def test_the_seed_and_the_example_fix_the_draw(case):
    model, engine = prepared(case)
    rows = [
        sampled_gradients(engine, case.batch(model), draws(N, *place)).materialize()
        for place in [(3, 0), (3, 0), (3, N), (4, 0)]
    ]
    assert_close(rows[0], rows[1], 0)
    assert relative_error(rows[0], rows[2]) > 0.1
    assert relative_error(rows[0], rows[3]) > 0.1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_an_example_has_the_same_draw_in_every_batch_eager_and_compiled(case):
    model, engine = prepared(case)
    batch = case.batch(model)
    whole = sampled_gradients(engine, batch, draws(N)).materialize()
    compiled = tf.function(lambda b, ids: sampled_gradients(engine, b, Draws(0, ids)).materialize())
    order = [3, 0, 4]
    some = tf.nest.map_structure(lambda part: tf.gather(part, order), batch)
    # The same numbers: products of other sizes round otherwise in the last digit.
    assert_close(compiled(some, tf.constant(order, tf.int64)), tf.gather(whole, order), 1e-12)


@pytest.mark.parametrize("before", [0, 3], ids=["after", "before"])
@pytest.mark.parametrize("loss", ["class", "bits", "squares", "unknown"])
def test_padding_leaves_the_draws_of_the_other_positions_as_they_are(loss, before):
    losses_by_name = {
        "class": losses.SparseCategoricalCrossentropy(from_logits=True),
        "bits": losses.BinaryCrossentropy(from_logits=True),
        "squares": "mse",
        "unknown": poisson_of_exponential,
    }
    keras_model = keras.Sequential([keras.Input((None, 3)), layers.Masking(), layers.Dense(2)])
    model = BaseInfluenceModel(keras_model, loss_function=losses_by_name[loss])
    engine = GradientEngine.of(model)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 4, 3))
    x[1, 2:] = x[3, :3] = 0.0
    y = generator.integers(0, 2, (N, 4) if loss == "class" else (N, 4, 2)).astype(float)
    pads = ((0, 0), (before, 3 - before), (0, 0))
    engine.prepare((tf.constant(x), tf.constant(y)))
    rows = [
        sampled_gradients(engine, (tf.constant(a), tf.constant(b)), draws(N)).materialize()
        for a, b in ((x, y), (np.pad(x, pads), np.pad(y, pads[: y.ndim])))
    ]
    # The square root of a larger matrix is found with other roundings.
    assert_close(rows[1], rows[0], 1e-10)


def test_positions_without_a_weight_are_padding_to_the_draws():
    case = next(case for case in CASES if case.id == "sparse-class-of-positions")
    model, engine = prepared(case)
    x, y = case.batch(model)
    weights = np.ones((N, 4))
    rows = sampled_gradients(engine, (x, y, tf.constant(weights)), draws(N)).materialize()
    longer = tf.pad(x, ((0, 0), (2, 0), (0, 0)), constant_values=7.0), tf.pad(y, ((0, 0), (2, 0)))
    weighted = (*longer, tf.constant(np.pad(weights, ((0, 0), (2, 0)))))
    assert_close(sampled_gradients(engine, weighted, draws(N)).materialize(), rows, 1e-12)


def test_the_labels_of_the_data_have_no_part_in_the_draw():
    case = CASES[0]
    model, engine = prepared(case)
    x, y = case.batch(model)
    rows = [sampled_gradients(engine, (x, t), draws(N)).materialize() for t in (y, 2 - y)]
    assert_close(rows[0], rows[1], 0)


def test_classes_are_drawn_as_often_as_they_are_probable():
    """Of a model without inputs to speak of: π is known."""
    probable = np.array([0.5, 0.0, 0.3, 0.19, 0.01])
    keras_model = keras.Sequential([keras.Input((1,)), layers.Dense(5, use_bias=False)])
    keras_model.set_weights([np.log(np.maximum(probable, 1e-300))[None]])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(keras_model, loss_function=loss)
    engine = GradientEngine.of(model)
    count = 20_000
    batch = tf.ones((count, 1), tf.float64), tf.zeros((count,), tf.int32)
    engine.prepare(batch)
    # ξ = π - e_y is lowest, by one, where y is.
    rows = sampled_gradients(engine, batch, draws(count)).materialize().numpy()
    shares = np.bincount(np.argmin(rows - probable, axis=1), minlength=5) / count
    deviations = np.sqrt(probable * (1 - probable) / count)
    assert np.all(np.abs(shares - probable) <= 5 * deviations)


def test_layers_that_automatic_differentiation_serves_see_the_same_draw():
    """A recurrent layer's gradients and a dense layer's must belong together."""
    model = BaseInfluenceModel(
        keras.Sequential([keras.Input((2, 2)), layers.SimpleRNN(2), layers.Dense(1)]),
        loss_function="mse",
    )
    engine = GradientEngine.of(model)
    batch = (tf.random.normal((4, 2, 2), dtype=tf.float64), tf.zeros((4, 1), tf.float64))
    engine.prepare(batch)
    rows = sampled_gradients(engine, batch, draws(4)).materialize().numpy()
    values = [v.value for v in model.weights]
    with tf.GradientTape() as tape:
        outputs = model(batch[0])[:, 0]
    jacobian = model.layout.flatten_rows(tape.jacobian(outputs, values)).numpy()
    # With one output each row is a multiple of the output's gradient, the multiple being ξ.
    multiples = rows[:, -1:]  # the last parameter is the output's bias
    assert_close(rows, multiples * jacobian, 1e-9)


def test_a_symmetric_square_root_gives_the_positive_part():
    matrix = np.array([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, -3.0]]])
    root = square_root(tf.constant(matrix)).numpy()
    assert_close(root, root.transpose(0, 2, 1), 1e-12)
    expected = np.stack([matrix[0], np.diag([1.0, 0.0])])
    assert_close(root @ root.transpose(0, 2, 1), expected, 1e-12)


def test_an_unknown_loss_of_too_many_outputs_is_refused_with_other_ways():
    model = BaseInfluenceModel(
        keras.Sequential([keras.Input((2,)), layers.Dense(5000)]),
        loss_function=poisson_of_exponential,
    )
    engine = GradientEngine.of(model)
    batch = (tf.zeros((2, 2), tf.float64), tf.zeros((2, 5000), tf.float64))
    engine.prepare(batch)
    with pytest.raises(UnsupportedModelError, match="at most 4096 entries.*5000.*empirical"):
        sampled_gradients(engine, batch, draws(2))
