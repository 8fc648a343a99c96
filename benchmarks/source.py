"""Measure SOURCE beside influence at the end of a run that has not converged.

Run ``python benchmarks/source.py --data-dir DIR``, with ``mnist.npz`` in the folder: linear
datamodelling scores of runs with AdamW, with 5 % of the examples removed, by the number of epochs.
It writes JSON with the environment.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import write_json
from unrolled import NUM_QUERIES, NUM_TRAIN, RECIPES, RESULTS, perceptron, recorded

from deel_influence.evaluation import (
    QueryOutputs,
    RunRetraining,
    linear_datamodelling_score,
    random_subsets,
    retrain,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.trac_in import SOURCE, TracIn
from deel_influence.unrolled import RecordedRun, UnrolledInfluenceCalculator

RECIPE = "AdamW 1e-3, epsilon 1e-7, batch 128, GELU"
REMOVED, CHECKPOINTS, SEGMENTS, RATE, DECAY = 0.05, 6, 3, 1e-3, 0.004
Scores = Callable[[], np.ndarray]


def wrapped(run: RecordedRun, step: int) -> BaseInfluenceModel:
    """Return the model as it was before a step."""
    network = run.new_network()
    run.load(network, dict(run.states(step, step))[step] if step < run.num_steps else run.final)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(network, loss_function=loss)


def methods(run: RecordedRun, train: tuple, queries: tuple) -> dict[str, Scores]:
    """Return what scores the pairs, by name."""
    steps = np.linspace(0, run.num_steps, CHECKPOINTS + 1).round().astype(int)[1:].tolist()
    models = [wrapped(run, step) for step in steps]
    last = models[-1]
    data, asked = (tf.data.Dataset.from_tensor_slices(d).batch(500) for d in (train, queries))
    batch_size = RECIPES[RECIPE].batch_size

    def source(**settings: Any) -> np.ndarray:
        given = {"num_segments": SEGMENTS, "damping": DECAY, "verbose": 0, **settings}
        calculator = SOURCE(last, data, models, RATE, steps, **given)
        return calculator.influence_matrix(asked, data, verbose=0)

    def influence(strategy: str) -> np.ndarray:
        calculator = FirstOrderInfluenceCalculator(last, data, strategy, seed=0)
        return calculator.influence_matrix(asked, data, verbose=0)

    return {
        "influence, identity": lambda: influence("identity"),
        "influence, ekfac": lambda: influence("ekfac"),
        "TracIn": lambda: TracIn(models, RATE).influence_matrix(asked, data, verbose=0),
        "SOURCE, sgd": source,
        "SOURCE, adam": lambda: source(optimizer="adam", batch_size=batch_size),
        "unrolled": lambda: UnrolledInfluenceCalculator(run, queries_at_once=20).influence_matrix(
            queries, verbose=0
        ),
    }


def measured(folder: Path, epochs: int, num_subsets: int) -> dict[str, Any]:
    """Return the score of each method for a run of so many epochs."""
    with np.load(folder / "mnist.npz") as arrays:
        x, y, x_test, y_test = (arrays[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (part.reshape(-1, 784).astype("float32") / 255 for part in (x, x_test))
    train, queries = (x[:NUM_TRAIN], y[:NUM_TRAIN]), (x_test[:NUM_QUERIES], y_test[:NUM_QUERIES])
    keras.utils.set_random_seed(0)
    model, recipe = perceptron(RECIPES[RECIPE].activation), RECIPES[RECIPE]
    settings = {"epochs": epochs, "batch_size": recipe.batch_size}
    run = recorded(model, recipe.optimizer(), train, **settings)
    accuracy = float((model.predict(x_test, verbose=0).argmax(axis=1) == y_test).mean())
    kept = random_subsets(NUM_TRAIN, num_subsets, fraction=1 - REMOVED)
    truth = retrain(RunRetraining(run), QueryOutputs(*queries), kept, verbose=0)
    found: dict[str, Any] = {"steps": run.num_steps, "test_accuracy": accuracy}
    for name, scores in methods(run, train, queries).items():
        score = linear_datamodelling_score(scores(), kept, truth.outputs[0])
        found[name] = {"lds": score.score, "interval": score.interval}
        print(f"{epochs} epochs", name, f"{score.score:.3f}", flush=True)
    return found


def main() -> None:
    """Measure runs of several lengths, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder of mnist.npz")
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--subsets", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "source.json")
    given = parser.parse_args()
    runs = {str(e): measured(given.data_dir, e, given.subsets) for e in given.epochs}
    write_json(given.out, {"recipe": RECIPE, "removed": REMOVED, "runs_by_epochs": runs})


if __name__ == "__main__":
    main()
