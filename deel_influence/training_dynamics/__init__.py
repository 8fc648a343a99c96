"""Scores from the course of training: margins, forgetting, early errors and gradients."""

from .area_under_margin import AreaUnderMargin
from .base import RecordedScore
from .callback import TrainingDynamics
from .el2n import EL2N
from .forgetting_events import ForgettingEvents
from .grand import GraNd
from .in_run import InRunRecorder
from .in_run_shapley import InRunShapley
from .record import RecordedDynamics
from .recorded_means import RecordedEL2N, RecordedLoss

__all__ = [
    "EL2N",
    "AreaUnderMargin",
    "ForgettingEvents",
    "GraNd",
    "InRunRecorder",
    "InRunShapley",
    "RecordedDynamics",
    "RecordedEL2N",
    "RecordedLoss",
    "RecordedScore",
    "TrainingDynamics",
]
