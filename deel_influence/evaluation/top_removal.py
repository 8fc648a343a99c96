"""What becomes of a query when the examples that support it most are removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..linalg.checks import check_count
from .checks import finite_array
from .lds import check_confidence
from .retraining import retrain


@dataclass(frozen=True, eq=False)
class Brittleness:
    """What `brittleness` found, for t sizes of removals and m queries.

    Attributes
    ----------
    sizes
        How many examples were removed, int, shape ``(t,)``.
    changed
        Share of the seeds with which the prediction of a query changed when the examples that help
        it most were removed, shape ``(t, m)``.
    changed_at_random
        Share of the seeds and draws with which it changed when as many others were removed that
        were drawn at random, shape ``(t, m)``.
    """

    sizes: np.ndarray
    changed: np.ndarray
    changed_at_random: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """The share of the predictions that the removals change, shape ``(t,)``."""
        return self.changed.mean(axis=1)

    @property
    def share_at_random(self) -> np.ndarray:
        """The share of the predictions that random removals change, shape ``(t,)``."""
        return self.changed_at_random.mean(axis=1)


def brittleness(
    scores: np.ndarray,
    train: Callable[[np.ndarray, int], Any],
    predict: Callable[[Any], np.ndarray],
    sizes: Sequence[int],
    *,
    seeds: Sequence[int] = (0,),
    num_random: int = 5,
    seed: int = 0,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    verbose: str | int = "auto",
) -> Brittleness:
    """Remove the examples that help a query most, retrain, and see whether its prediction changes.

    Scores that tell what a prediction rests on change it by fewer removals than chance does [1]_.
    This trains ``(t * (m + num_random) + 1) * r`` models, for t sizes, m queries and r seeds: a
    random removal serves all queries.

    Parameters
    ----------
    scores
        Influence of each training example on each query, shape ``(m, n)``: positive where it helps.
    train
        ``train(positions, seed)`` trains on those examples and returns a model, of whatever type.
    predict
        ``predict(model)`` returns the predicted class of each query, shape ``(m,)``.
    sizes
        How many examples to remove, t numbers.
    seeds
        Each removal is retrained with each of these r seeds, and compared with the model that was
        trained on everything with the same seed.
    num_random
        How many random removals of each size serve for comparison.
    seed
        Fixes those, and the order of examples of equal score.
    folder, settings, verbose
        As for `retrain`: with a folder every finished retraining is kept, and a killed run resumes.

    Returns
    -------
    The shares of changed predictions, and of those that random removals change.

    Raises
    ------
    ValueError
        If a score is not finite, a size leaves nothing in or out, or there is no random removal.

    References
    ----------
    .. [1] A. Ilyas, S. M. Park, L. Engstrom, G. Leclerc, A. Madry. Datamodels: Predicting
       Predictions from Training Data. ICML 2022.
    """
    scores = finite_array(scores, "scores", "mn")
    numbers = _checked_sizes(sizes, scores.shape[1])
    kept = _removals(scores, numbers, _checked_random(num_random), seed)
    truth = retrain(
        train, predict, kept, seeds=seeds, folder=folder, settings=settings, verbose=verbose
    )
    differs = (truth.outputs != truth.full_outputs[:, None]).mean(axis=0)
    num_queries = len(scores)
    differs = differs.reshape(len(numbers), num_queries + num_random, num_queries)
    # Removals for one query have been measured on all of them; its own is what was asked for.
    own = np.diagonal(differs[:, :num_queries], axis1=1, axis2=2)
    return Brittleness(numbers, own.copy(), differs[:, num_queries:].mean(axis=1))


@dataclass(frozen=True, eq=False)
class QueryLossDifference:
    """What `query_loss_difference` found, for m queries.

    Attributes
    ----------
    difference
        How much more the loss of a query rises without what helps it most than without as many
        examples drawn at random, mean over the queries, in units of the loss.
    interval
        Of the difference, by a bootstrap over queries and random removals.
    confidence
        Of the interval.
    size
        How many examples were removed.
    changes
        The rise of each query's loss without what helps it most, shape ``(m,)``.
    changes_at_random
        Its rise without each set drawn at random, shape ``(num_random, m)``.
    """

    difference: float
    interval: tuple[float, float]
    confidence: float
    size: int
    changes: np.ndarray
    changes_at_random: np.ndarray

    @property
    def per_query(self) -> np.ndarray:
        """The difference of each query, shape ``(m,)``."""
        return self.changes - self.changes_at_random.mean(axis=0)


def query_loss_difference(
    scores: np.ndarray,
    train: Callable[[np.ndarray, int], Any],
    measure: Callable[[Any], np.ndarray],
    share: float = 0.01,
    *,
    seeds: Sequence[int] = (0,),
    num_random: int = 5,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    higher_is_better: bool | None = None,
    folder: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    verbose: str | int = "auto",
) -> QueryLossDifference:
    """Remove the share of the examples that helps a query most, retrain, and compare its loss.

    The query loss difference is the rise of the loss without them, less its rise without as many
    examples drawn at random. Positive: the scores find what the query rests on. It looks at the top
    of the scores alone, where `linear_datamodelling_score` looks at all of them. This trains
    ``(m + num_random + 1) * r`` models for m queries and r seeds.

    Parameters
    ----------
    scores
        Influence of each training example on each query, shape ``(m, n)``: positive where it helps.
    train, seeds, num_random, folder, verbose
        As for `brittleness`.
    measure
        ``measure(model)`` returns a number for each query, shape ``(m,)``: `QueryOutputs`.
    share
        Of the n examples, 0.01 for 1 %; at least one is removed.
    num_resamples
        Of the bootstrap.
    confidence
        Of the interval.
    seed
        Fixes the random removals, the order of examples of equal score, and the bootstrap.
    higher_is_better, settings
        As for `retrain`.

    Returns
    -------
    The difference, its interval, and the changes of each query.

    Raises
    ------
    ValueError
        If a score is not finite, the share leaves nothing in, or there is no random removal.
    """
    scores = finite_array(scores, "scores", "mn")
    num_queries, num_examples = scores.shape
    size = max(1, round(float(share) * num_examples))
    if not 0 < share < 1 or size >= num_examples:
        message = (
            "Argument `share` must lie between 0 and 1, 0.01 for 1 % of the examples, and leave "
            f"some of them in. Received: share={share!r} of {num_examples} examples."
        )
        raise ValueError(message)
    check_count("num_resamples", num_resamples)
    check_confidence(confidence)
    kept = _removals(scores, np.array([size]), _checked_random(num_random), seed)
    truth = retrain(
        *(train, measure, kept),
        seeds=seeds,
        settings=settings,
        higher_is_better=higher_is_better,
        folder=folder,
        verbose=verbose,
    )
    own = np.diagonal(truth.changes[:num_queries]).copy()
    random = truth.changes[num_queries:]
    differences = own - random
    generator = np.random.default_rng(seed)
    means = [
        differences[np.ix_(*(generator.integers(k, size=k) for k in differences.shape))].mean()
        for _ in range(num_resamples)
    ]
    ends = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    interval = float(ends[0]), float(ends[1])
    return QueryLossDifference(
        float(differences.mean()), interval, confidence, size, own, random.copy()
    )


def _checked_random(num_random: int) -> int:
    if num_random >= 1:
        return num_random
    message = (
        f"Argument `num_random` must be at least 1. Received: num_random={num_random!r}. "
        "Without a comparison, nobody can tell what a removal means."
    )
    raise ValueError(message)


def _checked_sizes(sizes: Sequence[int], num_examples: int) -> np.ndarray:
    numbers = np.asarray(sizes)
    whole = numbers.ndim == 1 and len(numbers) and np.issubdtype(numbers.dtype, np.integer)
    if not whole or numbers.min() < 1 or numbers.max() >= num_examples:
        message = (
            f"Argument `sizes` must hold whole numbers from 1 to {num_examples - 1}, so that some "
            f"of the {num_examples} examples go and some stay. Received: sizes={sizes!r}."
        )
        raise ValueError(message)
    return numbers


def _removals(scores: np.ndarray, sizes: np.ndarray, num_random: int, seed: int) -> np.ndarray:
    """Return what is kept: for each size the removals of the m queries, then the random ones."""
    generator = np.random.default_rng(seed)
    num_queries, num_examples = scores.shape
    # Random numbers break ties, so that scores of zero do not remove what stands first.
    draws = generator.random((num_queries + num_random, num_examples))
    orders = [np.lexsort((draw, -row)) for draw, row in zip(draws, scores, strict=False)]
    orders += [np.argsort(draw) for draw in draws[num_queries:]]
    places = np.argsort(orders, axis=1)
    kept = places >= sizes[:, None, None]
    return kept.reshape(-1, num_examples)
