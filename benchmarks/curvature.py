"""Measure curvature products, EKFAC and conjugate gradients against gradients and training.

Run ``python benchmarks/curvature.py [--out FILE]``; writes JSON with the environment. Every ratio
is of times taken in one run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from environment import interleaved_seconds, seconds, write_json
from models import CASES, Case
from sklearn.datasets import load_digits

from deel_influence.curvature import GaussNewtonOperator, HessianOperator
from deel_influence.gradients import GradientEngine
from deel_influence.ihvp import (
    EKFACIHVP,
    KFACIHVP,
    ConjugateGradientDescentIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.linalg import conjugate_gradients
from deel_influence.model import BaseInfluenceModel
from deel_influence.utils.kernels import Kernel

RESULTS = Path(__file__).parent / "results" / "curvature.json"
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MANY = 16
NUM_QUERIES, QUERY_RANK = 128, 32
NUM_RIGHT_HAND_SIDES, DAMPING, TOLERANCE = 64, 0.01, 1e-3

PRECONDITIONERS: dict[str, tuple[str | None, int]] = {
    "none": (None, 0),
    "jacobi": ("jacobi", 32),
    "nystrom, rank 64": ("nystrom", 64),
    "nystrom, rank 256": ("nystrom", 256),
    "ekfac": ("ekfac", 0),
}


def case_named(name: str) -> Case:
    """Return the benchmark case of that name."""
    return next(case for case in CASES if case.name == name)


def batched(x: np.ndarray, y: np.ndarray, size: int) -> tf.data.Dataset:
    """Return a dataset whose batches are held in memory."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(size).cache()


def time_of(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def products(name: str, repeats: int) -> dict[str, Any]:
    """Return the throughput of products with one vector and with many, against gradients."""
    case = case_named(name)
    keras.utils.set_random_seed(0)
    model = BaseInfluenceModel(case.build(), loss_function=LOSS)
    x, y = case.data()
    dataset = batched(x, y, case.batch_size)
    gradient = Kernel(model.batch_gradient_tensor)
    vectors = tf.random.normal((MANY, model.nb_params))
    operators = {"hessian": HessianOperator(model, dataset, mode="reverse_over_reverse")}
    operators["gauss_newton"] = GaussNewtonOperator(model, dataset)
    held = [item.batch for item in operators["hessian"].data]

    def gradients() -> None:
        total = tf.zeros((model.nb_params,))
        for batch in held:
            total += gradient(batch)
        total.numpy()

    functions: dict[str, Callable[[], Any]] = {"gradient": gradients}
    for kind, operator in operators.items():
        functions[f"{kind}, 1 vector"] = lambda o=operator: o.apply(vectors[:1]).numpy()
        functions[f"{kind}, {MANY} vectors"] = lambda o=operator: o.apply(vectors).numpy()
    times = interleaved_seconds(functions, repeats)
    counts = {key: MANY if str(MANY) in key else 1 for key in times}
    return {
        "parameters": model.nb_params,
        "examples": case.num_examples,
        "batch_size": case.batch_size,
        "examples_times_vectors_per_second": {
            key: round(case.num_examples * counts[key] / value) for key, value in times.items()
        },
        "per_vector_against_gradient": {
            key: round(times["gradient"] * counts[key] / value, 3) for key, value in times.items()
        },
    }


def ekfac(repeats: int) -> dict[str, Any]:
    """Return the times of EKFAC's fit and scores, against an epoch and a matrix product."""
    case = case_named("mlp")
    keras.utils.set_random_seed(0)
    model = BaseInfluenceModel(case.build(), loss_function=LOSS)
    # A network of its own: a fit refers to the weights that it was made with.
    trained = case.build()
    trained.compile(optimizer="sgd", loss=LOSS)
    x, y = case.data()
    dataset = batched(x, y, case.batch_size)
    queries = batched(*(part[:NUM_QUERIES] for part in case.data(seed=1)), NUM_QUERIES)
    fitted = EKFACIHVP(model, dataset, seed=0, verbose=0)
    low_rank = EKFACIHVP(model, dataset, seed=0, verbose=0, query_rank=QUERY_RANK)
    full, low = (FirstOrderInfluenceCalculator(model, dataset, i) for i in (fitted, low_rank))
    p = model.nb_params
    left, right = tf.random.normal((NUM_QUERIES, p)), tf.random.normal((1024, p))

    def matrix_product() -> None:
        # As many multiplications as scores need at full rank, in parts that fit in memory.
        for _ in range(case.num_examples // 1024):
            tf.matmul(left, right, transpose_b=True).numpy()

    times = interleaved_seconds(
        {
            "epoch": lambda: trained.fit(dataset, verbose=0),
            "fit": lambda: EKFACIHVP(model, dataset, seed=0, verbose=0),
            "kfac_fit": lambda: KFACIHVP(model, dataset, seed=0, verbose=0),
            "self_influence": lambda: full.score(dataset, verbose=0),
            "influence_matrix": lambda: full.influence_matrix(queries, dataset, verbose=0),
            "influence_matrix_low_rank": lambda: low.influence_matrix(queries, dataset, verbose=0),
            "matrix_product": matrix_product,
        },
        repeats,
    )
    exact = full.influence_matrix(queries, dataset, verbose=0)
    approximate = low.influence_matrix(queries, dataset, verbose=0)
    with TemporaryDirectory() as folder:
        path = fitted.save(Path(folder) / "ekfac")
        load = seconds(lambda: EKFACIHVP.load(path, model), repeats)
        size = path.stat().st_size
    return {
        "parameters": p,
        "examples": case.num_examples,
        "queries": NUM_QUERIES,
        "seconds": {key: round(value, 4) for key, value in times.items()}
        | {"load": round(load, 4)},
        "fit_in_epochs": round(times["fit"] / times["epoch"], 2),
        "self_influence_in_epochs": round(times["self_influence"] / times["epoch"], 2),
        "matrix_against_product": round(times["influence_matrix"] / times["matrix_product"], 2),
        "low_rank": {
            "rank": QUERY_RANK,
            "faster_than_full_rank": round(
                times["influence_matrix"] / times["influence_matrix_low_rank"], 2
            ),
            "truncation_error_of_queries": low_rank.query_truncation_error(queries),
            "relative_error_of_scores": float(
                np.linalg.norm(approximate - exact) / np.linalg.norm(exact)
            ),
        },
        "load_faster_than_fit": round(times["fit"] / load, 1),
        "file_bytes": size,
    }


def digits_network() -> tuple[BaseInfluenceModel, tf.data.Dataset, tf.Tensor]:
    """Return the MLP 64-128-64-10 on 2,048 digits, its data, and 64 gradients."""
    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    rows = generator.integers(0, len(x), 2048)
    # More examples than there are digits: some come twice, each with noise of its own.
    noisy = (x[rows] / 16 + 0.1 * generator.normal(size=(2048, 64))).astype("float32")
    layers = [keras.layers.Dense(width, activation="relu") for width in (128, 64)]
    network = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    network.compile("adam", LOSS)
    network.fit(noisy, y[rows], batch_size=64, epochs=20, verbose=0)
    model = BaseInfluenceModel(network)
    queries = (tf.constant(x[:64] / 16, tf.float32), tf.constant(y[:64]))
    engine = GradientEngine.of(model)
    engine.prepare(queries)
    return model, batched(noisy, y[rows], 256), engine.gradients(queries).materialize()


def solves() -> dict[str, Any]:
    """Return steps and times of 64 solves: one by one, as a block, and preconditioned."""
    model, dataset, rhs = digits_network()
    options = {"damping": DAMPING, "curvature": "gauss_newton", "tolerance": TOLERANCE, "seed": 0}
    options |= {"n_opt_iters": 1000, "train_dataset": dataset}
    plain = ConjugateGradientDescentIHVP(model, **options)
    gradient = Kernel(model.batch_gradient_tensor)
    held = [item.batch for item in plain.loss_operator.data]
    pass_seconds = seconds(lambda: [gradient(batch).numpy() for batch in held])
    plain.solve(rhs[:1])  # traces
    settings = {"tolerance": TOLERANCE, "max_steps": 1000}

    def one_by_one() -> list[Any]:
        return [
            conjugate_gradients(plain.operator, rhs[i : i + 1], **settings)
            for i in range(NUM_RIGHT_HAND_SIDES)
        ]

    single_seconds, singles = time_of(one_by_one)
    steps = [int(result.num_steps[0]) for result in singles]
    found: dict[str, Any] = {
        "single solves": {
            "seconds": single_seconds,
            "mean_steps": float(np.mean(steps)),
            "largest_residual": max(float(result.residual_norm[0]) for result in singles),
        }
    }
    for name, (preconditioner, rank) in PRECONDITIONERS.items():
        extra = {"preconditioner": preconditioner, "preconditioner_rank": max(rank, 1)}

        def fit(extra: dict[str, Any] = extra) -> ConjugateGradientDescentIHVP:
            strategy = ConjugateGradientDescentIHVP(model, **options, **extra)
            if strategy.preconditioner is not None:
                strategy.preconditioner.apply(rhs[:1]).numpy()
            return strategy

        fit()  # traces
        fit_seconds, strategy = time_of(fit)
        block_seconds, result = time_of(lambda s=strategy: s.solve_with_report(rhs))
        found[f"block, preconditioner: {name}"] = {
            "seconds": fit_seconds + block_seconds,
            "fit_seconds": fit_seconds,
            "mean_steps": float(result.num_steps.mean()),
            "largest_residual": float(result.residual_norm.max()),
            "faster_than_single_solves": single_seconds / (fit_seconds + block_seconds),
        }
    blocks = {key: value for key, value in found.items() if key.startswith("block")}
    best = min((k for k in blocks if "none" not in k), key=lambda k: blocks[k]["seconds"])
    return {
        "parameters": model.nb_params,
        "examples": 2048,
        "right_hand_sides": NUM_RIGHT_HAND_SIDES,
        "damping": DAMPING,
        "curvature": "gauss_newton",
        "relative_residual": TOLERANCE,
        "gradient_pass_seconds": pass_seconds,
        "solves": found,
        "block_faster_than_single_solves": blocks["block, preconditioner: none"][
            "faster_than_single_solves"
        ],
        "best_preconditioned": best,
        "best_preconditioned_against_single_solves": blocks[best]["faster_than_single_solves"],
        "best_preconditioned_against_plain_block": (
            blocks["block, preconditioner: none"]["seconds"] / blocks[best]["seconds"]
        ),
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"command": "python benchmarks/curvature.py"}
    result["products"] = {name: products(name, arguments.repeats) for name in ("mlp", "cnn")}
    print(result["products"])
    result["ekfac"] = ekfac(arguments.repeats)
    print(result["ekfac"])
    result["conjugate_gradients"] = solves()
    print(result["conjugate_gradients"])
    write_json(arguments.out, result)


if __name__ == "__main__":
    main()
