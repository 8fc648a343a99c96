"""SOURCE against dense exponentials of the curvature, and against the training itself."""

from __future__ import annotations

import copy
import pickle

import keras
import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from deel_influence.errors import DataSourceError
from deel_influence.gradients.passes import Pass
from deel_influence.ihvp import EKFACIHVP
from deel_influence.model import BaseInfluenceModel
from deel_influence.trac_in import SOURCE, CheckpointRecorder
from tests.oracles import assert_close
from tests.trac_in.training import (
    RATES,
    M,
    N,
    Training,
    arrays,
    dataset,
    layers,
    plain,
    trained,
    with_skips,
)

pytestmark = pytest.mark.usefixtures("float64")
STEPS = (3, 7)
DAMPING = 0.05
SETTINGS = {"fisher": "empirical", "damping": DAMPING, "verbose": 0}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("checkpoints")}


@pytest.fixture(params=[plain, with_skips], ids=["plain", "with-skips"])
def training(request, trainings, float64) -> Training:
    if request.param not in trainings:
        trainings[request.param] = trained(request.param, trainings["folder"])
    return trainings[request.param]


@pytest.fixture
def plain_training(trainings, float64) -> Training:
    if plain not in trainings:
        trainings[plain] = trained(plain, trainings["folder"])
    return trainings[plain]


def source(training: Training, **settings) -> SOURCE:
    given = {"num_segments": 2, **SETTINGS, **settings}
    data = dataset(N, 0, 10)
    return SOURCE(training.fresh, data, training.files, RATES, STEPS, **given)


def curvature(model: BaseInfluenceModel) -> np.ndarray:
    """The EKFAC curvature of one checkpoint, ``(p, p)``."""
    fit = EKFACIHVP(model, dataset(N, 0, 7), fisher="empirical", damping=DAMPING, verbose=0)
    return np.asarray(fit.multiply(tf.eye(model.nb_params, dtype=tf.float64)))


def expected(training: Training, momentum: float = 0.0) -> np.ndarray:
    """The scores ``(m, n)``, a segment for each checkpoint, by dense exponentials."""
    times = np.array(RATES) * np.diff(STEPS, prepend=0) / (1 - momentum)
    vectors, scores = training.query_rows[-1], 0.0
    for t in reversed(range(len(RATES))):
        hessian = curvature(training.models[t])
        left = scipy.linalg.expm(-times[t] * hessian)
        done = np.linalg.solve(hessian, np.eye(len(hessian)) - left)
        scores = scores + vectors @ done @ training.train_rows[t].T
        vectors = vectors @ left
    return scores


def test_scores_are_those_of_dense_exponentials(training):
    found = source(training).influence_matrix(dataset(M, 1, 4), dataset(N, 0, 6), verbose=0)
    assert_close(found, expected(training), 1e-8)


def test_momentum_makes_the_way_longer(plain_training):
    calculator = source(plain_training, momentum=0.5)
    found = calculator.influence_matrix(dataset(M, 1, 4), dataset(N, 0, 6), verbose=0)
    assert_close(found, expected(plain_training, 0.5), 1e-8)


BATCH, EPSILON = 8, 1e-4


def adam_parts(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``D^½`` and EKFAC's ``D^½ H D^½`` of two Dense layers, from the gradients ``(n, p)``."""
    roots, hessian, start = [], np.zeros((rows.shape[1],) * 2), 0
    for r, s in ((5, 5), (6, 3)):
        matrices = rows[:, start : start + r * s].reshape(-1, r, s)
        means = np.mean(matrices**2, axis=0) / BATCH + (1 - 1 / BATCH) * matrices.mean(axis=0) ** 2
        spread = np.sqrt(means)
        sides = [spread.mean(axis=axis) / np.sqrt(spread.mean()) for axis in (1, 0)]
        left, right = (1 / np.sqrt(side + np.sqrt(EPSILON)) for side in sides)
        scaled = left[:, None] * matrices * right
        deltas = scaled[:, -1] / left[-1]  # the gradient of the bias, whose input is one
        inputs = np.einsum("nrs,ns->nr", scaled, deltas) / np.sum(deltas**2, axis=1)[:, None]
        of_inputs = np.linalg.eigh(inputs.T @ inputs)[1]
        of_deltas = np.linalg.eigh(deltas.T @ deltas)[1]
        values = np.mean((of_inputs.T @ scaled @ of_deltas) ** 2, axis=0)
        basis = np.kron(of_inputs, of_deltas)
        end = start + r * s
        hessian[start:end, start:end] = (basis * values.ravel()) @ basis.T
        roots.append(np.outer(left, right).ravel())
        start = end
    return np.concatenate(roots), hessian + DAMPING * np.eye(len(hessian))


def test_steps_of_adam_are_those_of_dense_exponentials(plain_training):
    times = np.array(RATES) * np.diff(STEPS, prepend=0)
    vectors, scores = plain_training.query_rows[-1], 0.0
    for t in reversed(range(len(RATES))):
        root, scaled = adam_parts(plain_training.train_rows[t])
        left = scipy.linalg.expm(-times[t] * scaled)
        done = np.linalg.solve(scaled, np.eye(len(scaled)) - left)
        scores = scores + (vectors * root) @ done @ (plain_training.train_rows[t] * root).T
        vectors = (vectors * root) @ left / root
    calculator = source(plain_training, optimizer="adam", batch_size=BATCH, epsilon=EPSILON)
    found = calculator.influence_matrix(dataset(M, 1, 4), dataset(N, 0, 6), verbose=0)
    assert_close(found, scores, 1e-8)


def test_adam_goes_over_layers_without_two_factors(trainings, float64):
    # Scales and shifts of batch normalisation, beside Dense layers.
    training = trained(with_skips, trainings["folder"])
    calculator = source(training, optimizer="adam", batch_size=BATCH)
    train = dataset(N, 0, 6)
    found = calculator.influence_matrix(train, train, verbose=0)
    assert np.isfinite(found).all()
    assert_close(calculator.score(train, verbose=0).values, np.diag(found), 1e-9)
    # H is positive semi-definite: an example's own steps lower its own loss.
    assert (np.diag(found) > 0).mean() > 0.5


def test_the_self_influence_is_the_diagonal_of_the_pairs(training):
    calculator = source(training, num_segments=1)
    train = dataset(N, 0, 6)
    found = calculator.score(train, verbose=0).values
    assert_close(found, np.diag(calculator.influence_matrix(train, train, verbose=0)), 1e-9)


def test_vectors_have_the_scores_as_their_products(plain_training):
    calculator = source(plain_training)
    train = dataset(N, 0, 6)
    vectors = np.concatenate([v for _, v in calculator.compute_influence_vector(train)])
    assert vectors.shape == (N, 2 * plain_training.fresh.nb_params)
    asked = Pass(dataset(M, 1, 4), "queries", verbose=0)
    queries = np.concatenate([rows for _, rows in calculator.asking_vectors(asked)])
    assert_close(queries @ vectors.T, expected(plain_training), 1e-8)


def test_a_segment_has_the_mean_of_its_checkpoints(plain_training):
    # Two checkpoints with the same weights are one with the steps of both.
    files = [plain_training.files[1]] * 2
    data, queries = dataset(N, 0, 10), dataset(M, 1, 4)
    given = {**SETTINGS, "num_segments": 1}
    twice = SOURCE(plain_training.fresh, data, files, RATES, STEPS, **given)
    time = np.dot(RATES, np.diff(STEPS, prepend=0))
    once = SOURCE(plain_training.fresh, data, files[:1], time / 10, [10], **given)
    found = twice.influence_matrix(queries, data, verbose=0)
    assert_close(found, once.influence_matrix(queries, data, verbose=0), 1e-9)


def test_without_curvature_it_is_the_sum_of_all_steps(plain_training):
    # Over a short time nothing decays: the score is that of TracIn, with the steps as weights.
    rates = 1e-9 * np.array(RATES)
    data = dataset(N, 0, 10)
    calculator = SOURCE(
        plain_training.fresh, data, plain_training.files, rates, STEPS, num_segments=2, verbose=0
    )
    found = calculator.influence_matrix(dataset(M, 1, 4), data, verbose=0)
    weights = rates * np.diff(STEPS, prepend=0)
    last = plain_training.query_rows[-1]
    rows = zip(weights, plain_training.train_rows, strict=True)
    assert_close(found, sum(weight * last @ row.T for weight, row in rows), 1e-6)


def descended(x, y, weights, start, rate, steps):
    """Least squares by gradient descent, with the weight of each example; all points passed."""
    points = [start]
    for _ in range(steps):
        residuals = (x @ points[-1] - y) * weights
        points.append(points[-1] - rate * 2 * x.T @ residuals / len(x))
    return points


def test_with_a_checkpoint_after_each_step_it_is_the_derivative_of_the_training():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(20, 3)), generator.normal(size=20)
    start, rate, steps, moved = generator.normal(size=3), 0.004, 60, 1e-5
    net = keras.Sequential([keras.Input((3,)), layers.Dense(1, use_bias=False)])
    model = BaseInfluenceModel(net, loss_function=keras.losses.MeanSquaredError())

    def at(point: np.ndarray) -> BaseInfluenceModel:
        twin = keras.models.clone_model(net)
        twin.set_weights([point[:, None]])
        return BaseInfluenceModel(twin, loss_function=keras.losses.MeanSquaredError())

    points = descended(x, y, np.ones(20), start, rate, steps)[1:]
    data = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(8)
    calculator = SOURCE(
        *(model, data, [at(p) for p in points[::6]], rate, range(6, steps + 6, 6)),
        num_segments=10,
        fisher="expected",
        verbose=0,
    )
    found = calculator.influence_matrix(data, data, verbose=0)
    changes = []
    for i in range(20):
        ends = [
            descended(x, y, 1 + sign * moved * np.eye(20)[i], start, rate, steps)[-1]
            for sign in (1, -1)
        ]
        losses = [(x @ end - y) ** 2 for end in ends]
        changes.append((losses[0] - losses[1]) / (2 * moved))
    # Steps are short, so that exponentials and products of steps differ by a few per cent.
    assert_close(found, -20 * np.stack(changes, axis=1), 0.05)


def test_a_recorded_training_tells_rates_and_steps(tmp_path):
    model = plain()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    recorder = CheckpointRecorder(tmp_path, every_epochs=1)
    model.fit(*arrays(N, 0), batch_size=8, epochs=3, verbose=0, callbacks=[recorder])
    found = SOURCE.from_folder(
        BaseInfluenceModel(model), dataset(N, 0, 10), tmp_path, num_segments=2, verbose=0
    )
    assert [segment.num_checkpoints for segment in found.segments] == [2, 1]
    np.testing.assert_allclose([segment.time for segment in found.segments], [0.6, 0.3], 1e-6)


def test_copies_and_pickles_give_the_same(plain_training):
    calculator = source(plain_training)
    asked = dataset(M, 1, 4), dataset(N, 0, 6)
    whole = calculator.influence_matrix(*asked, verbose=0)
    for twin in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        np.testing.assert_array_equal(twin.influence_matrix(*asked, verbose=0), whole)
        assert twin.origin() == calculator.origin()


def test_another_fit_has_another_origin(plain_training):
    origins = {
        source(plain_training, **given).origin()
        for given in ({}, {"momentum": 0.1}, {"damping": 0.1}, {"num_segments": 1})
    }
    assert len(origins) == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_segments": 3}, "`num_segments` must not be above the number of checkpoints"),
        ({"num_segments": 0}, "`num_segments` must be a whole number >= 1"),
        ({"momentum": 1.0}, "`momentum` must be from 0 to below 1"),
        ({"fisher": "none"}, "`fisher` must be one of"),
        ({"optimizer": "lion"}, "`optimizer` must be one of"),
        ({"optimizer": "adam"}, "`batch_size` must be a whole number >= 1"),
    ],
)
def test_settings_out_of_range_are_refused(plain_training, given, message):
    with pytest.raises(ValueError, match=message):
        source(plain_training, **given)


@pytest.mark.parametrize("steps", [(3,), (3, 3), (7, 3)])
def test_steps_that_do_not_grow_are_refused(plain_training, steps):
    with pytest.raises(ValueError, match="`steps` must tell for each checkpoint"):
        SOURCE(
            *(plain_training.fresh, dataset(N, 0, 10), plain_training.files, RATES, steps),
            num_segments=2,
        )


def test_a_file_that_is_not_there_is_refused(plain_training, tmp_path):
    with pytest.raises(DataSourceError, match="must be a file with weights"):
        SOURCE(plain_training.fresh, dataset(N, 0, 10), [tmp_path / "no.h5"], 0.1, [3])
