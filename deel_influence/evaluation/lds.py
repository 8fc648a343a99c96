"""The linear datamodelling score: how well sums of scores put retrained models into order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..linalg.checks import check_count
from .checks import finite_array
from .correlations import correlate_queries, is_constant, rowwise_spearman, tie_bounds
from .subsets import sums_of_kept


@dataclass(frozen=True, eq=False)
class LinearDatamodellingScore:
    """What `linear_datamodelling_score` found.

    Attributes
    ----------
    score
        The mean of ``per_query``, queries of NaN left out: from -1 to 1, larger is better.
    per_query
        The rank correlation over subsets of each query, shape ``(m,)``. It is 0 where the
        predictions, and NaN where the outputs are the same for all subsets.
    interval
        Ends of the bootstrap interval of ``score``.
    confidence
        Of the interval.
    constant_predictions
        How many queries the scores predict the same output for whatever is left out; their 0 counts
        in ``score``.
    constant_outputs
        How many queries have the same output whatever is left out; they are not in ``score``.
    """

    score: float
    per_query: np.ndarray
    interval: tuple[float, float]
    confidence: float
    constant_predictions: int
    constant_outputs: int


def linear_datamodelling_score(
    scores: np.ndarray,
    kept: np.ndarray,
    outputs: np.ndarray,
    *,
    higher_is_better: bool = False,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LinearDatamodellingScore:
    """Compare the outputs of models that were trained on subsets with what scores predict.

    The prediction for a subset is the sum of the scores of the examples in it. Per query, the
    predictions are correlated by rank with the outputs over the subsets [1]_; the mean over queries
    is the score. Its interval is a bootstrap that draws subsets and queries anew, both with
    replacement: it says how far the score would move with other subsets and other queries. Subsets
    that are drawn twice are ties, which lower a rank correlation; the quantiles of the draws are
    moved up by what the draws have lost on average.

    Parameters
    ----------
    scores
        Influence of each training example on each query, shape ``(m, n)``: positive where it helps.
    kept
        The subsets, mask ``(s, n)``, as `random_subsets` draws them.
    outputs
        The output of each query after training on each subset, shape ``(s, m)``.
    higher_is_better
        Whether the output is larger for a better model, such as a margin. A loss is not, and its
        sign is turned.
    num_resamples
        Of the bootstrap.
    confidence
        Of the interval.
    seed
        Fixes the draws of the bootstrap.

    Returns
    -------
    The score, its interval, and the correlation of each query.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, there is one subset only, or no query has
        outputs that differ between subsets.

    References
    ----------
    .. [1] S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry. TRAK: Attributing Model Behavior
       at Scale. ICML 2023. arXiv:2303.14186.
    """
    check_count("num_resamples", num_resamples)
    check_confidence(confidence)
    predictions = sums_of_kept(scores, kept)
    sizes = dict(zip("sm", predictions.shape, strict=True))
    quality = finite_array(outputs, "outputs", "sm", **sizes) * (1.0 if higher_is_better else -1.0)
    if len(quality) < 2:
        message = (
            "Argument `kept` must hold at least two subsets to compare. Received: 1. "
            "Some tens are usual."
        )
        raise ValueError(message)
    per_query = correlate_queries(rowwise_spearman, predictions, quality)
    counted = np.isfinite(per_query)
    score = float(per_query[counted].mean())
    means = _bootstrap(predictions[:, counted].T, quality[:, counted].T, num_resamples, seed)
    return LinearDatamodellingScore(
        score=score,
        per_query=per_query,
        interval=_interval_around(score, means, confidence),
        confidence=confidence,
        constant_predictions=int(is_constant(predictions.T)[counted].sum()),
        constant_outputs=int((~counted).sum()),
    )


def check_confidence(confidence: float) -> None:
    """Refuse what is no confidence of an interval.

    Raises
    ------
    ValueError
        If it does not lie between 0 and 1.
    """
    if not 0.0 < confidence < 1.0:
        message = (
            "Argument `confidence` must lie between 0 and 1, 0.95 for 95 %. "
            f"Received: confidence={confidence!r}."
        )
        raise ValueError(message)


def _interval_around(score: float, means: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the quantiles of resampled scores, moved so that their mean is the score."""
    quantiles = np.quantile(means, [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0])
    low, high = np.clip(quantiles + score - means.mean(), -1.0, 1.0)
    return min(float(low), score), max(float(high), score)


def _bootstrap(
    predictions: np.ndarray, quality: np.ndarray, num_resamples: int, seed: int
) -> np.ndarray:
    """Return the score of each resample of subsets and queries, shape ``(num_resamples,)``."""
    num_queries, num_subsets = quality.shape
    generator = np.random.default_rng(seed)
    predicted, actual = _WeightedRanks(predictions), _WeightedRanks(quality)
    means = np.empty(num_resamples)
    for resample in range(num_resamples):
        times = _draw(num_subsets, generator)
        first, second = predicted.centred(times), actual.centred(times)
        lengths = np.sqrt((first**2 @ times) * (second**2 @ times))
        # A resample that repeats a few subsets may have nothing to order: it counts as 0.
        values = (first * second) @ times / np.where(lengths > 0.0, lengths, 1.0)
        means[resample] = values @ _draw(num_queries, generator) / num_queries
    return means


def _draw(number: int, generator: np.random.Generator) -> np.ndarray:
    """Return how often each of so many is drawn when as many are drawn, with replacement."""
    return np.bincount(generator.integers(number, size=number), minlength=number).astype(float)


class _WeightedRanks:
    """Mean ranks in rows whose columns come several times, or not at all.

    Sorting is done once: a resample only needs sums of how often the smaller entries come.

    Parameters
    ----------
    values
        Shape ``(m, s)``.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._order = np.argsort(values, axis=1)
        starts, ends = tie_bounds(np.take_along_axis(values, self._order, axis=1))
        # Where the sums up to an entry's run of equal values stand, in the order of the columns.
        back = np.argsort(self._order, axis=1)
        rows = np.arange(len(values))[:, None] * (values.shape[1] + 1)
        self._before = np.take_along_axis(starts, back, axis=1) + rows
        self._through = np.take_along_axis(ends, back, axis=1) + 1 + rows

    def centred(self, times: np.ndarray) -> np.ndarray:
        """Return the mean ranks less their mean, where column j comes ``times[j]`` times.

        Parameters
        ----------
        times
            Whole numbers, shape ``(s,)``, that add up to s.
        """
        rows, columns = self._order.shape
        sums = np.zeros((rows, columns + 1))
        np.cumsum(times[self._order], axis=1, out=sums[:, 1:])
        return (sums.take(self._before) + sums.take(self._through) - columns) / 2.0
