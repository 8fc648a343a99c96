"""Kill long runs at random moments, resume them, and compare what comes out byte by byte.

Run ``python benchmarks/kills.py [--kills N] [--only RUN...] [--out FILE]``. Each long run (scores,
an index and the sums of a fit, all in shards; a matrix in a folder; a cross-fit) is started in a
process that is killed by SIGKILL after a random time, or a random time after it wrote a random
number of files, and started again in the same folder until it ends; then from the beginning, until
it was killed N times. Writes JSON with the environment: how often it was killed, before it had
begun to write and after, how many folders it finished, and in how many of these a file or the
result was another than that of a run that nobody killed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import write_json

from deel_influence.calculators import parts
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.labels import cross_fit
from deel_influence.model import BaseInfluenceModel
from deel_influence.shards import Shard, build_index_in_shards, fit_in_shards, score_in_shards
from deel_influence.utils import with_ids

RESULTS = Path(__file__).parent / "results" / "kills.json"
N, BATCH, SHARDS, PART = 2_400, 10, 12, 40
QUERIES = 8
LATEST = 0.6  # of a run's seconds, because what is left of it takes less
PAUSE = 0.01  # before each batch, so that a run takes seconds and a kill falls anywhere in it


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Return the training set."""
    draws = np.random.default_rng(0)
    return draws.normal(size=(N, 8)).astype("float32"), draws.integers(0, 3, N)


def slow_rows(first: int, last: int) -> tf.data.Dataset:
    """Return some of it in batches, each of which takes time to read."""

    def waited(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tf.py_function(lambda: time.sleep(PAUSE), [], [])
        return x, y

    rows = tuple(array[first:last] for array in arrays())
    slow = tf.data.Dataset.from_tensor_slices(rows).batch(BATCH).map(waited)
    return with_ids(slow, np.arange(first, last))


def wrapped() -> BaseInfluenceModel:
    """Return a small classifier."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(keras.Sequential(layers), loss_function=loss)


def calculator() -> FirstOrderInfluenceCalculator:
    """Return a calculator that takes no time to make."""
    fast = tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH)
    return FirstOrderInfluenceCalculator(wrapped(), fast, "identity")


def shards() -> list[Shard]:
    """Return the shards, which are read slowly."""
    ends = np.linspace(0, N, SHARDS + 1).astype(int)
    return [Shard(partial(slow_rows, *run)) for run in itertools.pairwise(ends)]


def score(folder: Path) -> bytes:
    """Score in shards, and return the scores."""
    return score_in_shards(calculator(), shards(), path=folder).values.tobytes()


def index(folder: Path) -> bytes:
    """Build an index in shards, and return its scores."""
    built = build_index_in_shards(calculator(), shards(), folder, part_size=PART)
    return built.self_scores().values.tobytes()


def fit(folder: Path) -> bytes:
    """Fit EKFAC in shards, in its two stages, and return products with the inverse."""
    settings = {"damping": 0.1, "seed": 0}
    model = wrapped()
    fitted = fit_in_shards("ekfac", model, shards(), path=folder, **settings)
    return fitted.solve(np.eye(2, model.nb_params, dtype="float32")).numpy().tobytes()


def matrix(folder: Path) -> bytes:
    """Write the influence on some queries to a folder in small parts, and return it."""
    parts.PART_BYTES = 4 * QUERIES * PART
    queries = tuple(array[:QUERIES] for array in arrays())
    stored = calculator().influence_matrix(queries, slow_rows(0, N), store=folder)
    return np.asarray(stored).tobytes()


def crossed(folder: Path) -> bytes:
    """Train a model for each fold, and return the probabilities."""

    def build() -> keras.Model:
        model = wrapped().model
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    found = cross_fit(build, arrays(), SHARDS, epochs=2, path=folder, verbose=0)
    return np.asarray(found.held_out).tobytes()


RUNS: dict[str, Callable[[Path], bytes]] = {
    "score": score,
    "index": index,
    "fit": fit,
    "matrix": matrix,
    "cross-fit": crossed,
}


def started(run: Callable[[Path], bytes], folder: Path, result: Path) -> int:
    """Start a run in a process of its own, and return its id.

    It is a fork, which has all modules and of TensorFlow nothing that runs.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            result.write_bytes(run(folder))
            status = 0
        finally:
            os._exit(status)
    return child


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files that readers see, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def killed(name: str, kills: int, place: Path) -> dict[str, Any]:
    """Kill a run so many times, and tell what came of it."""
    run, draws = RUNS[name], np.random.default_rng(1)
    (place / "whole").mkdir()
    start = time.perf_counter()
    _, status = os.waitpid(started(run, place / "whole", place / "expected"), 0)
    if status:
        message = f"The run {name!r} failed by itself."
        raise RuntimeError(message)
    seconds = time.perf_counter() - start
    expected, files = (place / "expected").read_bytes(), files_of(place / "whole")
    counts = {"kills": 0, "kills before the first file": 0, "finished": 0, "differences": 0}
    moments: list[int] = []
    while counts["kills"] < kills or counts["finished"] == 0:
        folder = place / f"folder-{counts['finished']}"
        folder.mkdir(exist_ok=True)
        child = started(run, folder, place / "found")
        # Without a file, at any moment, most of which are spent on starting.
        more = draws.integers(0, len(files) // 6 + 1) if counts["kills"] < kills else 2 * len(files)
        delay = draws.uniform(0, PAUSE * N / BATCH / SHARDS if more else LATEST * seconds)
        end, status = waited_for(child, folder, more, delay)
        if not end:
            there = len(files_of(folder))
            counts["kills"] += 1
            counts["kills before the first file"] += there == 0
            moments.append(there)
            print(f"{name}: {counts['kills']} kills, {there} of {len(files)} files", flush=True)
            continue
        same = not status and (place / "found").read_bytes() == expected
        counts["differences"] += not (same and files_of(folder) == files)
        counts["finished"] += 1
    return {**counts, "files": len(files), "files at the kills": moments, "seconds": seconds}


def waited_for(child: int, folder: Path, more: int, delay: float) -> tuple[bool, int]:
    """Wait for a process, and kill it a while after so many more files are there.

    Returns
    -------
    Whether it ended by itself, and how.
    """
    there, kill_at = len(list(folder.glob("*.npz"))), float("inf")
    while time.perf_counter() < kill_at:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return True, status
        if kill_at == float("inf") and len(list(folder.glob("*.npz"))) - there >= more:
            kill_at = time.perf_counter() + delay
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status), status


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found = {}
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = killed(name, arguments.kills, Path(folder))
        print(f"{name}: {found[name]}", flush=True)
    write_json(arguments.out, {"runs": found})


if __name__ == "__main__":
    main()
