"""What a caller adds to the page: tables and curves of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Table:
    """A small table of the page.

    Attributes
    ----------
    title
        What the table says.
    columns
        Heads of the columns.
    rows
        One cell per column each; numbers are formatted and set to the right.
    caption
        A sentence below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        """Check that each row fits the columns."""
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                message = (
                    f"Argument `rows` of the table {self.title!r} must have one cell for each of "
                    f"the {len(self.columns)} columns. Received: {len(row)} cells in row {number}."
                )
                raise ValueError(message)


@dataclass(frozen=True, eq=False)
class Curve:
    """A plot of one line or more.

    Attributes
    ----------
    title
        What the plot shows.
    x_label, y_label
        Names of the axes.
    series
        For each line its name and its points: x and y, each of shape ``(t,)``, t at least 2 and
        finite. The first line is drawn as the one that matters.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def __post_init__(self) -> None:
        """Check that there are lines, and that each can be drawn."""
        if not self.series:
            message = (
                f"Argument `series` of {self.title!r} must have at least one line. Received: none."
            )
            raise ValueError(message)
        for name, (x, y) in self.series.items():
            x, y = np.asarray(x, float), np.asarray(y, float)
            if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
                message = (
                    f"Argument `series` of {self.title!r} must have lines of x and y of one shape "
                    f"(t,), as {name!r} has not, with at least 2 points. Received: shapes "
                    f"{x.shape} and {y.shape}."
                )
                raise ValueError(message)
            if not (np.isfinite(x).all() and np.isfinite(y).all()):
                message = (
                    f"Argument `series` of {self.title!r} must be finite. Received: NaN or "
                    f"infinity in the line {name!r}. Leave such points out."
                )
                raise ValueError(message)
