"""The calculators that the contract holds for. A new method is one row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from deel_influence.baselines import (
    EntropyScore,
    KNNShapley,
    LossScore,
    MarginScore,
    RepresentationSimilarity,
)
from deel_influence.boundary_based import SampleBoundaryCalculator, WeightsBoundaryCalculator
from deel_influence.calculators import BaseInfluenceCalculator, SelfInfluenceCalculator
from deel_influence.ihvp import ExactIHVP, ExactIHVPFactory, IdentityIHVP, LoGraIHVP
from deel_influence.influence import (
    ArnoldiInfluenceCalculator,
    FirstOrderInfluenceCalculator,
    InfluenceBreakdownCalculator,
    NewtonStepInfluenceCalculator,
)
from deel_influence.labels import LabelSuspicion
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.rps import RepresenterPointL2, RepresenterPointLJE
from deel_influence.trac_in import SOURCE, GradientCosine, GradientDot, TracIn, TracInFast
from deel_influence.training_dynamics import (
    EL2N,
    AreaUnderMargin,
    ForgettingEvents,
    GraNd,
    InRunRecorder,
    InRunShapley,
    RecordedEL2N,
    RecordedLoss,
)
from deel_influence.trak import TRAK
from tests.training_dynamics.runs import recorded_copy


class ScaledProduct(BaseInfluenceCalculator):
    """A method of its own, which writes only the two hooks that it must."""

    def _train_vectors(self, batch):
        return tf.math.l2_normalize(self.engine.gradients(batch).materialize(), axis=1)

    def _query_vectors(self, batch):
        return self.engine.gradients(batch).materialize()


class GradientLength(SelfInfluenceCalculator):
    """A method with a score for each example only."""

    def _self_scores(self, batch):
        return self.engine.gradients(batch).squared_norms()


@dataclass(frozen=True)
class CalculatorCase:
    """A calculator of scores for pairs, on a model and a training set.

    Attributes
    ----------
    width
        The size of its influence vectors; None for that of the parameter vector.
    has_inner_product
        Whether a score is the inner product of the two vectors.
    is_diagonal
        Whether the score of an example alone is its score for itself.
    """

    id: str
    make: Callable[[BaseInfluenceModel, tf.data.Dataset], BaseInfluenceCalculator]
    width: int | None = None
    has_inner_product: bool = True
    is_diagonal: bool = True


@dataclass(frozen=True)
class SelfCase:
    """A calculator of one score for each example, on a model and a training set."""

    id: str
    make: Callable[[BaseInfluenceModel, tf.data.Dataset], SelfInfluenceCalculator]


CALCULATORS = [
    CalculatorCase(
        "exact",
        lambda m, d: FirstOrderInfluenceCalculator(m, d, ExactIHVP(m, d, damping=0.5)),
    ),
    CalculatorCase(
        "exact-gauss-newton",
        lambda m, d: FirstOrderInfluenceCalculator(
            m, d, ExactIHVP(m, d, damping=0.1, curvature="gauss_newton")
        ),
    ),
    CalculatorCase(
        "exact-normalized",
        lambda m, d: FirstOrderInfluenceCalculator(
            m, d, ExactIHVP(m, d, damping=0.5), normalize=True
        ),
    ),
    CalculatorCase(
        "gradient-product",
        lambda m, d: FirstOrderInfluenceCalculator(m, d, IdentityIHVP(m)),
    ),
    CalculatorCase(
        "breakdown",
        lambda m, d: InfluenceBreakdownCalculator(m, d, ExactIHVP(m, d, damping=0.5)),
    ),
    CalculatorCase("similarity", lambda m, d: RepresentationSimilarity(m), width=5),
    CalculatorCase(
        "similarity-euclidean",
        lambda m, d: RepresentationSimilarity(m, metric="euclidean"),
        width=5,
        has_inner_product=False,
    ),
    CalculatorCase(
        "arnoldi",
        lambda m, d: ArnoldiInfluenceCalculator(m, d, 20, k_largest_eig_vals=7, seed=0),
        width=7,
    ),
    CalculatorCase(
        "newton-step",
        lambda m, d: NewtonStepInfluenceCalculator(
            InfluenceModel(m.model, loss_function=m.loss_function.loss), d, damping=0.1
        ),
    ),
    CalculatorCase(
        "newton-step-network",
        lambda m, d: NewtonStepInfluenceCalculator(
            m, d, ihvp_calculator=ExactIHVP(m, d, damping=0.5, curvature="gauss_newton")
        ),
    ),
    CalculatorCase(
        "logra",
        lambda m, d: FirstOrderInfluenceCalculator(
            m, d, LoGraIHVP(m, d, projection_dim=(3, 2), damping=0.1, seed=0)
        ),
    ),
    CalculatorCase(
        "source",
        lambda m, d: SOURCE(m, d, [m], 0.1, [20], num_segments=1, damping=0.01, verbose=0),
    ),
    CalculatorCase("trak", lambda m, d: TRAK(m, d, "sjlt", 8, damping=0.1), width=8),
    CalculatorCase(
        "representer-l2",
        lambda m, d: RepresenterPointL2(m, d, lambda_regularization=0.1),
        width=9,
        has_inner_product=False,
        is_diagonal=False,
    ),
    CalculatorCase(
        "representer-lje",
        lambda m, d: RepresenterPointLJE(m, d, ExactIHVPFactory(damping=0.5)),
        is_diagonal=False,
    ),
    CalculatorCase("two-hooks", lambda m, d: ScaledProduct(m)),
    CalculatorCase("tracin", lambda m, d: TracIn([m, m], [0.5, 0.25]), width=2 * 43),
    CalculatorCase(
        "tracin-projected",
        lambda m, d: TracIn([m], 0.5, projection="rademacher", projection_dim=16),
        width=16,
    ),
    CalculatorCase("tracin-fast", lambda m, d: TracInFast([m], 0.5)),
    CalculatorCase("gradient-dot", lambda m, d: GradientDot(m)),
    # With the loss on both sides the self-influence is 1 for all, and there is nothing to rank.
    CalculatorCase("gradient-cosine", lambda m, d: GradientCosine(m, measurement="logit")),
]


def in_run_copy(model: BaseInfluenceModel, dataset: tf.data.Dataset) -> InRunRecorder:
    return recorded_copy(model, dataset, lambda copy: InRunRecorder(copy, dataset))


SELF_CALCULATORS = [
    SelfCase("aum", lambda m, d: AreaUnderMargin(m, recorded_copy(m, d))),
    SelfCase("in-run", lambda m, d: InRunShapley(m, in_run_copy(m, d))),
    SelfCase("forgetting", lambda m, d: ForgettingEvents(m, recorded_copy(m, d))),
    SelfCase("recorded-loss", lambda m, d: RecordedLoss(m, recorded_copy(m, d))),
    SelfCase("recorded-el2n", lambda m, d: RecordedEL2N(m, recorded_copy(m, d))),
    SelfCase("el2n", lambda m, d: EL2N([m, m])),
    SelfCase("grand", lambda m, d: GraNd([m, m])),
    SelfCase("loss", lambda m, d: LossScore(m)),
    SelfCase("margin", lambda m, d: MarginScore(m)),
    SelfCase("entropy", lambda m, d: EntropyScore(m)),
    SelfCase("knn-shapley", lambda m, d: KNNShapley(m)),
    SelfCase("label-suspicion", lambda m, d: LabelSuspicion(m)),
    SelfCase("sample-boundary", lambda m, d: SampleBoundaryCalculator(m)),
    SelfCase("weights-boundary", lambda m, d: WeightsBoundaryCalculator(m)),
    SelfCase("two-lines", lambda m, d: GradientLength(m)),
]
