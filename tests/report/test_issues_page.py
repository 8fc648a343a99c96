"""The page of label issues says how many labels are wrong, and why each one is suspected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deel_influence.report.page import write_report
from tests.report.fakes import KnownInfluence, batches, make_issues, make_triage
from tests.report.page_reader import Element, read_page

N = 8
LABELS = np.arange(N) % 3
SUSPICION = np.array([0.2, 0.9, 0.1, 0.7, 0.3, 0.6, 0.5, 0.4])
ORDER = np.argsort(-SUSPICION)
POSITIONS = np.arange(N)[:, None, None, None] * np.ones((1, 8, 8, 1))
HOSTILE = "<script>window.injected = 1</script>\"'><img src=x onerror=alert(1)>&amp;"
TRIAGE = replace(make_triage(LABELS, np.zeros(N), LABELS), class_names=("ape", "bee", "cat"))


def write(folder: Path, x: np.ndarray = POSITIONS, triage: Any = TRIAGE, **options: Any) -> Element:
    if "issues" not in options:
        options["issues"] = make_issues(triage, SUSPICION)
    return read_page(write_report(folder, triage, batches(x, triage.labels), **options))


def cells(page: Element, key: str) -> list[str]:
    return [cell.text for cell in page.find_all("td", **{"data-key": key})]


def reasons(page: Element, name: str) -> list[list[str]]:
    """The ids of the other examples under a name, of each example shown."""
    return [
        [
            item.attributes["title"]
            for one in cell.find_all("ul", **{"aria-label": name})
            for item in one.find_all("li")
        ]
        for cell in page.find_all("td", class_="why")
    ]


def test_the_number_of_wrong_labels_and_where_to_read_to_are_at_the_top(tmp_path: Path) -> None:
    page = write(tmp_path)
    first = page.find_all("ul", class_="figures")[0].find_all("li")[0]
    assert first.text == "about 2 labels are wrong, by estimate between 1 and 4"
    (chart,) = page.find_all("svg", class_="chart")
    assert chart.find_all("text", class_="threshold")[0].text == "read the first 2 →"
    counted = [title.text for title in chart.find_all("title")]
    marked = sum(int(text.split(", ")[1].split()[0]) for text in counted)
    assert marked == 2


def test_no_cut_is_proposed_where_no_label_is_thought_to_be_wrong(tmp_path: Path) -> None:
    issues = make_issues(TRIAGE, SUSPICION, estimated_number=0, is_issue=np.zeros(N, bool))
    page = write(tmp_path, issues=issues, top=3)
    assert page.find_all("text", class_="threshold")[0].text == "the 3 shown →"


def test_suspicion_gives_the_order_and_suggestions_stand_beside_the_labels(tmp_path: Path) -> None:
    page = write(tmp_path)
    assert cells(page, "id") == [str(1000 + i) for i in ORDER]
    assert [float(text) for text in cells(page, "score")] == sorted(SUSPICION, reverse=True)
    names = np.array(["ape", "bee", "cat"])
    assert cells(page, "given") == [f"{name} 25%" for name in names[LABELS[ORDER]]]
    assert cells(page, "predicted") == [f"{name} 50%" for name in names[(LABELS[ORDER] + 1) % 3]]
    assert "Take suggestion" in page.text
    assert "given ↓ suggested →" in page.text


def test_the_nearest_examples_are_named_with_their_labels(tmp_path: Path) -> None:
    page = write(tmp_path)
    expected = [[str(1000 + (i + step) % N) for step in range(1, 6)] for i in ORDER]
    assert reasons(page, "nearest") == expected
    for cell, at in zip(page.find_all("td", class_="why"), ORDER, strict=True):
        same = sum(LABELS[(at + step) % N] == LABELS[at] for step in range(1, 6))
        assert f"{same} of 5 labelled {TRIAGE.label_text(LABELS[at])}" in cell.text
        others = [one.text for one in cell.find_all("b", class_="differs")]
        assert len(others) == 5 - same


def test_signals_are_shares_of_less_suspicious_examples(tmp_path: Path) -> None:
    page = write(tmp_path)
    (first, *_) = page.find_all("ul", class_="signals")
    outlier = np.linspace(0, 1, N)
    shares = [np.mean(values < values[ORDER[0]]) for values in (SUSPICION, outlier)]
    assert first.text == f"head {shares[0]:.0%} outlier {shares[1]:.0%}"


def test_what_supports_and_opposes_a_label_the_most_is_named(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(N, N))
    np.fill_diagonal(matrix, 100.0)
    matrix[ORDER[1]] = 1.0
    page = write(tmp_path, calculator=KnownInfluence(matrix))
    for name, sign in (("for it", 1), ("against it", -1)):
        for found, at in zip(reasons(page, name), ORDER, strict=True):
            pulls = [(sign * matrix[at, j], j) for j in range(N) if j != at]
            best = sorted(((-pull, j) for pull, j in pulls if pull > 0))[:3]
            assert found == [str(1000 + j) for _, j in best]


def test_influence_alone_gives_reasons_too(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(N, N))
    page = write(tmp_path, issues=None, calculator=KnownInfluence(matrix))
    assert page.find_all("ul", class_="signals") == []
    assert len(page.find_all("td", class_="why")[0].find_all("details")) == 1


def test_each_picture_is_there_once_however_often_it_is_named(tmp_path: Path) -> None:
    page = write(tmp_path, top=3)
    named = {name for names in reasons(page, "nearest") for name in names}
    images = page.find_all("image")
    assert len(images) == len(named)
    known = {image.attributes["id"] for image in images}
    used = [use.attributes["href"] for use in page.find_all("use")]
    assert len(used) == 15
    assert {use.removeprefix("#") for use in used} == known
    assert all(image.attributes["href"].startswith("data:image/png") for image in images)


def test_texts_of_other_examples_are_cut(tmp_path: Path) -> None:
    texts = np.array([f"text {i} " + "word " * 40 for i in range(N)])
    page = write(tmp_path, texts, top=1)
    glimpses = [one.text for one in page.find_all("span", class_="glimpse")]
    assert glimpses[0].startswith(f"text {ORDER[0] + 1} word word")
    assert max(map(len, glimpses)) <= 61
    assert page.find_all("image") == []


def test_near_duplicates_with_different_labels_stand_side_by_side_once(tmp_path: Path) -> None:
    twins = np.full(N, None)
    twins[1], twins[2], twins[5], twins[0] = 1002, 1001, 1000, 1003
    page = write(tmp_path, issues=make_issues(TRIAGE, SUSPICION, duplicate_of=twins), top=1)
    (pairs,) = page.find_all("ul", class_="pairs")
    # Examples 0 and 3 have the same label.
    assert [pair.text for pair in pairs.find_all("li")] == [
        "bee 1001 cat 1002",
        "cat 1005 ape 1000",
    ]
    assert len(pairs.find_all("use")) == 4
    assert "2 near-duplicates with different labels pairs, below the list" in page.text


def test_reasons_are_given_for_the_first_page_alone(tmp_path: Path) -> None:
    count = 103
    triage = make_triage(np.arange(count) % 3, np.zeros(count))
    issues = make_issues(triage, np.arange(count, 0, -1.0))
    page = write(tmp_path, np.zeros((count, 2)), triage, issues=issues, top=count)
    texts = [cell.text != "" for cell in page.find_all("td", class_="why")]
    assert texts == [True] * 100 + [False] * 3


def test_names_of_other_examples_never_become_markup(tmp_path: Path) -> None:
    ids = np.array([f"{HOSTILE}{i}" for i in range(N)])
    triage = replace(TRIAGE, ids=ids, class_names=(HOSTILE, "b", "c"))
    twins = np.full(N, None)
    twins[0] = ids[1]
    issues = make_issues(triage, SUSPICION, duplicate_of=twins, signals={HOSTILE: SUSPICION})
    page = write(tmp_path, triage=triage, issues=issues)
    assert f"{HOSTILE}2" in reasons(page, "nearest")[0]
    assert len(page.find_all("script")) == 1
    attributes = {name for element in page.find_all() for name in element.attributes}
    assert not {name for name in attributes if name.startswith("on")}


def test_values_are_shown_without_classes_and_probabilities(tmp_path: Path) -> None:
    triage = make_triage(LABELS + 0.5, np.zeros(N), LABELS + 0.25)
    none = {"given_probability": None, "suggested_probability": None}
    issues = make_issues(triage, SUSPICION, suggested=LABELS + 0.75, **none)
    page = write(tmp_path, triage=triage, issues=issues)
    assert cells(page, "predicted") == [f"{value + 0.75:g}" for value in LABELS[ORDER]]
    assert page.find_all("b", class_="differs") == []
    assert "labelled" not in page.find_all("td", class_="why")[0].text
    assert len(reasons(page, "nearest")[0]) == 5


@pytest.mark.parametrize(
    ("issues", "error", "message"),
    [
        (
            make_issues(make_triage(LABELS + 1, SUSPICION), SUSPICION),
            ValueError,
            "in the same order",
        ),
        (SUSPICION, TypeError, "what `find_label_issues` returns. Received: ndarray"),
    ],
)
def test_issues_of_something_else_are_refused(tmp_path: Path, issues, error, message) -> None:
    with pytest.raises(error, match=f"Argument `issues` must be .*{message}"):
        write(tmp_path / "report", issues=issues)
    assert not (tmp_path / "report").exists()
