"""Small networks in NumPy, float64, written out by hand: nothing of a library that is measured.

A dense network is a list of ``(kernel (i, o), bias (o,))``. Between two layers stands an
activation, ``"relu"`` or ``"tanh"``; the loss is the softmax cross-entropy of integer labels. Flat
vectors hold, layer by layer, the kernel row by row and then the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Layers: TypeAlias = Sequence[tuple[np.ndarray, np.ndarray]]


def draw_layers(widths: Sequence[int], generator: np.random.Generator) -> list:
    """Return layers of random weights, scaled by the number of inputs."""
    shapes = zip(widths[:-1], widths[1:], strict=True)
    return [(generator.normal(0, np.sqrt(2 / i), (i, o)), np.zeros(o)) for i, o in shapes]


def flat(layers: Layers) -> np.ndarray:
    """Return all numbers of layers, shape ``(p,)``."""
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def unflat(vector: np.ndarray, layers: Layers) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a flat vector ``(p,)`` as arrays of the shapes of layers."""
    parts = [part for layer in layers for part in layer]
    ends = np.cumsum([part.size for part in parts])[:-1]
    found = [v.reshape(p.shape) for v, p in zip(np.split(vector, ends), parts, strict=True)]
    return list(zip(found[::2], found[1::2], strict=True))


def forward(layers: Layers, x: np.ndarray, activation: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Return what each layer reads, ``(n, i)``, and the logits ``(n, c)``."""
    inputs = [np.asarray(x, np.float64)]
    for kernel, bias in layers[:-1]:
        z = inputs[-1] @ kernel + bias
        inputs.append(np.maximum(z, 0) if activation == "relu" else np.tanh(z))
    return inputs, inputs[-1] @ layers[-1][0] + layers[-1][1]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, shape ``(n, c)``."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the loss of each example, shape ``(n,)``."""
    return -np.log(softmax(logits)[np.arange(len(y)), y])


def loss_slopes(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the derivative of each example's loss in its logits, shape ``(n, c)``."""
    return softmax(logits) - np.eye(logits.shape[1])[y]


def margin_slopes(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the derivative of ``log(π_y / (1 - π_y))`` in the logits, shape ``(n, c)``."""
    label = np.eye(logits.shape[1])[y]
    return label - softmax(np.where(label == 1, -np.inf, logits))


def activation_slopes(outputs: np.ndarray, activation: str) -> np.ndarray:
    """Return the derivative of an activation, told by what it gave."""
    return (outputs > 0).astype(np.float64) if activation == "relu" else 1 - outputs**2


def backward(
    layers: Layers, inputs: Sequence[np.ndarray], slopes: np.ndarray, activation: str
) -> list[np.ndarray]:
    """Return the derivatives in what each layer gives before its activation, ``(n, o)`` each.

    Parameters
    ----------
    layers, activation
        The network.
    inputs
        What each layer reads.
    slopes
        The derivatives in the logits, shape ``(n, c)``.
    """
    deltas = [slopes]
    for (kernel, _), read in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        deltas.append(deltas[-1] @ kernel.T * activation_slopes(read, activation))
    return deltas[::-1]


def with_one(inputs: np.ndarray) -> np.ndarray:
    """Return inputs ``(n, i)`` extended by the constant that the bias multiplies."""
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)


def mean_gradient(layers: Layers, x: np.ndarray, y: np.ndarray, activation: str) -> np.ndarray:
    """Return the gradient of the mean loss, shape ``(p,)``."""
    return rows_of_gradients(layers, x, y, activation).mean(axis=0)


def rows_of_gradients(layers: Layers, x: np.ndarray, y: np.ndarray, activation: str) -> np.ndarray:
    """Return the gradient of each example's loss, shape ``(n, p)``."""
    inputs, logits = forward(layers, x, activation)
    deltas = backward(layers, inputs, loss_slopes(logits, y), activation)
    parts = []
    for read, delta in zip(inputs, deltas, strict=True):
        parts += [(read[:, :, None] * delta[:, None, :]).reshape(len(read), -1), delta]
    return np.concatenate(parts, axis=1)


def hessian_product(
    layers: Layers, x: np.ndarray, y: np.ndarray, activation: str, vector: np.ndarray
) -> np.ndarray:
    """Return the Hessian of the mean loss times a vector ``(p,)``, by tangents of both passes."""
    inputs, logits = forward(layers, x, activation)
    deltas = backward(layers, inputs, loss_slopes(logits, y) / len(y), activation)
    along = unflat(vector, layers)
    tangents = [np.zeros_like(inputs[0])]
    for i, ((kernel, _), (v, bias_v)) in enumerate(zip(layers, along, strict=True)):
        z = tangents[i] @ kernel + inputs[i] @ v + bias_v
        if i + 1 < len(layers):
            tangents.append(z * activation_slopes(inputs[i + 1], activation))
    pi = softmax(logits)
    tangent = pi * (z - (pi * z).sum(axis=1, keepdims=True)) / len(y)
    products = []
    for i in reversed(range(len(layers))):
        (kernel, _), (v, _), read = layers[i], along[i], inputs[i]
        product = tangents[i].T @ deltas[i] + read.T @ tangent
        products.append((product, tangent.sum(axis=0)))
        if i:
            tangent = (tangent @ kernel.T + deltas[i] @ v.T) * activation_slopes(read, activation)
            if activation == "tanh":
                tangent -= 2 * read * tangents[i] * (deltas[i] @ kernel.T)
    return flat(products[::-1])
