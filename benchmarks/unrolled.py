"""Measure unrolled influence: its time and memory, and how far it predicts repetitions of a run.

Run ``python benchmarks/unrolled.py times`` for the time of queries against that of a training, and
the memory by the number of checkpoints; and ``python benchmarks/unrolled.py lds --data-dir DIR``,
with ``mnist.npz`` in the folder, for the linear datamodelling score of a run, by recipe and share
of removed examples. Both write JSON with the environment.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import write_json

from deel_influence.evaluation import (
    QueryOutputs,
    RunRetraining,
    linear_datamodelling_score,
    random_subsets,
    retrain,
)
from deel_influence.unrolled import (
    RecordedRun,
    UnrolledInfluenceCalculator,
    record_fit,
    smoothness,
)
from deel_influence.utils.memory import bytes_of

RESULTS = Path(__file__).parent / "results"
NUM_TRAIN, NUM_QUERIES = 5000, 20
REMOVED = (0.01, 0.05, 0.2)
layers, optimizers = keras.layers, keras.optimizers


@dataclass(frozen=True)
class Recipe:
    """How a network is trained for ten epochs, or fewer."""

    activation: str
    optimizer: Callable[[], keras.optimizers.Optimizer]
    batch_size: int
    dropout: float = 0.0


RECIPES = {
    "SGD momentum 0.01, batch 128, GELU": Recipe("gelu", lambda: _momentum(0.01), 128),
    "SGD momentum 0.02, batch 256, tanh": Recipe("tanh", lambda: _momentum(0.02), 256),
    "AdamW 1e-3, epsilon 1e-4, batch 256, GELU": Recipe("gelu", lambda: _adamw(1e-4), 256),
    "AdamW 1e-3, epsilon 1e-7, batch 128, GELU": Recipe("gelu", lambda: _adamw(1e-7), 128),
    "SGD momentum 0.05, batch 128, ReLU": Recipe("relu", lambda: _momentum(0.05), 128),
    "Adam 1e-3, batch 32, ReLU, dropout (Keras's defaults)": Recipe(
        "relu", lambda: optimizers.Adam(), 32, dropout=0.2
    ),
}


def _momentum(rate: float) -> keras.optimizers.Optimizer:
    return optimizers.SGD(rate, momentum=0.9)


def _adamw(epsilon: float) -> keras.optimizers.Optimizer:
    return optimizers.AdamW(1e-3, epsilon=epsilon)


def perceptron(activation: str = "gelu", dropout: float = 0.0) -> keras.Model:
    """Return a network of two hidden layers for MNIST."""
    parts = [keras.Input((784,))]
    for width in (128, 64):
        parts.append(layers.Dense(width, activation=activation))
        parts += [layers.Dropout(dropout)] if dropout else []
    return keras.Sequential([*parts, layers.Dense(10)])


def convolutional() -> keras.Model:
    """Return a small convolutional network for MNIST."""
    parts = [keras.Input((28, 28, 1))]
    for width in (16, 32):
        parts.append(layers.Conv2D(width, 3, padding="same", activation="gelu"))
        parts.append(layers.AveragePooling2D(2))
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(10)])


MODELS = {"perceptron": (perceptron, (784,)), "convolutional": (convolutional, (28, 28, 1))}


def recorded(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    data: tuple[np.ndarray, np.ndarray],
    **settings: Any,
) -> RecordedRun:
    """Train a model on data, and record it."""
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return record_fit(model, data, verbose=0, **settings)


def cpu_and_wall(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of the processor, and of the clock, that a call takes."""
    wall, used = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - used, time.perf_counter() - wall


def times(name: str, repeats: int) -> dict[str, Any]:
    """Return the time of queries in trainings, by how many go through a run together."""
    build, shape = MODELS[name]
    generator = np.random.default_rng(0)
    n, batch_size = (4096, 128) if name == "perceptron" else (1024, 64)
    data = generator.normal(size=(n, *shape)).astype("float32"), generator.integers(0, 10, n)
    keras.utils.set_random_seed(0)
    run = recorded(build(), _momentum(0.01), data, epochs=1, batch_size=batch_size)
    ones = np.ones(n)
    calculators = {m: UnrolledInfluenceCalculator(run, queries_at_once=m) for m in (1, 4, 16)}
    measured: dict[str, list[tuple[float, float]]] = {}
    for turn in range(repeats + 1):
        found = {"training": cpu_and_wall(lambda: run.state_after(ones))}
        for m, calculator in calculators.items():
            ask = partial(calculator.influence_matrix, tuple(part[:m] for part in data), verbose=0)
            found[str(m)] = cpu_and_wall(ask)
        for key, value in found.items():
            measured.setdefault(key, []).extend([value] if turn else [])  # the first compiles
    cpu, wall = (
        {key: float(np.median([pair[i] for pair in pairs])) for key, pairs in measured.items()}
        for i in (0, 1)
    )
    return {
        "steps": run.num_steps,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "cpu_trainings_per_query": {m: cpu[m] / cpu["training"] / int(m) for m in ("1", "4", "16")},
        "wall_trainings_per_query": {
            m: wall[m] / wall["training"] / int(m) for m in ("1", "4", "16")
        },
    }


def memory(checkpoint_every: int | None) -> dict[str, Any]:
    """Return the largest memory of a process that asks four queries of a run of 400 steps."""
    generator = np.random.default_rng(0)
    data = generator.normal(size=(NUM_TRAIN, 784)).astype("float32"), np.arange(NUM_TRAIN) % 10
    keras.utils.set_random_seed(0)
    settings = {"epochs": 10, "batch_size": 128, "checkpoint_every": checkpoint_every}
    run = recorded(perceptron(), _adamw(1e-4), data, **settings)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    queries = tuple(part[:4] for part in data)
    UnrolledInfluenceCalculator(run).influence_matrix(queries, verbose=0)
    return {
        "checkpoint_every": run.checkpoint_every,
        "steps": run.num_steps,
        "state_bytes": bytes_of(run.final),
        "peak_bytes_after_training": 1024 * before,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def memories() -> list[dict[str, Any]]:
    """Return what `memory` does in a process of its own each."""
    found = []
    for every in ("1", "20", "100", "400"):
        command = [sys.executable, __file__, "memory", "--checkpoint-every", every]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found


def lds(name: str, folder: Path, epochs: int, num_subsets: int) -> dict[str, Any]:
    """Return the score of a run on MNIST for shares of removed examples."""
    recipe = RECIPES[name]
    with np.load(folder / "mnist.npz") as arrays:
        x, y, x_test, y_test = (arrays[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (part.reshape(-1, 784).astype("float32") / 255 for part in (x, x_test))
    train, queries = (x[:NUM_TRAIN], y[:NUM_TRAIN]), (x_test[:NUM_QUERIES], y_test[:NUM_QUERIES])
    keras.utils.set_random_seed(0)
    model = perceptron(recipe.activation, recipe.dropout)
    settings = {"epochs": epochs, "batch_size": recipe.batch_size}
    run = recorded(model, recipe.optimizer(), train, **settings)
    accuracy = float((model.predict(x_test, verbose=0).argmax(axis=1) == y_test).mean())
    found: dict[str, Any] = {"epochs": epochs, "steps": run.num_steps, "test_accuracy": accuracy}
    start = time.perf_counter()
    scores = UnrolledInfluenceCalculator(run, queries_at_once=NUM_QUERIES).influence_matrix(
        queries, verbose=0
    )
    found["seconds_of_influence"] = time.perf_counter() - start
    found["smoothness"] = smoothness(run)
    for share in REMOVED:
        kept = random_subsets(NUM_TRAIN, num_subsets, fraction=1 - share)
        truth = retrain(RunRetraining(run), QueryOutputs(*queries), kept, verbose=0)
        score = linear_datamodelling_score(scores, kept, truth.outputs[0])
        found[f"{share:.0%} removed"] = {"lds": score.score, "interval": score.interval}
        print(name, f"{share:.0%}", score.score, score.interval, flush=True)
    return found


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("times", "memory", "lds"))
    parser.add_argument("--data-dir", type=Path, help="the folder of mnist.npz")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--subsets", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--checkpoint-every", type=int)
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "memory":
        print(json.dumps(memory(given.checkpoint_every)))
        return
    out = given.out or RESULTS / f"unrolled_{given.what}.json"
    if given.what == "times":
        result = {"times": {name: times(name, given.repeats) for name in MODELS}}
        write_json(out, {**result, "memory": memories()})
        return
    result = {}
    for name in given.recipe:
        result[name] = lds(name, given.data_dir, given.epochs, given.subsets)
        # What is there by now is kept, should the rest take too long.
        write_json(out, {"recipes": result, "subsets": given.subsets, "queries": NUM_QUERIES})


if __name__ == "__main__":
    main()
