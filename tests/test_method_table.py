"""The measured tables of methods in the documentation say what the benchmarks wrote."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from deel_influence.cli.methods import Method

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "methods"


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The functions that make the tables."""
    return runpy.run_path(str(ROOT / "benchmarks" / "method_table.py"), run_name="method_table")


def test_the_page_holds_the_tables_that_the_measurements_make(table):
    made = {
        "detection": table["detection_table"](table["read_result"](table["DETECTION"])),
        "times": table["times_table"](table["read_result"](table["TIMES"])),
    }
    assert {name: table["section_on_page"](name) for name in table["SECTIONS"]} == made


def test_what_was_measured_over_five_seeds_are_methods_of_the_command_line(table):
    # A new method need not wait for the next measurement.
    methods = table["read_result"](table["DETECTION"])["methods"]
    assert set(methods) <= {method.value for method in Method} | {"random (mean)"}
    assert len(methods) > 15
    assert {len(runs) for runs in methods.values()} == {5}


def test_every_method_was_timed_on_every_model(table):
    models = table["read_result"](table["TIMES"])["models"]
    rows = {name: [r["method"] for r in model["methods"]] for name, model in models.items()}
    assert set(rows) == {"mlp", "cnn"}
    assert rows["mlp"] == rows["cnn"]
    assert len(rows["mlp"]) > 15


def test_every_page_of_a_method_is_in_the_list_of_methods():
    listed = set(re.findall(r"^\| \[.+?\]\((\w+)\.md\)", (PAGES / "index.md").read_text(), re.M))
    assert listed == {page.stem for page in PAGES.glob("*.md")} - {"index"}


def test_a_changed_measurement_changes_the_table(table):
    result = table["read_result"](table["DETECTION"])
    result["methods"]["loss"][0]["roc_auc"] = 0.1234
    assert "0.1234" in table["detection_table"](result)
