"""The digits of the demonstration, with flipped labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from ..datasets.digits.scikit_learn import read_scikit_learn
from ..datasets.label_noise import flip_labels
from ..utils.files import replacing
from .errors import CommandError

_CLASSES = 10


@dataclass(frozen=True, eq=False)
class NoisyDigits:
    """The n digits, some with a wrong label.

    Attributes
    ----------
    images
        Images, shape ``(n, 8, 8, 1)``, uint8.
    labels
        Labels to train on, shape ``(n,)``, int64.
    flipped
        Which of the labels are wrong, shape ``(n,)``, bool.
    """

    images: np.ndarray
    labels: np.ndarray
    flipped: np.ndarray


def noisy_digits(fraction: float, seed: int) -> NoisyDigits:
    """Return the digits with a share ``fraction`` of their labels flipped.

    Raises
    ------
    CommandError
        If the share leaves nothing to find, or nothing to learn from.
    MissingExtraError
        If scikit-learn is not installed.
    """
    images, true_labels = read_scikit_learn()
    # Written so that NaN is refused as well, which cannot be rounded.
    if not 0.0 < fraction < 1.0 or not 0 < round(fraction * len(true_labels)) < len(true_labels):
        message = (
            "--fraction must be a share that flips some labels and not all (a tenth is 0.1). "
            f"Received: {fraction:g}."
        )
        raise CommandError(message)
    labels, flipped = flip_labels(true_labels, fraction, num_classes=_CLASSES, seed=seed)
    return NoisyDigits(images, labels, flipped)


def save_for_triage(digits: NoisyDigits, network: keras.Model, folder: Path) -> tuple[Path, Path]:
    """Write ``model.keras`` and ``digits.npz``, as ``deel-influence triage`` takes them.

    Parameters
    ----------
    digits
        The training set.
    network
        The network trained on it.
    folder
        Where to write.
    """
    model_path, data_path = folder / "model.keras", folder / "digits.npz"
    with replacing(model_path) as temporary:
        network.save(temporary)
    with replacing(data_path) as temporary:
        np.savez_compressed(
            temporary,
            x=digits.images,
            y=digits.labels,
            class_names=[str(digit) for digit in range(_CLASSES)],
        )
    return model_path, data_path
