"""Training again without some examples, one retraining after the other, each kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..errors import DataSourceError, NonFiniteError
from ..linalg.checks import check_count
from ..utils.progress import check_verbose, progress_bar
from ..utils.records import Arrays, RecordKind, Settings
from .checks import kept_mask
from .ground_truth import GroundTruth
from .measures import check_finite_outputs
from .storage import check_settings, plain_settings

Train: TypeAlias = Callable[[np.ndarray, int], Any]
"""``train(positions (k,), seed) -> model``: train on those rows of the training set."""

Measure: TypeAlias = Callable[[Any], Any]
"""``measure(model) -> (m,)``: a number for each query."""

SETTINGS_FILE = "settings.json"
_FOLDER_REMEDY = "Choose another folder, or delete this one to train again."

RETRAINING = RecordKind("retraining", "Delete it to train again.")
SETTINGS = RecordKind("list of settings", _FOLDER_REMEDY)


def retrain(
    train: Train,
    measure: Measure,
    kept: np.ndarray,
    *,
    seeds: Sequence[int] = (0,),
    folder: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    higher_is_better: bool | None = None,
    verbose: str | int = "auto",
) -> GroundTruth:
    """Train on each subset, and on everything, and measure the queries each time.

    Parameters
    ----------
    train
        ``train(positions, seed) -> model`` trains on the rows ``positions``, int64, shape
        ``(k,)``, rising. The model may be anything that ``measure`` takes. An object with a
        method ``in_place``, as `ConvexTraining` and `NetworkTraining` have, is called by that:
        each model is measured before the next is trained.
    measure
        ``measure(model) -> (m,)``, such as a `QueryOutputs`.
    kept
        Which examples each retraining has, shape ``(s, n)``, bool. `leave_one_out`,
        `leave_groups_out` and `random_subsets` make such masks.
    seeds
        Every subset is trained on under each of these r seeds.
    folder
        Where each finished retraining is written at once. Called again with the same arguments, a
        run that was killed goes on where it stopped. None keeps nothing.
    settings
        What the outputs depend on (data, model, queries, hyper-parameters), as JSON can hold it. A
        folder of other settings is refused. `ConvexTraining`, `NetworkTraining` and `QueryOutputs`
        say themselves what theirs depend on, data included, by a method ``fingerprint``; of a
        function that has none, what is not said here goes unnoticed.
    higher_is_better
        Whether a larger output is a better one. None asks ``measure.higher_is_better``, which a
        `QueryOutputs` has, and takes False where that does not say.
    verbose
        ``"auto"``, 0, 1 or 2, as in Keras.

    Returns
    -------
    The outputs of the ``r (s + 1)`` models, equal whether or not the run was interrupted.

    Raises
    ------
    ValueError
        If ``kept`` is no such mask, ``measure`` and ``higher_is_better`` disagree, or the outputs
        are not one number for each query, as many each time.
    NonFiniteError
        If a measurement gives NaN or infinity; the message names subset and seed.
    DataSourceError
        If the folder is one of other settings or of unknown ones, or a file in it is damaged.

    Examples
    --------
    >>> from deel_influence.evaluation.subsets import leave_one_out
    >>> values = np.array([1.0, 2.0, 6.0])
    >>> truth = retrain(
    ...     train=lambda positions, seed: values[positions].mean(),
    ...     measure=lambda mean: [mean],
    ...     kept=leave_one_out(3, [0, 2]),
    ... )
    >>> truth.changes
    array([[ 1. ],
           [-1.5]])
    """
    check_verbose(verbose)
    better = _direction(measure, higher_is_better)
    plan = _Plan.of(kept, seeds, folder, _all_settings(settings, train, measure), better)
    found = plan.done(list(plan.tasks()), train, measure, verbose)
    return plan.collected(found, plain_settings(settings), better)


def retrain_shard(
    train: Train,
    measure: Measure,
    kept: np.ndarray,
    shard: int,
    num_shards: int,
    *,
    folder: str | os.PathLike[str],
    seeds: Sequence[int] = (0,),
    settings: Mapping[str, Any] | None = None,
    higher_is_better: bool | None = None,
    verbose: str | int = 0,
) -> None:
    """Do one of ``num_shards`` shares of the work of `retrain`, into the same folder.

    Shares are dealt out in turn: share i has the models i, i + num_shards, and so on. Each process
    does one, in any order and at the same time; `retrain` with the same arguments then only reads
    the folder, and trains what is not there yet.

    Parameters
    ----------
    train, measure, kept, folder, seeds, settings, higher_is_better, verbose
        As for `retrain`.
    shard
        Which share, from 0.
    num_shards
        Into how many the work is divided.

    Raises
    ------
    ValueError
        If there is no such share, and for what `retrain` refuses.
    """
    num_shards = check_count("num_shards", num_shards)
    if check_count("shard", shard, 0) >= num_shards:
        message = (
            f"Argument `shard` must be below num_shards={num_shards}. Received: shard={shard}."
        )
        raise ValueError(message)
    check_verbose(verbose)
    described = _all_settings(settings, train, measure)
    plan = _Plan.of(kept, seeds, folder, described, _direction(measure, higher_is_better))
    plan.done(list(plan.tasks())[shard::num_shards], train, measure, verbose)


@dataclass(frozen=True)
class _Task:
    """One model to train; ``subset`` -1 is everything."""

    subset: int
    seed: int
    mask: np.ndarray

    @property
    def key(self) -> tuple[int, int]:
        return self.subset, self.seed

    @property
    def name(self) -> str:
        which = "all examples" if self.subset < 0 else f"subset {self.subset}"
        return f"{which}, seed {self.seed}"


class _Folder:
    """Finished retrainings under one set of settings."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        file = path / SETTINGS_FILE
        if not file.exists():
            self._begin(file, settings)
        stored = SETTINGS.read(file, lambda header, _: dict(header["settings"]))
        check_settings(stored, settings, path, _FOLDER_REMEDY)

    def _begin(self, file: Path, settings: dict[str, Any]) -> None:
        """Write the settings, unless another process is first."""
        # Retrainings come after the settings, so that those of another process are there by now.
        if any(self.path.glob("seed_*/*.npz")) and not file.exists():
            message = (
                f"Argument `folder` must hold {SETTINGS_FILE} beside its retrainings, or nothing. "
                f"Received: {str(self.path)!r}, whose retrainings are of unknown settings. "
                f"{_FOLDER_REMEDY}"
            )
            raise DataSourceError(message)
        # What another process wrote meanwhile stays, and is compared with these.
        SETTINGS.write(file, {"settings": settings}, only_new=True)

    def file(self, task: _Task) -> Path:
        """Return the path of a task, which depends on nothing but its subset and seed."""
        digest = hashlib.sha256(np.packbits(task.mask).tobytes()).hexdigest()
        return self.path / f"seed_{task.seed:06d}" / f"{digest[:24]}.npz"

    def read(self, task: _Task) -> np.ndarray | None:
        file = self.file(task)
        return RETRAINING.read(file, _outputs) if file.exists() else None

    def write(self, task: _Task, outputs: np.ndarray) -> None:
        RETRAINING.write(self.file(task), {"seed": task.seed}, {"outputs": outputs})


@dataclass(frozen=True)
class _Plan:
    """What is to be trained."""

    kept: np.ndarray
    seeds: tuple[int, ...]
    folder: _Folder | None

    @classmethod
    def of(
        cls,
        kept: np.ndarray,
        seeds: Sequence[int],
        folder: str | os.PathLike[str] | None,
        settings: Mapping[str, Any],
        higher_is_better: bool,
    ) -> _Plan:
        """Return the plan, its arguments checked and its folder begun."""
        kept, seeds = kept_mask(kept), _checked_seeds(seeds)
        known = {"num_examples": kept.shape[1], "higher_is_better": higher_is_better}
        content = {**settings, **known}
        return cls(kept, seeds, None if folder is None else _Folder(Path(folder), content))

    def tasks(self) -> Iterator[_Task]:
        """Give everything first, then the subsets, seed by seed."""
        everything = np.ones(self.kept.shape[1], bool)
        for seed in self.seeds:
            yield _Task(-1, seed, everything)
            for subset, mask in enumerate(self.kept):
                yield _Task(subset, seed, mask)

    def done(
        self, tasks: Sequence[_Task], train: Train, measure: Measure, verbose: str | int
    ) -> dict[tuple[int, int], np.ndarray]:
        """Return the outputs ``(m,)`` of the tasks, from disk where they are there."""
        found: dict[tuple[int, int], np.ndarray] = {}
        size = None
        for task in progress_bar(tasks, "Retraining", len(tasks), verbose, unit="model"):
            outputs = None if self.folder is None else self.folder.read(task)
            new = outputs is None
            if outputs is None:
                outputs = _measured(task, train, measure)
            size = len(outputs) if size is None else size
            _check_size(outputs, size, task)
            if new and self.folder is not None:
                self.folder.write(task, outputs)
            found[task.key] = outputs
        return found

    def collected(
        self,
        found: Mapping[tuple[int, int], np.ndarray],
        settings: dict[str, Any],
        higher_is_better: bool,
    ) -> GroundTruth:
        """Put the outputs of all tasks in one."""
        subsets = range(len(self.kept))
        outputs = [[found[subset, seed] for subset in subsets] for seed in self.seeds]
        full = [found[-1, seed] for seed in self.seeds]
        return GroundTruth(
            self.kept, np.array(outputs), np.array(full), self.seeds, settings, higher_is_better
        )


def _all_settings(
    settings: Mapping[str, Any] | None, train: Train, measure: Measure
) -> dict[str, Any]:
    """Return what the user says that outputs depend on, and what the parts say of themselves."""
    content = plain_settings(settings)
    for name, part in (("train", train), ("measure", measure)):
        if hasattr(part, "fingerprint"):
            described = plain_settings(part.fingerprint())
            content |= {f"{name}.{key}": value for key, value in described.items()}
    return content


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    checked = tuple(check_count("seeds", seed, 0) for seed in seeds)
    if not checked or len(set(checked)) < len(checked):
        message = (
            "Argument `seeds` must hold at least one seed, and each only once. "
            f"Received: seeds={seeds!r}."
        )
        raise ValueError(message)
    return checked


def _direction(measure: Measure, higher_is_better: bool | None) -> bool:
    """Return whether a larger output is a better one, as the user or the measure says."""
    known = getattr(measure, "higher_is_better", None)
    if higher_is_better is None:
        return bool(known)
    if known is not None and bool(known) != bool(higher_is_better):
        message = (
            "Argument `higher_is_better` must be what `measure` says of its outputs. Received: "
            f"higher_is_better={higher_is_better!r} and measure.higher_is_better={known!r}. "
            "Leave it out."
        )
        raise ValueError(message)
    return bool(higher_is_better)


def _measured(task: _Task, train: Train, measure: Measure) -> np.ndarray:
    """Train, and return the outputs ``(m,)`` of the model."""
    trained = getattr(train, "in_place", train)(np.flatnonzero(task.mask), task.seed)
    try:
        # A copy, for a measure that fills the same array each time.
        outputs = np.array(measure(trained), np.float64)
        if outputs.ndim != 1 or not outputs.size:
            message = (
                "Argument `measure` must return one number for each query, shape (m,). Received: "
                f"shape {outputs.shape} for {task.name}."
            )
            raise ValueError(message)
        check_finite_outputs(outputs)
    except NonFiniteError as error:
        message = f"{error} This is after training on {task.name}."
        raise NonFiniteError(message) from error
    return outputs


def _check_size(outputs: np.ndarray, size: int, task: _Task) -> None:
    if len(outputs) != size:
        message = (
            f"Argument `measure` must return as many numbers each time. Received: {len(outputs)} "
            f"for {task.name}, and {size} before. If a folder holds outputs on other queries, "
            "choose another one, and name the queries in `settings`."
        )
        raise ValueError(message)


def _outputs(_: Settings, arrays: Arrays) -> np.ndarray:
    return arrays["outputs"]
