"""Rows, texts and tokens are drawn with their names, and with the colours of their scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from matplotlib import pyplot

from deel_influence.plots import (
    plot_most_influential_rows,
    plot_most_influential_texts,
    plot_token_scores,
    token_scores_html,
)
from deel_influence.plots.colours import signed_colours

ROWS = np.arange(12.0).reshape(3, 4)
VALUES = np.array([2.0, 1.0, -0.5])
KEY = ["red: below zero, to −1", "white: 0", "blue: above zero, to 1"]
NAMES = ["age", "height", "weight", "$ price"]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    yield
    assert pyplot.get_fignums() == []


def cells(figure) -> dict[tuple[int, int], str]:
    (axes,) = figure.axes
    (table,) = axes.tables
    return {place: cell.get_text().get_text() for place, cell in table.get_celld().items()}


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_rows_stand_under_the_names_of_their_features(tmp_path):
    figure = plot_most_influential_rows((ROWS, VALUES, [7, 8, 9]), NAMES, labels=["a", "b", "c"])
    written = cells(figure)
    assert [written[0, i] for i in range(7)] == ["id", "label", "score", *NAMES]
    assert [written[3, i] for i in range(7)] == ["9", "c", "−0.5", "8", "9", "10", "11"]
    figure.savefig(tmp_path / "figure.png")


def test_the_query_stands_above_the_rows():
    written = cells(plot_most_influential_rows((ROWS, VALUES), query=ROWS[0] + 1))
    assert [written[1, i] for i in range(5)] == ["query", "1", "2", "3", "4"]
    assert written[2, 0] == "2"


def test_id_and_label_of_the_query_are_written_where_the_rows_have_none():
    written = cells(
        plot_most_influential_rows((ROWS, VALUES), query=ROWS[0], query_id=4, query_label="a")
    )
    assert [written[0, i] for i in range(4)] == ["id", "label", "score", "0"]
    assert [written[1, i] for i in range(3)] == ["4", "a", "query"]
    assert [written[2, i] for i in range(3)] == ["", "", "2"]


def test_only_the_features_that_matter_most_are_drawn():
    scores = np.array([[0.0, -5.0, 1.0, 2.0]] * 3)
    figure = plot_most_influential_rows((ROWS, None), NAMES, feature_scores=scores, max_features=2)
    written = cells(figure)
    assert [written[0, i] for i in range(2)] == ["height", "$ price"]
    table = figure.axes[0].tables[0]
    red, blue = (table[1, i].get_facecolor() for i in range(2))
    assert red[0] > red[2]
    assert blue[2] > blue[0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plot_most_influential_rows((ROWS[0], None)), r"shape \(4,\)"),
        (lambda: plot_most_influential_rows((ROWS, None), feature_scores=VALUES), r"\(3, 4\)"),
        (lambda: plot_most_influential_rows((ROWS, None), NAMES[:2]), "2 for 4 columns"),
        (lambda: plot_most_influential_rows((ROWS, None), query=ROWS[0, :3]), "3 for 4 columns"),
        (lambda: plot_token_scores(["a", "b"], [1.0]), "for 2 tokens"),
        (lambda: token_scores_html(["a"], [[1.0]]), r"shape \(1, 1\)"),
    ],
)
def test_what_has_another_shape_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_texts_are_wrapped_under_their_titles(tmp_path):
    long_text = "one two three four " * 10
    figure = plot_most_influential_texts(
        (tf.constant([long_text, "costs $5 or $6"]), VALUES[:2], [3, 4]),
        query=b"why?",
        line_length=40,
        labels=[0, 1],
        class_names=["ham", "spam"],
    )
    written = texts(figure)
    assert written[:3] == ["query", "why?", "ham, id 3, score 2"]
    assert written[-2:] == ["spam, id 4, score 1", "costs $5 or $6"]
    assert max(map(len, written)) <= 40
    assert " ".join(written[3:-2]) == long_text.strip()
    figure.savefig(tmp_path / "figure.png")


def test_tokens_carry_their_colours_and_break_into_lines(tmp_path):
    tokens = ["good", "film", "$", "bad"]
    figure = plot_token_scores(tokens, [1.0, 0.0, np.nan, -1.0], title="why", line_length=11)
    assert texts(figure)[:5] == ["why", *tokens]
    drawn = figure.axes[0].texts[1:]
    faces = [text.get_bbox_patch().get_facecolor() for text in drawn]
    assert faces[0][2] > faces[0][0]
    assert faces[1][:3] == faces[2][:3] == (1.0, 1.0, 1.0)
    assert faces[3][0] > faces[3][2]
    assert texts(figure)[5:] == KEY
    assert faces[4:] == [faces[3], faces[1], faces[0]]
    heights = [text.get_position()[1] for text in drawn]
    assert heights[0] == heights[1] == heights[2] > heights[3]
    figure.savefig(tmp_path / "figure.png")


def test_a_notebook_shows_texts_and_tokens():
    for figure in (
        plot_most_influential_texts((["a", "b"], None)),
        plot_token_scores(["a"], [1.0]),
    ):
        assert len(figure.axes) == 1
        assert tf.io.decode_png(figure._repr_png_()).shape[1] == round(figure.get_figwidth() * 100)
    page = token_scores_html(["a"], [1.0])
    assert page._repr_html_() == page
    assert "blue: above zero, to 1" in page


def test_columns_of_a_data_frame_keep_their_names():
    frame = pd.DataFrame({"age": [30, 41], "job": ["clerk", "nurse"], "income": [1.5, 123456]})
    figure = plot_most_influential_rows(
        (frame, VALUES[:2], ["a", "b"]), query=frame.iloc[0], feature_scores=np.eye(2, 3)
    )
    written = cells(figure)
    assert [written[0, i] for i in range(5)] == ["id", "score", "age", "job", "income"]
    assert [written[1, i] for i in range(5)] == ["", "query", "30", "clerk", "1.5"]
    assert [written[3, i] for i in range(5)] == ["b", "1", "41", "nurse", "1.23×10⁵"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == KEY


def test_a_data_frame_is_drawn_in_place_of_what_the_model_gets():
    frame = pd.DataFrame({"age": [30, 41, 52]})
    written = cells(plot_most_influential_rows((ROWS, VALUES), display=frame))
    assert [written[place, 1] for place in range(4)] == ["age", "30", "41", "52"]


@pytest.mark.parametrize(
    ("samples", "display"),
    [
        (np.ones((2, 9), int), ["a b", "c"]),
        (np.array([["a b"], ["c"]]), None),
        ({"ids": np.ones((2, 9)), "mask": np.ones((2, 9))}, lambda _: [["a", "b"], ["c"]]),
    ],
    ids=["tokens", "texts with an axis", "dict"],
)
def test_texts_are_drawn_in_place_of_what_the_model_gets(samples, display):
    figure = plot_most_influential_texts((samples, None), display=display)
    assert [text for text in texts(figure) if text] == ["a b", "c"]


def test_html_escapes_what_the_tokens_contain():
    page = token_scores_html(["<b>", b"x & y"], [0.5, -1.0], title="<i>")
    assert "&lt;b&gt;" in page
    assert "x &amp; y" in page
    assert "<strong>&lt;i&gt;</strong>" in page
    assert 'title="−1"' in page
    assert "<script>" not in token_scores_html(["a"], [1.0], title="<script>")


def test_the_largest_score_has_the_strongest_colour():
    colours = signed_colours(np.array([4.0, 2.0, 0.0]))
    white = np.ones(3)
    np.testing.assert_allclose(white - colours[1], (white - colours[0]) / 2)
    np.testing.assert_allclose(colours[2], white)
    np.testing.assert_allclose(signed_colours(np.zeros(2)), np.ones((2, 3)))
