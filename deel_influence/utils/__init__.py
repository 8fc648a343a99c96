"""Utilities: datasets, ids, top-k, neighbours, devices, progress."""

from .datasets import array_to_dataset, count_examples
from .example_ids import ids_of
from .intake import as_dataset, with_ids
from .memory import memory_limit
from .nearest_neighbors import BaseNearestNeighbors, LinearNearestNeighbors
from .progress import progress_bar
from .top_k import ORDER, BatchSort

__all__ = [
    "ORDER",
    "BaseNearestNeighbors",
    "BatchSort",
    "LinearNearestNeighbors",
    "array_to_dataset",
    "as_dataset",
    "count_examples",
    "ids_of",
    "memory_limit",
    "progress_bar",
    "with_ids",
]
