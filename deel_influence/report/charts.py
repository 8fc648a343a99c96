"""The geometry of the plots; the page's template turns it into SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..utils.formatting import format_number, power_of_ten
from .contents import Curve

WIDTH, HEIGHT = 440.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 26.0, 50.0
FLOOR = HEIGHT - BOTTOM

# What the template has to know of the drawing.
FRAME = {
    "width": WIDTH,
    "height": HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "floor": FLOOR,
}

_MAX_BINS = 48
# What is below this part of the largest score goes into the first bin of a logarithmic axis.
_SMALLEST_PART = 1e-8
# A line is about this many units long, so that more points would not be seen.
_MAX_POINTS = 400


@dataclass(frozen=True)
class Tick:
    """A mark on an axis, at a position in the drawing."""

    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bin: the height of all its examples and that of the highlighted ones among them."""

    x: float
    width: float
    height: float
    marked_height: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """A histogram of scores, with the highlighted ones marked."""

    bars: list[Bar]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    threshold: float
    is_logarithmic: bool


@dataclass(frozen=True)
class Line:
    """A line of a plot, as the ``points`` of an SVG polyline."""

    name: str
    points: str


@dataclass(frozen=True)
class Plot:
    """A plot of lines."""

    title: str
    x_label: str
    y_label: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


def draw_histogram(scores: np.ndarray, marked: np.ndarray) -> Histogram:
    """Lay out the distribution of scores.

    Parameters
    ----------
    scores
        All scores, shape ``(n,)``.
    marked
        Positions of the examples to highlight, shape ``(k,)``.

    Returns
    -------
    A histogram whose x axis is logarithmic if the scores are positive and span decades.
    """
    is_logarithmic = _spans_decades(scores)
    edges = _log_edges(scores) if is_logarithmic else _linear_edges(scores)
    inside = np.clip(scores, edges[0], edges[-1])
    counts = np.histogram(inside, edges)[0]
    marked_counts = np.histogram(inside[marked], edges)[0]
    y_ticks = nice_ticks(0, counts.max())
    scaled = np.log10(edges) if is_logarithmic else edges
    lowest = inside[marked].min()
    lowest = np.log10(lowest) if is_logarithmic else lowest
    x = _x_positions(scaled, scaled[0], scaled[-1])
    heights = _bar_heights(counts, y_ticks[-1])
    marked_heights = _bar_heights(marked_counts, y_ticks[-1])
    bars = [
        Bar(
            round(float(x[i]), 2),
            round(float(x[i + 1] - x[i]), 2),
            heights[i],
            marked_heights[i],
            f"{format_number(edges[i])} to {format_number(edges[i + 1])}: "
            f"{counts[i]} examples, {marked_counts[i]} of them shown",
        )
        for i in np.flatnonzero(counts)
    ]
    x_ticks = _log_ticks(edges) if is_logarithmic else _ticks_within(edges[0], edges[-1])
    return Histogram(
        bars,
        x_ticks,
        [Tick(_y_position(value, 0, y_ticks[-1]), format_number(value)) for value in y_ticks],
        round(float(_x_positions(lowest, scaled[0], scaled[-1])), 2),
        is_logarithmic,
    )


def draw_curve(curve: Curve) -> Plot:
    """Lay out the lines of a curve."""
    lines = {
        name: _thinned(np.asarray(x, float), np.asarray(y, float))
        for name, (x, y) in curve.series.items()
    }
    x_low, x_high = _limits([x for x, _ in lines.values()])
    y_ticks = nice_ticks(*_limits([y for _, y in lines.values()]))
    return Plot(
        curve.title,
        curve.x_label,
        curve.y_label,
        [
            Line(name, _polyline(_x_positions(x, x_low, x_high), y, y_ticks))
            for name, (x, y) in lines.items()
        ],
        _ticks_within(x_low, x_high),
        [
            Tick(_y_position(value, y_ticks[0], y_ticks[-1]), format_number(value))
            for value in y_ticks
        ],
    )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers at equal distances, from ``low`` or below to ``high`` or above.

    Examples
    --------
    >>> nice_ticks(0, 87)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    # Rounding keeps 0.1 + 0.2 from becoming 0.30000000000000004.
    return [float(f"{i * step:.10g}") for i in np.arange(first, last + 1)]


def _spans_decades(scores: np.ndarray) -> bool:
    return bool(scores.min() >= 0 and scores.max() > 50 * np.median(scores))


def _num_bins(scores: np.ndarray) -> int:
    return int(np.clip(1.5 * np.sqrt(len(scores)), 8, _MAX_BINS))


def _log_edges(scores: np.ndarray) -> np.ndarray:
    top = float(scores.max())
    bottom = max(float(scores[scores > 0].min()), top * _SMALLEST_PART)
    # Half the largest score when all the others are zero.
    return np.geomspace(min(bottom, top / 2), top, _num_bins(scores) + 1)


def _linear_edges(scores: np.ndarray) -> np.ndarray:
    low, high = float(scores.min()), float(scores.max())
    if high == low:
        margin = abs(low) / 2 or 0.5
        low, high = low - margin, high + margin
    return np.linspace(low, high, _num_bins(scores) + 1)


def _log_ticks(edges: np.ndarray) -> list[Tick]:
    low, high = np.log10(edges[0]), np.log10(edges[-1])
    exponents = np.arange(np.ceil(low), np.floor(high) + 1)
    every = int(np.ceil(len(exponents) / 6)) or 1
    return [
        Tick(round(float(_x_positions(e, low, high)), 2), power_of_ten(int(e)))
        for e in exponents[::every]
    ]


def _ticks_within(low: float, high: float) -> list[Tick]:
    slack = (high - low) * 1e-6
    return [
        Tick(round(float(_x_positions(value, low, high)), 2), format_number(value))
        for value in nice_ticks(low, high)
        if low - slack <= value <= high + slack
    ]


def _x_positions(values: np.ndarray | float, low: float, high: float) -> np.ndarray:
    return LEFT + (np.asarray(values) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _y_position(value: float, low: float, high: float) -> float:
    return round(float(FLOOR - (value - low) / (high - low) * (FLOOR - TOP)), 2)


def _bar_heights(counts: np.ndarray, highest: float) -> list[float]:
    """Return heights in which a single example among thousands still shows."""
    heights = counts / highest * (FLOOR - TOP)
    return np.where(counts > 0, np.maximum(heights, 2.0), 0.0).round(2).tolist()


def _limits(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    low = float(min(array.min() for array in arrays))
    high = float(max(array.max() for array in arrays))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= _MAX_POINTS:
        return x, y
    kept = np.linspace(0, len(x) - 1, _MAX_POINTS).round().astype(int)
    return x[kept], y[kept]


def _polyline(x: np.ndarray, y: np.ndarray, y_ticks: Sequence[float]) -> str:
    heights = [_y_position(value, y_ticks[0], y_ticks[-1]) for value in y]
    return " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x, heights, strict=True))
