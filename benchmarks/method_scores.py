"""The scores of every method of the command line, for the examples of one training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from deel_influence.cli.methods import RECORDERS, Method, MethodInputs
from deel_influence.datasets.source import DataSource, stream_arrays
from deel_influence.evaluation.mislabel import average_precision, recall_at_budget, roc_auc
from deel_influence.ihvp import ExactIHVP
from deel_influence.model import InfluenceModel

_BATCH_SIZE = 256
_DAMPING = 1e-3

Train = Callable[[Sequence[keras.callbacks.Callback]], keras.Model]
"""Trains a network under the eyes of callbacks, and returns it."""


def scores_by_method(
    train: Train,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    seed: int,
    methods: Sequence[str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Train once under the recorders of all methods, and score with each of some.

    Parameters
    ----------
    train
        Trains the network, for ``epochs``.
    inputs, labels
        The n training examples, in the order in which scores come.
    epochs
        How many the training has.
    seed
        Seed of the methods.
    methods
        Which methods; None means all.

    Returns
    -------
    The scores ``(n,)`` of each method, high where a label is suspicious, and how many seconds each
    took.
    """
    scores, seconds = {}, {}
    with TemporaryDirectory() as folder:
        recorders = {name: make(Path(folder), epochs) for name, make in RECORDERS.items()}
        network = train(list(recorders.values()))
        source = DataSource("examples", stream_arrays(inputs, labels, batch_size=_BATCH_SIZE))
        model = InfluenceModel(network)
        strategy = ExactIHVP(model, source.dataset, damping=_DAMPING, verbose=0)
        method_inputs = MethodInputs(model, source, strategy, seed, recorders)
        for method in Method:
            if methods is not None and method.value not in methods:
                continue
            start = time.perf_counter()
            calculator = method.make(method_inputs)
            scores[method.value] = calculator.score(source.dataset, verbose=0).values
            seconds[method.value] = time.perf_counter() - start
    return scores, seconds


def detection_measures(
    scores: np.ndarray, flipped: np.ndarray, budgets: Sequence[float]
) -> dict[str, Any]:
    """Return how well an order finds the flipped labels.

    Parameters
    ----------
    scores
        High where a label is suspicious, shape ``(n,)``.
    flipped
        Which labels are wrong, shape ``(n,)``, bool.
    budgets
        Shares of the list that are read.

    Returns
    -------
    ``roc_auc``, ``average_precision``, and ``recall``, the shares found within the budgets.
    """
    return {
        "roc_auc": roc_auc(scores, flipped),
        "average_precision": average_precision(scores, flipped),
        "recall": [float(share) for share in recall_at_budget(scores, flipped, budgets)],
    }
