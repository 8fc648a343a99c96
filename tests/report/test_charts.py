"""Plots show all that they are given, whatever its range."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.report.charts import FRAME, draw_curve, draw_histogram, nice_ticks
from deel_influence.report.contents import Curve, Table

TAIL = np.random.default_rng(0).lognormal(0, 3, 500)

SCORES = {
    "heavy tail": TAIL,
    "bell": np.random.default_rng(0).normal(size=500),
    "all equal": np.full(30, 2.5),
    "all zero": np.zeros(30),
    "mostly zero": np.where(np.arange(30) < 2, [3.0] * 30, 0.0),
    "one positive": np.eye(30)[4],
    "single": np.array([0.3]),
    "negative": -TAIL,
    "tiny": TAIL * 1e-30,
}


def counts_in(text: str) -> tuple[int, int]:
    words = text.split(": ")[1].split()
    return int(words[0]), int(words[2])


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_every_example_is_in_one_bar(scores: np.ndarray) -> None:
    marked = np.argsort(-scores)[:3]
    histogram = draw_histogram(scores, marked)
    counts = np.array([counts_in(bar.text) for bar in histogram.bars])
    assert counts.sum(axis=0).tolist() == [len(scores), len(marked)]
    assert FRAME["left"] <= histogram.threshold <= FRAME["right"]


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_bars_and_ticks_stay_inside_the_axes(scores: np.ndarray) -> None:
    histogram = draw_histogram(scores, np.array([0]))
    # Coordinates are rounded to hundredths.
    for bar in histogram.bars:
        assert FRAME["left"] - 0.01 <= bar.x < bar.x + bar.width <= FRAME["right"] + 0.02
        assert 2 <= bar.height <= FRAME["floor"] - FRAME["top"] + 0.01
        assert bar.marked_height <= bar.height
    for tick in histogram.x_ticks:
        assert FRAME["left"] - 0.01 <= tick.at <= FRAME["right"] + 0.01


def test_only_positive_scores_over_decades_get_a_logarithmic_axis() -> None:
    logarithmic = {
        name for name, scores in SCORES.items() if draw_histogram(scores, [0]).is_logarithmic
    }
    assert logarithmic == {"heavy tail", "mostly zero", "one positive", "tiny"}


def test_the_threshold_is_the_lowest_score_marked() -> None:
    scores = np.linspace(0, 10, 101)
    histogram = draw_histogram(scores, np.array([100, 50, 75]))
    middle = (FRAME["left"] + FRAME["right"]) / 2
    assert histogram.threshold == pytest.approx(middle, abs=0.01)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 87), (-3.2, 4.1), (1e-9, 2e-9), (5, 5), (0, 0)]
)
def test_ticks_are_even_and_cover_the_range(low: float, high: float) -> None:
    ticks = np.array(nice_ticks(low, high))
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_a_long_line_is_thinned_but_keeps_its_ends() -> None:
    x = np.linspace(0, 1, 50_001)
    plot = draw_curve(Curve("found", "read", "found", {"a": (x, x**2), "b": ([0, 1], [0, 1])}))
    points = plot.lines[0].points.split()
    assert len(points) == 400
    assert points[0] == f"{FRAME['left']:.2f},{FRAME['floor']:.2f}"
    assert points[-1] == f"{FRAME['right']:.2f},{FRAME['top']:.2f}"


def test_a_flat_line_can_be_drawn() -> None:
    plot = draw_curve(Curve("flat", "x", "y", {"a": ([1, 2], [0.3, 0.3])}))
    assert len(plot.lines[0].points.split()) == 2


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "at least one line"),
        ({"a": ([0, 1], [0])}, r"shapes \(2,\) and \(1,\)"),
        ({"a": ([0], [0])}, "at least 2 points"),
        ({"a": ([0, 1], [0, np.nan])}, "must be finite"),
    ],
    ids=["none", "uneven", "short", "nan"],
)
def test_a_curve_that_cannot_be_drawn_is_refused(series: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curve("found", "read", "found", series)


def test_a_table_with_an_uneven_row_is_refused() -> None:
    with pytest.raises(ValueError, match="each of the 2 columns. Received: 1 cells in row 1"):
        Table("found", ["a", "b"], [[1, 2], [3]])
