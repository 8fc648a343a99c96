from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deel_influence.backend import check_backend
from deel_influence.errors import BackendError


def test_another_back_end_is_refused_at_import_with_the_remedy():
    command = [sys.executable, "-c", "import deel_influence"]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode != 0
    last = process.stderr.strip().splitlines()[-1]
    assert "needs Keras to run on the TensorFlow back end. Received: 'jax'" in last
    assert "KERAS_BACKEND=tensorflow" in last


def test_a_back_end_from_the_configuration_file_is_noticed_once_keras_is_imported(monkeypatch):
    monkeypatch.setattr("keras.config.backend", lambda: "torch")
    with pytest.raises(BackendError, match="Received: 'torch'"):
        check_backend()


def test_importing_the_package_does_not_import_tensorflow():
    code = "import deel_influence, sys; print('tensorflow' in sys.modules, 'keras' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["False", "False"]
