"""A Keras callback that records what each example did during training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from ..errors import IgnoredTermWarning
from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel
from .fit_recorder import FitRecorder
from .recorder import StepRecorder

STATISTICS = ("margin", "loss", "el2n")

Statistic = Callable[[Any, Any], tf.Tensor]
"""``statistic(targets, outputs)``, one number for each example, shape ``(b,)``."""


class TrainingDynamics(FitRecorder):
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
        names = _check_names(record)
        super().__init__(names, epochs, id_fn, batch_size, path, resume)
        self._from_logits = from_logits
        self._statistics: dict[str, Statistic] = {}

    def _make_recorder(self) -> StepRecorder:
        with warnings.catch_warnings():
            # The compiled loss is what is recorded, whatever a step of its own trains on.
            warnings.simplefilter("ignore", IgnoredTermWarning)
            model = BaseInfluenceModel(self.model)
        functions: dict[str, Statistic] = {"loss": model.loss_function}
        if set(self._names) - {"loss"}:
            reader = ClassReader(model, self._from_logits)
            functions |= {"margin": reader.margins, "el2n": reader.errors}
        self._statistics = {name: functions[name] for name in self._names}
        return StepRecorder(len(self._names), model.dtype, self._id_fn, self._rows_per_call())

    def _loss_computed(self, x: Any, y: Any, y_pred: Any) -> None:
        if self._recorder is not None:
            columns = [function(y, y_pred) for function in self._statistics.values()]
            self._recorder.write(x, y, tf.stack(columns, axis=1))


def _check_names(names: Sequence[str]) -> tuple[str, ...]:
    given = (names,) if isinstance(names, str) else tuple(names)
    if not given or set(given) - set(STATISTICS) or len(set(given)) < len(given):
        message = (
            f"Argument `record` must name some of {', '.join(STATISTICS)}, each once. "
            f"Received: {names!r}."
        )
        raise ValueError(message)
    return given
