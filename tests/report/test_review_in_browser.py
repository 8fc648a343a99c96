"""The page of many examples is searched, turned and narrowed, and leads to a better model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

from deel_influence.cli.app import app
from tests.report.fakes import make_triage
from tests.report.review_page import N, Page, small, wait_for

pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402 - only where it is installed
from selenium.webdriver.support.ui import Select  # noqa: E402


def test_a_cell_of_the_matrix_leads_to_its_examples(page: Page) -> None:
    page.show(small())
    cells = page.all(".matrix button", "aria-label")
    assert cells[1] == "given ape, predicted bee: 1"
    cell = page.find(".matrix button[data-given='0'][data-predicted='1']")
    cell.send_keys(Keys.ENTER)
    assert page.shown == ["1003"]
    assert cell.get_attribute("aria-pressed") == "true"
    cell.send_keys(Keys.SPACE)
    assert len(page.shown) == N


def test_the_list_can_be_narrowed_and_searched(page: Page) -> None:
    page.press("d", "n")
    page.find("#undecided").click()
    assert page.shown == ["1001", "1002", "1003", "1004", "1005"]
    page.find("#disputed").click()
    assert page.shown == ["1001", "1003", "1005"]
    Select(page.find("#predicted-filter")).select_by_value("2")
    assert page.shown == ["1001"]
    page.browser.refresh()
    page.press("/")
    page.browser.switch_to.active_element.send_keys("BEE")
    assert page.shown == ["1001", "1003", "1004"]
    assert page.text("#status") == "3 of 6 examples shown."
    page.find("#search").send_keys(" no such thing")
    assert page.shown == []


def test_many_examples_go_to_pages_and_keys_turn_them(page: Page) -> None:
    labels = np.arange(250) % 2
    page.show(make_triage(labels, np.arange(250, 0, -1.0)))
    page.browser.execute_script("localStorage.clear()")
    assert len(page.shown) == 100
    page.find("#pager [data-step='1']").click()
    assert page.text("#pager span") == "101–200 of 250"
    assert page.current == "1100"
    page.press(Keys.ARROW_LEFT)
    assert (page.current, page.text("#pager span")) == ("1099", "1–100 of 250")
    page.press("d")
    assert page.current == "1100"
    page.find("th button[data-key='id']").click()
    page.find("th button[data-key='id']").click()
    assert page.shown[:2] == ["1249", "1248"]
    assert page.text("#counter") == "1 of 250 decided"
    assert page.all("img", "naturalWidth") == ["8"] * 100


def test_buttons_and_the_head_of_the_table_stay_in_sight(page: Page) -> None:
    page.show(make_triage(np.arange(40) % 2, np.arange(40.0)))
    page.find("button[data-view='rows']").click()
    row = page.browser.find_elements("css selector", "tr.example")[30]
    page.browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", row)
    script = "return arguments[0].getBoundingClientRect()"
    desk, head = (
        page.browser.execute_script(script, page.find(name)) for name in (".desk", "#examples th")
    )
    assert desk["top"] == 0
    assert head["top"] == pytest.approx(desk["bottom"], abs=1)


def test_what_needs_scripts_is_said_where_there_are_none(page: Page) -> None:
    command = "Emulation.setScriptExecutionDisabled"
    page.browser.execute_cdp_cmd(command, {"value": True})
    try:
        page.show(make_triage(np.arange(250) % 2, np.arange(250, 0, -1.0)))
        assert len(page.shown) == 100
        assert "The first 100 are shown" in page.find("noscript").text
        assert not page.find(".desk").is_displayed()
    finally:
        page.browser.execute_cdp_cmd(command, {"value": False})


def test_everything_to_be_used_has_a_name_and_a_visible_focus(page: Page) -> None:
    page.browser.execute_script("document.activeElement.blur()")
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "searchbox", "combobox", "checkbox", "toolbar", "columnheader", "link")
    used = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(used) > 15
    assert [node for node in used if not node["name"]["value"].strip()] == []
    named = {node["name"]["value"].strip() for node in used}
    assert {"Keep", "Take prediction", "Drop", "Undo", "Export CSV"} <= named
    widths = page.browser.execute_script(
        "return Array.from(document.querySelectorAll('.desk button:enabled, [aria-current]'),"
        "(one) => { one.focus({ focusVisible: true });"
        "return parseInt(getComputedStyle(one).outlineWidth); })"
    )
    assert min(widths) >= 2


@pytest.mark.slow
def test_ten_thousand_examples_are_there_at_once(page: Page) -> None:
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 10, (2, 10_000))
    triage = make_triage(labels, draw.permutation(10_000) + 1.0, predicted)
    paints, sorts = [], []
    page.show(triage)
    for _ in range(3):
        page.browser.refresh()
        script = "return performance.getEntriesByName('first-paint')[0]?.startTime"
        wait_for(lambda script=script: page.browser.execute_script(script))
        paints.append(page.browser.execute_script(script))
        sorts.append(
            page.browser.execute_async_script(
                "const done = arguments[0], start = performance.now();"
                "document.querySelector('th button[data-key=loss]').click();"
                "requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));"
            )
        )
    assert min(paints) < 1000
    assert min(sorts) < 300


def test_one_key_corrects_a_label_all_the_way_to_a_better_model(page: Page, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    truth = np.arange(40) % 2
    x = (draw.normal(size=(40, 2)) * 0.3 + np.where(truth, 2, -2)[:, None]).astype("float32")
    y = truth.copy()
    y[17] = 1 - y[17]
    np.savez(tmp_path / "train.npz", x=x, y=y, class_names=["no", "yes"])
    model = trained(x, y)
    model.save(tmp_path / "model.keras")
    before = np.argmax(model.predict(x, verbose=0), axis=1) != y
    run(
        "triage",
        "--model",
        tmp_path / "model.keras",
        "--data",
        tmp_path / "train.npz",
        "--out",
        tmp_path / "run",
    )
    page.browser.get((tmp_path / "run" / "report" / "index.html").as_uri())
    page.press("s")
    page.export("csv")
    run(
        "apply",
        "--data",
        tmp_path / "train.npz",
        "--decisions",
        page.downloads / "decisions.csv",
        "--out",
        tmp_path / "clean.npz",
    )
    with np.load(tmp_path / "clean.npz") as clean:
        np.testing.assert_array_equal(clean["y"], truth)
        after = np.argmax(trained(clean["x"], clean["y"]).predict(x, verbose=0), axis=1)
    assert np.flatnonzero(before).tolist() == [17]
    np.testing.assert_array_equal(after, truth)


def trained(x: np.ndarray, y: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.optimizer.learning_rate = 0.1
    model.fit(x, y, epochs=20, verbose=0)
    return model


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
