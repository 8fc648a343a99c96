"""Keras callbacks that record what each example does in the training steps that `fit` makes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import keras
import tensorflow as tf

from ..errors import UnsupportedModelError
from ..gradients.capture import overlaid
from ..utils.files import npz_path
from .record import EpochRecord, RecordedDynamics
from .recorder import StepRecorder

LOSS_ARGUMENTS = ("x", "y", "y_pred", "sample_weight", "training")


class FitRecorder(keras.callbacks.Callback):
    """Base class of callbacks whose numbers come from the training steps that `fit` makes anyway.

    A second train function, beside the model's own, computes them as well. `fit` looks its train
    function up at every step, so that the second one stands there for a single call at a time. The
    weights that training finds are those without the callback, and the model keeps no trace of it.

    To be implemented by subclasses: `_make_recorder`, and at least one of `_loss_computed` and
    `_step`.

    Parameters
    ----------
    names
        Of the q numbers of an example.
    epochs, id_fn, batch_size, path, resume
        As for `TrainingDynamics`.
    """

    _adds_up: ClassVar[bool] = False
    """Whether the numbers of an example that an epoch has seen twice are added, or averaged."""

    def __init__(
        self,
        names: tuple[str, ...],
        epochs: Collection[int] | None,
        id_fn: Callable[[Any], Any] | None,
        batch_size: int | None,
        path: str | Path | None,
        resume: bool,
    ) -> None:
        super().__init__()
        self._names = names
        self._epochs = _check_epochs(epochs)
        self._id_fn = id_fn
        self._largest_batch = batch_size
        self._path = None if path is None else npz_path(path)
        self._records: list[EpochRecord] = []
        self._next_epoch = 0
        self._offset: int | None = None
        self._recorder: StepRecorder | None = None
        self._records_epoch = False
        self._plain_step: Any = None
        self._plain_function: Any = None
        self._recording_function: Any = None
        if resume and self._path is not None and self._path.exists():
            self._resume(RecordedDynamics.load(self._path, id_fn))

    @property
    def recorded(self) -> RecordedDynamics:
        """What has been recorded so far."""
        return RecordedDynamics.of_epochs(self._names, self._records, self._next_epoch, self._id_fn)

    def on_train_begin(self, logs: Any = None) -> None:
        """Prepare a train function that computes the statistics."""
        strategy = self.model.distribute_strategy
        if strategy.num_replicas_in_sync > 1:
            message = (
                f"{type(self).__name__} needs training on one device. Received: a strategy of "
                f"{strategy.num_replicas_in_sync} replicas. Train without it, or score the trained "
                "model instead."
            )
            raise UnsupportedModelError(message)
        self._offset = self._recorder = None
        self._take_off()
        self._build()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Decide whether the epoch is recorded."""
        if self._offset is None:
            self._offset = self._next_epoch if epoch == 0 else 0
        number = epoch + self._offset
        self._records = [record for record in self._records if record.epoch < number]
        self._records_epoch = self._epochs is None or number in self._epochs
        self._next_epoch = number

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Have the next step recorded."""
        if not self._records_epoch:
            return
        if self.model.train_function is not self._plain_function:
            if self._take_off():
                message = (
                    "A fit must have one callback that records its steps. Received: a second one "
                    "in `callbacks`. Give one TrainingDynamics all the statistics, and take epochs "
                    "of what it records with `recorded.select(epochs)`."
                )
                raise UnsupportedModelError(message)
            self._build()  # another callback has made a new one, for instance to freeze layers
        self._set_train_function(self._recorded_step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Read what the step has recorded, now and then."""
        if not self._records_epoch:
            return
        if self._recorder is None:
            message = (
                f"{type(self).__name__} needs a training step that calls the model's "
                f"`compute_loss`. Received: a {type(self.model).__name__} whose step does not. "
                "Call self.compute_loss(x=x, y=y, y_pred=y_pred) in its `train_step`."
            )
            raise UnsupportedModelError(message)
        self._recorder.call_ended()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep what the epoch has recorded, and write the file."""
        if self._records_epoch and self._recorder is not None:
            self._records.append(self._record_of_epoch(self._recorder))
        self._next_epoch += 1
        if self._path is not None:
            self.recorded.save(self._path)

    def on_train_end(self, logs: Any = None) -> None:
        """Let go of the compiled functions and the device's memory."""
        self._recorder = None
        self._plain_step = self._plain_function = self._recording_function = None

    def _recorded_step(self, iterator: Any) -> Any:
        """Run one call of the train function, recorded.

        `fit` looks its train function up at every step, so this one stands there for a single
        call and puts the plain one back first: whatever happens later finds the model as it was.
        """
        self._set_train_function(self._plain_function)
        with self._step_overlaid():
            return self._recording_function(iterator)

    def _step_overlaid(self) -> AbstractContextManager[None]:
        """Have `_step` in the place of the model's own step.

        Keras takes the step when a train function is made, older versions when it is traced, which
        is while it first runs: later calls find it compiled. It may run in a thread of a strategy.
        """
        return overlaid(self.model, "train_step", self._step, in_all_threads=True)

    def _build(self) -> None:
        """Make a second train function beside the model's own."""
        self._plain_function = self.model.train_function
        self._plain_step = self.model.train_step
        try:
            with self._step_overlaid():
                self.model.make_train_function(force=True)
            self._recording_function = self.model.train_function
        finally:
            self._set_train_function(self._plain_function)

    def _take_off(self) -> bool:
        """Put the plain function back where a recorded step stands, and tell whether one did."""
        other = getattr(self.model.train_function, "__self__", None)
        if not isinstance(other, FitRecorder):
            return False
        self._set_train_function(other._plain_function)
        return True

    def _set_train_function(self, function: Any) -> None:
        # As `overlaid` does: what Keras does not see being set, it does not track.
        attributes: dict[str, Any] = self.model.__dict__
        attributes["train_function"] = function

    @abstractmethod
    def _make_recorder(self) -> StepRecorder:
        """Return what takes the numbers of a step. To be implemented by subclasses."""

    def _loss_computed(self, x: Any, y: Any, y_pred: Any) -> None:
        """Look at the examples of a step and their predictions. May be overridden.

        This runs where the step computes its loss.
        """

    def _step(self, data: Any) -> Any:
        """Run a training step of the model, which calls `_loss_computed`. May be overridden."""
        compute_loss = self.model.compute_loss

        def noted(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(LOSS_ARGUMENTS, args, strict=False)) | kwargs
            if self._recorder is None:
                # Not earlier: a model without an Input is built by the step that has just run it.
                with tf.init_scope():
                    self._recorder = self._make_recorder()
            self._loss_computed(given.get("x"), given.get("y"), given.get("y_pred"))
            return compute_loss(*args, **kwargs)

        with overlaid(self.model, "compute_loss", noted):
            return self._plain_step(data)

    def _rows_per_call(self) -> int | None:
        """Return how many examples a call of the train function has at most, if that is known."""
        return self._largest_batch and self._largest_batch * self.model.steps_per_execution

    def _record_of_epoch(self, recorder: StepRecorder) -> EpochRecord:
        return EpochRecord.of_rows(self._next_epoch, *recorder.take(), total=self._adds_up)

    def _resume(self, kept: RecordedDynamics) -> None:
        if kept.names != self._names:
            message = (
                "Argument `record` must be that of the run which is resumed, "
                f"{list(kept.names)}. Received: {list(self._names)}."
            )
            raise ValueError(message)
        self._records, self._next_epoch = kept.records(), kept.next_epoch


def recorded_dynamics(dynamics: Any) -> RecordedDynamics:
    """Return the record in what a calculator was given: a callback, or the record itself.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If nothing was recorded.
    """
    record = dynamics.recorded if isinstance(dynamics, FitRecorder) else dynamics
    if not isinstance(record, RecordedDynamics):
        message = (
            "Argument `dynamics` must be a TrainingDynamics callback or a RecordedDynamics. "
            f"Received: {type(dynamics).__name__}."
        )
        raise TypeError(message)
    if not len(record):
        message = (
            "Argument `dynamics` must hold at least one epoch. Received: an empty record. Train "
            "with it first: model.fit(..., callbacks=[dynamics])."
        )
        raise ValueError(message)
    return record


def _check_epochs(epochs: Any) -> frozenset[int] | None:
    if epochs is None:
        return None
    message = (
        "Argument `epochs` must be None or the numbers of epochs, from 0, such as range(10). "
        f"Received: {epochs!r}."
    )
    if not isinstance(epochs, Collection):
        raise TypeError(message)
    if not all(isinstance(number, Integral) and int(number) >= 0 for number in epochs):
        raise ValueError(message)
    return frozenset(epochs)
