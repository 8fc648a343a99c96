"""Real handwritten digits that need no download."""

from .digits_dataset_builder import Digits
from .loading import load_digits_arrays, load_digits_dataset

__all__ = ["Digits", "load_digits_arrays", "load_digits_dataset"]
