"""Attributes of layers that are others for a while, so that calls can be seen."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TRACING = threading.RLock()
"""Held while layers are overlaid, and by those who read what a layer computes."""


@contextmanager
def overlaid(layer: Any, name: str, value: Any, in_all_threads: bool = False) -> Iterator[None]:
    """Shadow an attribute of the instance for a while.

    The instance dictionary is written directly, because assigning to the layer would let Keras
    track, and so keep, what is assigned.

    Parameters
    ----------
    layer
        The layer, or model, or module.
    name
        Of the attribute.
    value
        What it is meanwhile.
    in_all_threads
        Whether a method is another in all threads. By default it is in this one: another may be
        in the middle of a prediction.
    """
    if callable(value) and not in_all_threads:
        value = _in_this_thread(value, getattr(layer, name))
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


def _in_this_thread(value: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    owner = threading.get_ident()

    @functools.wraps(value)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        function = value if threading.get_ident() == owner else original
        return function(*args, **kwargs)

    return chosen
