"""The last layer alone, fitted anew on all folds but one, to tell the labels of that one."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..rps.refit import HeadObjective, LossOfLogits, Part, refit

STRENGTH = 0.03
"""The factor λ of ``λ ‖W‖²``, for features of variance one.

It is not chosen by the held-out loss: the features have been trained on the labels, the wrong ones
included, so that the held-out loss always asks for less. See the page on labels for how flat the
choice is.
"""

TOLERANCE = 1e-2
MAX_STEPS = 30
"""Of `refit`; logits are then known to about a hundredth, which no rank is moved by."""


class SoftmaxLoss:
    """The cross-entropy of a softmax, as `HeadObjective` takes losses."""

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return the losses ``(b,)`` for logits ``(b, c)`` and classes ``(b,)``."""
        return weights * tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)

    def derivative(self, logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return ``∂ℓ_i/∂logits_i``, shape ``(b, c)``."""
        wanted = tf.one_hot(targets, tf.shape(logits)[1], dtype=logits.dtype)
        return weights[:, None] * (tf.nn.softmax(logits) - wanted)


class SigmoidLoss:
    """The cross-entropies of c sigmoids, added up, as `HeadObjective` takes losses."""

    def __call__(self, logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return the losses ``(b,)`` for logits and rows of 0 and 1, both ``(b, c)``."""
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return weights * tf.reduce_sum(losses, axis=1)

    def derivative(self, logits: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Return ``∂ℓ_i/∂logits_i``, shape ``(b, c)``."""
        return weights[:, None] * (tf.sigmoid(logits) - targets)


def stratified_folds(labels: np.ndarray, num_folds: int, seed: int = 0) -> np.ndarray:
    """Return the fold, from 0, of each example, int64, shape ``(n,)``.

    The examples of a class, in an order that is drawn from the seed, are dealt out in turn, and
    the next class goes on where the last one ended: folds differ by one example at most, and so
    do the examples of a class in them.

    Parameters
    ----------
    labels
        Classes, shape ``(n,)``.
    num_folds, seed
        How many folds, and what fixes the draw.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.empty(len(labels), np.int64)
    folds[order] = np.arange(len(labels)) % num_folds
    return folds


def standardised(features: np.ndarray) -> np.ndarray:
    """Return features ``(n, d)`` with mean 0 and variance 1, float64; constant ones are 0."""
    features = features.astype(np.float64)
    features -= features.mean(axis=0)
    scale = features.std(axis=0)
    return features / np.where(scale > 0, scale, 1.0)


def with_ones(features: np.ndarray) -> np.ndarray:
    """Return features ``(n, d)`` with a last entry of one, shape ``(n, d + 1)``."""
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def held_out_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    folds: np.ndarray,
    strength: float = STRENGTH,
) -> np.ndarray:
    """Return what a softmax layer says of the examples that it was not fitted on.

    For each fold, ``(1/m) Σ ℓ_i(W f_i) + λ ‖W‖²`` is minimised over the m examples of the others
    by Newton's method; f has a last entry of one.

    Parameters
    ----------
    features
        Of mean 0 and variance 1, shape ``(n, d)``.
    labels
        Classes, int64, shape ``(n,)``.
    num_classes
        The number c of classes.
    folds
        The fold of each example, shape ``(n,)``.
    strength
        λ.

    Returns
    -------
    Logarithms of the probabilities, float64, shape ``(n, c)``.
    """
    logits = _held_out_logits(features, labels, num_classes, folds, strength, SoftmaxLoss())
    return tf.nn.log_softmax(logits).numpy()


def held_out_log_odds(
    features: np.ndarray, members: np.ndarray, folds: np.ndarray, strength: float = STRENGTH
) -> np.ndarray:
    """Return the log-odds that examples have each class, by heads that were not fitted on them.

    They are those of `held_out_head` where the two classes are to have it and not to have it.

    Parameters
    ----------
    features, folds, strength
        As for `held_out_head`.
    members
        Which of the c classes the examples have, bool, shape ``(n, c)``.

    Returns
    -------
    float64, shape ``(n, c)``.
    """
    # Of two opposite columns of W, each is half of their difference.
    targets, halved = members.astype(np.float64), strength / 2
    return _held_out_logits(features, targets, members.shape[1], folds, halved, SigmoidLoss())


def _held_out_logits(
    features: np.ndarray,
    targets: np.ndarray,
    num_outputs: int,
    folds: np.ndarray,
    strength: float,
    loss: LossOfLogits,
) -> np.ndarray:
    """Return the logits ``(n, num_outputs)`` of examples by a layer fitted on the other folds."""
    rows = with_ones(features)
    result = np.empty((len(rows), num_outputs))
    objective = None
    for fold in np.unique(folds):
        held_out = folds == fold
        inputs, wanted = tf.constant(rows[~held_out]), tf.constant(targets[~held_out])
        part = Part(inputs, wanted, tf.ones(len(inputs), tf.float64))
        if objective is None:
            objective = HeadObjective(loss, [part], strength)
        else:
            objective.take([part])
        start = tf.zeros((rows.shape[1], num_outputs), tf.float64)
        weights = refit(objective, start, TOLERANCE, MAX_STEPS).weights
        result[held_out] = tf.matmul(rows[held_out], weights).numpy()
    return result
