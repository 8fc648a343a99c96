"""Inverse-Hessian-vector product strategies."""

from .base import InverseHessianVectorProduct
from .exact import ExactIHVP
from .identity import IdentityIHVP
from .registry import IHVPCalculator

__all__ = ["ExactIHVP", "IHVPCalculator", "IdentityIHVP", "InverseHessianVectorProduct"]
