"""What models say that were trained without one fold of the examples each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import NonFiniteError
from ..utils.files import npz_path
from ..utils.records import Arrays, RecordKind, Settings, differing
from .reading import losses_of, margins_of

CROSS_FIT = RecordKind("cross-fit", "Train again with `cross_fit`.")
FOLD = RecordKind("fold of a cross-fit", "Name another folder in `path`, or delete this one.")

_SUMS = ("probabilities", "losses", "margins")
_ARRAYS = (
    "ids",
    "labels",
    "folds",
    "held_out",
    "held_out_losses",
    "in_sample",
    "in_sample_margins",
)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """What K models, each trained without one fold, said of n examples, averaged over the epochs.

    Attributes
    ----------
    ids
        int64 or texts, shape ``(n,)``.
    labels
        Given classes, int64, shape ``(n,)``.
    folds
        Which model has not seen the example, from 0, shape ``(n,)``.
    held_out
        Mean probabilities of that model, shape ``(n, c)``.
    held_out_losses
        The mean of its ``-log π_y``, shape ``(n,)``.
    in_sample
        Mean probabilities of the other models, shape ``(n, c)``.
    in_sample_margins
        The mean of their ``log π_y - max_{j≠y} log π_j``, shape ``(n,)``.
    """

    ids: np.ndarray
    labels: np.ndarray
    folds: np.ndarray
    held_out: np.ndarray
    held_out_losses: np.ndarray
    in_sample: np.ndarray
    in_sample_margins: np.ndarray

    def __len__(self) -> int:
        """Return n."""
        return len(self.ids)

    def __repr__(self) -> str:
        """Tell how many examples and models there are."""
        return f"<CrossFit of {len(self)} examples, {len(np.unique(self.folds))} models>"

    def of(self, ids: np.ndarray, labels: np.ndarray) -> CrossFit:
        """Return it for examples ``(m,)`` in their order.

        Raises
        ------
        ValueError
            If some have not been trained on, or have other labels.
        """
        if self.ids.dtype.kind == ids.dtype.kind:
            order = np.argsort(self.ids, kind="stable")
            places = np.searchsorted(self.ids[order], ids)
            found = order[np.minimum(places, len(order) - 1)]
            missing = self.ids[found] != ids
        else:  # texts beside integers
            found, missing = np.zeros(len(ids), np.int64), np.ones(len(ids), bool)
        other = ~missing & (self.labels[found] != labels)
        if missing.any() or other.any():
            first = ids[missing | other][0].item()
            message = (
                "Argument `cross_fit` must be of the same examples and labels. Received: "
                f"{int(missing.sum())} examples that it has not, and {int(other.sum())} with "
                f"another label, such as id {first!r}. Train again with `cross_fit` on these data."
            )
            raise ValueError(message)
        return replace(self, **{name: getattr(self, name)[found] for name in _ARRAYS})

    def save(self, path: str | Path) -> Path:
        """Write it to an ``.npz`` file, which appears whole or not at all."""
        return CROSS_FIT.write(npz_path(path), {}, {n: getattr(self, n) for n in _ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> CrossFit:
        """Read what `save` wrote.

        Raises
        ------
        DataSourceError
            If the file is missing, damaged, or holds no cross-fit.
        """
        return CROSS_FIT.read(npz_path(path), lambda _, found: cls(*(found[n] for n in _ARRAYS)))


class EpochSums:
    """What one model says of all examples after each epoch, summed up.

    Parameters
    ----------
    labels
        Given classes, int64, shape ``(n,)``.
    num_classes
        The number c of classes.
    fold
        Which fold the model has not seen.
    """

    def __init__(self, labels: np.ndarray, num_classes: int, fold: int) -> None:
        self.fold, self._labels = fold, labels
        self.probabilities = np.zeros((len(labels), num_classes))
        self.losses, self.margins = np.zeros((2, len(labels)))

    def add(self, log_probabilities: np.ndarray) -> None:
        """Add what the model says after an epoch, shape ``(n, c)``.

        Raises
        ------
        NonFiniteError
            If some of it is NaN.
        """
        if not np.isfinite(log_probabilities).all():
            message = (
                "A training must end with finite outputs. Received: NaN or infinity from the model "
                f"without fold {self.fold}. Lower the learning rate, or clip the gradients."
            )
            raise NonFiniteError(message)
        self.probabilities += np.exp(log_probabilities)
        self.losses += losses_of(log_probabilities, self._labels)
        self.margins += margins_of(log_probabilities, self._labels)

    def write(self, file: Path, settings: Settings) -> None:
        """Write the sums, which appear whole or not at all."""
        FOLD.write(file, {"run": settings}, {name: getattr(self, name) for name in _SUMS})

    def read(self, file: Path, settings: Settings) -> None:
        """Take the sums of a file.

        Raises
        ------
        DataSourceError
            If they are of other settings, or the file is damaged.
        """

        def take(header: Settings, found: Arrays) -> None:
            names = differing(header["run"], settings)
            if names:
                raise FOLD.refused(file, f"is of another run: {', '.join(names)} differ")
            self.probabilities, self.losses, self.margins = (found[name] for name in _SUMS)

        FOLD.read(file, take)


class EpochMeans:
    """The means of what models say over their epochs.

    Parameters
    ----------
    labels
        Given classes, int64, shape ``(n,)``.
    folds
        Which model has not seen the example, from 0, shape ``(n,)``.
    num_folds
        The number of models.
    num_classes
        The number c of classes.
    """

    def __init__(
        self, labels: np.ndarray, folds: np.ndarray, num_folds: int, num_classes: int
    ) -> None:
        self.labels, self.folds, self.num_folds = labels, folds, num_folds
        self._held_out, self._in_sample = np.zeros((2, len(labels), num_classes))
        self._losses, self._margins = np.zeros((2, len(labels)))

    def add(self, sums: EpochSums) -> None:
        """Add what one model says."""
        held = self.folds == sums.fold
        self._held_out[held] += sums.probabilities[held]
        self._in_sample[~held] += sums.probabilities[~held]
        self._losses[held] += sums.losses[held]
        self._margins[~held] += sums.margins[~held]

    def finished(self, ids: np.ndarray, epochs: int) -> CrossFit:
        """Return the means."""
        others = epochs * (self.num_folds - 1)
        return CrossFit(
            ids,
            self.labels,
            self.folds,
            self._held_out / epochs,
            self._losses / epochs,
            self._in_sample / others,
            self._margins / others,
        )
