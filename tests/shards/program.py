"""What workers of other processes import: a model, data in many forms, and slow data."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.shards import Shard

N, BATCH = 60, 4


def arrays() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    return draws.normal(size=(N, 4)).astype("float32"), draws.integers(0, 3, N)


def train_set() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays()).batch(BATCH)


def wrapped() -> BaseInfluenceModel:
    keras.utils.set_random_seed(0)
    # Named, because names that Keras gives count up within a process.
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="head")]
    network = keras.Sequential(layers, name="network")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return BaseInfluenceModel(network, loss_function=loss)


def calculator(model: BaseInfluenceModel, strategy: str = "logra"):
    return FirstOrderInfluenceCalculator(model, train_set(), strategy, seed=0)


def slowly(marks: str, number: int, count: int, pause: float) -> tf.data.Dataset:
    """Return a shard whose reading leaves a file with the process that reads, and takes time."""
    (Path(marks) / f"{number}-{os.getpid()}").touch()
    time.sleep(pause)
    return Shard(train_set, number, count).open()


def slow_shards(marks: Path, count: int, pause: float) -> list[Shard]:
    return [Shard(partial(slowly, str(marks), number, count, pause)) for number in range(count)]


def failing() -> tf.data.Dataset:
    message = "Argument `data` is of no use here."
    raise ValueError(message)
