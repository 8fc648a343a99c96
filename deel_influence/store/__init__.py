"""What is computed once of a training set, kept in a folder, and asked many times."""

from .building import build_index
from .cost import IndexCost, index_cost
from .faiss_index import FaissIndex
from .index import Index
from .query_vectors import QueryVectors

__all__ = ["FaissIndex", "Index", "IndexCost", "QueryVectors", "build_index", "index_cost"]
