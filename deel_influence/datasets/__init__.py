"""Training sets by name: files, folders, TensorFlow Datasets, and label noise to test with."""

from typing import TYPE_CHECKING

from ..utils.on_demand import on_demand
from .digits.loading import load_digits_dataset
from .label_noise import flip_labels
from .source import DataSource
from .sources import load_source
from .table import Columns

if TYPE_CHECKING:
    from .digits.digits_dataset_builder import Digits

__all__ = [
    "Columns",
    "DataSource",
    "Digits",
    "flip_labels",
    "load_digits_dataset",
    "load_source",
]

# TensorFlow Datasets, which its base class is of, is loaded where it is asked for.
__getattr__ = on_demand(__name__, Digits=".digits.digits_dataset_builder")
