"""Curvature of the training objective."""

from .dense import DenseCurvature, dense_curvature, regularizer_hessian

__all__ = ["DenseCurvature", "dense_curvature", "regularizer_hessian"]
