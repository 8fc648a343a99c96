"""What every command does first."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import CommandError

_STDERR = 2


def start(seed: int, verbose: bool) -> None:
    """Load TensorFlow, without its notes unless ``verbose``, and seed all random numbers.

    Parameters
    ----------
    seed
        Seed of Python's, NumPy's and TensorFlow's random numbers.
    verbose
        Show TensorFlow's notes and the tracebacks of user errors.
    """
    if verbose:
        logging.basicConfig()
        logging.getLogger("deel_influence").setLevel(logging.DEBUG)
        _load_tensorflow(seed)
    else:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with _stderr_held_back():
            _load_tensorflow(seed)


def make_folder(path: Path) -> Path:
    """Return ``path``, made if it is missing.

    Raises
    ------
    CommandError
        If it is a file, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = (
            f"--out must be a folder that can be written. Received: {str(path)!r}, "
            f"which fails with: {error.strerror}."
        )
        raise CommandError(message) from error
    return path


def _load_tensorflow(seed: int) -> None:
    import keras
    import tensorflow as tf

    # The search for devices makes notes as well.
    tf.config.list_logical_devices()
    keras.utils.set_random_seed(seed)


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what is written to stderr, and show it only if the body fails.

    Native code notes on stderr which processor features it found, whatever the log level: the
    redirection has to be one of the process, not of `sys.stderr`.
    """
    sys.stderr.flush()
    saved = os.dup(_STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, _STDERR)
            os.close(saved)
