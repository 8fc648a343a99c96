"""Figures that need no display and leave nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 100


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, of which pyplot does not know, and which notebooks show.

    Parameters
    ----------
    width, height
        Size in inches.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    matplotlib_module("figure")  # says how to install what the next line needs
    from .notebook_figure import NotebookFigure

    return NotebookFigure((width, height), dpi=_DOTS_PER_INCH, layout="constrained")


def finish(figure: Figure, save_path: str | os.PathLike[str] | None, show: bool) -> Figure:
    """Save and show a figure, where that is wanted, and return it.

    Parameters
    ----------
    figure
        The figure.
    save_path
        The file to write, in the format that its suffix names; None writes none.
    show
        Whether to show it, and to wait until it is closed where it has a window.
    """
    if save_path is not None:
        figure.savefig(save_path)
    if show:
        pyplot = matplotlib_module("pyplot")
        # A figure gets a window from pyplot when pyplot makes it; here it "makes" this one.
        shown = pyplot.figure(FigureClass=lambda *_args, **_settings: figure)
        pyplot.show(block=True)
        pyplot.close(shown)
    return figure


def matplotlib_module(name: str) -> Any:
    """Import and return ``matplotlib.NAME``; pyplot, for one, looks for a display.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    return require(f"matplotlib.{name}", "report", "Plots need")
