"""What the page shows of an example's input: pictures, features, and names with values."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.display import is_picture_file
from ..utils.formatting import format_number
from .pictures import Picture, draw_file, draw_pictures, is_picture
from .samples import MAX_TABLE_WIDTH, Samples

# So many features get a column each; where there are more, the unusual ones come first.
MAX_FEATURE_COLUMNS = 6
_MAX_FEATURES = 64
_UNUSUAL = 2.0
# A text is cut into what is read at once, what can be opened, and what would burden the page.
_TEXT_START, _MAX_TEXT = 280, 20_000
# A number that comes so many times in a row is padding, or as good as.
_LONG_RUN = 4
# A sequence (t, 1), which is no row of a table, is drawn from so many values on.
_MIN_WAVE = 32
_MAX_CHANNELS = 3
# The drawing of a wave.
WAVE_WIDTH, WAVE_HEIGHT = 240, 48
_MISSING = "–"


@dataclass(frozen=True)
class Number:
    """A number as shown, and as sorted by."""

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
class Fact:
    """A part of an input: its name, a text, what of a long one can be opened, and a drawing.

    The drawing is the ``d`` of an SVG path, of which the text tells the range.
    """

    name: str
    text: str
    rest: str = ""
    wave: str = ""


@dataclass(frozen=True)
class Shown:
    """What is shown of one input; the forms that do not suit it are empty."""

    pictures: list[Picture] = field(default_factory=list)
    features: list[Feature] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)


def describe_inputs(samples: Samples, feature_names: Sequence[str] | None) -> list[Shown]:
    """Say what is shown of each sample.

    Where the caller says what to show, that is it. Pictures among the inputs stay, unless there
    are pictures in it, and so do features that have names.

    Raises
    ------
    ValueError
        If the names are not those of the features.
    DataSourceError
        If the file of a picture cannot be read.
    """
    told, moments = samples.shown, samples.moments
    if told is not None:
        shown = _described(told)
    elif moments is None:
        shown = _described(samples.inputs)
    else:
        shown = [Shown() for _ in samples.inputs]
    if moments is not None:
        names = _feature_names(feature_names, len(moments.mean))
        for one, row in zip(shown, samples.inputs, strict=True):
            one.features.extend(_features(row, names, moments.standardize(row)))
    elif told is not None and not any(one.pictures for one in shown):
        for one, drawn in zip(shown, _described(samples.inputs, only_pictures=True), strict=True):
            one.pictures.extend(drawn.pictures)
    return shown


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
    numbers = {i: Number(format_number(row[i]), float(row[i])) for i in order}
    return [Feature(str(names[i]), numbers[i], float(off[i])) for i in order]


def _described(nests: Sequence[Any], only_pictures: bool = False) -> list[Shown]:
    """Describe nests, part by part."""
    shown = [Shown() for _ in nests]
    parts = [dict(_parts(nest)) for nest in nests]
    # What an example lacks is None.
    for name in dict.fromkeys(name for one in parts for name in one):
        values: list[Any] = [one.get(name) for one in parts]
        drawn = [at for at, value in enumerate(values) if is_picture(value)]
        if drawn and all(is_picture(value) or value is None for value in values):
            for at, picture in zip(drawn, draw_pictures([values[at] for at in drawn]), strict=True):
                shown[at].pictures.append(picture)
        elif not only_pictures:
            for one, value in zip(shown, values, strict=True):
                if is_picture_file(value):
                    one.pictures.append(draw_file(value))
                one.facts.append(_fact(name, value))
    return shown


def _parts(sample: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(sample, dict | list | tuple):
        yield path, sample
        return
    items = sample.items() if isinstance(sample, dict) else enumerate(sample)
    for key, part in items:
        yield from _parts(part, f"{path}/{key}" if path else str(key))


def _fact(name: str, value: Any) -> Fact:
    if isinstance(value, os.PathLike):
        return _text_fact(name, "/".join(Path(value).parts[-2:]))
    if not isinstance(value, np.ndarray):
        return _text_fact(name, _one_value(value))
    array = np.squeeze(value)
    if array.dtype.kind in "SUO" or array.ndim == 0:
        return _text_fact(name, " ".join(map(_one_value, array.ravel().tolist())))
    if array.dtype.kind in "biuf" and array.size:
        if _is_wave(value.ndim, array):
            return Fact(name, _range_text(array), wave=_wave_path(array.reshape(len(array), -1)))
        if array.ndim == 1:
            return _text_fact(name, _sequence(array))
        return Fact(name, _range_text(array))
    return Fact(name, f"{_shape_text(array)} values")


def _text_fact(name: str, text: str) -> Fact:
    if len(text) <= _TEXT_START:
        return Fact(name, text)
    # Between two words, where there are words.
    cut = max(text.rfind(" ", 0, _TEXT_START), _TEXT_START // 2)
    more = "…" if len(text) > _MAX_TEXT else ""
    return Fact(name, text[:cut], text[cut:_MAX_TEXT] + more)


def _one_value(value: Any) -> str:
    """Return a text, a number or anything else as it is shown."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        return _MISSING if math.isnan(value) else format_number(value)
    return _MISSING if str(value) in ("None", "<NA>", "NaT") else str(value)


def _sequence(array: np.ndarray) -> str:
    """Write numbers ``(t,)``, those that repeat once with their count."""
    written = []
    for text, run in itertools.groupby(map(_plain, array.tolist())):
        count = len(list(run))
        written += [f"{text} (× {count})"] if count >= _LONG_RUN else [text] * count
    return " ".join(written)


def _plain(value: float) -> str:
    """Write a number; identifiers such as those of tokens have no thousands."""
    return str(value) if isinstance(value, int) else format_number(value)


def _shape_text(array: np.ndarray) -> str:
    return " × ".join(format_number(size) for size in array.shape)


def _range_text(array: np.ndarray) -> str:
    low, high = format_number(array.min()), format_number(array.max())
    return f"{_shape_text(array)} {array.dtype.name}, from {low} to {high}"


def _is_wave(rank: int, array: np.ndarray) -> bool:
    """Tell whether values over time are better drawn than written."""
    if array.ndim > 2 or (array.ndim == 2 and array.shape[1] > _MAX_CHANNELS):
        return False
    # Whole numbers from zero on are identifiers.
    if array.dtype.kind not in "if" or (array.dtype.kind == "i" and array.min() >= 0):
        return False
    return len(array) > (MAX_TABLE_WIDTH if rank == 1 else _MIN_WAVE)


def _wave_path(channels: np.ndarray) -> str:
    """Draw values ``(t, c)`` as lines; where they are dense, from the lowest to the highest."""
    values = np.nan_to_num(channels.astype(np.float64))
    low, high = values.min(), values.max()
    heights = WAVE_HEIGHT - 1 - (values - low) / ((high - low) or 1.0) * (WAVE_HEIGHT - 2)
    edges = np.linspace(0, len(values), min(len(values), WAVE_WIDTH) + 1).round().astype(int)
    step = WAVE_WIDTH / (len(edges) - 1)
    lines = []
    for line in heights.T:
        bins = [line[a:b] for a, b in itertools.pairwise(edges)]
        points = [
            f"{(at + 0.5) * step:.4g} {y:.3g}"
            for at, part in enumerate(bins)
            for y in dict.fromkeys((part.max(), part.min()))
        ]
        lines.append("M" + "L".join(points))
    return "".join(lines)
