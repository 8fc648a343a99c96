"""The examples of the page, each in the words and numbers that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..utils.formatting import format_number
from .pictures import is_picture, picture_uris
from .samples import Samples
from .triage import Triage

# So many features get a column each; where there are more, the unusual ones come first.
MAX_FEATURE_COLUMNS = 6
_MAX_FEATURES = 64
# Smaller pictures are enlarged with sharp pixels.
_SMALL_SIDE = 96
_UNUSUAL = 2.0
_MAX_TEXT = 280
_MAX_FACTS = 12


@dataclass(frozen=True)
class Number:
    """A number as shown, and as sorted by."""

    text: str
    value: float


@dataclass(frozen=True)
class Label:
    """A label as shown, and the number that stands for it."""

    text: str
    value: float


@dataclass(frozen=True)
class Feature:
    """A feature's name and value, and how many standard deviations it is off the mean."""

    name: str
    number: Number
    off: float

    @property
    def off_text(self) -> str:
        """The distance from the mean, with its sign."""
        return f"{self.off:+.1f}\N{NO-BREAK SPACE}sd".replace("-", "\N{MINUS SIGN}")

    @property
    def is_unusual(self) -> bool:
        """Whether the value is far from the mean."""
        return abs(self.off) >= _UNUSUAL


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI."""

    uri: str
    is_small: bool


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
    picture, features, facts
        The input, in the form that suits it; the others are empty. Facts are names and texts.
    """

    rank: int
    id: int | str
    given: Label
    predicted: Label
    differs: bool
    loss: Number
    score: Number
    share: float
    picture: Picture | None = None
    features: list[Feature] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def describe_examples(
    triage: Triage,
    positions: np.ndarray,
    samples: Samples,
    class_names: Sequence[str] | None,
    feature_names: Sequence[str] | None,
) -> list[Example]:
    """Describe the examples at some positions ``(k,)``, whose inputs are ``samples``."""
    inputs = _describe_inputs(samples, feature_names)
    largest = float(triage.scores[positions].max())
    is_class = is_classification(triage)
    examples = []
    for position, shown in zip(positions, inputs, strict=True):
        given, predicted = triage.labels[position], triage.predicted[position]
        score = float(triage.scores[position])
        examples.append(
            Example(
                rank=int(triage.ranks[position]),
                id=triage.ids[position].item(),
                given=Label(label_text(given, class_names), given.item()),
                predicted=Label(label_text(predicted, class_names), predicted.item()),
                differs=bool(is_class and given != predicted),
                loss=_measure(triage.losses[position]),
                score=_measure(score),
                share=max(0.0, score / largest) if largest > 0 else 0.0,
                **shown,
            )
        )
    return examples


def is_classification(triage: Triage) -> bool:
    """Tell whether the labels are classes rather than values."""
    return triage.labels.dtype.kind != "f"


def label_text(label: Any, class_names: Sequence[str] | None) -> str:
    """Return the name of a class where there is one, or else the number."""
    if isinstance(label, np.floating):
        return format_number(float(label))
    return str(int(label)) if class_names is None else class_names[int(label)]


def _describe_inputs(samples: Samples, feature_names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return for each sample the keyword of `Example` that shows it."""
    moments = samples.moments
    if moments is not None:
        names = _feature_names(feature_names, len(moments.mean))
        return [
            {"features": _features(row, names, moments.standardize(row))} for row in samples.inputs
        ]
    if all(is_picture(sample) for sample in samples.inputs):
        uris = picture_uris(samples.inputs)
        return [
            {"picture": Picture(uri, max(sample.shape[:2]) < _SMALL_SIDE)}
            for uri, sample in zip(uris, samples.inputs, strict=True)
        ]
    return [{"facts": _facts(sample)} for sample in samples.inputs]


def _feature_names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    if names is None:
        return [f"x{i}" for i in range(count)]
    if len(names) != count:
        message = (
            f"Argument `feature_names` must name each of the {count} features of an example. "
            f"Received: {len(names)} names."
        )
        raise ValueError(message)
    return names


def _features(row: np.ndarray, names: Sequence[str], off: np.ndarray) -> list[Feature]:
    """Describe a row ``(d,)`` that is ``off (d,)`` standard deviations off the mean."""
    order = list(range(len(row)))
    if len(row) > MAX_FEATURE_COLUMNS:
        furthest = np.argsort(-np.abs(off), kind="stable")
        order = furthest[:_MAX_FEATURES].tolist()
    return [Feature(names[i], _number(row[i]), float(off[i])) for i in order]


def _facts(sample: Any) -> list[tuple[str, str]]:
    """Name the parts of an input that is neither a picture nor a feature vector."""
    return [(name, _preview(part)) for name, part in _parts(sample)][:_MAX_FACTS]


def _parts(sample: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(sample, dict | list | tuple):
        yield path, sample
        return
    items = sample.items() if isinstance(sample, dict) else enumerate(sample)
    for key, part in items:
        yield from _parts(part, f"{path}/{key}" if path else str(key))


def _preview(array: np.ndarray) -> str:
    array = np.asarray(array)
    if array.ndim == 0:
        value = array.item()
        if isinstance(value, bytes):
            text = value.decode("utf-8", errors="replace")
            return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
        return format_number(value)
    shape = " × ".join(str(size) for size in array.shape)
    if array.dtype.kind in "biuf" and array.size:
        low, high = format_number(array.min()), format_number(array.max())
        return f"{shape} {array.dtype.name}, from {low} to {high}"
    return f"{shape} values"


def _number(value: Any) -> Number:
    return Number(format_number(value), float(value))


def _measure(value: Any) -> Number:
    return Number(format_number(float(value), keep_zeros=True), float(value))
