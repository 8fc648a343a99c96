"""Random projections of gradients, for `projection=` of any gradient method."""

from .base import IdentityProjection, Projection
from .dense import DenseProjection, GaussianProjection, RademacherProjection
from .factgrass import FactGraSSProjection
from .logra import LoGraProjection
from .registry import PROJECTIONS, resolve_projection
from .sparse import MaskProjection, SJLTProjection

__all__ = [
    "PROJECTIONS",
    "DenseProjection",
    "FactGraSSProjection",
    "GaussianProjection",
    "IdentityProjection",
    "LoGraProjection",
    "MaskProjection",
    "Projection",
    "RademacherProjection",
    "SJLTProjection",
    "resolve_projection",
]
