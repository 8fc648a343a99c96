"""The weights of one model at several points of its training."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras

from ..errors import DataSourceError
from ..types import Batch
from .copies import (
    BuildFunction,
    assign_weights,
    check_same_outputs,
    copied,
    first_line,
)
from .fingerprint import weights_digest
from .finite import check_finite_weights
from .influence_model import BaseInfluenceModel, check_influence_model


class WeightSource(ABC):
    """Where one checkpoint's weights come from."""

    is_fixed: bool = True
    """Whether the weights stay the same, so that they need no second reading."""

    @abstractmethod
    def assign_to(self, model: keras.Model) -> None:
        """Give a model of the same form these weights."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest that tells these weights from others."""


class LiveWeights(WeightSource):
    """The weights that another model has at the moment.

    Parameters
    ----------
    model
        A wrapped model of the same form.
    """

    is_fixed = False

    def __init__(self, model: BaseInfluenceModel) -> None:
        self.model = model.model

    def assign_to(self, model: keras.Model) -> None:
        assign_weights(model, self.model)

    def fingerprint(self) -> str:
        return weights_digest(self.model)


class WeightFile(WeightSource):
    """Weights in a file that `keras.Model.load_weights` reads.

    Parameters
    ----------
    path
        A ``.weights.h5``, ``.keras`` or ``.h5`` file.
    digest
        What `weights_digest` has to give once they are loaded, where that is known.

    Raises
    ------
    DataSourceError
        If there is no such file.
    """

    def __init__(self, path: str | Path, digest: str | None = None) -> None:
        self.path = Path(path)
        self.digest = digest
        if not self.path.is_file():
            message = (
                "A checkpoint must be a file with weights, such as `model.save_weights` or "
                f"`model.save` writes. Received: {str(path)!r}, which is no file."
            )
            raise DataSourceError(message)

    def assign_to(self, model: keras.Model) -> None:
        try:
            model.load_weights(self.path)
        except Exception as error:  # Keras and its readers raise many kinds
            message = (
                "A checkpoint must hold the weights of a model with the same layers. Received: "
                f"{str(self.path)!r}, which cannot be loaded ({first_line(error)}). Save it "
                "again, or leave it out."
            )
            raise DataSourceError(message) from error
        if self.digest is not None and weights_digest(model) != self.digest:
            message = (
                "A checkpoint must hold the weights that were recorded. Received: "
                f"{str(self.path)!r}, which holds others: it was changed, or belongs to a model "
                "with other layers. Record it again."
            )
            raise DataSourceError(message)

    def fingerprint(self) -> str:
        if self.digest is not None:
            return self.digest
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            for piece in iter(partial(stream.read, 2**20), b""):
                digest.update(piece)
        return digest.hexdigest()


def check_live_model(source: Any) -> BaseInfluenceModel:
    """Return what stands in a list of models without ``model=``, if it is a wrapped model.

    Raises
    ------
    TypeError
        If it is a file, whose layers nothing tells, or anything else.
    """
    if isinstance(source, (str, Path, WeightSource)):
        message = (
            "Argument `model` must be given where `models` holds files. Received: "
            f"{str(source)!r} and no model. Pass `model=`, an InfluenceModel with the same "
            "layers, whose loss and watched weights are taken."
        )
        raise TypeError(message)
    check_influence_model(source)
    return source


class Checkpoints(ABC):
    """Sets of weights of one model, one of which it has at a time.

    Attributes
    ----------
    model
        The wrapped model that has them.
    """

    model: BaseInfluenceModel

    @property
    @abstractmethod
    def count(self) -> int:
        """The number T of checkpoints."""

    @abstractmethod
    def load(self, t: int) -> None:
        """Give `model` the weights number ``t``, counting from 0."""

    @abstractmethod
    def verify(self, batch: Batch) -> None:
        """Make sure, once, that `model` computes what the user's model does.

        Parameters
        ----------
        batch
            A batch of the dataset. Another set of weights than before may be loaded afterwards.
        """

    @abstractmethod
    def fingerprints(self) -> tuple[str, ...]:
        """Return a digest of each set of weights."""


class LiveCheckpoint(Checkpoints):
    """The weights that a model has, without a copy: one checkpoint.

    Parameters
    ----------
    model
        The wrapped model.
    """

    def __init__(self, model: BaseInfluenceModel) -> None:
        check_influence_model(model)
        self.model = model

    @property
    def count(self) -> int:
        return 1

    def load(self, t: int) -> None:
        """Do nothing: the weights are there."""

    def verify(self, batch: Batch) -> None:
        """Do nothing: the model is the user's own."""

    def fingerprints(self) -> tuple[str, ...]:
        return (weights_digest(self.model.model),)


class CopiedCheckpoints(Checkpoints):
    """Weights that are loaded, one set at a time, into a copy of the user's model.

    Parameters
    ----------
    model
        The user's wrapped model, which is never modified. It tells the layers, the loss and the
        watched weights.
    sources
        For each checkpoint the path of a file with weights, a `WeightSource`, or a wrapped model.
    build
        Makes the Keras model of the copy, where Keras cannot clone it.

    Raises
    ------
    UnsupportedModelError
        If the model cannot be copied.
    DataSourceError
        If a file is not there.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        sources: Sequence[str | Path | WeightSource | BaseInfluenceModel],
        build: BuildFunction | None = None,
    ) -> None:
        check_influence_model(model)
        self._sources = [as_source(source) for source in sources]
        self._original = model
        self._loaded: int | None = None
        self._is_verified = False
        self.model = copied(model, build)

    @property
    def count(self) -> int:
        return len(self._sources)

    def load(self, t: int) -> None:
        source = self._sources[t]
        if self._loaded == t and source.is_fixed:
            return
        self._loaded = None  # what a failure leaves behind is none of them
        source.assign_to(self.model.model)
        check_finite_weights(self.model.model)
        self._loaded = t

    def verify(self, batch: Batch) -> None:
        if self._is_verified:
            return
        self._loaded = None
        assign_weights(self.model.model, self._original.model)
        check_same_outputs(self._original, self.model, batch)
        self._is_verified = True

    def fingerprints(self) -> tuple[str, ...]:
        return tuple(source.fingerprint() for source in self._sources)


def as_source(source: Any) -> WeightSource:
    """Return a source of weights for a path or a wrapped model.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if isinstance(source, WeightSource):
        return source
    if isinstance(source, BaseInfluenceModel):
        return LiveWeights(source)
    if isinstance(source, (str, Path)):
        return WeightFile(source)
    message = (
        "Argument `models` must hold the path of a file with weights, or an InfluenceModel. "
        "Received: "
        f"{type(source).__name__}. Wrap a Keras model: InfluenceModel(model)."
    )
    raise TypeError(message)
