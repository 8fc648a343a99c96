"""The methods that the commands can score with, each a row of one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from ..baselines.entropy import EntropyScore
from ..baselines.knn_shapley import KNNShapley
from ..baselines.loss import LossScore
from ..baselines.margin import MarginScore
from ..baselines.representation_similarity import RepresentationSimilarity
from ..boundary_based.sample_boundary import SampleBoundaryCalculator
from ..boundary_based.weights_boundary import WeightsBoundaryCalculator
from ..calculators.self_influence import SelfInfluenceCalculator
from ..datasets.source import DataSource
from ..ihvp.base import InverseHessianVectorProduct
from ..influence.arnoldi import ArnoldiInfluenceCalculator
from ..influence.first_order import FirstOrderInfluenceCalculator
from ..influence.newton_step import NewtonStepInfluenceCalculator
from ..labels.suspicion import LabelSuspicion
from ..model.influence_model import BaseInfluenceModel, InfluenceModel
from ..rps.l2 import RepresenterPointL2
from ..rps.lje import RepresenterPointLJE
from ..trac_in.gradient_cosine import GradientCosine
from ..trac_in.gradient_dot import GradientDot
from ..trac_in.recorder import CheckpointRecorder
from ..trac_in.tracin import TracIn
from ..trac_in.tracin_fast import TracInFast
from ..training_dynamics.area_under_margin import AreaUnderMargin
from ..training_dynamics.callback import TrainingDynamics
from ..training_dynamics.forgetting_events import ForgettingEvents
from ..training_dynamics.grand import GraNd
from ..training_dynamics.record import RecordedDynamics
from ..training_dynamics.recorded_means import RecordedEL2N
from ..trak.trak import TRAK
from .options import Method

NUM_CHECKPOINTS = 5
"""How many checkpoints of a training TracIn adds up over, evenly spaced."""

EARLY_SHARE = 1 / 3
"""The part of the epochs that counts as early in training, for EL2N."""

_PROJECTION_DIM = 512

_DAMPING = 1e-3
"""Of Newton steps, which single examples may leave without curvature, and of TRAK."""


@dataclass(frozen=True)
class MethodInputs:
    """What a calculator can be made from.

    Attributes
    ----------
    model
        The model, its loss and the watched weights.
    source
        The training set.
    strategy
        The metric in which gradients are compared; None for methods that have none.
    seed
        Seed of the random numbers.
    recorders
        The callbacks that watched the training, by name.
    """

    model: InfluenceModel
    source: DataSource
    strategy: InverseHessianVectorProduct | None
    seed: int
    recorders: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CommandMethod:
    """A method as the commands know it.

    Attributes
    ----------
    scores
        What its scores are, in words.
    make
        Makes the calculator.
    needs
        The names of the recorders that it reads.
    """

    scores: str
    make: Callable[[MethodInputs], SelfInfluenceCalculator]
    needs: tuple[str, ...] = ()


def _everything(inputs: MethodInputs) -> BaseInfluenceModel:
    """Return the model with all its weights watched, which the papers of some methods take."""
    return BaseInfluenceModel(inputs.model.model, loss_function=inputs.model.loss_function.loss)


def _early(recorded: RecordedDynamics) -> RecordedDynamics:
    """Return the first epochs of a record, before wrong labels are learnt by heart."""
    return recorded.select(recorded.epochs[: max(round(EARLY_SHARE * len(recorded.epochs)), 1)])


def _first_order(normalize: Any = False) -> Callable[[MethodInputs], SelfInfluenceCalculator]:
    return lambda inputs: FirstOrderInfluenceCalculator(
        inputs.model, inputs.source.dataset, inputs.strategy, normalize=normalize
    )


METHODS: dict[Method, CommandMethod] = {
    Method.influence: CommandMethod(
        "self-influence, the loss gradient's squared norm in the metric below", _first_order()
    ),
    Method.relatif: CommandMethod(
        "self-influence over the length of the example's step (θ-RelatIF)", _first_order("theta")
    ),
    Method.label_issues: CommandMethod(
        "the mean rank of what the last layer, fitted anew without it, and its neighbours say",
        lambda i: LabelSuspicion(i.model, seed=i.seed),
    ),
    Method.newton_step: CommandMethod(
        f"self-influence after one Newton step without the example, damping {_DAMPING:g}",
        lambda i: NewtonStepInfluenceCalculator(i.model, i.source.dataset, _DAMPING),
    ),
    Method.arnoldi: CommandMethod(
        "self-influence within the dominant eigenvectors of the Hessian (Arnoldi)",
        lambda i: ArnoldiInfluenceCalculator(i.model, i.source.dataset, seed=i.seed),
    ),
    Method.tracin: CommandMethod(
        "squared norms of the loss gradient, added up over checkpoints (TracIn)",
        lambda i: TracIn.from_folder(i.model, i.recorders["checkpoints"].folder),
        ("checkpoints",),
    ),
    Method.tracin_fast: CommandMethod(
        "squared norms of the last layer's gradient over checkpoints (TracInFast)",
        lambda i: TracInFast.from_folder(i.model, i.recorders["checkpoints"].folder),
        ("checkpoints",),
    ),
    Method.grad_dot: CommandMethod(
        "the loss gradient's squared norm", lambda i: GradientDot(i.model)
    ),
    Method.grad_cos: CommandMethod(
        "the cosine of the loss gradient with itself: one for each example",
        lambda i: GradientCosine(i.model),
    ),
    Method.trak: CommandMethod(
        f"self-influence in {_PROJECTION_DIM} projections of the margin's gradient (TRAK), "
        f"damping {_DAMPING:g}",
        lambda i: TRAK(
            i.model,
            i.source.dataset,
            projection_dim=_PROJECTION_DIM,
            damping=_DAMPING,
            seed=i.seed,
        ),
    ),
    Method.representer_l2: CommandMethod(
        "the example's own representer value (RPS-L2)",
        lambda i: RepresenterPointL2(
            i.model, i.source.dataset, targets="labels", query_class="label"
        ),
    ),
    Method.representer_lje: CommandMethod(
        "the example's own representer value (RPS-LJE), in the metric below",
        lambda i: RepresenterPointLJE(i.model, i.source.dataset, i.strategy, query_class="label"),
    ),
    Method.sample_boundary: CommandMethod(
        "minus the squared distance of the input to the decision boundary",
        lambda i: SampleBoundaryCalculator(i.model),
    ),
    Method.weights_boundary: CommandMethod(
        "minus the squared change of weights that changes the prediction",
        lambda i: WeightsBoundaryCalculator(i.model),
    ),
    Method.knn_shapley: CommandMethod(
        "minus the mean Shapley value for nearest neighbours",
        lambda i: KNNShapley(i.model),
    ),
    Method.similarity: CommandMethod(
        "the cosine of the representation with itself: one for each example",
        lambda i: RepresentationSimilarity(i.model),
    ),
    Method.aum: CommandMethod(
        "minus the area under the margin over the training",
        lambda i: AreaUnderMargin(i.model, i.recorders["dynamics"].recorded),
        ("dynamics",),
    ),
    Method.forgetting: CommandMethod(
        "forgetting events over the training",
        lambda i: ForgettingEvents(i.model, i.recorders["dynamics"].recorded),
        ("dynamics",),
    ),
    Method.el2n: CommandMethod(
        "the length of the vector of errors, averaged over the early epochs (EL2N)",
        lambda i: RecordedEL2N(i.model, _early(i.recorders["dynamics"].recorded)),
        ("dynamics",),
    ),
    Method.grand: CommandMethod(
        "the length of the loss gradient in all weights (GraNd)",
        lambda i: GraNd(_everything(i)),
    ),
    Method.loss: CommandMethod("the loss", lambda i: LossScore(i.model)),
    Method.entropy: CommandMethod("the entropy of the prediction", lambda i: EntropyScore(i.model)),
    Method.margin: CommandMethod("minus the margin of the label", lambda i: MarginScore(i.model)),
}
"""All methods, by name."""

RECORDERS: dict[str, Callable[[Path, int], keras.callbacks.Callback]] = {
    "checkpoints": lambda folder, epochs: CheckpointRecorder(
        folder / "checkpoints", epochs=_evenly(epochs, NUM_CHECKPOINTS)
    ),
    "dynamics": lambda _, epochs: TrainingDynamics(record=["margin", "el2n"]),
}
"""Makes the callbacks, given a folder and the number of epochs."""


def recorders_for(method: Method, folder: Path, epochs: int) -> dict[str, keras.callbacks.Callback]:
    """Return the callbacks that a training needs so that the method can score it.

    Parameters
    ----------
    method
        The method.
    folder
        Where recorders keep their files.
    epochs
        How many epochs the training has.
    """
    return {name: RECORDERS[name](folder, epochs) for name in METHODS[method].needs}


def _evenly(total: int, count: int) -> list[int]:
    """Return up to ``count`` of the numbers from 1 to ``total``, the last among them."""
    return sorted({round(total * (j + 1) / count) for j in range(count)} - {0})
