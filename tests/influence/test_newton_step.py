"""One Newton step without an example, against dense algebra and against retraining."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from deel_influence.curvature.dense_layer import dense_terms
from deel_influence.errors import (
    BatchError,
    CurvatureWarning,
    DatasetOrderError,
    SavedCurvatureError,
    UnsupportedModelError,
)
from deel_influence.gradients.engine import GradientEngine
from deel_influence.ihvp import EKFACIHVP, ExactIHVP
from deel_influence.influence import NewtonStepInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close, gradient_rows, mean_hessian

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
N, M, C = 21, 10, 3
PENALTY = float(np.float32(0.05))  # Keras keeps the factor of a regulariser in float32
DAMPING = 0.02


def batches(arrays: tuple, size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


class SoftmaxLayer:
    """The last layer of a network on three classes, and its algebra written out in NumPy."""

    def __init__(self, use_bias: bool = True) -> None:
        generator = np.random.default_rng(0)
        self.train = generator.normal(size=(N, 4)), generator.integers(0, C, N)
        self.queries = generator.normal(size=(M, 4)), generator.integers(0, C, M)
        regularizer = keras.regularizers.L2(0.05)
        last = layers.Dense(C, "softmax", use_bias=use_bias, kernel_regularizer=regularizer)
        self.network = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), last])
        loss = keras.losses.SparseCategoricalCrossentropy()
        self.model = InfluenceModel(self.network, loss_function=loss)
        self.use_bias = use_bias
        width = 5 * C
        p = self.model.nb_params
        self.permanent = np.zeros(p)
        self.permanent[:width] = 2 * PENALTY
        flat = np.concatenate([v.numpy().ravel() for v in self.model.weights])
        self.penalty_gradient = self.permanent * flat
        self.permanent = np.diag(self.permanent + DAMPING)

    def terms(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return gradients ``(n, p)`` and Hessians ``(n, p, p)``, by the formula for softmax."""
        features = self.network.layers[0](x).numpy()
        if self.use_bias:
            features = np.c_[features, np.ones(len(x))]
        kernel = np.concatenate([v.numpy().reshape(-1, C) for v in self.model.weights])
        probabilities = softmax(features @ kernel, axis=1)
        errors = probabilities - np.eye(C)[y]
        rows = np.einsum("na,no->nao", features, errors).reshape(len(x), -1)
        inner = np.einsum("no,oq->noq", probabilities, np.eye(C))
        inner -= np.einsum("no,nq->noq", probabilities, probabilities)
        hessians = np.einsum("na,nb,noq->naobq", features, features, inner)
        p = rows.shape[1]
        return rows, hessians.reshape(len(x), p, p)

    def steps(self, regularized: bool) -> np.ndarray:
        """Return δ of each training example, one dense solve for each."""
        rows, hessians = self.terms(*self.train)
        total = hessians.sum(axis=0) + (N - 1) * self.permanent
        rows = rows + regularized * self.penalty_gradient
        return np.stack(
            [np.linalg.solve(total - h, g) for h, g in zip(hessians, rows, strict=True)]
        )

    def calculator(self, **options: object) -> NewtonStepInfluenceCalculator:
        return NewtonStepInfluenceCalculator(self.model, batches(self.train), DAMPING, **options)


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def problem(request) -> SoftmaxLayer:
    return SoftmaxLayer(request.param)


def test_scores_equal_a_dense_solve_for_each_example(problem):
    query_rows, _ = problem.terms(*problem.queries)
    steps = problem.steps(regularized=False)
    calculator = problem.calculator()
    data = batches(problem.queries, 3), batches(problem.train)
    assert_close(calculator.influence_matrix(*data), N * query_rows @ steps.T, 1e-8)
    rows, _ = problem.terms(*problem.train)
    assert_close(calculator.score(data[1]), N * np.sum(rows * steps, axis=1), 1e-8)
    vectors = np.concatenate([v for _, v in calculator.compute_influence_vector(data[1])])
    assert_close(vectors, N * steps, 1e-8)


def test_predicted_changes_equal_the_dense_quadratic_form():
    problem = SoftmaxLayer()
    rows, hessians = problem.terms(*problem.queries)
    steps = problem.steps(regularized=True)
    expected = rows @ steps.T + np.einsum("ip,mpq,iq->mi", steps, hessians, steps) / 2
    data = batches(problem.queries, 3), batches(problem.train)
    calculator = problem.calculator()
    assert_close(calculator.predict_loss_change(*data), expected, 1e-8)
    some = batches(tuple(a[:5] for a in problem.train), 2)
    assert_close(calculator.predict_loss_change(data[0], some), expected[:, :5], 1e-8)


@pytest.mark.parametrize("strategy", ["exact", "ekfac"])
def test_a_whole_network_takes_the_inverse_of_a_strategy(strategy):
    """δ_i = (n H - JᵀSJ)⁻¹ (g_i + ∇R), with the strategy's own H, solved for each example."""
    problem = SoftmaxLayer()
    loss = keras.losses.SparseCategoricalCrossentropy()
    model, train = BaseInfluenceModel(problem.network, loss_function=loss), batches(problem.train)
    damping = 1.0  # EKFAC's H is no sum over examples, and may be below the part of one
    if strategy == "exact":
        ihvp = ExactIHVP(model, train, damping=damping, curvature="gauss_newton", verbose=0)
    else:
        ihvp = EKFACIHVP(model, train, damping=damping, seed=0, verbose=0)
    inverse = ihvp.solve(tf.eye(model.nb_params, dtype=tf.float64)).numpy()
    (x, y), (xq, yq) = problem.train, problem.queries
    jacobians, queried = (logit_jacobians(problem.network, a) for a in (x, xq))
    probabilities, of_queries = (softmax_hessians(problem.network(a).numpy()) for a in (x, xq))
    rows, query_rows = gradient_rows(model, x, y), gradient_rows(model, xq, yq)
    whole = N * np.linalg.inv(inverse)
    parts = np.einsum("ncp,ncd,ndq->npq", jacobians, probabilities, jacobians)
    plain = np.stack([np.linalg.solve(whole - h, g) for h, g in zip(parts, rows, strict=True)])
    calculator = NewtonStepInfluenceCalculator(model, train, ihvp_calculator=ihvp)
    data = batches(problem.queries, 3), batches(problem.train, 5)
    assert_close(calculator.influence_matrix(*data), N * query_rows @ plain.T, 1e-8)
    if strategy == "exact":
        vectors = np.concatenate([v for _, v in calculator.compute_influence_vector(data[1])])
        assert_close(vectors, N * plain, 1e-8)
        return
    assert_close(calculator.score(data[1]), N * np.sum(rows * plain, axis=1), 1e-8)
    pushed = rows + model.regularization_gradient().numpy()
    steps = np.stack([np.linalg.solve(whole - h, g) for h, g in zip(parts, pushed, strict=True)])
    moved = np.einsum("mcp,ip->mic", queried, steps)
    bend = np.einsum("mic,mcd,mid->mi", moved, of_queries, moved) / 2
    changes = calculator.predict_loss_change(*data)
    assert_close(changes, query_rows @ steps.T + bend, 1e-8)


def logit_jacobians(network: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return the derivatives of the logits in all weights, shape ``(n, c, p)``."""
    hidden, last = network.layers
    with tf.GradientTape(persistent=True) as tape:
        logits = hidden(tf.constant(x)) @ last.kernel.value + last.bias.value
    parts = [tape.jacobian(logits, v.value) for v in network.trainable_variables]
    return np.concatenate([part.numpy().reshape(len(x), C, -1) for part in parts], axis=2)


def softmax_hessians(probabilities: np.ndarray) -> np.ndarray:
    inner = np.einsum("no,oq->noq", probabilities, np.eye(C))
    return inner - np.einsum("no,nq->noq", probabilities, probabilities)


def test_a_strategy_must_solve_at_once_and_has_its_own_damping():
    problem = SoftmaxLayer()
    train = batches(problem.train)
    with pytest.raises(ValueError, match=r"`ihvp_calculator` must solve without.*Use 'ekfac'"):
        NewtonStepInfluenceCalculator(problem.model, train, ihvp_calculator="cgd")
    with pytest.raises(ValueError, match=r"`damping` must be left out beside"):
        NewtonStepInfluenceCalculator(problem.model, train, 0.1, ihvp_calculator="exact")


def test_layers_after_the_watched_one_count():
    """A tanh and a frozen layer follow; the Hessian of an example still has rank c."""
    generator = np.random.default_rng(0)
    train = generator.normal(size=(12, 3)), generator.normal(size=(12, 1))
    queries = generator.normal(size=(5, 3)), generator.normal(size=(5, 1))
    network = keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(1)])
    model = InfluenceModel(network, start_layer=0, loss_function="mse")
    damping = 2.0  # the weights are no minimum
    calculator = NewtonStepInfluenceCalculator(model, batches(train), damping)
    total = 12 * mean_hessian(model, *train) + 11 * damping * np.eye(8)
    rows = gradient_rows(model, *train)
    steps = np.stack(
        [
            np.linalg.solve(total - mean_hessian(model, train[0][[i]], train[1][[i]]), rows[i])
            for i in range(12)
        ]
    )
    data = batches(queries, 3), batches(train, 5)
    linear = gradient_rows(model, *queries) @ steps.T
    assert_close(calculator.influence_matrix(*data), 12 * linear, 1e-8)
    bend = np.stack(
        [
            np.sum(steps @ mean_hessian(model, queries[0][[i]], queries[1][[i]]) * steps, axis=1)
            for i in range(5)
        ]
    )
    assert_close(calculator.predict_loss_change(*data), linear + bend / 2, 1e-8)


@pytest.mark.parametrize("watched", [("kernel", "bias"), ("kernel",), ("bias",)])
def test_the_terms_of_a_layer_are_its_gradients_and_hessians(watched):
    problem = SoftmaxLayer()
    last = problem.network.layers[-1]
    loss = keras.losses.SparseCategoricalCrossentropy()
    weights = [getattr(last, name) for name in watched]
    model = BaseInfluenceModel(problem.network, weights, loss)
    engine, batch = GradientEngine.of(model), next(iter(batches(problem.train, N)))
    engine.prepare(batch)
    terms = dense_terms(engine, batch)
    assert_close(terms.rows(terms.deltas).rows(), gradient_rows(model, *problem.train), 1e-10)
    hessians = np.einsum("na,nb,noq->aobq", terms.features, terms.features, terms.curvature)
    p = model.nb_params
    assert_close(hessians.reshape(p, p) / N, mean_hessian(model, *problem.train), 1e-10)


def ridge_fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Minimise the mean squared error plus ``PENALTY ‖w‖²``."""
    return np.linalg.solve(x.T @ x / len(x) + PENALTY * np.eye(x.shape[1]), x.T @ y / len(x))


def test_for_ridge_regression_it_is_leave_one_out_retraining():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 4)), generator.normal(size=(30, 2))
    x[3] *= 6  # an example with much leverage
    xq, yq = generator.normal(size=(7, 4)), generator.normal(size=(7, 2))
    dense = layers.Dense(2, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.05))
    network = keras.Sequential([keras.Input((4,)), dense])
    # The mean over two outputs halves the loss, and so the share of the penalty.
    loss = lambda targets, outputs: tf.reduce_sum((targets - outputs) ** 2, axis=1)  # noqa: E731
    weights = ridge_fit(x, y)
    dense.kernel.assign(weights)
    model = InfluenceModel(network, loss_function=loss)
    before = ((yq - xq @ weights) ** 2).sum(axis=1)
    keep = [np.arange(30) != i for i in range(30)]
    after = [((yq - xq @ ridge_fit(x[k], y[k])) ** 2).sum(axis=1) for k in keep]
    expected = np.stack(after, axis=1) - before[:, None]
    calculator = NewtonStepInfluenceCalculator(model, batches((x, y)))
    predicted = calculator.predict_loss_change(batches((xq, yq), 3), batches((x, y)))
    assert_close(predicted, expected, 1e-8)


def test_a_measurement_takes_the_place_of_the_queries_loss():
    problem = SoftmaxLayer()
    train = batches(problem.train)
    calculator = problem.calculator(measurement="margin")
    matrix = calculator.influence_matrix(train, train)
    assert_close(calculator.score(train), np.diag(matrix), 1e-10)
    assert np.diag(matrix).max() < 0  # without an example, the margin of its label falls


def test_the_change_of_a_number_that_is_linear_in_the_weights_is_linear():
    generator = np.random.default_rng(0)
    data = batches((generator.normal(size=(12, 3)), generator.normal(size=(12, 2))))
    network = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model = InfluenceModel(network, loss_function="mse")
    calculator = NewtonStepInfluenceCalculator(
        model, data, measurement=lambda _, outputs: outputs[:, 0]
    )
    changes = calculator.predict_loss_change(data, data)
    assert_close(12 * changes, calculator.influence_matrix(data, data), 1e-10)


def test_an_automatic_damping_is_that_of_the_exact_strategy():
    problem = SoftmaxLayer()
    train = batches(problem.train)
    matrix = mean_hessian(problem.model, *problem.train)
    matrix += problem.permanent - DAMPING * np.eye(len(matrix))
    damping = 0.1 * np.linalg.eigvalsh(matrix).mean()
    automatic = NewtonStepInfluenceCalculator(problem.model, train, "auto")
    given = NewtonStepInfluenceCalculator(problem.model, train, damping)
    assert_close(automatic.score(train), given.score(train), 1e-6)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: BaseInfluenceModel(network, loss_function="mse"),
        lambda network: InfluenceModel(network, start_layer=1, loss_function="mse"),
    ],
    ids=["two-layers", "on-a-sequence"],
)
def test_models_whose_examples_have_no_hessian_of_low_rank_are_refused(wrap):
    network = keras.Sequential(
        [keras.Input((6, 3)), layers.Dense(4), layers.Dense(2), layers.GlobalAveragePooling1D()]
    )
    data = batches((np.zeros((4, 6, 3)), np.zeros((4, 2))))
    with pytest.raises(UnsupportedModelError, match="watches one Dense layer, called once"):
        NewtonStepInfluenceCalculator(wrap(network), data)


def test_an_example_that_decides_alone_is_refused_with_the_remedy():
    x, y = np.diag([1.0, 2.0, 3.0]), np.ones((3, 1))
    network = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model = InfluenceModel(network, loss_function="mse")
    data = batches((x, y), 2)
    with pytest.raises(BatchError, match=r"Batch 0 .*decides on some parameters by itself"):
        NewtonStepInfluenceCalculator(model, data).score(data)
    assert np.isfinite(NewtonStepInfluenceCalculator(model, data, 0.1).score(data).values).all()


def test_many_classes_are_no_reason_to_refuse_an_example():
    """Each of the c eigenvalues of ``I - S B`` is well above 0, and their product is not."""
    generator = np.random.default_rng(0)
    n, r, c, damping = 16, 5, 40, 1e-3
    x, y = generator.normal(size=(n, r)), generator.integers(0, c, n)
    dense = layers.Dense(c, "softmax", use_bias=False)
    network = keras.Sequential([keras.Input((r,)), dense])
    loss = keras.losses.SparseCategoricalCrossentropy()
    model = InfluenceModel(network, loss_function=loss)
    probabilities = softmax(x @ dense.kernel.numpy(), axis=1)
    rows = np.einsum("na,no->nao", x, probabilities - np.eye(c)[y]).reshape(n, -1)
    inner = np.einsum("no,oq->noq", probabilities, np.eye(c))
    inner -= np.einsum("no,nq->noq", probabilities, probabilities)
    hessians = np.einsum("na,nb,noq->naobq", x, x, inner).reshape(n, r * c, r * c)
    whole = hessians.sum(axis=0) + (n - 1) * damping * np.eye(r * c)
    determinants = [np.linalg.slogdet(m)[1] for m in (*(whole - hessians), whole)]
    assert min(determinants[:-1]) - determinants[-1] < np.log(1e-6)
    steps = np.linalg.solve(whole - hessians, rows[:, :, None])[:, :, 0]
    train = batches((x, y))
    scores = NewtonStepInfluenceCalculator(model, train, damping).score(train)
    assert_close(scores, n * np.sum(rows * steps, axis=1), 1e-8)


def test_a_model_that_is_trained_further_is_refused():
    problem = SoftmaxLayer()
    calculator, train = problem.calculator(), batches(problem.train)
    problem.network.layers[0].bias.assign_add(tf.ones(5, tf.float64))
    for use in (calculator.score, lambda data: calculator.predict_loss_change(data, data)):
        with pytest.raises(SavedCurvatureError, match="must not change.*Make the calculator again"):
            use(train)


def test_reshuffled_examples_have_no_columns_even_with_ids():
    problem = SoftmaxLayer()
    mixed = tf.data.Dataset.from_tensor_slices(problem.train).shuffle(N, seed=0).batch(8)
    with pytest.raises(DatasetOrderError, match="`train_set` must yield its examples in the same"):
        problem.calculator().predict_loss_change(
            batches(problem.queries), mixed, id_fn=lambda batch: np.arange(len(batch[0]))
        )


def test_negative_curvature_is_warned_of():
    generator = np.random.default_rng(0)
    data = batches((generator.normal(size=(12, 3)), 9 * generator.normal(size=(12, 1))))
    network = keras.Sequential([keras.Input((3,)), layers.Dense(2, "tanh"), layers.Dense(1)])
    model = InfluenceModel(network, start_layer=0, loss_function="mse")
    with pytest.warns(CurvatureWarning, match="no minimum of the training objective"):
        NewtonStepInfluenceCalculator(model, data)
