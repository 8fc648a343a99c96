"""The reproduction of figure 2 (convolutional network) runs, with the published network."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import keras
import numpy as np
import pytest

from tests.reproductions.small_mnist import arguments, write_small_mnist


@pytest.fixture
def script() -> ModuleType:
    return importlib.import_module("koh_liang_fig2_cnn")


def test_every_removal_is_retrained_from_the_same_weights(script, tmp_path):
    script.main([*arguments(write_small_mnist(tmp_path, 4)), "--workers", "1"])
    result = json.loads((tmp_path / "koh_liang_fig2_cnn.json").read_text())
    assert np.isfinite([row["measured"] for row in result["rows"]]).all()
    assert "by hand" in result["settings"]["choice_of_retraining_steps"]
    details = result["details"]
    assert details["conjugate_gradients_converged"]
    # Two small steps from one start: the query's loss has not gone far.
    start, end = details["loss_of_query_at_start"], details["loss_of_query_after_the_same_steps"]
    assert abs(end - start) < 0.5
    assert np.max(np.abs(details["actual"])) < 0.1
    # The start, and retrainings without each of three images and with all.
    assert len(list((tmp_path / "pieces").rglob("*.npz"))) == 5


def test_the_network_has_the_published_number_of_weights(script):
    network = script.make_network(keras.optimizers.SGD, script.COMMON)
    assert network.count_params() == 2616
    # The authors' weight decay is on kernels alone.
    kernels = [v for v in network.trainable_variables if len(v.shape) > 1]
    penalty = sum(0.5 * 0.001 * np.sum(keras.ops.convert_to_numpy(v) ** 2) for v in kernels)
    total = sum(float(loss) for loss in network.losses)
    assert total == pytest.approx(penalty, rel=1e-5)
