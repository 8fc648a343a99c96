"""A small model, its training set, and a way to run the command line on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from deel_influence.cli.app import app

NUM_EXAMPLES = 30
NUM_CLASSES = 3


@pytest.fixture(scope="session")
def run() -> Callable:
    """Run the command line in this process; give the result."""
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(NUM_EXAMPLES, 4)).astype(np.float32)
    return x, generator.integers(0, NUM_CLASSES, size=NUM_EXAMPLES)


@pytest.fixture(scope="session")
def data_path(
    arrays: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.npz"
    x, y = arrays
    np.savez(path, x=x, y=y, ids=1000 + np.arange(NUM_EXAMPLES), class_names=["ape", "bee", "cat"])
    return path


@pytest.fixture(scope="session")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="tanh", name="hidden"),
            layers.Dense(NUM_CLASSES, name="logits"),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="session")
def model_path(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    network.save(path)
    return path
