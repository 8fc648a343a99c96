"""Whether scores depend on what a model has learnt, or would be the same without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import finite_array
from .correlations import is_constant, rowwise_spearman


@dataclass(frozen=True, eq=False)
class ModelRandomisation:
    """What `model_randomisation` found, for r models with new weights.

    Attributes
    ----------
    correlations
        Rank correlation of their scores with those of the trained model, shape ``(r,)``; for
        scores of queries the mean over these.
    constant
        How many rows of the models with new weights are all the same, of r times those that count;
        their 0 is in the means.
    """

    correlations: np.ndarray
    constant: int

    @property
    def correlation(self) -> float:
        """The mean over the models with new weights."""
        return float(self.correlations.mean())


def model_randomisation(
    score: Callable[[Any], np.ndarray],
    model: Any,
    make_model: Callable[[int], Any],
    seeds: Sequence[int] = (0, 1, 2),
) -> ModelRandomisation:
    """Compare scores of a trained model with those of the same model with new weights.

    Scores that hardly change are about the inputs and labels, and not about what was learnt: then
    they explain no model [1]_. A low correlation is necessary for scores to mean something, and
    not enough.

    Parameters
    ----------
    score
        ``score(model)`` returns influence ``(m, n)`` or a score for each example, ``(n,)``; it
        makes the calculator, with the loss, for the model that it is given.
    model
        The trained model, of whatever type ``score`` takes.
    make_model
        ``make_model(seed)`` returns the same model with initial weights drawn from a seed.
    seeds
        Of the r models with new weights.

    Returns
    -------
    The correlation for each.

    Raises
    ------
    ValueError
        If a score is not finite, shapes differ, there is no seed, or the trained model gives all
        examples the same.

    References
    ----------
    .. [1] J. Adebayo, J. Gilmer, M. Muelly, I. Goodfellow, M. Hardt, B. Kim. Sanity Checks for
       Saliency Maps. NeurIPS 2018.

    Examples
    --------
    Products of inputs need no training, whatever the weights:

    >>> inputs = np.random.default_rng(0).normal(size=(9, 4))
    >>> found = model_randomisation(lambda weights: inputs[:3] @ inputs.T, None, lambda seed: seed)
    >>> round(found.correlation, 6)
    1.0
    """
    if not len(seeds):
        message = "Argument `seeds` must hold at least one seed. Received: none. Three are usual."
        raise ValueError(message)
    trained = np.asarray(score(model))
    shape = "n" if trained.ndim == 1 else "mn"
    trained = finite_array(trained, "score(model)", shape)
    sizes = dict(zip(shape, trained.shape, strict=True))
    rows = np.atleast_2d(trained)
    told_apart = ~is_constant(rows)
    if not told_apart.any():
        message = (
            "Argument `score` must tell examples apart. Received: the same score for all "
            f"{rows.shape[1]} examples of the trained model."
        )
        raise ValueError(message)
    means, constant = [], 0
    for seed in seeds:
        found = finite_array(score(make_model(seed)), "score(make_model(seed))", shape, **sizes)
        others = np.atleast_2d(found)[told_apart]
        constant += int(is_constant(others).sum())
        # NaN stands for a row without an order: it agrees with nothing.
        means.append(np.nan_to_num(rowwise_spearman(others, rows[told_apart])).mean())
    return ModelRandomisation(np.array(means), constant)
