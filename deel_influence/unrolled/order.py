"""Which examples each step of a run takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True)
class BatchOrder:
    """The batches of a run: each epoch has an order of its own, drawn from the seed.

    Attributes
    ----------
    num_examples, epochs, batch_size
        The last batch of an epoch is as large as is left.
    seed
        Of the orders. That of an epoch depends on nothing else but its number.
    """

    num_examples: int
    epochs: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return -(-self.num_examples // self.batch_size)

    @property
    def num_steps(self) -> int:
        """The number T of steps of the run."""
        return self.epochs * self.steps_per_epoch

    def of_epoch(self, epoch: int) -> np.ndarray:
        """Return the positions of the examples in the order of an epoch, int64, ``(n,)``."""
        return _drawn(self.num_examples, self.seed, epoch)

    def of_step(self, step: int) -> np.ndarray:
        """Return the positions of the examples of a step, counted from 0, int64, ``(b,)``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.of_epoch(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def steps_of_examples(self) -> np.ndarray:
        """Return the step in which each example was seen in each epoch, int64, ``(n, epochs)``."""
        steps = np.empty((self.num_examples, self.epochs), np.int64)
        places = np.arange(self.num_examples) // self.batch_size
        for epoch in range(self.epochs):
            steps[self.of_epoch(epoch), epoch] = epoch * self.steps_per_epoch + places
        return steps

    def segments(self, first: int, every: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches of steps between checkpoints, the last first, down to ``first``."""
        end = self.num_steps
        while end > first:
            start = max((end - 1) // every * every, first)
            yield start, end
            end = start


@lru_cache(maxsize=2)
def _drawn(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(num_examples)
