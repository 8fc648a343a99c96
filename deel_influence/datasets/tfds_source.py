"""Training sets of TensorFlow Datasets."""

from __future__ import annotations

import os

import tensorflow as tf

from ..errors import DataSourceError

# Imported for its effect: it makes the name `digits` known to TensorFlow Datasets.
from .digits.digits_dataset_builder import Digits  # noqa: F401
from .preparation import prepare
from .source import DataSource, Rows, batched
from .tfds import tfds


def load_tfds(
    name: str, split: str, batch_size: int, data_dir: str | os.PathLike[str] | None = None
) -> DataSource:
    """Load one split of a dataset; one that is prepared already needs no network.

    Parameters
    ----------
    name
        Name of the dataset, with its configuration if it has some: ``NAME`` or ``NAME/CONFIG``.
    split
        A split as TensorFlow Datasets writes it: ``train``, ``test``, ``train[:10%]``.
    batch_size
        Examples in a batch.
    data_dir
        Folder of prepared datasets; None means the default of TensorFlow Datasets.

    Raises
    ------
    DataSourceError
        If the dataset or the split is unknown, unlabelled or empty, or cannot be prepared.
    """
    builder = _find(name, data_dir)
    prepare(builder)
    label = _label_feature(builder)
    count = _check_split(builder, split)
    is_whole = split in builder.info.splits
    # File after file, so that a part of a split has its examples in the same order.
    in_order = tfds.ReadConfig(interleave_cycle_length=1)

    def read(first: int, last: int) -> tf.data.Dataset:
        dataset = builder.as_dataset(
            split=f"{split}[{first}:{last}]" if is_whole else split,
            as_supervised=True,
            shuffle_files=False,
            read_config=in_order,
        )
        # A part of a split has no parts that can be named.
        part = dataset if is_whole else dataset.skip(first).take(last - first)
        return batched(part, batch_size)

    names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else None
    return DataSource(
        name=f"{builder.info.full_name}:{split}",
        dataset=read(0, count),
        class_names=names,
        rows=Rows(count, batch_size, read),
    )


def _find(name: str, data_dir: str | os.PathLike[str] | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        message = (
            "The data source `tfds:NAME` must name a dataset of TensorFlow Datasets. "
            f"Received: {name!r}. Check the name at https://www.tensorflow.org/datasets/catalog"
        )
        raise DataSourceError(message) from error


def _label_feature(builder: tfds.core.DatasetBuilder) -> tfds.features.FeatureConnector:
    keys = builder.info.supervised_keys
    if keys is None or not isinstance(keys[1], str):
        message = (
            "The dataset must have one input and one label (supervised keys). "
            f"Received: {builder.name!r} with the features {sorted(builder.info.features)}. "
            "Save pairs (x, y) of it with tf.data.Dataset.save and pass that folder."
        )
        raise DataSourceError(message)
    return builder.info.features[keys[1]]


def _check_split(builder: tfds.core.DatasetBuilder, split: str) -> int:
    """Return the number of examples of a split."""
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        message = (
            f"The split must be one that {builder.name!r} has: {sorted(builder.info.splits)}, or "
            f"a part of one, such as train[:10%]. Received: {split!r}."
        )
        raise DataSourceError(message) from error
    if count == 0:
        message = (
            f"The split must hold at least one example. Received: {split!r} of {builder.name!r}, "
            "which is empty. Choose another split."
        )
        raise DataSourceError(message)
    return count
