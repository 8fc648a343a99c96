"""The measured table in the documentation says what the benchmark wrote."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from deel_influence.ihvp import IHVPCalculator

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    """The functions that make the table."""
    return runpy.run_path(str(ROOT / "benchmarks" / "strategy_table.py"), run_name="strategy_table")


def test_the_page_holds_the_table_that_the_measurements_make(table: dict[str, Any]):
    assert table["table_on_page"]() == table["markdown"](table["read_result"]())


def test_what_was_measured_is_there_and_on_every_problem(table: dict[str, Any]):
    # A new strategy need not wait for the next measurement.
    names = {member.value.name for member in IHVPCalculator}
    problems = table["read_result"]()["problems"].values()
    one, *others = ({row["strategy"] for row in problem["strategies"]} for problem in problems)
    assert one <= names
    assert all(other == one for other in others)


def test_every_strategy_has_a_page():
    pages = {page.stem for page in (ROOT / "docs" / "strategies").glob("*.md")}
    assert pages == {member.value.name for member in IHVPCalculator} | {"index"}


def test_a_changed_measurement_changes_the_table(table: dict[str, Any], tmp_path: Path):
    result = table["read_result"]()
    page = tmp_path / "index.md"
    page.write_text(
        f"before\n{table['BEGIN']}\nstale rows\n{table['END']}\nafter\n", encoding="utf-8"
    )
    next(iter(result["problems"].values()))["strategies"][0]["fit_seconds"] = 1234.0
    table["update_page"](result, page)
    text = page.read_text(encoding="utf-8")
    assert "1234 s" in text
    assert "stale rows" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")


REACHED = [
    ("cgd", "", 0.99),
    ("lissa", "", 0.98),
    ("nystrom", "", 0.98),
    ("arnoldi", "", 0.98),
    ("ekfac", "fisher=expected", 0.95),
]


@pytest.mark.parametrize(("strategy", "settings", "bound"), REACHED)
def test_the_measured_correlations_at_damping_a_tenth_are_what_the_guide_counts_on(
    table: dict[str, Any], strategy: str, settings: str, bound: float
):
    for problem in table["read_result"]()["problems"].values():
        rows = [r for r in problem["strategies"] if r["strategy"] == strategy]
        (row,) = [r for r in rows if r["settings"] == settings]
        assert next(at["pearson"] for at in row["at"] if at["damping"] == 0.1) >= bound
