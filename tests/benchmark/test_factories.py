"""Each factory makes the calculator of its method, with the settings that it was given."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.baselines import LossScore
from deel_influence.benchmark import (
    ArnoldiCalculatorFactory,
    FirstOrderFactory,
    FunctionFactory,
    KerasTrainingProcedure,
    RPSL2Factory,
    RPSLJEFactory,
    SampleBoundaryCalculatorFactory,
    TracInFactory,
    TrainInfo,
    WeightsBoundaryCalculatorFactory,
)
from deel_influence.boundary_based import SampleBoundaryCalculator, WeightsBoundaryCalculator
from deel_influence.common import ExactIHVP, InfluenceModel
from deel_influence.errors import IgnoredArgumentWarning
from deel_influence.evaluation import roc_auc
from deel_influence.influence import ArnoldiInfluenceCalculator, FirstOrderInfluenceCalculator
from deel_influence.model.computations import describe_settings as describe
from deel_influence.rps import RepresenterPointL2, RepresenterPointLJE
from deel_influence.trac_in.tracin import TracIn
from deel_influence.training_dynamics import AreaUnderMargin, TrainingDynamics
from deel_influence.utils.datasets import sample_examples
from tests.benchmark.problems import evaluator, make_model, splits


class Trained(NamedTuple):
    """A model on noisy digits, as a benchmark has it when it builds calculators."""

    batches: tf.data.Dataset
    mislabelled: np.ndarray
    model: keras.Model
    info: Any


@pytest.fixture(scope="module")
def trained() -> Trained:
    keras.utils.set_random_seed(0)
    noisy, flipped = evaluator().build_noisy_training_dataset(seed=0)
    procedure = KerasTrainingProcedure(
        make_model, 12, epochs_to_save=[3, 11], make_callbacks=lambda: [TrainingDynamics()]
    )
    _, _, model, info = procedure.train(noisy, splits()[1], train_batch_size=64)
    batches = noisy.batch(64)
    count = sum(len(y) for _, y in batches)
    return Trained(batches, np.isin(np.arange(count), flipped), model, info)


AUM = FunctionFactory(
    lambda _, model, info: AreaUnderMargin(InfluenceModel(model), info.callbacks[0])
)
LOSS = FunctionFactory(lambda _, model, __: LossScore(InfluenceModel(model)))

FACTORIES = {
    "first order": (FirstOrderFactory(), FirstOrderInfluenceCalculator),
    "LJE": (RPSLJEFactory(), RepresenterPointLJE),
    "L2": (RPSL2Factory(), RepresenterPointL2),
    "TracIn": (TracInFactory(), TracIn),
    "Arnoldi": (ArnoldiCalculatorFactory(20, True, 10), ArnoldiInfluenceCalculator),
    "AUM": (AUM, AreaUnderMargin),
    "loss": (LOSS, LossScore),
}


@pytest.mark.parametrize(("factory", "kind"), FACTORIES.values(), ids=FACTORIES)
def test_the_calculator_is_of_its_method_and_finds_most_flipped_labels(trained, factory, kind):
    calculator = factory.build(trained.batches, trained.model, trained.info)
    assert type(calculator) is kind
    scores = calculator.score(trained.batches, verbose=0).values
    assert roc_auc(scores, trained.mislabelled) > 0.8


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        (SampleBoundaryCalculatorFactory(7, eps=1e-3), SampleBoundaryCalculator),
        (WeightsBoundaryCalculatorFactory(7, 1, eps=1e-3), WeightsBoundaryCalculator),
    ],
    ids=["sample", "weights"],
)
def test_boundary_factories_pass_on_their_settings(trained, factory, kind):
    calculator = factory.build(trained.batches, trained.model)
    assert type(calculator) is kind
    assert (calculator.step_nbr, calculator.eps) == (7, 1e-3)


def test_first_order_scores_are_those_of_the_strategy_made_by_hand(trained):
    factory = FirstOrderFactory("exact", start_layer=-1, damping=0.01)
    built = factory.build(trained.batches, trained.model)
    model = InfluenceModel(trained.model, start_layer=-1)
    strategy = ExactIHVP(model, trained.batches, damping=0.01)
    expected = FirstOrderInfluenceCalculator(model, trained.batches, strategy)
    scores = [c.score(trained.batches, verbose=0).values for c in (built, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_the_size_for_the_hessian_counts_examples(trained):
    built = FirstOrderFactory(dataset_hessian_size=50, damping=0.01).build(
        trained.batches, trained.model
    )
    model = InfluenceModel(trained.model)
    strategy = ExactIHVP(model, sample_examples(trained.batches, 50, seed=0), damping=0.01)
    assert built.num_train_examples > 50
    vectors = tf.random.normal((2, model.nb_params))
    np.testing.assert_allclose(
        built.ihvp_calculator.multiply(vectors), strategy.multiply(vectors), rtol=1e-4, atol=1e-5
    )


def test_a_negative_size_takes_all_examples(trained):
    vectors = tf.random.normal((1, InfluenceModel(trained.model).nb_params))
    products = [
        FirstOrderFactory(dataset_hessian_size=size)
        .build(trained.batches, trained.model)
        .ihvp_calculator.multiply(vectors)
        for size in (-1, None)
    ]
    np.testing.assert_allclose(*products, rtol=1e-5)


def test_settings_reach_an_iterative_strategy(trained):
    built = FirstOrderFactory("cgd", n_opt_iters=3, damping=0.5).build(
        trained.batches, trained.model
    )
    config = built.ihvp_calculator.get_config()
    assert (config["n_opt_iters"], config["damping"]) == (3, 0.5)


def test_tracin_sums_over_the_kept_models(trained):
    models, rates = trained.info[:2]
    assert len(models) == len(rates) == 2
    built = TracInFactory().build(trained.batches, trained.model, trained.info)
    parts = [
        rate
        * FirstOrderInfluenceCalculator(InfluenceModel(model), trained.batches, "identity")
        .score(trained.batches, verbose=0)
        .values
        for model, rate in zip(models, rates, strict=True)
    ]
    scores = built.score(trained.batches, verbose=0).values
    np.testing.assert_allclose(scores, np.sum(parts, axis=0), rtol=1e-4)


@pytest.mark.parametrize("info", [None, ([], []), TrainInfo([], [], [])])
def test_tracin_without_kept_models_says_what_to_change(trained, info):
    with pytest.raises(ValueError, match="epochs_to_save="):
        TracInFactory().build(trained.batches, trained.model, info)


def test_an_unknown_strategy_is_refused_at_once():
    with pytest.raises(ValueError, match="'newton'"):
        FirstOrderFactory("newton")


@pytest.mark.parametrize("settings", [{"dampening": 0.1}, {"model": None}])
def test_a_setting_that_the_strategy_does_not_take_is_refused_at_once(settings):
    with pytest.raises(ValueError, match=f"'exact' takes .*{next(iter(settings))}"):
        FirstOrderFactory("exact", **settings)


def test_steps_of_a_strategy_that_takes_none_are_said_to_have_no_effect():
    with pytest.warns(IgnoredArgumentWarning, match="no effect on the strategy 'exact'.*: 5"):
        assert FirstOrderFactory("exact", n_opt_iters=5).ihvp_settings == {}


def test_descriptions_tell_settings_apart_and_stay_the_same():
    loss = keras.losses.CategoricalCrossentropy
    one, other = FirstOrderFactory(loss_function=loss(from_logits=True)), FirstOrderFactory("cgd")
    assert describe(one) == describe(FirstOrderFactory(loss_function=loss(from_logits=True)))
    assert describe(one) != describe(FirstOrderFactory(loss_function=loss()))
    assert describe(one) != describe(other)
    assert describe((np.float32(0.5), None, len)) == [0.5, None, "builtins.len"]
