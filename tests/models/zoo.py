"""The table of models, family by family."""

from __future__ import annotations

from tests.models import (
    architecture_cases,
    input_cases,
    layer_cases,
    loss_cases,
    precision_cases,
    sequence_cases,
    structure_cases,
)

CASES = [
    *loss_cases.CASES,
    *input_cases.CASES,
    *layer_cases.CASES,
    *sequence_cases.CASES,
    *structure_cases.CASES,
    *precision_cases.CASES,
    *architecture_cases.CASES,
]
