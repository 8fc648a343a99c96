"""Second-order influence of groups against dense algebra and against retraining without them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    CurvatureWarning,
    EmptyDatasetError,
    SavedCurvatureError,
)
from deel_influence.ihvp import (
    EKFACIHVP,
    ExactIHVP,
    WoodburyIHVP,
)
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)
from deel_influence.influence.loss_changes import loss_changes
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.cases import FALLBACK_CASES, RULED_CASES
from tests.influence.test_first_order import LogisticRegression
from tests.oracles import assert_close, gradient_rows, mean_hessian, relative_error

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
N, M = 22, 7
PENALTY = float(np.float32(0.05))  # Keras keeps the factor of a regulariser in float32
GROUPS = np.r_[np.zeros(1, int), np.ones(9, int), np.full(4, 2), np.full(8, -1)]
GROUPS = np.random.default_rng(3).permutation(GROUPS)


def batches(arrays: tuple, size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


class Problem:
    """A network with a regulariser, all of it or its last layer watched, and dense algebra."""

    damping = 0.9  # the weights are no minimum, and the Hessian has negative eigenvalues

    def __init__(self, last_layer_only: bool = False) -> None:
        generator = np.random.default_rng(0)
        self.train = generator.normal(size=(N, 4)), generator.integers(0, 3, N)
        self.queries = generator.normal(size=(M, 4)), generator.integers(0, 3, M)
        regularizer = keras.regularizers.L2(0.05)
        self.network = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(3, activation="tanh"),
                layers.Dense(3, kernel_regularizer=regularizer),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        wrap = InfluenceModel if last_layer_only else BaseInfluenceModel
        self.model = wrap(self.network, loss_function=loss)
        p = self.model.nb_params
        penalised = np.zeros(p)
        penalised[p - 12 : p - 3] = 1  # the last kernel, before its bias
        flat = np.concatenate([v.numpy().ravel() for v in self.model.weights])
        self.penalty_gradient = 2 * PENALTY * penalised * flat
        self.permanent = np.diag(2 * PENALTY * penalised + self.damping)
        self.hessian = mean_hessian(self.model, *self.train) + self.permanent
        self.query_rows = gradient_rows(self.model, *self.queries)
        self.train_rows = gradient_rows(self.model, *self.train)

    def steps(self, groups: np.ndarray, regularized: bool) -> np.ndarray:
        """Return δ for each group by the formula, in dense algebra."""
        rows = []
        for group in range(groups.max() + 1):
            members = groups == group
            u = members.sum()
            q = u / N
            gradient = self.train_rows[members].sum(axis=0)
            gradient = gradient + u * self.penalty_gradient * regularized
            own = u * (mean_hessian(self.model, *(a[members] for a in self.train)) + self.permanent)
            first = np.linalg.solve(self.hessian, gradient)
            second = np.linalg.solve(self.hessian, own @ first)
            rows.append((1 - 2 * q) / ((1 - q) ** 2 * N) * first + second / ((1 - q) * N) ** 2)
        return np.stack(rows)

    def losses_at(self, step: np.ndarray) -> np.ndarray:
        """Return the losses of the queries with moved weights, by a copy of the network."""
        copy = keras.models.clone_model(self.network)
        copy.set_weights(self.network.get_weights())
        watched = [v.path for v in self.model.weights]
        start = 0
        for mine, theirs in zip(self.network.weights, copy.weights, strict=True):
            if mine.path in watched:
                size = int(np.prod(mine.shape))
                theirs.assign(theirs.numpy() + step[start : start + size].reshape(mine.shape))
                start += size
        logits = copy(self.queries[0]).numpy()
        logits -= logits.max(axis=1, keepdims=True)
        return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(M), self.queries[1]]

    def calculator(self, **options: object) -> SecondOrderInfluenceCalculator:
        train = batches(self.train)
        ihvp = ExactIHVP(self.model, train, damping=self.damping)
        return SecondOrderInfluenceCalculator(self.model, train, ihvp, **options)


@pytest.fixture(params=[False, True], ids=["network", "last-layer"])
def problem(request) -> Problem:
    return Problem(request.param)


def test_influence_of_groups_on_queries_equals_dense_algebra(problem):
    expected = N * problem.query_rows @ problem.steps(GROUPS, regularized=False).T
    calculator = problem.calculator()
    for size in (3, N):
        matrix = calculator.influence_matrix(
            batches(problem.queries, 3), batches(problem.train, size), GROUPS
        )
        assert_close(matrix, expected, 1e-8)
    unknown = batches(problem.train).unbatch().filter(lambda x, y: y > -1).batch(5)
    matrix = calculator.influence_matrix(batches(problem.queries, 3), unknown, GROUPS)
    assert_close(matrix, expected, 1e-8)


def test_predicted_changes_equal_dense_algebra_and_a_moved_copy_of_the_model(problem):
    steps = problem.steps(GROUPS, regularized=True)
    data = batches(problem.queries, 3), batches(problem.train)
    weights = [v.numpy() for v in problem.network.weights]
    calculator = problem.calculator()
    linear = calculator.predict_loss_change(*data, GROUPS, linearize=True)
    assert_close(linear, problem.query_rows @ steps.T, 1e-8)
    before = problem.losses_at(np.zeros_like(steps[0]))
    expected = np.stack([problem.losses_at(step) - before for step in steps], axis=1)
    assert_close(calculator.predict_loss_change(*data, GROUPS), expected, 1e-8)
    for variable, value in zip(problem.network.weights, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_the_whole_newton_step_equals_a_dense_solve_for_each_group(problem):
    """Without a group the mean over what remains plus R is minimised: ``(n H - K)⁻¹ G``."""
    calculator = problem.calculator(step="newton")
    steps = []
    for group in range(3):
        members = group == GROUPS
        u = members.sum()
        own = u * (
            mean_hessian(problem.model, *(a[members] for a in problem.train)) + problem.permanent
        )
        gradient = problem.train_rows[members].sum(axis=0) + u * problem.penalty_gradient
        steps.append(np.linalg.solve(N * problem.hessian - own, gradient))
    data = batches(problem.queries, 3), batches(problem.train, 5)
    linear = calculator.predict_loss_change(*data, GROUPS, linearize=True)
    assert_close(linear, problem.query_rows @ np.stack(steps).T, 1e-6)
    expanded = problem.calculator().predict_loss_change(*data, GROUPS, linearize=True)
    assert relative_error(expanded, linear) > 1e-5  # the terms beyond it; ten times the tolerance


def test_a_group_has_the_same_values_alone_as_among_others():
    problem = Problem(last_layer_only=True)
    calculator = problem.calculator()
    matrix = calculator.influence_matrix(
        batches(problem.queries, 3), batches(problem.train), GROUPS
    )
    members = batches(tuple(a[GROUPS == 1] for a in problem.train), 4)
    value = calculator.estimate_influence_values_group(members, batches(problem.queries, 3))
    assert_close(value, matrix[:, 1].sum(), 1e-8)
    vector = calculator.compute_influence_vector_group(members).numpy()
    assert vector.shape == (1, problem.model.nb_params)
    assert_close(vector[0], N * problem.steps(GROUPS, regularized=False)[1], 1e-8)
    own = problem.train_rows[GROUPS == 1].sum(axis=0)
    assert_close(calculator.estimate_influence_values_group(members), own @ vector[0], 1e-8)


def test_without_groups_each_example_is_one():
    problem = Problem(last_layer_only=True)
    calculator = problem.calculator()
    data = batches(problem.queries, 3), batches(problem.train)
    expected = calculator.influence_matrix(*data, groups=np.arange(N))
    assert expected.shape == (M, N)
    assert_close(calculator.influence_matrix(*data), expected, 1e-12)
    first = FirstOrderInfluenceCalculator(problem.model, data[1], calculator.ihvp_calculator)
    matrix = first.influence_matrix(*data)
    assert np.linalg.norm(expected - matrix) < 0.2 * np.linalg.norm(matrix)  # one scale


def test_gathered_products_of_a_last_layer_equal_its_closed_form():
    """The Gauss-Newton matrix of a last layer is its Hessian, and takes the general way."""
    problem = Problem(last_layer_only=True)
    data = batches(problem.queries, 3), batches(problem.train)
    assert_close(
        problem.calculator(curvature="gauss_newton").influence_matrix(*data, GROUPS),
        problem.calculator().influence_matrix(*data, GROUPS),
        1e-9,
    )


@pytest.mark.parametrize(
    "strategy",
    [
        lambda m, d: ExactIHVP(m, d, damping=1e5),
        lambda m, d: EKFACIHVP(m, d, damping=1e5, seed=0, verbose=0),
        lambda m, d: WoodburyIHVP(m, d, damping=1e5),
    ],
    ids=["exact", "ekfac", "woodbury"],
)
def test_a_heavy_damping_leaves_a_gradient_step_on_the_remaining_mean(strategy):
    """With ``H → damping · I``, which does not shrink, δ → G / ((n - u) damping)."""
    problem = Problem()
    train = batches(problem.train)
    calculator = SecondOrderInfluenceCalculator(
        problem.model, train, strategy(problem.model, train)
    )
    changes = calculator.predict_loss_change(
        batches(problem.queries, 3), train, GROUPS, linearize=True
    )
    rows = problem.train_rows + problem.penalty_gradient
    sums = np.stack([rows[group == GROUPS].sum(axis=0) for group in range(3)])
    left = N - np.bincount(GROUPS[GROUPS >= 0])
    assert_close(changes, problem.query_rows @ (sums / left[:, None] / 1e5).T, 1e-3)


def test_the_damping_of_each_layer_is_read_off_a_strategy():
    problem = Problem()
    train, p = batches(problem.train), problem.model.nb_params
    expected = np.r_[np.full(15, 0.9), np.full(12, 1.2)]
    for ihvp in (
        ExactIHVP(problem.model, train, damping=[0.9, 1.2]),
        EKFACIHVP(problem.model, train, damping=[0.9, 1.2], seed=0, verbose=0),
    ):
        assert_close(ihvp.damping_diagonal(), expected, 1e-12)
    shifted = ExactIHVP(problem.model, train, damping="auto")
    known = ExactIHVP(problem.model, train, damping=0.9)
    difference = np.diag(shifted.hessian - known.hessian)
    assert_close(shifted.damping_diagonal(), difference + 0.9, 1e-8)
    automatic = EKFACIHVP(problem.model, train, seed=0, verbose=0)
    assert automatic.damping_diagonal().shape == (p,)
    assert automatic.damping_diagonal().min() > 0


def test_a_measurement_takes_the_place_of_the_queries_loss():
    problem = Problem()
    data = batches(problem.queries, 3), batches(problem.train)
    calculator = problem.calculator(measurement=lambda _, outputs: outputs[:, 0])
    changes = calculator.predict_loss_change(*data, GROUPS)
    linear = calculator.predict_loss_change(*data, GROUPS, linearize=True)
    assert np.corrcoef(changes.ravel(), linear.ravel())[0, 1] > 0.99
    assert_close(linear, changes, 0.2)


MOVED = [
    case
    for case in RULED_CASES + FALLBACK_CASES
    if case.id in ("subclassed", "nested", "shared-dense", "transformer", "lstm", "tied-weights")
    or "batch-normalisation" in case.id
]


@pytest.mark.parametrize("case", MOVED, ids=lambda case: case.id)
def test_losses_at_moved_weights_are_those_of_a_model_that_has_them(case):
    network = case.build()
    model = BaseInfluenceModel(network, loss_function="mse")
    batch = tuple(tf.constant(part) for part in case.data(network))
    step = np.random.default_rng(0).normal(size=model.nb_params, scale=0.1)
    changes = loss_changes(model, batch, tf.constant(np.stack([np.zeros_like(step), step])))
    before = model.per_example_losses(batch).numpy()
    for variable, part in zip(model.weights, model.layout.unflatten(step), strict=True):
        variable.assign_add(part)
    expected = model.per_example_losses(batch).numpy() - before
    assert_close(changes, np.stack([np.zeros_like(expected), expected], axis=1), 1e-8)


def half_precision(dtypes: tuple[str, str]) -> tuple[InfluenceModel, tf.data.Dataset]:
    generator = np.random.default_rng(0)
    data = generator.normal(size=(6, 4)).astype("float32"), generator.integers(0, 2, 6)
    parts = [layers.Dense(units, dtype=dtype) for units, dtype in zip((3, 2), dtypes, strict=True)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network = keras.Sequential([keras.Input((4,), dtype="float32"), *parts])
    return InfluenceModel(network, loss_function=loss), batches(data, 4)


def test_losses_at_moved_weights_in_half_precision_are_warned_of():
    model, data = half_precision(("float32", "mixed_bfloat16"))
    calculator = SecondOrderInfluenceCalculator(model, data, "identity")
    with pytest.warns(CurvatureWarning, match="in bfloat16. Pass linearize=True"):
        calculator.predict_loss_change(data, data)
    assert calculator.predict_loss_change(data, data, linearize=True).shape == (6, 6)


def test_half_precision_before_the_moved_weights_is_not_warned_of():
    model, data = half_precision(("mixed_float16", "float32"))
    calculator = SecondOrderInfluenceCalculator(model, data, "identity")
    changes = calculator.predict_loss_change(data, data)
    linear = calculator.predict_loss_change(data, data, linearize=True)
    assert np.corrcoef(changes.ravel(), linear.ravel())[0, 1] > 0.9


def test_batches_padded_to_their_longest_sequence_are_gathered_by_length():
    generator = np.random.default_rng(0)
    x, y = generator.integers(1, 9, (N, 6)), generator.integers(0, 2, N)
    x[np.arange(6) >= generator.integers(2, 7, N)[:, None]] = 0
    x[8:16, 4:] = 0
    parts = [(x[:8], y[:8]), (x[8:16, :4], y[8:16]), (x[16:], y[16:])]
    padded = tf.data.Dataset.from_generator(
        lambda: iter(parts),
        output_signature=(
            tf.TensorSpec((None, None), tf.int64),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    embedding = layers.Embedding(9, 3, mask_zero=True)
    network = keras.Sequential(
        [keras.Input((None,)), embedding, layers.GlobalAveragePooling1D(), layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(network, loss_function=loss)
    whole = batches((x, y))
    calculator = SecondOrderInfluenceCalculator(model, whole, "identity")
    expected = calculator.influence_matrix(whole, whole, GROUPS)
    assert_close(calculator.influence_matrix(whole, padded, GROUPS), expected, 1e-9)


def test_a_model_that_is_trained_further_is_refused():
    problem = Problem(last_layer_only=True)
    calculator = problem.calculator()
    problem.network.layers[0].bias.assign_add(tf.ones(3, tf.float64))
    with pytest.raises(SavedCurvatureError, match="must not change"):
        calculator.influence_matrix(batches(problem.queries), batches(problem.train))


def test_an_empty_training_set_is_refused():
    problem = Problem(last_layer_only=True)
    data, empty = batches(problem.queries), batches(problem.train).take(0)
    calculator = SecondOrderInfluenceCalculator(problem.model, empty, "identity")
    with pytest.raises(EmptyDatasetError, match="`dataset` must yield at least one example"):
        calculator.influence_matrix(data, data)


@pytest.mark.parametrize("groups", [[0, 1], np.zeros(N), np.full(N, -1), np.full(N, -2)])
def test_groups_that_are_not_numbered_are_refused(groups):
    problem = Problem()
    data = batches(problem.queries, 3), batches(problem.train)
    with pytest.raises(ValueError, match=f"`groups` must hold {N} integers"):
        problem.calculator().influence_matrix(*data, groups)


def test_a_group_of_the_whole_training_set_is_refused():
    problem = Problem()
    with pytest.raises(ValueError, match="must leave at least one of the 22 training examples"):
        problem.calculator().compute_influence_vector_group(batches(problem.train))


def test_a_curvature_without_products_of_groups_is_refused():
    with pytest.raises(ValueError, match="`curvature` must be one of .*Received: 'fisher'"):
        Problem().calculator(curvature="fisher")


class GroupedRegression(LogisticRegression):
    """Logistic regression, retrained without disjoint random groups."""

    def groups(self, share: float, count: int) -> np.ndarray:
        n = len(self.y)
        size = round(share * n)
        labels = np.full(n, -1)
        labels[: count * size] = np.repeat(np.arange(count), size)
        return np.random.default_rng(0).permutation(labels)

    def changes_without(self, groups: np.ndarray) -> np.ndarray:
        before = self.query_losses(self.start)
        fits = [self.fit(groups != group) for group in range(groups.max() + 1)]
        return np.stack([self.query_losses(w) - before for w in fits], axis=1)

    def wrapped(self) -> InfluenceModel:
        regularizer = keras.regularizers.L2(self.penalty / 2)
        dense = layers.Dense(1, use_bias=False, kernel_regularizer=regularizer)
        network = keras.Sequential([keras.Input((30,)), dense])
        dense.kernel.assign(self.start[:, None])
        return InfluenceModel(network, loss_function=keras.losses.BinaryCrossentropy(True))


def test_second_order_is_nearer_to_retraining_than_first_order():
    problem = GroupedRegression(0.01)
    model, train = problem.wrapped(), batches((problem.x, problem.y.astype(float)), 100)
    queries = batches((problem.xq, problem.yq.astype(float)), 50)
    first = FirstOrderInfluenceCalculator(model, train)
    second = SecondOrderInfluenceCalculator(model, train)
    for share, count in ((0.01, 10), (0.03, 8), (0.1, 8), (0.3, 3)):
        groups = problem.groups(share, count)
        actual = problem.changes_without(groups)
        crude = first.predict_loss_change(queries, train, groups)
        for linearize in (True, False):
            predicted = second.predict_loss_change(queries, train, groups, linearize=linearize)
            errors = [np.linalg.norm(values - actual) for values in (predicted, crude)]
            assert errors[0] < (0.9 if linearize else 0.4) * errors[1], (share, errors)
            if share == 0.1:
                assert np.corrcoef(actual.ravel(), predicted.ravel())[0, 1] >= 0.98
