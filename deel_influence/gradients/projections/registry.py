"""Projections by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...model.influence_model import BaseInfluenceModel
from .base import Projection
from .dense import GaussianProjection, RademacherProjection
from .factgrass import FactGraSSProjection
from .logra import LoGraProjection
from .sparse import MaskProjection, SJLTProjection

PROJECTIONS: dict[str, type[Projection]] = {
    kind.name: kind
    for kind in (
        GaussianProjection,
        RademacherProjection,
        SJLTProjection,
        MaskProjection,
        LoGraProjection,
        FactGraSSProjection,
    )
}
"""The kinds, by the names that `projection=` takes."""

ProjectionLike: TypeAlias = str | Projection | Mapping[str, Any] | None
"""What `projection=` takes: a name, a Projection, its settings, or None."""


def resolve_projection(
    projection: ProjectionLike, projection_dim: Any, seed: int, model: BaseInfluenceModel
) -> Projection | None:
    """Return the projection that an argument `projection=` asks for.

    Parameters
    ----------
    projection
        ``"gaussian"``, ``"rademacher"``, ``"sjlt"``, ``"mask"``, ``"logra"``, ``"factgrass"``, a
        `Projection`, the settings that its `get_config` gave, or None for none.
    projection_dim
        The number k of features; for ``"logra"`` the features of each layer, ``(inputs,
        outputs)`` or one number for both sides, and for ``"factgrass"`` their number. None takes
        2,048, ``(16, 16)`` and 256. Where k is p or more, all p numbers are kept as they are: a
        projection would only add noise.
    seed
        Fixes the map.
    model
        The wrapped model whose gradients are projected.

    Raises
    ------
    ValueError
        For an unknown name, or a Projection made for weights of other shapes.
    """
    if projection is None:
        return None
    if isinstance(projection, Projection):
        return _checked(projection, model)
    if isinstance(projection, Mapping):
        return Projection.from_config(projection, model)
    if projection not in PROJECTIONS:
        message = (
            f"Argument `projection` must be one of {sorted(PROJECTIONS)}, a Projection or None. "
            f"Received: {projection!r}."
        )
        raise ValueError(message)
    return PROJECTIONS[projection].of_dim(model, projection_dim, seed)


def _checked(projection: Projection, model: BaseInfluenceModel) -> Projection:
    same = projection.layout.shapes == model.layout.shapes and projection.dtype == model.dtype
    if not same:
        message = (
            "Argument `projection` must be made for watched weights of the same shapes. Received: "
            f"one for {projection.layout.size} {projection.dtype.name} parameters where the model "
            f"watches {model.nb_params} {model.dtype.name} ones. Make it from this model, or pass "
            "its name."
        )
        raise ValueError(message)
    return projection
