"""The Kronecker-factored strategy against dense NumPy algebra in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.dense import dense_curvature
from deel_influence.errors import NoCurvatureError, SavedCurvatureError, UnsupportedModelError
from deel_influence.gradients.engine import GradientEngine
from deel_influence.ihvp.kfac import KFACIHVP
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.model.influence_model import BaseInfluenceModel
from tests.ihvp.kronecker_oracle import (
    CASES,
    arrays_of,
    auto_damping_of,
    dense_curvature_of,
    problem,
    small_classifier,
)
from tests.oracles import assert_close, gradient_rows

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")

# (argument, what it means for each of the 25 + 18 parameters of `small_classifier`)
DAMPINGS = {
    "number": (0.03, np.full(43, 0.03)),
    "list": ([0.5, 0.01], np.repeat([0.5, 0.01], [25, 18])),
    "dict": ({"head": 0.01, "hidden": 0.5}, np.repeat([0.5, 0.01], [25, 18])),
}


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_products_equal_those_of_the_assembled_matrix(case, approximation):
    model, dataset, _ = problem(case)
    ihvp = KFACIHVP(model, dataset, damping=0.1, approximation=approximation, seed=0, verbose=0)
    dense = dense_curvature_of(ihvp, np.full(model.nb_params, 0.1))
    vectors = np.random.default_rng(1).normal(size=(5, model.nb_params))
    assert_close(ihvp.multiply(vectors), vectors @ dense, 1e-10)
    assert_close(ihvp.solve(vectors), np.linalg.solve(dense, vectors.T).T, 1e-8)
    assert_close(ihvp.multiply(ihvp.solve(vectors)), vectors, 1e-9)


@pytest.mark.parametrize(("damping", "vector"), DAMPINGS.values(), ids=DAMPINGS)
def test_damping_is_added_to_the_diagonal(damping, vector):
    model, dataset = small_classifier()
    ihvp = KFACIHVP(model, dataset, damping=damping, seed=0, verbose=0)
    assert_close(ihvp.multiply(np.eye(43)), dense_curvature_of(ihvp, vector), 1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_automatic_damping_is_a_tenth_of_the_mean_eigenvalue_of_each_layer(case):
    model, dataset, _ = problem(case)
    ihvp = KFACIHVP(model, dataset, seed=0, verbose=0)
    expected = dense_curvature_of(ihvp, auto_damping_of(ihvp))
    assert_close(ihvp.multiply(np.eye(model.nb_params)), expected, 1e-10)


def test_a_deep_linear_network_has_its_gauss_newton_blocks():
    parts = [layers.Dense(3), layers.Dense(2)]
    model = BaseInfluenceModel(keras.Sequential([keras.Input((4,)), *parts]), loss_function="mse")
    generator = np.random.default_rng(0)
    data = generator.normal(size=(9, 4)), generator.normal(size=(9, 2))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    ihvp = KFACIHVP(model, dataset, damping=0.2, fisher="expected", verbose=0)
    exact = dense_curvature(model, dataset, "gauss_newton", verbose=0).matrix
    exact[:15, 15:] = exact[15:, :15] = 0.0
    assert_close(ihvp.multiply(np.eye(23)), exact + 0.2 * np.eye(23), 1e-10)


@pytest.mark.parametrize("query_rank", [None, 2])
def test_scores_over_a_dataset_equal_dense_algebra(query_rank):
    model, dataset = small_classifier()
    ihvp = KFACIHVP(model, dataset, damping=0.05, seed=0, query_rank=query_rank, verbose=0)
    calculator = FirstOrderInfluenceCalculator(model, dataset, ihvp)
    queries = dataset.unbatch().take(5).batch(3)
    rows, of_queries = gradient_rows(model, *arrays_of(dataset)), arrays_of(queries)
    inverse = np.linalg.inv(dense_curvature_of(ihvp, np.full(43, 0.05)))
    expected = gradient_rows(model, *of_queries) @ inverse @ rows.T
    # Gradients of one example have rank one, so that two of three directions carry nearly all.
    tolerance = 1e-9 if query_rank is None else 0.2
    assert_close(calculator.influence_matrix(queries, dataset, verbose=0), expected, tolerance)
    values = np.concatenate([v for _, v in calculator.compute_influence_values(dataset)])
    assert_close(values, np.einsum("ip,pq,iq->i", rows, inverse, rows), 1e-9)


def test_the_seed_fixes_the_fit_and_the_sample():
    model, dataset = small_classifier()

    def fitted(seed: int | None, n: int | None = None) -> tuple:
        return KFACIHVP(model, dataset, seed=seed, n_samples_for_hessian=n, verbose=0).fingerprint()

    assert fitted(3) == fitted(3)
    assert fitted(3) != fitted(4)
    assert fitted(None) != fitted(None)
    assert fitted(3, 6) == fitted(3, 6)
    assert fitted(3, 6) != fitted(3)


def test_a_copy_on_other_data_keeps_all_settings():
    model, dataset = small_classifier()
    ihvp = KFACIHVP(
        model,
        dataset,
        damping=[0.1, 0.2],
        fisher="empirical",
        approximation="reduce",
        seed=5,
        query_rank=2,
        n_samples_for_hessian=11,
        verbose=0,
    )
    copy = ihvp.with_dataset(dataset.take(2))
    assert copy.get_config() == ihvp.get_config()
    assert copy.with_dataset(dataset).fingerprint() == ihvp.fingerprint()


def test_a_saved_fit_is_loaded_as_it_was(tmp_path):
    model, dataset, queries = problem(CASES[6])
    ihvp = KFACIHVP(model, dataset, seed=0, query_rank=2, verbose=0)
    loaded = KFACIHVP.load(ihvp.save(tmp_path / "fit"), model)
    assert loaded.get_config() == ihvp.get_config()
    assert loaded.fingerprint() == ihvp.fingerprint()
    assert_close(loaded.compute_ihvp(queries), ihvp.compute_ihvp(queries), 0)
    model.weights[0].assign(model.weights[0] + 1.0)
    with pytest.raises(SavedCurvatureError, match="other weights"):
        KFACIHVP.load(tmp_path / "fit", model)


def test_variables_watched_in_another_order_get_the_same_curvature():
    model, dataset = small_classifier()
    (k1, b1, k2, b2) = model.weights
    mixed = BaseInfluenceModel(model.model, [b1, k2, b2, k1], model.loss_function.loss)
    order = np.r_[20:25, 25:43, 0:20]
    results = [
        KFACIHVP(m, dataset, damping="auto", seed=0, verbose=0).multiply(np.eye(43)).numpy()
        for m in (model, mixed)
    ]
    assert_close(results[1], results[0][np.ix_(order, order)], 1e-12)


def test_different_dampings_for_one_layer_watched_in_pieces_are_refused():
    model, dataset = small_classifier()
    (k1, b1, k2, b2) = model.weights
    mixed = BaseInfluenceModel(model.model, [b1, k2, b2, k1], model.loss_function.loss)
    with pytest.raises(ValueError, match="same for the kernel and the bias.*hidden/kernel"):
        KFACIHVP(mixed, dataset, damping=[0.1, 0.2, 0.3], verbose=0)


@pytest.mark.parametrize("query_rank", [None, 1])
def test_a_layer_rule_dropped_after_the_fit_changes_no_score(query_rank):
    model, dataset = small_classifier()
    ihvp = KFACIHVP(model, dataset, damping=0.1, seed=0, query_rank=query_rank, verbose=0)
    batch = next(iter(dataset))
    results = []
    for _ in range(2):
        gradients = ihvp.engine.gradients(batch)
        factors = ihvp.query_factors(gradients)
        results.append([ihvp.scores(factors, gradients), ihvp.self_influence(gradients)])
        engine = GradientEngine.of(model)
        engine.plan = engine.plan.without([model.model.layers[0]])
    for before, after in zip(*results, strict=True):
        assert_close(after, before, 1e-9)


@pytest.mark.parametrize("fisher", ["true", "expected"])
def test_the_weight_of_an_example_multiplies_its_curvature(fisher):
    model, dataset = small_classifier()
    x, y = arrays_of(dataset.unbatch().take(1).batch(1))
    matrices = []
    for weight in (1.0, 5.0):
        data = tf.data.Dataset.from_tensor_slices((x, y, [weight])).batch(1)
        ihvp = KFACIHVP(model, data, damping=0.0, fisher=fisher, seed=0, verbose=0)
        matrices.append(ihvp.multiply(np.eye(43)))
    assert_close(matrices[1], 5.0 * matrices[0], 1e-10)


def test_several_outputs_need_the_empirical_fisher():
    x = keras.Input((4,))
    keras_model = keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    targets = (np.ones((6, 2)), np.ones((6, 2)))
    dataset = tf.data.Dataset.from_tensor_slices((np.ones((6, 4)), targets)).batch(3)
    with pytest.raises(UnsupportedModelError, match="one output tensor"):
        KFACIHVP(model, dataset, verbose=0)
    assert KFACIHVP(model, dataset, fisher="empirical", verbose=0).solve(np.eye(20)).shape == (
        20,
        20,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fisher": "none"}, r"`fisher` must be one of \('true', .*Received: 'none'"),
        ({"approximation": "exact"}, "`approximation` must be one of.*Received: 'exact'"),
        ({"damping": -1.0}, "`damping` must be a finite number >= 0"),
        ({"query_rank": 0}, "`query_rank` must be None or an integer of at least 1.*Received: 0"),
        ({"query_rank": True}, "`query_rank`.*Received: True"),
        ({"verbose": 7}, "`verbose` must be"),
        ({"n_samples_for_hessian": 0}, "`n_samples_for_hessian` must be"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    model, dataset = small_classifier()
    with pytest.raises(ValueError, match=message):
        KFACIHVP(model, dataset, **arguments)


def test_data_are_needed():
    model, _ = small_classifier()
    with pytest.raises(ValueError, match="`train_dataset` of KFACIHVP.*Received: None"):
        KFACIHVP(model)


def test_zero_curvature_without_damping_is_refused():
    model, dataset = small_classifier()
    x, y = arrays_of(dataset)
    silent = tf.data.Dataset.from_tensor_slices((x, y, np.zeros(19))).batch(8)
    with pytest.raises(NoCurvatureError, match="must not be zero"):
        KFACIHVP(model, silent, seed=0, verbose=0)
