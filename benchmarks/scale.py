"""Measure how time and memory grow with the training set: scores, an index, and asking it.

Run ``python benchmarks/scale.py [--sizes N...] [--only WORK...] [--out FILE]``. Every pair of a
work and a size has a process of its own; images are made on the fly, so that memory is that of the
work. Writes JSON with the environment: seconds, the peak of memory, and the exponent with which
seconds grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import write_json

from deel_influence.ihvp import EKFACIHVP, LoGraIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.store import Index, QueryVectors, build_index

RESULTS = Path(__file__).parent / "results" / "scale.json"
SIZES = (8_192, 65_536, 262_144, 1_000_000)
FIT_SIZE, BATCH, QUERIES, BEST = 8_192, 512, 100, 10
FEATURES = (32, 10)  # of each of three layers: 960 numbers an example
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network() -> keras.Model:
    """Return the MLP 784-256-128-10, its weights drawn from a seed."""
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense
    layers = [keras.Input((784,)), dense(256, "relu"), dense(128, "relu"), dense(10)]
    model = keras.Sequential(layers)
    model.compile("sgd", LOSS)
    return model


def images(n: int) -> tf.data.Dataset:
    """Return n images and labels in batches, made of a counter where they are read."""
    pattern = tf.random.stateless_normal((FIT_SIZE + BATCH, 784), (1, 2))

    def batch(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        places = tf.range(start, tf.minimum(start + BATCH, n))
        begin = tf.cast(start % FIT_SIZE, tf.int32)
        rows = pattern[begin : begin + tf.size(places)]
        # No two examples are alike, and none costs more to make than to copy.
        return rows * (1 + tf.cast(places, tf.float32)[:, None] / (2.0 * n)), places % 10

    return tf.data.Dataset.range(0, n, BATCH).map(batch).prefetch(2)


def calculator(strategy: str) -> FirstOrderInfluenceCalculator:
    """Return a calculator that is fitted on the first images."""
    model, data = BaseInfluenceModel(network()), images(FIT_SIZE)
    if strategy == "logra":
        fitted = LoGraIHVP(model, data, projection_dim=FEATURES, seed=0, verbose=0)
    elif strategy == "ekfac":
        fitted = EKFACIHVP(model, data, seed=0, verbose=0)
    else:
        fitted = strategy
    return FirstOrderInfluenceCalculator(model, data, fitted)


def epoch(n: int, _: Path) -> dict[str, Any]:
    """Train for an epoch."""
    model = network()
    model.fit(images(FIT_SIZE), verbose=0)
    return timed(lambda: model.fit(images(n), verbose=0))


def scored(strategy: str) -> Callable[[int, Path], dict[str, Any]]:
    """Return the work of scoring every image by itself."""

    def work(n: int, _: Path) -> dict[str, Any]:
        scorer = calculator(strategy)
        scorer.score(images(FIT_SIZE), verbose=0)  # compiled
        return timed(lambda: scorer.score(images(n), verbose=0))

    return work


def indexed(dtype: str) -> Callable[[int, Path], dict[str, Any]]:
    """Return the work of building an index of LoGra's features, and of asking it."""

    def work(n: int, folder: Path) -> dict[str, Any]:
        built_by = calculator("logra")

        def build(size: int, name: str) -> Index:
            data, path = images(size), folder / name
            return build_index(built_by, data, path, dtype, self_scores=False, verbose=0)

        build(FIT_SIZE, "first")
        result = timed(lambda: build(n, "index"))
        index = Index(folder / "index")
        asked = QueryVectors.of(built_by, images(QUERIES), verbose=0)
        index.top_k(asked, BEST)
        times = [timed(lambda: index.top_k(asked, BEST))["seconds"] for _ in range(3)]
        size = sum(part.path.stat().st_size for part in index.parts)
        return {**result, "asked_seconds": min(times), "bytes": size}

    return work


WORKS: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "epoch of fit": epoch,
    "score, identity": scored("identity"),
    "score, EKFAC": scored("ekfac"),
    "index, LoGra, float16": indexed("float16"),
    "index, LoGra, bfloat16": indexed("bfloat16"),
}


def timed(work: Callable[[], Any]) -> dict[str, Any]:
    """Return the seconds that something took."""
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def peak_bytes() -> int:
    """Return the largest amount of memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(name: str, n: int) -> dict[str, Any]:
    """Do a work in a process of its own, and return what it tells."""
    command = [sys.executable, __file__, "--work", name, "--sizes", str(n)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = {"n": n, **json.loads(done.stdout.splitlines()[-1])}
    print(f"{name:<24} n = {n:>9,}  {found}", flush=True)
    return found


def exponent(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the slope of the logarithm of seconds over that of n, between the two largest."""
    if len(rows) < 2:
        return None
    one, two = sorted(rows, key=lambda row: row["n"])[-2:]
    return float(np.log(two["seconds"] / one["seconds"]) / np.log(two["n"] / one["n"]))


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the rows of one work with how they grow."""
    ordered = sorted(rows, key=lambda row: row["n"])
    grown = ordered[-1]["peak_bytes"] - ordered[0]["peak_bytes"]
    return {"rows": ordered, "exponent": exponent(ordered), "peak_grows_by_bytes": grown}


def main() -> None:
    """Measure all works, or do one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--only", nargs="+", choices=list(WORKS), default=list(WORKS))
    parser.add_argument("--work", choices=list(WORKS), help="do it here, and print what it took")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        with tempfile.TemporaryDirectory() as folder:
            result = WORKS[arguments.work](arguments.sizes[0], Path(folder))
        print(json.dumps({**result, "peak_bytes": peak_bytes()}))
        return
    found = {name: summary([measured(name, n) for n in arguments.sizes]) for name in arguments.only}
    settings = {"network": "784-256-128-10", "batch": BATCH, "queries": QUERIES, "best": BEST}
    write_json(arguments.out, {"settings": settings, "works": found})


if __name__ == "__main__":
    main()
