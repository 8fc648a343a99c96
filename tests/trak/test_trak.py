"""TRAK against a dense implementation in NumPy, with the same projection matrix."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import CACHE
from deel_influence.errors import SavedCurvatureError
from deel_influence.gradients.projections import GaussianProjection, SJLTProjection
from deel_influence.model import BaseInfluenceModel
from deel_influence.trak import TRAK
from deel_influence.trak.kernel import kernel_inverse
from tests.oracles import assert_close
from tests.trak.problems import (
    CLASSES,
    QUERIES,
    TRAIN,
    M,
    N,
    batches,
    data,
    dense_trak,
    matrix_of,
    network,
    wrapped,
)

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")


def matrices_of(model: BaseInfluenceModel, count: int, k: int = 9) -> list[np.ndarray]:
    """Return the matrices of sparse projections for checkpoints, from their seeds."""
    words = [np.random.SeedSequence(0, spawn_key=(t,)).generate_state(1) for t in range(count)]
    seeds = [0, *(int(word[0]) for word in words[1:])]
    return [matrix_of(SJLTProjection(model, k, seed=seed)) for seed in seeds]


SETTINGS = {
    "rademacher": (None, {"projection": "rademacher", "projection_dim": 9}),
    "logra": (None, {"projection": "logra", "projection_dim": (2, 2)}),
    "sjlt-probabilities": ("softmax", {"projection": "sjlt", "projection_dim": 9}),
}


@pytest.mark.parametrize(("activation", "options"), SETTINGS.values(), ids=SETTINGS)
def test_scores_equal_those_of_a_dense_implementation(activation, options):
    net = network(activation)
    trak = TRAK(wrapped(net), batches(), damping=0.3, verbose=0, **options)
    expected, own = dense_trak([net], [matrix_of(trak.projection)], 0.3)
    scores = trak.influence_matrix(batches(*QUERIES, 2), batches(size=7), verbose=0)
    assert_close(scores, expected, 1e-8)
    assert_close(trak.score(batches(size=11), verbose=0).values, np.diag(own), 1e-8)
    assert (np.diag(own) > 0).all()


@pytest.mark.parametrize("kind", ["live", "files"])
def test_checkpoints_are_averaged_products_and_weights_apart(kind, tmp_path):
    nets = [network() for _ in range(2)]
    models = [wrapped(net) for net in nets]
    paths = [tmp_path / f"{t}.weights.h5" for t in range(2)]
    for net, path in zip(nets, paths, strict=True):
        net.save_weights(path)
    before = [weight.copy() for net in nets for weight in net.get_weights()]
    checkpoints, model = {"live": (models, None), "files": (paths, models[0])}[kind]
    trak = TRAK(checkpoints, batches(), "sjlt", 9, damping=0.3, model=model, verbose=0)
    expected, own = dense_trak(nets, matrices_of(models[0], 2), 0.3)
    scores = trak.influence_matrix(batches(*QUERIES, 2), batches(), verbose=0)
    assert_close(scores, expected, 1e-10)
    assert_close(trak.score(batches(), verbose=0).values, np.diag(own), 1e-10)
    after = [weight for net in nets for weight in net.get_weights()]
    assert all(np.array_equal(a, b) for a, b in zip(after, before, strict=True))


def test_vectors_in_memory_and_on_disk_give_the_scores_of_all_checkpoints(tmp_path):
    nets = [network() for _ in range(2)]
    trak = TRAK([wrapped(net) for net in nets], batches(), "sjlt", 9, damping=0.3, verbose=0)
    expected, _ = dense_trak(nets, matrices_of(trak.model, 2), 0.3)
    path = tmp_path / "vectors"
    vectors = np.concatenate([v for _, v in trak.compute_influence_vector(batches(), path)])
    assert vectors.shape == (N, 2 * 9)
    for cache in (CACHE.MEMORY, CACHE.DISK):
        rows = []
        for _, scored in trak.estimate_influence_values_in_batches(
            batches(*QUERIES, 2),
            batches(),
            cache,
            load_influence_vector_path=path if cache is CACHE.DISK else None,
        ):
            rows.append(np.concatenate([values for _, values in scored], axis=1))
        assert_close(np.concatenate(rows), expected, 1e-10)


def own_margin(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    labels = tf.cast(tf.reshape(targets, (-1,)), tf.int32)
    correct = tf.gather(tf.nn.softmax(outputs), labels, batch_dims=1)
    return tf.math.log(correct) - tf.math.log(1 - correct)


@pytest.mark.parametrize("output_function", ["margin", own_margin])
def test_the_pull_is_the_slope_of_the_loss_sample_weights_included(output_function):
    net, (x, y), weights = network(), data(), np.linspace(0.5, 2.0, N)
    weighted = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(8)
    options = {"damping": 0.3, "output_function": output_function, "verbose": 0}
    trak = TRAK(wrapped(net), batches(), "sjlt", 9, **options)
    expected, _ = dense_trak([net], [matrix_of(trak.projection)], 0.3)
    scores = trak.influence_matrix(batches(*QUERIES), weighted, verbose=0)
    assert_close(scores, expected * weights, 1e-9)


def test_a_binary_model_with_one_logit_has_a_margin():
    net = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    x, y = data()
    y = (y > 0).astype("float64")[:, None]
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    trak = TRAK(BaseInfluenceModel(net, loss_function=loss), dataset, verbose=0)
    sign = 2 * y - 1
    features = sign * np.concatenate([x, np.ones((N, 1))], axis=1)
    pull = 1 / (1 + np.exp(sign * net(x).numpy()))
    expected = features @ np.linalg.solve(features.T @ features, features.T) * pull.T
    assert_close(trak.influence_matrix(dataset, dataset, verbose=0), expected, 1e-10)


def test_linear_regression_tells_the_change_of_predictions_when_an_example_is_left_out():
    """For least squares ``f(z) - f₋ᵢ(z) = xᵀ(XᵀX)⁻¹xᵢ rᵢ / (1 - hᵢ)``, so signs are right too."""
    net = keras.Sequential([keras.Input((4,)), layers.Dense(1, use_bias=False)])
    x, _ = data()
    y = x @ np.array([[1.0], [-2.0], [0.5], [0.0]]) + np.random.default_rng(3).normal(size=(N, 1))
    net.layers[0].kernel.assign(np.linalg.lstsq(x, y, rcond=None)[0])
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    queries = tf.data.Dataset.from_tensor_slices((data(M, 1)[0], np.zeros((M, 1)))).batch(2)
    trak = TRAK(
        BaseInfluenceModel(net, loss_function="mse"),
        dataset,
        output_function=lambda _, outputs: outputs[:, 0],
        verbose=0,
    )
    scores = trak.influence_matrix(queries, dataset, verbose=0)
    leverages = np.diag(x @ np.linalg.solve(x.T @ x, x.T))
    queried = data(M, 1)[0]
    for i in range(0, N, 7):
        kept = np.arange(N) != i
        change = queried @ (net.layers[0].kernel - np.linalg.lstsq(x[kept], y[kept], rcond=None)[0])
        # The slope of the squared error is twice the residual.
        assert_close(scores[:, i] / 2 / (1 - leverages[i]), change[:, 0], 1e-9)


def test_a_projection_of_ones_own_and_seeds():
    model = wrapped(network())
    given = GaussianProjection(model, 6, seed=8)
    assert TRAK(model, batches(), given, damping=1.0, verbose=0).projection is given
    same = [TRAK(model, batches(), "gaussian", 6, 1.0, seed, verbose=0) for seed in (8, 9)]
    assert_close(matrix_of(same[0].projection), matrix_of(given), 1e-14)
    assert not np.allclose(*(matrix_of(trak.projection) for trak in same))


def test_automatic_damping_is_a_tenth_of_the_mean_eigenvalue():
    features = np.random.default_rng(0).normal(size=(3, 5))
    moments = features.T @ features
    expected = np.linalg.inv(moments + 0.1 * np.trace(moments) / 5 * np.eye(5))
    assert_close(kernel_inverse(moments, "auto", 3), expected, 1e-10)


def test_more_features_than_examples_need_a_damping():
    with pytest.raises(ValueError, match=r"span all .*60.*30 examples .*Pass a larger damping"):
        TRAK(wrapped(network()), batches(), "gaussian", 60, verbose=0)


def test_features_that_depend_on_each_other_in_float32_are_noticed():
    keras.config.set_dtype_policy("float32")
    net = keras.Sequential([keras.Input((4,)), layers.Dense(CLASSES)])
    x, y = data()
    dataset = tf.data.Dataset.from_tensor_slices((x.astype("float32"), y)).batch(8)
    # The margin does not see what is added to all logits alike: ΦᵀΦ of all parameters is singular.
    with pytest.raises(ValueError, match="or only within rounding, at damping=0"):
        TRAK(wrapped(net), dataset, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"damping": -0.1}, r'`damping` must be a finite number >= 0 or "auto". Received: -0.1'),
        ({"damping": "small"}, r"`damping` must be .*Received: 'small'"),
        ({"projection": None}, r"`projection` of TRAK must be one of .*'sjlt'.*Received: None"),
        ({"projection": "fft"}, r"`projection` must be one of .*Received: 'fft'"),
        ({"output_function": "loss"}, r"`output_function` must be 'margin', 'logit'.*'loss'"),
        ({"models": []}, r"`models` must hold at least one model. Received: none"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TRAK(**{"models": wrapped(network()), "train_set": batches(), "verbose": 0} | options)


def test_a_model_that_was_trained_further_is_not_scored_with_its_old_kernel():
    net = network()
    model = wrapped(net)
    calculator = TRAK(model, batches(*TRAIN), "gaussian", 10, damping=1.0, verbose=0)
    net.set_weights([2 * w for w in net.get_weights()])
    with pytest.raises(SavedCurvatureError, match="models of a TRAK must not change"):
        calculator.score(batches(*TRAIN), verbose=0)


def test_files_need_the_model_that_they_are_weights_of(tmp_path: Path):
    with pytest.raises(TypeError, match=r"`model` must be given where `models` holds files"):
        TRAK(str(tmp_path / "a.weights.h5"), batches())
    with pytest.raises(TypeError, match=r"Wrap the Keras model: InfluenceModel\(model\)"):
        TRAK(network(), batches())


def test_a_projection_for_other_weights_is_refused():
    other = wrapped(keras.Sequential([keras.Input((4,)), layers.Dense(CLASSES)]))
    with pytest.raises(ValueError, match="made for watched weights of the same shapes"):
        TRAK(wrapped(network()), batches(), SJLTProjection(other, 5))
