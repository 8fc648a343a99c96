"""A Keras callback that records what each example did during training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ..errors import IgnoredTermWarning, UnsupportedModelError
from ..gradients.capture import overlaid
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel
from ..utils.files import npz_path
from .record import EpochRecord, RecordedDynamics
from .recorder import Statistic, StepRecorder

STATISTICS = ("margin", "loss", "el2n")
LOSS_ARGUMENTS = ("x", "y", "y_pred", "sample_weight", "training")


class TrainingDynamics(keras.callbacks.Callback):
    """Record margin, loss and error of each example in each epoch, from the passes `fit` makes.

    The numbers are read off the predictions that a training step computes anyway, in training
    mode and before its update, by operations added to the compiled step. Examples are known by
    their content, so that the dataset needs no ids and may be shuffled; examples that are equal,
    label included, share the mean of theirs. Sample weights and class weights have no part.

    A fit that starts at epoch 0 adds its epochs to what is recorded; one with an ``initial_epoch``
    replaces the recorded epochs from there on. An epoch that is cut off is not recorded. The
    weights that training finds are those without the callback, and the model keeps no trace of it,
    also when an exception ends the fit. One exception cannot be seen, that of another callback's
    ``on_train_batch_begin``: it leaves one recorded step, which the next fit takes away.

    Parameters
    ----------
    record
        Which statistics: ``"margin"`` (the label's logit less the highest other), ``"loss"``, and
        ``"el2n"`` (the length of the vector of errors in the probabilities).
    epochs
        Which epochs to record, counted from 0; None records all. The others run as ever.
    id_fn
        Traceable function of ``(x, y)`` that reads the examples' ids, whole numbers or strings; for
        pipelines that change the inputs from epoch to epoch. None knows examples by their content.
    from_logits
        Whether the outputs are logits; None reads it off the loss, else off the last activation.
    batch_size
        The size of the largest batch; needed only for more than 100,000 examples in one call of the
        train function.
    path
        A file that is written after each epoch; None writes none.
    resume
        Whether to go on with what the file at ``path`` holds, if it is there.

    Notes
    -----
    A record takes 4 bytes for each example, epoch and statistic.
    """

    def __init__(
        self,
        record: Sequence[str] = STATISTICS,
        epochs: Collection[int] | None = None,
        id_fn: Callable[[Any], Any] | None = None,
        from_logits: bool | None = None,
        batch_size: int | None = None,
        path: str | Path | None = None,
        resume: bool = False,
    ) -> None:
        super().__init__()
        self._names = _check_names(record)
        self._epochs = _check_epochs(epochs)
        self._id_fn = id_fn
        self._from_logits = from_logits
        self._largest_batch = batch_size
        self._path = None if path is None else npz_path(path)
        self._records: list[EpochRecord] = []
        self._next_epoch = 0
        self._offset: int | None = None
        self._recorder: StepRecorder | None = None
        self._records_epoch = False
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
                "TrainingDynamics needs training on one device. Received: a strategy of "
                f"{strategy.num_replicas_in_sync} replicas. Train without it, or score with "
                "EL2N, GraNd or LossScore instead."
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
                    "A fit must have one TrainingDynamics. Received: a second one in `callbacks`. "
                    "Give one of them all the statistics, and take epochs of what it records with "
                    "`recorded.select(epochs)`."
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
                "TrainingDynamics needs a training step that calls the model's `compute_loss`. "
                f"Received: a {type(self.model).__name__} whose step does not. Call "
                "self.compute_loss(x=x, y=y, y_pred=y_pred) in its `train_step`."
            )
            raise UnsupportedModelError(message)
        self._recorder.call_ended()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep what the epoch has recorded, and write the file."""
        if self._records_epoch and self._recorder is not None:
            self._records.append(EpochRecord.of_rows(self._next_epoch, *self._recorder.take()))
        self._next_epoch += 1
        if self._path is not None:
            self.recorded.save(self._path)

    def on_train_end(self, logs: Any = None) -> None:
        """Let go of the compiled functions and the device's memory."""
        self._recorder = self._plain_function = self._recording_function = None

    def _recorded_step(self, iterator: Any) -> Any:
        """Run one call of the train function, recorded.

        `fit` looks its train function up at every step, so this one stands there for a single
        call and puts the plain one back first: whatever happens later finds the model as it was.
        """
        self._set_train_function(self._plain_function)
        compute_loss = self.model.compute_loss

        def noted(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(LOSS_ARGUMENTS, args, strict=False)) | kwargs
            if self._recorder is None:
                # Not earlier: a model without an Input is built by the step that has just run it.
                with tf.init_scope():
                    self._recorder = self._make_recorder()
            self._recorder.note(given.get("x"), given.get("y"), given.get("y_pred"))
            return compute_loss(*args, **kwargs)

        # The step is traced, if it is, while it first runs: later calls find it compiled.
        with overlaid(self.model, "compute_loss", noted, in_all_threads=True):
            return self._recording_function(iterator)

    def _build(self) -> None:
        """Make a second train function beside the model's own."""
        self._plain_function = self.model.train_function
        try:
            self.model.make_train_function(force=True)
            self._recording_function = self.model.train_function
        finally:
            self._set_train_function(self._plain_function)

    def _take_off(self) -> bool:
        """Put the plain function back where a recorded step stands, and tell whether one did."""
        other = getattr(self.model.train_function, "__self__", None)
        if not isinstance(other, TrainingDynamics):
            return False
        self._set_train_function(other._plain_function)
        return True

    def _set_train_function(self, function: Any) -> None:
        # As `overlaid` does: what Keras does not see being set, it does not track.
        attributes: dict[str, Any] = self.model.__dict__
        attributes["train_function"] = function

    def _make_recorder(self) -> StepRecorder:
        """Return a recorder of the statistics that were asked for."""
        with warnings.catch_warnings():
            # The compiled loss is what is recorded, whatever a step of its own trains on.
            warnings.simplefilter("ignore", IgnoredTermWarning)
            model = BaseInfluenceModel(self.model)
        functions: dict[str, Statistic] = {"loss": model.loss_function}
        if set(self._names) - {"loss"}:
            reader = ClassReader(model, self._from_logits)
            functions |= {"margin": reader.margins, "el2n": reader.errors}
        statistics = {name: functions[name] for name in self._names}
        rows = self._largest_batch and self._largest_batch * self.model.steps_per_execution
        return StepRecorder(statistics, model.dtype, self._id_fn, rows)

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
    record = dynamics.recorded if isinstance(dynamics, TrainingDynamics) else dynamics
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


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given or set(given) - set(STATISTICS) or len(set(given)) < len(given):
        message = (
            f"Argument `record` must name some of {', '.join(STATISTICS)}, each once. "
            f"Received: {names!r}."
        )
        raise ValueError(message)
    return given
