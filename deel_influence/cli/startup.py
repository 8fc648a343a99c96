"""What every command does first."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ..extras import require

_STDERR = 2


def set_up_logging(verbose: bool) -> bool:
    """Show with ``verbose`` what the library logs, the tracebacks of user errors among it.

    The option calls it, before the others are read, and takes what it returns.
    """
    if verbose:
        logging.basicConfig()
        logging.getLogger("deel_influence").setLevel(logging.DEBUG)
    return verbose


def check_packages(command: str, **packages: str) -> None:
    """Refuse a command without the packages that it needs, before anything is computed.

    Parameters
    ----------
    command
        Name of the command.
    packages
        For each package the extra that installs it.

    Raises
    ------
    MissingExtraError
        If one is not installed.
    """
    for package, extra in packages.items():
        require(package, extra, f"The command `{command}` needs")


def start(seed: int, verbose: bool) -> None:
    """Load TensorFlow, without its notes unless ``verbose``, and seed all random numbers.

    It takes seconds; what is wrong with the options is said before.

    Parameters
    ----------
    seed
        Seed of Python's, NumPy's and TensorFlow's random numbers.
    verbose
        Show TensorFlow's notes.
    """
    if verbose:
        _load_tensorflow(seed)
    else:
        # What its native code calls an error and goes on after is no news for a user; what
        # stops it arrives as an exception.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with _stderr_held_back():
            _load_tensorflow(seed)


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
