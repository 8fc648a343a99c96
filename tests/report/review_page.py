"""The page of a triage in a browser, used as people use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deel_influence.labels import Decisions
from deel_influence.report.page import write_report
from tests.report.fakes import batches, make_triage

NAMES = ("ape", "bee", "=cat", "bear")
N = 6
LABELS = np.array([0, 1, 2, 0, 1, 2])
PREDICTED = np.array([0, 2, 2, 1, 1, 0])
SCORES = np.arange(N, 0, -1.0)


def small(**columns: Any) -> Any:
    return replace(make_triage(LABELS, SCORES, PREDICTED), class_names=NAMES, **columns)


class Page:
    """The page of a triage in the browser."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self.browser, self.folder = browser, folder
        self.downloads = folder / "downloads"
        behaviour = {"behavior": "allow", "downloadPath": str(self.downloads)}
        browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)

    def show(self, triage: Any, **options: Any) -> Page:
        x = np.arange(len(triage))[:, None, None, None] * np.ones((1, 8, 8, 1))
        self.path = write_report(
            self.folder, triage, batches(x, triage.labels), top=len(triage), **options
        )
        self.browser.get(self.path.as_uri())
        return self

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return self.find(selector).get_attribute("textContent")

    def all(self, selector: str, attribute: str = "textContent") -> list[str]:
        found = self.browser.find_elements("css selector", selector)
        return [element.get_attribute(attribute) for element in found]

    def press(self, *keys: str) -> Page:
        """Press keys where the focus is, in the list at first."""
        if not self.browser.execute_script("return document.activeElement.matches('tr')"):
            self.browser.execute_script("document.querySelector('[aria-current]').focus()")
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
        return self

    @property
    def decisions(self) -> list[str]:
        return self.all("tr.example td.decision")

    @property
    def current(self) -> str:
        return self.find("[aria-current] td.id").get_attribute("data-value")

    @property
    def shown(self) -> list[str]:
        """The ids of the examples on the page."""
        return self.all("tr.example td.id", "data-value")

    def export(self, kind: str) -> Decisions:
        """Export the decisions as a person does, and read the file."""
        path = self.downloads / f"decisions.{kind}"
        path.unlink(missing_ok=True)
        self.find(f"[data-export='{kind}']").click()
        wait_for(path.is_file)
        return Decisions.load(path)

    def take_in(self, path: Path) -> None:
        """Import a file, and wait until the page has said what came of it."""
        self.browser.execute_script("document.getElementById('status').textContent = ''")
        self.find("#import").send_keys(str(path))
        wait_for(lambda: self.text("#status") or self.text("#notice"))


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
