"""Measure EKFAC, and conjugate gradients that begin with it, on the curvature of all examples.

Run ``python benchmarks/ekfac_cg.py --data-dir DIR --folder FOLDER``, with ``mnist.npz`` in DIR:
linear datamodelling scores of the network of the reproduction ``dattri_mnist_mlp``, whose own
conjugate gradients see 500 of the 5,000 images. Each of 50 halves is trained once; margins of 200
queries. Settings are chosen on one half of the queries, and the other half is reported. What is in
FOLDER is not trained again. It writes JSON with the environment; with ``--epochs``, the table of
one checkpoint beside those that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from environment import write_json

sys.path.insert(0, str(Path(__file__).parent / "reproductions"))

import dattri_mnist_mlp as mlp  # noqa: E402
from dattri import Bench, checkpoint_piece, datamodelling  # noqa: E402

from deel_influence.errors import ConvergenceWarning  # noqa: E402
from deel_influence.evaluation.subsets import sums_of_kept  # noqa: E402
from deel_influence.ihvp import EKFACIHVP, ConjugateGradientDescentIHVP  # noqa: E402
from deel_influence.influence import FirstOrderInfluenceCalculator  # noqa: E402

COMMAND = "python benchmarks/ekfac_cg.py --data-dir DIR --folder FOLDER"
RESULTS = Path(__file__).parent / "results" / "ekfac_cg.json"
NUM_QUERIES, STEPS, NUM_RESAMPLES = 200, 10, 300
DAMPINGS = {
    mlp.EARLY: {"ekfac": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5], "ekfac_cg": [1e-2, 1e-3]},
    # The network has learnt its images by heart, and the curvature is as much smaller.
    50: {"ekfac": [1e-6, 1e-7, 1e-8], "ekfac_cg": [1e-6]},
}


def strategy(name: str, model: Any, train: Any, damping: float) -> Any:
    """Return a fitted strategy."""
    if name == "ekfac":
        return EKFACIHVP(model, train, damping=damping, seed=0, verbose=0)
    return ConjugateGradientDescentIHVP(
        model,
        train_dataset=train,
        damping=damping,
        curvature="gauss_newton",
        preconditioner="ekfac",
        n_opt_iters=STEPS,
        seed=0,
    )


def measured(bench: Bench, epochs: int, name: str, damping: float) -> dict[str, Any]:
    """Return the scores of both halves of the queries, and what the solves reached."""
    model, train = bench.wrapped(bench.path("full", 0, epochs)), bench.train_set()
    start = time.process_time()
    fitted = strategy(name, model, train, damping)
    queries = bench.dataset(bench.x_test[:NUM_QUERIES], bench.y_test[:NUM_QUERIES])
    calculator = FirstOrderInfluenceCalculator(model, train, fitted, measurement="margin")
    scores = -calculator.influence_matrix(queries, train, verbose=0)
    cpu_seconds = round(time.process_time() - start, 1)
    predictions = sums_of_kept(scores.astype(np.float64), bench.subsets)
    outputs = bench.lds_truth.outputs[0, :, :NUM_QUERIES]
    chosen_on = np.random.default_rng(0).permutation(NUM_QUERIES) < NUM_QUERIES // 2
    reported = ~chosen_on
    per_query, interval = datamodelling(
        predictions[:, reported], outputs[:, reported], NUM_RESAMPLES
    )
    validation, _ = datamodelling(predictions[:, chosen_on], outputs[:, chosen_on])
    found = {
        "damping": damping,
        "validation": float(np.nanmean(validation)),
        "lds": float(np.nanmean(per_query)),
        "interval": list(interval),
        "cpu_seconds": cpu_seconds,
    }
    if name == "ekfac_cg":
        residuals = fitted.last_result.residual_norm
        found["median_residual"] = float(np.median(residuals))
        found["largest_residual"] = float(np.max(residuals))
    return found


def main() -> None:
    """Train, score and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=mlp.COMMON["checkpoints"])
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # the residuals are in the result
    settings = {**mlp.COMMON, "truth_seeds": 1}
    made = {"settings": settings, "data_dir": given.data_dir, "folder": given.folder}
    bench = Bench(**made)
    if not bench.path("full", 0, mlp.EARLY).exists():
        checkpoint_piece({"bench": made, "kind": "full", "number": 0, "noise": None})
    tables = json.loads(given.out.read_text())["by_epochs"] if given.out.exists() else {}
    for epochs in given.epochs:
        rows = {}
        for name, dampings in DAMPINGS[epochs].items():
            grid = []
            for damping in dampings:
                grid.append(measured(bench, epochs, name, damping))
                print(epochs, name, grid[-1], flush=True)
            rows[name] = {"chosen": max(grid, key=lambda row: row["validation"]), "grid": grid}
        tables[str(epochs)] = rows
        result = {"command": COMMAND, "queries": NUM_QUERIES, "steps": STEPS, "by_epochs": tables}
        write_json(given.out, result)


if __name__ == "__main__":
    main()
