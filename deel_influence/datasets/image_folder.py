"""Training sets of image files, one sub-folder per class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from ..errors import DataSourceError
from ..utils.example_ids import with_names
from .source import DataSource, Rows, batched

ImageShape: TypeAlias = tuple[int | None, int | None, int | None]
"""``(height, width, channels)``; None is filled in from the first image."""

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
_LAYOUT = "FOLDER/CLASS/IMAGE with one sub-folder per class and images " + ", ".join(_SUFFIXES)


def load_image_folder(
    folder: Path,
    batch_size: int,
    image_shape: ImageShape | None = None,
    class_names: tuple[str, ...] | None = None,
) -> DataSource:
    """Load a folder of images as batches ``(images (b, height, width, channels), labels (b,))``.

    Classes and files are sorted by name, so that the position of an example identifies it. Images
    are float32 in 0..255, resized bilinearly as `keras.utils.image_dataset_from_directory` does.

    Parameters
    ----------
    folder
        The folder.
    batch_size
        Examples in a batch.
    image_shape
        Shape to resize to; None, or None in a place, means that of the first image.
    class_names
        The names of the classes in order; None takes the sub-folders.

    Raises
    ------
    DataSourceError
        If the folder holds no images in sub-folders, or a file is no image.
    """
    folders = sorted(entry.name for entry in _visible(folder) if entry.is_dir())
    class_names = tuple(folders) if class_names is None else class_names
    if unknown := sorted(set(folders) - set(class_names)):
        message = (
            f"The sub-folders of an image folder must be among the classes {list(class_names)}. "
            f"Received: {str(folder)!r} with {unknown[:3]}."
        )
        raise DataSourceError(message)
    files = [_image_files(folder / name) for name in class_names]
    paths = [path for of_class in files for path in of_class]
    if not paths:
        message = (
            f"The image folder must be laid out as {_LAYOUT}. "
            f"Received: {str(folder)!r} with {len(class_names)} sub-folders and no image in them. "
            "Move each class's images into a sub-folder of its own."
        )
        raise DataSourceError(message)
    labels = np.repeat(np.arange(len(files)), [len(of_class) for of_class in files])
    shape = _complete_shape(image_shape, paths[0])
    names = [str(path) for path in paths]

    def images(first: int, last: int) -> tf.data.Dataset:
        slices = tf.data.Dataset.from_tensor_slices((names[first:last], labels[first:last]))
        decoded = slices.map(
            lambda name, label: (_read_image(name, shape), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        found = batched(decoded, batch_size)
        return with_names(found, find_unreadable=lambda: unreadable_among(names[first:last]))

    return DataSource(
        name=folder.name,
        dataset=images(0, len(names)),
        ids=np.array([path.relative_to(folder).as_posix() for path in paths]),
        class_names=class_names,
        file_names=tuple(names),
        rows=Rows(len(names), batch_size, images),
    )


def shape_taken_by(model: Any) -> ImageShape | None:
    """Return the ``(height, width, channels)`` that ``model`` takes, or None if it takes others."""
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3, 4):
        return shape[1:]
    return None


def unreadable_among(file_names: Iterable[str]) -> DataSourceError | None:
    """Return the error that names the first image which cannot be decoded, if there is one."""
    for name in file_names:
        try:
            _decode(tf.io.read_file(name), channels=0)
        except tf.errors.OpError:
            return unreadable_image(name)
    return None


def _visible(folder: Path) -> list[Path]:
    # Folders such as `.ipynb_checkpoints` are no classes.
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    )


def _complete_shape(image_shape: ImageShape | None, first: Path) -> tuple[int, int, int]:
    try:
        found = tuple(_decode(tf.io.read_file(str(first)), channels=0).shape)
    except tf.errors.OpError as error:
        raise unreadable_image(str(first)) from error
    wanted = image_shape or (None, None, None)
    height, width, channels = (
        have if want is None else want for have, want in zip(found, wanted, strict=True)
    )
    return height, width, channels


def unreadable_image(file_name: str) -> DataSourceError:
    """Return the error that names an image file which cannot be decoded."""
    message = (
        "Every image must be a readable BMP, GIF, JPEG or PNG file. "
        f"Received: {file_name!r}, which cannot be decoded. Repair it or remove it."
    )
    return DataSourceError(message)


def _read_image(name: tf.Tensor, shape: tuple[int, int, int]) -> tf.Tensor:
    height, width, channels = shape
    image = tf.image.resize(_decode(tf.io.read_file(name), channels), (height, width))
    image.set_shape(shape)
    return image


def _decode(content: tf.Tensor, channels: int) -> tf.Tensor:
    # The first frame stands for an animation.
    return tf.io.decode_image(content, channels=channels, expand_animations=False)
