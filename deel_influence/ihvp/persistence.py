"""Fitted strategies on disk."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ..errors import SavedCurvatureError
from ..utils.digests import dataset_digest
from ..utils.records import RecordKind

STRATEGY = RecordKind("fitted strategy", "Fit and save again.", 3, SavedCurvatureError)


def check_same_data(saved: Any, dataset: tf.data.Dataset | None, path: Any) -> None:
    """Refuse a file that was fitted on other data.

    Raises
    ------
    SavedCurvatureError
        Says so.
    """
    current = None if dataset is None else dataset_digest(dataset)
    if saved == current:
        return
    message = (
        "Argument `train_dataset` must be the training set of the fit, in its order. Received: "
        f"{current and current['examples']} examples for {str(path)!r}, fitted on "
        f"{saved and saved['examples']}, or others. Pass that one, or fit again."
    )
    raise SavedCurvatureError(message)
