"""Measure how well every method of the command line finds flipped labels of real digits.

Run ``python benchmarks/detection.py [--seeds N] [--epochs N] [--out FILE]``; writes JSON with the
environment, and the table in the documentation. For each seed a tenth of the labels is flipped and
the network of ``deel-influence demo`` is trained once, under the recorders of all methods.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import keras
import method_table
import numpy as np
from environment import write_json
from method_scores import detection_measures, scores_by_method

from deel_influence.cli.demo_data import NoisyDigits, noisy_digits
from deel_influence.cli.demo_network import train_digits_network

FRACTION, BUDGET = 0.1, 0.1


def digits_scores(digits: NoisyDigits, epochs: int, seed: int) -> dict[str, np.ndarray]:
    """Train once, and return the scores ``(n,)`` of each method."""
    images, labels = digits.images, digits.labels
    train = partial(train_digits_network, images, labels, epochs, seed, None)
    return scores_by_method(train, images, labels, epochs=epochs, seed=seed)[0]


def measures(scores: np.ndarray, flipped: np.ndarray) -> dict[str, float]:
    """Return how well an order finds the flipped labels."""
    found = detection_measures(scores, flipped, [BUDGET])
    return {**found, "recall": found["recall"][0]}


def main() -> None:
    """Measure, and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=method_table.DETECTION)
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        digits = noisy_digits(FRACTION, seed)
        keras.backend.clear_session()
        every = digits_scores(digits, options.epochs, seed)
        every["random (mean)"] = np.zeros(len(digits.flipped))
        for name, scores in every.items():
            found.setdefault(name, []).append(measures(scores, digits.flipped))
            print(seed, name, f"{found[name][-1]['roc_auc']:.4f}", flush=True)
    settings = {"fraction": FRACTION, "budget": BUDGET, "epochs": options.epochs}
    result = {"settings": {**settings, "seeds": options.seeds}, "methods": found}
    write_json(options.out, result)
    if options.out == method_table.DETECTION:
        method_table.update_page()


if __name__ == "__main__":
    main()
