"""A callback that records what TracIn needs of a training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ..errors import DataSourceError, UnsupportedModelError
from ..model.fingerprint import weights_digest
from ..model.manifest import (
    RecordedCheckpoint,
    list_checkpoints,
    save_checkpoint,
    write_list,
)


class CheckpointRecorder(keras.callbacks.Callback):
    """Record weights, and the learning rate in use, while a model is trained.

    Each checkpoint is a file ``step_000000120.weights.h5``, which `keras.Model.load_weights` reads
    and which holds the optimizer's state too, and an entry in the list ``checkpoints.json``.
    `TracIn.from_folder` takes the folder as it is.

    The learning rate is the one with which the last step before the checkpoint was taken: that of
    a `LearningRateSchedule` at that step, or what other callbacks have set. Put the recorder last
    in the list of callbacks, so that it sees what they set before a step. With
    ``steps_per_execution`` above 1 it is that of the first step of the last execution.

    Another `fit` with the same folder goes on with the list: what is recorded is not written again,
    and what was recorded after the point from which training is resumed (the work that a crash has
    undone) is dropped. So is a file that is missing or was cut short, with a warning. A training
    that starts anew has to come by the same weights, or is refused.

    Parameters
    ----------
    folder
        Where to keep the checkpoints.
    every_epochs, epochs, every_steps, steps
        When to record, one of them: after every so many epochs or optimizer steps, or after the
        epochs or steps in a list, both counted from 1. Without any, after each epoch.
    optimizer
        The optimizer to look at, where a model has several; None takes the compiled one.

    Raises
    ------
    DataSourceError
        In training, if the folder holds the checkpoints of another training.
    """

    def __init__(
        self,
        folder: str | Path,
        every_epochs: int | None = None,
        epochs: Sequence[int] | None = None,
        every_steps: int | None = None,
        steps: Sequence[int] | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
    ) -> None:
        super().__init__()
        given = {
            "every_epochs": every_epochs,
            "epochs": epochs,
            "every_steps": every_steps,
            "steps": steps,
        }
        name, value = _only_one(given)
        self.folder = Path(folder)
        self._counts_steps = name.endswith("steps")
        self._is_due = _due_every(name, value) if name.startswith("every") else _due(name, value)
        self._optimizer = optimizer
        self._recorded: list[RecordedCheckpoint] = []
        self._is_begun = False
        self._offset = self._epoch = self._step = 0
        self._next_rate: Any = float("nan")
        self._rate: Any = float("nan")

    @property
    def checkpoints(self) -> tuple[RecordedCheckpoint, ...]:
        """What the folder holds, in the order of training."""
        return tuple(self._recorded)

    def on_train_begin(self, logs: Any = None) -> None:  # noqa: ARG002 - the form of Keras
        """Read the folder's list."""
        self._is_begun = False
        self._check_optimizer()
        listed = list_checkpoints(self.folder)
        self._recorded = [checkpoint for checkpoint in listed if checkpoint.is_whole]
        for checkpoint in listed:
            if not checkpoint.is_whole:
                message = (
                    f"The checkpoint {str(checkpoint.path)!r} is missing or was cut short, and is "
                    "dropped from the list."
                )
                warnings.warn(message, stacklevel=2)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Find out, before the first epoch, where in the training this is."""
        self._epoch = epoch
        if not self._is_begun:
            self._begin(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Note the learning rate of the step to come."""
        # A copy, which is not waited for.
        self._next_rate = keras.ops.copy(self._optimizer_in_use.learning_rate)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Record after a step that is due."""
        self._rate = self._next_rate
        if self._counts_steps:
            before, self._step = self._step, self._steps_taken()
            if self._is_due(before, self._step):
                self._record(self._step, self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Record after an epoch that is due."""
        if not self._counts_steps and self._is_due(epoch, epoch + 1):
            self._record(self._steps_taken(), epoch + 1)

    @property
    def _optimizer_in_use(self) -> Any:
        return self._optimizer if self._optimizer is not None else self.model.optimizer

    def _steps_taken(self) -> int:
        return self._offset + int(_number(self._optimizer_in_use.iterations))

    def _check_optimizer(self) -> None:
        if not isinstance(self._optimizer_in_use, keras.optimizers.Optimizer):
            message = (
                "The model must have one optimizer, whose learning rate is recorded. Received: a "
                f"model with {type(self._optimizer_in_use).__name__} as its optimizer. Compile it "
                "with one, or pass `optimizer=`, the one that changes the watched weights."
            )
            raise UnsupportedModelError(message)

    def _begin(self, epoch: int) -> None:
        """Go on where the training is, which may be earlier than where a crash ended it."""
        self._is_begun = True
        self._offset = 0
        if self._steps_taken() == 0 and epoch > 0:
            # A resumed training whose optimizer starts anew counts on from the last epoch.
            before = [c.step for c in self._recorded if c.epoch <= epoch]
            self._offset = max(before, default=0)
        self._step = self._steps_taken()
        undone = [c for c in self._recorded if 0 < self._step < c.step]
        if undone:
            self._recorded = [c for c in self._recorded if c.step <= self._step]
            write_list(self.folder, self._recorded)
            for checkpoint in undone:
                checkpoint.path.unlink(missing_ok=True)

    def _record(self, step: int, epoch: int) -> None:
        known = next((c for c in self._recorded if c.step == step), None)
        if known is None:
            saved = save_checkpoint(self.folder, self.model, step, epoch, _number(self._rate))
            self._recorded = sorted([*self._recorded, saved], key=lambda c: c.step)
            write_list(self.folder, self._recorded)
        elif known.digest != weights_digest(self.model):
            message = (
                "Argument `folder` must be empty, or hold earlier checkpoints of this training. "
                f"Received: {str(self.folder)!r}, whose checkpoint of step {step} has other "
                "weights. Record in another folder, or delete this one."
            )
            raise DataSourceError(message)


def _number(value: Any) -> float:
    return float(tf.convert_to_tensor(value).numpy())


def _only_one(given: dict[str, Any]) -> tuple[str, Any]:
    chosen = [(name, value) for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        message = (
            f"Argument `{chosen[0][0]}` must be given alone. Only one of `every_epochs`, `epochs`, "
            "`every_steps` and `steps` may be. "
            f"Received: {dict(chosen)}. Use a recorder with a folder of its own for each."
        )
        raise ValueError(message)
    return chosen[0] if chosen else ("every_epochs", 1)


def _due_every(name: str, period: int) -> Callable[[int, int], bool]:
    """Return a test whether a multiple of ``period`` lies in ``(before, after]``."""
    _check_counts(name, [period])
    return lambda before, after: after // period > before // period


def _due(name: str, numbers: Sequence[int]) -> Callable[[int, int], bool]:
    """Return a test whether one of ``numbers`` lies in ``(before, after]``."""
    wanted = list(numbers)
    _check_counts(name, wanted)
    return lambda before, after: any(before < number <= after for number in wanted)


def _check_counts(name: str, numbers: Sequence[Any]) -> None:
    whole = [isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in numbers]
    if not numbers or not all(whole):
        message = f"Argument `{name}` must hold integers of at least 1. Received: {numbers!r}."
        raise ValueError(message)
