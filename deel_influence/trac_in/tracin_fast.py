"""TracIn on the last layer, without a backward pass through the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ..gradients.projections.registry import ProjectionLike
from ..model.copies import BuildFunction
from ..model.influence_model import BaseInfluenceModel, check_influence_model
from ..model.measurements import Measurement
from ..model.selection import LayerKey, select_weights
from .tracin import Model, TracIn


class TracInFast(TracIn):
    """`TracIn` with the gradients in the last layer alone [1]_.

    Of a Dense layer with inputs a (1 for the bias at their end) and output gradients δ the score
    is ``Σ_t η_t (aᵀa_i)(δᵀδ_i)``: it takes a forward pass, and a backward pass that ends at the
    last layer. Sign and scale are those of `TracIn`.

    Parameters
    ----------
    models, learning_rates, model, build
        As for `TracIn`. Which weights the models watch does not matter.
    final_layer
        Name or index of the layer; None takes the last one that has weights.
    projection, projection_dim, seed, measurement
        As for `TracIn`.

    References
    ----------
    .. [1] G. Pruthi, F. Liu, S. Kale, M. Sundararajan. Estimating Training Data Influence by
       Tracing Gradient Descent. NeurIPS 2020, section 3.3 and appendix F.
    """

    def __init__(
        self,
        models: Sequence[Model],
        learning_rates: float | Sequence[float],
        model: BaseInfluenceModel | None = None,
        build: BuildFunction | None = None,
        final_layer: LayerKey = None,
        projection: ProjectionLike = None,
        projection_dim: Any = None,
        seed: int = 0,
        measurement: Measurement = None,
    ) -> None:
        if model is not None:
            model = _on_last_layer(model, final_layer)
        elif isinstance(models, (list, tuple)):
            models = [
                _on_last_layer(m, final_layer) if isinstance(m, BaseInfluenceModel) else m
                for m in models
            ]
        super().__init__(
            models, learning_rates, model, build, projection, projection_dim, seed, measurement
        )


def _on_last_layer(model: BaseInfluenceModel, final_layer: LayerKey) -> BaseInfluenceModel:
    """Return the model as one that watches its last layer only."""
    check_influence_model(model)

    def make() -> BaseInfluenceModel:
        weights = (
            _last_weights(model.model)
            if final_layer is None
            else select_weights(model.model, final_layer, None)
        )
        return model.rewrapped(weights=weights)

    return model.resource(("last_layer", final_layer), make)


def _last_weights(model: keras.Model) -> list[keras.Variable]:
    """Return the weights of the last layer that has some, inside of nested models too."""
    inner = [layer for layer in model.layers if layer.trainable_variables]
    if inner and isinstance(inner[-1], keras.Model):
        return _last_weights(inner[-1])
    return select_weights(model, None, None)
