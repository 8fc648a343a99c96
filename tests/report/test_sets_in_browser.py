"""Where examples have several labels, the page takes any set of the classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deel_influence.labels import Decisions, LabelSets, apply_decisions
from tests.report.fakes import make_triage
from tests.report.review_page import SCORES, N, Page, wait_for

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402 - only where it is installed

CLASSES = ("=ape", "bee", "bear")
ROWS = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Page:
    sets, labels, predicted = LabelSets.numbered(ROWS, np.roll(ROWS, 1, axis=0), CLASSES)
    triage = replace(make_triage(labels, SCORES, predicted), class_names=sets)
    result = Page(browser, tmp_path).show(triage)
    browser.execute_script("localStorage.clear()")
    browser.refresh()
    return result


TYPED = {
    "a set that some have": ("bee + bear", "bee + bear"),
    "another one": ("=ape + bee", "=ape + bee"),
    "in another order, twice, by a beginning": ("bea + =ape + bea", "=ape + bear"),
    "no class": ("(none)", "(none)"),
    "one that none has alone": ("BEAR", "bear"),
}


@pytest.mark.parametrize(("typed", "taken"), TYPED.values(), ids=TYPED)
def test_any_set_is_picked_by_typing(page: Page, typed: str, taken: str) -> None:
    page.press("c", typed, Keys.ENTER)
    wait_for(lambda: page.decisions[0])
    assert page.decisions[0] == f"→ {taken}"
    for kind in ("csv", "json"):
        decisions = page.export(kind)
        _, labels = apply_decisions(
            (np.arange(N), ROWS), decisions, ids=1000 + np.arange(N), class_names=CLASSES
        )
        expected = ROWS.copy()
        expected[0] = [name in taken.split(" + ") for name in CLASSES]
        np.testing.assert_array_equal(labels, expected)
    page.take_in(page.downloads / "decisions.csv")
    assert page.decisions[0] == f"→ {taken}"
    page.browser.refresh()
    assert page.decisions[0] == f"→ {taken}"


@pytest.mark.parametrize("typed", ["be", "bee + zebra", "=ape + be"])
def test_a_class_that_is_none_or_two_is_not_taken(page: Page, typed: str) -> None:
    page.press("c", typed, Keys.ENTER)
    assert page.text("#pick-error") == "No class, or more than one, has this name."
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert page.decisions == [""] * N


def test_the_set_that_is_given_is_kept(page: Page) -> None:
    page.press(Keys.ARROW_RIGHT, "c", "bear + bee", Keys.ENTER)
    wait_for(lambda: page.decisions[1])
    assert page.decisions[1] == "keep"


def test_a_file_with_unknown_classes_is_refused(page: Page) -> None:
    (run,) = page.all("#examples", "data-run")
    path = page.folder / "decisions.json"
    Decisions(["1000"], ["relabel"], ["bee + zebra"], run).save(path)
    page.take_in(path)
    assert "cannot be" in page.text("#notice")
    assert page.decisions == [""] * N
