"""Make the results page and the tables of the evidence pages from what the reproductions wrote.

It needs neither TensorFlow nor the library, so that a test can compare the pages with the JSON.

    python benchmarks/evidence_pages.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "reproductions" / "results"
PAGES = ROOT / "docs" / "evidence"
INDEX = "index"

REACHED = {True: "yes", False: "**no**", None: ""}


def read_results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Return the results by name, in the order of their names."""
    paths = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which the measured part of a page stands."""
    return f"<!-- evidence {name}: begin -->", f"<!-- evidence {name}: end -->"


def measured_part(name: str, pages: Path = PAGES) -> str:
    """Return what stands between the markers of a page."""
    begin, end = markers(name)
    text = (pages / f"{name}.md").read_text(encoding="utf-8")
    return text.partition(begin)[2].partition(end)[0].strip()


def update_page(name: str, content: str, pages: Path = PAGES) -> None:
    """Put content between the markers of a page."""
    path = pages / f"{name}.md"
    text = path.read_text(encoding="utf-8")
    begin, end = markers(name)
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        message = f"The page must have the lines {begin!r} and {end!r}. Received: {path}."
        raise ValueError(message)
    path.write_text(f"{before}{begin}\n\n{content}\n\n{end}{after}", encoding="utf-8")


def result_part(result: dict[str, Any]) -> str:
    """Return the measured part of a reproduction's page."""
    notes = "\n".join(f"- {note}" for note in result["notes"])
    parts = [_run_line(result), _rows_table(result["rows"])]
    table = result["details"].get("table")
    if table:
        parts.append(_table(table["head"], ("---",) * len(table["head"]), table["rows"]))
    return "\n\n".join([*parts, notes] if notes else parts)


def index_part(results: dict[str, dict[str, Any]]) -> str:
    """Return the measured part of the results page."""
    overview = _table(
        ("experiment", "after", "run", "on", "bounds reached"),
        ("---", "---", "---", "---", "---:"),
        (_overview_row(name, result) for name, result in results.items()),
    )
    missed = [
        f"- [{result['title']}]({name}.md): {row['quantity']}: {_number(row['measured'])}, "
        f"where {_bounds(row)} is asked{_published_aside(row)}."
        for name, result in results.items()
        for row in result["rows"]
        if row["reached"] is False
    ]
    parts = [overview, "## Not reached", "\n".join(missed) if missed else "Nothing."]
    for name, result in results.items():
        # A heading's anchor is made of its text, which must not be a link to be predictable.
        parts += [f"## {result['title']}", f"[How it was done]({name}.md)."]
        parts += [_rows_table(result["rows"])]
    return "\n\n".join(parts)


def _overview_row(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    bounded = [row["reached"] for row in result["rows"] if row["reached"] is not None]
    return (
        f"[{result['title']}]({name}.md)",
        result["source"],
        f"{result['form']}, {result['environment']['date'][:10]}, {_taken(result)}",
        _machine(result["environment"]),
        f"{sum(bounded)} of {len(bounded)}" if bounded else "none set",
    )


def _run_line(result: dict[str, Any]) -> str:
    again = [
        f"The entries `{run['entries']}` are, but for what has another date, of {_run(run)}"
        for run in result.get("again", [])
    ]
    return "\n\n".join([_run(result), *again])


def _run(run: dict[str, Any]) -> str:
    environment = run["environment"]
    return (
        f"`{run['command']}` on {environment['date'][:10]}, {_machine(environment)}, {_taken(run)}."
    )


def _machine(environment: dict[str, Any]) -> str:
    accelerator = " and a GPU" if any("GPU" in name for name in environment["devices"]) else ""
    return (
        f"{environment['cpus']} CPU cores{accelerator}, TensorFlow {environment['tensorflow']}, "
        f"Keras {environment['keras']}"
    )


def _rows_table(rows: Sequence[dict[str, Any]]) -> str:
    return _table(
        ("quantity", "published", "measured", "asked", "reached"),
        ("---", "---:", "---:", "---:", "---"),
        (
            (
                row["quantity"],
                _number(row["published"]),
                _number(row["measured"]),
                _bounds(row),
                REACHED[row["reached"]],
            )
            for row in rows
        ),
    )


def _table(head: Sequence[str], aligned: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, aligned, *(tuple(cell.replace("|", r"\|") for cell in row) for row in rows))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _bounds(row: dict[str, Any]) -> str:
    low, high = row["at_least"], row["at_most"]
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"≥ {_number(low)}"
    return "" if high is None else f"≤ {_number(high)}"


def _published_aside(row: dict[str, Any]) -> str:
    return "" if row["published"] is None else f" (published: {_number(row['published'])})"


def _number(value: float | str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4g}"


def _taken(result: dict[str, Any]) -> str:
    """Return how long it took; of a run that was resumed, only the last call is known."""
    duration = _duration(result["seconds"])
    # Results of before the field was written were not resumed.
    return f"resumed, the last call took {duration}" if result.get("resumed") else duration


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Write the tables into all pages."""
    results = read_results()
    for name, result in results.items():
        update_page(name, result_part(result))
    update_page(INDEX, index_part(results))


if __name__ == "__main__":
    main()
