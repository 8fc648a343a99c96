"""Data without what was decided to be wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..datasets.source import DataSource
from ..errors import LabelError
from ..utils.datasets import check_dataset, numbered_batches
from ..utils.example_ids import as_ids, attach_ids, check_unique, names_of, with_names
from ..utils.intake import as_dataset, index_ids, is_plain_list
from ..utils.order import check_fixed_order
from ..utils.tensors import dense_dataset
from .decisions import Decisions
from .decisions_carried_out import Corrections, correct

_LABELS = ("label", "labels")


def apply_decisions(
    data: Any,
    decisions: Decisions,
    drop: bool = True,
    relabel: bool = True,
    *,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    label: str | None = None,
) -> Any:
    """Return data with the labels that were decided on, and without what was to go.

    The data that are passed are left as they are.

    Parameters
    ----------
    data
        The n examples that the decisions are about: arrays, DataFrames or nests of them, as
        ``(x, y)`` or ``(x, y, sample_weight)``; a DataFrame with a column of labels; a
        `DataSource`; or anything else that `fit` takes.
    decisions
        What was decided.
    drop, relabel
        Whether to carry out decisions of these kinds.
    ids
        The ids that the examples had, shape ``(n,)``; None takes those that go with the data (of
        pandas objects the index), or positions.
    class_names
        What the labels 0, 1, ... are called in the decisions; None takes what the data tell.
    label
        The column of labels of a DataFrame; None means ``label`` or ``labels``.

    Returns
    -------
    Arrays and DataFrames, or a `DataSource`, of the same form and types; of all else a dataset,
    whose batches have the sizes that they had, less what was dropped. Ids and names go with it.

    Raises
    ------
    DecisionsError
        If the decisions are about other data, or name an example or a class that is not there.
        Nothing is carried out then.
    DatasetOrderError
        If a dataset changes its order, so that its positions name nothing.
    LabelError, ValueError, TypeError
        If the data have not one label for each example.
    """
    asked: dict[str, Any] = {"class_names": class_names, "drop": drop, "relabel": relabel}
    if _is_frame(data):
        column = _label_column(data, label)
        corrections = _correct(decisions, data, data[column], ids, asked)
        result = data.assign(**{column: _corrected(data[column], corrections)})
        return _kept(result, corrections.kept)
    if isinstance(data, tuple) and len(data) > 1:
        x, y, *weights = data
        corrections = _correct(decisions, data, y, ids, asked)
        parts = (x, _corrected(y, corrections), *weights)
        return tuple(_kept(part, corrections.kept) for part in parts)
    dataset = as_dataset(data, "data")
    result, corrections = correct_dataset(dataset, decisions, ids, **asked)
    if not isinstance(data, DataSource):
        return result
    names = data.file_names
    if names is not None:
        names = tuple(np.array(names, object)[corrections.kept])
    return replace(data, dataset=result, ids=names_of(result).ids, file_names=names)


def correct_dataset(
    dataset: tf.data.Dataset,
    decisions: Decisions,
    ids: Any = None,
    class_names: Sequence[str] | None = None,
    drop: bool = True,
    relabel: bool = True,
) -> tuple[tf.data.Dataset, Corrections]:
    """Return a batched dataset of ``(x, y)`` corrected, and what was done; see `apply_decisions`.

    The labels are read in one pass, and the rest when the result is.
    """
    check_dataset(dataset, "data")
    check_fixed_order(dataset, "data")
    dataset_names = names_of(dataset)
    dataset = dense_dataset(dataset)
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) < 2 or not isinstance(spec[1], tf.TensorSpec):
        raise _no_labels(spec)
    only_labels = dataset.map(lambda x, y, *weights: y)
    if dataset_names.ids is not None:
        attach_ids(only_labels, dataset_names.ids)
    batches = list(numbered_batches(only_labels, argument="data"))
    labels = np.concatenate([batch.numpy() for batch, _ in batches])
    known = np.concatenate([part for _, part in batches])
    names = dataset_names.class_names if class_names is None else class_names
    corrections = correct(decisions, _ids(ids, known), labels, names, drop, relabel)
    result = _corrected_batches(dataset, corrections.corrected(labels), corrections.kept)
    ends = np.cumsum([0, *(len(part) for _, part in batches)])
    left = sum(corrections.kept[a:b].any() for a, b in itertools.pairwise(ends))
    result = result.apply(tf.data.experimental.assert_cardinality(left)).prefetch(tf.data.AUTOTUNE)
    with_names(
        result, class_names=dataset_names.class_names, feature_names=dataset_names.feature_names
    )
    return attach_ids(result, corrections.ids[corrections.kept]), corrections


def _corrected_batches(
    dataset: tf.data.Dataset, labels: np.ndarray, kept: np.ndarray
) -> tf.data.Dataset:
    """Put labels ``(n, ...)`` in the place of those of a dataset, and take examples out."""
    new = tf.constant(labels, dataset.element_spec[1].dtype)
    stays = None if kept.all() else tf.constant(kept)

    def step(start: tf.Tensor, batch: Any) -> tuple[tf.Tensor, Any]:
        x, y, *weights = batch
        end = start + tf.cast(tf.shape(y)[0], tf.int64)
        batch = (x, tf.ensure_shape(new[start:end], y.shape), *weights)
        if stays is not None:
            rows = tf.where(stays[start:end])[:, 0]
            batch = tf.nest.map_structure(lambda part: tf.gather(part, rows), batch)
        return end, batch

    result = dataset.scan(np.int64(0), step)
    if stays is not None:
        result = result.filter(lambda x, y, *weights: tf.shape(y)[0] > 0)
    return result


def _correct(
    decisions: Decisions, data: Any, labels: Any, ids: Any, asked: dict[str, Any]
) -> Corrections:
    array = _array(labels)
    if array.ndim == 0 or isinstance(labels, dict):
        raise _no_labels(labels)
    known = index_ids(data, "data")
    known = np.arange(len(array), dtype=np.int64) if known is None else known
    return correct(decisions, _ids(ids, known), array, **asked)


def _array(labels: Any) -> np.ndarray:
    # Types of pandas that know missing values would come as objects.
    dtype: Any = getattr(labels, "dtype", None)
    is_number = hasattr(labels, "iloc") and getattr(dtype, "kind", "O") in "biuf"
    return np.asarray(labels, dtype.type if is_number else None)


def _ids(ids: Any, known: np.ndarray) -> np.ndarray:
    if ids is None:
        return known
    given = check_unique(as_ids(ids, "ids"), "ids")
    if len(given) != len(known):
        message = (
            "Argument `ids` must have one id for each example. Received: "
            f"{len(given)} ids for {len(known)} examples."
        )
        raise ValueError(message)
    return given


def _is_frame(data: Any) -> bool:
    return hasattr(data, "iloc") and data.ndim == 2


def _label_column(frame: Any, label: str | None) -> str:
    wanted = _LABELS if label is None else (label,)
    column = next((name for name in wanted if name in frame.columns), None)
    if column is None:
        message = (
            f"Argument `label` must name the column of labels. Received: {label!r} for the columns "
            f"{[str(name) for name in frame.columns]}."
        )
        raise LabelError(message)
    return column


def _corrected(labels: Any, corrections: Corrections) -> Any:
    """Return labels ``(n, ...)`` with the new ones, as the kind of object that they are."""
    if hasattr(labels, "iloc"):
        at = np.flatnonzero(corrections.relabelled)
        result = labels.copy()
        result.iloc[at] = corrections.corrected(_array(labels))[at]
        return result
    new = corrections.corrected(_array(labels))
    if isinstance(labels, tf.Tensor):
        return tf.constant(new, labels.dtype)
    return new.tolist() if isinstance(labels, list) else new


def _kept(part: Any, kept: np.ndarray) -> Any:
    """Return the rows of a nest of arrays and pandas objects that stay; itself where all do."""
    if part is None:
        return part
    if isinstance(part, dict):
        return {name: _kept(value, kept) for name, value in part.items()}
    if isinstance(part, tuple | list) and not is_plain_list(part):
        return type(part)(_kept(value, kept) for value in part)
    size = len(part) if isinstance(part, list) else int(part.shape[0])
    if size != len(kept):
        message = (
            "Argument `data` must hold as many inputs as labels. Received: "
            f"{size} rows beside {len(kept)} labels. Pass arrays of the same examples."
        )
        raise ValueError(message)
    if kept.all():
        return part
    if isinstance(part, list):
        return [part[i] for i in np.flatnonzero(kept)]
    if hasattr(part, "iloc"):
        return part.iloc[np.flatnonzero(kept)]
    if isinstance(part, tf.Tensor | tf.RaggedTensor):
        return tf.gather(part, np.flatnonzero(kept))
    return part[kept]


def _no_labels(found: object) -> TypeError:
    message = (
        "Argument `data` must have labels: (x, y), (x, y, sample_weight), or a DataFrame with a "
        f"column of them. Received: a {type(found).__name__}. Map the dataset to (x, y) first."
    )
    return TypeError(message)
