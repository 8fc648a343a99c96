"""A builder that is killed at any moment leaves an index that is finished with the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deel_influence.store import Index

BUILDER = """
import sys
import keras
import numpy as np
import tensorflow as tf
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel
from deel_influence.store import build_index

path, pause = sys.argv[1], float(sys.argv[2])
keras.utils.set_random_seed(0)
network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model = BaseInfluenceModel(network, loss_function=loss)
draws = np.random.default_rng(0)
x, y = draws.normal(size=(120, 4)).astype("float32"), draws.integers(0, 3, 120)
train = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
calculator = FirstOrderInfluenceCalculator(model, train, "logra", seed=0)
slow = train.map(lambda *batch: tf.py_function(lambda *b: (__import__("time").sleep(pause), b)[1],
                                               batch, (tf.float32, tf.int64)))
slow = slow.map(lambda x, y: (tf.ensure_shape(x, (None, 4)), tf.ensure_shape(y, (None,))))
build_index(calculator, slow, path, part_size=8, verbose=0)
"""


def builder(path: Path, pause: float) -> subprocess.Popen:
    command = [sys.executable, "-c", BUILDER, str(path), str(pause)]
    return subprocess.Popen(command)


def files_of(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@pytest.mark.parametrize("wanted", [1, 6])
def test_killed_and_finished_by_two_at_once(wanted, tmp_path):
    killed = builder(tmp_path / "index", 0.05)
    while len(list((tmp_path / "index").glob("part-*"))) < wanted:
        assert killed.poll() is None
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    left = files_of(tmp_path / "index")
    assert wanted < len(left) < 17
    both = [builder(tmp_path / "index", 0) for _ in range(2)]  # which race for the same files
    whole = builder(tmp_path / "whole", 0)
    assert [process.wait() for process in (*both, whole)] == [0, 0, 0]
    found = files_of(tmp_path / "index")
    assert found == files_of(tmp_path / "whole")
    assert left.items() <= found.items()
    assert Index(tmp_path / "index").check().complete
    assert len(Index(tmp_path / "index")) == 120
