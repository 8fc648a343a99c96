"""Measure what recording influence in ``fit`` costs, and what older gradients of queries change.

Run ``python benchmarks/capture.py [--rounds N] [--out FILE]``. The MLP and the CNN of the
benchmarks are trained by ``fit`` on one thread, plainly and with callbacks in turns; an epoch's
processor time is the least of all rounds, the first epoch of each fit apart, which compiles. Ratios
are to the plain epoch. Values with gradients of the queries that are computed anew now and then are
compared with those of every step. Writes JSON with the environment.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import write_json
from models import CASES
from scipy.stats import spearmanr

from deel_influence.model import BaseInfluenceModel
from deel_influence.training_dynamics import InRunRecorder, TrainingDynamics

RESULTS = Path(__file__).parent / "results" / "capture.json"
BATCH, EPOCHS = 128, 6
EXAMPLES = {"mlp": 8_192, "cnn": 1_024}
RECORDED: dict[str, dict[str, Any]] = {
    "mean of 64 queries": {"m": 64},
    "mean of 256 queries": {"m": 256},
    "each of 16 queries": {"m": 16, "each_query": True},
    "each of 64 queries": {"m": 64, "each_query": True},
}


class EpochTimes(keras.callbacks.Callback):
    """Note processor and wall time of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[tuple[float, float]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clocks."""
        self._start = time.process_time(), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop them."""
        ends = time.process_time(), time.perf_counter()
        self.seconds.append((ends[0] - self._start[0], ends[1] - self._start[1]))


class Problem:
    """A model with data that it can learn something of."""

    def __init__(self, name: str) -> None:
        case = next(case for case in CASES if case.name == name)
        self._build, n = case.build, EXAMPLES[name]
        generator = np.random.default_rng(0)
        self.y = generator.integers(0, 10, n + 256)
        means = generator.normal(size=(10, *case.input_shape))
        noise = generator.normal(size=(n + 256, *case.input_shape))
        self.x = (0.2 * means[self.y] + noise).astype("float32")

    def model(self) -> keras.Model:
        """Return the model, the same at each call, compiled with SGD and momentum."""
        keras.utils.set_random_seed(0)
        model = self._build()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        return model

    def fit(self, model: keras.Model, *callbacks: Any) -> list[tuple[float, float]]:
        """Fit to all but the queries, and return the seconds of the epochs after the first."""
        times = EpochTimes()
        # The clock is the last to start and the first to stop, so that hooks of epochs count too.
        order = [times, *callbacks]
        x, y = self.x[256:], self.y[256:]
        model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=order)
        return times.seconds[1:]

    def recorder(self, model: keras.Model, m: int, **settings: Any) -> InRunRecorder:
        """Return what records a fit of the model for m queries."""
        return InRunRecorder(BaseInfluenceModel(model), (self.x[:m], self.y[:m]), **settings)


def ratios(problem: Problem, rounds: int) -> dict[str, Any]:
    """Return the times of epochs, and their ratios to plain ones."""
    times: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        times.setdefault("plain", []).extend(problem.fit(problem.model()))
        times.setdefault("TrainingDynamics", []).extend(
            problem.fit(problem.model(), TrainingDynamics())
        )
        for name, settings in RECORDED.items():
            model = problem.model()
            recorder = problem.recorder(model, **settings)
            times.setdefault(name, []).extend(problem.fit(model, recorder))
    least = {name: np.min(found, axis=0) for name, found in times.items()}
    return {
        name: {
            "cpu_seconds": float(cpu),
            "wall_seconds": float(wall),
            "cpu_ratio": float(cpu / least["plain"][0]),
            "wall_ratio": float(wall / least["plain"][1]),
        }
        for name, (cpu, wall) in least.items()
    }


def agreement(problem: Problem) -> dict[str, float]:
    """Return rank correlations of values with those whose queries are computed at every step."""
    values = {}
    for refresh in (1, 5, 20, None):
        model = problem.model()
        recorder = problem.recorder(model, 64, refresh=refresh)
        problem.fit(model, recorder)
        values[refresh] = recorder.recorded.values[0, :, 0]
    return {
        "default" if refresh is None else f"every {refresh} steps": float(
            spearmanr(found, values[1]).statistic
        )
        for refresh, found in values.items()
        if refresh != 1
    }


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    # Threads that wait for others use up processor time as well.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    found = {}
    for name in EXAMPLES:
        problem = Problem(name)
        found[name] = {
            "epochs": ratios(problem, arguments.rounds),
            "rank_correlation": agreement(problem),
        }
        print(name, found[name])
    settings = {"batch_size": BATCH, "examples": EXAMPLES, "epochs": EPOCHS}
    write_json(arguments.out, {"settings": settings, **found})


if __name__ == "__main__":
    main()
