"""Gradients of the examples of a small convolutional network, in NumPy, float64, by patches.

The network: convolutions of 3 × 3 with padding to ``ceil(side / stride)`` positions, as Keras's
``"same"`` has it, each followed by a ReLU; then the mean over positions, and a dense layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy_networks import Layers, loss_slopes, losses

KERNEL = 3


def padding(side: int, stride: int) -> tuple[int, int]:
    """Return how many zeros stand before and after a row of ``side`` positions."""
    total = max((-(-side // stride) - 1) * stride + KERNEL - side, 0)
    return total // 2, total - total // 2


def patches(x: np.ndarray, stride: int) -> np.ndarray:
    """Return what each position reads, ``(n, t, 9·channels)``, of images ``(n, s, s, c)``."""
    n, side, _, channels = x.shape
    border = padding(side, stride)
    padded = np.pad(x, ((0, 0), border, border, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(n, -1, KERNEL * KERNEL * channels)


def from_patches(slopes: np.ndarray, shape: Sequence[int], stride: int) -> np.ndarray:
    """Return derivatives in images of a shape from those in their patches: the adjoint."""
    n, side, _, channels = shape
    before, after = padding(side, stride)
    wide = side + before + after
    out = -(-side // stride)
    summed = np.zeros((n, wide, wide, channels))
    parts = slopes.reshape(n, out, out, KERNEL, KERNEL, channels)
    reach = (out - 1) * stride + 1
    for i in range(KERNEL):
        for j in range(KERNEL):
            summed[:, i : i + reach : stride, j : j + reach : stride] += parts[:, :, :, i, j]
    return summed[:, before : before + side, before : before + side]


def forward_convolutions(
    layers: Layers, strides: Sequence[int], x: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], list[tuple[int, ...]], np.ndarray]:
    """Return the patches, the signs after each convolution, the shapes read, and the features."""
    image, read, masks, shapes = np.asarray(x, np.float64), [], [], []
    for (kernel, bias), stride in zip(layers, strides, strict=False):
        shapes.append(image.shape)
        read.append(patches(image, stride))
        z = read[-1] @ kernel.reshape(-1, kernel.shape[-1]) + bias
        masks.append(z > 0)
        out = -(-image.shape[1] // stride)
        image = np.maximum(z, 0).reshape(len(x), out, out, -1)
    return read, masks, shapes, image.mean(axis=(1, 2))


def gradients(
    layers: Layers, strides: Sequence[int], x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, Iterator[np.ndarray]]:
    """Return the losses ``(n,)``, and for each kernel and bias the gradients ``(n, ...)``.

    Parameters
    ----------
    layers
        Kernels ``(3, 3, c, o)`` of the convolutions and ``(i, o)`` of the dense layer, with biases.
    strides
        Of each convolution.
    x, y
        Images ``(n, side, side, c)`` and labels ``(n,)``.
    """
    read, masks, shapes, features = forward_convolutions(layers, strides, x)
    dense, bias = layers[-1]
    logits = features @ dense + bias

    def parts() -> Iterator[np.ndarray]:
        delta = loss_slopes(logits, y)
        yield features[:, :, None] * delta[:, None, :]
        yield delta
        positions = masks[-1].shape[1]
        slopes = np.repeat((delta @ dense.T / positions)[:, None], positions, axis=1)
        for i in reversed(range(len(strides))):
            slopes = slopes * masks[i]
            yield read[i].transpose(0, 2, 1) @ slopes
            yield slopes.sum(axis=1)
            kernel = layers[i][0].reshape(-1, layers[i][0].shape[-1])
            slopes = from_patches(slopes @ kernel.T, shapes[i], strides[i])
            slopes = slopes.reshape(len(x), -1, shapes[i][-1])

    return losses(logits, y), parts()
