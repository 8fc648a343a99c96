"""From the text that a user types to a training set."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import keras

from ..errors import DataSourceError
from .image_folder import ImageShape, load_image_folder, shape_taken_by
from .npz import load_npz
from .saved_dataset import is_saved_dataset, load_saved_dataset
from .source import DataSource, check_batch_size
from .table import SUFFIXES, Columns, load_table

_KINDS = (
    "`tfds:NAME[:SPLIT]`, an `.npz` file with `x` and `y`, a `.csv` or `.parquet` table, a folder "
    "with one sub-folder of images per class, or a folder written by `tf.data.Dataset.save`"
)
# Two letters at least: `C:\data` is a path.
_USUAL = Columns()
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")


def load_source(
    source: str | os.PathLike[str],
    batch_size: int = 256,
    image_shape: ImageShape | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    columns: Columns = _USUAL,
    model: keras.Model | None = None,
    class_names: Sequence[str] | None = None,
) -> DataSource:
    """Load a training set from one of five kinds of source.

    ``tfds:NAME[:SPLIT]``
        A dataset of TensorFlow Datasets, split ``train`` by default. ``tfds:digits`` and datasets
        that were prepared before need no network.
    ``FILE.npz``
        Arrays ``x`` and ``y`` (or ``x_train`` and ``y_train``), numbers or texts, and optionally
        ``ids`` (or ``id``), ``class_names`` and ``feature_names``. Pickled objects are refused.
    ``FILE.csv``, ``FILE.parquet``
        A table with a row for each example; see ``columns``. Labels that are texts are numbered in
        sorted order.
    a folder of images
        One sub-folder per class, classes and files in sorted order, as in
        `keras.utils.image_dataset_from_directory`; the file names are the ids.
    a folder written by `tf.data.Dataset.save`
        Elements ``(x, y)``, single examples or batches.

    Values are passed on as they are stored: no pixel is rescaled.

    Parameters
    ----------
    source
        What to load, as above.
    batch_size
        Examples in a batch b; the last batch may be smaller.
    image_shape
        Shape ``(height, width, channels)`` of the images of a folder; None takes that of the model,
        and without one, or with None in a place, that of the first image. The other kinds of source
        have their shapes.
    data_dir
        Folder of the datasets that TensorFlow Datasets prepared; None means its default
        (``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``).
    columns
        Names of the columns of a table: its label, id and text; by default those called so, and all
        others are inputs.
    model
        The model that a table or images are for: by the names of its inputs, columns are handed to
        it.
    class_names
        The names of the classes 0, 1, ..., for labels that are texts or folders; None takes what
        the source says, or sorts them. Of the queries, they have to be those of the training set.

    Raises
    ------
    TypeError
        If the source is neither text nor path.
    DataSourceError
        If the source is unknown, missing, corrupt, empty or of the wrong form.
    MissingExtraError
        If TensorFlow Datasets is asked for and cannot be imported.
    """
    check_batch_size(batch_size)
    names = None if class_names is None else tuple(str(name) for name in class_names)
    if not isinstance(source, (str, os.PathLike)):
        message = (
            f"Argument `source` must be a text or a path, one of: {_KINDS}. Received: "
            f"{type(source).__name__}. From arrays: "
            "tf.data.Dataset.from_tensor_slices((x, y)).batch(128)."
        )
        raise TypeError(message)
    source = os.fspath(source)
    if source.startswith("tfds:"):
        from .tfds_source import load_tfds  # TensorFlow Datasets is loaded where it is asked for.

        name, _, split = source.removeprefix("tfds:").partition(":")
        return load_tfds(name, split or "train", batch_size, data_dir)
    path = Path(source).expanduser()
    if not path.exists():
        raise DataSourceError(_missing(source))
    if is_saved_dataset(path):
        return load_saved_dataset(path, batch_size)
    if path.is_dir():
        shape = image_shape or shape_taken_by(model)
        return load_image_folder(path, batch_size, shape, names)
    if path.suffix.lower() == ".npz":
        return load_npz(path, batch_size, names)
    if path.suffix.lower() in SUFFIXES:
        return load_table(path, batch_size, columns, model, names)
    message = (
        f"The data source must be one of: {_KINDS}. "
        f"Received: {source!r}, a file with the ending {path.suffix!r}. "
        "Save its arrays with np.savez(FILE, x=x, y=y)."
    )
    raise DataSourceError(message)


def _missing(source: str) -> str:
    scheme = _SCHEME.match(source)
    if scheme:
        return (
            f"The data source must be one of: {_KINDS}. "
            f"Received: {source!r}, whose scheme {scheme.group(1)!r} is unknown. "
            "The only scheme is `tfds:`; write files and folders as plain paths."
        )
    return (
        f"The data source must exist. Received: {source!r}, and there is no such file or folder. "
        f"Check the path; a source is one of: {_KINDS}."
    )
