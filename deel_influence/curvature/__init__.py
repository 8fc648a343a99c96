"""Curvature of the training objective: operators, dense matrices and Kronecker factors."""

from .data import CurvatureData
from .dense import DenseCurvature, dense_curvature, regularizer_hessian
from .fisher import EmpiricalFisherOperator, FisherOperator
from .gauss_newton import GaussNewtonOperator
from .hessian import HessianOperator
from .operator import CurvatureOperator
from .registry import CURVATURES
from .regularizer import RegularizerOperator

__all__ = [
    "CURVATURES",
    "CurvatureData",
    "CurvatureOperator",
    "DenseCurvature",
    "EmpiricalFisherOperator",
    "FisherOperator",
    "GaussNewtonOperator",
    "HessianOperator",
    "RegularizerOperator",
    "dense_curvature",
    "regularizer_hessian",
]
