"""The page works in a real browser, by mouse and keyboard, and asks nothing of any server."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from deel_influence.report.contents import Curve, Table
from deel_influence.report.page import write_report
from tests.report.fakes import batches, make_issues, make_triage

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402 - only where it is installed
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

CLASS_NAMES = [
    "cat",
    "<script>window.injected = true</script>",
    "\"'><img src='/stolen' onerror='window.injected = true'>",
]
COUNT = 12
LABELS = np.arange(COUNT) % 3
SCORES = np.random.default_rng(0).permutation(COUNT) + 1.0


@dataclass
class Site:
    """A folder behind a local server, and the paths that were asked of it."""

    address: str
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    x = np.random.default_rng(1).uniform(size=(COUNT, 8, 8, 3))
    triage = make_triage(LABELS, SCORES, (LABELS + 1) % 3)
    dataset = batches(x, LABELS)
    extras = {
        "summary": {"Model": {"name": CLASS_NAMES[1]}},
        "class_names": CLASS_NAMES,
        "extra_tables": [Table("Found", ["a", "b"], [[1, CLASS_NAMES[2]]])],
        "curves": [Curve("Found", "read", "share", {CLASS_NAMES[1]: ([0, 1], [0, 1])})],
    }
    write_report(folder / "pictures", triage, dataset, **extras)
    features = batches(x[:, 0, 0, :], LABELS)
    write_report(folder / "features", triage, features, **extras)
    twins = np.where(np.arange(COUNT) == 1, 1000, None)
    issues = make_issues(triage, SCORES, duplicate_of=twins)
    write_report(folder / "issues", triage, dataset, issues=issues, **extras)
    named = replace(triage, ids=np.array([f"mail-{i}" for i in range(COUNT)]))
    display = {
        "text": ["word " * 100] * COUNT,
        "wave": np.sin(np.arange(300.0))[None].repeat(COUNT, axis=0),
        CLASS_NAMES[1]: CLASS_NAMES * 4,
    }
    write_report(folder / "texts", named, dataset, display=display, **extras)

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            # What the browser had kept would not be asked for again.
            self.send_header("Cache-Control", "no-store")
            super().end_headers()

        def log_message(self, *_: object) -> None:
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_port}")
        requests = site.requests
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield site
        server.shutdown()


@pytest.fixture
def pictures(browser: webdriver.Chrome, site: Site) -> webdriver.Chrome:
    browser.get(f"{site.address}/pictures/index.html")
    return browser


@pytest.fixture
def features(browser: webdriver.Chrome, site: Site) -> webdriver.Chrome:
    browser.get(f"{site.address}/features/index.html")
    return browser


@pytest.fixture
def issues(browser: webdriver.Chrome, site: Site) -> webdriver.Chrome:
    browser.get(f"{site.address}/issues/index.html")
    return browser


@pytest.fixture
def texts(browser: webdriver.Chrome, site: Site) -> webdriver.Chrome:
    browser.get(f"{site.address}/texts/index.html")
    return browser


def shown(page: webdriver.Chrome, key: str) -> list[float]:
    cells = page.find_elements(By.CSS_SELECTOR, f"tr.example td[data-key='{key}']")
    return [float(cell.get_attribute("data-value")) for cell in cells if cell.is_displayed()]


def sort_button(page: webdriver.Chrome, key: str):
    return page.find_element(By.CSS_SELECTOR, f"th button[data-key='{key}']")


def sort_states(page: webdriver.Chrome) -> dict[str, str]:
    heads = page.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    return {head.text.split()[0]: head.get_attribute("aria-sort") for head in heads}


def test_every_example_is_a_card_with_its_picture(pictures: webdriver.Chrome) -> None:
    images = pictures.find_elements(By.CSS_SELECTOR, "tr.example img")
    assert len(images) == COUNT
    assert all(image.is_displayed() and image.size["width"] > 100 for image in images)
    assert {image.get_property("naturalWidth") for image in images} == {8}
    assert images[0].value_of_css_property("image-rendering") == "pixelated"
    assert shown(pictures, "rank") == list(range(1, COUNT + 1))


def test_sorting_by_loss_changes_the_order_and_by_rank_brings_it_back(
    pictures: webdriver.Chrome,
) -> None:
    before = shown(pictures, "id")
    sort_button(pictures, "loss").click()
    losses = shown(pictures, "loss")
    assert losses == sorted(losses, reverse=True)
    assert shown(pictures, "id") != before
    sort_button(pictures, "rank").click()
    assert shown(pictures, "id") == before


@pytest.mark.parametrize("key", ["id", "given", "predicted", "loss", "score", "feature-0"])
def test_each_column_sorts_both_ways(features: webdriver.Chrome, key: str) -> None:
    sort_button(features, key).click()
    first = shown(features, key)
    sort_button(features, key).click()
    second = shown(features, key)
    assert first in (sorted(first), sorted(first, reverse=True))
    assert second == first[::-1]
    assert first[0] != first[-1]


def test_sorting_works_by_keyboard_and_is_announced(pictures: webdriver.Chrome) -> None:
    assert sort_states(pictures) == {"Rank": "ascending"}
    sort_button(pictures, "loss").send_keys(Keys.ENTER)
    assert sort_states(pictures) == {"Loss": "descending"}
    sort_button(pictures, "loss").send_keys(Keys.SPACE)
    assert sort_states(pictures) == {"Loss": "ascending"}
    status = pictures.find_element(By.ID, "status")
    assert status.get_attribute("textContent") == "Sorted by Loss, ascending."


def test_the_filter_shows_one_label_and_all_again(pictures: webdriver.Chrome) -> None:
    chooser = Select(pictures.find_element(By.ID, "label-filter"))
    assert [option.text for option in chooser.options][2] == f"{CLASS_NAMES[1]} (4)"
    chooser.select_by_value("1")
    assert shown(pictures, "given") == [1.0] * 4
    chooser.select_by_value("")
    assert len(shown(pictures, "given")) == COUNT


def test_pictures_can_be_seen_as_a_table_too(pictures: webdriver.Chrome) -> None:
    pictures.find_element(By.CSS_SELECTOR, "button[data-view='rows']").click()
    images = pictures.find_elements(By.CSS_SELECTOR, "tr.example img")
    assert all(image.is_displayed() and image.size["width"] < 100 for image in images)


def test_a_picture_is_enlarged_by_a_click_or_a_key_and_closes_again(
    pictures: webdriver.Chrome,
) -> None:
    button = pictures.find_element(By.CSS_SELECTOR, "button.enlarge")
    large = pictures.find_element(By.ID, "large")
    small = button.find_element(By.TAG_NAME, "img")
    button.click()
    image = large.find_element(By.TAG_NAME, "img")
    assert image.is_displayed()
    assert image.size["width"] > 2 * small.size["width"]
    assert image.get_attribute("src") == small.get_attribute("src")
    assert image.value_of_css_property("image-rendering") == "pixelated"
    image.click()
    assert not large.is_displayed()
    button.send_keys(Keys.ENTER)
    assert large.is_displayed()
    pictures.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not large.is_displayed()


def test_a_long_text_opens_by_a_click(texts: webdriver.Chrome) -> None:
    text = texts.find_element(By.CSS_SELECTOR, "tr.example details.text")
    start, row = text.find_element(By.TAG_NAME, "summary"), text.find_element(By.XPATH, "..")
    assert len(start.text) < 300
    height = row.size["height"]
    start.click()
    assert row.size["height"] > 1.3 * height
    assert text.text.split() == ["word"] * 100


def test_waves_have_a_size(texts: webdriver.Chrome) -> None:
    waves = texts.find_elements(By.CSS_SELECTOR, "tr.example svg.wave")
    assert len(waves) == COUNT
    assert all(wave.size["width"] > 100 and wave.size["height"] > 30 for wave in waves)


def test_ids_that_are_texts_are_sorted_as_people_do(texts: webdriver.Chrome) -> None:
    sort_button(texts, "id").click()
    cells = texts.find_elements(By.CSS_SELECTOR, "tr.example td.id")
    assert [cell.get_attribute("data-value") for cell in cells] == [
        f"mail-{i}" for i in range(COUNT)
    ]


def test_the_page_can_be_read_without_scripts(browser: webdriver.Chrome, site: Site) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"{site.address}/pictures/index.html")
        assert len(browser.find_elements(By.CSS_SELECTOR, "tr.example img")) == COUNT
        assert not browser.find_element(By.CLASS_NAME, "controls").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("kind", ["pictures", "features", "texts", "issues"])
def test_a_script_in_the_data_is_shown_and_does_not_run(
    browser: webdriver.Chrome, kind: str, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(kind)
    assert page.execute_script("return window.injected") is None
    names = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, "td.given")]
    assert sum(CLASS_NAMES[1] in name for name in names) == 4
    assert len(page.find_elements(By.TAG_NAME, "script")) == 1


def test_a_script_that_came_in_unescaped_would_still_not_run(pictures: webdriver.Chrome) -> None:
    pictures.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.injected = true';"
        "document.body.append(script);"
    )
    assert pictures.execute_script("return window.injected") is None
    assert "Content Security Policy" in pictures.get_log("browser")[-1]["message"]


@pytest.mark.parametrize("kind", ["pictures", "issues"])
def test_nothing_is_fetched_and_nothing_goes_wrong(
    browser: webdriver.Chrome, site: Site, kind: str
) -> None:
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    site.requests.clear()
    browser.get(f"{site.address}/{kind}/index.html")
    sort_button(browser, "loss").click()
    assert browser.get_log("browser") == []
    assert site.requests == [f"/{kind}/index.html"]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    urls = requested_urls(browser)
    assert f"{site.address}/{kind}/index.html" in urls
    others = [url for url in urls if not url.startswith(("data:", site.address))]
    assert others == []


def requested_urls(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.parametrize("kind", ["pictures", "features", "texts", "issues"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_is_never_wider_than_the_screen(
    browser: webdriver.Chrome, site: Site, kind: str, width: int
) -> None:
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        browser.get(f"{site.address}/{kind}/index.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_colour_scheme(
    pictures: webdriver.Chrome, scheme: str, is_dark: bool
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    pictures.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    colour = pictures.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    channels = [int(part.strip("rgba( )")) for part in colour.split(",")[:3]]
    assert (max(channels) < 64) is is_dark
