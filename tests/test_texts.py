"""Names, labels and ids from data show what they hold, and steer nothing, wherever they appear."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from deel_influence.cli.tables import rich_table
from deel_influence.evaluation import Evaluation
from deel_influence.report import Table, Triage
from deel_influence.texts import csv_cell, printable
from deel_influence.utils.formatting import written_column
from tests.errors.small import Small

STEERING = {
    "an escape": ("a\x1b[2Kb", "a\\x1b[2Kb"),
    "a null": ("a\x00b", "a\\x00b"),
    "a bell": ("a\x07", "a\\x07"),
    "a carriage return": ("good\rbad", "good\\rbad"),
    "a line": ("a\nb", "a\\nb"),
    "an eight-bit control": ("a\x9b2K", "a\\x9b2K"),
    "from right to left": ("a\u202egpj.exe", "a\\u202egpj.exe"),
    "an isolate": ("a\u2066b", "a\\u2066b"),
    "a line separator": ("a\u2028b", "a\\u2028b"),
    "half a surrogate": ("a\ud800", "a\\ud800"),
    "a tag": ("a\U000e0041", "a\\U000e0041"),
}
PLAIN = ["cat", "café", "кот", "猫", "قطة", "👩\u200d👧", "نمی\u200cخواهم", "a b", "[red]", "<b>"]


@pytest.mark.parametrize(("text", "shown"), STEERING.values(), ids=STEERING)
def test_what_steers_is_written_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize("text", PLAIN)
def test_texts_of_all_writings_stay_as_they_are(text: str) -> None:
    assert printable(text) == text


def test_what_is_to_be_kept_is_kept() -> None:
    assert printable("a\n\x1bb", keep="\n") == "a\n\\x1bb"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "＝1", "=\x1b"])
def test_a_text_is_no_formula_in_a_spreadsheet(text: str) -> None:
    assert csv_cell(text) == f"'{printable(text)}"


@pytest.mark.parametrize("value", [-1.5, 3, None, "plain", "a=b", "1-2"])
def test_numbers_and_plain_texts_stay_as_they_are_in_a_spreadsheet(value: object) -> None:
    assert csv_cell(value) == value


def test_a_table_on_the_terminal_holds_no_control_characters() -> None:
    names = [text for text, _ in STEERING.values()]
    table = Table(names[0], ("name\x1b", "n"), [(name, 1) for name in names], caption=names[1])
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(rich_table(table))
    shown = console.export_text()
    assert not [text for text in names if text in shown]
    assert not [char for char in shown if not char.isprintable() and char != "\n"]


def test_the_page_holds_no_control_characters(tmp_path: Path) -> None:
    from deel_influence.report import write_report

    small = Small(tmp_path)
    texts = ["a\x00\x1b[2K", "b\u202e", "c\x07"]
    names = {"class_names": texts, "feature_names": [*texts, "d"]}
    summary = {texts[0]: {texts[1]: texts[2]}}
    page = write_report(tmp_path, small.triage, small.data, summary=summary, **names)
    content = page.read_text(encoding="utf-8")
    assert "a\\x00\\x1b[2K" in content
    assert not {char for char in content if printable(char) != char} - {"\n", "\t"}


def test_the_spreadsheet_of_an_evaluation_holds_no_formula(tmp_path: Path) -> None:
    index = pd.Index(["=HYPERLINK(1)", "@x", "plain\x1b"], name="method")
    frame = pd.DataFrame({"ROC AUC": [-0.5, 0.5, 1.0]}, index=index)
    Evaluation(frame).save(tmp_path)
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == ["'=HYPERLINK(1)", "'@x", "plain\\x1b"]
    assert rows[1][1] == "-0.5"
    assert Evaluation.load(tmp_path).table.index.tolist() == index.tolist()


def test_ids_that_are_texts_reach_a_parquet_file_as_escapes(tmp_path: Path) -> None:
    numbers = np.zeros(2)
    ids, ranks = np.array(["a\x1b", "=b"]), np.arange(1, 3)
    Triage(ids, ranks, ranks, numbers, numbers, ranks).to_parquet(tmp_path / "t.parquet")
    assert Triage.from_parquet(tmp_path / "t.parquet").ids.tolist() == ["a\\x1b", "=b"]


def test_columns_of_numbers_are_not_touched() -> None:
    column = np.arange(3)
    assert written_column(column) is column
