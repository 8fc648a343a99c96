"""Calculators whose scores are sums over several sets of weights of one model."""

from __future__ import annotations

import threading
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from ..gradients.passes import Pass
from ..model.checkpoints import Checkpoints
from ..model.measurements import Measurement
from ..utils.datasets import Item
from ..utils.memory import bytes_of, working_bytes
from ..utils.progress import progress_bar
from ..utils.running import run
from .base import BaseInfluenceCalculator

MAX_BLOCK_BYTES = 2**28
"""Bound on the batches, and on the results for them, between two loadings of the same weights."""


class CheckpointedCalculator(BaseInfluenceCalculator, ABC):
    """Base class of methods that add up scores over the checkpoints of a model.

    The hooks are those of `BaseInfluenceCalculator`, and give what the checkpoint that is loaded
    at the moment contributes: scores of the checkpoints are added up, and their influence vectors
    stand side by side, ``(b, T·q)`` for T checkpoints. Since all checkpoints share one model, each
    hook is traced once.

    What a hook needs of a checkpoint beside the weights belongs into a `tf.Variable`, which
    `_enter_checkpoint` sets, so that the traced hook reads it::

        class ScaledDot(CheckpointedCalculator):
            def __init__(self, checkpoints, scales):
                super().__init__(checkpoints)
                self.scales = scales
                self.scale = tf.Variable(scales[0], trainable=False, dtype=self.model.dtype)

            def _enter_checkpoint(self, t):
                super()._enter_checkpoint(t)
                self.scale.assign(self.scales[t])

            def _train_vectors(self, batch):
                return self.scale * self.engine.gradients(batch).materialize()

            def _query_vectors(self, batch):
                return self.engine.gradients(batch).materialize()

    A pass that fits a method at each checkpoint does the same as scoring: for each t,
    ``self._enter_checkpoint(t)``, then ``self._summed(...)``, all of it inside
    ``with self._lock``.

    Data are read once: they are taken in blocks of bounded memory, and each block passes through
    all checkpoints before the next is read. Weights are loaded anew for each block.

    Parameters
    ----------
    checkpoints
        The checkpoints; `self.model` is the model that they are loaded into.
    measurement
        What is looked at on the side of the queries; see `BaseInfluenceCalculator`.
    """

    _made_again = frozenset({"_lock"})

    def __init__(self, checkpoints: Checkpoints, measurement: Measurement = None) -> None:
        super().__init__(checkpoints.model, measurement)
        self.checkpoints = checkpoints
        # Scored datasets are lazy, and may be read from two threads.
        self._lock = threading.RLock()

    def _make_again(self) -> None:
        super()._make_again()
        self._lock = threading.RLock()

    def _enter_checkpoint(self, t: int) -> None:
        """Load checkpoint ``t``, counting from 0. Extended by what else depends on it."""
        self.checkpoints.load(t)

    @property
    def _vector_size(self) -> int:
        """A bound on the size q of the vectors of one checkpoint. May be overridden."""
        return self.model.nb_params

    @property
    def _query_width(self) -> int:
        return self._vector_size * self.checkpoints.count

    def _computed(
        self, data: Pass, hook: Callable[..., Any], arguments: tuple = (), axis: int | None = -1
    ) -> Iterator[tuple[Item, Any]]:
        """Run a hook at every checkpoint on each batch of a pass.

        Scores, whose last axis is the batch, are added up, vectors stand side by side. Of the
        arguments, which are such vectors, each checkpoint gets its own part.
        """
        if axis is None:
            yield from super()._computed(data, hook, arguments, axis)
            return
        count = self.checkpoints.count
        own = [tf.split(argument, count, axis=1) for argument in arguments]
        width = self._vector_size * count if axis == 0 else max([2, *map(len, arguments)])
        join = _side_by_side if axis == 0 else added

        def compute(t: int, item: Item) -> tf.Tensor:
            given = tuple(parts[t] for parts in own)
            return self._result(t, hook, item, given, data.device, axis)

        # Where there are several, each checkpoint has a bar of its own.
        reading = data if count == 1 else replace(data, verbose=0)
        for block in self._blocks_of(self._stream(reading), width):
            with self._lock:
                self.checkpoints.verify(block[0].batch)
                results = join(self._passes(block, compute, data))
            yield from zip(block, results, strict=True)

    def _result(
        self,
        t: int,
        hook: Callable[..., Any],
        item: Item,
        arguments: tuple,
        device: str | None,
        axis: int | None,
    ) -> tf.Tensor:
        """Run a hook on a batch, checkpoint ``t`` being loaded. May be overridden."""
        return run(self._kernel(hook), item, (*arguments, item.batch), device, axis)

    def kept_vectors(
        self, data: Pass, scored: bool
    ) -> Iterator[tuple[Item, np.ndarray, np.ndarray | None]]:
        self._check_products()
        for item, rows in self._vectors(data):
            yield item, rows.numpy(), None

    def _vector_settings(self) -> tuple:
        # The digest of the vectors' origin covers the weights that are loaded: always the first.
        with self._lock:
            self._enter_checkpoint(0)
        return self.checkpoints.fingerprints()

    def _passes(
        self, block: list[Item], compute: Callable[[int, Item], tf.Tensor], data: Pass
    ) -> Iterator[list[tf.Tensor]]:
        """Yield for each checkpoint its contributions to the items of a block."""
        count = self.checkpoints.count
        for t in range(count):
            self._enter_checkpoint(t)
            shown: Iterable[Item] = block
            if count > 1:
                title = f"{data.description}, checkpoint {t + 1} of {count}"
                shown = progress_bar(block, title, len(block), data.verbose)
            yield [compute(t, item) for item in shown]

    def _blocks_of(self, items: Iterator[Item], width: int) -> Iterator[list[Item]]:
        """Group items until they, and their results, take the memory that a block may take.

        ``width`` numbers of a result belong to one example.
        """
        if self.checkpoints.count == 1:  # loaded once and for all: nothing need be held back
            yield from ([item] for item in items)
            return
        held: list[Item] = []
        held_bytes = 0
        for item in items:
            held.append(item)
            held_bytes += bytes_of(item.batch) + item.size * width * self.model.dtype.size
            if held_bytes >= working_bytes(MAX_BLOCK_BYTES):
                yield held
                held, held_bytes = [], 0
        if held:
            yield held


def added(passes: Iterator[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Return the sum over checkpoints of what each gave for the items of a block."""
    totals = next(passes)
    for values in passes:
        totals = [total + value for total, value in zip(totals, values, strict=True)]
    return totals


def _side_by_side(passes: Iterator[list[tf.Tensor]]) -> list[tf.Tensor]:
    return [tf.concat(parts, axis=1) for parts in zip(*passes, strict=True)]
