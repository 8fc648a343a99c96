"""Data as people have them, made into batched datasets whose examples may have names."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .conversion import is_numeric, is_pandas, is_scipy_sparse, tensor_of
from .example_ids import as_ids, attach_ids, check_unique, names_of, with_names
from .tensors import dense_dataset
from .yielded import of_batches

BATCH_SIZE = 128
"""How many examples a batch has where the data are not in batches."""

_FORMS = (
    "a batched tf.data.Dataset, arrays or DataFrames (x, y) with one row per example, a "
    "keras.utils.PyDataset, a Hugging Face dataset, a sequence of batches, or a function without "
    "arguments that starts a generator of batches"
)
_LABEL_COLUMNS = ("label", "labels")


def as_dataset(
    data: Any, argument: str = "dataset", model: Any = None, batch_size: int = BATCH_SIZE
) -> tf.data.Dataset:
    """Return data in any form that `fit` takes as a batched `tf.data.Dataset`.

    Parameters
    ----------
    data
        A `tf.data.Dataset`, which is returned as it is; nests of arrays, as ``(x, y)`` or
        ``(x, y, sample_weight)``, with the examples on the first axis; pandas objects among them;
        a `keras.utils.PyDataset`; a Hugging Face dataset; a sequence of batches, or any object
        with a length that yields them anew for each pass; a function that starts a generator of
        batches; or a `DataSource`.
    argument
        The name of the argument, for messages.
    model
        The wrapped model. A DataFrame becomes a dict of columns where the model has inputs of these
        names, and a matrix elsewhere.
    batch_size
        How many examples a batch has where the data are not in batches.

    Returns
    -------
    The dataset. The index of a DataFrame, unless it only counts, gives the ids; see `ids_of`.

    Raises
    ------
    TypeError
        If it has another form.
    ValueError
        If arrays have different lengths, or an index names two examples alike.
    """
    if isinstance(data, tf.data.Dataset):
        return data
    if isinstance(getattr(data, "dataset", None), tf.data.Dataset):
        return data.dataset
    if isinstance(data, dict) and any(hasattr(part, "to_tf_dataset") for part in data.values()):
        message = (
            f"Argument `{argument}` must be one split. Received: {list(data)}. Pass one of them, "
            f"as in data[{next(iter(data))!r}]."
        )
        raise TypeError(message)
    if isinstance(data, keras.utils.PyDataset):
        size = len(data)
        return of_batches(lambda: (data[i] for i in range(size)), size, argument)
    if hasattr(data, "to_tf_dataset"):
        return _of_hugging_face(data, argument, model, batch_size)
    if _is_nest_of_arrays(data):
        return _of_arrays(data, argument, model, batch_size)
    if isinstance(data, Iterator):
        message = (
            f"Argument `{argument}` must be data that can be gone over more than once. Received: "
            f"{type(data).__name__}, which ends with the first pass. Pass the function that makes "
            "it, without calling it."
        )
        raise TypeError(message)
    if inspect.isroutine(data) or isinstance(data, functools.partial):
        return of_batches(data, None, argument)
    if isinstance(data, Iterable) and isinstance(data, Sized) and not isinstance(data, str):
        return of_batches(lambda: iter(data), len(data), argument)
    message = f"Argument `{argument}` must be {_FORMS}. Received: {type(data).__name__}."
    raise TypeError(message)


def with_ids(data: Any, ids: Any) -> tf.data.Dataset:
    """Have ids go with data, in place of positions.

    Parameters
    ----------
    data
        In any form that `as_dataset` takes, n examples.
    ids
        Integers or texts, shape ``(n,)``, all different.

    Returns
    -------
    A dataset with the ids; ``data`` stay as they are. What is made of it, such as
    ``dataset.take(1)``, has none.

    Raises
    ------
    ValueError
        If they are no ids.
    """
    dataset = as_dataset(data, "data")
    if dataset is data:
        dataset = with_names(data.take(-1), **vars(names_of(data)))
    return attach_ids(dataset, ids)


def _is_frame(value: Any) -> bool:
    return is_pandas(value) and value.ndim == 2


def index_ids(data: Any, argument: str) -> np.ndarray | None:
    """Return the ids that the index of pandas objects in a nest gives, as `as_dataset` takes them.

    None where there are no pandas objects, or their index only counts.
    """
    found: list[np.ndarray] = []
    for part in tf.nest.flatten(data):
        if is_pandas(part):
            _note_index(part, found, argument)
    return _one_index(found, argument) if found else None


def is_plain_list(value: Any) -> bool:
    """Tell whether it is a list, or list of lists, of numbers or texts."""
    if not isinstance(value, list) or not value:
        return False
    plain = (bool, int, float, str, bytes, np.generic)
    return all(isinstance(part, plain) or is_plain_list(part) for part in value)


def _is_array(value: Any) -> bool:
    composite = isinstance(value, tf.SparseTensor | tf.RaggedTensor)
    has_rows = hasattr(value, "__array__") or is_plain_list(value)
    return has_rows or composite or is_scipy_sparse(value)


def _is_nest_of_arrays(data: Any) -> bool:
    if _is_array(data):
        return True
    if isinstance(data, dict):
        return bool(data) and all(map(_is_nest_of_arrays, data.values()))
    if not isinstance(data, tuple | list) or not data:
        return False
    batches = isinstance(data, list) and all(isinstance(part, tuple) for part in data)
    return not batches and all(part is None or _is_nest_of_arrays(part) for part in data)


def _of_arrays(data: Any, argument: str, model: Any, batch_size: int) -> tf.data.Dataset:
    """Cut arrays into batches."""
    found: list[np.ndarray] = []
    if isinstance(data, tuple):
        while len(data) > 1 and data[-1] is None:  # as fit(x, y, sample_weight=None)
            data = data[:-1]
        inputs = _inputs_of(data[0], model, argument, found)
        nest: Any = (inputs, *(_read(part, argument, found) for part in data[1:]))
    elif _is_frame(data):
        nest = _columns_of(data, list(data.columns), argument, found)
    else:
        nest = _inputs_of(data, model, argument, found)
    leaves = tf.nest.flatten(nest)
    lengths = [int(leaf.shape[0]) if leaf.shape.rank else None for leaf in leaves]
    if len(set(lengths)) != 1 or lengths[0] is None:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        message = (
            f"Argument `{argument}` must hold arrays with one row per example, as many labels as "
            f"inputs. Received: shapes {shapes}. Pass arrays of the same examples."
        )
        raise ValueError(message)
    dataset = _sliced(nest, leaves, lengths[0], batch_size)
    inputs = data[0] if isinstance(data, tuple) else data
    if _is_frame(inputs) and isinstance(nest, tuple) and isinstance(nest[0], tf.Tensor):
        with_names(dataset, feature_names=tuple(str(name) for name in inputs.columns))
    ids = _one_index(found, argument)
    return dataset if ids is None else with_names(dataset, ids=ids)


def _sliced(nest: Any, leaves: Sequence[Any], n: int, batch_size: int) -> tf.data.Dataset:
    if not all(isinstance(leaf, tf.Tensor) for leaf in leaves):
        return dense_dataset(tf.data.Dataset.from_tensor_slices(nest).batch(batch_size))
    # A slice is one copy of a batch, where single rows that are batched again are as many copies.
    starts = tf.data.Dataset.range(0, n, batch_size)
    return starts.map(
        lambda start: tf.nest.map_structure(lambda part: part[start : start + batch_size], nest)
    ).prefetch(tf.data.AUTOTUNE)


def _one_index(found: Sequence[np.ndarray], argument: str) -> np.ndarray | None:
    """Return the index that pandas objects of the same examples share; None if it only counts."""
    if any(not np.array_equal(found[0], other) for other in found[1:]):
        message = (
            f"Argument `{argument}` must hold pandas objects with the same index, because it gives "
            "the ids. Received: different ones. Line them up with .loc[...], or use "
            ".reset_index(drop=True) on each."
        )
        raise ValueError(message)
    counts = not found or np.array_equal(found[0], np.arange(len(found[0])))
    return None if counts else check_unique(found[0], f"{argument}` or its index, `index")


def _note_index(part: Any, found: list[np.ndarray], argument: str) -> None:
    """Take the index of a pandas object as ids."""
    index = part.index.to_numpy()
    if index.dtype.kind not in "iu":
        index = np.array([str(value) for value in part.index], str)
    found.append(as_ids(index, argument))


def _read(part: Any, argument: str, found: list[np.ndarray]) -> Any:
    """Return a nest of arrays as one of tensors, tuples in place of lists."""
    if isinstance(part, dict):
        return {name: _read(value, argument, found) for name, value in part.items()}
    if isinstance(part, tuple | list) and not is_plain_list(part):
        return tuple(_read(value, argument, found) for value in part)
    if is_pandas(part):
        _note_index(part, found, argument)
    return tensor_of(part, argument)


def _inputs_of(part: Any, model: Any, argument: str, found: list[np.ndarray]) -> Any:
    """Return the inputs as the model takes them: a DataFrame by columns, or as a matrix."""
    inputs = _taken_by(model)
    names = _names_of(inputs)
    if _is_frame(part) and names:
        return _columns_of(part, names, argument, found)
    if _is_frame(part):
        wrong = [str(name) for name, kind in part.dtypes.items() if not is_numeric(kind)]
        if wrong and model is None:
            return _columns_of(part, list(part.columns), argument, found)
        if wrong and len(part.columns) > 1:
            message = (
                f"Argument `{argument}` must have columns of numbers, because the model takes one "
                f"matrix. Received: texts or categories in {wrong}. Encode these columns, or build "
                "the model with a named keras.Input for each column."
            )
            raise ValueError(message)
    tensor = _read(part, argument, found)
    shape = getattr(inputs, "shape", None)
    if isinstance(tensor, tf.Tensor) and shape is not None:
        # As `fit` does with a vector of numbers or texts.
        if len(shape) == tensor.shape.rank + 1 and shape[-1] == 1:
            return tensor[..., None]
        if len(shape) == tensor.shape.rank - 1 and tensor.shape[-1] == 1:
            return tensor[..., 0]
    return tensor


def _taken_by(model: Any) -> Any:
    """Return what a model takes, as a nest of tensors; None where that is not known."""
    network = getattr(model, "model", model)
    try:
        inputs = getattr(network, "input", None)
    except ValueError:  # what Keras 3.3 raises for a Sequential model that was not called yet
        inputs = None
    inputs = getattr(network, "inputs", None) if inputs is None else inputs
    return inputs[0] if isinstance(inputs, tuple | list) and len(inputs) == 1 else inputs


def _names_of(inputs: Any) -> list[str]:
    """Return the names of the inputs of a model, where it has several or takes a dict."""
    if isinstance(inputs, dict):
        return list(inputs)
    if isinstance(inputs, tuple | list):
        return [part.name for part in inputs]
    return []


def _columns_of(
    frame: Any, names: Sequence[Any], argument: str, found: list[np.ndarray]
) -> dict[str, Any]:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        message = (
            f"Argument `{argument}` must have a column for each input of the model, {list(names)}. "
            f"Received: a DataFrame without {missing}, with the columns "
            f"{[str(name) for name in frame.columns]}. Rename its columns."
        )
        raise ValueError(message)
    _note_index(frame, found, argument)
    return {str(name): tensor_of(frame[name], f"{argument}[{name!r}]") for name in names}


def _of_hugging_face(data: Any, argument: str, model: Any, batch_size: int) -> tf.data.Dataset:
    """Read a Hugging Face dataset by its own means: the label column, and the model's inputs."""
    columns = list(data.column_names)
    label = next((name for name in _LABEL_COLUMNS if name in columns), None)
    inputs = _taken_by(model)
    names = [name for name in _names_of(inputs) if name in columns]
    names = names or [name for name in columns if name not in _LABEL_COLUMNS]
    if label is None or not names:
        message = (
            f"Argument `{argument}` must have a column of labels, {' or '.join(_LABEL_COLUMNS)}, "
            f"and one of inputs. Received: a dataset with the columns {columns}. Use "
            ".rename_column(...), or .to_tf_dataset(columns=..., label_cols=..., batch_size=..., "
            "shuffle=False)."
        )
        raise ValueError(message)
    if len(names) > 1 and getattr(inputs, "shape", None) is not None:
        message = (
            f"Argument `{argument}` must have one column of inputs, because the model has one "
            f"input. Received: {names} beside the labels {label!r}. Use .select_columns([...])."
        )
        raise ValueError(message)
    # Of a copy: its clean-up would take a dataset of another format apart.
    dataset = data.with_format(None).to_tf_dataset(
        columns=names if len(names) > 1 else names[0],
        label_cols=label,
        batch_size=batch_size,
        shuffle=False,
    )
    class_names = getattr(data.features[label], "names", None)
    return with_names(dataset, class_names=class_names and tuple(class_names))
