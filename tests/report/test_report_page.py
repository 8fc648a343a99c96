"""The page shows what triage found, as text that cannot be anything but text."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import DatasetOrderError, MissingExtraError, NotBatchedError
from deel_influence.report.contents import Curve, Table
from deel_influence.report.page import write_report
from deel_influence.utils.digests import run_digest
from tests.report.fakes import batches, make_triage
from tests.report.page_reader import Element, read_page

LABELS = np.array([0, 1, 2, 0, 1, 2])
PREDICTED = np.array([0, 2, 2, 1, 1, 0])
SCORES = np.array([0.1, 0.6, 0.3, 0.9, 0.2, 0.4])
BY_SUSPICION = [3, 1, 5, 2, 4, 0]
PICTURES = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 1)).astype(np.uint8)
HOSTILE = "<script>window.injected = 1</script>\"'><img src=x onerror=alert(1)>&amp;"
SUMMARY = {"Model": {"name": "digits", "parameters": "650"}}


def write(folder: Path, x: np.ndarray = PICTURES, **kwargs: Any) -> Element:
    arguments = {
        "triage": make_triage(LABELS, SCORES, PREDICTED),
        "dataset": batches(x, LABELS),
        "summary": SUMMARY,
    }
    return read_page(write_report(folder, **(arguments | kwargs)))


def cells(page: Element, key: str) -> list[str]:
    return [cell.text for cell in page.find_all("td", **{"data-key": key})]


def rows(page: Element) -> list[Element]:
    return page.find_all("tr", class_="example")


def test_examples_come_by_rank_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    page = write(tmp_path, class_names=["cat", "dog", "owl"])
    assert cells(page, "id") == [str(1000 + i) for i in BY_SUSPICION]
    assert cells(page, "given") == ["cat", "dog", "owl", "owl", "dog", "cat"]
    assert cells(page, "predicted") == ["dog", "owl", "cat", "owl", "dog", "cat"]
    assert cells(page, "score") == ["0.900", "0.600", "0.400", "0.300", "0.200", "0.100"]
    assert cells(page, "loss") == ["1.10", "1.70", "0.500", "1.40", "0.800", "2.00"]
    assert len(page.find_all("img", class_="pixelated")) == 6


def test_probabilities_stand_beside_their_labels_where_they_are_known(tmp_path: Path) -> None:
    triage = make_triage(LABELS, SCORES, PREDICTED)
    chances = {"given_probability": SCORES, "predicted_probability": np.full(6, 0.5)}
    page = write(tmp_path, triage=replace(triage, **chances))
    assert cells(page, "given") == ["0 90%", "1 60%", "2 40%", "2 30%", "1 20%", "0 10%"]
    assert cells(page, "predicted")[0] == "1 50%"
    assert "the probability that the model gives" in page.text


def test_the_matrix_counts_given_and_predicted_labels_of_those_shown(tmp_path: Path) -> None:
    page = write(tmp_path, top=5, class_names=["cat", "dog", "owl"])
    (matrix,) = page.find_all("section", class_="matrix")
    texts = [[cell.text for cell in row.find_all("td")] for row in matrix.find_all("tr")[1:]]
    expected = np.zeros((3, 3), int)
    np.add.at(expected, (LABELS[BY_SUSPICION[:5]], PREDICTED[BY_SUSPICION[:5]]), 1)
    assert texts == [[str(count or "") for count in row] for row in expected]
    names = [cell.text for cell in matrix.find_all("th")]
    assert names == ["given ↓ predicted →", "cat", "dog", "owl", "cat", "dog", "owl"]


def test_a_matrix_of_one_or_of_very_many_classes_is_left_out(tmp_path: Path) -> None:
    for number, labels in enumerate([np.zeros(30, int), np.arange(30)]):
        triage = make_triage(labels, np.arange(30.0))
        data = batches(np.eye(30))
        page = write(tmp_path / str(number), triage=triage, dataset=data, top=30)
        assert page.find_all("section", class_="matrix") == []
        assert len(page.find_all("select")) == 2


def test_the_classes_to_choose_among_are_all_of_them(tmp_path: Path) -> None:
    names = ["cat", "dog", "owl", HOSTILE]
    for page, expected in [
        (write(tmp_path / "a", top=1, class_names=names), names),
        (write(tmp_path / "b", top=1), ["0", "1", "2"]),
    ]:
        (listed,) = page.find_all("datalist")
        assert [option.attributes["value"] for option in listed.find_all("option")] == expected


def test_the_page_names_its_run(tmp_path: Path) -> None:
    (table,) = write(tmp_path).find_all("table", id="examples")
    assert table.attributes["data-run"] == run_digest(np.arange(6) + 1000, LABELS)


def test_examples_beyond_a_page_wait_in_a_template(tmp_path: Path) -> None:
    triage = make_triage(np.arange(120) % 2, np.arange(120.0))
    page = write(tmp_path, triage=triage, dataset=batches(np.zeros((120, 2))), top=105)
    (rest,) = page.find_all("template", id="rest")
    assert len(rows(rest)) == 5
    assert len(rows(page)) == 105


def test_only_the_examples_whose_labels_differ_are_marked(tmp_path: Path) -> None:
    marked = ["differs" in row.attributes["class"].split() for row in rows(write(tmp_path))]
    assert marked == [True, True, True, False, False, False]


def test_the_page_is_complete_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    write(folder)
    assert [path.name for path in folder.iterdir()] == ["index.html"]


def test_the_same_triage_gives_the_same_page(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    pages = [(tmp_path / name / "index.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("top", "shown"), [(1, 1), (4, 4), (99, 6)])
def test_the_page_shows_as_many_examples_as_asked_for(tmp_path: Path, top: int, shown: int) -> None:
    assert len(rows(write(tmp_path, top=top))) == shown


def test_the_summary_and_the_key_figures_are_shown(tmp_path: Path) -> None:
    page = write(tmp_path, top=2)
    (summary,) = page.find_all("section", class_="summary")
    assert summary.text == "Model name digits parameters 650"
    figures = [figure.text for figure in page.find_all("ul", class_="figures")[0].find_all("li")]
    assert figures[2:] == [
        "3 labels the model disputes 2 of them among those shown",
        "60% of the total score is held by those shown",
    ]


def test_tables_and_curves_of_the_caller_are_shown(tmp_path: Path) -> None:
    table = Table("Found", ["list read", "found"], [["10 %", 0.93456], ["all", 7]], "Of 143.")
    curve = Curve("Found by reading", "read", "share", {"score": ([0, 1], [0, 1])})
    page = write(tmp_path, extra_tables=[table], curves=[curve])
    panels = [panel.text for panel in page.find_all("section", class_="panel")]
    assert "Found list read found 10 % 0.935 all 7 Of 143." in panels
    assert any(panel.startswith("Found by reading") for panel in panels)
    assert len(page.find_all("polyline")) == 1


def hostile_page(folder: Path, x: np.ndarray, **names: Any) -> Element:
    return write(
        folder,
        x,
        summary={HOSTILE: {HOSTILE: HOSTILE}},
        class_names=[HOSTILE, "b", "c"],
        extra_tables=[Table(HOSTILE, [HOSTILE], [[HOSTILE]], HOSTILE)],
        curves=[Curve(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: ([0, 1], [0, 1])})],
        **names,
    )


@pytest.mark.parametrize(
    ("x", "names"),
    [
        (PICTURES, {}),
        (np.eye(6)[:, :3], {"feature_names": [HOSTILE, "b", "c"]}),
        (np.eye(6, 9), {"feature_names": [HOSTILE] * 9}),
        (np.array([HOSTILE] * 6), {}),
        (np.array([HOSTILE * 10] * 6), {}),
        (PICTURES, {"display": {HOSTILE: [HOSTILE] * 6}}),
    ],
    ids=["pictures", "few features", "many features", "texts", "long texts", "shown"],
)
def test_data_never_becomes_markup(tmp_path: Path, x: np.ndarray, names: dict) -> None:
    page = hostile_page(tmp_path, x, **names)
    assert cells(page, "given").count(HOSTILE) == 2
    assert len(page.find_all("script")) == 1
    assert all(image.attributes["src"].startswith("data:") for image in page.find_all("img"))
    attributes = {name for element in page.find_all() for name in element.attributes}
    assert not {name for name in attributes if name.startswith("on")}


def test_the_page_names_nothing_outside_itself(tmp_path: Path) -> None:
    page = write(tmp_path)
    references = [
        element.attributes[name]
        for element in page.find_all()
        for name in ("src", "href", "action", "data", "srcset")
        if name in element.attributes
    ]
    assert len(references) == 7
    assert all(reference.startswith("data:image/") for reference in references)
    (style,) = page.find_all("style")
    assert not re.search(r"url\(|@import", style.text)


def test_few_features_get_a_column_each(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(6, 2)
    page = write(tmp_path, x, feature_names=["width", "height"])
    heads = [head.text for head in page.find_all("th", role="columnheader")]
    assert heads[-2:] == ["width", "height"]
    assert cells(page, "feature-1") == [str(2 * i + 1) for i in BY_SUSPICION]


def test_of_many_features_the_unusual_ones_come_first(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 9))
    x[3, 7] = 50.0
    page = write(tmp_path, x, feature_names=list("abcdefghi"))
    chips = [chip.text for chip in rows(page)[0].find_all("li")]
    assert chips[0] == "h 50 +2.2 sd"
    assert len(chips) == 9
    distances = [abs(float(chip.split()[2].replace("\N{MINUS SIGN}", "-"))) for chip in chips]
    assert distances == sorted(distances, reverse=True)


def test_features_without_names_are_numbered(tmp_path: Path) -> None:
    page = write(tmp_path, np.eye(6)[:, :2])
    assert [head.text for head in page.find_all("th", role="columnheader")][-2:] == ["x0", "x1"]


def test_texts_are_shown_as_texts(tmp_path: Path) -> None:
    page = write(tmp_path, np.array([f"text {i}" for i in range(6)]))
    assert [row.find_all("ul", class_="facts")[0].text for row in rows(page)] == [
        f"text {i}" for i in BY_SUSPICION
    ]


def test_values_as_labels_have_no_filter_and_no_disputes(tmp_path: Path) -> None:
    page = write(tmp_path, triage=make_triage(LABELS + 0.5, SCORES, PREDICTED + 0.25))
    assert cells(page, "given") == ["0.5", "1.5", "2.5", "2.5", "1.5", "0.5"]
    assert page.find_all("select") == []
    assert page.find_all("tr", class_="differs") == []
    assert "disputes" not in page.text


def test_photographs_are_not_drawn_with_sharp_pixels(tmp_path: Path) -> None:
    page = write(tmp_path, np.random.default_rng(0).uniform(size=(6, 120, 100, 3)))
    assert len(page.find_all("img")) == 6
    assert page.find_all("img", class_="pixelated") == []


def test_the_page_stays_light_whatever_the_size_of_the_pictures(tmp_path: Path) -> None:
    # Noise is the worst case of compression.
    x = np.random.default_rng(0).integers(0, 256, (6, 1000, 1000, 3)).astype(np.uint8)
    write(tmp_path, x)
    assert (tmp_path / "index.html").stat().st_size < 6 * 250_000


def test_an_order_by_a_model_that_fits_few_labels_is_doubted(tmp_path: Path) -> None:
    (note,) = write(tmp_path / "a").find_all("p", role="note")
    assert note.text.startswith("Doubt this order: the model predicts 50% of the labels")
    fitted = make_triage(LABELS, SCORES, LABELS)
    assert write(tmp_path / "b", triage=fitted).find_all("p", role="note") == []


def test_names_of_classes_come_with_the_triage(tmp_path: Path) -> None:
    triage = replace(make_triage(LABELS, SCORES, PREDICTED), class_names=("cat", "dog", "owl"))
    assert cells(write(tmp_path, triage=triage), "given")[:3] == ["cat", "dog", "owl"]


def test_ids_may_be_texts(tmp_path: Path) -> None:
    triage = make_triage(LABELS, SCORES, PREDICTED)
    triage = replace(triage, ids=np.array([f"mail-{i}.txt" for i in range(6)]))
    page = write(tmp_path, triage=triage)
    assert cells(page, "id") == [f"mail-{i}.txt" for i in BY_SUSPICION]
    assert all("data-text" in cell.attributes for cell in page.find_all("td", **{"data-key": "id"}))


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        (None, []),
        ({"a": "b"}, ["Summary a b"]),
        ({"Model": {"name": "net"}, "author": "me"}, ["Model name net", "Summary author me"]),
    ],
)
def test_a_summary_may_be_missing_or_plain(tmp_path: Path, summary, expected: list) -> None:
    page = write(tmp_path, summary=summary)
    cards = [card for one in page.find_all("section", class_="summary") for card in one.children]
    assert [card.text for card in cards if isinstance(card, Element)] == expected


BAD_ARGUMENTS = {
    "too few class names": ({"class_names": ["a", "b"]}, "2 names for labels from 0 to 2"),
    "class names of values": (
        {"class_names": ["a"], "triage": make_triage(LABELS + 0.5, SCORES)},
        "`class_names` .*must be None where labels are values",
    ),
    "too few feature names": (
        {"feature_names": ["a"], "x": np.eye(6)},
        "name each of the 6 features of an example. Received: 1 names",
    ),
    "too few entries to show": (
        {"display": ["a"] * 5},
        "`display` must hold one entry for each example.*5 entries for 6 examples",
    ),
    "no example": ({"top": 0}, "at least 1. Received: k=0"),
    "another dataset": ({"dataset": batches(PICTURES[:3])}, "a dataset of 3 examples"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_what_does_not_fit_is_refused_and_no_page_written(tmp_path: Path, case: tuple) -> None:
    arguments, message = case
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "report", **arguments)
    assert not (tmp_path / "report").exists()


def test_a_dataset_that_is_reshuffled_is_refused(tmp_path: Path) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((PICTURES, LABELS)).shuffle(6, seed=0).batch(6)
    with pytest.raises(DatasetOrderError, match="same order"):
        write(tmp_path, dataset=dataset)


def test_a_dataset_without_batches_is_refused(tmp_path: Path) -> None:
    dataset = tf.data.Dataset.from_tensor_slices((PICTURES, LABELS))
    with pytest.raises(NotBatchedError, match="must yield batches"):
        write(tmp_path, dataset=dataset)


def test_a_missing_jinja2_is_named_with_the_extra_that_installs_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"'jinja2'.*pip install \"deel-influence\[report"):
        write(tmp_path)
