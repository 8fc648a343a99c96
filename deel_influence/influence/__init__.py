"""Influence functions."""

from ..calculators.group import BaseGroupInfluenceCalculator
from .first_order import FirstOrderInfluenceCalculator

__all__ = ["BaseGroupInfluenceCalculator", "FirstOrderInfluenceCalculator"]
