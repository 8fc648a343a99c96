"""Measure per-example gradients against a training step, and the exact Hessian of a last layer.

Run ``python benchmarks/gradients.py [--out FILE]``; writes JSON with the environment. Every ratio
is of times taken in turns in one run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import interleaved_seconds, write_json
from models import CASES, Case, mlp

from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import ExactIHVP, IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.utils.datasets import numbered_batches

LOSS = "sparse_categorical_crossentropy"


def compiled(model: keras.Model) -> keras.Model:
    """Compile a model for logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss)
    return model


def twin(model: keras.Model) -> keras.Model:
    """Return a compiled copy to train: a model that is asked about must not change."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return compiled(copy)


def over(dataset: tf.data.Dataset, kernel: Any) -> Any:
    """Return a function that runs a kernel on every batch of a dataset."""

    def run() -> None:
        for batch, _ in numbered_batches(dataset):
            result = kernel(batch)
        tf.nest.map_structure(lambda t: t.numpy(), result)

    return run


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Return examples per second of a training step and of the engine's operations."""
    keras.utils.set_random_seed(0)
    model = compiled(case.build())
    trained = twin(model)
    x, y = case.data()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(case.batch_size).cache()
    wrapped = BaseInfluenceModel(model)
    engine = GradientEngine(wrapped)
    engine.prepare(next(iter(dataset)))
    calculator = FirstOrderInfluenceCalculator(wrapped, dataset, IdentityIHVP(wrapped))
    one_batch = dataset.take(1)  # the Jacobian is too slow for more
    forward = engine.kernel("forward", wrapped.per_example_losses)
    norms = engine.kernel("norms", lambda b: engine.gradients(b).squared_norms())
    rows = engine.kernel("rows", lambda b: tf.reduce_sum(engine.gradients(b).materialize(), 1))
    jacobian = engine.kernel("jacobian", lambda b: wrapped.batch_jacobian_tensor(b)[:, 0])
    n = case.num_examples
    functions = {
        "training_step": lambda: trained.fit(dataset, verbose=0),
        "forward": over(dataset, forward),
        "engine_norms": over(dataset, norms),
        "engine_materialized": over(dataset, rows),
        "self_influence": lambda: calculator.score(dataset, verbose=0),
        "tape_jacobian": over(one_batch, jacobian),
    }
    times = interleaved_seconds(functions, repeats)
    counts = {name: n for name in times} | {"tape_jacobian": case.batch_size}
    speeds = {k: counts[k] / t for k, t in times.items()}
    ratio = {k: v / speeds["training_step"] for k, v in speeds.items()}
    return {
        "parameters": wrapped.nb_params,
        "batch_size": case.batch_size,
        "examples_per_second": {k: round(v, 1) for k, v in speeds.items()},
        "ratio_to_training_step": {k: round(v, 4) for k, v in ratio.items()},
        "engine_norms_over_tape_jacobian": round(
            speeds["engine_norms"] / speeds["tape_jacobian"], 1
        ),
        "differentiated_automatically": [v.path for v in engine.fallback_variables],
    }


def measure_exact(repeats: int) -> dict[str, Any]:
    """Time the exact Hessian of a last layer of 650 parameters, and a matrix of scores."""
    keras.utils.set_random_seed(0)
    model = compiled(keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)]))
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8192, 64)).astype("float32")
    y = generator.integers(0, 10, 8192)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(256).cache()
    queries = tf.data.Dataset.from_tensor_slices((x[:100], y[:100])).batch(100)
    wrapped, trained = InfluenceModel(model), twin(model)

    def build() -> ExactIHVP:
        return ExactIHVP(wrapped, train, verbose=0)

    start = time.perf_counter()
    ihvp = build()
    first_build = time.perf_counter() - start
    calculator = FirstOrderInfluenceCalculator(wrapped, train, ihvp)
    start = time.perf_counter()
    calculator.influence_matrix(queries, train, verbose=0)
    first_matrix = time.perf_counter() - start
    times = interleaved_seconds(
        {
            "epoch": lambda: trained.fit(train, verbose=0),
            "hessian_and_inverse": build,
            "influence_matrix_100x8192": lambda: calculator.influence_matrix(
                queries, train, verbose=0
            ),
        },
        repeats,
    )
    return {
        "parameters": wrapped.nb_params,
        "seconds": {k: round(v, 4) for k, v in times.items()},
        "seconds_of_first_call": {
            "hessian_and_inverse": round(first_build, 4),
            "influence_matrix_100x8192": round(first_matrix, 4),
        },
        "epochs": {k: round(v / times["epoch"], 2) for k, v in times.items()},
    }


def traces_of_partial_batches() -> dict[str, int]:
    """Count the traces of the scoring kernels over batches of 256 and a last one of 17."""
    model = compiled(mlp())
    x = np.random.default_rng(0).normal(size=(529, 784)).astype("float32")
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(529, int))).batch(256)
    wrapped = BaseInfluenceModel(model)
    engine = GradientEngine(wrapped)
    engine.prepare(next(iter(dataset)))
    kernel = engine.kernel("norms", lambda b: engine.gradients(b).squared_norms())
    over(dataset, kernel)()
    return {"engine_norms": kernel.num_traces}


def peak_memory(num_examples: int) -> int:
    """Return the peak memory in KiB of scoring that many examples, in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", str(num_examples)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak_resident_kib() -> int:
    """Return the peak memory of this process, without that of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def score_and_print_memory(num_examples: int) -> None:
    """Score generated examples, which no array holds, and print the peak memory in KiB."""
    model = compiled(mlp())
    indices = tf.data.Dataset.range(num_examples).batch(256)
    dataset = indices.map(
        lambda i: (
            tf.random.stateless_normal((tf.shape(i)[0], 784), [0, tf.cast(i[0], tf.int32)]),
            i % 10,
        )
    )
    wrapped = BaseInfluenceModel(model)
    calculator = FirstOrderInfluenceCalculator(wrapped, dataset, IdentityIHVP(wrapped))
    calculator.score(dataset, verbose=0)
    print(peak_resident_kib())


def main() -> None:
    """Run all measurements and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parent / "results" / "gradients.json"
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        score_and_print_memory(arguments.memory_of)
        return
    result: dict[str, Any] = {"command": "python benchmarks/gradients.py", "models": {}}
    for case in CASES:
        result["models"][case.name] = measure(case, arguments.repeats)
        print(case.name, result["models"][case.name])
    result["last_layer_exact"] = measure_exact(arguments.repeats)
    print(result["last_layer_exact"])
    result["traces_with_partial_batch"] = traces_of_partial_batches()
    n = 8192
    result["peak_memory_kib"] = {str(size): peak_memory(size) for size in (n, 8 * n)}
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
