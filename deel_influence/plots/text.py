"""Plots of influential texts, and of the scores of their tokens."""

from __future__ import annotations

import html
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..utils.figures import finish, new_figure
from ..utils.formatting import format_number
from ..utils.html import Html
from .colours import colour_key, signed_colours
from .examples import query_title, read_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONT_SIZE = 10
_INCH = 72
# A glyph of a monospaced font is about 0.6 of its size wide.
_GLYPH_WIDTH = 0.602 * _FONT_SIZE / _INCH
_LINE_HEIGHT = 1.7 * _FONT_SIZE / _INCH
_MARGIN = 0.2


@dataclass(frozen=True)
class _PlacedText:
    """A text at a place, counted in lines and glyphs."""

    line: int
    column: int
    text: str
    is_title: bool = False
    colour: tuple[float, ...] | None = None


def plot_most_influential_texts(
    influential_texts: Sequence[Any],
    query: Any = None,
    line_length: int = 90,
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
    """Draw texts below one another, each under its label, id and score.

    Parameters
    ----------
    influential_texts
        ``(texts, values)`` or ``(texts, values, ids)``: k texts or byte strings, of the shapes
        ``(k,)`` or ``(k, 1)``, and scores ``(k,)`` or None.
    query
        The text that is explained, drawn above the others.
    line_length
        Glyphs in a line.
    save_path
        A file to write as well.
    query_id, query_label
        Id and label of the query.
    ids
        Ids of the texts, where ``influential_texts`` holds none.
    labels
        Labels of the texts: classes, one-hot rows, or anything that can be printed.
    class_names
        What the classes 0, 1, ... are called.
    display
        What to draw in place of the samples, such as the texts of tokens: k entries, or a
        function of the samples that returns them.
    show
        Whether to show the figure as well.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    examples = read_examples(
        influential_texts, "influential_texts", ids, labels, class_names, display
    )
    titled = [(examples.title(i), as_text(examples.samples[i])) for i in range(len(examples))]
    if query is not None:
        titled.insert(0, (query_title(query_id, query_label, class_names), as_text(query)))
    placed: list[_PlacedText] = []
    line = 0
    for title, text in titled:
        placed.append(_PlacedText(line, 0, title.replace("\n", ", "), is_title=True))
        for wrapped in textwrap.wrap(text, line_length) or [""]:
            line += 1
            placed.append(_PlacedText(line, 0, wrapped))
        line += 2
    return finish(_draw(placed, line_length), save_path, show)


def plot_token_scores(
    tokens: Sequence[Any],
    scores: Any,
    title: str | None = None,
    line_length: int = 90,
    save_path: str | os.PathLike[str] | None = None,
    *,
    show: bool = False,
) -> Figure:
    """Draw a text whose tokens have the colour of their scores: blue above zero, red below.

    Parameters
    ----------
    tokens
        The t tokens, texts or byte strings.
    scores
        One score for each, shape ``(t,)``.
    title
        What is written above.
    line_length
        Glyphs in a line.
    save_path
        A file to write as well.
    show
        Whether to show the figure as well.

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    texts, values = _check_tokens(tokens, scores)
    placed = [] if title is None else [_PlacedText(0, 0, title, is_title=True)]
    line, column = len(placed), 0
    for text, colour in zip(texts, signed_colours(values), strict=True):
        if column > 0 and column + len(text) > line_length:
            line, column = line + 1, 0
        placed.append(_PlacedText(line, column, text, colour=tuple(colour)))
        column += len(text) + 1
    line, column = line + 2, 0
    for text, colour in colour_key(values):
        placed.append(_PlacedText(line, column, text, colour=tuple(colour)))
        column += len(text) + 1
    return finish(_draw(placed, line_length), save_path, show)


def token_scores_html(tokens: Sequence[Any], scores: Any, title: str | None = None) -> Html:
    """Return a text as HTML, its tokens in the colours of `plot_token_scores`.

    Parameters
    ----------
    tokens
        The t tokens, texts or byte strings.
    scores
        One score for each, shape ``(t,)``; a reader sees it on hovering over the token.
    title
        What is written above.

    Returns
    -------
    A ``<div>``, which a notebook shows; what the tokens contain is escaped.
    """
    texts, values = _check_tokens(tokens, scores)
    spans = [
        _span(text, colour, format_number(float(value)))
        for text, value, colour in zip(texts, values, signed_colours(values), strict=True)
    ]
    key = [_span(text, colour) for text, colour in colour_key(values)]
    heading = "" if title is None else f"<strong>{html.escape(title)}</strong><br>"
    return Html(f"<div>{heading}{' '.join(spans)}<br><small>{' '.join(key)}</small></div>")


def _span(text: str, colour: np.ndarray, score: str = "") -> str:
    red, green, blue = (round(255 * part) for part in colour)
    return (
        f'<span style="background-color: rgb({red}, {green}, {blue}); color: black" '
        f'title="{score}">{html.escape(text)}</span>'
    )


def as_text(value: Any) -> str:
    """Return a text, or bytes, or a tensor or an array of one, as a text.

    Several texts or numbers, such as tokens, are joined by spaces; names stand before values.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {as_text(part)}" for name, part in value.items())
    if hasattr(value, "__array__"):
        return " ".join(map(as_text, np.ravel(value).tolist()))
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _check_tokens(tokens: Sequence[Any], scores: Any) -> tuple[list[str], np.ndarray]:
    texts = [
        as_text(token).replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
        for token in tokens
    ]
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(texts),):
        message = (
            "Argument `scores` must hold one score per token, shape (t,). "
            f"Received: shape {values.shape} for {len(texts)} tokens."
        )
        raise ValueError(message)
    return texts, values


def _draw(placed: Sequence[_PlacedText], line_length: int) -> Figure:
    last_line = max((one.line for one in placed), default=0)
    longest = max((one.column + len(one.text) for one in placed), default=0)
    width = 2 * _MARGIN + max(line_length, longest) * _GLYPH_WIDTH
    height = 2 * _MARGIN + (last_line + 1) * _LINE_HEIGHT
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    # Notebooks show only what has axes.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for one in placed:
        box = None if one.colour is None else {"facecolor": one.colour, "pad": 1.5, "lw": 0}
        axes.text(
            (_MARGIN + one.column * _GLYPH_WIDTH) / width,
            1 - (_MARGIN + one.line * _LINE_HEIGHT) / height,
            one.text,
            family="monospace",
            fontsize=_FONT_SIZE,
            fontweight="bold" if one.is_title else "normal",
            verticalalignment="top",
            bbox=box,
            # A dollar sign in a text is no formula.
            parse_math=False,
        )
    return figure
