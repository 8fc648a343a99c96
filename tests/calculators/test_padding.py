"""Padding of masked sequences changes no score, whatever the method and the strategy."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.calculators import BaseInfluenceCalculator
from deel_influence.ihvp import (
    EKFACIHVP,
    KFACIHVP,
    ArnoldiIHVP,
    AstraIHVP,
    ConjugateGradientDescentIHVP,
    DataInfIHVP,
    ExactIHVP,
    IdentityIHVP,
    IHVPCalculator,
    InverseHessianVectorProduct,
    LissaIHVP,
    LoGraIHVP,
    NystromIHVP,
    WoodburyIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from tests.calculators.table import CALCULATORS, SELF_CALCULATORS, CalculatorCase, SelfCase
from tests.oracles import assert_close
from tests.padded_sequences import LONGEST, SEQUENCE_CASES, SequenceCase, masked_vectors

pytestmark = pytest.mark.usefixtures("float64")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Longer sums round otherwise, in the last of 16 digits. Inverses and iterations multiply that by
# the condition number of the damped curvature, some 100 here, and searches by their steps; a score
# that saw the padding would be off in its first digits.
ROUNDING = 1e-9

VECTORS = SequenceCase("vectors", masked_vectors, of_vectors=True)
TOKENS = next(case for case in SEQUENCE_CASES if case.id == "tokens")

OPTIONS = {"damping": 0.1, "seed": 0}
STRATEGIES: list[tuple[type[InverseHessianVectorProduct], dict]] = [
    (IdentityIHVP, {}),
    (ExactIHVP, {"damping": 0.1, "curvature": "gauss_newton", "verbose": 0}),
    (ExactIHVP, {"damping": 1.0, "verbose": 0}),
    (ConjugateGradientDescentIHVP, {"curvature": "gauss_newton", **OPTIONS}),
    (ConjugateGradientDescentIHVP, {"curvature": "fisher", **OPTIONS}),
    (LissaIHVP, {"curvature": "gauss_newton", **OPTIONS}),
    (ArnoldiIHVP, {"subspace_dim": 8, "k_largest_eig_vals": 6, **OPTIONS}),
    (NystromIHVP, {"rank": 8, "curvature": "gauss_newton", **OPTIONS}),
    (WoodburyIHVP, OPTIONS),
    (DataInfIHVP, OPTIONS),
    *((LoGraIHVP, {"projection_dim": 2, "fisher": f, **OPTIONS}) for f in ("true", "expected")),
    (AstraIHVP, OPTIONS),
    *(
        (kind, {"fisher": fisher, "approximation": approximation, "seed": 0, "verbose": 0})
        for kind in (KFACIHVP, EKFACIHVP)
        for fisher, approximation in (("true", "expand"), ("empirical", "reduce"))
    ),
]


def wrapped(case: SequenceCase) -> BaseInfluenceModel:
    keras.utils.set_random_seed(0)
    return BaseInfluenceModel(case.build(), loss_function=LOSS)


def at_two_lengths(
    case: SequenceCase, scores: Callable[[BaseInfluenceModel, tf.data.Dataset], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of examples that are padded a little, and a lot."""
    model = wrapped(case)
    found = []
    for length in (LONGEST, LONGEST + 6):
        keras.utils.set_random_seed(0)
        found.append(scores(model, case.dataset(length)))
    return found[0], found[1]


def matrix(calculator: BaseInfluenceCalculator, data: tf.data.Dataset) -> np.ndarray:
    return calculator.influence_matrix(data.take(1), data, verbose=0)


@pytest.mark.parametrize("case", CALCULATORS, ids=lambda case: case.id)
def test_no_method_of_pairs_sees_padding(case: CalculatorCase):
    short, long = at_two_lengths(VECTORS, lambda model, data: matrix(case.make(model, data), data))
    assert_close(long, short, ROUNDING)


@pytest.mark.parametrize("case", SELF_CALCULATORS, ids=lambda case: case.id)
def test_no_method_of_single_examples_sees_padding(case: SelfCase):
    short, long = at_two_lengths(
        VECTORS, lambda model, data: case.make(model, data).score(data, verbose=0).values
    )
    assert_close(long, short, ROUNDING)


# Products with a curvature, and one gradient for each output, take a while to trace.
FAST = (IdentityIHVP, DataInfIHVP, KFACIHVP, EKFACIHVP)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        pytest.param(
            *(kind, options),
            id=f"{kind.name}-{'-'.join(map(str, options.values()))}",
            marks=[] if kind in FAST else [pytest.mark.slow],
        )
        for kind, options in STRATEGIES
    ],
)
def test_no_strategy_sees_padding(strategy, options):
    def scores(model: BaseInfluenceModel, data: tf.data.Dataset) -> np.ndarray:
        fitted = (
            IdentityIHVP(model)
            if strategy is IdentityIHVP
            else strategy(model, train_dataset=data, **options)
        )
        return matrix(FirstOrderInfluenceCalculator(model, data, fitted), data)

    short, long = at_two_lengths(TOKENS, scores)
    assert_close(long, short, ROUNDING)


def test_every_strategy_is_in_the_table():
    assert {strategy for strategy, _ in STRATEGIES} == {member.value for member in IHVPCalculator}
