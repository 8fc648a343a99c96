"""Compiled functions serve every calculator of a model, and keep none of them."""

from __future__ import annotations

import gc
import inspect
import weakref

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.ihvp import EKFACIHVP, InverseHessianVectorProduct
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.trac_in import GradientCosine, GradientDot
from deel_influence.trak import TRAK
from tests.calculators.test_contract import arrays
from tests.calculators.test_values import model
from tests.oracles import assert_close

FITS = {
    "exact": ("exact", {"damping": 0.1, "curvature": "gauss_newton"}),
    "kfac": ("kfac", {"damping": 0.1}),
    "ekfac": ("ekfac", {"damping": 0.1}),
    "ekfac of rank 1": ("ekfac", {"damping": 0.1, "query_rank": 1}),
    "logra": ("logra", {"damping": 0.1, "projection_dim": 2}),
    "logra, rademacher": ("logra", {"projection": "rademacher", "projection_dim": 9}),
    "identity": ("identity", {}),
    "conjugate gradients": ("cgd", {"damping": 0.1, "curvature": "gauss_newton"}),
    "datainf": ("datainf", {"damping": 0.1}),
}


def trak(wrapped: BaseInfluenceModel, seed: int, measurement: str | None, projection: str) -> TRAK:
    return TRAK(
        *(wrapped, TRAIN, projection, 9),
        damping=0.1,
        seed=seed,
        output_function=measurement or "margin",
        verbose=0,
    )


DOTS = {
    "trak, rademacher": (trak, {"projection": "rademacher"}),
    "trak, sjlt": (trak, {"projection": "sjlt"}),
    "dot": (GradientDot, {}),
    "cosine": (GradientCosine, {}),
    "dot, rademacher": (GradientDot, {"projection": "rademacher", "projection_dim": 9}),
    "cosine, sjlt": (GradientCosine, {"projection": "sjlt", "projection_dim": 9}),
    "dot, mask": (GradientDot, {"projection": "mask", "projection_dim": 9}),
}


def batches(n: int, seed: int) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays(n, seed)).batch(4)


TRAIN, QUERIES = batches(22, 0), batches(6, 1)


def fitted(name: str, wrapped: BaseInfluenceModel, number: int, **options: object):
    """Return a calculator whose fit is on data of its own."""
    strategy, settings = FITS[name]
    kind = next(k for k in _kinds(InverseHessianVectorProduct) if vars(k).get("name") == strategy)
    if strategy != "identity":
        settings = {**settings, "seed": 0}
        if "verbose" in inspect.signature(kind).parameters:
            settings["verbose"] = 0
        fit = kind(wrapped, batches(20, 10 + number), **settings)
    else:
        fit = kind(wrapped)
    return FirstOrderInfluenceCalculator(wrapped, TRAIN, fit, **options)


def _kinds(kind: type) -> list[type]:
    return [kind, *(k for below in kind.__subclasses__() for k in _kinds(below))]


def answers(calculator: FirstOrderInfluenceCalculator) -> list[np.ndarray]:
    return [
        calculator.score(TRAIN, verbose=0).values,
        calculator.influence_matrix(QUERIES, TRAIN, verbose=0),
        calculator.predict_loss_change(QUERIES, TRAIN, verbose=0),
        *(vectors.numpy() for _, vectors in calculator.compute_influence_vector(TRAIN)),
    ]


def traces_of(wrapped: BaseInfluenceModel) -> int:
    engine = FirstOrderInfluenceCalculator(wrapped, TRAIN, "identity").engine
    return sum(len(found) for found in engine._traces.values())


@pytest.mark.parametrize(
    ("name", "normalize"), [*((name, False) for name in FITS), ("ekfac", "loss")]
)
def test_a_second_fit_runs_what_the_first_compiled_and_gives_its_own_numbers(name, normalize):
    wrapped = model()
    answers(fitted(name, wrapped, 0, normalize=normalize))
    before = traces_of(wrapped)
    found = answers(fitted(name, wrapped, 1, normalize=normalize))
    assert traces_of(wrapped) == before > 0
    apart = model()
    for mine, alone in zip(
        found, answers(fitted(name, apart, 1, normalize=normalize)), strict=True
    ):
        assert_close(mine, alone, rtol=1e-5)


@pytest.mark.parametrize("measurement", [None, "logit"])
@pytest.mark.parametrize("name", DOTS)
def test_a_second_projection_runs_what_the_first_compiled_and_gives_its_own_numbers(
    name, measurement
):
    kind, settings = DOTS[name]

    def found(wrapped: BaseInfluenceModel, seed: int) -> list[np.ndarray]:
        calculator = kind(wrapped, seed=seed, measurement=measurement, **settings)
        scores = calculator.score(TRAIN, verbose=0).values
        return [scores, calculator.influence_matrix(QUERIES, TRAIN, verbose=0)]

    shared, apart = model(), model()
    first = found(shared, 0)
    before = traces_of(shared)
    second, alone = found(shared, 1), found(apart, 1)
    assert traces_of(shared) == before > 0
    for mine, expected in zip(second, alone, strict=True):
        assert_close(mine, expected, rtol=1e-5)
    if settings:
        assert not np.allclose(first[1], second[1])


def test_other_settings_of_the_scores_are_compiled_apart():
    wrapped = model()
    plain = answers(fitted("ekfac", wrapped, 0))
    divided = answers(fitted("ekfac", wrapped, 0, normalize="theta"))
    again = answers(fitted("ekfac", wrapped, 0))
    assert not np.allclose(plain[1], divided[1])
    for one, other in zip(plain, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_that_is_compiled_keeps_a_calculator_or_its_fit():
    wrapped = model()
    calculator = fitted("ekfac", wrapped, 0)
    answers(calculator)
    values = calculator.ihvp_calculator.curvature.damped_blocks[0].values
    kept = [weakref.ref(thing) for thing in (calculator, calculator.ihvp_calculator, values)]
    del calculator, values
    gc.collect()
    assert [reference() for reference in kept] == [None, None, None]
    assert traces_of(wrapped) > 0


def test_a_subclass_whose_hooks_may_read_more_is_compiled_for_itself():
    class Scaled(EKFACIHVP):
        name = "scaled ekfac"
        factor = 1.0

        def self_influence(self, gradients):
            return self.factor * super().self_influence(gradients)

    wrapped = model()
    scores = []
    for factor in (1.0, 3.0):
        fit = Scaled(wrapped, TRAIN, damping=0.1, seed=0, verbose=0)
        fit.factor = factor
        calculator = FirstOrderInfluenceCalculator(wrapped, TRAIN, fit)
        scores.append(calculator.score(TRAIN, verbose=0).values)
    assert_close(scores[1], 3 * scores[0], rtol=1e-6)
