"""Representer points of a refitted head against the kernel identity, closed forms and SciPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.optimize import minimize

from deel_influence.calculators import CACHE
from deel_influence.errors import (
    BatchError,
    ConvergenceWarning,
    DatasetOrderError,
    DataSourceError,
    MissingLossError,
    SavedCurvatureError,
    UnsupportedModelError,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.rps import RepresenterPointL2
from tests.oracles import assert_close
from tests.rps.problems import (
    BINARY,
    CLASSIFICATION,
    M,
    N,
    Problem,
    batches,
    chain,
    features_and_logits,
    problem,
    sigmoid,
    softmax,
)

layers = keras.layers
PENALTY = 0.02


def refitted(case: Problem, model: keras.Model, **options: object) -> RepresenterPointL2:
    options = {"lambda_regularization": PENALTY, **options}
    return RepresenterPointL2(model, batches(case.train), **options)


def derivatives(case: Problem, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the derivative of the loss in the logits ``(n, c)``, by hand."""
    if case in BINARY:
        return sigmoid(z) - y.reshape(-1, 1)
    if case in CLASSIFICATION:
        return softmax(z) - (y if y.ndim == 2 else np.eye(3)[y])
    return 2 * (z - y.reshape(z.shape)) / z.shape[1]


def own_targets(case: Problem, z: np.ndarray) -> np.ndarray:
    """Return the model's predictions, in the form in which `derivatives` takes targets."""
    if case in BINARY:
        return sigmoid(z)
    return softmax(z) if case in CLASSIFICATION else z


FITS = [
    ("logits", "model"),
    ("logits", "labels"),
    ("softmax-in-the-layer", "labels"),
    ("no-bias-then-activation-layer", "model"),
    ("skip-then-softmax-layer", "labels"),
    ("subclassed", "model"),
    ("one-sigmoid", "labels"),
    ("one-logit", "model"),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "targets"), FITS)
def test_the_head_is_stationary_and_its_logits_are_sums_of_alpha_times_the_kernel(name, targets):
    """The theorem, with everything but the fitted head computed by hand."""
    case = problem(name)
    model = case.compiled()
    calculator = refitted(case, model, targets=targets)
    weights, pull = calculator.head_weights, 2 * PENALTY * calculator.head_weights
    f, z = features_and_logits(model, case.train[0])
    g, _ = features_and_logits(model, case.queries[0])
    y = case.train[1] if targets == "labels" else own_targets(case, z)
    delta = derivatives(case, f @ weights, y)
    gradient = np.linalg.norm(f.T @ delta / N + pull)
    assert gradient <= 1e-8 * np.linalg.norm(pull)
    assert calculator.converged
    assert calculator.relative_residual <= 1e-9
    norm = calculator.relative_residual * np.linalg.norm(pull)
    assert_close(calculator.residual_gradient_norm, norm, 1e-10)
    alpha = -delta / (2 * PENALTY * N)
    train, queries = batches(case.train, 7), batches(case.queries, 4)
    parts = calculator.influence_by_class(queries, train)
    assert_close(parts, np.einsum("mr,nr,nc->mnc", g, f, alpha), 1e-8)
    assert_close(parts.sum(axis=1), g @ weights, 1e-8)
    assert_close(calculator.predict_with_kernel(queries), g @ weights, 1e-8)
    assert_close(calculator.representer_values(train), alpha, 1e-8)


@pytest.mark.parametrize("name", ["logits", "regression"])
def test_the_kernel_gives_the_heads_logits_in_float32(name):
    case = problem(name)
    model = case.compiled()
    calculator = refitted(case, model, targets="labels", lambda_regularization=1e-4)
    queries = batches(case.queries, 4)
    logits = features_and_logits(model, case.queries[0])[0] @ calculator.head_weights
    assert_close(calculator.predict_with_kernel(queries), logits, 1e-4)
    parts = calculator.influence_by_class(queries, batches(case.train))
    # The parts cancel: their rounding errors are as large as they are.
    errors = np.abs(parts.sum(axis=1) - logits)
    assert np.all(errors <= 1e-6 * np.abs(parts).sum(axis=1))


@pytest.mark.usefixtures("float64")
def test_ridge_regression_has_a_closed_form():
    """The loss is the mean over c outputs of squared errors, the penalty λ ‖W‖²."""
    case = problem("two-outputs")
    model = case.compiled()
    f, z = features_and_logits(model, case.train[0])
    g, _ = features_and_logits(model, case.queries[0])
    y, c = case.train[1].reshape(z.shape), z.shape[1]
    gram = f.T @ f / (N * c) + PENALTY * np.eye(f.shape[1])
    weights = np.linalg.solve(gram, f.T @ y / (N * c))
    alpha = (y - f @ weights) / (N * c * PENALTY)
    calculator = refitted(case, model, targets="labels", query_class=c - 1)
    assert_close(calculator.head_weights, weights, 1e-10)
    expected = (g @ f.T) * alpha[:, c - 1]
    matrix = calculator.influence_matrix(batches(case.queries, 4), batches(case.train))
    assert matrix.shape == (M, N)
    assert_close(matrix, expected, 1e-9)
    assert calculator.num_steps <= 2  # the preconditioner is the inverse


@pytest.mark.usefixtures("float64")
def test_softmax_regression_is_what_scipy_finds():
    case = problem("softmax-in-the-layer")
    model = case.compiled()
    f, _ = features_and_logits(model, case.train[0])
    y = case.train[1]

    def objective(flat):
        weights = flat.reshape(f.shape[1], 3)
        p = softmax(f @ weights)
        gradient = f.T @ (p - y) / N + 2 * PENALTY * weights
        value = -np.mean(np.sum(y * np.log(p), axis=1)) + PENALTY * np.sum(weights**2)
        return value, gradient.ravel()

    options = {"gtol": 1e-10, "ftol": 1e-15, "maxiter": 10000}
    start = np.zeros(f.shape[1] * 3)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    calculator = refitted(case, model, targets="labels")
    assert_close(calculator.head_weights.ravel(), found.x, 1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["logits", "one-sigmoid", "regression"])
def test_a_score_is_the_part_of_the_querys_own_class(name):
    """Not of the training example's class, which would need n = m or mix up the pairs."""
    case = problem(name)
    model = case.compiled()
    calculator = refitted(case, model)
    queries, train = batches(case.queries, 4), batches(case.train)
    z = features_and_logits(model, case.queries[0])[1]
    parts = calculator.influence_by_class(queries, train)
    if name == "logits":
        expected = np.take_along_axis(parts, z.argmax(axis=1)[:, None, None], axis=2)[..., 0]
        assert len(set(z.argmax(axis=1))) > 1
    elif name == "regression":
        expected = parts[..., 0]
    else:
        expected = np.where(z > 0, 1, -1) * parts[..., 0]
        assert len(set(z[:, 0] > 0)) == 2
    assert_close(calculator.influence_matrix(queries, train), expected, 1e-12)


@pytest.mark.parametrize("name", ["softmax-in-the-layer", "one-logit"])
def test_the_class_may_be_that_of_the_label(name):
    case = problem(name)
    calculator = refitted(case, case.compiled(), query_class="label")
    queries, train = batches(case.queries, 4), batches(case.train)
    parts = calculator.influence_by_class(queries, train)
    labels = case.queries[1]
    if name == "one-logit":
        expected = (2 * labels - 1) * parts[..., 0]
    else:
        expected = np.sum(labels[:, None] * parts, axis=2)
    assert_close(calculator.influence_matrix(queries, train), expected, 1e-6)


@pytest.mark.parametrize(
    ("name", "label", "last"), [("logits", 3, 2), ("logits", -1, 2), ("one-logit", 2, 1)]
)
def test_a_label_of_no_class_is_refused_by_its_batch(name, label, last):
    case = problem(name)
    calculator = refitted(case, case.compiled(), query_class="label")
    x, y = case.queries
    y[5] = label
    wrong, train = batches((x, y), 4), batches(case.train)
    for use in (calculator.score, lambda data: calculator.influence_matrix(data, train)):
        with pytest.raises(BatchError, match=f"^Batch 1 .*must be a class from 0 to {last}"):
            use(wrong)


def test_the_label_of_a_model_that_is_no_classifier_is_refused():
    case = problem("two-outputs")
    with pytest.raises(UnsupportedModelError, match="`query_class` must be .*no classifier"):
        refitted(case, case.compiled(), query_class="label")


def test_a_model_that_is_trained_further_is_refused():
    case = problem("logits")
    model = case.compiled()
    calculator, train = refitted(case, model), batches(case.train)
    model.layers[0].bias.assign_add(tf.ones(5))
    for use in (calculator.score, calculator.representer_values, calculator.predict_with_kernel):
        with pytest.raises(SavedCurvatureError, match="must not change.*Make the calculator again"):
            use(train)


def test_reshuffled_examples_have_no_columns_even_with_ids():
    case = problem("logits")
    calculator = refitted(case, case.compiled())
    mixed = tf.data.Dataset.from_tensor_slices(case.train).shuffle(N, seed=0).batch(8)
    with pytest.raises(DatasetOrderError, match="`train_set` must yield its examples in the same"):
        calculator.influence_by_class(
            batches(case.queries), mixed, id_fn=lambda batch: np.arange(len(batch[0]))
        )


@pytest.mark.parametrize(("name", "index", "sign"), [("logits", 2, 1), ("one-sigmoid", 0, -1)])
def test_the_class_may_be_an_index(name, index, sign):
    case = problem(name)
    calculator = refitted(case, case.compiled(), query_class=index)
    queries, train = batches(case.queries, 4), batches(case.train)
    parts = calculator.influence_by_class(queries, train)
    matrix = calculator.influence_matrix(queries, train)
    assert_close(matrix, sign * parts[..., index], 1e-6)


def test_the_score_of_an_example_alone_is_the_size_of_its_own_representer_value():
    case = problem("logits")
    calculator = refitted(case, case.compiled(), targets="labels", query_class="label")
    train = batches(case.train)
    alpha = calculator.representer_values(train)
    own = alpha[np.arange(N), case.train[1]]
    assert np.all(own > 0)  # every example supports its own label
    assert_close(calculator.score(train), np.abs(own), 1e-5)


def test_wrong_labels_have_large_representer_values():
    generator = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = (4 * np.eye(4)[y] + generator.normal(size=(90, 4))).astype("float32")
    wrong = np.arange(0, 90, 10)
    y[wrong] = (y[wrong] + 1) % 3
    model = problem("logits").compiled()
    calculator = RepresenterPointL2(
        model, batches((x, y), 32), targets="labels", query_class="label"
    )
    found = calculator.score(batches((x, y), 32)).top_k(len(wrong)).ids
    assert len(set(found) & set(wrong)) >= len(wrong) - 1


@pytest.mark.usefixtures("float64")
def test_sample_weights_weigh_the_losses():
    """Twice the weight is the same as the example twice, for n examples counted once."""
    case = problem("logits")
    model = case.compiled()
    x, y = case.train
    weights = np.where(np.arange(N) % 3 == 0, 2.0, 1.0)
    weighted = RepresenterPointL2(model, batches((x, y, weights)), targets="labels")
    repeated = np.repeat(np.arange(N), weights.astype(int))
    factor = len(repeated) / N
    double = RepresenterPointL2(
        model,
        batches((x[repeated], y[repeated])),
        lambda_regularization=weighted.lambda_regularization / factor,
        targets="labels",
    )
    assert_close(weighted.head_weights, double.head_weights, 1e-8)


def test_the_fit_does_not_depend_on_the_batches():
    case = problem("skip-then-softmax-layer")
    model = case.compiled()
    expected = refitted(case, model).head_weights
    other = RepresenterPointL2(model, batches(case.train, 5), lambda_regularization=PENALTY)
    assert_close(other.head_weights, expected, 1e-5)


def test_the_model_is_left_as_it_was():
    case = problem("softmax-in-the-layer")
    model = case.compiled()
    weights, optimizer, loss = model.get_weights(), model.optimizer, model.loss
    attributes = [set(vars(layer)) for layer in model.layers]
    calculator = refitted(case, model)
    calculator.influence_matrix(batches(case.queries), batches(case.train))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert model.optimizer is optimizer
    assert model.loss is loss
    assert [set(vars(layer)) for layer in model.layers] == attributes


def test_a_keras_model_with_a_loss_is_as_good_as_a_wrapped_one():
    case = problem("logits")
    model = case.compiled()
    wrapped = BaseInfluenceModel(model)
    expected = RepresenterPointL2(wrapped, batches(case.train), lambda_regularization=PENALTY)
    bare = keras.Model(model.inputs, model.outputs)
    with pytest.raises(MissingLossError, match="has no loss"):
        RepresenterPointL2(bare, batches(case.train))
    given = RepresenterPointL2(bare, batches(case.train), case.loss(), PENALTY)
    assert_close(given.head_weights, expected.head_weights, 1e-6)


def test_values_saved_with_another_penalty_are_refused(tmp_path):
    case = problem("logits")
    model = case.compiled()
    data = batches(case.queries), batches(case.train)
    path = tmp_path / "vectors"
    calculator = refitted(case, model)
    calculator.compute_influence_vector(data[1], path)
    disk = {"influence_vector_in_cache": CACHE.DISK, "load_influence_vector_ds_path": path}
    other = refitted(case, model, lambda_regularization=2 * PENALTY)
    with pytest.raises(DataSourceError, match="which holds others"):
        other.top_k(*data, **disk)
    assert len(list(calculator.top_k(*data, **disk))) == 2


def test_a_tiny_penalty_on_separable_classes_still_converges():
    """The weights grow and the losses all but vanish, so that J falls by less than it rounds."""
    y = np.arange(60) % 3
    x = 6 * np.eye(4)[y] + np.random.default_rng(0).normal(size=(60, 4))
    train = batches((x.astype("float32"), y), 32)
    calculator = RepresenterPointL2(
        problem("logits").compiled(), train, lambda_regularization=1e-8, targets="labels"
    )
    assert calculator.converged
    assert calculator.num_steps < 30


def test_a_fit_that_does_not_converge_is_reported():
    case = problem("logits")
    with pytest.warns(ConvergenceWarning, match="no stationary point.*after 1 steps"):
        calculator = refitted(case, case.compiled(), targets="labels", epochs=1)
    assert not calculator.converged
    assert calculator.num_steps == 1
    assert calculator.relative_residual > 1e-9


def test_a_loss_that_is_not_smooth_is_reported():
    model = chain(layers.Dense(1))
    model.compile(loss="mae")
    train = batches(problem("regression").train)
    with pytest.warns(ConvergenceWarning, match="a loss that is not smooth"):
        RepresenterPointL2(model, train, targets="labels", epochs=5)
    with pytest.raises(UnsupportedModelError, match='must be "labels" for losses other than'):
        RepresenterPointL2(model, train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_regularization": 0.0}, "`lambda_regularization` must be a finite number > 0"),
        ({"tolerance": -1.0}, "`tolerance` must be a finite number > 0"),
        ({"epochs": 0}, "`epochs` must be a whole number >= 1"),
        ({"targets": "logits"}, "`targets` must be one of .*Received: 'logits'"),
        ({"query_class": "best"}, "`query_class` must be one of .*Received: 'best'"),
        ({"query_class": 3}, "index of a class from 0 to 2. Received: 3"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    case = problem("logits")
    with pytest.raises(ValueError, match=message):
        refitted(case, case.compiled(), **options)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be an InfluenceModel"):
        RepresenterPointL2("model", batches(problem("logits").train))
    with pytest.raises(TypeError, match="`train_set` must be a batched"):
        RepresenterPointL2(problem("logits").compiled(), 3)


def test_the_values_do_not_see_how_many_queries_share_a_batch():
    case = problem("logits")
    calculator = refitted(case, case.compiled())
    train = batches(case.train)
    whole = calculator.influence_by_class(batches(case.queries, M), train)
    single = calculator.influence_by_class(batches(case.queries, 1), train)
    assert whole.shape == (M, N, 3)
    assert_close(single, whole, 1e-5)
    assert whole.dtype == np.float32
    unknown = tf.data.Dataset.from_tensor_slices(case.train).filter(lambda x, y: y > -1).batch(6)
    assert_close(calculator.influence_by_class(batches(case.queries), unknown), whole, 1e-5)
