"""The networks and the examples that all libraries are given, made once by NumPy from seeds.

A problem is a ``.npz`` file: ``kernel0, bias0, ...`` (float32, kernels as Keras has them), ``x (n,
...)``, ``y (n,)``, and ``queries (m, ...)``, ``query_labels (m,)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy_networks import backward, draw_layers, forward, loss_slopes

NUM_CLASSES = 10
STRIDES = (1, 2, 2)
"""Of the convolutions of the network of images."""

LEARNING_RATE, BATCH = 1e-3, 128


@dataclass(frozen=True)
class Problem:
    """A network with its examples.

    Attributes
    ----------
    name
        How works refer to it.
    title
        What the page calls it.
    activation
        Between two dense layers.
    arrays
        What the file holds.
    folder
        Where the file is, and where a library may keep what it fitted for its next process.
    """

    name: str
    title: str
    activation: str
    arrays: dict[str, np.ndarray]
    folder: Path | None = None

    def __getattr__(self, name: str) -> np.ndarray:
        """Return an array of the file."""
        try:
            return self.__dict__["arrays"][name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Kernels and biases, float32."""
        count = sum(name.startswith("kernel") for name in self.arrays)
        return [(self.arrays[f"kernel{i}"], self.arrays[f"bias{i}"]) for i in range(count)]

    def first(self, examples: int | None = None, queries: int | None = None) -> Problem:
        """Return the problem of the first examples and queries."""
        cut = {"x": examples, "y": examples, "queries": queries, "query_labels": queries}
        arrays = {name: a[: cut[name]] if name in cut else a for name, a in self.arrays.items()}
        return replace(self, arrays=arrays)


def classes_apart(
    shape: Sequence[int], count: int, separation: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return examples of noise around a centre for each class, most of which can be told apart."""
    labels = generator.integers(0, NUM_CLASSES, count)
    centres = generator.normal(size=(NUM_CLASSES, *shape))
    x = separation * centres[labels] + generator.normal(size=(count, *shape))
    return x.astype(np.float32), labels


def train(layers: list, x: np.ndarray, y: np.ndarray, activation: str, epochs: int) -> list:
    """Return the layers after epochs of Adam over batches in the order of the examples."""
    weights = [part for layer in layers for part in layer]
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for steps, start in enumerate(list(range(0, len(x), BATCH)) * epochs, start=1):
        batch, labels = x[start : start + BATCH], y[start : start + BATCH]
        paired = list(zip(weights[::2], weights[1::2], strict=True))
        inputs, logits = forward(paired, batch, activation)
        deltas = backward(paired, inputs, loss_slopes(logits, labels) / len(batch), activation)
        pairs = zip(inputs, deltas, strict=True)
        gradients = [part for a, d in pairs for part in (a.T @ d, d.sum(axis=0))]
        for weight, gradient, (mean, square) in zip(weights, gradients, moments, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient**2 - square)
            size = np.sqrt(square / (1 - 0.999**steps)) + 1e-8
            weight -= LEARNING_RATE * mean / (1 - 0.9**steps) / size
    return list(zip(weights[::2], weights[1::2], strict=True))


def _dense(
    widths: Sequence[int], counts: tuple[int, int], separation: float, epochs: int, activation: str
) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    x, y = classes_apart(widths[:1], sum(counts), separation, generator)
    end = counts[0]
    start = draw_layers(widths, generator)
    return _arrays(train(start, x[:end], y[:end], activation, epochs), x, y, end)


def _arrays(layers: list, x: np.ndarray, y: np.ndarray, end: int) -> dict[str, np.ndarray]:
    arrays = {"x": x[:end], "y": y[:end], "queries": x[end:], "query_labels": y[end:]}
    for i, (kernel, bias) in enumerate(layers):
        arrays |= {f"kernel{i}": kernel.astype(np.float32), f"bias{i}": bias.astype(np.float32)}
    return arrays


def _mlp() -> dict[str, np.ndarray]:
    return _dense((784, 256, 128, 10), (8192, 1024), 0.1, 2, "relu")


def _small() -> dict[str, np.ndarray]:
    return _dense((64, 128, 64, 10), (8192, 100), 0.3, 3, "tanh")


def _cnn() -> dict[str, np.ndarray]:
    """Draw a network whose weights are not trained, which norms do not ask for."""
    generator = np.random.default_rng(0)
    x, y = classes_apart((28, 28, 1), 2048, 0.1, generator)
    channels = [1, 16, 32, 64]
    layers = []
    for i, o in zip(channels[:-1], channels[1:], strict=True):
        kernel = generator.normal(0, np.sqrt(2 / (9 * i)), (3, 3, i, o))
        layers.append((kernel, np.zeros(o)))
    return _arrays([*layers, *draw_layers((64, NUM_CLASSES), generator)], x, y, len(x))


MADE_BY = (
    "settings.py",
    "problems.py",
    "references.py",
    "numpy_networks.py",
    "numpy_convolutions.py",
)
"""What problems and references depend on."""

TITLES: dict[str, tuple[str, str, Callable[[], dict[str, np.ndarray]]]] = {
    "mlp": ("MLP 784-256-128-10", "relu", _mlp),
    "small": ("MLP 64-128-64-10, tanh", "tanh", _small),
    "cnn": ("CNN 28 x 28, convolutions of 16, 32 and 64 channels, strides 1, 2, 2", "relu", _cnn),
}


def load_problem(name: str, folder: Path) -> Problem:
    """Return a problem, which is made and kept in the folder where it is not there yet."""
    title, activation, make = TITLES[name]
    folder = versioned(folder)
    path = folder / f"{name}.npz"
    if not path.exists():
        save_arrays(path, make())
    with np.load(path) as found:
        return Problem(name, title, activation, dict(found), folder)


def versioned(folder: Path) -> Path:
    """Return the folder within, where what this state of the code makes is kept."""
    here = Path(__file__).resolve().parent
    code = b"".join((here / name).read_bytes() for name in MADE_BY)
    return folder / hashlib.sha256(code).hexdigest()[:12]


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays to a file, which has its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    np.savez(part, **arrays)
    part.replace(path)
