"""The training set as curvature operators read it: many times over, and in random draws."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf

from ..gradients.engine import GradientEngine, refusals_explained
from ..gradients.passes import Pass
from ..model.influence_model import BaseInfluenceModel
from ..types import Batch
from ..utils.datasets import Item, check_dataset, numbered_items
from ..utils.example_ids import POSITION
from ..utils.memory import bytes_of, bytes_to_hold
from ..utils.running import check_finite_inputs
from .frozen import FrozenPart, find_frozen_part

SHUFFLE_BUFFER = 10_000
"""Examples among which a random draw chooses if the training set is not held."""


class CurvatureData:
    """The batches of a dataset, held in memory where they fit, and read anew where they do not.

    Where only late layers of the model are watched, the tensors that enter them are the same on
    every pass. They are computed once, and held beside the batches.

    Parameters
    ----------
    model
        The wrapped model.
    dataset
        A batched dataset.
    held_bytes
        Bound on what is held; None means a quarter of the free memory.
    with_features
        Whether the frozen part is looked for; for passes of whole gradients it is not.
    """

    def __init__(
        self,
        model: BaseInfluenceModel,
        dataset: tf.data.Dataset,
        held_bytes: int | None = None,
        with_features: bool = True,
    ) -> None:
        check_dataset(dataset, "dataset", model.input_rank)
        self._model = model
        self._dataset = dataset
        self._held_bytes = bytes_to_hold() if held_bytes is None else held_bytes
        self._held: list[Item] | None = None
        self._num_examples: int | None = None
        self._joined: list[Item] | None = None
        self.whole_model_because = "nothing asks for features"
        self.frozen: FrozenPart | None = None
        if with_features:
            first = next(numbered_items(dataset, POSITION))
            with refusals_explained(model, first.batch):
                search = find_frozen_part(model, first.batch)
            self.whole_model_because, self.frozen = search.reason, search.part
        self._read_first_time()

    @property
    def num_examples(self) -> int:
        """The number n of examples, counted in the first pass."""
        return int(self._num_examples or 0)

    @property
    def is_held(self) -> bool:
        """Whether the batches are in memory."""
        return self._held is not None

    def __iter__(self) -> Iterator[Item]:
        """Yield the batches in order."""
        if self._held is not None:
            yield from self._held
            return
        yield from numbered_items(self._dataset, POSITION)

    def draws(self, batch_size: int, seed: int | None) -> Iterator[list[Item]]:
        """Yield random batches of examples for ever, the same ones for the same seed.

        A batch comes in parts where its examples have different shapes, as sequences have that
        are padded to the longest of their batch.

        Parameters
        ----------
        batch_size
            Examples in each; no example comes twice in one batch.
        seed
            Fixes the draws.
        """
        batch_size = min(batch_size, self.num_examples)
        if self._held is None:
            yield from ([item] for item in self._drawn_from_dataset(batch_size, seed))
            return
        generator = np.random.default_rng(seed)
        if self._joined is None:
            self._joined = _joined_by_shape(self._held)
        for index in itertools.count():
            ids = generator.choice(self.num_examples, batch_size, replace=False)
            parts = [_taken(joined, ids, index) for joined in self._joined]
            yield [part for part in parts if part.size]

    def _drawn_from_dataset(self, batch_size: int, seed: int | None) -> Iterator[Item]:
        # TensorFlow draws from its global seed where none is given; NumPy does not.
        seed = int(np.random.default_rng(seed).integers(2**31))
        numbered = self._dataset.unbatch().enumerate()
        shuffled = numbered.shuffle(SHUFFLE_BUFFER, seed=seed).repeat()
        batches = shuffled.batch(batch_size, drop_remainder=True)
        for index, (ids, batch) in enumerate(batches):
            yield Item(index, ids.numpy(), batch)

    def _read_first_time(self) -> None:
        """Count and check the examples, and hold what fits."""
        held: list[Item] | None = []
        total, count = 0, 0
        data = Pass(self._dataset, "dataset", id_fn=POSITION, in_order=False)
        for item in data.items(GradientEngine.of(self._model)):
            check_finite_inputs(item)
            count += item.size
            if held is None:
                continue
            item = replace(item, features=self._features(item.batch))
            total += bytes_of((item.batch, item.features))
            held.append(item)
            if total > self._held_bytes:
                held = None
        if held is None and self.frozen is not None:
            self.frozen = None
            self.whole_model_because = "the features of the training set do not fit in memory"
        self._held, self._num_examples = held, count

    def _features(self, batch: Batch) -> tuple[tf.Tensor, ...]:
        if self.frozen is None:
            return ()
        return tuple(self.frozen.compute(batch))


def _joined_by_shape(items: Sequence[Item]) -> list[Item]:
    """Join batches whose examples have the same shapes; the ids of each result are in order."""
    groups: dict[tuple, list[Item]] = {}
    for item in items:
        groups.setdefault(item.form, []).append(item)
    return [Item.joined(group) for group in groups.values()]


def _taken(joined: Item, ids: np.ndarray, index: int) -> Item:
    """Return the examples with some ids, as far as they are there, in the order of the ids."""
    found = ids[np.isin(ids, joined.ids)]
    rows = tf.constant(np.searchsorted(joined.ids, found))
    parts = (joined.batch, joined.features)
    return Item(index, found, *tf.nest.map_structure(lambda part: tf.gather(part, rows), parts))
