"""How a batch is read where the user says nothing else."""

from __future__ import annotations

from ..types import Batch, ProcessedBatch


def default_process_batch(batch: Batch) -> ProcessedBatch:
    """Read a batch as `keras.Model.fit` does: ``(x, y)`` or ``(x, y, sample_weight)``.

    Raises
    ------
    ValueError
        If the batch is no tuple of two or three parts.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        parts = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else "no tuple"
        message = (
            "A batch must be (x, y) or (x, y, sample_weight). Received: "
            f"{type(batch).__name__} with {parts}. For other forms pass "
            "`process_batch_for_loss_fn=`, a function that returns (x, y, sample_weight or None)."
        )
        raise ValueError(message)
    x, y, *rest = batch
    return x, y, rest[0] if rest else None
