"""The names that users of Influenciae import from `common`."""

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.caching import CACHE
from ..calculators.self_influence import SelfInfluenceCalculator
from ..curvature.hessian import ForwardOverBackwardHVP
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.conjugate_gradients import ConjugateGradientDescentIHVP
from ..ihvp.exact import ExactIHVP
from ..ihvp.factories import (
    CGDIHVPFactory,
    ExactIHVPFactory,
    InverseHessianVectorProductFactory,
    LissaIHVPFactory,
)
from ..ihvp.identity import IdentityIHVP
from ..ihvp.lissa import LissaIHVP
from ..ihvp.registry import IHVPCalculator
from ..model.influence_model import BaseInfluenceModel, InfluenceModel

__all__ = [
    "CACHE",
    "BaseInfluenceCalculator",
    "BaseInfluenceModel",
    "CGDIHVPFactory",
    "ConjugateGradientDescentIHVP",
    "ExactIHVP",
    "ExactIHVPFactory",
    "ForwardOverBackwardHVP",
    "IHVPCalculator",
    "IdentityIHVP",
    "InfluenceModel",
    "InverseHessianVectorProduct",
    "InverseHessianVectorProductFactory",
    "LissaIHVP",
    "LissaIHVPFactory",
    "SelfInfluenceCalculator",
]
