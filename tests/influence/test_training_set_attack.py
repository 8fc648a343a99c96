"""The training-set attack: its losses, its constraints, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from deel_influence.errors import UnsupportedModelError
from deel_influence.ihvp import IdentityIHVP
from deel_influence.influence import AttackResult, PerturbationInfluenceCalculator, attack
from deel_influence.influence.box import Box
from deel_influence.model import BaseInfluenceModel, InfluenceModel

layers = keras.layers
PENALTY = 0.125


def batches(arrays: tuple, size: int = 16) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def arrays_of(dataset: tf.data.Dataset) -> tuple:
    parts = list(dataset.as_numpy_iterator())
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Minimise the mean logistic loss plus ``½ λ ‖w‖²`` by Newton's method."""
    w, signs = np.zeros(x.shape[1]), 2 * y[:, 0] - 1
    for _ in range(20):
        p = expit(-signs * (x @ w))
        gradient = -(x.T @ (signs * p)) / len(x) + PENALTY * w
        hessian = (x.T * (p * (1 - p))) @ x / len(x) + PENALTY * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient)
    return w


class LogisticRegression:
    """30 examples of 4 pixels, from 0 to 1, and a query near the decision boundary."""

    def __init__(self, dtype: type = np.float64, scale: float = 1.0) -> None:
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (30, 4))
        self.y = (pixels[:, :1] + generator.normal(0, 60, (30, 1)) > 128).astype(float)
        self.x = pixels.astype(dtype) if scale == 1 else (pixels * scale).astype(dtype)
        self.model, self._copy = self.train(self.dataset), self.train(self.dataset)

    @property
    def dataset(self) -> tf.data.Dataset:
        return batches((self.x, self.y))

    @property
    def queries(self) -> tf.data.Dataset:
        """Two queries that are right, and nearly wrong."""
        w = self.weights(self.model)
        directions = np.array([[1.0, 1, 0, 0], [0, 0, 1.0, -1]])
        margins = np.array([[0.01], [-0.01]])
        x = directions + (margins - directions @ w[:, None]) * w / (w @ w)
        return batches((x, np.array([[1.0], [0.0]])), 1)

    @staticmethod
    def weights(model: BaseInfluenceModel) -> np.ndarray:
        return tf.convert_to_tensor(model.weights[0]).numpy()[:, 0]

    def train(self, dataset: tf.data.Dataset) -> BaseInfluenceModel:
        return InfluenceModel(self.network(dataset))

    def retrain(self, dataset: tf.data.Dataset) -> BaseInfluenceModel:
        """Train one copy again and again, which spares the compilation of every step."""
        x, y = arrays_of(dataset)
        self._copy.weights[0].assign(fitted(x.astype(float), y)[:, None])
        return self._copy

    @staticmethod
    def network(dataset: tf.data.Dataset) -> keras.Model:
        x, y = arrays_of(dataset)
        regularizer = keras.regularizers.L2(PENALTY / 2)
        dense = layers.Dense(1, use_bias=False, kernel_regularizer=regularizer)
        model = keras.Sequential([keras.Input((4,)), dense])
        model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        dense.kernel.assign(fitted(x.astype(float), y)[:, None])
        return model

    def attack(self, ids: tuple = (25, 3), **options: object) -> AttackResult:
        defaults = {"step_size": 0.02, "radius": 0.3, "max_steps": 4, "verbose": 0}
        # Nothing to fit makes steps fast where the direction is not what is tested.
        settings = {**defaults, "ihvp_calculator": "identity", **options}
        retrain = settings.pop("retrain", self.retrain)
        return attack(self.model, self.dataset, self.queries, ids, retrain, **settings)


@pytest.fixture
def problem(float64: None) -> LogisticRegression:
    return LogisticRegression(scale=1 / 255)


def test_the_loss_rises_step_by_step_inside_the_box(problem):
    result = problem.attack(radius=0.05, max_steps=3, ihvp_calculator="exact")
    assert (np.diff(result.losses.sum(axis=1)) > 0).all()
    np.testing.assert_array_equal(result.original_examples, problem.x[[25, 3]])
    assert np.abs(result.examples - result.original_examples).max() <= 0.05


def test_a_small_step_raises_the_loss_by_what_is_predicted(problem):
    step = 1e-4
    calculator = PerturbationInfluenceCalculator(problem.model, problem.dataset)
    total = calculator.influence_on_total_loss(problem.queries, problem.dataset)
    result = problem.attack(step_size=step, max_steps=1, ihvp_calculator="exact")
    np.testing.assert_allclose(
        result.examples - result.original_examples, step * np.sign(total[[25, 3]]), rtol=1e-9
    )
    change = np.diff(result.losses.sum(axis=1))[0]
    assert change == pytest.approx(step * np.abs(total[[25, 3]]).sum() / 30, rel=1e-2)
    sensitivity = calculator.sensitivity(problem.queries, problem.dataset)
    np.testing.assert_allclose(sensitivity.values, np.abs(total).sum(axis=1))


def test_it_stops_when_all_predictions_have_flipped(problem):
    result = problem.attack(ids=tuple(range(20)), radius=0.5, step_size=0.1, max_steps=9)
    assert result.flipped.all()
    assert result.num_steps < 9
    np.testing.assert_array_equal(result.predictions[0], [1, 0])
    np.testing.assert_array_equal(result.predictions[-1], [0, 1])
    assert not (result.predictions[-2] == [0, 1]).all()


def test_the_result_belongs_together_and_the_arguments_are_as_they_were(problem):
    weights, x = problem.weights(problem.model).copy(), problem.x.copy()
    result = problem.attack(max_steps=2)
    np.testing.assert_array_equal(problem.weights(problem.model), weights)
    np.testing.assert_array_equal(problem.x, x)
    assert len(result.train_set) == 2
    perturbed, y = arrays_of(result.train_set)
    x[[25, 3]] = result.examples
    np.testing.assert_array_equal(perturbed, x)
    np.testing.assert_array_equal(y, problem.y)
    np.testing.assert_allclose(problem.weights(result.model), fitted(x, y), rtol=1e-12)


def test_a_new_model_for_each_step_is_wrapped_like_the_first(problem):
    expected = problem.attack(max_steps=2)
    result = problem.attack(max_steps=2, retrain=problem.network)
    np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-12)
    assert isinstance(result.model, BaseInfluenceModel)


def test_floats_stay_on_the_levels_of_8_bit_images(problem):
    result = problem.attack(
        radius=3.5 / 255, step_size=1.7 / 255, max_steps=3, bounds=(0, 1), num_levels=256
    )
    before, after = result.original_examples * 255, result.examples * 255
    np.testing.assert_allclose(after, np.rint(after), atol=1e-9)
    assert np.abs(np.rint(after) - np.rint(before)).max() == 3
    assert result.examples.min() >= 0
    assert result.examples.max() <= 1
    assert result.losses[-1].sum() > result.losses[0].sum()


def test_integer_images_stay_integers_of_their_type(float64):
    problem = LogisticRegression(np.uint8)
    result = problem.attack(radius=5, step_size=3, max_steps=2)
    assert result.examples.dtype == np.uint8
    assert arrays_of(result.train_set)[0].dtype == np.uint8
    moved = result.examples.astype(int) - result.original_examples
    assert np.abs(moved).max() == 5


def test_no_rounding_leads_out_of_the_box():
    original = np.random.default_rng(0).integers(0, 256, (3, 4)).astype(np.float32) / 255
    box = Box(original, 0.5 / 255, (0, 1))
    everywhere = np.random.default_rng(1).normal(0.5, 1, (20, 3, 4))
    moved = np.stack([box.stored(box.project(values)) for values in everywhere])
    assert moved.dtype == np.float32
    assert np.abs(moved.astype(float) - original.astype(float)).max() <= 0.5 / 255
    box = Box(original.astype(float), 0.1)
    moved = box.stored(box.project(everywhere))
    assert np.abs(moved - original.astype(float)).max() == 0.1


def test_the_order_of_ids_is_that_of_the_examples_whatever_they_are(problem):
    x, y = problem.x, problem.y
    numbered = batches((x, y, np.linspace(1, 2, 30)))
    ids = {float(weight): 1000 - i for i, weight in enumerate(np.linspace(1, 2, 30))}

    def id_fn(batch: tuple) -> np.ndarray:
        return np.array([ids[float(weight)] for weight in batch[2]])

    def retrain(dataset: tf.data.Dataset) -> BaseInfluenceModel:
        return problem.train(dataset.map(lambda x, y, _: (x, y)))

    result = attack(
        problem.model,
        numbered,
        problem.queries,
        [997, 1000, 980],
        retrain,
        step_size=0.01,
        radius=0.1,
        max_steps=1,
        id_fn=id_fn,
        verbose=0,
    )
    np.testing.assert_array_equal(result.original_examples, x[[3, 0, 20]])
    kept = arrays_of(result.train_set)
    np.testing.assert_array_equal(kept[0][[3, 0, 20]], result.examples)
    assert (result.examples != result.original_examples).any(axis=1).all()


def test_one_of_several_inputs_is_perturbed():
    first, second = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    outputs = layers.Dense(3)(layers.Concatenate()([first, second]))
    network = keras.Model({"a": first, "b": second}, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(network, loss_function=loss)
    generator = np.random.default_rng(0)
    x = {name: generator.normal(size=(9, size)) for name, size in (("a", 2), ("b", 3))}
    train = batches((x, generator.integers(0, 3, 9)), 4)
    options = {"step_size": 0.1, "radius": 1.0, "max_steps": 2, "verbose": 0}
    settings = {"ihvp_calculator": "identity", **options}
    result = attack(model, train, train, [8], lambda _: network, input_name="b", **settings)
    assert result.examples.shape == (1, 3)
    assert result.predictions.shape == (3, 9)
    with pytest.raises(UnsupportedModelError, match=r"changes one input .* \['a', 'b'\]"):
        attack(model, train, train, [8], lambda _: network, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": ()}, "`ids` must give an integer or a text"),
        ({"ids": (3, 3)}, "an id of its own"),
        ({"ids": (3, 30)}, r"of which \[3\] were found"),
        ({"step_size": 0.0}, "`step_size` must be a finite number > 0"),
        ({"radius": -1.0}, "`radius` must be a finite number > 0"),
        ({"max_steps": 0}, "`max_steps` must be a whole number >= 1"),
        ({"bounds": (0.5, 1)}, "`bounds` must be .low, high., with all the examples"),
        ({"num_levels": 256}, "`num_levels` must be an integer .* bounds=None"),
        ({"bounds": (0, 1), "num_levels": 77}, "needs examples that lie on the levels"),
        ({"bounds": (0, 1), "num_levels": 256, "radius": 0.003}, "`radius` must be at least 0.003"),
        ({"retrain": lambda _: None}, "`retrain` must return a wrapped model.*NoneType"),
    ],
)
def test_arguments_of_the_wrong_form_are_refused(problem, options, message):
    with pytest.raises(ValueError, match=message):
        problem.attack(**options)


def test_a_model_with_several_outputs_is_refused(problem):
    inputs = keras.Input((4,))
    network = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    model = BaseInfluenceModel(network, loss_function=["mse", "mse"])
    train = tf.data.Dataset.from_tensor_slices((problem.x, (problem.y, problem.y))).batch(16)
    with pytest.raises(UnsupportedModelError, match="needs a model with one output"):
        attack(model, train, train, [0], problem.train, step_size=0.1, radius=1.0, verbose=0)


def test_a_fitted_strategy_is_refused(problem):
    with pytest.raises(TypeError, match="fitted anew for each step. Received: a fitted Identity"):
        problem.attack(ihvp_calculator=IdentityIHVP(problem.model))


def test_batches_of_another_form_are_refused(problem):
    keras_model = problem.model.model
    model = InfluenceModel(keras_model, process_batch_for_loss_fn=lambda b: (b[0], b[1], None))
    with pytest.raises(ValueError, match="must know where the inputs are"):
        attack(
            model,
            problem.dataset,
            problem.queries,
            [0],
            problem.train,
            step_size=0.1,
            radius=1.0,
            verbose=0,
        )
