"""Tables and lines for the terminal show what they are given, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from deel_influence.cli.demo_evidence import evidence_curve, evidence_table, gather_evidence
from deel_influence.cli.errors import one_line
from deel_influence.cli.tables import rich_table, suspects_table
from deel_influence.report.contents import Table
from deel_influence.report.triage import Triage

FLIPPED = np.array([False, True, False, False, True, False, False, False, False, False])


@pytest.fixture
def triage() -> Triage:
    scores = np.where(FLIPPED, 2.0, 1.0) - np.arange(10) / 100
    return Triage(
        ids=10 * np.arange(10),
        labels=np.arange(10) % 3,
        predicted=np.zeros(10, dtype=np.int64),
        losses=np.arange(10.0),
        scores=scores,
        ranks=np.argsort(np.argsort(-scores)) + 1,
    )


def show(table) -> str:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def cells(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip("│ ").startswith(start))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_most_suspicious_come_first_with_their_ids_and_names(triage):
    text = show(suspects_table(replace(triage, class_names=["ape", "bee", "cat"]), 2))
    assert "The 2 most suspicious of 10 examples" in text
    assert cells(text, "1 ") == ["1", "10", "bee", "ape", "1.00", "1.99"]
    assert cells(text, "2 ") == ["2", "40", "bee", "ape", "4.00", "1.96"]


def test_an_id_that_is_too_long_for_the_terminal_is_whole(triage):
    ids = np.array([f"photos/{'long' * 30}/{i}.jpg" for i in range(10)])
    lines = show(suspects_table(replace(triage, ids=ids), 1)).splitlines()
    written = "".join(line.strip("│").split("│")[1].strip() for line in lines if line[0] == "│")
    assert written == ids[1]


def test_labels_without_names_are_numbers(triage):
    assert cells(show(suspects_table(triage, 1)), "1 ")[2:4] == ["1", "0"]


def test_brackets_in_names_are_no_markup(triage):
    names = ["[red]ape[/red]", "[bold]bee", ":smile:"]
    text = show(suspects_table(replace(triage, class_names=names), 1))
    assert cells(text, "1 ")[2:4] == ["[bold]bee", "[red]ape[/red]"]


def test_a_table_shows_its_title_and_caption_literally():
    text = show(rich_table(Table("[b]x[/b]", ["a", "b"], [("long text", 1)], caption="[i]y[/i]")))
    assert "[b]x[/b]" in text
    assert "[i]y[/i]" in text


def test_the_evidence_says_how_each_order_does(triage):
    table = evidence_table(gather_evidence(triage, FLIPPED), FLIPPED)
    rows = {row[0]: row[1:] for row in table.rows}
    # 10 % of ten examples is one, 20 % is two: influence finds both flips, in the best order.
    assert rows["influence"] == ("0.0%", "50.0%", "100.0%", "100.0%", "1.0000", "1.0000")
    assert rows["influence"] == rows["best possible"]
    # By loss the flips are sixth and ninth.
    assert rows["loss"][:4] == ("0.0%", "0.0%", "0.0%", "0.0%")
    assert rows["random (mean)"] == ("0.0%", "10.0%", "20.0%", "30.0%", "0.5000", "0.2000")
    assert table.caption == "2 of 10 labels were flipped."


def test_the_curve_goes_from_nothing_to_everything(triage):
    curve = evidence_curve(gather_evidence(triage, FLIPPED))
    assert list(curve.series)[0] == "influence"
    for read, found in curve.series.values():
        assert (read[0], found[0]) == (0.0, 0.0)
        assert (read[-1], found[-1]) == (1.0, 1.0)


def test_a_text_becomes_one_line_of_bounded_length():
    assert one_line("a\n  b\tc") == "a b c"
    assert len(one_line("word " * 1000, width=80)) <= 80
