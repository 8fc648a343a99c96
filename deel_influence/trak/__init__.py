"""TRAK: attribution with randomly projected after-kernels."""

from .trak import TRAK, checkpoint_seed

__all__ = ["TRAK", "checkpoint_seed"]
