"""Arrays of any library as tensors."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def is_pandas(value: Any) -> bool:
    """Tell whether it is a Series or a DataFrame."""
    return hasattr(value, "iloc")


def is_scipy_sparse(value: Any) -> bool:
    """Tell whether it is a sparse matrix of SciPy."""
    return hasattr(value, "tocoo")


def is_numeric(kind: Any) -> bool:
    """Tell whether a type of NumPy or pandas is one of numbers."""
    return getattr(kind, "kind", "O") in "biuf"


def tensor_of(part: Any, argument: str) -> Any:
    """Return an array as a tensor."""
    if isinstance(part, tf.SparseTensor | tf.RaggedTensor):
        return part
    if is_scipy_sparse(part):
        found = part.tocoo()
        places = np.stack([found.row, found.col], axis=1)
        return tf.sparse.reorder(tf.SparseTensor(places, found.data, found.shape))
    if is_pandas(part):
        kinds = part.dtypes if part.ndim == 2 else [part.dtype]
        if all(is_numeric(kind) for kind in kinds):
            # Types of pandas that know missing values need another to have NaN in.
            missing = bool(np.any(part.isna().to_numpy()))
            whole = np.result_type(*(kind.type for kind in kinds))
            part = part.to_numpy(dtype=keras.config.floatx() if missing else whole)
        else:
            part = part.to_numpy(dtype=object)
    values = part if isinstance(part, tf.Tensor) else _array_of(part, argument)
    if isinstance(values, np.ndarray) and values.dtype.kind in "OUT":
        flat = values.ravel().tolist()
        if not all(isinstance(value, str | bytes) for value in flat):
            raise _odd_array(", ".join(sorted({type(value).__name__ for value in flat})), argument)
        return tf.reshape(tf.constant(flat, tf.string), values.shape)
    return tf.convert_to_tensor(values)


def _array_of(part: Any, argument: str) -> np.ndarray:
    try:
        return np.asarray(part)
    except ValueError as error:  # lists of different lengths
        received = "lists of different lengths"
        raise _odd_array(received, argument) from error


def _odd_array(received: str, argument: str) -> ValueError:
    message = (
        f"Argument `{argument}` must hold numbers or texts in arrays of one shape. Received: an "
        f"array of objects ({received}). Fill in what is missing, and pad sequences to one length."
    )
    return ValueError(message)
