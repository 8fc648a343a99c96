"""A callback that keeps models and learning rates on the way."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras

from ..errors import UnsupportedModelError
from ..linalg.checks import check_count
from ..trac_in.recorder import CheckpointRecorder


class ModelsSaver(CheckpointRecorder):
    """Keep copies of the model, and the learning rates in use, at chosen epochs or steps.

    What it keeps is what TracIn takes: ``TracIn(models, learning_rates)``, the models wrapped. It
    holds every copy in memory; `CheckpointRecorder` writes files instead.

    Parameters
    ----------
    epochs_to_save
        Epochs, counted from 0 as Keras does, after which the model is kept.
    optimizer
        Without effect: the optimizer is that of the model.
    saving_path
        A folder to which a `CheckpointRecorder` writes the weights as well, for
        `TracIn.from_folder`; None writes nothing.
    steps_to_save
        Steps of the optimizer, counted from 1, after which the model is kept, in place of
        ``epochs_to_save``.

    Attributes
    ----------
    models
        The kept models: copies that training does not change, with the same loss.
    learning_rates
        For each of them the learning rate of the step before it, schedules and other callbacks
        included; floats.

    Raises
    ------
    ValueError
        Unless either epochs or steps are given, as whole numbers.
    TypeError
        If they are not given in a list.
    UnsupportedModelError
        When the training begins, if the model cannot be copied.
    """

    def __init__(
        self,
        epochs_to_save: Collection[int] = (),
        optimizer: Any = None,  # noqa: ARG002 - kept for users of Influenciae
        saving_path: str | Path | None = None,
        steps_to_save: Collection[int] = (),
    ) -> None:
        self.epochs_to_save = check_moments("epochs_to_save", epochs_to_save, first=0)
        self.steps_to_save = check_moments("steps_to_save", steps_to_save, first=1)
        if bool(self.epochs_to_save) == bool(self.steps_to_save):
            message = (
                "Argument `epochs_to_save` or `steps_to_save` must be given, and not both. "
                f"Received: epochs_to_save={epochs_to_save!r}, steps_to_save={steps_to_save!r}."
            )
            raise ValueError(message)
        if self.steps_to_save:
            super().__init__(saving_path or "", steps=self.steps_to_save)
        else:
            # Counted from 1 there.
            super().__init__(saving_path or "", epochs=[e + 1 for e in self.epochs_to_save])
        self._writes_files = saving_path is not None
        self.models: list[keras.Model] = []
        self.learning_rates: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        _copy_of(self.model)  # refuses a model that has no copy before it is trained
        self._is_begun = False
        if self._writes_files:
            super().on_train_begin(logs)

    def _record(self, step: int, epoch: int) -> None:
        self.models.append(_copy_of(self.model))
        self.learning_rates.append(float(self._rate))
        if self._writes_files:
            super()._record(step, epoch)


def check_moments(name: str, moments: Any, first: int) -> list[int]:
    """Return epochs or steps in ascending order.

    Raises
    ------
    TypeError
        If they are no collection, such as a single number.
    ValueError
        If they are not whole numbers of at least ``first``.
    """
    if not isinstance(moments, Collection) or isinstance(moments, str | bytes):
        message = (
            f"Argument `{name}` must be a list of whole numbers. Received: {moments!r}. Put a "
            "single one in brackets."
        )
        raise TypeError(message)
    return sorted(check_count(name, moment, first) for moment in moments)


def _copy_of(model: keras.Model) -> keras.Model:
    """Return a model of the same weights and the same loss that shares nothing with it.

    Raises
    ------
    UnsupportedModelError
        If Keras cannot make one.
    """
    # New layers draw their seeds from Python's generator, which goes on as if none were made.
    state = random.getstate()
    try:
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError) as error:
        message = (
            "ModelsSaver needs a model that Keras can copy, such as a Sequential or a functional "
            f"one. Received: {type(model).__name__} {model.name!r}. Use CheckpointRecorder, which "
            "keeps the weights of any model in files, with TracIn.from_folder."
        )
        raise UnsupportedModelError(message) from error
    finally:
        random.setstate(state)
    # Only a loss of several parts has weights that matter.
    in_parts = isinstance(model.loss, dict | list | tuple)
    weights = model.get_compile_config().get("loss_weights") if in_parts else None
    copy.compile(loss=model.loss, loss_weights=weights)
    return copy
