"""Plots of influential images."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..linalg.checks import check_count
from ..utils.display import is_picture_file, read_picture
from ..utils.figures import finish, new_figure
from .examples import Examples, query_title, read_examples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches above an image for its title of two lines.
_TITLE_HEIGHT = 0.5


def plot_most_influential_images(
    influential_images: Sequence[Any],
    cols: int = 5,
    img_size: float = 2.0,
    save_path: str | os.PathLike[str] | None = None,
    *,
    ids: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    display: Any = None,
    show: bool = False,
) -> Figure:
    """Draw images with their scores in a grid.

    Parameters
    ----------
    influential_images
        ``(images, values)`` or ``(images, values, ids)``, as
        `compute_top_k_from_training_dataset` returns them: images ``(k, h, w)`` or
        ``(k, h, w, c)`` with c = 1, 3 or 4, in any range, and scores ``(k,)`` or None.
    cols
        Images in a row.
    img_size
        Width of an image, in inches.
    save_path
        A file to write as well.
    ids
        Ids of the images, where ``influential_images`` holds none.
    labels
        Labels of the images: classes, one-hot rows, or anything that can be printed.
    class_names
        What the classes 0, 1, ... are called.
    display
        What to draw in place of the samples: k paths of files, images ``(k, h, w, c)``, or a
        function of the samples that returns such.
    show
        Whether to show the figure as well.

    Returns
    -------
    The figure, with one pair of axes for each image.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    examples = read_examples(
        influential_images, "influential_images", ids, labels, class_names, display
    )
    images = [_drawable(image) for image in examples.samples]
    rows = math.ceil(len(images) / check_count("cols", cols))
    figure = new_figure(*_size(images[0], rows, cols, img_size))
    _draw_grid(figure, images, examples, rows, cols, first_cell=1, scale=_range_of(images))
    return finish(figure, save_path, show)


def plot_datacentric_explanations(
    image: Any,
    explanations: Sequence[Any],
    cols: int = 5,
    img_size: float = 2.0,
    save_path: str | os.PathLike[str] | None = None,
    *,
    image_id: Any = None,
    image_label: Any = None,
    ids: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    display: Any = None,
    show: bool = False,
) -> Figure:
    """Draw an image and, below it, the training images that matter most to it.

    Parameters
    ----------
    image
        The image to explain, shape ``(h, w)`` or ``(h, w, c)``, or the path of its file.
    explanations
        Its influential images, as in `plot_most_influential_images`; of a batch of `top_k`, the
        row of the query.
    cols, img_size, save_path
        As for `plot_most_influential_images`.
    image_id, image_label
        Id and label of the image to explain.
    ids, labels, class_names, display, show
        As for `plot_most_influential_images`.

    Returns
    -------
    The figure, with the axes of the image first.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    examples = read_examples(explanations, "explanations", ids, labels, class_names, display)
    query = _drawable(read_picture(Path(image)) if is_picture_file(image) else image)
    images = [_drawable(sample) for sample in examples.samples]
    scale = _range_of([query, *images])
    rows = 1 + math.ceil(len(images) / check_count("cols", cols))
    figure = new_figure(*_size(query, rows, cols, img_size))
    axes = figure.add_subplot(rows, cols, 1)
    _draw(axes, query, query_title(image_id, image_label, class_names), scale)
    _draw_frame(axes)
    _draw_grid(figure, images, examples, rows, cols, first_cell=cols + 1, scale=scale)
    return finish(figure, save_path, show)


def _draw_grid(
    figure: Figure,
    images: Sequence[np.ndarray],
    examples: Examples,
    rows: int,
    cols: int,
    first_cell: int,
    scale: tuple[float, float],
) -> None:
    for index, image in enumerate(images):
        axes = figure.add_subplot(rows, cols, first_cell + index)
        _draw(axes, image, examples.title(index), scale)


def _draw_frame(axes: Axes) -> None:
    """Mark the image that is explained."""
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for edge in axes.spines.values():
        edge.set(color="C1", linewidth=2.5)


def _draw(axes: Axes, image: np.ndarray, title: str, scale: tuple[float, float]) -> None:
    low, high = scale
    scaled = (image - low) / ((high - low) or 1.0)
    if image.ndim == 3 and image.shape[2] == 4:
        opacity = image[:, :, 3]
        scaled[:, :, 3] = opacity / (opacity.max() or 1.0)
    drawn = np.clip(np.nan_to_num(scaled), 0.0, 1.0)
    axes.imshow(drawn, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    # A dollar sign in a label is no formula.
    axes.set_title(title, fontsize="small", parse_math=False)
    axes.set_axis_off()


def _drawable(image: Any) -> np.ndarray:
    """Return an image as float64, shape ``(h, w)`` or ``(h, w, c)`` with c = 3 or 4."""
    array = np.asarray(image, dtype=np.float64)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (3, 4)):
        message = (
            "Argument `images` must have the shape (h, w) or (h, w, c) with c = 1, 3 or 4 each. "
            f"Received: {array.shape}. Reshape flat ones, or select three channels."
        )
        raise ValueError(message)
    return array


def _range_of(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return what is drawn black and white: the range over all images, which stay comparable."""
    colours = [np.ravel(i if i.ndim == 2 else i[:, :, :3]) for i in images]
    values = np.concatenate(colours)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def _size(image: np.ndarray, rows: int, cols: int, img_size: float) -> tuple[float, float]:
    height, width = image.shape[:2]
    return cols * img_size, rows * (img_size * height / width + _TITLE_HEIGHT)
