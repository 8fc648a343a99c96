"""The back end of Keras that the library needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import BackendError


def check_backend() -> None:
    """Refuse another back end of Keras than TensorFlow, without importing Keras.

    Raises
    ------
    BackendError
        If Keras is imported with another back end, or the environment asks for one.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        name = os.environ.get("KERAS_BACKEND", "tensorflow")
    else:
        name = keras.config.backend()
    if name != "tensorflow":
        message = (
            "deel_influence needs Keras to run on the TensorFlow back end. Received: "
            f"{name!r}. Set the environment variable KERAS_BACKEND=tensorflow before Keras is "
            "imported, or change ~/.keras/keras.json."
        )
        raise BackendError(message)


def is_command_line() -> bool:
    """Tell whether this process was started as the command line, which says errors in one line."""
    return any(
        "deel_influence.cli" in part or Path(part).name == "deel-influence"
        for part in sys.orig_argv
    )
