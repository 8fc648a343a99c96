"""Judge calculators, side by side, against retraining and against known wrong labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ..baselines.loss import LossScore
from ..linalg.checks import check_count
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.datasets import check_dataset, count_examples
from ..utils.digests import array_digest, dataset_digest
from ..utils.order import check_fixed_order
from ..utils.progress import check_verbose, progress_bar
from ..utils.takes_data import takes_data
from .calculator_scores import (
    CHANGES,
    FIT,
    CalculatorScores,
    ScoreRequest,
    ask_calculator,
    calculator_settings,
    check_calculators,
    is_calculator,
)
from .checks import require_pandas
from .comparison import Comparison, Row
from .correlations import is_constant, strategy_correlations
from .evaluation import Evaluation, table_of
from .ground_truth import GroundTruth
from .scores_folder import ScoresFolder

BUDGETS = (0.05, 0.1, 0.2, 0.3)
"""Shares of the list that are read, where none are given."""

LOSS, RANDOM = "loss", "random"
"""The names of the controls."""


@takes_data
def evaluate(
    calculators: Mapping[str, Any],
    train_set: Data,
    queries: Data | None = None,
    *,
    truth: GroundTruth | Mapping[str, GroundTruth] | None = None,
    mislabelled: np.ndarray | None = None,
    model: BaseInfluenceModel | None = None,
    opposite: Collection[str] = (),
    budgets: Sequence[float] = BUDGETS,
    num_resamples: int = 1000,
    seed: int = 0,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    verbose: str | int = "auto",
) -> Evaluation:
    """Score with each calculator, and tell how good the scores are.

    Which measures there are goes by what is known. A truth from subsets that overlap, such as
    random halves, gives the linear datamodelling score and its interval; one from leaving out
    single examples or groups that share no member gives the correlations with the actual changes,
    by `predict_loss_change` where the calculator has it, and then the slope too. Known wrong
    labels give the areas under the curves and the recall within each budget. Beside the
    calculators there are controls: ``"random"`` scores and, for wrong labels, the ``"loss"`` of
    ``model``.

    Parameters
    ----------
    calculators
        By name: a calculator, or a function without arguments that makes one, which is called when
        its turn comes, and timed.
    train_set
        The n training examples, batched, in a fixed order.
    queries
        The m queries of the truth, batched, in its order.
    truth
        Outputs of retrained models, or several of them by name.
    mislabelled
        Which labels are wrong, shape ``(n,)``, bool.
    model
        The model whose loss is a control in the search for wrong labels. Needed with ``folder``
        where functions make the calculators: what is on disk is refused for another model.
    opposite
        The names of calculators whose scores have the other sign, for queries and for examples on
        their own: those with a ``measurement`` of which higher is better, such as ``"margin"``.
    budgets
        Shares of the list of which the recall is told, shape ``(t,)``.
    num_resamples
        Of the bootstrap of an interval.
    seed
        Fixes the random scores and the bootstrap.
    folder
        Where the scores of each calculator are kept as soon as they are there. Called again with
        the same arguments, an evaluation that was killed goes on where it stopped; the times in
        the table are those of the first run. None keeps nothing.
    settings
        What else the scores depend on, as JSON can hold it. A folder of other settings is refused.
        A calculator that a function makes is known by its name alone: what tells two functions of
        one name apart belongs here.
    verbose
        As in Keras: a bar over the calculators.

    Returns
    -------
    The table, in which what a calculator cannot give is NaN, with the reasons.

    Raises
    ------
    ValueError
        If numbers of examples or queries do not fit, or nothing is known to compare with, or a
        ground truth says nothing because its outputs are all the same.
    TypeError
        If something is no calculator, nor a function that makes one.
    DatasetOrderError
        If a dataset changes its order from pass to pass.
    DataSourceError
        If the folder is one of another evaluation, or a file in it is damaged.
    NonFiniteError
        If a score is NaN or infinite; the message names the calculator.
    MissingExtraError
        If pandas is not installed.

    Examples
    --------
    Anything that scores examples can be judged:

    >>> class Position:
    ...     def score(self, train_set, verbose=0):
    ...         return np.arange(4.0)
    >>> train_set = tf.data.Dataset.from_tensor_slices((np.zeros((4, 1)), np.zeros(4))).batch(2)
    >>> wrong = np.array([False, False, False, True])
    >>> evaluation = evaluate({"position": Position()}, train_set, mislabelled=wrong)
    >>> evaluation.table["ROC AUC"].to_dict()
    {'position': 1.0, 'random': 0.5}
    """
    require_pandas()  # now, and not when everything is computed
    check_verbose(verbose)
    truths = {"": truth} if isinstance(truth, GroundTruth) else dict(truth or {})
    comparison = Comparison(
        truths,
        None if mislabelled is None else np.asarray(mislabelled),
        tuple(map(float, budgets)),
        check_count("num_resamples", num_resamples),
        check_count("seed", seed, 0),
    )
    sizes = _checked_sizes(comparison, train_set, queries)
    _check_names(calculators, opposite)
    check_calculators(calculators)
    # First, because it refuses what nothing can be compared with, before anything is computed.
    random = comparison.row(_random_scores(comparison, sizes))
    has_folder, is_search = folder is not None, mislabelled is not None
    request = ScoreRequest(train_set, queries, is_search, comparison.removals, has_folder)
    asked = dict(calculators)
    if model is not None and is_search:
        asked.setdefault(LOSS, LossScore(model))
    store = None
    if folder is not None:
        _check_known_model(calculators, model)
        store = ScoresFolder(folder, _settings(request, comparison, model, settings))
    answers = {
        name: _scores_of(name, asked[name], request, sizes, store)
        for name in progress_bar(asked, "Evaluation", len(asked), verbose, unit="calculator")
    }
    answers |= {name: answers[name].negated() for name in opposite}
    correlations = _correlations({name: answers[name] for name in calculators})
    rows = {name: comparison.row(scores) for name, scores in answers.items()}
    rows.setdefault(RANDOM, random)
    return _evaluation(rows, correlations, comparison, sizes)


def _scores_of(
    name: str,
    calculator: Any,
    request: ScoreRequest,
    sizes: tuple[int, int | None],
    store: ScoresFolder | None,
) -> CalculatorScores:
    """Return what a calculator says, from disk where it is there."""
    found = None
    if store is not None:
        known = calculator_settings(calculator) if is_calculator(calculator) else None
        found = store.read(name, known)
    if found is None:
        found = ask_calculator(name, calculator, request)
        _check_shapes(name, found, sizes)
        # Perhaps there is more memory another time.
        if store is not None and found.is_final:
            store.write(name, found)
    return found


def _random_scores(comparison: Comparison, sizes: tuple[int, int | None]) -> CalculatorScores:
    """Return scores that know nothing."""
    num_examples, num_queries = sizes
    pairs = None
    if num_queries is not None:
        # Not the numbers that data made with the same seed may consist of.
        generator = np.random.default_rng([comparison.seed, num_queries, num_examples])
        pairs = generator.normal(size=(num_queries, num_examples))
    return CalculatorScores(
        pairs,
        # Ties stand for the mean over all orders: the control has no luck.
        np.zeros(num_examples),
        missing={CHANGES: "random scores have no unit", FIT: "random scores cost nothing"},
    )


def _correlations(answers: Mapping[str, CalculatorScores]) -> Any:
    """Return how far the calculators agree, or None where there is nothing to compare."""
    pairs = {name: scores.pairs for name, scores in answers.items() if scores.pairs is not None}
    single = {name: scores.single for name, scores in answers.items() if scores.single is not None}
    chosen = pairs if len(pairs) > 1 else single
    # Those that give every example the same agree with nothing.
    told_apart = {
        name: values
        for name, values in chosen.items()
        if not is_constant(np.reshape(values, (1, -1)))[0]
    }
    return strategy_correlations(told_apart) if len(told_apart) > 1 else None


def _evaluation(
    rows: Mapping[str, Row],
    correlations: Any,
    comparison: Comparison,
    sizes: tuple[int, int | None],
) -> Evaluation:
    settings = {
        "examples": sizes[0],
        "queries": sizes[1],
        "truth": {name: truth.outputs.shape[1] for name, truth in comparison.truths.items()},
        "mislabelled": None
        if comparison.mislabelled is None
        else int(comparison.mislabelled.sum()),
        "budgets": list(comparison.budgets),
        "num_resamples": comparison.num_resamples,
        "seed": comparison.seed,
    }
    table = table_of({name: row.values for name, row in rows.items()})
    missing = {name: row.missing for name, row in rows.items() if row.missing}
    return Evaluation(table, missing, correlations, settings)


def _settings(
    request: ScoreRequest,
    comparison: Comparison,
    model: BaseInfluenceModel | None,
    settings: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what the scores of all calculators depend on."""
    queries, mislabelled = request.queries, comparison.mislabelled
    return {
        "train_set": dataset_digest(request.train_set),
        "queries": None if queries is None else dataset_digest(queries),
        "truth": {
            name: array_digest(truth.kept, truth.outputs, truth.full_outputs)
            for name, truth in comparison.truths.items()
        },
        "mislabelled": None if mislabelled is None else array_digest(mislabelled),
        "model": None if model is None else model_fingerprint(model),
        "settings": dict(settings or {}),
    }


def _checked_sizes(
    comparison: Comparison, train_set: tf.data.Dataset, queries: tf.data.Dataset | None
) -> tuple[int, int | None]:
    """Return n and m, after comparing them with what is known.

    Raises
    ------
    ValueError
        If they do not fit, or nothing is known.
    """
    num_examples = _checked_count(train_set, "train_set")
    num_queries = None if queries is None else _checked_count(queries, "queries")
    if not comparison.truths and comparison.mislabelled is None:
        message = (
            "Argument `truth` or `mislabelled` must be given: there is nothing to compare scores "
            "with. Received: neither. Make a truth with `retrain`."
        )
        raise ValueError(message)
    if comparison.truths and queries is None:
        message = (
            "Argument `queries` must be the queries of `truth`, batched, in its order. "
            "Received: queries=None."
        )
        raise ValueError(message)
    for name, truth in comparison.truths.items():
        shape = (truth.kept.shape[1], truth.full_outputs.shape[1])
        if shape != (num_examples, num_queries):
            which = f" {name!r}" if name else ""
            message = (
                f"Argument `truth` must be of the examples of `train_set` and the queries of "
                f"`queries`. Received: {num_examples} examples and {num_queries} queries, and a "
                f"truth{which} of {shape[0]} and {shape[1]}."
            )
            raise ValueError(message)
    mask = comparison.mislabelled
    if mask is not None and (mask.shape != (num_examples,) or mask.dtype != bool):
        message = (
            f"Argument `mislabelled` must be a mask of dtype bool for the {num_examples} examples "
            f"of `train_set`. Received: shape {mask.shape}, dtype {mask.dtype}."
        )
        raise ValueError(message)
    return num_examples, num_queries


def _checked_count(dataset: tf.data.Dataset, argument: str) -> int:
    """Return the number of examples of a batched dataset in a fixed order."""
    check_dataset(dataset, argument)
    check_fixed_order(dataset, argument)
    return count_examples(dataset)


def _check_names(calculators: Mapping[str, Any], opposite: Collection[str]) -> None:
    if isinstance(opposite, str):
        message = (
            "Argument `opposite` must be a collection of names, such as a list. Received: the text "
            f"{opposite!r}. Pass [{opposite!r}]."
        )
        raise TypeError(message)
    unknown = [name for name in opposite if name not in calculators]
    if not calculators or unknown:
        message = (
            "Argument `calculators` must hold at least one calculator by name, and those that "
            f"`opposite` names. Received: {list(calculators)}, and opposite={list(opposite)}."
        )
        raise ValueError(message)


def _check_known_model(calculators: Mapping[str, Any], model: BaseInfluenceModel | None) -> None:
    made_later = [name for name, value in calculators.items() if not is_calculator(value)]
    if made_later and model is None:
        message = (
            "Argument `model` must be given with `folder` where functions make the calculators, so "
            "that scores of another model are refused. Received: model=None, and functions for "
            f"{made_later}."
        )
        raise ValueError(message)


def _check_shapes(name: str, scores: CalculatorScores, sizes: tuple[int, int | None]) -> None:
    num_examples, num_queries = sizes
    for array, shape in ((scores.pairs, (num_queries, num_examples)), (scores.single, sizes[:1])):
        if array is not None and array.shape != shape:
            message = (
                f"Argument `calculators` must give scores of the shape {shape} for these data. "
                f"Received: {array.shape} from {name!r}."
            )
            raise ValueError(message)
