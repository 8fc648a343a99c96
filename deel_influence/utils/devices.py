"""Choosing where computations run."""

from __future__ import annotations

import tensorflow as tf


def check_device(device: str | None) -> str | None:
    """Return ``device`` if TensorFlow has it; None leaves the placement to TensorFlow.

    Parameters
    ----------
    device
        As for `tf.device`: ``"/GPU:0"``, ``"gpu:0"``, or a kind, of which the first is taken.

    Raises
    ------
    ValueError
        If there is no such device. (`tf.device` would compute on the CPU, and not say so.)
    """
    if device is None:
        return None
    available = [d.name for d in tf.config.list_logical_devices()]
    wanted = str(device).upper().rpartition("/")[2].removeprefix("DEVICE:")
    names = [name.upper().removeprefix("/DEVICE:") for name in available]
    if wanted not in names and f"{wanted}:0" not in names:
        message = (
            f"Argument `device` must be None or one of {available}, or its kind alone. Received: "
            f"device={device!r}. Leave it out: the first GPU is taken then, where there is one."
        )
        raise ValueError(message)
    return device
