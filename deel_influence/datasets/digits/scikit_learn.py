"""Where the digits come from."""

from __future__ import annotations

import numpy as np

from ...extras import require


def read_scikit_learn() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits: images and labels as `load_digits_arrays` gives them.

    Raises
    ------
    MissingExtraError
        If scikit-learn is not installed.
    """
    datasets = require("sklearn.datasets", "demo", "The dataset `digits` needs")
    digits = datasets.load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return images[..., np.newaxis], digits.target
