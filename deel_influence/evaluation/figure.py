"""The picture of an evaluation's table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from ..utils.figures import finish, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_WIDTH = 4.5
_ROW_HEIGHT = 0.32
_SMALLEST_HEIGHT = 2.6
_RECALL = "recall at "


def draw_table(
    table: pd.DataFrame, save_path: str | os.PathLike[str] | None = None, show: bool = False
) -> Figure:
    """Draw a panel for each ground truth, and one for the wrong labels found.

    Parameters
    ----------
    table
        As `Evaluation` has it.
    save_path, show
        As for `Evaluation.plot`.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    ValueError
        If the table has no measure to draw.
    """
    heads = [name for name in table if name.endswith(("LDS", "Spearman"))]
    recalls = [name for name in table if name.startswith(_RECALL)]
    count = len(heads) + bool(recalls)
    if not count:
        message = (
            "Argument `table` must hold measures to be drawn. Received: the columns "
            f"{list(table)}. Evaluate with `truth` or `mislabelled`."
        )
        raise ValueError(message)
    height = max(_SMALLEST_HEIGHT, 1.0 + _ROW_HEIGHT * len(table))
    figure = new_figure(_PANEL_WIDTH * count, height)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, head in zip(panels, heads, strict=False):
        _draw_bars(axes, table, head)
    if recalls:
        _draw_recalls(panels[-1], table, recalls)
    return finish(figure, save_path, show)


def _draw_bars(axes: Axes, table: pd.DataFrame, head: str) -> None:
    """Draw a bar for each method, the best on top, with its interval where there is one."""
    part = table.dropna(subset=[head]).sort_values(head)
    places = np.arange(len(part))
    axes.barh(places, part[head], color=[_colour(table, name) for name in part.index])
    if f"{head} low" in part:
        ends = part[[f"{head} low", f"{head} high"]].to_numpy().T
        axes.hlines(places, *ends, color="black", linewidth=1.2)
    axes.axvline(0.0, color="gray", linewidth=1)
    axes.set_yticks(places, part.index)
    axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.0)
    axes.set_title(_title(head), fontsize="medium")
    axes.grid(axis="x", alpha=0.3)


def _draw_recalls(axes: Axes, table: pd.DataFrame, recalls: list[str]) -> None:
    """Draw the shares of the wrong labels found within each budget."""
    part = table.dropna(subset=recalls)
    shares = [float(name.removeprefix(_RECALL).removesuffix("%")) for name in recalls]
    for name, row in part.sort_values("ROC AUC", ascending=False).iterrows():
        style = ":" if _colour(table, name) == "gray" else "-"
        label = f"{name} ({row['ROC AUC']:.3f})"
        axes.plot(
            shares, 100 * row[recalls], style, marker="o", color=_colour(table, name), label=label
        )
    axes.set(xlim=(0, None), ylim=(0, 102))
    axes.set_xlabel("% of the list read")
    axes.set_ylabel("% of the wrong labels found")
    axes.set_title("wrong labels found (ROC AUC)", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _title(head: str) -> str:
    truth, _, measure = head.rpartition(": ")
    what = "LDS, 95 % interval" if measure == "LDS" else "Spearman with removals"
    return f"{truth}: {what}" if truth else what


def _colour(table: pd.DataFrame, name: str) -> str:
    """Return the colour of a method, the same in all panels; controls are gray."""
    return "gray" if name in ("random", "loss") else f"C{list(table.index).index(name) % 10}"
