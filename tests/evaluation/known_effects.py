"""A world where the worth of scores is known, and calculators of fixed scores for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from deel_influence.evaluation.evaluating import evaluate
from deel_influence.evaluation.evaluation import Evaluation
from deel_influence.evaluation.retraining import retrain
from deel_influence.evaluation.subsets import leave_groups_out, leave_one_out, random_subsets

N, M, S = 12, 5, 30


class Pairs:
    """A calculator of fixed scores ``(m, n)``, which counts its calls."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.calls = scores, 0

    def influence_matrix(self, queries, train_set, verbose="auto"):
        self.calls += 1
        return self.scores


class Single:
    """A calculator of fixed scores ``(n,)``."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def score(self, train_set, verbose="auto"):
        return self.scores


def batches(size: int, offset: float = 0.0) -> tf.data.Dataset:
    x = np.arange(size, dtype=np.float32)[:, None] + offset
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(size, np.int64))).batch(4)


def known_effects() -> SimpleNamespace:
    """A world where leaving out an example changes each query's loss by a fixed number."""
    effects = np.random.default_rng(0).normal(size=(M, N))

    def train(positions, seed):
        return 3.0 - effects[:, positions].sum(axis=1)

    def measured(kept, sign=1.0):
        return retrain(
            train, lambda losses: sign * losses, kept, higher_is_better=sign < 0, verbose=0
        )

    return SimpleNamespace(
        effects=effects,
        halves=measured(random_subsets(N, S)),
        quality=measured(random_subsets(N, S), sign=-1.0),
        ones=measured(leave_one_out(N, range(N))),
        groups=measured(leave_groups_out(N, np.arange(N) % 4 - 1)),
        train_set=batches(N),
        queries=batches(M),
    )


def judged(known, calculators, truth, **options) -> Evaluation:
    given = {"truth": truth, "verbose": 0, "num_resamples": 100, **options}
    return evaluate(calculators, known.train_set, known.queries, **given)
