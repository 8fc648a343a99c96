"""What a fit adds up over the data, as parts that merge.

Every fit that goes over the data once or twice is a sum over the examples, and what is made of the
sums. A part holds the sums over some of the examples, and their ids; parts of the same stage of
the same fit merge, in any order, to what one pass over all the examples gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from ..gradients.passes import Pass
from ..linalg.eigen import eigenpairs
from ..utils.digests import array_digest, settings_digest
from ..utils.example_ids import shared_ids
from ..utils.files import npz_path
from ..utils.records import RecordKind
from .kronecker_basis import EigenBlock

Parts: TypeAlias = tuple[int, ...]
"""The variables of a block, by their places among the watched ones."""

Compute: TypeAlias = Callable[[Pass], tuple[dict[Parts, Any], np.ndarray]]
"""Goes over data; returns nests of sums by block, and the ids of the examples."""

SUMS = RecordKind("part of a fit", "Compute and save it again.")


class KroneckerSums(NamedTuple):
    """Sums over positions.

    Attributes
    ----------
    inputs
        ``Σ a aᵀ``, shape ``(r, r)``.
    deltas
        ``Σ δ δᵀ``, shape ``(s, s)``.
    num_inputs
        The number of inputs that are summed.
    num_positions
        The number of positions, each example having one at least.
    """

    inputs: Any
    deltas: Any
    num_inputs: Any
    num_positions: Any

    def eigen_block(self, parts: Parts, count: int, dtype: Any) -> EigenBlock:
        """Return the curvature over ``count`` gradients, with eigenvectors of that type."""
        of_inputs, left = eigenpairs(self.inputs / np.maximum(self.num_inputs, 1))
        of_deltas, right = eigenpairs(self.deltas / count)
        values = np.outer(np.maximum(of_inputs, 0), np.maximum(of_deltas, 0))
        is_outer = bool(self.num_positions == count)
        return EigenBlock(parts, values, left.astype(dtype), right.astype(dtype), is_outer)


class DenseSums(NamedTuple):
    """The sum ``Σ g gᵀ``, shape ``(q, q)``."""

    matrix: Any

    def eigen_block(self, parts: Parts, count: int, dtype: Any) -> EigenBlock:
        """Return the curvature over ``count`` gradients, with eigenvectors of that type."""
        values, left = eigenpairs(self.matrix / count)
        return EigenBlock(parts, np.maximum(values, 0), left.astype(dtype))


class DiagonalSums(NamedTuple):
    """The sum of squares ``Σ g²``, shape ``(q,)``."""

    squares: Any

    def eigen_block(self, parts: Parts, count: int, dtype: Any) -> EigenBlock:  # noqa: ARG002
        """Return the curvature over ``count`` gradients."""
        return EigenBlock(parts, self.squares / count)


class PlainSum(NamedTuple):
    """A sum of any other shape."""

    total: Any


_FORMS = {form.__name__: form for form in (KroneckerSums, DenseSums, DiagonalSums, PlainSum)}


@dataclass(frozen=True, eq=False)
class FitSums:
    """The sums of one stage of a fit over some examples.

    Attributes
    ----------
    stage
        What is summed, in a word or two.
    origin
        A digest of all that the sums depend on besides the examples: the model, the strategy with
        its settings, and the stages before.
    ids
        The ids of the examples, int64 or texts, shape ``(n,)``.
    totals
        The sums by block, float64.
    """

    stage: str
    origin: str
    ids: np.ndarray
    totals: dict[Parts, Any]

    @property
    def num_examples(self) -> int:
        """The number n of examples."""
        return len(self.ids)

    def merge(self, other: FitSums) -> FitSums:
        """Return the sums over the examples of both.

        Raises
        ------
        ValueError
            If the other is of another stage, model or fit, or has an example in common.
        """
        if (self.stage, self.origin) != (other.stage, other.origin):
            message = (
                "Argument `other` must be of the same stage of the same fit: model, strategy, "
                f"settings, seed and the stages before. Received: {other.stage!r} beside "
                f"{self.stage!r}, or sums of another fit."
            )
            raise ValueError(message)
        both = shared_ids(self.ids, other.ids)
        if len(both):
            message = (
                f"Argument `other` must be of other examples. Received: {len(both)} ids that are "
                f"in both, such as {both[:3].tolist()}. Pass `id_fn=`, so that positions in shards "
                "are no ids."
            )
            raise ValueError(message)
        totals = {
            parts: type(one)(*(a + b for a, b in zip(one, other.totals[parts], strict=True)))
            for parts, one in self.totals.items()
        }
        ids = np.sort(np.concatenate([self.ids, other.ids]))
        return FitSums(self.stage, self.origin, ids, totals)

    def digest(self) -> str:
        """Return a digest of the sums."""
        return array_digest(*(np.asarray(part) for sums in self.totals.values() for part in sums))

    def save(self, path: str | Path) -> Path:
        """Write the part to one ``.npz`` file, which appears whole or not at all."""
        forms = [[list(parts), type(sums).__name__] for parts, sums in self.totals.items()]
        header = {"stage": self.stage, "origin": self.origin, "forms": forms}
        arrays = {
            f"{number} {place}": np.asarray(part)
            for number, sums in enumerate(self.totals.values())
            for place, part in enumerate(sums)
        }
        return SUMS.write(npz_path(path), header, {"ids": self.ids, **arrays})

    @classmethod
    def load(cls, path: str | Path) -> FitSums:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds something else.
        """

        def parsed(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> FitSums:
            totals: dict[Parts, Any] = {}
            for number, (parts, name) in enumerate(header["forms"]):
                form: Any = _FORMS[name]
                places = range(len(form.__annotations__))
                totals[tuple(parts)] = form(*(arrays[f"{number} {place}"] for place in places))
            return cls(header["stage"], header["origin"], arrays["ids"], totals)

        return SUMS.read(npz_path(path), parsed)


class StageReachedError(Exception):
    """A stage of a fit is summed over a part of the data; carries the part."""

    def __init__(self, part: FitSums) -> None:
        super().__init__(part.stage)
        self.part = part


class MissingStageError(ValueError):
    """A fit that is put together of parts lacks the sums of a stage."""


class PartialFit:
    """What stands in the place of the training set where a fit is put together of parts.

    Parameters
    ----------
    given
        The stages that are known, each merged of all its parts.
    data
        Some of the examples, over which the first stage that is not known is summed; None where
        all stages have to be known.

    Attributes
    ----------
    origin
        What the fit depends on besides the data; the strategy sets it.
    """

    stands_for_data = True

    def __init__(self, given: Sequence[FitSums], data: Pass | None = None) -> None:
        self._given, self._data = list(given), data
        self._next = 0
        self.origin: Any = None

    def total(self, stage: str, compute: Compute) -> tuple[dict[Parts, Any], int]:
        """Return the sums of a stage, and the number of examples.

        Raises
        ------
        StageReachedError
            If the stage is not known, with its sums over the data.
        ValueError
            If it is not known and there are no data, or sums of another stage or fit were given.
        """
        known = self._given[: self._next]
        origin = settings_digest([self.origin, stage, *(part.digest() for part in known)])
        if self._next == len(self._given):
            if self._data is None:
                message = (
                    f"Argument `parts` must hold the sums of every stage. Received: "
                    f"{len(self._given)} of them; those of {stage!r} come next. Call `sums` with "
                    "them as `given=`."
                )
                raise MissingStageError(message)
            totals, ids = compute(self._data)
            twice = len(ids) - len(np.unique(ids))
            if twice:
                message = (
                    "Argument `id_fn` must give every example an id of its own. Received: "
                    f"{twice} of {len(ids)} that come twice."
                )
                raise ValueError(message)
            raise StageReachedError(FitSums(stage, origin, np.sort(ids), totals))
        part = self._given[self._next]
        self._next += 1
        if (part.stage, part.origin) != (stage, origin):
            message = (
                "Argument `parts` must be sums of this model, strategy, settings and seed, stage "
                f"after stage. Received: {part.stage!r} where those of {stage!r} are next, or sums "
                "of another fit. Compute them again."
            )
            raise ValueError(message)
        return part.totals, part.num_examples


def total_over(
    data: tf.data.Dataset | PartialFit, stage: str, compute: Compute, verbose: str | int
) -> tuple[dict[Parts, Any], int]:
    """Return the sums of a stage of a fit, and the number of examples that they are taken over.

    Parameters
    ----------
    data
        The training set, batched, or the parts of a fit.
    stage
        What is summed, in a word or two.
    compute
        Goes over the data.
    verbose
        As in Keras.
    """
    if isinstance(data, PartialFit):
        return data.total(stage, compute)
    totals, ids = compute(
        Pass(data, "train_dataset", stage, verbose=verbose, in_order=False, ahead=True)
    )
    return totals, len(ids)
