"""One label and one prediction per example, from what the loss reads and the model gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from deel_influence.errors import LabelError

from ..model.class_scores import ClassReader
from ..model.influence_model import BaseInfluenceModel
from ..model.logit_reading import only_loss, seems_from_logits, told_from_logits
from ..model.measurements import is_binary_loss

# Parts of the names of losses whose single output is a value rather than a class.
_VALUE_LOSSES = (
    "absolute",
    "cosine",
    "hinge",
    "huber",
    "logcosh",
    "mae",
    "mape",
    "mse",
    "msle",
    "poisson",
    "squared",
)


def read_labels(
    targets: Any, outputs: Any, loss: Any, from_logits: bool | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the targets and the outputs of a batch to one number each per example.

    Several outputs are the scores of classes, and the largest is predicted. A single output is
    compared with a threshold if the labels are classes (0 for logits, 0.5 for probabilities), and
    is itself the prediction if they are values.

    Parameters
    ----------
    targets
        Classes ``(b,)`` or ``(b, 1)``, one-hot rows ``(b, c)``, or values ``(b,)`` or ``(b, 1)``.
    outputs
        Model outputs, shape ``(b, c)``, ``(b, 1)`` or ``(b,)``.
    loss
        The Keras loss, or the callable, that compares the two, or a list or dict of one.
    from_logits
        Whether a single output is a logit; None asks the loss.

    Returns
    -------
    Labels, shape ``(b,)``, and predicted labels, shape ``(b,)``: int64 for classes, float64 for
    values.

    Raises
    ------
    LabelError
        If there is not one label per example.
    """
    targets, outputs = _rows(targets, "labels"), _rows(outputs, "outputs")
    loss = only_loss(loss)
    if outputs.ndim == 1 and targets.ndim == 1:
        if not _are_classes(targets, loss):
            return targets.astype(np.float64), outputs.astype(np.float64)
        if from_logits is None:
            from_logits = told_from_logits(loss)
        if from_logits is None:
            from_logits = seems_from_logits(loss)
        threshold = 0.0 if from_logits else 0.5
        labels = np.rint(targets).astype(np.int64)
        return labels, (outputs > threshold).astype(np.int64)
    if outputs.ndim == 2 and targets.ndim == 1 and np.array_equal(targets, np.rint(targets)):
        return targets.astype(np.int64), outputs.argmax(axis=1)
    if outputs.ndim == 2 and targets.shape == outputs.shape and _are_distributions(targets):
        return targets.argmax(axis=1), outputs.argmax(axis=1)
    message = (
        "Triage shows one label per example: a class number (b,), a one-hot row (b, c), or one "
        f"value (b,). Received: labels of shape {targets.shape} and dtype {targets.dtype} for "
        f"outputs of shape {outputs.shape}. Rank such examples with `calculator.score(dataset)`, "
        "which reads no labels."
    )
    raise LabelError(message)


def set_reader(
    model: BaseInfluenceModel, from_logits: bool | None = None
) -> Callable[[Any, Any], tuple[np.ndarray, np.ndarray] | None]:
    """Return what reads sets of classes, where an example can have several.

    It takes the targets and the outputs of a batch, and returns which of the c classes each example
    has, bool, and the logits of the model, float64, both of shape ``(b, c)``. Where the loss takes
    no output for a yes or no of its own, or there is but one, it returns None.

    Parameters
    ----------
    model
        The wrapped model.
    from_logits
        As for `ClassReader`.
    """
    if not is_binary_loss(only_loss(model.loss_function.loss)):
        return lambda targets, outputs: None
    reader = ClassReader(model, from_logits)

    def read(targets: Any, outputs: Any) -> tuple[np.ndarray, np.ndarray] | None:
        given, outputs = tf.convert_to_tensor(targets).numpy(), tf.convert_to_tensor(outputs)
        if outputs.shape.rank != 2 or outputs.shape[1] < 2 or given.shape != outputs.shape:
            return None
        if not np.isin(given, (0, 1)).all():
            message = (
                "Labels of several classes must be 0 or 1 for each class. Received: values from "
                f"{given.min():.3g} to {given.max():.3g}. Round them, if they are probabilities."
            )
            raise LabelError(message)
        # Each output for itself is that of a classifier of two classes.
        logits = reader.scores(tf.reshape(outputs, (-1, 1)))[:, 1]
        return given > 0, tf.reshape(logits, outputs.shape).numpy().astype(np.float64)

    return read


def probability_reader(model: BaseInfluenceModel) -> Callable[[tf.Tensor], np.ndarray | None]:
    """Return what reads the probabilities of the c classes off outputs, shape ``(b, c)``.

    It gives None where outputs say none: for losses other than cross-entropies, and for several
    labels at once.
    """
    loss = only_loss(model.loss_function.loss)
    reader = None if told_from_logits(loss) is None else ClassReader(model)

    def read(outputs: tf.Tensor) -> np.ndarray | None:
        several = is_binary_loss(loss) and outputs.shape.rank == 2 and outputs.shape[1] > 1
        return None if reader is None or several else tf.nn.softmax(reader.scores(outputs)).numpy()

    return read


def _rows(values: Any, name: str) -> np.ndarray:
    """Return an array ``(b, ...)`` without axes of size one beyond the first."""
    if isinstance(values, dict | list | tuple):
        message = (
            f"Triage shows one label per example. Received: {name} in a "
            f"{type(values).__name__} of {len(values)} parts. Rank the examples of a model with "
            "several outputs with `calculator.score(dataset)`, which reads no labels."
        )
        raise LabelError(message)
    # Half-precision types are not all known to NumPy's functions.
    array = tf.convert_to_tensor(values).numpy()
    if array.dtype.kind not in "biu":
        array = array.astype(np.float64)
    return array.reshape(len(array), *(size for size in array.shape[1:] if size != 1))


def _are_classes(targets: np.ndarray, loss: Any) -> bool:
    """Tell classes from values where the model has a single output."""
    name = _loss_name(loss)
    if "binary" in name:
        return True
    if any(part in name for part in _VALUE_LOSSES):
        return False
    return targets.dtype.kind in "biu" or (
        seems_from_logits(loss) is not None and bool(np.all(np.isin(targets, (0, 1))))
    )


def _are_distributions(targets: np.ndarray) -> bool:
    return bool(np.all(targets >= 0) and np.allclose(targets.sum(axis=1), 1.0, atol=1e-3))


def _loss_name(loss: Any) -> str:
    # The class, because the name of a loss object is free text.
    loss = getattr(loss, "func", loss)  # of a partial
    name = getattr(loss, "__name__", None) or type(loss).__name__
    return name.lower().replace("_", "")
