"""Perturbation influence against nested tapes and against retraining."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from deel_influence.calculators import queries
from deel_influence.errors import (
    DatasetOrderError,
    EmptyDatasetError,
    LabelError,
    NonFiniteError,
    SavedCurvatureError,
)
from deel_influence.ihvp import ExactIHVP, IdentityIHVP
from deel_influence.influence import PerturbationInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.influence.perturbation_problem import (
    Problem,
    batches,
    convolutional,
    skipping,
)
from tests.oracles import assert_close, gradient_rows, mean_hessian

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")

DAMPING = 3.0  # the weights are no minimum, and the Hessian has negative eigenvalues


@pytest.fixture
def problem() -> Problem:
    return Problem(skipping)


@pytest.mark.parametrize(("build", "n"), [(skipping, 11), (convolutional, 7)])
def test_the_values_equal_nested_tapes(build, n):
    problem = Problem(build, n)
    values = problem.calculator().influence_tensor(*problem.pair)
    assert_close(values, problem.expected(IdentityIHVP(problem.model)), 1e-9)


def test_the_inverse_hessian_is_that_of_dense_algebra(problem):
    ihvp = ExactIHVP(problem.model, batches(problem.train), damping=DAMPING)
    hessian = mean_hessian(problem.model, *problem.train)
    factor = 2 * float(np.float32(0.01))  # Keras's "l2", kept in float32
    hessian += np.diag(np.r_[np.full(16, factor), np.zeros(len(hessian) - 16)])
    hessian += DAMPING * np.eye(len(hessian))
    rows = gradient_rows(problem.model, *problem.queries)
    assert_close(ihvp.solve(tf.constant(rows)), np.linalg.solve(hessian, rows.T).T, 1e-8)
    values = problem.calculator(ihvp).influence_tensor(*problem.pair)
    assert_close(values, problem.expected(ihvp), 1e-9)


@pytest.mark.parametrize(("name", "rtol"), [("cgd", 1e-3), ("ekfac", 1e-9), ("datainf", 1e-9)])
def test_strategies_of_every_kind_serve(problem, name, rtol):
    """Conjugate gradients stop at a tolerance, elsewhere for other right-hand sides beside."""
    calculator = PerturbationInfluenceCalculator(problem.model, batches(problem.train), name)
    values = calculator.influence_tensor(*problem.pair)
    assert_close(values, problem.expected(calculator.ihvp_calculator), rtol)


def test_the_derivative_goes_through_layers_that_are_not_watched():
    problem = Problem(skipping, start_layer=-1)
    values = problem.calculator().influence_tensor(*problem.pair)
    assert_close(values, problem.expected(IdentityIHVP(problem.model)), 1e-9)


def retrained_logistic(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Minimise the mean logistic loss plus ``½ λ ‖w‖²`` by Newton's method."""
    w, signs = np.zeros(x.shape[1]), 2 * y - 1
    for _ in range(30):
        p = expit(-signs * (x @ w))
        gradient = -(x.T @ (signs * p)) / len(x) + penalty * w
        hessian = (x.T * (p * (1 - p))) @ x / len(x) + penalty * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient)
    return w


def retrained_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Minimise the mean squared error plus ``½ λ ‖w‖²`` in closed form."""
    matrix = 2 * x.T @ x / len(x) + penalty * np.eye(x.shape[1])
    return np.linalg.solve(matrix, 2 * x.T @ y / len(x))


def logistic_losses(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -(2 * y - 1) * (x @ w))


def squared_errors(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    return (x @ w - y) ** 2


CONVEX = {
    "logistic": (
        keras.losses.BinaryCrossentropy(from_logits=True),
        retrained_logistic,
        logistic_losses,
    ),
    "ridge": (keras.losses.MeanSquaredError(), retrained_ridge, squared_errors),
}


class Convex:
    """A model of one layer at its optimum on 40 examples, and 3 queries."""

    def __init__(self, kind: str) -> None:
        loss, self.retrain, self.losses = CONVEX[kind]
        generator = np.random.default_rng(0)
        # A power of two, since Keras keeps the factor of a regulariser in float32.
        self.x, self.penalty = generator.normal(size=(40, 5)), 0.125
        self.y = (self.x[:, 0] + generator.normal(size=40) > 0).astype(float)
        self.xq, self.yq = generator.normal(size=(3, 5)), np.array([0.0, 1.0, 1.0])
        regularizer = keras.regularizers.L2(self.penalty / 2)
        dense = layers.Dense(1, use_bias=False, kernel_regularizer=regularizer)
        keras_model = keras.Sequential([keras.Input((5,)), dense])
        dense.kernel.assign(self.retrain(self.x, self.y, self.penalty)[:, None])
        self.queries = batches((self.xq, self.yq[:, None]), 2)
        self.calculator = PerturbationInfluenceCalculator(
            InfluenceModel(keras_model, loss_function=loss), self.examples(np.arange(40))
        )

    def examples(self, chosen: np.ndarray) -> tf.data.Dataset:
        return batches((self.x[chosen], self.y[chosen, None]), 16)

    def slope(self, chosen: int | np.ndarray, feature: int, step: float = 1e-4) -> np.ndarray:
        """Return how fast the queries' losses rise with a feature of some examples, ``(m,)``."""

        def query_losses(change: float) -> np.ndarray:
            moved = self.x.copy()
            moved[chosen, feature] += change
            return self.losses(self.xq, self.yq, self.retrain(moved, self.y, self.penalty))

        return (query_losses(step) - query_losses(-step)) / (2 * step)


@pytest.mark.parametrize("kind", CONVEX)
def test_n_times_the_change_after_retraining_is_the_influence(kind):
    problem = Convex(kind)
    calculator = problem.calculator
    values = calculator.influence_tensor(problem.queries, calculator.train_dataset)
    for i, feature in [(0, 0), (7, 3), (39, 4)]:
        assert_close(values[:, i, feature], 40 * problem.slope(i, feature), 1e-5)


@pytest.mark.parametrize("kind", CONVEX)
@pytest.mark.parametrize("num_moved", [40, 21, 1], ids=["all", "partial last batch", "one"])
def test_the_mean_of_a_feature_is_what_moving_it_in_these_examples_and_retraining_does(
    kind, num_moved
):
    """n is 40 whatever is passed: the other examples are trained on again as they are."""
    problem = Convex(kind)
    chosen = np.random.default_rng(1).permutation(40)[:num_moved]
    features = problem.calculator.per_feature(problem.queries, problem.examples(chosen))
    expected = np.stack([problem.slope(chosen, feature) for feature in range(5)], axis=1)
    # Differences of steps of 1e-4 have errors of 1e-8, beside third derivatives of order one.
    assert_close(features, expected, 1e-5)


def test_blocks_join_to_the_tensor_whatever_the_form_of_the_dataset(problem):
    calculator = problem.calculator()
    query, train = problem.pair
    tensor, query_ids, train_ids = calculator.influence_tensor(query, train, return_ids=True)
    np.testing.assert_array_equal(query_ids, np.arange(3))
    np.testing.assert_array_equal(train_ids, np.arange(11))
    unknown = train.unbatch().filter(lambda *_: True).batch(5).prefetch(1)
    blocks = list(calculator.influence_blocks(query.prefetch(1), unknown))
    assert [block.values.shape for block in blocks] == [(3, 5, 4), (3, 5, 4), (3, 1, 4)]
    assert_close(np.concatenate([block.values for block in blocks], axis=1), tensor, 1e-12)
    np.testing.assert_array_equal(np.concatenate([b.train_ids for b in blocks]), train_ids)


def test_queries_that_do_not_fit_together_give_the_same_values(problem, monkeypatch):
    calculator = problem.calculator()
    tensor, ids, _ = calculator.influence_tensor(*problem.pair, return_ids=True)
    monkeypatch.setattr(queries, "MAX_CHUNK_BYTES", 1)
    parts, part_ids, _ = calculator.influence_tensor(*problem.pair, return_ids=True)
    assert_close(parts, tensor, 1e-12)
    np.testing.assert_array_equal(part_ids, ids)


def test_ids_are_read_by_the_users_function(problem):
    x, y = problem.train
    train = batches((x, y, np.ones(11)))
    _, _, ids = problem.calculator().influence_tensor(
        train, train, return_ids=True, id_fn=lambda batch: tf.cast(batch[1], tf.int64) + 100
    )
    np.testing.assert_array_equal(ids, y + 100)


def test_reshuffled_examples_are_told_by_their_ids_or_refused(problem, monkeypatch):
    x, _ = problem.train
    calculator, (query, train) = problem.calculator(), problem.pair
    mixed = train.unbatch().shuffle(11, seed=0).batch(4)

    def id_fn(batch: tuple) -> np.ndarray:
        return np.abs(batch[0].numpy()[:, :1] - x[:, 0]).argmin(axis=1)

    expected = calculator.influence_tensor(query, train)
    monkeypatch.setattr(queries, "MAX_CHUNK_BYTES", 1)  # a pass for each batch of queries
    one_by_one = query.unbatch().batch(1)
    found, _, ids = calculator.influence_tensor(
        one_by_one, mixed, return_ids=True, id_fn=lambda b: id_fn(b) if len(b[0]) > 1 else [0]
    )
    assert_close(found, expected[:, ids], 1e-9)
    refused = [
        lambda: calculator.influence_tensor(query, mixed, id_fn=id_fn),
        lambda: calculator.influence_on_total_loss(query, mixed, id_fn=id_fn),
        lambda: calculator.predict_loss_change(query, mixed, np.ones((11, 4)), id_fn=id_fn),
    ]
    for call in refused:
        with pytest.raises(DatasetOrderError, match="`train_set` must yield its examples in the"):
            call()
    with pytest.raises(DatasetOrderError, match="`dataset_to_evaluate` must yield its examples"):
        calculator.per_feature(mixed, train, id_fn=id_fn)


def test_a_model_that_is_trained_further_is_refused(problem):
    calculator = problem.calculator()
    problem.model.weights[0].assign_add(tf.ones_like(problem.model.weights[0].value))
    for use in (calculator.influence_tensor, calculator.influence_on_total_loss):
        with pytest.raises(SavedCurvatureError, match="must not change"):
            use(*problem.pair)


def test_an_empty_training_set_has_no_predicted_change(problem):
    empty = batches(problem.train).take(0)
    calculator = PerturbationInfluenceCalculator(problem.model, empty, "identity")
    with pytest.raises(EmptyDatasetError, match="`dataset` must yield at least one example"):
        calculator.predict_loss_change(*problem.pair, np.ones(4))


def test_sample_weights_scale_the_values(problem):
    (x, y), calculator = problem.train, problem.calculator()
    weights = np.linspace(0.5, 2, 11)
    query, train = problem.pair
    weighted = calculator.influence_tensor(query, batches((x, y, weights)))
    expected = calculator.influence_tensor(query, train) * weights[:, None]
    assert_close(weighted, expected, 1e-12)


def test_the_total_over_queries_is_the_sum_of_the_values(problem):
    calculator = problem.calculator()
    tensor = calculator.influence_tensor(*problem.pair)
    total = calculator.influence_on_total_loss(*problem.pair)
    assert_close(total, tensor.sum(axis=0), 1e-12)
    assert_close(calculator.sensitivity(*problem.pair), np.abs(total).sum(axis=1), 1e-12)


def test_features_are_reduced_over_the_training_examples(problem):
    calculator = problem.calculator()
    tensor = calculator.influence_tensor(*problem.pair)
    assert_close(calculator.per_feature(*problem.pair), tensor.mean(axis=1), 1e-12)
    assert_close(calculator.per_feature(*problem.pair, "sum"), tensor.sum(axis=1), 1e-12)
    frame = calculator.per_feature(*problem.pair, "mean_absolute", feature_names="abcd")
    assert_close(frame[["a", "b", "c", "d"]], np.abs(tensor).mean(axis=1), 1e-12)
    assert frame.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("num_moved", [7, 1])
def test_the_features_of_some_examples_have_the_n_of_the_whole_training_set(problem, num_moved):
    calculator, query = problem.calculator(), problem.pair[0]
    some = batches(tuple(part[:num_moved] for part in problem.train), 3)
    tensor = calculator.influence_tensor(query, some)
    assert tensor.shape[:2] == (3, num_moved)
    assert_close(calculator.per_feature(query, some), tensor.sum(axis=1) / 11, 1e-12)
    assert_close(calculator.per_feature(query, some, "sum"), tensor.sum(axis=1), 1e-12)
    absolute = np.abs(tensor).sum(axis=1) / 11
    assert_close(calculator.per_feature(query, some, "mean_absolute"), absolute, 1e-12)
    for feature, shift in enumerate(np.eye(4)):
        moved = calculator.predict_loss_change(query, some, shift).sum(axis=1)
        assert_close(calculator.per_feature(query, some)[:, feature], moved, 1e-12)


def test_the_predicted_change_has_one_over_n(problem):
    calculator = problem.calculator()
    tensor, shifts = calculator.influence_tensor(*problem.pair), problem.draw((11, 4))
    expected = np.einsum("mnf,nf->mn", tensor, shifts) / 11
    assert_close(calculator.predict_loss_change(*problem.pair, shifts), expected, 1e-12)
    expected = np.einsum("mnf,f->mn", tensor, shifts[0]) / 11
    assert_close(calculator.predict_loss_change(*problem.pair, shifts[0]), expected, 1e-12)


def test_a_measurement_takes_the_place_of_the_loss(problem):
    def first_output(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        del targets
        return outputs[:, 0]

    values = problem.calculator(measurement=first_output).influence_tensor(*problem.pair)
    measured = BaseInfluenceModel(problem.model.model, loss_function=first_output)
    rows = gradient_rows(measured, *problem.queries)
    assert_close(values, problem.expected_of(rows), 1e-9)


def test_the_model_is_as_it_was_even_after_an_error(problem):
    keras_model = problem.model.model
    before = [tf.convert_to_tensor(v).numpy() for v in keras_model.variables]
    attributes = [set(vars(layer)) for layer in keras_model.layers]
    problem.calculator(layer=keras_model.layers[1].name).influence_tensor(*problem.pair)
    wrong = batches((problem.train[0], np.zeros((11, 5))))
    with pytest.raises(LabelError, match="do not fit"):
        problem.calculator(layer=keras_model.layers[1].name).influence_tensor(
            batches(problem.queries), wrong
        )
    assert [set(vars(layer)) for layer in keras_model.layers] == attributes
    for variable, value in zip(keras_model.variables, before, strict=True):
        np.testing.assert_array_equal(tf.convert_to_tensor(variable), value)


def test_values_that_are_not_finite_are_refused_with_the_example(problem):
    # Its square root is infinitely steep at the zero of example 6 alone.
    root = keras.Sequential([keras.Input((4,)), layers.Activation(tf.sqrt), layers.Dense(3)])
    loss = problem.model.loss_function.loss
    problem.model = InfluenceModel(root, loss_function=loss)
    problem.train[0][:] = np.abs(problem.train[0])
    problem.train[0][6, 0] = 0
    problem.queries = np.abs(problem.queries[0]), problem.queries[1]
    with pytest.raises(NonFiniteError, match="first for example 6"):
        problem.calculator().influence_tensor(*problem.pair)


def test_arguments_of_the_wrong_form_are_refused(problem):
    calculator = problem.calculator()
    with pytest.raises(ValueError, match="`reduction` must be one of"):
        calculator.per_feature(*problem.pair, "median")
    with pytest.raises(ValueError, match="3 names for examples of shape"):
        calculator.per_feature(*problem.pair, feature_names="abc")
    with pytest.raises(ValueError, match=r"`shifts` must have .* \(4,\) or \(11, 4\)"):
        calculator.predict_loss_change(*problem.pair, np.zeros((12, 4)))
