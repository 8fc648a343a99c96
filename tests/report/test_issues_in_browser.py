"""In a browser, the page of label issues shows why a label is suspected, and keys still decide."""

from __future__ import annotations

import numpy as np
import pytest

from tests.report.fakes import KnownInfluence, make_issues
from tests.report.review_page import SCORES, N, Page, small

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402 - only where it is installed


@pytest.fixture
def review(page: Page) -> Page:
    pulls = np.random.default_rng(0).normal(size=(N, N))
    issues = make_issues(small(), SCORES, duplicate_of=np.where(np.arange(N) == 0, 1001, None))
    page.show(small(), issues=issues, calculator=KnownInfluence(pulls))
    page.browser.execute_script("localStorage.clear()")
    page.browser.refresh()
    return page


def test_the_nearest_examples_are_drawn(review: Page) -> None:
    assert review.all("tr.example .others ul", "ariaLabel")[:3] == [
        "nearest",
        "for it",
        "against it",
    ]
    drawn = review.browser.execute_script(
        "return Array.from(document.querySelectorAll('td.why > .others use'), (use) =>"
        "[use.getBoundingClientRect().width, document.querySelector(use.href.baseVal).tagName])"
    )
    assert len(drawn) == 5 * N
    assert all(width > 20 and tag == "image" for width, tag in drawn)


def test_keys_decide_and_a_key_opens_the_reasons_without_deciding(review: Page) -> None:
    review.press("s")
    assert review.decisions[0] == "→ bee"
    summary = review.find("[aria-current] td.why summary")
    details = review.find("[aria-current] td.why details")
    assert not details.get_property("open")
    summary.send_keys(Keys.ENTER)
    assert details.get_property("open")
    assert review.text("#counter") == "1 of 6 decided"
    review.press("d", Keys.ARROW_LEFT)
    assert review.decisions[:2] == ["→ bee", "drop"]


def test_the_search_looks_at_the_example_and_not_at_its_neighbours(review: Page) -> None:
    review.find("#search").send_keys("1003")
    assert review.shown == ["1003"]


def test_readers_of_the_screen_are_told_all_of_it(review: Page) -> None:
    tree = review.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node.get("role", {}).get("value"), node.get("name", {}).get("value", "").strip())
        for node in tree
    }
    assert ("list", "nearest") in named
    assert ("button", "Take suggestion") in named
    assert ("region", "Near-duplicates with different labels") in named
    assert any(role == "image" and "read the first 2" in name for role, name in named)
    assert ("StaticText", "1005") in named
    assert not any(role == "image" and not name for role, name in named)


def test_near_duplicates_stand_side_by_side(review: Page) -> None:
    left, right = review.browser.execute_script(
        "return Array.from(document.querySelectorAll('.pairs li > div'), (one) =>"
        "one.getBoundingClientRect().toJSON())"
    )
    assert left["top"] == right["top"]
    assert left["right"] < right["left"]
