"""Choosing where computations run."""

from __future__ import annotations

import tensorflow as tf


def check_device(device: str | None) -> str | None:
    """Return ``device`` if TensorFlow has it; None leaves the placement to TensorFlow.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    if device is None:
        return None
    available = [d.name.replace("physical_device:", "") for d in tf.config.list_logical_devices()]
    wanted = str(device).upper().removeprefix("/").removeprefix("DEVICE:")
    if wanted not in [name.upper().removeprefix("/DEVICE:") for name in available]:
        message = (
            f"Argument `device` must be None or one of {available}, the number included. "
            f"Received: device={device!r}."
        )
        raise ValueError(message)
    return device
