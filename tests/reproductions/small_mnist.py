"""Small stand-ins for MNIST, and the command line of a smoke run on them."""

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


def write_ten_classes(folder: Path, num_train: int = 60, num_test: int = 8) -> Path:
    """Write ``mnist.npz`` of noisy images of all ten digits in turn, and return the folder."""
    generator = np.random.default_rng(0)
    centres = generator.random((10, 28, 28))

    def images(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        pixels = 0.7 * centres[labels] + 0.3 * generator.random((count, 28, 28))
        return (255 * pixels).astype(np.uint8), labels.astype(np.uint8)

    (x_train, y_train), (x_test, y_test) = images(num_train), images(num_test)
    np.savez(folder / "mnist.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


def arguments(folder: Path) -> list[str]:
    """Return the command line of a smoke run on the data in a folder."""
    return ["--form", "smoke", "--data-dir", str(folder), "--out", str(folder)]
