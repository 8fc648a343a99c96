"""What one calculator says, gathered once: scores of pairs, of examples, and predicted changes."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..calculators import described
from ..calculators.pairs import PairCalculator
from ..errors import (
    CurvatureSizeError,
    DatasetOrderError,
    NonFiniteError,
    UnsupportedModelError,
)
from ..ihvp.base import InverseHessianVectorProduct
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..utils.datasets import count_examples
from ..utils.digests import dataset_digest
from ..utils.order import check_fixed_order
from .subsets import sums_of_removed

PAIRS, SINGLE, CHANGES, FIT = "pairs", "single", "changes", "fit"
"""What a calculator gives, as `CalculatorScores.missing` calls it."""

# What says that a method is not for this model, which is an answer. All else is a failure.
_NOT_FOR_THIS_MODEL = (UnsupportedModelError, CurvatureSizeError)


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """What every calculator is asked.

    Attributes
    ----------
    train_set
        The n training examples, batched.
    queries
        The m queries, batched; None asks for no scores of pairs.
    wants_single
        Whether each example is scored on its own.
    removals
        For each truth about removals its mask ``kept (s, n)``; see `removed_groups`.
    wants_settings
        Whether each calculator is to say what tells it from others.
    """

    train_set: tf.data.Dataset
    queries: tf.data.Dataset | None = None
    wants_single: bool = False
    removals: Mapping[str, np.ndarray] = field(default_factory=dict)
    wants_settings: bool = False


@dataclass(frozen=True, eq=False)
class CalculatorScores:
    """What a calculator answered.

    Attributes
    ----------
    pairs
        Scores of training examples for queries, shape ``(m, n)``; None where there are none.
    single
        Scores of training examples, shape ``(n,)``, high for suspicious ones; None likewise.
    changes
        For each truth about removals, the changes of the queries' losses that the calculator itself
        predicts, shape ``(s, m)``; empty where it predicts none.
    missing
        For what is not there, why.
    calculator
        What tells it from others: see `calculator_settings`; None where nobody asked.
    fit_seconds
        How long it took to make the calculator; NaN where it was made before.
    score_seconds
        How long all its scores took.
    is_final
        Whether asking again would give the same. Where memory was short, or nothing could be
        made, it might not.
    predicts_quality
        Whether ``changes`` are those of a number that is better when higher; else of a loss.
    """

    pairs: np.ndarray | None = None
    single: np.ndarray | None = None
    changes: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    calculator: Mapping[str, Any] | None = None
    fit_seconds: float = np.nan
    score_seconds: float = np.nan
    is_final: bool = True
    predicts_quality: bool = False

    def negated(self) -> CalculatorScores:
        """Return them with the other sign, of a number that is better when higher."""
        return replace(
            self,
            pairs=None if self.pairs is None else -self.pairs,
            # An example's score is that for itself as the query.
            single=None if self.single is None else -self.single,
            changes={truth: -values for truth, values in self.changes.items()},
            predicts_quality=True,
        )


def ask_calculator(name: str, calculator: Any, request: ScoreRequest) -> CalculatorScores:
    """Make a calculator where that is left to do, and ask it everything that it can answer.

    Parameters
    ----------
    name
        What it is called, for messages.
    calculator
        A calculator, or a function without arguments that makes one.
    request
        What to ask.

    Raises
    ------
    NonFiniteError
        If a score is NaN or infinite.
    TypeError
        If a function makes something else.
    """
    missing: dict[str, str] = {}
    fit_seconds = np.nan
    if is_calculator(calculator):
        missing[FIT] = "the calculator was made before"
    else:
        start = time.perf_counter()
        try:
            calculator = _made(name, calculator)
        except _NOT_FOR_THIS_MODEL as error:
            missing = dict.fromkeys((PAIRS, SINGLE, CHANGES, FIT), _reason(error))
            return CalculatorScores(missing=missing, is_final=False)
        fit_seconds = time.perf_counter() - start
    start = time.perf_counter()
    answers: dict[str, Any] = {}
    is_final = True
    for kind, ask in _ASKED.items():
        try:
            answers[kind] = ask(calculator, request)
        except _CannotAnswerError as error:
            missing[kind] = str(error)
        except _NOT_FOR_THIS_MODEL as error:
            missing[kind] = _reason(error)
            is_final = is_final and not isinstance(error, CurvatureSizeError)
    seconds = time.perf_counter() - start
    scores = CalculatorScores(
        pairs=answers.get(PAIRS),
        single=answers.get(SINGLE),
        changes=answers.get(CHANGES) or {},
        missing=missing,
        calculator=calculator_settings(calculator) if request.wants_settings else None,
        fit_seconds=fit_seconds,
        score_seconds=seconds,
        is_final=is_final,
    )
    _check_finite(name, scores)
    return scores


def removed_groups(kept: np.ndarray) -> np.ndarray | None:
    """Return which row leaves out each example, or None where rows are no groups of their own.

    Parameters
    ----------
    kept
        Mask ``(s, n)``.

    Returns
    -------
    The row, -1 for examples that all rows keep, int, shape ``(n,)``. None if an example is left
    out by several rows, as of random subsets, or a row leaves out nothing.
    """
    removed = ~kept
    if removed.sum(axis=0).max() > 1 or not removed.any(axis=1).all():
        return None
    return np.where(removed.any(axis=0), removed.argmax(axis=0), -1)


def calculator_settings(calculator: Any) -> dict[str, Any]:
    """Return what tells a calculator from others: its class, its model and its settings."""
    settings: dict[str, Any] = {
        "class": f"{type(calculator).__module__}.{type(calculator).__name__}"
    }
    strategy = getattr(calculator, "ihvp_calculator", None)
    if isinstance(strategy, InverseHessianVectorProduct):
        settings["strategy"] = _strategy_settings(strategy)
    elif isinstance(calculator, PairCalculator):
        # Not beside a strategy: it would take a fit, and the last digits of one.
        settings["settings"] = calculator.origin()
    # After the origin: where there are checkpoints, the weights are those of the first then.
    model = getattr(calculator, "model", None)
    if isinstance(model, BaseInfluenceModel):
        settings["model"] = model_fingerprint(model)
    if isinstance(calculator, PairCalculator):
        own = calculator.query_model is not model
        settings["measurement"] = model_fingerprint(calculator.query_model)["loss"] if own else None
        settings["normalize"] = getattr(calculator, "normalize", None)
        settings["damping"] = getattr(calculator, "damping", None)
        settings["train_dataset"] = _data_settings(getattr(calculator, "train_dataset", None))
    # As it will be read back; what is no JSON is told by its text.
    return json.loads(json.dumps(settings, default=str))


def is_calculator(value: Any) -> bool:
    """Tell a calculator from a function, or a class, that makes one."""
    return _looks_like_one(value) and not inspect.isclass(value)


def check_calculators(calculators: Mapping[str, Any]) -> None:
    """Refuse what is no calculator, nor a function that makes one.

    Raises
    ------
    TypeError
        Names the first.
    """
    for name, value in calculators.items():
        if inspect.isclass(value) and _looks_like_one(value) and _needs_more(value, 0):
            made = f"{value.__name__}(...)"
            received = f"the class {value.__name__}. Pass {made}, or lambda: {made}"
            raise _no_calculator(name, received)
        if not (is_calculator(value) or callable(value)):
            raise _no_calculator(name, f"an object of {type(value).__name__}")


def _looks_like_one(value: Any) -> bool:
    return bool(_answers(value) & {described.PAIRS, described.SELF})


def _answers(calculator: Any) -> frozenset[str]:
    """Return what a calculator says that it answers, and what its methods show."""
    has = {kind for kind, name in _METHODS.items() if hasattr(calculator, name)}
    if described.LOSS_CHANGE in has and _needs_more(calculator.predict_loss_change, 2):
        has.discard(described.LOSS_CHANGE)
    return getattr(calculator, "answers", frozenset()) | has


_METHODS = {
    described.PAIRS: "influence_matrix",
    described.SELF: "score",
    described.LOSS_CHANGE: "predict_loss_change",
}


def _made(name: str, make: Callable[[], Any]) -> Any:
    made = make()
    if is_calculator(made):
        return made
    raise _no_calculator(name, f"a function that returns {type(made).__name__}")


def _no_calculator(name: str, received: str) -> TypeError:
    message = (
        "Argument `calculators` must map names to calculators, which have `influence_matrix` or "
        "`score`, or to functions without arguments that make them. "
        f"Received: {name!r}, {received}."
    )
    return TypeError(message)


def _strategy_settings(strategy: InverseHessianVectorProduct) -> dict[str, Any]:
    config = strategy.get_config()
    config.pop("verbose", None)
    if strategy.seed_was_drawn:
        del config["seed"]  # another one in each process
    return {"name": strategy.name, **config}


def _data_settings(dataset: tf.data.Dataset | None) -> dict[str, Any] | None:
    """Return what tells the data of a fit from others."""
    if dataset is None:
        return None
    try:
        check_fixed_order(dataset)
    except DatasetOrderError:  # allowed here, and then no batch is the first
        return {"examples": count_examples(dataset)}
    return dataset_digest(dataset)


def _pairs(calculator: Any, request: ScoreRequest) -> np.ndarray | None:
    if request.queries is None:
        return None
    if described.PAIRS not in _answers(calculator):
        message = f"{type(calculator).__name__} scores examples on their own, not for queries"
        raise _CannotAnswerError(message)
    matrix = calculator.influence_matrix(request.queries, request.train_set, verbose=0)
    return np.asarray(matrix)


def _single(calculator: Any, request: ScoreRequest) -> np.ndarray | None:
    if not request.wants_single:
        return None
    if described.SELF not in _answers(calculator):
        message = f"{type(calculator).__name__} scores examples for queries, not on their own"
        raise _CannotAnswerError(message)
    return np.asarray(calculator.score(request.train_set, verbose=0))


def _changes(calculator: Any, request: ScoreRequest) -> dict[str, np.ndarray] | None:
    if request.queries is None or not request.removals:
        return None
    if described.LOSS_CHANGE not in _answers(calculator):
        message = f"{type(calculator).__name__} predicts no change of a loss: scores have no unit"
        raise _CannotAnswerError(message)
    predict, data = calculator.predict_loss_change, (request.queries, request.train_set)
    if "groups" not in inspect.signature(predict).parameters:
        # One from elsewhere may know of examples only; the change for a group is then a sum.
        single = np.asarray(predict(*data, verbose=0))
        return {name: sums_of_removed(single, kept) for name, kept in request.removals.items()}
    # A group may be more than the sum of its members, to those who look at groups.
    return {
        name: np.asarray(predict(*data, groups=removed_groups(kept), verbose=0)).T
        for name, kept in request.removals.items()
    }


_ASKED: dict[str, Callable[[Any, ScoreRequest], Any]] = {
    PAIRS: _pairs,
    SINGLE: _single,
    CHANGES: _changes,
}


class _CannotAnswerError(Exception):
    """The calculator is of a kind that gives no such scores."""


def _needs_more(function: Callable[..., Any], given: int) -> bool:
    """Tell whether more than so many arguments must be given."""
    parameters = list(inspect.signature(function).parameters.values())[given:]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return any(p.default is p.empty and p.kind not in kinds for p in parameters)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _check_finite(name: str, scores: CalculatorScores) -> None:
    arrays = {"pairs": scores.pairs, "examples": scores.single, **scores.changes}
    for what, array in arrays.items():
        if array is None or np.isfinite(array).all():
            continue
        bad = np.argwhere(~np.isfinite(array))
        message = (
            f"The scores of a calculator must be finite. Received: {len(bad)} of {array.size} "
            f"scores of {what} by {name!r} are NaN or infinite, the first at {bad[0].tolist()}. "
            "A larger damping may help; or leave the calculator out."
        )
        raise NonFiniteError(message)
