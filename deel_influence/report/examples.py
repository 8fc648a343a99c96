"""The examples of the page, each in the words and numbers that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..utils.formatting import format_number, format_share
from .inputs import Number, Shown
from .reasons import Reasons
from .triage import Triage


@dataclass(frozen=True)
class Label:
    """A label as shown, the number that stands for it, and its probability where it is known."""

    text: str
    value: float
    chance: str = ""


@dataclass(frozen=True)
class Example:
    """One example of the page.

    Attributes
    ----------
    rank, id, loss, score
        As in the triage.
    given, predicted
        The labels; ``differs`` says whether they do (never where labels are values).
    share
        The score as a part of the largest one shown, from 0 to 1.
    shown
        The input.
    why
        What speaks for and against the label, where it is known.
    """

    rank: int
    id: int | str
    given: Label
    predicted: Label
    differs: bool
    loss: Number
    score: Number
    share: float
    shown: Shown
    why: Reasons | None = None


def describe_examples(
    triage: Triage,
    positions: np.ndarray,
    inputs: Sequence[Shown],
    reasons: Sequence[Reasons | None],
) -> list[Example]:
    """Describe the examples at positions ``(k,)``, the first k of those with these inputs."""
    largest = float(triage.scores[positions].max())
    chances = [
        _chances(column, positions)
        for column in (triage.given_probability, triage.predicted_probability)
    ]
    examples = []
    for at, position in enumerate(positions):
        given, predicted = triage.labels[position], triage.predicted[position]
        score = float(triage.scores[position])
        examples.append(
            Example(
                rank=int(triage.ranks[position]),
                id=triage.ids[position].item(),
                given=Label(triage.label_text(given), given.item(), chances[0][at]),
                predicted=Label(triage.label_text(predicted), predicted.item(), chances[1][at]),
                differs=bool(triage.has_classes and given != predicted),
                loss=_measure(triage.losses[position]),
                score=_measure(score),
                share=max(0.0, score / largest) if largest > 0 else 0.0,
                shown=inputs[at],
                why=reasons[at],
            )
        )
    return examples


def _chances(probabilities: np.ndarray | None, positions: np.ndarray) -> list[str]:
    """Write the probabilities at positions ``(k,)``; empty texts where there are none."""
    if probabilities is None:
        return [""] * len(positions)
    return [format_share(float(chance)) for chance in probabilities[positions]]


def _measure(value: float) -> Number:
    return Number(format_number(float(value), keep_zeros=True), float(value))
