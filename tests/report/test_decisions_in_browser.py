"""Labels are decided about on the page by keys and buttons, and the decisions go to files."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deel_influence.labels import Decisions, apply_decisions, run_digest
from deel_influence.labels.decisions import places_of
from tests.report.fakes import make_triage
from tests.report.review_page import LABELS, NAMES, PREDICTED, SCORES, N, Page, small, wait_for

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402 - only where it is installed

HOSTILE = np.array(["=1+1", "\x1b[2J", "../../up", 'a"b,c', "two\nlines", "<b>"])


def rows(decisions: Decisions) -> list[tuple[str, str, str]]:
    return list(
        zip(*map(list, (decisions.ids, decisions.decisions, decisions.labels)), strict=True)
    )


KEYS = {
    "keep": (Keys.ENTER, ("keep", "")),
    "keep by its letter": ("k", ("keep", "")),
    "the prediction": ("s", ("relabel", "=cat")),
    "a capital": ("S", ("relabel", "=cat")),
    "a digit": ("3", ("relabel", "bear")),
    "the digit of the given label": ("1", ("keep", "")),
    "drop": ("d", ("drop", "")),
    "skip": ("n", ("skip", "")),
}


@pytest.mark.parametrize(("key", "decision"), KEYS.values(), ids=KEYS)
def test_a_key_decides_and_goes_on(page: Page, key: str, decision: tuple[str, str]) -> None:
    page.press(Keys.ARROW_RIGHT, key)
    assert page.current == "1002"
    assert page.browser.execute_script("return document.activeElement.matches('[aria-current]')")
    assert rows(page.export("csv")) == [("1001", decision[0], decision[1].replace("=", "'="))]
    assert rows(page.export("json")) == [("1001", *decision)]
    shown = f"→ {decision[1]}" if decision[1] else decision[0]
    assert page.decisions == ["", shown, "", "", "", ""]


def test_a_key_of_nothing_decides_nothing(page: Page) -> None:
    page.press("9", "x", Keys.F2)
    assert page.decisions == [""] * N


def test_keys_elsewhere_on_the_page_decide_nothing(page: Page) -> None:
    page.find("#search").send_keys("d")
    page.find("button[data-view='rows']").send_keys("d")
    assert page.all("td.decision[data-value='drop']") == []


TYPED = {
    "a name": ("bee", "→ bee"),
    "in capitals": ("BEE", "→ bee"),
    "by its beginning": ("bea", "→ bear"),
    "a formula": ("=cat", "→ =cat"),
}


@pytest.mark.parametrize(("typed", "shown"), TYPED.values(), ids=TYPED)
def test_a_class_is_picked_by_typing(page: Page, typed: str, shown: str) -> None:
    page.press("c", typed, Keys.ENTER)
    wait_for(lambda: page.decisions[0])
    assert page.decisions[0] == shown
    assert page.current == "1001"


@pytest.mark.parametrize("typed", ["", "zebra", "be"])
def test_a_name_that_is_no_class_or_two_is_not_taken(page: Page, typed: str) -> None:
    page.press("c", typed, Keys.ENTER)
    assert page.text("#pick-error") == "No class, or more than one, has this name."
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.find("#pick").is_displayed()
    assert page.decisions == [""] * N


def test_undo_takes_back_one_decision_after_the_other(page: Page) -> None:
    page.press("d", "k", Keys.ARROW_LEFT, "n")
    assert page.decisions[:2] == ["drop", "skip"]
    assert page.text("#counter") == "1 of 6 decided, 1 skipped"
    page.press("u")
    assert page.decisions[:2] == ["drop", "keep"]
    assert page.current == "1001"
    page.press("u", "u", "u")
    assert page.decisions == [""] * N
    assert page.text("#counter") == "0 of 6 decided"
    assert not page.find("#undo").is_enabled()


def test_buttons_do_what_keys_do(page: Page) -> None:
    for name in ("keep", "suggest", "drop", "skip"):
        page.find(f"[data-act='{name}']").click()
    assert page.decisions == ["keep", "→ =cat", "drop", "skip", "", ""]
    page.find("[data-act='undo']").click()
    assert page.decisions[3] == ""
    page.find("[data-act='choose']").click()
    page.browser.switch_to.active_element.send_keys("bear", Keys.ENTER)
    wait_for(lambda: "→ bear" in page.decisions)
    assert page.decisions[3] == "→ bear"


def test_decisions_are_there_again_after_a_reload_and_for_their_run_alone(page: Page) -> None:
    page.press("d", "s")
    page.browser.refresh()
    assert page.decisions[:2] == ["drop", "→ =cat"]
    assert page.text("#counter") == "2 of 6 decided"
    page.show(small(ids=np.arange(N)))
    assert page.decisions == [""] * N
    page.show(small())
    assert page.decisions[:2] == ["drop", "→ =cat"]


def test_what_the_browser_kept_and_cannot_be_is_said(page: Page) -> None:
    page.press("d")
    place = page.browser.execute_script(
        "return Object.keys(localStorage).find((key) => key.startsWith('deel_influence'))"
    )
    page.browser.execute_script("localStorage.setItem(arguments[0], '{')", place)
    page.browser.refresh()
    assert page.text("#notice").startswith("Earlier decisions could not be read")
    assert page.decisions == [""] * N
    page.press("k")
    kept = page.browser.execute_script(
        "return localStorage.getItem(`${arguments[0]} unread`)", place
    )
    assert kept == "{"


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_an_exported_file_is_taken_in_again(page: Page, kind: str) -> None:
    page.press("d", "s", "k", "n")
    page.export(kind)
    page.browser.execute_script("localStorage.clear()")
    page.browser.refresh()
    assert page.decisions == [""] * N
    page.take_in(page.downloads / f"decisions.{kind}")
    assert page.decisions == ["drop", "→ =cat", "keep", "skip", "", ""]
    assert page.text("#status") == "4 decisions imported. 3 of 6 decided, 1 skipped."
    page.press("u")
    assert page.decisions == [""] * N


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_hostile_names_go_from_python_to_the_page_and_back(
    page: Page, kind: str, tmp_path: Path
) -> None:
    names = (*NAMES[:2], "=\x1b[2J\u202e", "\U000e0041")
    page.show(replace(small(ids=HOSTILE), class_names=names))
    made = ["drop", "keep", "relabel", "skip", "keep", "relabel"]
    labels = ["", "", names[0], "", "", names[2]]
    decisions = Decisions(HOSTILE, made, labels, run_digest(HOSTILE, LABELS))
    page.take_in(decisions.save(tmp_path / f"mine.{kind}"))
    assert page.decisions == ["drop", "keep", "→ ape", "skip", "keep", "→ =\\x1b[2J\\u202e"]
    found = page.export(kind)
    places = places_of(HOSTILE.tolist())
    assert [places[name] for name in found.ids] == list(range(N))
    x, y = apply_decisions((np.arange(N), LABELS), found, ids=HOSTILE, class_names=names)
    assert x.tolist() == [1, 2, 3, 4, 5]
    assert y.tolist() == [1, 0, 0, 1, 2]


def test_no_cell_that_the_page_exports_is_a_formula_or_steers(page: Page) -> None:
    page.show(small(ids=HOSTILE)).press("d", "k", "k", "k", "k", "2")
    page.export("csv")
    text = (page.downloads / "decisions.csv").read_text()
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    assert len(cells) == 1 + 3 * (N + 1)
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []
    assert text.replace("\n", "").isprintable()


BAD_FILES = {
    "another run": ('{"run": "other", "decisions": []}', "of the run other"),
    "no run": ("id,decision,label\n1000,drop,\n", "of the run of no name"),
    "no JSON": ("{", "JSON"),
    "no table": ('# run: RUN\nid,decision,label\n"1000,drop,\n', "no line of CSV"),
    "no decision": ("# run: RUN\nid,decision,label\n1000,keep,\n1001,burn,\n", "decision 2"),
    "no class": ("# run: RUN\nid,decision,label\n1000,relabel,zebra\n", "decision 1"),
    "a label beside a drop": ("# run: RUN\nid,decision,label\n1000,drop,bee\n", "decision 1"),
    "markup": ('{"run": "<img src=x onerror=window.injected=1>", "decisions": []}', "<img"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_is_refused_whole(
    page: Page, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text.replace("RUN", run_digest(np.arange(N) + 1000, LABELS)))
    page.take_in(path)
    assert message in page.text("#notice")
    assert "Nothing was changed" in page.text("#notice")
    assert page.decisions == [""] * N
    assert page.browser.execute_script("return window.injected") is None


def test_labels_that_are_values_have_no_classes_to_choose(page: Page) -> None:
    page.show(make_triage(LABELS + 0.5, SCORES, PREDICTED + 0.25))
    page.browser.execute_script("localStorage.clear()")
    page.press("s", "c", "1", "d", "k")
    assert page.decisions == ["drop", "keep", "", "", "", ""]
    assert page.all("[data-act='suggest'], #pick, .matrix") == []
