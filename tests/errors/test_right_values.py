"""What looks like a bad input and is none: the right numbers come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.common import ExactIHVP, InfluenceModel
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.report import run_triage
from deel_influence.rps import RepresenterPointL2
from deel_influence.utils.tensors import stacked
from tests.errors.small import CE, D, N, X, Y, batches, network
from tests.oracles import assert_close

POSITIVE = np.maximum(X, 0)


def sparse() -> tf.data.Dataset:
    return batches(tf.sparse.from_dense(POSITIVE), Y, size=5)


def in_dict(data: tf.data.Dataset) -> tf.data.Dataset:
    return data.map(lambda x, y: ({"a": x, "b": x}, y))


def of_two_inputs(is_sparse: bool) -> keras.Model:
    keras.utils.set_random_seed(2)
    inputs = {
        "a": keras.Input((D,), sparse=is_sparse, name="a"),
        "b": keras.Input((D,), name="b"),
    }
    hidden = [keras.layers.Dense(3)(part) for part in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.add(hidden)))
    model.compile(loss=CE)
    return model


def first_order(strategy: str) -> Callable[[InfluenceModel, tf.data.Dataset], Any]:
    def score(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
        calculator = FirstOrderInfluenceCalculator(model, data, strategy, seed=0)
        return calculator.influence_matrix(data, data, verbose=0)

    return score


def sampled(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
    strategy = ExactIHVP(model, data, damping=0.1, n_samples_for_hessian=7, seed=0)
    return FirstOrderInfluenceCalculator(model, data, strategy).score(data, verbose=0).values


def lazy(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
    calculator = FirstOrderInfluenceCalculator(model, data, "identity")
    return np.concatenate([scores for _, scores in calculator.compute_influence_values(data)])


def found(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
    calculator = FirstOrderInfluenceCalculator(model, data, "identity")
    return np.concatenate([samples for _, _, samples in calculator.top_k(data, data, k=2)])


def represented(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
    calculator = RepresenterPointL2(model, data, lambda_regularization=0.1)
    return calculator.score(data, verbose=0).values


def triaged(model: InfluenceModel, data: tf.data.Dataset) -> np.ndarray:
    calculator = FirstOrderInfluenceCalculator(model, data, "identity")
    return run_triage(model, calculator, data, verbose=0).losses


WAYS = {
    **{name: first_order(name) for name in ("identity", "cgd", "ekfac")},
    "sampled": sampled,
    "lazy": lazy,
    "top k": found,
    "representer": represented,
    "triage": triaged,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_sparse_batches_give_what_dense_ones_give(way: Callable) -> None:
    given = network(inputs=keras.Input((D,), sparse=True))
    dense = way(InfluenceModel(network()), batches(POSITIVE, Y, size=5))
    assert_close(way(InfluenceModel(given), sparse()), dense, rtol=1e-4)


def test_sparse_batches_in_dicts_give_what_dense_ones_give() -> None:
    way = first_order("identity")
    dense = way(InfluenceModel(of_two_inputs(False)), in_dict(batches(POSITIVE, Y, size=5)))
    assert_close(way(InfluenceModel(of_two_inputs(True)), in_dict(sparse())), dense, rtol=1e-4)


def test_scores_of_sparse_batches_are_those_of_automatic_differentiation() -> None:
    model = InfluenceModel(network(inputs=keras.Input((D,), sparse=True)))
    calculator = FirstOrderInfluenceCalculator(model, sparse(), "identity")
    rows = InfluenceModel(network()).batch_jacobian_tensor((POSITIVE, Y)).numpy()
    assert_close(calculator.score(sparse(), verbose=0).values, (rows**2).sum(axis=1), rtol=1e-4)


def padded_batches() -> tf.data.Dataset:
    generator = np.random.default_rng(3)
    lengths = [2, 5, 3, 7, 4, 6, 2, 3, 5]
    texts = [generator.integers(1, 9, length) for length in lengths]
    signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.int64))
    single = tf.data.Dataset.from_generator(
        lambda: zip(texts, Y, strict=False), output_signature=signature
    )
    return single.padded_batch(3, padded_shapes=([None], []))


@pytest.fixture(scope="module")
def reader() -> FirstOrderInfluenceCalculator:
    keras.utils.set_random_seed(4)
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    pooling = keras.layers.GlobalAveragePooling1D()
    inputs = keras.Input((None,), dtype="int32")
    model = InfluenceModel(network(embedding, pooling, keras.layers.Dense(3), inputs=inputs))
    return FirstOrderInfluenceCalculator(model, padded_batches(), "identity")


def test_batches_padded_to_lengths_of_their_own_are_searched(reader) -> None:
    data = padded_batches()
    matrix = reader.influence_matrix(data, data, verbose=0)
    rows = [np.asarray(scores) for _, scores, _ in reader.top_k(data, data, k=4)]
    assert_close(np.concatenate(rows), np.sort(matrix, axis=1)[:, :-5:-1], rtol=1e-5)


def test_the_longest_example_that_is_found_gives_the_length_of_all(reader) -> None:
    data = padded_batches()
    texts, scores, ids = reader.compute_top_k_from_training_dataset(data, 9, return_ids=True)
    assert texts.shape == (9, 7)
    whole = {i: row for i, row in enumerate(row for batch, _ in data for row in batch.numpy())}
    for text, number in zip(texts.numpy(), ids.numpy(), strict=True):
        np.testing.assert_array_equal(np.trim_zeros(text), np.trim_zeros(whole[number]))
    assert_close(scores, np.sort(reader.score(data, verbose=0).values)[::-1], rtol=1e-6)


def test_texts_are_padded_with_empty_ones() -> None:
    rows = [np.array([b"a"], object), np.array([b"b", b"c"], object)]
    assert stacked(rows).tolist() == [[b"a", b""], [b"b", b"c"]]


# Outputs a, b and c in nests, the losses as `compile` takes them, and the weights of those.
A, B, W = Y[:8] % 3, X[:8, :1], X[:8, :2]
NESTS: dict[str, tuple] = {
    "a dict in a list": (
        lambda a, b, c: [{"a": a, "b": b}, c],
        [{"a": CE, "b": "mse"}, "mae"],
        None,
    ),
    "a dict in a dict": (
        lambda a, b, c: {"p": {"a": a, "b": b}, "q": c},
        {"p": {"a": CE, "b": "mse"}, "q": "mae"},
        None,
    ),
    "a list in a dict": (
        lambda a, b, c: {"p": [a, b], "q": c},
        {"p": [CE, "mse"], "q": "mae"},
        None,
    ),
    "a flat list for a nest": (lambda a, b, c: [[a, b], c], [CE, "mse", "mae"], None),
    "names for a nest": (
        lambda a, b, c: [[a, b], c],
        {"a": CE, "b": "mse", "c": "mae"},
        None,
    ),
    "one loss for a nest": (lambda a, b, c: {"p": [b, c], "q": c}, "mse", None),
    "a list for one output": (lambda a, b, c: a, [CE], None),
}


@pytest.mark.parametrize(("nest", "loss", "weights"), NESTS.values(), ids=NESTS)
def test_losses_in_nests_are_those_of_keras(nest: Callable, loss: Any, weights: Any) -> None:
    keras.utils.set_random_seed(5)
    inputs = keras.Input((D,))
    sizes = {"a": 3, "b": 1, "c": 2}
    outputs = {name: keras.layers.Dense(size, name=name)(inputs) for name, size in sizes.items()}
    model = keras.Model(inputs, nest(**outputs))
    model.compile(loss=loss, loss_weights=weights)
    targets = nest(A, B, W)
    whole = model.evaluate(X[:8], targets, batch_size=8, verbose=0)
    expected = whole[0] if isinstance(whole, list) else whole
    losses = InfluenceModel(model, start_layer=1).per_example_losses((X[:8], targets))
    assert losses.shape == (8,)
    assert_close(np.mean(losses), expected, rtol=1e-5)


def test_a_layer_frozen_after_the_fit_changes_nothing() -> None:
    model = network()
    wrapped = InfluenceModel(model)
    calculator = FirstOrderInfluenceCalculator(wrapped, batches(), "identity")
    before = calculator.score(batches(), verbose=0).values
    model.layers[-1].trainable = False
    assert_close(calculator.score(batches(), verbose=0).values, before, rtol=1e-6)
    measured = FirstOrderInfluenceCalculator(wrapped, batches(), "identity", measurement="margin")
    assert measured.influence_matrix(batches(), batches(), verbose=0).shape == (N, N)


def test_a_model_of_a_fixed_batch_size_is_scored_where_it_takes_others() -> None:
    fixed = InfluenceModel(network(inputs=keras.Input((D,), batch_size=4)))
    usual = FirstOrderInfluenceCalculator(InfluenceModel(network()), batches(), "identity")
    calculator = FirstOrderInfluenceCalculator(fixed, batches(), "identity")
    scores = calculator.score(batches(size=5), verbose=0).values
    assert_close(scores, usual.score(batches(), verbose=0).values, rtol=1e-5)
