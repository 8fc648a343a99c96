"""The exact strategy against dense NumPy algebra in float64."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import (
    CurvatureSizeError,
    CurvatureWarning,
    IgnoredArgumentWarning,
)
from deel_influence.ihvp import ExactIHVP, IdentityIHVP, IHVPCalculator
from deel_influence.ihvp.registry import resolve_ihvp
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close, gradient_rows, mean_hessian

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")


def data(n: int = 19) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(n, 4)), generator.integers(0, 3, n)


@pytest.fixture
def model() -> InfluenceModel:
    keras_model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    return InfluenceModel(keras_model, loss_function="sparse_categorical_crossentropy")


@pytest.fixture
def dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(data()).batch(8)


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_solutions_equal_those_of_a_dense_solver(model, dataset, damping):
    hessian = mean_hessian(model, *data()) + damping * np.eye(15)
    vectors = np.random.default_rng(1).normal(size=(5, 15))
    ihvp = ExactIHVP(model, dataset, damping=damping)
    assert_close(ihvp.solve(vectors), np.linalg.solve(hessian, vectors.T).T, 1e-9)
    assert_close(ihvp.multiply(vectors), vectors @ hessian, 1e-10)
    assert_close(ihvp.condition_number, np.linalg.cond(hessian), 1e-8)
    assert_close(ihvp.smallest_eigenvalue, np.linalg.eigvalsh(hessian)[0], 1e-8)


def test_without_damping_it_is_the_pseudo_inverse_with_the_stated_cut_off(model, dataset):
    ihvp = ExactIHVP(model, dataset)
    expected = np.linalg.pinv(mean_hessian(model, *data()), rcond=1e-10, hermitian=True)
    with pytest.warns(CurvatureWarning, match="leaves out 5 of 15 directions"):
        assert_close(ihvp.solve(np.eye(15)), expected, 1e-8)
    # The softmax does not feel one shift of all logits for each input and for the bias.
    assert ihvp.num_dropped == 5
    eigenvalues = np.abs(ihvp.eigenvalues)
    assert_close(ihvp.cutoff, 4 * np.finfo(float).eps * eigenvalues.max())
    assert ExactIHVP(model, dataset, rcond=0.5).num_dropped > 5


def test_products_over_a_dataset_have_a_row_for_each_example(model, dataset):
    ihvp = ExactIHVP(model, dataset, damping=0.1)
    rows = gradient_rows(model, *data())
    assert_close(ihvp.compute_ihvp(dataset), rows @ np.linalg.inv(ihvp.hessian), 1e-9)
    assert_close(ihvp.compute_hvp(dataset), rows @ ihvp.hessian, 1e-9)


def test_products_over_a_dataset_of_vectors_take_no_gradient(model, dataset):
    ihvp = ExactIHVP(model, dataset, damping=0.1)
    vectors = np.random.default_rng(1).normal(size=(7, 15))
    group = tf.data.Dataset.from_tensor_slices(vectors).batch(3)
    assert_close(
        ihvp.compute_ihvp(group, use_gradient=False), vectors @ np.linalg.inv(ihvp.hessian), 1e-9
    )


def test_a_matrix_may_be_given_in_place_of_data(model):
    matrix = np.diag(np.arange(1.0, 16.0))
    ihvp = ExactIHVP(model, train_hessian=matrix, damping=1.0)
    assert_close(ihvp.solve(np.eye(15)), np.diag(1 / np.arange(2.0, 17.0)))


def test_a_sample_of_the_data_is_what_the_curvature_is_taken_over(model, dataset):
    both = [ExactIHVP(model, dataset, n_samples_for_hessian=6, seed=3) for _ in range(2)]
    assert_close(both[0].hessian, both[1].hessian)
    other = ExactIHVP(model, dataset, n_samples_for_hessian=6, seed=4)
    assert np.abs(other.hessian - both[0].hessian).max() > 1e-4
    full = ExactIHVP(model, dataset, n_samples_for_hessian=10**6, seed=3)
    assert_close(full.hessian, mean_hessian(model, *data()), 1e-9)


def saddle() -> tuple[BaseInfluenceModel, tf.data.Dataset]:
    keras_model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, activation="tanh"), layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    dataset = tf.data.Dataset.from_tensor_slices(data()).batch(8)
    return BaseInfluenceModel(keras_model, loss_function=loss), dataset


def test_a_point_that_is_no_minimum_is_reported_with_a_damping_that_helps():
    model, dataset = saddle()
    with pytest.warns(CurvatureWarning, match="no minimum.*damping=") as record:
        ExactIHVP(model, dataset)
    damping = float(str(record[0].message).split("damping=")[1].split()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ExactIHVP(model, dataset, damping=damping).smallest_eigenvalue > 0


def test_gauss_newton_has_no_negative_curvature_there():
    model, dataset = saddle()
    ihvp = ExactIHVP(model, dataset, curvature="gauss_newton")
    assert ihvp.smallest_eigenvalue > -ihvp.cutoff


def test_a_matrix_that_does_not_fit_is_refused_and_other_ways_are_named(
    model, dataset, monkeypatch
):
    monkeypatch.setattr("deel_influence.curvature.dense.available_bytes", lambda: 1000)
    with pytest.raises(CurvatureSizeError, match="15 parameters.*start_layer.*'ekfac'"):
        ExactIHVP(model, dataset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs data or a matrix"),
        ({"train_hessian": np.eye(3)}, r"shape \(15, 15\).*Received: shape \(3, 3\)"),
        ({"train_hessian": np.full((15, 15), np.nan)}, "must be finite"),
        ({"train_hessian": np.triu(np.ones((15, 15)))}, "must be symmetric"),
        ({"train_hessian": np.eye(15), "damping": -1}, "`damping` must be a finite number >= 0"),
        ({"train_hessian": np.eye(15), "damping": "much"}, "Received: 'much'"),
    ],
)
def test_bad_arguments_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        ExactIHVP(model, **arguments)


def test_vectors_of_another_length_are_refused(model):
    ihvp = ExactIHVP(model, train_hessian=np.eye(15))
    with pytest.raises(ValueError, match=r"shape \(b, p\) with p = 15.*\(2, 4\)"):
        ihvp.solve(np.zeros((2, 4)))


def test_the_identity_returns_the_vectors(model, dataset):
    ihvp = IdentityIHVP(model)
    assert_close(ihvp.compute_ihvp(dataset), gradient_rows(model, *data()), 1e-10)
    assert_close(ihvp.compute_hvp(dataset), gradient_rows(model, *data()), 1e-10)


@pytest.mark.parametrize("name", ["exact", "identity", "EXACT"])
def test_strategies_are_found_by_name(model, dataset, name):
    assert resolve_ihvp(name, model, dataset).name == name.lower()
    assert IHVPCalculator.from_string(name).value.name == name.lower()


def test_strategies_may_be_given_as_member_class_or_object(model, dataset):
    assert isinstance(resolve_ihvp(IHVPCalculator.Exact, model, dataset), ExactIHVP)
    assert isinstance(resolve_ihvp(IdentityIHVP, model, dataset), IdentityIHVP)
    fitted = IdentityIHVP(model)
    assert resolve_ihvp(fitted, model, dataset) is fitted


def test_an_unknown_strategy_is_refused(model, dataset):
    with pytest.raises(ValueError, match="must be one of.*'exact', 'cgd'.*'identity'"):
        resolve_ihvp("magic", model, dataset)


def test_a_strategy_of_another_model_is_refused(model, dataset):
    other = InfluenceModel(model.model, loss_function="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="same InfluenceModel"):
        resolve_ihvp(IdentityIHVP(other), model, dataset)


def test_a_sample_beside_a_fitted_strategy_has_no_effect_and_says_so(model, dataset):
    fitted = IdentityIHVP(model)
    with pytest.warns(IgnoredArgumentWarning, match="fitted already.*5 with an IdentityIHVP"):
        assert resolve_ihvp(fitted, model, dataset, n_samples_for_hessian=5) is fitted


def test_a_bare_keras_model_is_refused_with_the_remedy(model, dataset):
    with pytest.raises(TypeError, match=r"InfluenceModel\(model\)"):
        ExactIHVP(model.model, dataset)
