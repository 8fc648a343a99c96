"""The folder in which checkpoints of a training are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from ..errors import DataSourceError
from ..utils.files import replacing
from ..utils.records import Arrays, RecordKind, Settings
from .checkpoints import WeightFile
from .fingerprint import weights_digest

MANIFEST = "checkpoints.json"
"""The file that lists the checkpoints of a folder."""

CHECKPOINTS = RecordKind("list of checkpoints", "Delete the folder and record anew.", version=2)


@dataclass(frozen=True)
class RecordedCheckpoint:
    """One checkpoint of a training.

    Attributes
    ----------
    path
        The file with its weights.
    step
        How many steps the training had taken.
    epoch
        How many epochs it had finished, as Keras counts them.
    learning_rate
        The learning rate of the last of these steps.
    size
        The size of the file in bytes.
    digest
        What `weights_digest` gives for the weights.
    """

    path: Path
    step: int
    epoch: int
    learning_rate: float
    size: int
    digest: str

    @property
    def is_whole(self) -> bool:
        """Whether the file is there in its full length."""
        return self.path.is_file() and self.path.stat().st_size == self.size

    @property
    def source(self) -> WeightFile:
        """The weights, for `CopiedCheckpoints`."""
        return WeightFile(self.path, self.digest)


def read_checkpoints(folder: str | Path) -> list[RecordedCheckpoint]:
    """Return all checkpoints of a folder, in the order of training.

    Raises
    ------
    DataSourceError
        If there are none, or a file is missing or cut short.
    """
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        message = (
            "Argument `folder` must be a folder in which a CheckpointRecorder has recorded. "
            f"Received: {str(folder)!r}, which holds no checkpoints."
        )
        raise DataSourceError(message)
    for checkpoint in checkpoints:
        if not checkpoint.is_whole:
            message = (
                "A recorded checkpoint must be whole. Received: "
                f"{str(checkpoint.path)!r}, which is missing or was cut short. Train on with "
                "the recorder, which drops it, or record anew."
            )
            raise DataSourceError(message)
    return checkpoints


def list_checkpoints(folder: str | Path) -> list[RecordedCheckpoint]:
    """Return the checkpoints that a folder lists, whole or not; none where there is no list.

    Raises
    ------
    DataSourceError
        If the list is damaged, or of another version.
    """
    path = Path(folder) / MANIFEST
    return CHECKPOINTS.read(path, partial(_parsed, path.parent)) if path.is_file() else []


def save_checkpoint(
    folder: str | Path, model: keras.Model, step: int, epoch: int, learning_rate: float
) -> RecordedCheckpoint:
    """Write the weights of a model; the file appears whole or not at all.

    Parameters
    ----------
    folder
        Where to; it is made if need be.
    model
        The model in training.
    step, epoch, learning_rate
        As for `RecordedCheckpoint`; the step gives the file its name.

    Returns
    -------
    What to enter in the list.
    """
    path = Path(folder) / f"step_{step:09d}.weights.h5"
    with replacing(path) as temporary:
        model.save_weights(temporary, overwrite=True)
    size = path.stat().st_size
    return RecordedCheckpoint(path, step, epoch, learning_rate, size, weights_digest(model))


def write_list(folder: str | Path, checkpoints: Sequence[RecordedCheckpoint]) -> None:
    """Write the list of a folder's checkpoints; it appears whole or not at all."""
    entries = [{**asdict(checkpoint), "path": checkpoint.path.name} for checkpoint in checkpoints]
    CHECKPOINTS.write(Path(folder) / MANIFEST, {"checkpoints": entries})


def _parsed(folder: Path, header: Settings, _: Arrays) -> list[RecordedCheckpoint]:
    return [_entry(folder, **entry) for entry in header["checkpoints"]]


def _entry(folder: Path, path: str, **numbers: Any) -> RecordedCheckpoint:
    if Path(path).name != path or path in ("", ".."):  # and what is undone gets deleted
        message = f"the path {path!r} leaves the folder"
        raise ValueError(message)
    return RecordedCheckpoint(folder / path, **numbers)
