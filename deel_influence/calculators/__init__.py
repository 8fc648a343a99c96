"""Base classes that stream datasets through compiled kernels."""

from .base import BaseInfluenceCalculator
from .blocks import InfluenceBlock
from .caching import CACHE
from .group import BaseGroupInfluenceCalculator
from .scores import Scores
from .self_influence import SelfInfluenceCalculator
from .stored_matrix import StoredMatrix
from .top_k import TopK

__all__ = [
    "CACHE",
    "BaseGroupInfluenceCalculator",
    "BaseInfluenceCalculator",
    "InfluenceBlock",
    "Scores",
    "SelfInfluenceCalculator",
    "StoredMatrix",
    "TopK",
]
