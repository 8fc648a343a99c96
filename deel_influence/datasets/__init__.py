"""Training sets by name: files, folders, TensorFlow Datasets, and label noise to test with."""

from .digits import Digits, load_digits_dataset
from .label_noise import flip_labels
from .source import DataSource
from .sources import load_source

__all__ = [
    "DataSource",
    "Digits",
    "flip_labels",
    "load_digits_dataset",
    "load_source",
]
