"""Influence by differentiating through a recorded training run."""

from .calculator import UnrolledInfluenceCalculator
from .metasmoothness import smoothness
from .recorded_run import RecordedRun, retrain
from .recording import load_run, record_fit

__all__ = [
    "RecordedRun",
    "UnrolledInfluenceCalculator",
    "load_run",
    "record_fit",
    "retrain",
    "smoothness",
]
