"""Plots of influential rows of a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.figures import finish, matplotlib_module, new_figure
from ..utils.formatting import format_number
from .colours import colour_key, signed_colours
from .examples import label_text, read_examples
from .text import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_WIDTH, _CELL_HEIGHT = 1.1, 0.3
_KEY_WIDTH = 6.0
_QUERY_COLOUR = (0.93, 0.93, 0.93)
_HEADS = ("id", "label", "score")


def plot_most_influential_rows(
    influential_rows: Sequence[Any],
    feature_names: Sequence[str] | None = None,
    query: Any = None,
    feature_scores: Any = None,
    max_features: int = 12,
    save_path: str | os.PathLike[str] | None = None,
    *,
    query_id: Any = None,
    query_label: Any = None,
    ids: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    class_names: Sequence[str] | None = None,
    display: Any = None,
    show: bool = False,
) -> Figure:
    """Draw examples of a table, one per line, with their scores.

    Parameters
    ----------
    influential_rows
        ``(rows, values)`` or ``(rows, values, ids)``, as `compute_top_k_from_training_dataset`
        returns them: rows ``(k, d)``, or a pandas DataFrame of them, and scores ``(k,)`` or None.
    feature_names
        Names of the d columns; None means those of a DataFrame, or else their numbers.
    query
        The row that is explained, shape ``(d,)`` or a dict, drawn above the others.
    feature_scores
        What each feature of each row contributes, shape ``(k, d)``: positive ones are drawn on
        blue, negative ones on red.
    max_features
        How many columns are drawn: those of the largest ``feature_scores``, or else the first.
    save_path
        A file to write as well.
    query_id, query_label
        Id and label of the query.
    ids
        Ids of the rows, where ``influential_rows`` holds none.
    labels
        Labels of the rows: classes, one-hot rows, or anything that can be printed.
    class_names
        What the classes 0, 1, ... are called.
    display
        What to draw in place of the rows: a pandas DataFrame of k rows, a dict of names and columns
        ``(k,)``, or a function of the rows that returns one.
    show
        Whether to show the figure as well.

    Returns
    -------
    The figure, with one pair of axes that holds the table.

    Raises
    ------
    ValueError
        If names, scores or the query do not fit the d columns.
    MissingExtraError
        If Matplotlib is not installed.
    """
    examples = read_examples(
        influential_rows, "influential_rows", ids, labels, class_names, display
    )
    rows, own_names = _check_rows(examples.samples)
    names = _check_width(
        "feature_names", own_names if feature_names is None else feature_names, rows
    )
    row_of_query = _check_width("query", query, rows)
    contributions = _check_feature_scores(feature_scores, rows)
    columns = _columns(contributions, rows.shape[1], max_features)
    known = [_known(*examples.known(index)) for index in range(len(rows))]
    numbers = [_numbers(row) for row in rows[:, columns]]
    if row_of_query is not None:
        label = None if query_label is None else label_text(query_label, class_names)
        known.insert(0, _known(query_id, label, None if examples.values is None else "query"))
        numbers.insert(0, _numbers(row_of_query[columns]))
    heads = [head for head in _HEADS if any(head in row for row in known)]
    cells = [
        [*(row.get(head, "") for head in heads), *rest]
        for row, rest in zip(known, numbers, strict=True)
    ]
    colours = np.ones((len(cells), len(heads) + len(columns), 3))
    if row_of_query is not None:
        colours[0] = _QUERY_COLOUR
    if contributions is not None:
        colours[-len(rows) :, len(heads) :] = signed_colours(contributions[:, columns])
    heads += [str(i if names is None else names[i]) for i in columns]
    figure = _draw_table(heads, cells, colours)
    if contributions is not None:
        _draw_key(figure, contributions)
    return finish(figure, save_path, show)


def _draw_table(heads: list[str], cells: list[list[str]], colours: np.ndarray) -> Figure:
    figure = new_figure(_CELL_WIDTH * len(heads), _CELL_HEIGHT * (len(cells) + 1))
    axes = figure.add_subplot()
    axes.set_axis_off()
    whole = matplotlib_module("transforms").Bbox.from_bounds(0, 0, 1, 1)
    table = axes.table(cells, colours.tolist(), colLabels=heads, bbox=whole)
    for cell in table.get_celld().values():
        # A dollar sign in a name is no formula.
        cell.get_text().set_parse_math(False)
        cell.set_edgecolor("lightgray")
    return figure


def _draw_key(figure: Figure, contributions: np.ndarray) -> None:
    """Say below the table what its colours mean, on one line if there is room."""
    patch = matplotlib_module("patches").Patch
    keys = [patch(color=colour, label=text) for text, colour in colour_key(contributions)]
    per_line = len(keys) if figure.get_figwidth() > _KEY_WIDTH else 1
    figure.set_figheight(figure.get_figheight() + _CELL_HEIGHT * len(keys) / per_line)
    figure.legend(handles=keys, loc="outside lower center", ncols=per_line, frameon=False)


def _known(example_id: Any, label: str | None, score: float | str | None) -> dict[str, str]:
    """Return what is known of an example besides its features, by the head of its column."""
    shown = format_number(score) if isinstance(score, float) else score
    values = zip(_HEADS, (example_id, label, shown), strict=True)
    return {head: str(value) for head, value in values if value is not None}


def _numbers(row: np.ndarray) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float | np.number)
    return format_number(value) if is_number else as_text(value)


def _columns(contributions: np.ndarray | None, num_features: int, most: int) -> np.ndarray:
    """Choose the columns to draw, in their order."""
    if contributions is None or num_features <= most:
        return np.arange(min(num_features, most))
    sizes = np.abs(np.nan_to_num(contributions)).sum(axis=0)
    return np.sort(np.argsort(-sizes, kind="stable")[:most])


def _check_rows(samples: Any) -> tuple[np.ndarray, list[str] | None]:
    """Return rows ``(k, d)``, and the names of their columns where they have some."""
    names = list(samples[0]) if isinstance(samples[0], Mapping) else None
    if names is None:
        rows = np.asarray(samples)
    else:
        rows = np.array([list(sample.values()) for sample in samples], dtype=object)
    if rows.ndim != 2:
        message = (
            "Argument `influential_rows` must hold rows of the shape (k, d). "
            f"Received: shape {rows.shape}."
        )
        raise ValueError(message)
    return rows, names


def _check_width(name: str, values: Any, rows: np.ndarray) -> np.ndarray | None:
    """Return what there is one of for each column, shape ``(d,)``."""
    if values is None:
        return None
    values = list(values.values()) if isinstance(values, Mapping) else values
    array = np.ravel(np.asarray(values, dtype=object))
    if len(array) != rows.shape[1]:
        message = (
            f"Argument `{name}` must hold one entry for each column of the rows. "
            f"Received: {len(array)} for {rows.shape[1]} columns."
        )
        raise ValueError(message)
    return array


def _check_feature_scores(feature_scores: Any, rows: np.ndarray) -> np.ndarray | None:
    if feature_scores is None:
        return None
    scores = np.asarray(feature_scores)
    if scores.shape != rows.shape:
        message = (
            "Argument `feature_scores` must have the shape (k, d) of the rows. "
            f"Received: {scores.shape} for rows of the shape {rows.shape}."
        )
        raise ValueError(message)
    return scores
