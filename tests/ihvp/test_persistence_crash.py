"""A process that is killed while it saves a fitted strategy leaves the old file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.ihvp.base import InverseHessianVectorProduct
from deel_influence.ihvp.exact import ExactIHVP
from deel_influence.model.influence_model import InfluenceModel

ROOT = Path(__file__).resolve().parents[2]
SAVE_AND_DIE = (
    "import sys; from tests.ihvp.test_persistence_crash import save_and_die; "
    "save_and_die(*sys.argv[1:])"
)
VECTORS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def training_set() -> tf.data.Dataset:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(20, 3)), generator.normal(size=(20, 1))
    arrays = x.astype(np.float32), y.astype(np.float32)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


def load_model(path: Path) -> InfluenceModel:
    return InfluenceModel(keras.models.load_model(path), loss_function="mse")


def die(*_: object, **__: object) -> None:
    print("dying", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def save_and_die(model_path: str, path: str, moment: str) -> None:
    """Save another fit of the same model under the same name, in a process of its own."""
    strategy = ExactIHVP(load_model(Path(model_path)), training_set(), damping=7.0, verbose=0)
    original = zipfile.ZipFile.open

    def open_once(archive: zipfile.ZipFile, name: str, mode: str = "r", **options: bool) -> IO:
        if mode == "w" and archive.filelist:
            archive.fp.flush()
            die()
        return original(archive, name, mode, **options)

    if moment == "between two arrays":
        # An archive opens each array for writing; the second one is never written.
        zipfile.ZipFile.open = open_once
    else:
        Path.replace = os.replace = os.rename = die
    strategy.save(path)


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.mark.parametrize("moment", ["between two arrays", "before the rename"])
def test_a_killed_save_leaves_the_old_file(saved_model, tmp_path, moment):
    model = load_model(saved_model)
    path = ExactIHVP(model, training_set(), damping=0.5, verbose=0).save(tmp_path / "fitted.npz")
    expected = InverseHessianVectorProduct.load(path, model).solve(VECTORS)
    before = path.read_bytes()

    process = subprocess.run(
        [sys.executable, "-c", SAVE_AND_DIE, str(saved_model), str(path), moment],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert process.stdout == "dying\n"

    unfinished = [child for child in tmp_path.iterdir() if child not in (path, saved_model)]
    assert sum(child.stat().st_size for child in unfinished) > 0
    assert path.read_bytes() == before
    after = InverseHessianVectorProduct.load(path, model).solve(VECTORS)
    np.testing.assert_array_equal(after, expected)


def test_the_save_after_a_killed_one_replaces_the_file(saved_model, tmp_path):
    model = load_model(saved_model)
    path = tmp_path / "fitted.npz"
    for damping in (0.5, 7.0):
        strategy = ExactIHVP(model, training_set(), damping=damping, verbose=0)
        assert strategy.save(path) == path
        loaded = InverseHessianVectorProduct.load(path, model)
        np.testing.assert_allclose(loaded.solve(VECTORS), strategy.solve(VECTORS), rtol=1e-6)
