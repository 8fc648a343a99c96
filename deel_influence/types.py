"""Names for the types that cross module borders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

Batch: TypeAlias = Any
"""What a batched dataset yields: ``(x, y)``, ``(x, y, sample_weight)``, dicts and nests of them."""

ProcessedBatch: TypeAlias = tuple[Any, Any, Any]
"""``(inputs, targets, sample_weight or None)``, each a nest of tensors with the examples first."""

BatchProcessor: TypeAlias = Callable[[Batch], ProcessedBatch]
"""Turns what a dataset yields into a `ProcessedBatch`."""

LossFunction: TypeAlias = Callable[[Any, Any], tf.Tensor]
"""``loss(targets, outputs)``, one value or more per example."""

Data: TypeAlias = Any
"""Examples as `fit` takes them: a batched `tf.data.Dataset`, arrays or DataFrames ``(x, y)``, a
`keras.utils.PyDataset`, a Hugging Face dataset, a sequence of batches, a function that starts a
generator of batches, or a `DataSource`. See `as_dataset`."""

IdFunction: TypeAlias = Callable[[Batch], Any] | str
"""Gives the ids ``(b,)`` of the examples in a batch, integers or texts; ``"content"`` makes them of
the inputs, ``"position"`` counts."""

Verbosity: TypeAlias = Any
"""``"auto"``, 0, 1 or 2, as in Keras."""
