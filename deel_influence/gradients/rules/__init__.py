"""The layer rules of the gradient engine."""

from .base import LayerRule, LayerUse, OwnedBlock
from .registry import RULES, find_rule

__all__ = ["RULES", "LayerRule", "LayerUse", "OwnedBlock", "find_rule"]
