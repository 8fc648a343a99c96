"""Measure what an index of projected gradients costs, and how well its scores predict retrainings.

Run ``python benchmarks/projections.py --data FOLDER [--subsets N] [--out FILE]``; the folder has
the ``mnist.npz`` of Keras. An MLP is trained on MNIST images, and again on random halves of them;
the linear datamodelling score of a strategy is that of the margins of the queries. Writes JSON with
the environment.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import write_json

from deel_influence.evaluation import (
    NetworkTraining,
    QueryOutputs,
    linear_datamodelling_score,
    random_subsets,
    retrain,
)
from deel_influence.ihvp import EKFACIHVP, LoGraIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.store import build_index

RESULTS = Path(__file__).parent / "results" / "projections.json"
TRAIN, QUERIES, EPOCHS, BATCH = 1_000, 100, 15, 50
TIMED, TIMED_BATCH, REPEATS = 20_000, 512, 3
PROJECTED: dict[str, dict[str, Any]] = {
    "LoGra, 16 × 16": {"projection": "logra", "projection_dim": (16, 16)},
    "FactGraSS, 256": {"projection": "factgrass", "projection_dim": 256},
    "LoGra, 32 × 32": {"projection": "logra", "projection_dim": (32, 32)},
    "FactGraSS, 1,024": {"projection": "factgrass", "projection_dim": 1_024},
}


def network(widths: tuple[int, ...] = (128, 64)) -> keras.Model:
    """Return an MLP of 784 inputs and 10 outputs, compiled."""
    dense = keras.layers.Dense
    hidden = [dense(width, "relu") for width in widths]
    model = keras.Sequential([keras.Input((784,)), *hidden, dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    return model


def images(folder: Path, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images ``(n, 784)`` of a part, between 0 and 1, and their digits."""
    with np.load(folder / "mnist.npz") as file:
        x, y = file[f"x_{part}"][:count], file[f"y_{part}"][:count]
    return x.reshape(len(x), -1).astype("float32") / 255, y.astype("int64")


def costs(folder: Path) -> dict[str, Any]:
    """Return the seconds of an epoch of ``fit``, and of building an index, the least of some."""
    x, y = images(folder, "train", TIMED)
    keras.utils.set_random_seed(0)
    trained, model = network((256, 128)), BaseInfluenceModel(network((256, 128)))
    first = (x[:2_048], y[:2_048])
    calculators = {}
    for name, settings in PROJECTED.items():
        fitted = LoGraIHVP(model, first, **settings, seed=0, verbose=0)
        calculators[name] = FirstOrderInfluenceCalculator(model, first, fitted)
    found: dict[str, list[float]] = {}
    for _ in range(REPEATS + 1):  # the first compiles
        start = time.perf_counter()
        trained.fit(x, y, batch_size=TIMED_BATCH, verbose=0)
        found.setdefault("epoch of fit", []).append(time.perf_counter() - start)
        for name, calculator in calculators.items():
            with tempfile.TemporaryDirectory() as path:
                start = time.perf_counter()
                build_index(calculator, (x, y), path, self_scores=False, verbose=0)
                found.setdefault(name, []).append(time.perf_counter() - start)
    return {name: min(times[1:]) for name, times in found.items()}


def scores(folder: Path, subsets: int) -> dict[str, Any]:
    """Return the linear datamodelling score of each strategy, with its interval."""
    x, y = images(folder, "train", TRAIN)
    asked = images(folder, "test", QUERIES)
    training = NetworkTraining(network, x, y, epochs=EPOCHS, batch_size=BATCH)
    kept = random_subsets(TRAIN, subsets, seed=0)
    truth = retrain(training, QueryOutputs(*asked, "margin"), kept, seeds=(0,), verbose=0)
    model = BaseInfluenceModel(training(np.arange(TRAIN), 0))
    strategies: dict[str, Any] = {"identity": "identity"}
    strategies["EKFAC"] = EKFACIHVP(model, (x, y), seed=0, verbose=0)
    for name, settings in PROJECTED.items():
        for seed in (0, 1, 2):
            fitted = LoGraIHVP(model, (x, y), **settings, seed=seed, verbose=0)
            strategies[f"{name}, seed {seed}"] = fitted
    found = {}
    for name, strategy in strategies.items():
        calculator = FirstOrderInfluenceCalculator(model, (x, y), strategy, measurement="margin")
        # Positive: the margin would rise without the example, which hurts.
        matrix = -calculator.influence_matrix(asked, (x, y), verbose=0)
        outputs = truth.mean_outputs
        lds = linear_datamodelling_score(matrix, truth.kept, outputs, higher_is_better=True)
        found[name] = {"lds": lds.score, "interval": list(lds.interval)}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    """Measure both, and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subsets", type=int, default=60)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = scores(arguments.data, arguments.subsets)
    times = costs(arguments.data)
    print(times)
    settings = {"train": TRAIN, "queries": QUERIES, "subsets": arguments.subsets, "timed": TIMED}
    write_json(arguments.out, {"settings": settings, "lds": found, "seconds": times})


if __name__ == "__main__":
    main()
