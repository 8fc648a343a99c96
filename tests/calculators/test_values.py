"""Calculators are values: described, made again, saved, and sent; their results are parts."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from deel_influence.calculators import SelfInfluenceCalculator
from deel_influence.errors import DataSourceError, SavedCurvatureError
from deel_influence.ihvp import (
    EKFACIHVP,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    IdentityIHVP,
)
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
    PerturbationInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import GradientCosine, TracIn
from tests.calculators.table import CALCULATORS, SELF_CALCULATORS
from tests.calculators.test_contract import QUERIES, TRAIN, N, fresh


def model() -> BaseInfluenceModel:
    return fresh(SELF_CALCULATORS[-1]).model


@pytest.mark.parametrize("case", [*CALCULATORS, *SELF_CALCULATORS], ids=lambda case: case.id)
def test_a_calculator_made_again_and_pickled_gives_the_same_scores(case, tmp_path):
    calculator = fresh(case)
    expected = calculator.score(TRAIN, verbose=0).values
    other = pickle.loads(pickle.dumps(calculator.with_dataset(TRAIN)))
    assert type(other) is type(calculator)
    np.testing.assert_allclose(other.score(TRAIN, verbose=0).values, expected, rtol=2e-3, atol=1e-6)
    json.dumps(other.get_config(), allow_nan=False)
    assert other.get_config() == calculator.get_config()
    try:
        path = calculator.save(tmp_path / "calculator")
    except ValueError:  # what is refused, and how, is another test's business
        return
    loaded = SelfInfluenceCalculator.load(path, calculator.model, TRAIN)
    assert type(loaded) is type(calculator)
    np.testing.assert_allclose(loaded.score(TRAIN, verbose=0).values, expected, rtol=1e-5)


def first_order(wrapped: BaseInfluenceModel, **options) -> FirstOrderInfluenceCalculator:
    strategy = EKFACIHVP(wrapped, TRAIN, damping=0.1, seed=3, verbose=0)
    return FirstOrderInfluenceCalculator(wrapped, TRAIN, strategy, **options)


def test_the_config_tells_the_settings_by_the_names_of_the_arguments():
    config = first_order(model(), normalize="loss", measurement="margin").get_config()
    assert config["normalize"] == "loss"
    assert config["measurement"] == "margin"
    assert config["ihvp_calculator"]["name"] == "ekfac"
    assert config["ihvp_calculator"]["damping"] == 0.1
    assert "model" not in config
    assert "dataset" not in config


def test_a_saved_calculator_scores_a_part_as_the_whole_did(tmp_path):
    wrapped = model()
    calculator = first_order(wrapped, normalize="theta", measurement="margin")
    matrix = calculator.influence_matrix(QUERIES, TRAIN, verbose=0)
    changes = calculator.predict_loss_change(QUERIES, TRAIN, verbose=0)
    path = calculator.save(tmp_path / "calculator")
    part = TRAIN.take(1)
    loaded = SelfInfluenceCalculator.load(path, wrapped, part)
    assert isinstance(loaded, FirstOrderInfluenceCalculator)
    assert loaded.get_config() == calculator.get_config()
    np.testing.assert_array_equal(loaded.influence_matrix(QUERIES, part, verbose=0), matrix[:, :8])
    found = loaded.predict_loss_change(QUERIES, part, verbose=0)
    np.testing.assert_allclose(found, changes[:, :8], rtol=1e-6)


def test_a_method_without_a_fit_is_saved_too(tmp_path):
    wrapped = model()
    path = GradientCosine(wrapped, measurement="logit").save(tmp_path / "cosine.npz")
    loaded = GradientCosine.load(path, wrapped)
    np.testing.assert_array_equal(
        loaded.influence_matrix(QUERIES, TRAIN, verbose=0),
        GradientCosine(wrapped, measurement="logit").influence_matrix(QUERIES, TRAIN, verbose=0),
    )
    with pytest.raises(DataSourceError, match="GradientCosine, which is no known TracIn"):
        TracIn.load(path, wrapped)
    wrapped.model.weights[0].assign_add(wrapped.model.weights[0])
    with pytest.raises(DataSourceError, match="weights"):
        GradientCosine.load(path, wrapped)


def test_a_fit_on_a_sample_is_saved_with_its_sample(tmp_path):
    wrapped = model()
    calculator = FirstOrderInfluenceCalculator(
        wrapped, TRAIN, "ekfac", n_samples_for_hessian=10, seed=0
    )
    path = calculator.save(tmp_path / "calculator")
    loaded = SelfInfluenceCalculator.load(path, wrapped, TRAIN)
    assert loaded.ihvp_calculator.get_config()["n_samples_for_hessian"] == 10
    expected = calculator.score(TRAIN, verbose=0).values
    np.testing.assert_allclose(loaded.score(TRAIN, verbose=0).values, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [SecondOrderInfluenceCalculator, PerturbationInfluenceCalculator])
def test_a_measurement_survives_a_pickle(kind):
    wrapped = model()
    calculator = kind(wrapped, TRAIN, IdentityIHVP(wrapped), measurement="margin")
    other = pickle.loads(pickle.dumps(calculator))
    assert other.query_model is not other.model
    assert other.get_config() == calculator.get_config()


def test_settings_of_a_method_that_hands_its_own_on_are_known():
    class Named(FirstOrderInfluenceCalculator):
        def __init__(self, model, dataset, **settings):
            super().__init__(model, dataset, **settings)

    class Strong(EKFACIHVP):
        def __init__(self, model, train_dataset=None, strength=1.0):
            super().__init__(model, train_dataset, damping=strength, seed=0, verbose=0)

    wrapped = model()
    strategy = Strong(wrapped, TRAIN, 0.3)
    assert strategy.get_config()["damping"] == 0.3
    calculator = Named(wrapped, TRAIN, ihvp_calculator=strategy, normalize="loss")
    assert calculator.get_config()["normalize"] == "loss"
    plain = Named(wrapped, TRAIN, ihvp_calculator="identity", normalize="loss")
    assert plain.with_dataset(TRAIN).normalize == "loss"


def test_settings_may_be_arrays():
    wrapped = model()
    damping = np.linspace(0.1, 0.2, len(wrapped.layout.blocks))
    strategy = ConjugateGradientDescentIHVP(wrapped, train_dataset=TRAIN, damping=damping)
    assert list(strategy.get_config()["damping"]) == damping.tolist()


def test_damaged_files_and_other_kinds_are_refused_by_one_class(tmp_path):
    wrapped = model()
    path = first_order(wrapped).save(tmp_path / "calculator.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    strategy = ExactIHVP(wrapped, TRAIN, damping=0.5).save(tmp_path / "strategy.npz")
    for other in (path, strategy, tmp_path / "nowhere.npz"):
        with pytest.raises(DataSourceError, match="saved calculator"):
            SelfInfluenceCalculator.load(other, wrapped, TRAIN)


def test_what_a_file_of_settings_cannot_hold_is_left_to_pickle(tmp_path):
    wrapped = model()
    last = InfluenceModel(wrapped.model, loss_function=wrapped.loss_function.loss)
    cases = {
        "dataset": NewtonStepInfluenceCalculator(last, TRAIN, damping=0.1),
        "measurement": GradientCosine(wrapped, measurement=lambda y, outputs: outputs[:, 0]),
        "models": TracIn([wrapped, wrapped], 0.1),
    }
    for name, calculator in cases.items():
        with pytest.raises(ValueError, match=f"because of its {name}. Use pickle"):
            calculator.save(tmp_path / "calculator")
    assert not list(tmp_path.iterdir())


def test_every_calculator_says_what_it_answers():
    for case in (*CALCULATORS, *SELF_CALCULATORS):
        calculator = fresh(case)
        methods = {
            "self": "score",
            "pairs": "influence_matrix",
            "groups": "compute_influence_vector_group",
            "loss change": "predict_loss_change",
        }
        has = {kind for kind, name in methods.items() if hasattr(calculator, name)}
        assert calculator.answers - {"measurement"} == has, case.id
    assert "measurement" in GradientCosine.answers
    assert "score" not in dir(SecondOrderInfluenceCalculator)
    assert SecondOrderInfluenceCalculator.answers == {
        "pairs",
        "groups",
        "loss change",
        "measurement",
    }


def test_changes_of_loss_are_asked_for_in_one_way():
    wrapped = model()
    last = InfluenceModel(wrapped.model, loss_function=wrapped.loss_function.loss)
    groups = np.arange(N) % 4 - 1
    for calculator in (
        first_order(wrapped),
        NewtonStepInfluenceCalculator(last, TRAIN, damping=0.5),
        SecondOrderInfluenceCalculator(last, TRAIN, ExactIHVP(last, TRAIN, damping=0.5)),
    ):
        changes = calculator.predict_loss_change(
            QUERIES, TRAIN, groups=groups, id_fn=None, device=None, verbose=0
        )
        assert changes.shape == (9, 3)
    newton = NewtonStepInfluenceCalculator(last, TRAIN, damping=0.5)
    single = newton.predict_loss_change(QUERIES, TRAIN, verbose=0)
    summed = np.stack([single[:, groups == number].sum(axis=1) for number in range(3)], axis=1)
    found = newton.predict_loss_change(QUERIES, TRAIN, groups, verbose=0)
    np.testing.assert_allclose(found, summed, rtol=1e-5, atol=1e-8)


def test_other_data_are_refused_where_products_go_over_them(tmp_path):
    wrapped = model()
    calculator = FirstOrderInfluenceCalculator(wrapped, TRAIN, "cgd")
    path = calculator.save(tmp_path / "cgd")
    with pytest.raises(SavedCurvatureError, match="the training set of the fit"):
        SelfInfluenceCalculator.load(path, wrapped, TRAIN.take(2))
    loaded = SelfInfluenceCalculator.load(path, wrapped, TRAIN)
    np.testing.assert_allclose(
        loaded.score(TRAIN, verbose=0).values, calculator.score(TRAIN, verbose=0).values, rtol=1e-4
    )
