"""Curvatures by name, the regulariser included."""

from __future__ import annotations

from typing import Any

from ..linalg.linear_operator import LinearOperator
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from ..utils.takes_data import takes_data
from .fisher import EmpiricalFisherOperator, FisherOperator
from .gauss_newton import GaussNewtonOperator
from .hessian import HessianOperator
from .operator import CurvatureOperator
from .regularizer import RegularizerOperator

CURVATURES: dict[str, type[CurvatureOperator]] = {
    operator.kind: operator
    for operator in (HessianOperator, GaussNewtonOperator, FisherOperator, EmpiricalFisherOperator)
}


def check_curvature(kind: Any) -> str:
    """Return the name of a curvature.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if kind not in CURVATURES:
        message = f"Argument `curvature` must be one of {tuple(CURVATURES)}. Received: {kind!r}."
        raise ValueError(message)
    return str(kind)


@takes_data
def loss_curvature(
    kind: str, model: BaseInfluenceModel, dataset: Data, seed: int | None = None
) -> CurvatureOperator:
    """Return the operator of the mean loss of that name.

    Parameters
    ----------
    kind
        A key of `CURVATURES`.
    model, dataset
        The wrapped model and the examples.
    seed
        Fixes what the Fisher matrix samples.
    """
    strategy = CURVATURES[check_curvature(kind)]
    if strategy is FisherOperator:
        return FisherOperator(model, dataset, seed=seed)
    return strategy(model, dataset)


def with_regularizer(operator: LinearOperator, model: BaseInfluenceModel) -> LinearOperator:
    """Return the curvature of loss and regularisers together."""
    return operator + RegularizerOperator(model) if model.is_regularized else operator
