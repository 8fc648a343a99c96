"""Read the digits, preparing them on the first call; no network is needed or tried."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from ..source import stream_arrays


def load_digits_arrays(
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return all digits as arrays, in scikit-learn's order.

    Parameters
    ----------
    data_dir
        Folder of prepared datasets; None means the one of TensorFlow Datasets
        (``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``).

    Returns
    -------
    Images, shape ``(1797, 8, 8, 1)``, uint8 from 0 to 255, and labels, shape ``(1797,)``, int64.

    Raises
    ------
    DataSourceError
        If the dataset cannot be written to the folder.
    MissingExtraError
        If TensorFlow Datasets cannot be imported, or the dataset has to be prepared and
        scikit-learn is not installed.
    """
    # TensorFlow Datasets is loaded where it is asked for.
    from ..preparation import prepare
    from ..tfds import tfds
    from .digits_dataset_builder import Digits

    builder = Digits(data_dir=data_dir)
    prepare(builder)
    dataset = builder.as_dataset(split="train", as_supervised=True, batch_size=-1)
    images, labels = tfds.as_numpy(dataset)
    return images, labels


def load_digits_dataset(
    data_dir: str | os.PathLike[str] | None = None, batch_size: int = 256
) -> tf.data.Dataset:
    """Return the digits as batches ``(images (b, 8, 8, 1), labels (b,))`` in a fixed order.

    Parameters
    ----------
    data_dir
        As for `load_digits_arrays`.
    batch_size
        Examples in a batch; the last batch may be smaller.
    """
    return stream_arrays(*load_digits_arrays(data_dir), batch_size=batch_size)
