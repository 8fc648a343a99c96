"""The names that users of Influenciae import from `common`."""

from ..calculators.base import BaseInfluenceCalculator
from ..calculators.caching import CACHE
from ..calculators.self_influence import SelfInfluenceCalculator
from ..ihvp.base import InverseHessianVectorProduct
from ..ihvp.exact import ExactIHVP
from ..ihvp.identity import IdentityIHVP
from ..ihvp.registry import IHVPCalculator
from ..model.influence_model import BaseInfluenceModel, InfluenceModel

__all__ = [
    "CACHE",
    "BaseInfluenceCalculator",
    "BaseInfluenceModel",
    "ExactIHVP",
    "IHVPCalculator",
    "IdentityIHVP",
    "InfluenceModel",
    "InverseHessianVectorProduct",
    "SelfInfluenceCalculator",
]
