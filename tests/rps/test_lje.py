"""Local Jacobian expansion against dense algebra in float64, Newton steps and ridge regression."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from deel_influence.common import ExactIHVPFactory
from deel_influence.errors import BatchError, SavedCurvatureError
from deel_influence.ihvp import (
    EKFACIHVP,
    ArnoldiIHVP,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    IdentityIHVP,
)
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.rps import RepresenterPointLJE
from tests.oracles import assert_close, gradient_rows, mean_hessian
from tests.rps.problems import (
    M,
    N,
    Problem,
    batches,
    chain,
    features_and_logits,
    problem,
    sparse,
)

layers = keras.layers
DAMPING = 0.3
NAMES = ("logits", "no-bias-then-activation-layer", "skip-then-softmax-layer", "subclassed")
FORMS = [problem(name) for name in (*NAMES, "one-sigmoid", "two-outputs")]


class Dense:
    """The same numbers from dense matrices; ``penalty`` is that of a regulariser on the kernel."""

    def __init__(self, case: Problem, model: keras.Model, penalty: float = 0.0) -> None:
        self.f, self.logits = features_and_logits(model, case.queries[0])
        self.shape = self.f.shape[1], self.logits.shape[1]
        head = [v for v in model.trainable_variables if v.shape[-1] == self.shape[1]]
        self.model = BaseInfluenceModel(model, sorted(head, key=lambda v: -len(v.shape)))
        self.theta = np.concatenate([v.numpy().ravel() for v in self.model.weights])
        kernel = np.arange(len(self.theta)) < np.prod(self.model.weights[0].shape)
        hessian = mean_hessian(self.model, *case.train) + 2 * penalty * np.diag(kernel)
        self.inverse = np.linalg.inv(hessian + DAMPING * np.eye(len(hessian)))
        self.gradients = gradient_rows(self.model, *case.train) + 2 * penalty * kernel * self.theta
        self.train = (self.theta - self.gradients @ self.inverse) / N

    @property
    def parts(self) -> np.ndarray:
        """What each training example gives to each logit of the queries, ``(m, n, c)``."""
        return np.einsum("mr,nrc->mnc", self.f, self.train.reshape(N, *self.shape))


def damped(model: BaseInfluenceModel, case: Problem) -> ExactIHVP:
    return ExactIHVP(model, batches(case.train), damping=DAMPING)


def calculator_of(dense: Dense, case: Problem, **options: object) -> RepresenterPointLJE:
    ihvp = options.pop("ihvp", None) or damped(dense.model, case)
    return RepresenterPointLJE(dense.model, batches(case.train), ihvp, **options)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", FORMS, ids=lambda case: case.id)
def test_the_parts_equal_dense_algebra_and_add_up_to_the_linearised_logits(case):
    dense = Dense(case, case.compiled())
    calculator = calculator_of(dense, case)
    train, queries = batches(case.train, 7), batches(case.queries, 4)
    parts = calculator.influence_by_class(queries, train)
    assert_close(parts, dense.parts, 1e-8)
    step = dense.theta - dense.inverse @ dense.gradients.mean(axis=0)
    linearised = dense.f @ step.reshape(dense.shape)
    assert_close(parts.sum(axis=1), linearised, 1e-8)
    assert_close(calculator.predict_with_kernel(queries), linearised, 1e-8)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["logits", "one-sigmoid"])
def test_a_score_is_the_part_of_the_querys_own_class(name):
    case = problem(name)
    dense = Dense(case, case.compiled())
    if name == "logits":
        classes = dense.logits.argmax(axis=1)[:, None, None]
        expected = np.take_along_axis(dense.parts, classes, axis=2)[..., 0]
    else:
        expected = np.where(dense.logits > 0, 1, -1) * dense.parts[..., 0]
    calculator = calculator_of(dense, case)
    for sizes in ((4, 8), (M, N), (1, 5)):
        queries, train = batches(case.queries, sizes[0]), batches(case.train, sizes[1])
        matrix = calculator.influence_matrix(queries, train)
        assert matrix.shape == (M, N)
        assert_close(matrix, expected, 1e-8)


@pytest.mark.usefixtures("float64")
def test_the_score_of_an_example_alone_is_the_size_of_its_part_in_its_own_logit():
    case = problem("logits")
    calculator = calculator_of(Dense(case, case.compiled()), case, query_class=2)
    train = batches(case.train)
    own = np.diag(calculator.influence_matrix(train, train))
    assert (own < 0).any()
    assert_close(calculator.score(train), np.abs(own), 1e-10)


@pytest.mark.usefixtures("float64")
def test_a_regulariser_counts_in_the_gradient_and_in_the_curvature():
    penalty = float(np.float32(0.05))  # Keras keeps the factor in float32
    output = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.05))
    case = Problem("regularised", lambda: chain(output), sparse(from_logits=True))
    dense = Dense(case, case.compiled(), penalty)
    calculator = calculator_of(dense, case, query_class=1)
    matrix = calculator.influence_matrix(batches(case.queries), batches(case.train))
    assert_close(matrix, dense.parts[..., 1], 1e-8)
    vectors = [v for _, v in calculator.compute_influence_vector(batches(case.train))]
    assert_close(np.concatenate(vectors), dense.train, 1e-8)


@pytest.mark.usefixtures("float64")
def test_for_squared_errors_the_sum_is_the_exact_minimum_from_any_weights():
    case = problem("two-outputs")
    model = case.compiled()
    f, z = features_and_logits(model, case.train[0])
    g, _ = features_and_logits(model, case.queries[0])
    weights = np.linalg.lstsq(f, case.train[1], rcond=None)[0]
    wrapped = InfluenceModel(model)
    ihvp = ExactIHVP(wrapped, batches(case.train), rcond=1e-9)
    calculator = RepresenterPointLJE(wrapped, batches(case.train), ihvp)
    assert_close(calculator.predict_with_kernel(batches(case.queries)), g @ weights, 1e-6)
    assert not np.allclose(g @ weights, features_and_logits(model, case.queries[0])[1])


STRATEGIES = {
    "conjugate-gradients": lambda m, d: ConjugateGradientDescentIHVP(
        m, train_dataset=d, damping=DAMPING, tolerance=1e-10
    ),
    "ekfac": lambda m, d: EKFACIHVP(m, d, damping=DAMPING, seed=0),
    "arnoldi": lambda m, d: ArnoldiIHVP(m, d, 12, 5, damping=DAMPING, seed=0),
    "identity": lambda m, d: IdentityIHVP(m),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_strategy_gives_the_same_on_either_side(name):
    """The scores invert H on the side of the queries, the vectors on that of the examples."""
    case = problem("logits")
    dense = Dense(case, case.compiled())
    train, queries = batches(case.train), batches(case.queries, 4)
    ihvp = STRATEGIES[name](dense.model, train)
    solved = ihvp.solve(dense.gradients).numpy()
    parts = np.einsum("mr,nrc->mnc", dense.f, ((dense.theta - solved) / N).reshape(N, *dense.shape))
    calculator = calculator_of(dense, case, ihvp=ihvp, query_class=2)
    assert_close(calculator.influence_matrix(queries, train), parts[..., 2], 1e-7)
    assert_close(calculator.influence_by_class(queries, train), parts, 1e-7)


def test_a_strategy_is_given_by_name_class_or_factory():
    case = problem("logits")
    model, train, queries = case.compiled(), batches(case.train), batches(case.queries)
    expected = RepresenterPointLJE(model, train).influence_matrix(queries, train)
    for ihvp in (ExactIHVP, ExactIHVPFactory()):
        calculator = RepresenterPointLJE(InfluenceModel(model), train, ihvp)
        assert_close(calculator.influence_matrix(queries, train), expected, 1e-4)
    sampled = RepresenterPointLJE(model, train, "exact", n_samples_for_hessian=9, seed=0)
    assert sampled.num_train_examples == N
    assert sampled.ihvp_calculator.get_config()["n_samples_for_hessian"] == 9


def test_the_model_is_left_as_it_was():
    case = problem("skip-then-softmax-layer")
    model = case.compiled()
    weights = model.get_weights()
    attributes = [set(vars(layer)) for layer in model.layers]
    calculator = RepresenterPointLJE(model, batches(case.train), "identity")
    calculator.influence_matrix(batches(case.queries), batches(case.train))
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert [set(vars(layer)) for layer in model.layers] == attributes


def test_a_strategy_of_other_weights_is_refused():
    case = problem("logits")
    model = BaseInfluenceModel(case.compiled())
    ihvp = IdentityIHVP(model)
    with pytest.raises(ValueError, match="that one must watch layer 'dense.*' alone"):
        RepresenterPointLJE(model, batches(case.train), ihvp)


def test_data_that_are_no_batches_are_refused():
    case = problem("logits")
    with pytest.raises(TypeError, match="`dataset` must be a batched"):
        RepresenterPointLJE(case.compiled(), 3)


def test_a_label_of_no_class_is_refused_by_its_batch():
    case = problem("logits")
    train = batches(case.train)
    calculator = RepresenterPointLJE(case.compiled(), train, "identity", query_class="label")
    x, y = case.queries
    y[5] = 3
    with pytest.raises(BatchError, match="^Batch 1 .*must be a class from 0 to 2"):
        calculator.influence_matrix(batches((x, y), 4), train)


def test_a_model_that_is_trained_further_is_refused():
    case = problem("logits")
    model, train = case.compiled(), batches(case.train)
    calculator = RepresenterPointLJE(model, train, "identity")
    model.layers[0].bias.assign_add(np.ones(5))
    with pytest.raises(SavedCurvatureError, match="must not change"):
        calculator.influence_matrix(batches(case.queries), train)
