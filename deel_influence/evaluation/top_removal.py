"""Whether a prediction changes when the examples that support it most are removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .checks import finite_array
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
    if num_random < 1:
        message = (
            f"Argument `num_random` must be at least 1. Received: num_random={num_random!r}. "
            "Without a comparison, nobody can tell what a share of changes means."
        )
        raise ValueError(message)
    kept = _removals(scores, numbers, num_random, seed)
    truth = retrain(
        train, predict, kept, seeds=seeds, folder=folder, settings=settings, verbose=verbose
    )
    differs = (truth.outputs != truth.full_outputs[:, None]).mean(axis=0)
    num_queries = len(scores)
    differs = differs.reshape(len(numbers), num_queries + num_random, num_queries)
    # Removals for one query have been measured on all of them; its own is what was asked for.
    own = np.diagonal(differs[:, :num_queries], axis1=1, axis2=2)
    return Brittleness(numbers, own.copy(), differs[:, num_queries:].mean(axis=1))


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
