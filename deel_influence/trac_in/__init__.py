"""Tracing the steps of training: TracIn, and products of gradients."""

from .gradient_cosine import GradientCosine
from .gradient_dot import GradientDot
from .recorder import CheckpointRecorder
from .source import SOURCE
from .tracin import TracIn
from .tracin_fast import TracInFast

__all__ = [
    "SOURCE",
    "CheckpointRecorder",
    "GradientCosine",
    "GradientDot",
    "TracIn",
    "TracInFast",
]
