"""The wrapped model: per-example losses and the weights to watch."""

from .influence_model import BaseInfluenceModel, InfluenceModel, default_process_batch

__all__ = ["BaseInfluenceModel", "InfluenceModel", "default_process_batch"]
