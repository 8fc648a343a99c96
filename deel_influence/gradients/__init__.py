"""Per-example gradients at the speed of a training step."""

from .batch_gradients import Basis, BatchGradients, RotatedGradients
from .engine import GradientEngine

__all__ = ["Basis", "BatchGradients", "GradientEngine", "RotatedGradients"]
