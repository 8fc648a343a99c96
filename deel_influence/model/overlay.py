"""Attributes of layers that are others for a while, so that calls can be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

TRACING = threading.RLock()
"""Held while layers are overlaid: two traces of one model would see each other's overlays."""


@contextmanager
def overlaid(layer: keras.layers.Layer, name: str, value: Any) -> Iterator[None]:
    """Shadow an attribute of the instance for a while.

    The instance dictionary is written directly, because assigning to the layer would let Keras
    track, and so keep, what is assigned.
    """
    attributes = vars(layer)
    present = name in attributes
    before = attributes.get(name)
    attributes[name] = value
    try:
        yield
    finally:
        if present:
            attributes[name] = before
        else:
            del attributes[name]
