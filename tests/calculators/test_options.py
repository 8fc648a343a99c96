"""What callers may choose: files, dtypes, searches, and batches and inputs of other forms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import CACHE
from deel_influence.errors import IgnoredArgumentWarning
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.utils import ORDER
from deel_influence.utils.nearest_neighbors import LinearNearestNeighbors
from tests.oracles import assert_close

layers = keras.layers
N, M, K = 13, 5, 3
# The models are float32, and the same products are taken in another order.
RTOL = 2e-4


def tabular(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, 4)).astype("float32"), labels(n, seed)


def labels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 100).integers(0, 3, n)


def batched(parts: Any, size: int = 4) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def classifier() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(3)])


def calculator_of(model: keras.Model, **options: object) -> FirstOrderInfluenceCalculator:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    wrapped = BaseInfluenceModel(model, loss_function=loss, **options)
    dataset = tf.data.Dataset.from_tensors((np.zeros((1, 1)), np.zeros((1, 1))))
    return FirstOrderInfluenceCalculator(wrapped, dataset, IdentityIHVP(wrapped))


def assert_same_elements(actual: tf.data.Dataset, expected: tf.data.Dataset) -> None:
    for one, other in zip(actual, expected, strict=True):
        tf.nest.assert_same_structure(one, other)
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def calculator() -> FirstOrderInfluenceCalculator:
    return calculator_of(classifier())


TRAIN, QUERIES = batched(tabular(N, 0)), batched(tabular(M, 1), 2)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [(ORDER.ASCENDING, "by its name: order=ORDER.ASCENDING"), ("linear", "or leave it out")],
)
def test_what_is_no_search_is_refused_at_the_call(given, remedy, calculator):
    with pytest.raises(TypeError, match=f"`nearest_neighbors` must be None or.*{remedy}"):
        calculator.top_k(QUERIES, TRAIN, K, given)


def test_scores_in_batches_check_their_arguments_at_the_call(calculator):
    with pytest.raises(TypeError, match="`train_set` must be"):
        calculator.estimate_influence_values_in_batches(QUERIES, "nonsense")
    with pytest.raises(ValueError, match="vectors for CACHE.DISK.*or pass CACHE.MEMORY"):
        calculator.estimate_influence_values_in_batches(QUERIES, TRAIN, CACHE.DISK)


def test_a_path_to_load_from_has_no_effect_without_the_cache_and_says_so(calculator, tmp_path):
    with pytest.warns(IgnoredArgumentWarning, match="no effect without CACHE.DISK"):
        calculator.top_k(QUERIES, TRAIN, K, load_influence_vector_ds_path=tmp_path)


def test_saved_values_are_the_rows_of_the_matrix_with_their_ids(calculator, tmp_path):
    path = tmp_path / "deep" / "values"
    answers = calculator.estimate_influence_values_in_batches(
        QUERIES, TRAIN, save_influence_value_path=path
    )
    files = sorted(path.iterdir())  # written before anything is asked of the result
    assert [file.name for file in files] == [f"batch_{i:06d}.npz" for i in range(3)]
    saved = [dict(np.load(file)) for file in files]
    for part in saved:
        np.testing.assert_array_equal(part["train_ids"], np.arange(N))
    np.testing.assert_array_equal(np.concatenate([p["query_ids"] for p in saved]), np.arange(M))
    values = np.concatenate([part["values"] for part in saved])
    assert_close(values, calculator.influence_matrix(QUERIES, TRAIN), RTOL)
    again = [np.concatenate([v for _, v in scored], axis=1) for _, scored in answers]
    np.testing.assert_array_equal(np.concatenate(again), values)


@pytest.mark.parametrize("return_ids", [False, True], ids=["without-ids", "with-ids"])
def test_a_saved_top_k_is_loaded_as_it_was_returned(calculator, tmp_path, return_ids):
    path = tmp_path / "top_k"
    returned = calculator.top_k(QUERIES, TRAIN, K, save_top_k_ds_path=path, return_ids=return_ids)
    assert len(list(returned)) == 3
    assert_same_elements(tf.data.Dataset.load(str(path)), returned)


@pytest.mark.parametrize("d_type", [None, tf.float64, tf.float16], ids=str)
def test_top_k_scores_come_in_the_type_that_is_asked_for(calculator, d_type):
    found = calculator.top_k(QUERIES, TRAIN, K, d_type=d_type)
    assert found.element_spec[1].dtype == (d_type or tf.float32)
    plain = calculator.top_k(QUERIES, TRAIN, K)
    for (_, values, _), (_, expected, _) in zip(found, plain, strict=True):
        assert values.dtype == (d_type or tf.float32)
        np.testing.assert_array_equal(values, tf.cast(expected, values.dtype))


class CountingNeighbors(LinearNearestNeighbors):
    """The linear search, counted."""

    def __init__(self) -> None:
        self.searched: list[tuple[int, int]] = []

    def search(self, scored, num_queries, k, order, on_batch):
        self.searched.append((num_queries, k))
        return super().search(scored, num_queries, k, order, on_batch)


def test_a_search_of_the_user_is_asked_once_for_queries_that_share_a_pass(calculator):
    search = CountingNeighbors()
    found = calculator.top_k(QUERIES, TRAIN, K, nearest_neighbors=search, return_ids=True)
    assert search.searched == []
    assert_same_elements(found, calculator.top_k(QUERIES, TRAIN, K, return_ids=True))
    assert search.searched == [(M, K)]


def two_inputs(nest: Callable[[Any, Any], Any]) -> keras.Model:
    first, second = keras.Input((4,), name="a"), keras.Input((2, 3), name="b")
    joined = layers.Concatenate()([first, layers.Flatten()(second)])
    return keras.Model(nest(first, second), layers.Dense(3)(joined))


def two_arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = (n, 4), (n, 2, 3)
    return tuple(generator.normal(size=shape).astype("float32") for shape in shapes)


@pytest.mark.parametrize(
    "nest", [lambda a, b: {"a": a, "b": b}, lambda a, b: (a, b)], ids=["dict", "tuple"]
)
def test_samples_come_in_the_nest_of_the_inputs(nest):
    calculator = calculator_of(two_inputs(nest))
    inputs = nest(*two_arrays(N, 0))
    train = batched((inputs, labels(N, 0)))
    queries = batched((nest(*two_arrays(M, 1)), labels(M, 1)), 2)
    for _, _, samples, ids in calculator.top_k(queries, train, K, return_ids=True):
        tf.nest.assert_same_structure(samples, inputs)
        tf.nest.map_structure(
            lambda s, x, i=ids: np.testing.assert_array_equal(s, x[i]), samples, inputs
        )
    best, _, ids = calculator.compute_top_k_from_training_dataset(train, K, return_ids=True)
    tf.nest.map_structure(lambda s, x: np.testing.assert_array_equal(s, x[ids]), best, inputs)


def pixels() -> keras.Model:
    scale = layers.Rescaling(1 / 255)
    return keras.Sequential([keras.Input((4,), dtype="uint8"), scale, layers.Dense(3)])


def tokens(dtype: str) -> Callable[[], keras.Model]:
    return lambda: keras.Sequential(
        [keras.Input((4,), dtype=dtype), layers.Embedding(9, 2), layers.Flatten(), layers.Dense(3)]
    )


@pytest.mark.parametrize(
    ("build", "dtype"),
    [(pixels, "uint8"), (tokens("int32"), "int32"), (tokens("int64"), "int64")],
    ids=["uint8-pixels", "int32-tokens", "int64-tokens"],
)
def test_samples_keep_the_type_of_the_inputs(build, dtype):
    calculator = calculator_of(build())
    x = np.random.default_rng(0).integers(0, 9, (N, 4)).astype(dtype)
    train, queries = batched((x, labels(N, 0))), batched((x[:M], labels(M, 1)), 2)
    for *_, samples, ids in calculator.top_k(queries, train, K, return_ids=True):
        assert samples.dtype == dtype
        np.testing.assert_array_equal(samples, x[ids])
    best, _, ids = calculator.compute_top_k_from_training_dataset(train, K, return_ids=True)
    assert best.dtype == dtype
    np.testing.assert_array_equal(best, x[ids])
    for _, scored in calculator.estimate_influence_values_in_batches(queries, train):
        np.testing.assert_array_equal(np.concatenate([inputs for (inputs, _), _ in scored]), x)
        assert scored.element_spec[0][0].dtype == dtype


def test_batches_that_are_dicts_score_as_the_tuples_that_they_stand_for():
    model = classifier()
    plain = calculator_of(model)
    named = calculator_of(
        model,
        process_batch_for_loss_fn=lambda batch: (batch["x"], batch["y"], batch["weight"]),
    )
    arrays, weight = tabular(N, 0), np.linspace(0.5, 2, N).astype("float32")
    train = batched({"x": arrays[0], "y": arrays[1], "weight": weight})
    tuples = batched((*arrays, weight))
    assert_close(named.score(train), plain.score(tuples), RTOL)
    expected = plain.influence_matrix(tuples, tuples)
    assert_close(named.influence_matrix(train, train), expected, RTOL)
    for (query, _, samples, ids), batch in zip(
        named.top_k(train, train, K, return_ids=True), train, strict=True
    ):
        tf.nest.map_structure(np.testing.assert_array_equal, query, batch)
        np.testing.assert_array_equal(samples, arrays[0][ids])
    scored = list(named.compute_influence_values(train))
    assert set(scored[0][0]) == {"x", "y", "weight"}
    assert_close(np.concatenate([values for _, values in scored]), named.score(train), 1e-6)


@dataclass(frozen=True)
class LossCase:
    """A model, a batch, and the losses ``(b,)`` of that batch written out by hand."""

    id: str
    build: Callable[[], keras.Model]
    batch: Callable[[], tuple]
    losses: Callable[[keras.Model, tuple], tf.Tensor]
    loss_function: Any = "mse"


def uniform(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2, size=shape)


def padded_tokens() -> np.ndarray:
    return np.array([[1, 2, 0, 0], [3, 4, 5, 6], [7, 0, 0, 0], [2, 2, 8, 0], [1, 6, 5, 2]])


def one_output() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(2)])


def two_outputs() -> keras.Model:
    x = keras.Input((4,))
    hidden = layers.Dense(5, "tanh")(x)
    return keras.Model(
        x, {"a": layers.Dense(3, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    )


def tagger() -> keras.Model:
    x = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(9, 3, mask_zero=True)(x)
    return keras.Model(x, layers.Dense(2)(layers.Dense(4, "tanh")(embedded)))


def pooled() -> keras.Model:
    x = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(9, 3, mask_zero=True, name="embedded")(x)
    hidden = layers.Dense(4, "tanh", name="hidden")(embedded)
    mean = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(x, layers.Dense(2, name="last")(mean))


def mean_square(outputs: tf.Tensor, targets: np.ndarray) -> tf.Tensor:
    return tf.reduce_mean(tf.square(outputs - targets), axis=-1)


def loss_of_two_outputs(model: keras.Model, batch: tuple) -> tf.Tensor:
    outputs, targets = model(batch[0]), batch[1]
    absolute = tf.reduce_mean(tf.abs(outputs["b"] - targets["b"]), axis=-1)
    return mean_square(outputs["a"], targets["a"]) + absolute


def loss_of_tagger(model: keras.Model, batch: tuple) -> tf.Tensor:
    values = mean_square(model(batch[0]), batch[1])
    return tf.reduce_sum(tf.where(batch[0] != 0, values, 0.0), axis=1)


def loss_of_pooled(model: keras.Model, batch: tuple) -> tf.Tensor:
    embedding, first, last = (model.get_layer(name) for name in ("embedded", "hidden", "last"))
    hidden, mask = first(embedding(batch[0])), tf.cast(batch[0] != 0, "float64")
    mean = tf.einsum("bt,bth->bh", mask, hidden) / tf.reduce_sum(mask, axis=1, keepdims=True)
    return mean_square(last(mean), batch[1])


LOSS_CASES = [
    LossCase(
        "sample-weights",
        one_output,
        lambda: (uniform((5, 4), 0), uniform((5, 2), 1), uniform((5,), 2)),
        lambda model, batch: batch[2] * mean_square(model(batch[0]), batch[1]),
    ),
    LossCase(
        "two-outputs",
        two_outputs,
        lambda: (uniform((5, 4), 0), {"a": uniform((5, 3), 1), "b": uniform((5, 1), 2)}),
        loss_of_two_outputs,
        {"a": "mse", "b": "mae"},
    ),
    LossCase(
        "two-outputs-and-sample-weights",
        two_outputs,
        lambda: (
            uniform((5, 4), 0),
            {"a": uniform((5, 3), 1), "b": uniform((5, 1), 2)},
            uniform((5,), 3),
        ),
        lambda model, batch: batch[2] * loss_of_two_outputs(model, batch),
        {"a": "mse", "b": "mae"},
    ),
    LossCase(
        "mask-in-the-loss", tagger, lambda: (padded_tokens(), uniform((5, 4, 2), 1)), loss_of_tagger
    ),
    LossCase(
        "mask-in-the-loss-and-sample-weights",
        tagger,
        lambda: (padded_tokens(), uniform((5, 4, 2), 1), uniform((5,), 2)),
        lambda model, batch: batch[2] * loss_of_tagger(model, batch),
    ),
    LossCase(
        "mask-in-a-layer", pooled, lambda: (padded_tokens(), uniform((5, 2), 1)), loss_of_pooled
    ),
]


def plain_rows(case: LossCase, model: keras.Model, batch: tuple) -> np.ndarray:
    """Return the gradients ``(b, p)`` of the losses by hand, each example alone on a tape."""
    rows = []
    for i in range(len(batch[0])):
        single = tf.nest.map_structure(lambda part, i=i: part[i : i + 1], batch)
        values = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(case.losses(model, single))
        gradients = tape.gradient(loss, values)
        rows.append(np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in gradients]))
    return np.stack(rows)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: case.id)
def test_gradients_are_those_of_the_loss_written_out_by_hand(case):
    model, batch = case.build(), case.batch()
    wrapped = BaseInfluenceModel(model, loss_function=case.loss_function)
    engine = GradientEngine(wrapped)
    engine.prepare(batch)
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())(batch)
    assert not engine.fallback_variables
    assert_close(rows, plain_rows(case, model, batch))
