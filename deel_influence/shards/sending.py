"""Calculators and models on their way to other processes."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from threading import Lock
from typing import Any

import tensorflow as tf

from ..calculators.self_influence import SelfInfluenceCalculator
from ..model.influence_model import BaseInfluenceModel


class SavedCalculator:
    """A calculator by the file that `save` wrote, which workers read.

    So a large fit does not travel with every shard.

    Parameters
    ----------
    path
        The file, where all workers find it.
    model
        The wrapped model, with the weights, loss and watched layers that the calculator had.
    """

    def __init__(self, path: str | Path, model: BaseInfluenceModel) -> None:
        self.path, self.model = path, model
        self._loaded: SelfInfluenceCalculator | None = None
        self._lock = Lock()

    def load(self, train_set: tf.data.Dataset) -> SelfInfluenceCalculator:
        """Return the calculator, loaded once.

        Parameters
        ----------
        train_set
            The part of the training set at hand.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or of another model; or if its strategy goes over all
            of the data.
        """
        with self._lock:
            if self._loaded is None:
                self._loaded = SelfInfluenceCalculator.load(self.path, self.model, train_set)
            return self._loaded

    def __reduce__(self) -> tuple:
        """Pickle the path and the model."""
        return SavedCalculator, (self.path, self.model)


_LOCK = Lock()
_LATEST: dict[str, Any] = {}
"""What a process received last, by its digest: it serves all shards, and is compiled once."""


class Sent:
    """An object for many tasks, pickled once and unpickled once in each process.

    Parameters
    ----------
    value
        The object.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        self._pickled: bytes | None = None
        self._lock = Lock()

    def get(self) -> Any:
        """Return the object."""
        return self._value

    def __reduce__(self) -> tuple:
        """Pickle the object, once."""
        with self._lock:
            if self._pickled is None:
                self._pickled = pickle.dumps(self._value)
            return Received, (self._pickled,)


class Received:
    """An object that came from another process, unpickled when it is first asked for.

    Parameters
    ----------
    pickled
        Its pickle.
    """

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def get(self) -> Any:
        """Return the object, the same one for all tasks of a run."""
        key = hashlib.sha256(self._pickled).hexdigest()
        with _LOCK:
            if key not in _LATEST:
                _LATEST.clear()
                _LATEST[key] = _unpickled(self._pickled)
            return _LATEST[key]

    def __reduce__(self) -> tuple:
        """Go on as it came."""
        return Received, (self._pickled,)


def _unpickled(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except (AttributeError, ImportError) as error:
        message = (
            "Argument `calculator` or `model` must be made of classes and functions that a worker "
            f"can import, and not of those of a notebook or `__main__`. Received: one that fails "
            f"with: {error}. Move them into a module."
        )
        raise ValueError(message) from error
