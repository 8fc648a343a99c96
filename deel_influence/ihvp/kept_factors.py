"""What is kept of a training set so that its scores are products."""

from __future__ import annotations

from abc import ABC, abstractmethod

import tensorflow as tf

from ..gradients.batch_gradients import BatchGradients
from ..model.influence_model import BaseInfluenceModel


class KeptFactors(ABC):
    """The two sides of ``g(z)ᵀ H⁻¹ g_i``: what is kept of z_i, and what it is asked with.

    Here they are ``g_i`` and ``H⁻¹ g(z)``. A strategy that can do with less than p numbers for an
    example overrides all three methods.
    """

    model: BaseInfluenceModel

    def train_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return what is kept of the examples of a batch, ``(b, d)``; traceable."""
        return gradients.materialize()

    def asking_factors(self, gradients: BatchGradients) -> tf.Tensor:
        """Return what it is multiplied by to score them for queries, ``(m, d)``; traceable."""
        return self.solve(gradients.materialize())

    def columns_of_layers(self) -> list[tuple[str, int, int]]:
        """Return each layer with the first of its d columns, and their end.

        Empty where columns mix layers.
        """
        layout = self.model.layout
        slots = (block.slot for block in layout.blocks)
        return [(name, *slot) for name, slot in zip(layout.layer_names, slots, strict=True)]

    @abstractmethod
    def solve(self, vectors: tf.Tensor) -> tf.Tensor:
        """Return ``H⁻¹ v`` for every row of ``vectors``, shape ``(b, p)``."""
