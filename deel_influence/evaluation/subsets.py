"""The subsets of a training set that it is retrained on, and sums of scores over them.

A mask ``kept`` of shape ``(s, n)`` says which of the n training examples each of s retrainings has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..linalg.checks import check_count
from ..utils.group_sums import group_labels
from .checks import finite_array, kept_mask
from .positions import checked_positions

_BLOCK_ENTRIES = 1 << 24


def leave_one_out(num_examples: int, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the subsets that lack one example each.

    Parameters
    ----------
    num_examples
        The number n of training examples.
    positions
        Which s examples to leave out, one after the other; int, shape ``(s,)``.

    Returns
    -------
    Mask ``(s, n)``, bool.

    Raises
    ------
    ValueError
        If a position is none of the training set, comes twice, or nothing would be left.
    """
    positions = checked_positions(positions, num_examples)
    kept = np.ones((len(positions), num_examples), bool)
    kept[np.arange(len(positions)), positions] = False
    return kept_mask(kept)


def leave_groups_out(num_examples: int, groups: np.ndarray) -> np.ndarray:
    """Return the subsets that lack one group each.

    Parameters
    ----------
    num_examples
        The number n of training examples.
    groups
        The number of each example's group, from 0, or -1 for none; int, shape ``(n,)``.

    Returns
    -------
    Mask ``(number of groups, n)``, bool.

    Raises
    ------
    ValueError
        If there is not one number for each example, a number is left out, or one group holds all
        examples.
    """
    labels = group_labels(np.asarray(groups), num_examples)
    present = np.unique(labels[labels >= 0])
    if len(present) <= labels.max():
        first = np.flatnonzero(present != np.arange(len(present)))[0]
        message = (
            "Argument `groups` must number the groups without a gap. Received: "
            f"{labels.max() + 1 - len(present)} of the numbers from 0 to {labels.max()} that no "
            f"example has, the first is {first}. np.unique(groups, return_inverse=True)[1] numbers "
            "them anew; subtract 1 where some are -1."
        )
        raise ValueError(message)
    return kept_mask(labels != present[:, None])


def random_subsets(
    num_examples: int, num_subsets: int, fraction: float = 0.5, seed: int = 0
) -> np.ndarray:
    """Draw subsets of one size, each uniformly without replacement.

    More subsets of the same seed begin with the same ones.

    Parameters
    ----------
    num_examples
        The number n of training examples.
    num_subsets
        The number s of subsets.
    fraction
        Their share of the training set, rounded to whole examples.
    seed
        Fixes the draw.

    Returns
    -------
    Mask ``(s, n)``, bool.

    Raises
    ------
    ValueError
        If there is no subset to draw, or it would hold nothing or everything.
    """
    check_count("num_subsets", num_subsets)
    size = round(fraction * num_examples) if 0.0 < fraction < 1.0 else 0
    if not 0 < size < num_examples:
        message = (
            "Argument `fraction` must leave some of the examples in and some out. Received: "
            f"fraction={fraction!r} of {num_examples} examples."
        )
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    kept = np.zeros((num_subsets, num_examples), bool)
    for row in kept:
        row[generator.permutation(num_examples)[:size]] = True
    return kept


def sums_of_kept(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Add up the scores of the examples in each subset.

    Parameters
    ----------
    scores
        Shape ``(m, n)``.
    kept
        Mask ``(s, n)``.

    Returns
    -------
    Sums, shape ``(s, m)``. Those of a query that are alike but for rounding are equal.
    """
    return _sums(scores, kept, lacking=False)


def sums_of_removed(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Add up the scores of the examples that each subset lacks.

    Parameters
    ----------
    scores, kept
        As for `sums_of_kept`.

    Returns
    -------
    Sums, shape ``(s, m)``. Those of a query that are alike but for rounding are equal.
    """
    return _sums(scores, kept, lacking=True)


def _sums(scores: np.ndarray, kept: np.ndarray, lacking: bool) -> np.ndarray:
    kept = kept_mask(kept)
    scores = finite_array(scores, "scores", "mn", n=kept.shape[1])
    mask = ~kept if lacking else kept
    sums, magnitudes = _products(mask, scores), _products(mask, np.abs(scores))
    # Equal scores give sums that differ by rounding alone, and their ranks would be noise. This is
    # the most that rounding can come to; it leaves sums of one score as they are.
    terms = max(int(mask.sum(axis=1).max()) - 1, 0)
    rounding = terms * np.finfo(np.float64).eps * magnitudes.max(axis=0)
    alike = np.ptp(sums, axis=0) <= rounding
    sums[:, alike] = sums[0, alike]
    return sums


def _products(mask: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the sums over each row of a mask ``(s, n)``, shape ``(s, m)``."""
    # A few rows at a time: as float64 they take eight times the memory.
    rows = max(1, _BLOCK_ENTRIES // mask.shape[1])
    blocks = [mask[start : start + rows] for start in range(0, len(mask), rows)]
    return np.concatenate([block.astype(np.float64) @ scores.T for block in blocks])
