"""A small stand-in for MNIST: blurred patterns, and test images that belong to another class."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LABELS = np.array([1, 7, 1, 7, 0, 2, 3, 4, 5, 6, 8, 9])


def write_small_mnist(folder: Path, num_repeats: int = 6) -> Path:
    """Write ``mnist.npz`` of ``12 * num_repeats`` training images, and return the folder.

    The first test image, a one, is drawn with the pattern of the sevens, so that no model gets it
    right.
    """
    generator = np.random.default_rng(0)
    patterns = generator.integers(0, 256, size=(10, 28, 28))

    def images(labels: np.ndarray) -> np.ndarray:
        noise = generator.normal(scale=60, size=(len(labels), 28, 28))
        return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)

    y_train, y_test = np.tile(LABELS, num_repeats), np.tile(LABELS, 2)
    x_train, x_test = images(y_train), images(y_test)
    x_test[0] = images(np.array([7]))[0]
    np.savez(
        folder / "mnist.npz",
        x_train=x_train,
        y_train=y_train.astype(np.uint8),
        x_test=x_test,
        y_test=y_test.astype(np.uint8),
    )
    return folder


def arguments(folder: Path) -> list[str]:
    """Return the command line of a smoke run on the data in a folder."""
    return ["--form", "smoke", "--data-dir", str(folder), "--out", str(folder)]
