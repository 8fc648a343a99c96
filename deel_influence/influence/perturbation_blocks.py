"""Blocks of perturbation influence, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..extras import require
from ..types import Batch
from .mixed_derivatives import Values

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class PerturbationBlock:
    """The influence of moving the examples of one training batch on some queries.

    Attributes
    ----------
    query_ids
        Ids of the queries, int64, shape ``(m,)``.
    train_ids
        Ids of the training examples, int64, shape ``(b,)``.
    batch
        The training batch, as the dataset yielded it.
    values
        Shape ``(m, b, *x.shape)``, or a dict of such arrays by name.
    """

    query_ids: np.ndarray
    train_ids: np.ndarray
    batch: Batch
    values: Values

    @property
    def array(self) -> np.ndarray:
        """The values, where there is one array of them.

        Raises
        ------
        UnsupportedModelError
            If several tensors are moved.
        """
        if isinstance(self.values, dict):
            message = (
                f"This needs one tensor that is moved. Received: {list(self.values)}. Choose one "
                "of them with input_name= or layer=."
            )
            raise UnsupportedModelError(message)
        return self.values


def join_values(values: Sequence[Values], axis: int) -> Values:
    """Join values, or dicts of them, along an axis.

    Raises
    ------
    ValueError
        If the examples do not all have the same shape.
    """
    if len({str(tf.nest.map_structure(lambda v: v.shape[2:], part)) for part in values}) > 1:
        message = (
            "Argument `train_set` must have examples of one shape for their values to make one "
            "array. Received: batches of several shapes. Use `influence_blocks`, which yields them "
            "batch by batch."
        )
        raise ValueError(message)
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts, axis=axis), *values)


def check_shifts(shifts: np.ndarray, num_examples: int, shape: tuple[int, ...]) -> None:
    """Refuse shifts of other shapes than ``x.shape``, here ``shape``, and ``(n, *x.shape)``.

    Raises
    ------
    ValueError
        Says which shapes are taken.
    """
    if shifts.shape not in (shape, (num_examples, *shape)):
        message = (
            "Argument `shifts` must have the shape of one training example or of all, "
            f"{shape} or {(num_examples, *shape)}. Received: shape {shifts.shape}."
        )
        raise ValueError(message)


def feature_frame(
    values: np.ndarray, query_ids: np.ndarray, feature_names: Sequence[str]
) -> pd.DataFrame:
    """Return a data frame of values ``(m, f)``, a row for each query, a column for each feature.

    Raises
    ------
    ValueError
        If there is not one name for each feature.
    MissingExtraError
        If pandas is not installed.
    """
    names = list(feature_names)
    if values.ndim != 2 or values.shape[1] != len(names):
        message = (
            "Argument `feature_names` must have a name for each feature of examples of shape "
            f"(f,). Received: {len(names)} names for examples of shape {values.shape[1:]}."
        )
        raise ValueError(message)
    pandas = require("pandas", "report", "Argument `feature_names` needs")
    return pandas.DataFrame(values, index=pandas.Index(query_ids, name="query"), columns=names)
