"""How a batch is read: as the user says, or else as `keras.Model.fit` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ..errors import BatchError, LabelError
from ..types import Batch, BatchProcessor, ProcessedBatch
from ..utils.tensors import dense, is_ragged

_PARTS = ("inputs", "labels", "sample weights")


def default_process_batch(batch: Batch) -> ProcessedBatch:
    """Read a batch as `keras.Model.fit` does: ``(x, y)`` or ``(x, y, sample_weight)``.

    Raises
    ------
    BatchError
        If the batch is no tuple of two or three parts.
    LabelError
        If its parts do not fit each other, or are ragged.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        message = (
            f"A batch must be (x, y) or (x, y, sample_weight). Received: {_form(batch)}. For "
            "other forms pass `process_batch_for_loss_fn=`, a function that returns (x, y, "
            "sample_weight or None)."
        )
        raise BatchError(message)
    x, y, *rest = batch
    return _checked(x, y, rest[0] if rest else None)


@dataclass(frozen=True)
class CheckedProcess:
    """A user's function of batches, whose results are checked and made dense.

    Attributes
    ----------
    process
        Returns ``(inputs, targets, sample_weight or None)``.
    """

    process: BatchProcessor

    def __post_init__(self) -> None:
        """Refuse what is no function."""
        if not callable(self.process):
            message = (
                "Argument `process_batch_for_loss_fn` must be a function of a batch. Received: "
                f"{type(self.process).__name__}. Leave it out for batches (x, y) or "
                "(x, y, sample_weight)."
            )
            raise TypeError(message)

    def __call__(self, batch: Batch) -> ProcessedBatch:
        """Read a batch; errors are those of `default_process_batch`."""
        result = self.process(batch)
        if not isinstance(result, (tuple, list)) or len(result) != 3:
            message = (
                "Argument `process_batch_for_loss_fn` must return (x, y, sample_weight or None). "
                f"Received: a function that returns {_form(result)}. Return (x, y, None) where "
                "there are no weights."
            )
            raise BatchError(message)
        return _checked(*result)


def checked_process(process: BatchProcessor) -> BatchProcessor:
    """Return a function of batches that checks what it reads."""
    own = process is default_process_batch or isinstance(process, CheckedProcess)
    return process if own else CheckedProcess(process)


def _form(value: Any) -> str:
    several = isinstance(value, (tuple, list, dict))
    return f"a {type(value).__name__} of {len(value)} parts" if several else type(value).__name__


def _checked(x: Any, y: Any, sample_weight: Any) -> ProcessedBatch:
    """Return the parts of a batch with sparse tensors made dense.

    Raises
    ------
    LabelError
        If one is ragged, if weights are no numbers, or if their numbers of examples are others.
    """
    parts = (x, y, sample_weight)
    for name, part in zip(_PARTS, parts, strict=True):
        if is_ragged(part):
            message = (
                f"The {name} must be tensors of one shape for all examples of a batch. Received: a "
                "ragged tensor. Pad it in the dataset, as in dataset.map(lambda x, y: "
                "(x.to_tensor(), y)), or with padded_batch."
            )
            raise LabelError(message)
    leaves = [part for part in tf.nest.flatten(sample_weight) if part is not None]
    texts = next((t for t in map(tf.convert_to_tensor, leaves) if t.dtype == tf.string), None)
    if texts is not None:
        message = (
            "The sample weights must be numbers. Received: texts, dtype string, shape "
            f"{texts.shape}. Convert them in the dataset with tf.strings.to_number."
        )
        raise LabelError(message)
    sizes = {name: _size(part) for name, part in zip(_PARTS, parts, strict=True)}
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        counted = " and ".join(f"{size} {name}" for name, size in known.items())
        message = (
            "A batch must have as many labels, and sample weights, as inputs. Received: "
            f"{counted}. Keep those of the same examples."
        )
        raise LabelError(message)
    return dense(x), dense(y), dense(sample_weight)


def check_density(dataset: tf.data.Dataset, argument: str, model: Any) -> None:
    """Refuse sparse inputs for a model that declares dense ones.

    Raises
    ------
    BatchError
        Says how either can be changed.
    """
    inputs = getattr(model.model, "inputs", None) or []
    spec = dataset.element_spec
    given = tf.nest.flatten(spec[0] if isinstance(spec, tuple) else spec)
    sparse = any(isinstance(part, tf.SparseTensorSpec) for part in given)
    if sparse and inputs and not any(getattr(part, "sparse", False) for part in inputs):
        message = (
            f"Argument `{argument}` must have dense inputs where those of the model are. Received: "
            "sparse tensors. Declare keras.Input(..., sparse=True), or map the dataset: "
            "dataset.map(lambda x, y: (tf.sparse.to_dense(x), y))."
        )
        raise BatchError(message)


def _size(nest: Any) -> int | None:
    """Return the number of examples of the first tensor in a nest, where it is known."""
    shape = getattr(next(iter(tf.nest.flatten(nest)), None), "shape", ())
    shape = tf.TensorShape(shape)
    return shape[0] if shape.rank else None
