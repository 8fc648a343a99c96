"""Tasks of long runs, one for each shard, as values: whoever has one can run it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..calculators.scores import Scores
from ..curvature.sums import FitSums
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.parts import SETTINGS_OF_THE_FINISH
from ..model.fingerprint import model_fingerprint
from ..model.influence_model import BaseInfluenceModel
from ..store.building import build_index
from ..types import IdFunction
from ..utils.datasets import numbered_batches
from ..utils.digests import example_digests, settings_digest
from .data import Shard
from .sending import Received, SavedCalculator, Sent


@dataclass(frozen=True, eq=False)
class ShardTask(ABC):
    """What is to be computed of one shard.

    Attributes
    ----------
    subject
        Holds what computes it.
    shard
        Its data.
    place, total
        Which of how many tasks it is, from 0.
    path
        A folder in which finished parts are kept, so that none is computed twice; None keeps none.
    id_fn
        As for `score`.
    """

    subject: Sent | Received
    shard: Shard
    place: int
    total: int
    path: str | Path | None = None
    id_fn: IdFunction | None = None

    kind: ClassVar[Any]
    """What a part is: has `load`, and parts have `save`."""

    def run(self) -> Any:
        """Return the part, computed or read.

        The name of its file has a digest of the data, and of all else that it depends on: a part
        of other weights, settings or labels is not found, and computed anew. Where no part of this
        place is there, there is nothing to find, and scores and digest take one pass.

        Raises
        ------
        DeelInfluenceError
            If the data cannot be read, or not be computed with.
        """
        data = self.shard.open(self.model)
        if self.path is None:
            return self._computed(data)
        name = f"{self.kind.__name__.lower()}-{self.place:05d}-of-{self.total:05d}-"
        origin, part = self._origin(data), None
        if any(Path(self.path).glob(f"{name}*.npz")):
            digest = self._digest(data)
        else:
            part, digest = self._computed_with_digest(data)
        file = Path(self.path) / f"{name}{settings_digest([origin, digest])[:16]}.npz"
        if not file.exists():
            (self._computed(data) if part is None else part).save(file)
        return self.kind.load(file)

    @property
    @abstractmethod
    def model(self) -> BaseInfluenceModel:
        """The model that the examples are for."""

    @abstractmethod
    def _computed(self, data: tf.data.Dataset) -> Any:
        """Return the part."""

    @abstractmethod
    def _origin(self, data: tf.data.Dataset) -> Any:
        """Return what it depends on besides the data, as JSON."""

    def _computed_with_digest(self, data: tf.data.Dataset) -> tuple[Any, str]:
        """Return the part and the digest of the data. May be overridden, to read them once."""
        return self._computed(data), self._digest(data)

    def _digest(self, data: tf.data.Dataset) -> str:
        """Return a digest of the examples and their ids; reads the data."""
        digest = hashlib.sha256()
        inputs_of = self.model.process_batch_for_loss_fn
        for batch, ids in numbered_batches(
            data, self.id_fn, "shard", lambda batch: inputs_of(batch)[0]
        ):
            _note(digest, batch, ids)
        return digest.hexdigest()


class CalculatorTask(ShardTask):
    """A task whose subject is a calculator, or a `SavedCalculator`."""

    @property
    def model(self) -> BaseInfluenceModel:
        return self.subject.get().model

    def calculator(self, data: tf.data.Dataset) -> Any:
        """Return the calculator; ``data`` are those at hand."""
        given = self.subject.get()
        return given.load(data) if isinstance(given, SavedCalculator) else given

    def _origin(self, data: tf.data.Dataset) -> str:
        return self.calculator(data).origin()


class ScoreTask(CalculatorTask):
    """The scores of a shard, as `score` gives them."""

    kind = Scores

    def _computed(self, data: tf.data.Dataset) -> Scores:
        return self._computed_with_digest(data)[0]

    def _computed_with_digest(self, data: tf.data.Dataset) -> tuple[Scores, str]:
        calculator = self.calculator(data)
        if self.total > 1 and not calculator.scores_each_alone:
            message = (
                "Argument `calculator` must be one that scores each example on its own. Received: "
                f"{type(calculator).__name__}, whose scores depend on all that are scored "
                "together. Use `score` on the whole."
            )
            raise ValueError(message)
        digest, parts = hashlib.sha256(), []
        for batch, ids, scores in calculator.scored_batches(data, self.id_fn, verbose=0):
            if self.path is not None:
                _note(digest, batch, ids)
            parts.append((ids, scores.numpy()))
        joined = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Scores(*joined), digest.hexdigest()


@dataclass(frozen=True, eq=False)
class SumsTask(ShardTask):
    """The sums of a stage of a fit over a shard; its subject is model and stages before.

    Attributes
    ----------
    strategy
        The class of the strategy.
    settings
        Its settings.
    """

    strategy: Any = InverseHessianVectorProduct
    settings: Mapping[str, Any] = field(default_factory=dict)

    kind = FitSums

    @property
    def model(self) -> BaseInfluenceModel:
        return self.subject.get()[0]

    def _computed(self, data: tf.data.Dataset) -> FitSums:
        model, given = self.subject.get()
        return self.strategy.sums(model, data, given, self.id_fn, **self.settings)

    def _origin(self, data: tf.data.Dataset) -> list:  # noqa: ARG002
        settings = {n: v for n, v in self.settings.items() if n not in SETTINGS_OF_THE_FINISH}
        model, given = self.subject.get()
        stages = [sums.digest() for sums in given]
        return [
            self.strategy.name,
            repr(sorted(settings.items())),
            model_fingerprint(model),
            stages,
        ]


@dataclass(frozen=True, eq=False)
class IndexTask(CalculatorTask):
    """The parts of an index that belong to a shard.

    Attributes
    ----------
    settings
        Other arguments of `build_index`.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Write what is missing of the parts."""
        self._computed(self.shard.open(self.model))

    def _computed(self, data: tf.data.Dataset) -> None:
        build_index(
            self.calculator(data),
            data,
            Path(str(self.path)),
            shard=self.place,
            num_shards=self.total,
            id_fn=self.id_fn,
            verbose=0,
            **self.settings,
        )


def _note(digest: Any, batch: Any, ids: np.ndarray) -> None:
    """Add a batch to the digest of the data."""
    digest.update(repr(ids.tolist()).encode())
    digest.update(example_digests(batch).numpy().tobytes())
