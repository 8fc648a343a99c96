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

IdFunction: TypeAlias = Callable[[Batch], Any]
"""Gives the int64 ids ``(b,)`` of the examples in a batch."""

Verbosity: TypeAlias = Any
"""``"auto"``, 0, 1 or 2, as in Keras."""
