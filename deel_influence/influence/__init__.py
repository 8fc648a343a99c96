"""Influence functions."""

from ..calculators.group import BaseGroupInfluenceCalculator
from .arnoldi import ArnoldiInfluenceCalculator
from .breakdown import InfluenceBreakdownCalculator, LayerScores, TokenScores
from .first_order import FirstOrderInfluenceCalculator
from .newton_step import NewtonStepInfluenceCalculator
from .perturbation import PerturbationInfluenceCalculator
from .perturbation_blocks import PerturbationBlock
from .second_order import SecondOrderInfluenceCalculator
from .training_set_attack import AttackResult, attack

__all__ = [
    "ArnoldiInfluenceCalculator",
    "AttackResult",
    "BaseGroupInfluenceCalculator",
    "FirstOrderInfluenceCalculator",
    "InfluenceBreakdownCalculator",
    "LayerScores",
    "NewtonStepInfluenceCalculator",
    "PerturbationBlock",
    "PerturbationInfluenceCalculator",
    "SecondOrderInfluenceCalculator",
    "TokenScores",
    "attack",
]
