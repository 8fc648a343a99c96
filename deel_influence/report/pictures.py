"""Arrays and files as pictures inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import require
from ..utils.display import read_picture

# Larger pictures are shrunk, because the page has to stay light.
MAX_SIDE = 320
# Smaller pictures are enlarged with sharp pixels, so that JPEG would show.
_SMALL_SIDE = 96
# Pictures of so few colours are drawings, which PNG keeps sharp and small.
_FEW_COLOURS = 64
_QUALITY = 85
_CHANNELS = (1, 3, 4)
_MIN_MATRIX_SIDE = 4
# The side of what stands for an example beside another one.
_THUMBNAIL_SIDE = 64


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI."""

    uri: str
    is_small: bool


def is_picture(sample: Any) -> bool:
    """Tell whether an input can be drawn: ``(h, w)``, or ``(h, w, c)`` with c = 1, 3 or 4."""
    if not isinstance(sample, np.ndarray) or sample.dtype.kind not in "biuf" or sample.size == 0:
        return False
    if sample.ndim == 2:
        return min(sample.shape) >= _MIN_MATRIX_SIDE
    return sample.ndim == 3 and sample.shape[2] in _CHANNELS


def draw_pictures(pictures: Sequence[np.ndarray]) -> list[Picture]:
    """Encode arrays as pictures: JPEG, or PNG where they are small, transparent or of few colours.

    Parameters
    ----------
    pictures
        Arrays ``(h, w)`` or ``(h, w, c)`` of any numeric dtype, in any range. The range over all
        of them is stretched to that from black to white, so that they stay comparable; a fourth
        channel is opacity, from 0 to its largest value.

    Raises
    ------
    MissingExtraError
        If Pillow is not installed.
    """
    arrays = [_with_channels(picture) for picture in pictures]
    low = min(float(_colours(array).min()) for array in arrays)
    high = max(float(_colours(array).max()) for array in arrays)
    return [_encode(_to_bytes(array, low, high)) for array in arrays]


def draw_file(path: Path) -> Picture:
    """Encode a file as a picture; see `read_picture` for what it raises."""
    return _encode(read_picture(path, MAX_SIDE))


def thinned(sample: Any) -> Any:
    """Return of a picture every so many pixels, as a thumbnail needs them; of others all."""
    if not is_picture(sample):
        return sample
    step = max(min(sample.shape[:2]) // _THUMBNAIL_SIDE, 1)
    return sample[::step, ::step]


def thumbnail(picture: Picture) -> Picture:
    """Return a picture small enough to stand for an example beside another one."""
    if picture.is_small:
        return picture
    file = io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))
    image = require("PIL.Image", "report", "Pictures need").open(file)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    return Picture(_as_uri(image, image.format.lower()), is_small=False)


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
    return np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)


def _encode(pixels: np.ndarray) -> Picture:
    """Encode a picture ``(h, w, c)`` in uint8."""
    if pixels.shape[2] == 4 and pixels[:, :, 3].min() == 255:
        pixels = pixels[:, :, :3]
    drawn = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    image = require("PIL.Image", "report", "Pictures need").fromarray(drawn)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    is_small = max(image.size) < _SMALL_SIDE
    # Pillow counts colours up to a number, and gives none where there are more.
    is_sharp = is_small or pixels.shape[2] == 4 or image.getcolors(_FEW_COLOURS) is not None
    kind = "png" if is_sharp else "jpeg"
    return Picture(_as_uri(image, kind), is_small)


def _as_uri(image: Any, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind, quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
