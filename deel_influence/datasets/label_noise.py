"""Label noise whose truth is known, to measure how well wrong labels are found."""

from __future__ import annotations

import numpy as np


def flip_labels(
    labels: np.ndarray, fraction: float, num_classes: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Replace a share of the labels by other classes, drawn once and uniformly.

    Parameters
    ----------
    labels
        Integer class labels, shape ``(n,)``; they are left as they are.
    fraction
        Share of the labels to flip, from 0 to 1; exactly ``round(fraction * n)`` are.
    num_classes
        Number c of classes; None means the largest label plus one.
    seed
        Seed of the draw: the same seed flips the same labels to the same classes.

    Returns
    -------
    The labels with noise, shape ``(n,)``, and a mask of the flipped ones, shape ``(n,)``, bool.

    Raises
    ------
    ValueError
        If the labels are no integer classes below c, or the fraction is no share.
    """
    labels = _check_labels(labels)
    num_classes = _check_num_classes(labels, num_classes)
    if not 0.0 <= fraction <= 1.0:
        message = (
            "Argument `fraction` must be a share from 0 to 1 (a tenth is 0.1). "
            f"Received: fraction={fraction!r}."
        )
        raise ValueError(message)
    generator = np.random.default_rng(seed)
    flipped = generator.choice(len(labels), size=round(fraction * len(labels)), replace=False)
    # A step of 1 to c - 1 around the circle of classes reaches each of the others, and only them.
    steps = generator.integers(1, num_classes, size=len(flipped))
    noisy = labels.copy()
    noisy[flipped] = (labels[flipped].astype(np.int64) + steps) % num_classes
    mask = np.zeros(len(labels), dtype=bool)
    mask[flipped] = True
    return noisy, mask


def _check_labels(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1:
        remedy = (
            "Turn one-hot labels into classes with np.argmax(labels, axis=1)."
            if labels.ndim == 2 and labels.shape[1] > 1
            else "Flatten them with np.ravel(labels)."
        )
        message = (
            "Argument `labels` must hold one integer class per example, shape (n,). "
            f"Received: shape {labels.shape}. {remedy}"
        )
        raise ValueError(message)
    if labels.dtype.kind not in "iu":
        message = (
            f"Argument `labels` must be of an integer dtype. Received: dtype {labels.dtype}. "
            "Number the classes with np.unique(labels, return_inverse=True)[1]."
        )
        raise ValueError(message)
    if labels.size == 0:
        message = "Argument `labels` must hold at least one label. Received: shape (0,)."
        raise ValueError(message)
    return labels


def _check_num_classes(labels: np.ndarray, num_classes: int | None) -> int:
    lowest, highest = int(labels.min()), int(labels.max())
    if num_classes is None:
        num_classes = highest + 1
    if lowest < 0 or highest >= num_classes:
        message = (
            f"Argument `labels` must lie in 0..{num_classes - 1} for {num_classes} classes. "
            f"Received: labels from {lowest} to {highest}. "
            "Renumber them, or pass the right `num_classes`."
        )
        raise ValueError(message)
    if num_classes < 2:
        message = (
            "Argument `num_classes` must be at least 2, or there is no other class to flip to. "
            f"Received: num_classes={num_classes}."
        )
        raise ValueError(message)
    return num_classes
