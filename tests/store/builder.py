"""A program that builds a small index or matrix, slowly: ``builder.py FOLDER PAUSE WHAT``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import deel_influence.calculators.parts as parts_module
import deel_influence.calculators.queries as queries_module
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.store import build_index
from deel_influence.utils import as_dataset

N, BATCH, PART = 120, 4, 8


def build(path: str | Path, pause: float = 0.0, what: str = "index") -> None:
    """Build the index, or the matrix for two chunks of queries, with a pause before each batch."""
    keras.utils.set_random_seed(0)
    # Named, because names that Keras gives count up within a process.
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="head")]
    network = keras.Sequential(layers, name="network")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = BaseInfluenceModel(network, loss_function=loss)
    draws = np.random.default_rng(0)
    x, y = draws.normal(size=(N, 4)).astype("float32"), draws.integers(0, 3, N)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    calculator = FirstOrderInfluenceCalculator(model, train, "logra", seed=0)

    def batches():
        for start in range(0, N, BATCH):
            time.sleep(pause)
            yield x[start : start + BATCH], y[start : start + BATCH]

    data = as_dataset(batches)
    if what == "index":
        build_index(calculator, data, path, part_size=PART, verbose=0)
        return
    queries_module.MAX_CHUNK_BYTES = 1  # a batch of queries at a time
    parts_module.PART_BYTES = BATCH * PART * 4
    queries = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH).take(2)
    calculator.influence_matrix(queries, data, verbose=0, store=path)


if __name__ == "__main__":
    build(sys.argv[1], float(sys.argv[2]), sys.argv[3])
