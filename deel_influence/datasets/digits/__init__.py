"""Real handwritten digits that need no download."""

from typing import TYPE_CHECKING

from ...utils.on_demand import on_demand
from .loading import load_digits_arrays, load_digits_dataset

if TYPE_CHECKING:
    from .digits_dataset_builder import Digits

__all__ = ["Digits", "load_digits_arrays", "load_digits_dataset"]

# TensorFlow Datasets, which its base class is of, is loaded where it is asked for.
__getattr__ = on_demand(__name__, Digits=".digits_dataset_builder")
