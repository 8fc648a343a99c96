"""Fitted strategies on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from ..errors import SavedCurvatureError
from ..model.fingerprint import check_same_model
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..utils.datasets import check_dataset
from ..utils.digests import dataset_digest
from ..utils.files import npz_path
from ..utils.portable import SharedDataset
from ..utils.records import RecordKind

if TYPE_CHECKING:
    from .base import InverseHessianVectorProduct

REGISTERED: dict[str, type[InverseHessianVectorProduct]] = {}
"""All strategies, by name."""

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


def loaded(
    kind: type[InverseHessianVectorProduct],
    path: str | Path,
    model: BaseInfluenceModel,
    train_dataset: tf.data.Dataset | None,
) -> InverseHessianVectorProduct:
    """Return the strategy in a file; `InverseHessianVectorProduct.load` says more.

    Parameters
    ----------
    kind
        What it has to be.
    path, model, train_dataset
        As for `load`.
    """
    check_influence_model(model)
    path = npz_path(path)
    header, state = STRATEGY.read(path, lambda header, arrays: (header, arrays))
    return restored_strategy(kind, header, state, path, model, train_dataset)


def restored_strategy(
    kind: type[InverseHessianVectorProduct],
    header: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    path: str | Path,
    model: BaseInfluenceModel,
    train_dataset: tf.data.Dataset | None,
) -> InverseHessianVectorProduct:
    """Return the strategy that a file tells of.

    Parameters
    ----------
    kind
        What it has to be.
    header, state
        What the file holds.
    path, model, train_dataset
        As for `InverseHessianVectorProduct.load`.
    """
    if train_dataset is not None:
        check_dataset(train_dataset, "train_dataset", model.input_rank)
    with STRATEGY.parsing(path):
        name, config, fitted_on = header["strategy"], dict(header["config"]), header["model"]
        strategy = REGISTERED.get(name)
        if strategy is None or not issubclass(strategy, kind):
            raise STRATEGY.refused(path, f"holds the strategy {name!r}, no {kind.__name__}")
        check_same_model(fitted_on, model, path)
    if strategy.needs_data and train_dataset is None:
        message = (
            "Argument `train_dataset` must be given: the products of "
            f"{strategy.__name__} go over the training set. Received: none. Pass `train_dataset=`."
        )
        raise ValueError(message)
    if strategy.needs_data:
        check_same_data(header["data"], train_dataset, path)
    with STRATEGY.parsing(path):
        return strategy.restored(model, train_dataset, config, state, header["num_train_examples"])


def unpickled(
    kind: type[InverseHessianVectorProduct],
    model: BaseInfluenceModel,
    data: SharedDataset,
    config: Mapping[str, Any],
    state: Mapping[str, np.ndarray],
    num_train_examples: int | None,
) -> InverseHessianVectorProduct:
    """Return the strategy that a pickle, or a copy, holds."""
    return kind.restored(model, data.dataset, config, state, num_train_examples)
