"""How far the derivative of a run may be believed."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from .recorded_run import RecordedRun
from .steps import State

SMOOTH_ENOUGH = 0.5
"""The smoothness below which a calculator warns."""


def smoothness(run: RecordedRun, fraction: float = 0.05, seed: int = 0) -> float:
    """Measure how far the trained weights depend smoothly on the weights of the examples.

    A part of the examples, drawn at random, is given the weight 1, 1/2 and 0. With θ₁, θ½ and θ₀
    the weights of the model after these trainings, Δ = θ½ - θ₁ and Δ' = θ₀ - θ½, it is the
    empirical metasmoothness [1]_

        Σ_j |Δ_j| sign(Δ_j) sign(Δ'_j) / Σ_j |Δ_j|

    over the parameters j. Near 1, the second half of a removal goes on as the first half began, so
    that a derivative can predict it; near 0 the two have nothing to do with each other. The first
    training is the run itself: two more are done. The run remembers the figure, for calculators.

    Parameters
    ----------
    run
        The recorded run.
    fraction
        The share of the examples.
    seed
        Of their draw.

    Returns
    -------
    From -1 to 1, larger is smoother.

    Raises
    ------
    ValueError
        If no example, or every one, would be chosen.
    NonFiniteError
        If a training ends with NaN or infinity.

    References
    ----------
    .. [1] L. Engstrom, A. Ilyas, B. Chen, A. Feldmann, W. Moses, A. Madry. Optimizing ML Training
       with Metagradient Descent. 2025. arXiv:2503.13751.
    """
    count = round(fraction * run.num_examples)
    if not 0 < count < run.num_examples:
        message = (
            "Argument `fraction` must choose some of the examples, and not all. Received: "
            f"fraction={fraction!r} of {run.num_examples} examples."
        )
        raise ValueError(message)
    chosen = np.random.default_rng(seed).permutation(run.num_examples)[:count]
    ends = [_trained_weights(run, run.final)]
    for weight in (0.5, 0.0):
        weights = np.ones(run.num_examples)
        weights[chosen] = weight
        ends.append(_trained_weights(run, run.state_after(weights)))
    one, other = np.diff(np.stack(ends), axis=0)
    size = np.abs(one).sum()
    # Weights that do not move at all depend on the examples as smoothly as can be.
    run.smoothness = float(one @ np.sign(other) / size) if size else 1.0
    return run.smoothness


def _trained_weights(run: RecordedRun, state: State) -> np.ndarray:
    """Return the trainable weights of a state as one vector, float64."""
    parts = state[: len(run.model.model.trainable_variables)]
    return np.concatenate([tf.reshape(part, (-1,)).numpy() for part in parts]).astype(np.float64)
