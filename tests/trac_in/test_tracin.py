"""TracIn and its kin against explicit sums over checkpoints."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import CACHE, checkpointed
from deel_influence.errors import DataSourceError, UnsupportedModelError
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import TracIn, TracInFast
from deel_influence.utils import ORDER
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
    wrapped,
)

pytestmark = pytest.mark.usefixtures("float64")
BUILDS = {"plain": plain, "with-skips": with_skips}


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return {"folder": tmp_path_factory.mktemp("checkpoints")}


@pytest.fixture(params=BUILDS)
def training(request, trainings, float64) -> Training:
    if request.param not in trainings:
        trainings[request.param] = trained(BUILDS[request.param], trainings["folder"])
    return trainings[request.param]


@pytest.fixture
def plain_training(trainings, float64) -> Training:
    if "plain" not in trainings:
        trainings["plain"] = trained(plain, trainings["folder"])
    return trainings["plain"]


FORMS = {
    "live": lambda t, **s: TracIn(t.models, RATES, **s),
    "files": lambda t, **s: TracIn(t.files, RATES, model=t.fresh, **s),
    "mixed": lambda t, **s: TracIn([t.models[0], *t.files[1:]], RATES, model=t.fresh, **s),
}


@pytest.fixture(scope="module")
def calculators():
    return {}


@pytest.fixture
def made_once(plain_training, calculators):
    """A calculator on the plain training, whose kernels are traced once for all tests."""

    def make(form):
        if form not in calculators:
            calculators[form] = FORMS[form](plain_training)
        return calculators[form]

    return make


@pytest.mark.parametrize("form", ["live", "files"])
def test_scores_are_the_sum_over_checkpoints(training, form):
    calculator = FORMS[form](training)
    matrix = calculator.influence_matrix(dataset(M, 1, 4), dataset(N, 0, 8))
    assert matrix.shape == (M, N)
    assert_close(matrix, training.matrix)
    assert_close(calculator.score(dataset(N, 0, 8)), training.self_influence())


def test_live_models_and_files_may_be_mixed(plain_training, made_once):
    assert_close(made_once("mixed").score(dataset(N, 0, 8)), plain_training.self_influence())


@pytest.mark.parametrize("max_bytes", [1, 1000])
def test_files_give_what_live_models_give_however_the_data_are_cut(
    made_once, max_bytes, monkeypatch
):
    monkeypatch.setattr(checkpointed, "MAX_BLOCK_BYTES", max_bytes)
    live, files = made_once("live"), made_once("files")
    train = dataset(N, 0, 5).filter(lambda x, y: True)  # of unknown length
    assert_close(files.score(train), live.score(train))
    queries = dataset(M, 1, 4)
    expected, *ids = live.influence_matrix(queries, train, return_ids=True)
    found, *found_ids = files.influence_matrix(queries, train, return_ids=True)
    assert_close(found, expected)
    for one, other in zip(found_ids, ids, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("cache", list(CACHE))
@pytest.mark.parametrize("form", ["live", "files"])
def test_vectors_in_a_cache_give_the_same_scores(plain_training, made_once, form, cache, tmp_path):
    path = tmp_path / "vectors"
    queries, train = dataset(M, 1, 4), dataset(N, 0, 8)
    made_once(form).compute_influence_vector(train, path)
    scored = made_once(form).estimate_influence_values_in_batches(
        queries, train, cache, load_influence_vector_path=path if cache is CACHE.DISK else None
    )
    rows = [np.concatenate([v for _, v in values], axis=1) for _, values in scored]
    assert_close(np.concatenate(rows), plain_training.matrix)


def test_vectors_hold_all_checkpoints_side_by_side(plain_training, made_once):
    vectors = np.concatenate(
        [v for _, v in made_once("files").compute_influence_vector(dataset(N, 0, 8))]
    )
    pairs = zip(RATES, plain_training.train_rows, strict=True)
    expected = [np.sqrt(rate) * rows for rate, rows in pairs]
    assert_close(vectors, np.concatenate(expected, axis=1))


@pytest.mark.parametrize("order", list(ORDER))
def test_top_k_from_files_is_that_of_the_full_sort(plain_training, made_once, order):
    matrix = plain_training.matrix
    keys = -matrix if order is ORDER.DESCENDING else matrix
    expected = np.argsort(keys, axis=1, kind="stable")[:, :4]
    found = made_once("files").top_k(
        dataset(M, 1, 4), dataset(N, 0, 8), 4, order=order, return_ids=True
    )
    np.testing.assert_array_equal(np.concatenate([ids for *_, ids in found]), expected)


def test_datasets_of_scores_may_be_read_in_turns(plain_training, made_once):
    """Each reader finds its own checkpoints, though both share one copy of the model."""
    calculator = made_once("files")
    one = calculator.compute_influence_values(dataset(N, 0, 8))
    other = calculator.compute_influence_values(dataset(N, 0, 8))
    both = tf.data.Dataset.zip((one, other))
    scores = [(first[1].numpy(), second[1].numpy()) for first, second in both]
    for part in range(2):
        found = np.concatenate([values[part] for values in scores])
        assert_close(found, plain_training.self_influence())


def test_ids_of_a_shuffled_dataset_are_kept_together_with_their_scores(plain_training, made_once):
    x, y = arrays(N, 0)
    places = {row.tobytes(): i for i, row in enumerate(x)}

    def id_fn(batch):
        return np.array([places[row.tobytes()] for row in batch[0].numpy()])

    shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(N).batch(8)
    scores = made_once("files").score(shuffled, id_fn=id_fn)
    assert_close(scores.values, plain_training.self_influence()[scores.ids])


def test_a_query_in_a_layer_whose_rule_is_set_aside_is_compared_by_rows(plain_training):
    """One engine alone may lose a rule, and the other then does without it too."""
    model = plain_training.models[0]
    calculator = TracIn([model], 1.0, measurement="logit")
    queries, train = dataset(M, 1, 4), dataset(N, 0, 8)
    expected = calculator.influence_matrix(queries, train)
    calculator.query_engine.plan = calculator.query_engine.plan.without([model.model.layers[0]])
    assert_close(calculator.influence_matrix(queries, train), expected)
    assert_close(calculator.score(train), np.diag(calculator.influence_matrix(train, train)))


def test_hooks_are_traced_once_for_all_checkpoints(plain_training):
    calculator = FORMS["files"](plain_training)
    calculator.score(dataset(N, 0, 8))
    calculator.influence_matrix(dataset(M, 1, 4), dataset(N, 0, 8))
    assert [kernel.num_traces for kernel in calculator._kernels.values()] == [1, 1, 1]


def test_one_rate_serves_all_checkpoints(plain_training):
    calculator = TracIn(plain_training.files, 0.1, model=plain_training.fresh)
    scores = calculator.score(dataset(N, 0, 8))
    assert_close(scores, plain_training.self_influence([0.1] * 2))


@pytest.mark.parametrize("form", ["live", "files"])
def test_the_measurement_replaces_the_loss_of_the_queries(plain_training, form):
    def label_logit(y, outputs):
        return tf.reduce_sum(outputs * tf.one_hot(tf.cast(y, tf.int32), 3, dtype="float64"), 1)

    logits = [BaseInfluenceModel(m.model, None, label_logit) for m in plain_training.models]
    rows = [model.batch_jacobian_tensor(arrays(M, 1)).numpy() for model in logits]
    terms = zip(RATES, rows, plain_training.train_rows, strict=True)
    expected = sum(rate * query @ train.T for rate, query, train in terms)
    calculator = FORMS[form](plain_training, measurement="logit")
    assert_close(calculator.influence_matrix(dataset(M, 1, 4), dataset(N, 0, 8)), expected)


def test_the_users_model_keeps_its_weights_even_after_an_error(plain_training, tmp_path):
    before = [w.numpy() for w in plain_training.fresh.model.weights]
    broken = tmp_path / "broken.weights.h5"
    broken.write_bytes(plain_training.files[0].read_bytes()[:3000])
    calculator = TracIn([plain_training.files[0], broken], 0.1, model=plain_training.fresh)
    with pytest.raises(DataSourceError, match="broken.weights.h5.*cannot be loaded"):
        calculator.score(dataset(N, 0, 8))
    for w, value in zip(plain_training.fresh.model.weights, before, strict=True):
        np.testing.assert_array_equal(w.numpy(), value)


def on_last_layer(training: Training) -> TracIn:
    last = [
        BaseInfluenceModel(m.model, m.model.layers[-1].weights, m.loss_function.loss)
        for m in training.models
    ]
    return TracIn(last, RATES)


@pytest.mark.parametrize("form", ["live", "files"])
def test_the_fast_form_is_tracin_on_the_last_layer(training, form):
    slow = on_last_layer(training)
    if form == "live":
        fast = TracInFast(training.models, RATES)
    else:
        fast = TracInFast(training.files, RATES, model=training.fresh)
    queries, train = dataset(M, 1, 4), dataset(N, 0, 8)
    assert fast.model.nb_params == slow.model.nb_params
    assert_close(fast.score(train), slow.score(train))
    assert_close(fast.influence_matrix(queries, train), slow.influence_matrix(queries, train))


def test_the_fast_form_gives_the_same_from_cached_vectors(plain_training):
    fast = TracInFast(plain_training.models, RATES)
    queries, train = dataset(M, 1, 4), dataset(N, 0, 8)
    cached = fast.top_k(queries, train, 3, influence_vector_in_cache=CACHE.MEMORY)
    for (_, one, _), (_, other, _) in zip(cached, fast.top_k(queries, train, 3), strict=True):
        assert_close(one, other)


def test_of_a_query_only_the_factors_of_its_gradient_are_kept(plain_training):
    for calculator, width in ((TracInFast, 5 + 1 + 3), (TracIn, 4 + 1 + 5 + 5 + 1 + 3)):
        tracin = calculator(plain_training.models[:1], 1.0)
        tracin.score(dataset(N, 0, 8))
        assert tracin._query_factors(next(iter(dataset(M, 1, 4)))).shape == (4, width)


def test_the_fast_form_finds_the_last_layer_in_a_nested_model_and_along_a_sequence():
    inputs = keras.Input((6, 4))
    body = keras.Sequential([layers.Dense(5, "tanh"), layers.Dense(3, name="head")], name="body")
    model = keras.Model(inputs, body(inputs))
    loss = keras.losses.MeanSquaredError()
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(7, 6, 4)), generator.normal(size=(7, 6, 3))
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    fast = TracInFast([BaseInfluenceModel(model, loss_function=loss)], 0.5)
    slow = TracIn([InfluenceModel(model, "head", loss_function=loss)], 0.5)
    assert fast.model.nb_params == slow.model.nb_params == 18
    assert_close(fast.score(data), slow.score(data))
    assert_close(fast.influence_matrix(data, data), slow.influence_matrix(data, data))


def test_a_backward_pass_of_the_fast_form_ends_at_the_last_layer(plain_training):
    """No gradient operation of the first layer's activation is in the compiled function."""
    fast = TracInFast(plain_training.models[:1], 1.0)
    batch = next(iter(dataset(N, 0, 8)))
    fast.score(dataset(N, 0, 8))
    graph = tf.function(fast._self_scores, autograph=False).get_concrete_function(batch).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "Tanh" in kinds
    assert "TanhGrad" not in kinds


@pytest.mark.parametrize("calculator", [TracIn, TracInFast])
def test_projected_scores_are_those_of_projected_gradients(plain_training, calculator):
    projected = calculator(plain_training.models, RATES, projection="rademacher", projection_dim=6)
    files = calculator(
        plain_training.files,
        RATES,
        model=plain_training.fresh,
        projection="rademacher",
        projection_dim=6,
    )
    queries, train = dataset(M, 1, 4), dataset(N, 0, 8)
    matrix = projected.influence_matrix(queries, train)
    vectors = np.concatenate([v for _, v in projected.compute_influence_vector(train)])
    assert vectors.shape == (N, 2 * 6)
    matrix_of_projection = projected._features.projection.apply(
        tf.eye(projected.model.nb_params, dtype="float64")
    ).numpy()
    size = projected.model.nb_params  # of the last weights, where only these are watched
    terms = zip(RATES, plain_training.query_rows, plain_training.train_rows, strict=True)
    expected = sum(
        rate * query[:, -size:] @ matrix_of_projection @ (train[:, -size:] @ matrix_of_projection).T
        for rate, query, train in terms
    )
    assert_close(matrix, expected)
    assert_close(files.influence_matrix(queries, train), expected)
    assert_close(files.score(train), np.sum(vectors**2, axis=1))


def test_a_model_that_keras_cannot_copy_needs_a_function_that_builds_one(plain_training):
    class Subclassed(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layers.Dense(5, "tanh"), layers.Dense(3)

        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.second(self.first(x))

    def build() -> keras.Model:
        model = Subclassed()
        model(keras.ops.zeros((1, 4)))
        return model

    model = build()
    with pytest.raises(UnsupportedModelError, match="Keras can copy.*Subclassed.*Pass `build=`"):
        TracIn(plain_training.models, RATES, model=wrapped(model))
    calculator = TracIn(plain_training.models, RATES, model=wrapped(model), build=build)
    assert_close(calculator.score(dataset(N, 0, 8)), plain_training.self_influence())


def test_a_copy_that_computes_something_else_is_refused(plain_training):
    def build() -> keras.Model:
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)]
        )

    calculator = TracIn(plain_training.files, RATES, model=plain_training.fresh, build=build)
    with pytest.raises(UnsupportedModelError, match=r"must give the model's outputs.*build="):
        calculator.score(dataset(N, 0, 8))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t: lambda: t.fresh.model, "Received: the model itself"),
        (lambda t: with_skips, "other weights .10 where the model has 4"),
        (lambda t: lambda: keras.Sequential([layers.Dense(3)]), "an unbuilt Sequential"),
        (lambda t: lambda: None, "`build` must return a built model.*Received: NoneType"),
    ],
    ids=["itself", "another", "unbuilt", "none"],
)
def test_a_function_that_builds_another_model_is_refused(plain_training, build, message):
    with pytest.raises(UnsupportedModelError, match=message):
        TracIn(plain_training.files, 0.1, model=plain_training.fresh, build=build(plain_training))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda t: ([], 0.1), ValueError, "`models` must hold at least one"),
        (lambda t: ("folder", 0.1), TypeError, "must be a list.*call from_folder"),
        (lambda t: (t.models[0], 0.1), TypeError, "must be a list of InfluenceModel"),
        (lambda t: (t.models, [0.1, 0.2, 0.3]), ValueError, "Received: 3 for 2 models"),
        (lambda t: (t.models, -0.1), ValueError, "finite and not negative"),
        (lambda t: (t.models, [0.1, np.nan]), ValueError, "finite and not negative"),
        (lambda t: (t.files, 0.1), TypeError, "`model` must be given where `models` holds files"),
        (lambda t: ([m.model for m in t.models], 0.1), TypeError, "Wrap the Keras model"),
        (lambda t: (["no.keras"], 0.1, t.fresh), DataSourceError, "'no.keras', which is no file"),
        (lambda t: ([3], 0.1, t.fresh), TypeError, "the path of a file.*Received: int"),
        (
            lambda t: ([t.models[0], InfluenceModel(t.fresh.model, -1, None, "mse")], 0.1),
            ValueError,
            "same shapes.*Received: 43 parameters in the first and 18 in number 1",
        ),
    ],
    ids=[
        "none",
        "a-path",
        "no-list",
        "too-few-rates",
        "negative",
        "nan",
        "files",
        "unwrapped",
        "no-file",
        "a-number",
        "other-weights",
    ],
)
def test_wrong_arguments_are_refused(plain_training, arguments, error, message):
    with pytest.raises(error, match=message):
        TracIn(*arguments(plain_training))
