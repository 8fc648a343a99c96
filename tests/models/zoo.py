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
from tests.models.case import STRATEGIES, ModelCase

CASES = [
    *loss_cases.CASES,
    *input_cases.CASES,
    *layer_cases.CASES,
    *sequence_cases.CASES,
    *structure_cases.CASES,
    *precision_cases.CASES,
    *architecture_cases.CASES,
]

IN_FULL = {
    "softmax",
    "sample-weights",
    "mae",
    "void-steps-mean",
    "text-multi-hot",
    "integer-features",
    "lambda-layers",
    "subclassed-head-first",
    "dict-of-outputs",
    "lora-dense",
    "mixed-float16",
}
"""The models whose every strategy is tried on every occasion: one of each kind of trouble."""

SELDOM = {
    "lora-embedding",
    "lora-einsum",
    "connectionist-temporal",
    "multi-head-attention",
    "mse-of-flat-targets",
    "categorical-hinge",
    "squared-hinge",
    "poisson",
    "cosine-similarity",
    "sigmoid",
    "several-sigmoids",
    "categorical-focal",
    "void-steps-sum",
    "hashed-words",
    "binned-numbers",
    "conv2d-transpose",
    "separable-conv2d",
    "time-distributed-dense",
    "time-distributed-conv",
    "prelu",
    "rms-normalisation",
    "grouped-query-attention",
    "list-of-outputs",
    "weights-by-output",
    "lora-conv",
    "int4",
    "int8-with-lora",
    *(
        case.id
        for case in sequence_cases.CASES
        if case.id not in ("masked-steps", "masked-average")
    ),
    *(case.id for case in architecture_cases.CASES),
}
"""The models that are like others, large, or slow to compile: left to ``pytest -m slow``."""


def fast_strategies(case: ModelCase) -> tuple[str, ...]:
    """Return the strategies that are tried on every occasion: as a rule the gradients alone."""
    if case.id in IN_FULL:
        return STRATEGIES
    return () if case.id in SELDOM else ("identity",)
