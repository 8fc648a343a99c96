"""Digits that are prepared once, by a TensorFlow Datasets that may not ask the cloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow_datasets.core.utils import gcs_utils

from deel_influence.datasets.digits.loading import load_digits_arrays


@pytest.fixture(autouse=True, scope="session")
def _no_cloud() -> None:
    """Fail where Google Cloud Storage is asked, which does not go through Python's sockets."""

    def refuse(path: object) -> bool:
        message = f"A test asked Google Cloud Storage for {path}."
        raise AssertionError(message)

    with pytest.MonkeyPatch.context() as patch:
        # Some versions of TensorFlow Datasets ask by default, others do not.
        patch.setattr(gcs_utils, "_is_gcs_disabled", False)
        patch.setattr(gcs_utils, "exists", refuse)
        yield


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory, _no_cloud: None) -> Path:
    """A folder in which TensorFlow Datasets finds the digits."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    load_digits_arrays(folder)
    return folder
