"""Arrays as pictures inside a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Larger pictures are shrunk: the page shows them smaller than this, and has to stay light.
MAX_SIDE = 224
_CHANNELS = (1, 3, 4)
_MIN_MATRIX_SIDE = 4


def is_picture(sample: Any) -> bool:
    """Tell whether an input can be drawn: ``(h, w)``, or ``(h, w, c)`` with c = 1, 3 or 4."""
    if not isinstance(sample, np.ndarray) or sample.dtype.kind not in "biuf" or sample.size == 0:
        return False
    if sample.ndim == 2:
        return min(sample.shape) >= _MIN_MATRIX_SIDE
    return sample.ndim == 3 and sample.shape[2] in _CHANNELS


def picture_uris(pictures: Sequence[np.ndarray]) -> list[str]:
    """Encode pictures as PNG data URIs.

    Parameters
    ----------
    pictures
        Arrays ``(h, w)`` or ``(h, w, c)`` of any numeric dtype, in any range. The range over all
        of them is stretched to that from black to white, so that they stay comparable; a fourth
        channel is opacity, from 0 to its largest value.
    """
    arrays = [_with_channels(picture) for picture in pictures]
    low = min(float(_colours(array).min()) for array in arrays)
    high = max(float(_colours(array).max()) for array in arrays)
    return [_data_uri(_to_bytes(array, low, high)) for array in arrays]


def _with_channels(picture: np.ndarray) -> np.ndarray:
    array = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    return array[:, :, np.newaxis] if array.ndim == 2 else array


def _colours(array: np.ndarray) -> np.ndarray:
    return array[:, :, :3]


def _to_bytes(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return a picture ``(h, w, c)`` in uint8, from its colours between ``low`` and ``high``."""
    scaled = (array - low) / ((high - low) or 1.0)
    if array.shape[2] == 4:
        opacity = array[:, :, 3]
        scaled[:, :, 3] = opacity / (float(opacity.max()) or 1.0)
    larger = max(array.shape[:2])
    if larger > MAX_SIDE:
        size = [max(1, round(side * MAX_SIDE / larger)) for side in array.shape[:2]]
        scaled = tf.image.resize(scaled, size, method="area").numpy()
    return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


def _data_uri(pixels: np.ndarray) -> str:
    png = tf.io.encode_png(pixels, compression=6).numpy()
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
