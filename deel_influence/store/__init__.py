"""What is computed once of a training set, kept in a folder, and asked many times."""

from .building import build_index
from .index import Index
from .query_vectors import QueryVectors

__all__ = ["Index", "QueryVectors", "build_index"]
