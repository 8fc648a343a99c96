"""Plots of benchmark results."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..benchmark.result_folder import load_results
from ..benchmark.results import MethodResult
from ..utils.figures import finish, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 4.5
_COLUMNS = 4
# Matplotlib repeats its colours after ten.
_STYLES = ("-", "--", "-.", ":")


class BenchmarkDisplay:
    """Plots of what `MislabelingDetectorEvaluator` found."""

    @staticmethod
    def load_bench_result(path: str | os.PathLike[str]) -> dict[str, MethodResult]:
        """Read the results of a benchmark.

        Parameters
        ----------
        path
            What was ``path_to_save``, or the folder of one method in it.

        Returns
        -------
        The result of each method, by name.

        Raises
        ------
        DataSourceError
            If there is none.
        """
        return load_results(Path(path))

    @staticmethod
    def plot_bench_from_path(
        path: str | os.PathLike[str],
        path_to_save: str | os.PathLike[str] | None = None,
        show: bool = False,
    ) -> Figure:
        """Read the results of a benchmark and plot them; see the two methods that it calls."""
        return BenchmarkDisplay.plot_bench(
            BenchmarkDisplay.load_bench_result(path), path_to_save, show=show
        )

    @staticmethod
    def plot_bench(
        result: Mapping[str, MethodResult],
        path_to_save: str | os.PathLike[str] | None = None,
        title: str | None = None,
        show: bool = False,
    ) -> Figure:
        """Plot the share of the flipped labels found over the share of the list read.

        Each method has axes of its own, with a thin line for every seed, the mean, one standard
        deviation to both sides, and the diagonal that a random order gives.

        Parameters
        ----------
        result
            The result of each method, by name.
        path_to_save
            A file to write as well.
        title
            Of the whole figure.
        show
            Whether to show the figure as well.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed.
        """
        cols = min(len(result), _COLUMNS)
        rows = math.ceil(len(result) / _COLUMNS)
        figure = new_figure(_SIDE * cols, _SIDE * rows)
        for index, (name, method) in enumerate(result.items()):
            axes = figure.add_subplot(rows, cols, index + 1)
            share = _shares(method)
            axes.plot(share, method.curves.T, color="C0", alpha=0.25, linewidth=0.8)
            _draw_mean(axes, method, color="C0")
            _label(axes)
            axes.set_title(f"{name}\n{_summary(method)}", fontsize="medium")
        if title is not None:
            figure.suptitle(title)
        return finish(figure, path_to_save, show)

    @staticmethod
    def plot_comparison(
        result: Mapping[str, MethodResult],
        path_to_save: str | os.PathLike[str] | None = None,
        title: str | None = None,
        show: bool = False,
    ) -> Figure:
        """Plot the mean curves of all methods, each with its spread, in the same axes.

        Parameters
        ----------
        result, path_to_save, title, show
            As for `plot_bench`.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed.
        """
        figure = new_figure(1.5 * _SIDE, _SIDE)
        axes = figure.add_subplot()
        for index, (name, method) in enumerate(result.items()):
            style = {"color": f"C{index % 10}", "linestyle": _STYLES[index // 10 % len(_STYLES)]}
            _draw_mean(axes, method, label=f"{name}: {_summary(method)}", **style)
        _label(axes)
        axes.legend(fontsize="small", loc="lower right")
        if title is not None:
            axes.set_title(title)
        return finish(figure, path_to_save, show)


def _draw_mean(
    axes: Axes, method: MethodResult, color: str, linestyle: str = "-", label: str | None = None
) -> None:
    share, mean, spread = _shares(method), method.mean_curve, method.curve_spread
    axes.plot(share, mean, color=color, linestyle=linestyle, label=label)
    if len(method.runs) > 1:
        low, high = np.clip([mean - spread, mean + spread], 0.0, 1.0)
        axes.fill_between(share, low, high, color=color, alpha=0.2, linewidth=0)


def _label(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.set_xlabel("share of the list read")
    axes.set_ylabel("share of the flipped labels found")
    axes.grid(alpha=0.3)


def _shares(method: MethodResult) -> np.ndarray:
    """Return the shares of the list at which the curves are known, shape ``(n,)``."""
    num_examples = method.curves.shape[1]
    return np.arange(1, num_examples + 1) / num_examples


def _summary(method: MethodResult) -> str:
    seeds = len(method.runs)
    if seeds == 1:
        return f"ROC AUC {method.roc:.4f} (one seed)"
    return f"ROC AUC {method.roc:.4f} ± {method.spread()['roc_auc']:.4f} ({seeds} seeds)"
