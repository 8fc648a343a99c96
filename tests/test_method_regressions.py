"""What once came out wrong without a word: each a small case that has to be right or refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.baselines import KNNShapley, RepresentationSimilarity
from deel_influence.calculators import CACHE, queries
from deel_influence.errors import (
    BatchError,
    DatasetOrderError,
    DataSourceError,
    NonFiniteError,
    SavedCurvatureError,
    UnknownLayerError,
)
from deel_influence.ihvp import ConjugateGradientDescentIHVP, ExactIHVP, IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator, InfluenceBreakdownCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close

layers = keras.layers
N, M = 23, 9
SPARSE = keras.losses.SparseCategoricalCrossentropy


def arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 4)).astype("float32"), generator.integers(0, 3, n)


def batches(n: int, seed: int, size: int = 8) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays(n, seed)).batch(size)


def network() -> BaseInfluenceModel:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", name="b"),
            layers.Dense(5, "tanh", name="c"),
            layers.Dense(3, name="d"),
        ]
    )
    return BaseInfluenceModel(model, loss_function=SPARSE(from_logits=True))


TRAIN, QUERIES = batches(N, 0), batches(M, 1, 2)
KNOWN = {row.tobytes(): 100 + i for i, row in enumerate(arrays(N, 0)[0])}
KNOWN |= {row.tobytes(): i for i, row in enumerate(arrays(M, 1)[0])}


def id_fn(batch: tuple) -> np.ndarray:
    return np.array([KNOWN[row.tobytes()] for row in batch[0].numpy()])


@pytest.fixture
def reshuffled(monkeypatch) -> tf.data.Dataset:
    """The training set in another order at each pass, of which there are several."""
    monkeypatch.setattr(queries, "MAX_CHUNK_BYTES", 1)
    examples = tf.data.Dataset.from_tensor_slices(arrays(N, 0))
    return examples.shuffle(N, reshuffle_each_iteration=True).batch(8)


def test_columns_stand_under_their_ids_though_every_pass_has_another_order(reshuffled):
    model = network()
    calculator = InfluenceBreakdownCalculator(model, TRAIN, IdentityIHVP(model))
    matrix, _, ids = calculator.influence_matrix(QUERIES, reshuffled, return_ids=True, id_fn=id_fn)
    expected = calculator.influence_matrix(QUERIES, TRAIN)
    assert_close(matrix[:, np.argsort(ids)], expected, 1e-5)
    found = calculator.influence_by_layer(QUERIES, reshuffled, id_fn=id_fn)
    total = found.values.sum(axis=0)
    assert_close(total[:, np.argsort(found.train_ids)], expected, 1e-5)


def test_results_that_go_by_position_need_a_fixed_order(reshuffled):
    model = network()
    calculator = FirstOrderInfluenceCalculator(model, TRAIN, IdentityIHVP(model))
    with pytest.raises(DatasetOrderError, match="same order on every pass"):
        calculator.influence_matrix(QUERIES, reshuffled, id_fn=id_fn)
    with pytest.raises(DatasetOrderError, match="same order on every pass"):
        calculator.predict_loss_change(QUERIES, reshuffled, np.arange(N) % 2, id_fn=id_fn)


def test_ids_that_do_not_tell_examples_apart_are_refused(reshuffled):
    model = network()
    calculator = FirstOrderInfluenceCalculator(model, TRAIN, IdentityIHVP(model))
    with pytest.raises(DatasetOrderError, match="each with an id of its own"):
        calculator.influence_matrix(
            QUERIES, reshuffled, return_ids=True, id_fn=lambda batch: id_fn(batch) // 2
        )


@pytest.mark.parametrize("strategy", [ExactIHVP, ConjugateGradientDescentIHVP])
def test_a_model_that_was_trained_further_is_not_scored_with_its_old_curvature(strategy):
    model = network()
    ihvp = strategy(model, train_dataset=TRAIN, damping=1.0)
    calculator = FirstOrderInfluenceCalculator(model, TRAIN, ihvp)
    before = calculator.score(TRAIN).values
    weights = model.model.get_weights()
    model.model.set_weights([2 * w for w in weights])
    for compute in (calculator.score, lambda d: calculator.influence_matrix(QUERIES, d)):
        with pytest.raises(SavedCurvatureError, match="must not change.*Fit again"):
            compute(TRAIN)
    model.model.set_weights(weights)
    assert_close(calculator.score(TRAIN), before, 1e-6)


def test_solves_over_the_data_see_the_logits_behind_a_softmax_that_is_no_layer():
    """Keras finds them in a graph only; eagerly it would clip the probabilities."""
    x = np.array([[40.0], [-1.0], [0.5]], "float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, np.array([0, 0, 1]))).batch(2)
    inputs = keras.Input((1,))
    logits = layers.Dense(2, name="head")(inputs)
    outputs = layers.Lambda(tf.nn.softmax)(logits)
    keras_model = keras.Model(inputs, outputs)
    keras_model.get_layer("head").set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
    model = InfluenceModel(keras_model, "head", loss_function=SPARSE())
    scores = [
        FirstOrderInfluenceCalculator(model, dataset, ihvp, normalize=normalize).score(dataset)
        for normalize in (False, "loss")
        for ihvp in (
            ExactIHVP(model, dataset, damping=1.0),
            ConjugateGradientDescentIHVP(model, train_dataset=dataset, damping=1.0, tolerance=1e-6),
        )
    ]
    assert scores[0].values[0] > 100
    assert_close(scores[1], scores[0], 1e-3)
    assert_close(scores[3], scores[2], 1e-3)


def test_saved_vectors_of_another_layer_or_loss_are_refused(tmp_path):
    model = network()
    path = tmp_path / "vectors"
    options = {"influence_vector_in_cache": CACHE.DISK, "load_influence_vector_ds_path": path}
    RepresentationSimilarity(model, "b").compute_influence_vector(TRAIN, path)
    with pytest.raises(DataSourceError):
        RepresentationSimilarity(model, "c").top_k(QUERIES, TRAIN, 2, **options)
    scaled = BaseInfluenceModel(model.model, loss_function="poisson")
    FirstOrderInfluenceCalculator(model, TRAIN, "identity").compute_influence_vector(TRAIN, path)
    with pytest.raises(DataSourceError):
        FirstOrderInfluenceCalculator(scaled, TRAIN, "identity").top_k(QUERIES, TRAIN, 2, **options)


def test_neighbours_among_features_that_are_not_finite_are_refused():
    model = network()
    kernel = model.model.get_layer("b").kernel
    kernel.assign(np.where(np.eye(4, 5) == 1, np.nan, 0.0))
    with pytest.raises(NonFiniteError, match="'.*b/kernel' with 4 of 20 entries NaN"):
        KNNShapley(model).score(TRAIN)


@pytest.mark.parametrize(
    "labels", [np.tile([1, 1, 0], (N, 1)), np.linspace(0, 1, N, dtype="float32")]
)
def test_neighbours_vote_for_one_class_only(labels):
    model = BaseInfluenceModel(network().model, loss_function=lambda _, y: tf.reduce_sum(y, -1))
    data = tf.data.Dataset.from_tensor_slices((arrays(N, 0)[0], labels)).batch(8)
    with pytest.raises(BatchError, match="Batch 0 .*labels must be"):
        KNNShapley(model).score(data)


def test_a_layer_that_is_not_watched_is_named():
    model = network()
    calculator = InfluenceBreakdownCalculator(model, TRAIN, IdentityIHVP(model))
    found = calculator.influence_by_layer(QUERIES, TRAIN)
    with pytest.raises(UnknownLayerError, match="one of those watched, .*/d'.*Received: 'e'"):
        found["e"]
