"""The methods that the reproductions of dattri's benchmark compare, each with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pieces import Task

from deel_influence.baselines import KNNShapley, LossScore, RepresentationSimilarity
from deel_influence.evaluation import QueryOutputs
from deel_influence.ihvp import EKFACIHVP, IHVPCalculator
from deel_influence.influence import ArnoldiInfluenceCalculator, FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.model.measurements import measured_model
from deel_influence.rps import RepresenterPointL2, RepresenterPointLJE
from deel_influence.trac_in import GradientCosine, GradientDot, TracIn, TracInFast
from deel_influence.training_dynamics import EL2N, GraNd
from deel_influence.trak import TRAK

Make = Callable[[Any, Task, str], Any]
"""``make(bench, task, measurement)`` returns a calculator; the measurement is of the queries."""


@dataclass(frozen=True)
class Method:
    """A method that makes one calculator for pairs, and for examples on their own.

    Attributes
    ----------
    make
        Makes the calculator.
    measures_margins
        Whether pairs can be scored for the margin of the query in place of its loss, which puts
        training examples into the same order but has no gradient that vanishes in float32. Such
        scores have the opposite sign.
    has_pairs, has_single
        Whether there are scores of pairs, and of examples on their own.
    """

    make: Make
    measures_margins: bool = False
    has_pairs: bool = True
    has_single: bool = True

    def pairs(self, bench: Any, task: Task) -> np.ndarray:
        """Return the scores of all pairs, positive where the example helps, shape ``(m, n)``."""
        measurement = "margin" if self.measures_margins else "loss"
        scores = sum(
            self.make(bench, at, measurement).influence_matrix(
                bench.queries, bench.train_set(), verbose=0
            )
            for at in at_each_checkpoint(task)
        )
        return -scores if self.measures_margins else scores

    def single(self, bench: Any, task: Task) -> np.ndarray:
        """Return the scores of all examples, high where the label is suspicious, ``(n,)``."""
        calculator = self.make(bench, task, "loss")
        return calculator.score(bench.train_set(task["noise"]), verbose=0).values


class MarginEKFAC:
    """Influence on margins, with the EKFAC curvature of the margins' own gradients.

    The score is ``∇f(z)ᵀ H⁻¹ ∇f(z_i) (1 - π_i)``, f the log-odds of the label: TRAK's formula, with
    EKFAC over all weights in place of the kernel of a projection. Where a network has learnt its
    examples by heart, gradients of the loss, and their Fisher matrix with them, vanish; those of
    the margin do not.
    """

    has_pairs = has_single = True

    def pairs(self, bench: Any, task: Task) -> np.ndarray:
        """Return the scores of all pairs, shape ``(m, n)``."""
        calculator, pull = self._fitted(bench, task)
        scores = calculator.influence_matrix(bench.queries, bench.train_set(), verbose=0)
        return scores * pull

    def single(self, bench: Any, task: Task) -> np.ndarray:
        """Return the scores of all examples, shape ``(n,)``."""
        calculator, pull = self._fitted(bench, task)
        return calculator.score(bench.train_set(task["noise"]), verbose=0).values * pull

    def _fitted(self, bench: Any, task: Task) -> tuple[FirstOrderInfluenceCalculator, np.ndarray]:
        model, labels = checkpoint(bench, task), bench.labels(task.get("noise"))
        loss = model.loss_function.loss
        margins = QueryOutputs(bench.x, labels, "margin", loss)(model.model)
        margin_model = measured_model(model, "margin")
        train = bench.train_set(task.get("noise"))
        ihvp = EKFACIHVP(margin_model, train, fisher="empirical", verbose=0, **options(task))
        # 1 - π of the log-odds of π; beyond 700 the exponential leaves float64.
        pull = 1 / (1 + np.exp(np.minimum(margins, 700.0)))
        return FirstOrderInfluenceCalculator(margin_model, train, ihvp), pull


class MeanLoss:
    """The loss of each example, mean over models: those of halves have not learnt all by heart."""

    has_pairs, has_single = False, True

    def single(self, bench: Any, task: Task) -> np.ndarray:
        """Return the scores of all examples, shape ``(n,)``."""
        train = bench.train_set(task["noise"])
        scores = [
            LossScore(model).score(train, verbose=0).values for model in ensemble(bench, task)
        ]
        return np.mean(scores, axis=0)


def at_each_checkpoint(task: Task) -> list[Task]:
    """Return a task for each of the ``"epochs"`` of a task, after which scores are added up."""
    epochs = task["settings"].get("epochs")
    if not isinstance(epochs, list):
        return [task]
    return [{**task, "settings": {**task["settings"], "epochs": one}} for one in epochs]


def options(task: Task) -> dict[str, Any]:
    """Return the settings of a task that a constructor takes."""
    chosen = ("epochs", "kind", "models")
    return {name: value for name, value in task["settings"].items() if name not in chosen}


def has_choice(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry's settings are chosen, or the method has none to choose."""
    return len(entry["grid"]) > 1 or not options({"settings": entry["grid"][0]})


def checkpoint(bench: Any, task: Task) -> BaseInfluenceModel:
    """Return the one checkpoint that a task is about."""
    settings = task["settings"]
    kind, epochs = settings.get("kind", "full"), settings.get("epochs")
    return bench.wrapped(bench.path(kind, task.get("number", 0), epochs, task.get("noise")))


def checkpoint_files(bench: Any, task: Task) -> list[Any]:
    """Return the paths of the several checkpoints that a task is about."""
    settings, noise = task["settings"], task.get("noise")
    kind, epochs = settings.get("kind", "full"), settings.get("epochs")
    return [bench.path(kind, number, epochs, noise) for number in range(settings["models"])]


def ensemble(bench: Any, task: Task) -> list[BaseInfluenceModel]:
    """Return the several checkpoints that a task is about."""
    return [bench.wrapped(path) for path in checkpoint_files(bench, task)]


def last_layer(model: BaseInfluenceModel) -> InfluenceModel:
    """Return a model with its last layer watched."""
    return InfluenceModel(model.model, loss_function=model.loss_function.loss)


def influence(strategy: str, normalize: str | bool = False) -> Method:
    """Return first-order influence with a strategy."""

    def make(bench: Any, task: Task, measurement: str) -> FirstOrderInfluenceCalculator:
        model, train = checkpoint(bench, task), bench.train_set(task.get("noise"))
        kind = IHVPCalculator.from_string(strategy).value
        given = {**FIXED.get(strategy, {}), **options(task)}
        ihvp = kind(model, train_dataset=train, **given)
        return FirstOrderInfluenceCalculator(
            model, train, ihvp, normalize=normalize, measurement=measurement
        )

    return Method(make, measures_margins=True)


def _arnoldi(bench: Any, task: Task, measurement: str) -> ArnoldiInfluenceCalculator:
    model, train = checkpoint(bench, task), bench.train_set(task.get("noise"))
    return ArnoldiInfluenceCalculator(
        model, train, seed=0, measurement=measurement, **options(task)
    )


def _of_checkpoints(kind: type[TracIn]) -> Make:
    def make(bench: Any, task: Task, measurement: str) -> TracIn:
        files = checkpoint_files(bench, task)
        model = bench.wrapped(files[0])
        return kind(files, 1.0, model=model, measurement=measurement)

    return make


def _trak(bench: Any, task: Task, _: str) -> TRAK:
    files = checkpoint_files(bench, task)
    train, model = bench.train_set(task.get("noise")), bench.wrapped(files[0])
    return TRAK(files, train, model=model, verbose=0, **options(task))


def _representer_l2(bench: Any, task: Task, _: str) -> RepresenterPointL2:
    model, train = last_layer(checkpoint(bench, task)), bench.train_set(task.get("noise"))
    return RepresenterPointL2(model, train, query_class="label", **options(task))


def _representer_lje(bench: Any, task: Task, _: str) -> RepresenterPointLJE:
    model, train = last_layer(checkpoint(bench, task)), bench.train_set(task.get("noise"))
    return RepresenterPointLJE(model, train, "ekfac", query_class="label", seed=0)


def of_model(calculator: Callable[..., Any], **kwargs: bool) -> Method:
    """Return a method that needs a model and its own settings alone."""

    def make(bench: Any, task: Task, measurement: str) -> Any:
        more = {"measurement": measurement} if kwargs.get("measures_margins") else {}
        return calculator(checkpoint(bench, task), **more, **options(task))

    return Method(make, **kwargs)


def _of_models(calculator: Callable[..., Any]) -> Make:
    return lambda bench, task, _: calculator(ensemble(bench, task))


FIXED: dict[str, dict[str, Any]] = {
    "arnoldi": {"seed": 0},
    "nystrom": {"seed": 0},
    "woodbury": {"seed": 0},
    "astra": {"seed": 0},
    "lissa": {"seed": 0},
    "datainf": {"seed": 0},
    "cgd": {"seed": 0},
    "exact": {"verbose": 0},
    "kfac": {"seed": 0, "verbose": 0},
    "ekfac": {"seed": 0, "verbose": 0},
    "logra": {"seed": 0, "verbose": 0},
}
"""What is set of each strategy, whatever else is chosen."""

METHODS: Mapping[str, Any] = {
    **{member.value.name: influence(member.value.name) for member in IHVPCalculator},
    "ekfac, theta-RelatIF": influence("ekfac", "theta"),
    "ekfac, l-RelatIF": influence("ekfac", "loss"),
    "ekfac of margins": MarginEKFAC(),
    "arnoldi calculator": Method(_arnoldi, measures_margins=True),
    "tracin": Method(_of_checkpoints(TracIn), measures_margins=True),
    "tracin-fast": Method(_of_checkpoints(TracInFast), measures_margins=True),
    "grad-dot": of_model(GradientDot, measures_margins=True),
    "grad-cos": of_model(GradientCosine, measures_margins=True),
    "representer-l2": Method(_representer_l2),
    "representer-lje": Method(_representer_lje),
    "trak": Method(_trak),
    "knn-shapley": of_model(KNNShapley),
    "similarity": of_model(RepresentationSimilarity, has_single=False),
    "loss": MeanLoss(),
    "el2n": Method(_of_models(EL2N), has_pairs=False),
    "grand": Method(_of_models(GraNd), has_pairs=False),
}
"""All methods, by name."""
