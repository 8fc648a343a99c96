"""The methods that the commands can score with, each a row of one table.

It loads no TensorFlow: a calculator is imported when it is made.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from ..calculators.self_influence import SelfInfluenceCalculator
    from ..datasets.source import DataSource
    from ..ihvp.base import InverseHessianVectorProduct
    from ..model.influence_model import InfluenceModel
    from ..training_dynamics.record import RecordedDynamics

NUM_CHECKPOINTS = 5
"""How many checkpoints of a training TracIn adds up over, evenly spaced."""

EARLY_SHARE = 1 / 3
"""The part of the epochs that counts as early in training, for EL2N."""

_PROJECTION_DIM = 512

_DAMPING = 1e-3
"""Of Newton steps, which single examples may leave without curvature, and of TRAK."""


class Takes(Flag):
    """How a method goes with the options.

    Attributes
    ----------
    STRATEGY
        It compares gradients in the metric of ``--ihvp``.
    WEIGHTS
        Its scores depend on ``--weights``.
    CLASSES
        It scores a classifier only.
    CHECKPOINTS, DYNAMICS
        A trained model is not enough: it reads what this recorder kept of the training.
    """

    NOTHING = 0
    STRATEGY = auto()
    WEIGHTS = auto()
    CLASSES = auto()
    CHECKPOINTS = auto()
    DYNAMICS = auto()


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


class Choice(str, Enum):
    """The names that an option takes, each the first entry of a row of what is known of it."""

    _value_: str

    def __new__(cls, name: str, *_: Any) -> Choice:
        """Return the member whose value is its name alone."""
        member = str.__new__(cls, name)
        member._value_ = name
        return member


class Method(Choice):
    """The methods that score a training set, by their names on the command line.

    Parameters
    ----------
    name
        On the command line.
    scores
        What its scores are, in words.
    calculator
        The public name of its calculator, within the library.
    takes
        How it goes with the options.
    make
        Makes the calculator, given its class.
    """

    def __init__(
        self,
        name: str,
        scores: str,
        calculator: str,
        takes: Takes = Takes.NOTHING,
        make: Callable[[Any, MethodInputs], Any] = lambda kind, i: kind(i.model),
    ) -> None:
        self.scores, self.takes = scores, takes
        self._calculator, self._make = calculator, make

    influence = (
        "influence",
        "self-influence, the loss gradient's squared norm in the metric below",
        "influence.FirstOrderInfluenceCalculator",
        Takes.STRATEGY | Takes.WEIGHTS,
        lambda kind, i: kind(i.model, i.source.dataset, i.strategy),
    )
    relatif = (
        "relatif",
        "self-influence over the length of the example's step (θ-RelatIF)",
        "influence.FirstOrderInfluenceCalculator",
        Takes.STRATEGY | Takes.WEIGHTS,
        lambda kind, i: kind(i.model, i.source.dataset, i.strategy, normalize="theta"),
    )
    label_issues = (
        "label-issues",
        "the mean rank of what the last layer, fitted anew without it, and its neighbours say",
        "labels.LabelSuspicion",
        Takes.NOTHING,
        lambda kind, i: kind(i.model, seed=i.seed),
    )
    newton_step = (
        "newton-step",
        f"self-influence after one Newton step without the example, damping {_DAMPING:g}",
        "influence.NewtonStepInfluenceCalculator",
        Takes.WEIGHTS,
        lambda kind, i: kind(i.model, i.source.dataset, _DAMPING),
    )
    arnoldi = (
        "arnoldi",
        "self-influence within the dominant eigenvectors of the Hessian (Arnoldi)",
        "influence.ArnoldiInfluenceCalculator",
        Takes.WEIGHTS,
        lambda kind, i: kind(i.model, i.source.dataset, seed=i.seed),
    )
    tracin = (
        "tracin",
        "squared norms of the loss gradient, added up over checkpoints (TracIn)",
        "trac_in.TracIn",
        Takes.WEIGHTS | Takes.CHECKPOINTS,
        lambda kind, i: kind.from_folder(i.model, i.recorders["checkpoints"].folder),
    )
    tracin_fast = (
        "tracin-fast",
        "squared norms of the last layer's gradient over checkpoints (TracInFast)",
        "trac_in.TracInFast",
        Takes.CHECKPOINTS,
        lambda kind, i: kind.from_folder(i.model, i.recorders["checkpoints"].folder),
    )
    grad_dot = (
        "grad-dot",
        "the loss gradient's squared norm",
        "trac_in.GradientDot",
        Takes.WEIGHTS,
    )
    grad_cos = (
        "grad-cos",
        "the cosine of the loss gradient with itself: one for each example",
        "trac_in.GradientCosine",
        Takes.WEIGHTS,
    )
    trak = (
        "trak",
        f"self-influence in {_PROJECTION_DIM} projections of the margin's gradient (TRAK), "
        f"damping {_DAMPING:g}",
        "trak.TRAK",
        Takes.WEIGHTS | Takes.CLASSES,
        lambda kind, i: kind(
            i.model,
            i.source.dataset,
            projection_dim=_PROJECTION_DIM,
            damping=_DAMPING,
            seed=i.seed,
        ),
    )
    representer_l2 = (
        "representer-l2",
        "the example's own representer value (RPS-L2)",
        "rps.RepresenterPointL2",
        Takes.CLASSES,
        lambda kind, i: kind(i.model, i.source.dataset, targets="labels", query_class="label"),
    )
    representer_lje = (
        "representer-lje",
        "the example's own representer value (RPS-LJE), in the metric below",
        "rps.RepresenterPointLJE",
        # Its strategy is fitted on the layer that gives the logits, whatever is watched.
        Takes.STRATEGY | Takes.CLASSES,
        lambda kind, i: kind(i.model, i.source.dataset, i.strategy, query_class="label"),
    )
    sample_boundary = (
        "sample-boundary",
        "minus the squared distance of the input to the decision boundary",
        "boundary_based.SampleBoundaryCalculator",
        Takes.CLASSES,
    )
    weights_boundary = (
        "weights-boundary",
        "minus the squared change of weights that changes the prediction",
        "boundary_based.WeightsBoundaryCalculator",
        Takes.WEIGHTS | Takes.CLASSES,
    )
    knn_shapley = (
        "knn-shapley",
        "minus the mean Shapley value for nearest neighbours",
        "baselines.KNNShapley",
        Takes.CLASSES,
    )
    similarity = (
        "similarity",
        "the cosine of the representation with itself: one for each example",
        "baselines.RepresentationSimilarity",
    )
    aum = (
        "aum",
        "minus the area under the margin over the training",
        "training_dynamics.AreaUnderMargin",
        Takes.DYNAMICS | Takes.CLASSES,
        lambda kind, i: kind(i.model, i.recorders["dynamics"].recorded),
    )
    forgetting = (
        "forgetting",
        "forgetting events over the training",
        "training_dynamics.ForgettingEvents",
        Takes.DYNAMICS | Takes.CLASSES,
        lambda kind, i: kind(i.model, i.recorders["dynamics"].recorded),
    )
    el2n = (
        "el2n",
        "the length of the vector of errors, averaged over the early epochs (EL2N)",
        "training_dynamics.RecordedEL2N",
        Takes.DYNAMICS | Takes.CLASSES,
        lambda kind, i: kind(i.model, _early(i)),
    )
    grand = (
        "grand",
        "the length of the loss gradient in all weights (GraNd)",
        "training_dynamics.GraNd",
        Takes.NOTHING,
        lambda kind, i: kind(i.model.rewrapped(weights=i.model.model.trainable_variables)),
    )
    loss = ("loss", "the loss", "baselines.LossScore")
    entropy = ("entropy", "the entropy of the prediction", "baselines.EntropyScore", Takes.CLASSES)
    margin = ("margin", "minus the margin of the label", "baselines.MarginScore", Takes.CLASSES)

    @property
    def recorders(self) -> list[str]:
        """The names of the callbacks that it reads; none where a trained model is enough."""
        return [name for name in RECORDERS if Takes[name.upper()] in self.takes]

    def make(self, inputs: MethodInputs) -> SelfInfluenceCalculator:
        """Return the calculator."""
        return self._make(_named(self._calculator), inputs)


RECORDERS: dict[str, Callable[[Path, int], keras.callbacks.Callback]] = {
    "checkpoints": lambda folder, epochs: _named("trac_in.CheckpointRecorder")(
        folder / "checkpoints", epochs=_evenly(epochs, NUM_CHECKPOINTS)
    ),
    "dynamics": lambda _, epochs: _named("training_dynamics.TrainingDynamics")(
        record=["margin", "el2n"]
    ),
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
    return {name: RECORDERS[name](folder, epochs) for name in method.recorders}


def _named(name: str) -> Any:
    """Return what the library has under a public name."""
    return pkgutil.resolve_name(f"deel_influence.{name}")


def _early(inputs: MethodInputs) -> RecordedDynamics:
    """Return the first epochs of the record, before wrong labels are learnt by heart."""
    recorded = inputs.recorders["dynamics"].recorded
    return recorded.select(recorded.epochs[: max(round(EARLY_SHARE * len(recorded.epochs)), 1)])


def _evenly(total: int, count: int) -> list[int]:
    """Return up to ``count`` of the numbers from 1 to ``total``, the last among them."""
    return sorted({round(total * (j + 1) / count) for j in range(count)} - {0})
