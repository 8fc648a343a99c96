"""What the reproductions of the MNIST figures of Koh & Liang (2017) share: data, model, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from evidence import load_data

SOURCE = (
    "P. W. Koh, P. Liang. Understanding Black-box Predictions via Influence Functions. ICML 2017. "
    "https://arxiv.org/abs/1703.04730"
)

POSITIVE, NEGATIVE = 1, 7
"""The digits of the figures with two classes."""


class Images(NamedTuple):
    """Images of values from 0 to 1, shape ``(n, pixels)``, float32, and their labels ``(n,)``."""

    x: np.ndarray
    y: np.ndarray

    def batches(self, batch_size: int = 1000) -> tf.data.Dataset:
        """Return the images as a batched dataset, in their order."""
        return tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(batch_size)

    def one(self, position: int) -> Images:
        """Return the image at a position, shape ``(1, pixels)``, with its label ``(1,)``."""
        return Images(self.x[position : position + 1], self.y[position : position + 1])


def read_mnist(
    data_dir: Path | None, num_validation: int, stride: int = 1
) -> tuple[Images, Images]:
    """Return training and test images of MNIST.

    Parameters
    ----------
    data_dir
        Where ``mnist.npz`` is; None downloads it by Keras.
    num_validation
        How many of the first training images are left out. The authors leave out 5,000, so that
        55,000 remain.
    stride
        Every how many rows and columns of pixels one is kept; 1 keeps all 784 pixels.
    """
    arrays = load_data("mnist", data_dir)

    def images(split: str, start: int) -> Images:
        pixels = arrays[f"x_{split}"][start:, ::stride, ::stride]
        x = pixels.reshape(len(pixels), -1).astype(np.float32) / 255
        return Images(x, arrays[f"y_{split}"][start:].astype(np.int32))

    return images("train", num_validation), images("test", 0)


def ones_and_sevens(images: Images, multiple_of: int = 1) -> Images:
    """Return the ones, with label +1, and the sevens, with label -1, in their order.

    Parameters
    ----------
    images
        Images of all digits.
    multiple_of
        The last images are left out, so that the number of images is a multiple of this.
    """
    positions = np.flatnonzero(np.isin(images.y, (POSITIVE, NEGATIVE)))
    positions = positions[: len(positions) // multiple_of * multiple_of]
    labels = np.where(images.y[positions] == POSITIVE, 1, -1).astype(np.int32)
    return Images(images.x[positions], labels)


def linear_classifier(
    num_inputs: int, num_outputs: int, weight_decay: float, dtype: str = "float32"
) -> keras.Model:
    """Return a linear model without bias, whose objective has ``weight_decay · ½‖w‖²``."""
    return keras.Sequential(
        [
            keras.Input((num_inputs,), dtype=dtype),
            keras.layers.Dense(
                num_outputs,
                use_bias=False,
                kernel_initializer="zeros",
                kernel_regularizer=keras.regularizers.L2(weight_decay / 2),
                dtype=dtype,
            ),
        ]
    )


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the values of largest magnitude, the largest first."""
    return np.argsort(-np.abs(values), kind="stable")[:count]


def six_digits(values: np.ndarray) -> list[float]:
    """Return values ``(k,)`` as JSON keeps them, to six digits."""
    return [float(f"{value:.6g}") for value in values]


def plot_prediction(axes: Any, predicted: np.ndarray, actual: np.ndarray, title: str) -> None:
    """Draw actual over predicted changes of loss, with the diagonal on which they agree."""
    axes.scatter(predicted, actual, s=8, alpha=0.6)
    low, high = min(predicted.min(), actual.min()), max(predicted.max(), actual.max())
    axes.plot([low, high], [low, high], color="black", linewidth=0.8)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("predicted change of loss")
    axes.set_ylabel("actual change of loss")
    axes.ticklabel_format(style="sci", scilimits=(-2, 2))
