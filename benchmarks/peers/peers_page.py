"""Make the measured part of the page beside other libraries from what was measured.

It needs neither TensorFlow nor the libraries, so that a test can compare the page with the JSON.

    python benchmarks/peers/peers_page.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PAGE = ROOT / "docs" / "peers.md"

BEGIN = "<!-- made by benchmarks/peers/run.py: begin -->"
END = "<!-- made by benchmarks/peers/run.py: end -->"

OURS = "deel_influence"
QUIET = 0.5
"""Load for each core, at most, of a machine that does nothing else."""

Cell = dict[str, Any]


def read_result(path: Path = RESULTS) -> dict[str, Any]:
    """Return the measurements."""
    return json.loads(path.read_text(encoding="utf-8"))


def part_on_page(page: Path = PAGE) -> str:
    """Return what stands between the markers."""
    text = page.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def update_page(result: dict[str, Any], page: Path = PAGE) -> None:
    """Put the tables between their two markers."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        message = f"The page must have the lines {BEGIN!r} and {END!r}. Received: {page}."
        raise ValueError(message)
    page.write_text(f"{before}{BEGIN}\n\n{markdown(result)}\n\n{END}{after}", encoding="utf-8")


def markdown(result: dict[str, Any]) -> str:
    """Return the part of the page that the measurements make."""
    parts = [
        _intro(result),
        "## Seconds",
        _seconds_table(result),
        "## In epochs of training",
        _epochs_table(result),
        "## Agreement with the reference",
        _agreement_table(result),
        "## Memory",
        _memory_table(result),
        "## Empty cells",
        _empty_cells(result),
    ]
    return "\n\n".join(parts)


def told(cell: Cell | None) -> str:
    """Return what the table of seconds says of a cell: the later calls, and the first."""
    if cell is None:
        return ""
    status = cell["status"]
    if status == "stopped":
        return f"stopped after {cell['limit']:.0f} s"
    if status == "wrong":
        return f"refused: {_number(cell['agreement'])}"
    if status == "failed":
        return "failed"
    if cell["warm"] is None:
        return f"({_time(cell['cold'])})"
    return f"{_time(cell['warm'])} ({_time(cell['cold'])})"


def best_seconds(cell: Cell | None) -> float | None:
    """Return the time that epochs are taken of: of later calls where there were any."""
    if cell is None or cell["status"] != "measured":
        return None
    return cell["cold"] if cell["warm"] is None else cell["warm"]


def ratio(cells: dict[str, Cell]) -> float | None:
    """Return the time of the fastest other library over ours; above 1, ours is faster.

    Later calls are compared where both have them, and else first calls.
    """
    measured = {name: cell for name, cell in cells.items() if cell["status"] == "measured"}
    ours = measured.pop(OURS, None)
    if ours is None or not measured:
        return None
    return min(_over(cell, ours) for cell in measured.values())


def _over(other: Cell, ours: Cell) -> float:
    call = "cold" if None in (other["warm"], ours["warm"]) else "warm"
    return other[call] / ours[call]


def _cells(result: dict[str, Any], name: str) -> dict[str, Cell]:
    return result["cells"].get(name, {})


def _compared(result: dict[str, Any]) -> list[str]:
    """Return the works that more than one library does."""
    libraries = len(result["libraries"])
    return [name for name, work in result["works"].items() if len(work["empty"]) < libraries - 1]


def _intro(result: dict[str, Any]) -> str:
    machine = result["environment"]
    cells = [cell for row in result["cells"].values() for cell in row.values()]
    loads, dates = [cell["load"] for cell in cells], [cell["date"][:10] for cell in cells]
    first, last = min(dates), max(dates)
    when = first if first == last else f"{first} to {last}"
    text = (
        f"Measured on {machine['cpus']} CPU cores ({machine['machine']}) on {when} by "
        f"`{machine['command']}`; Python {machine['python']}. Load of the machine when a process "
        f"began: {min(loads):.1f} to {max(loads):.1f}."
    )
    if any(cell.get("threads") is not None for cell in cells):
        text += (
            " Other libraries ran on as many threads as they take, and, where a second run is told "
            "of, on so many; the shorter time is shown."
        )
    # The run itself leaves up to one process a core behind in the average.
    if max(loads) > machine["cpus"] * (1 + QUIET):
        text += " **Other work ran beside it: times are not to be relied on.**"
    versions = [
        f"{shown} {version}"
        for name, shown in result["libraries"].items()
        if (version := _version(result, name))
    ]
    return f"{text}\n\nVersions: {'; '.join(versions)}."


def _version(result: dict[str, Any], library: str) -> str:
    rows = result["cells"].values()
    return next((row[library]["version"] for row in rows if "version" in row.get(library, {})), "")


def _seconds_table(result: dict[str, Any]) -> str:
    intro = (
        "Median of the calls after the first and, in brackets, the first call, with all tracing; "
        "in brackets alone where the first took so long that it was not repeated. *Ratio*: the "
        "fastest other library over deel_influence, of later calls if both have them and else of "
        "first ones; above 1, ours is faster."
    )
    shown = list(result["libraries"].values())
    rows = []
    for name in _compared(result):
        cells, found = _cells(result, name), ratio(_cells(result, name))
        rows.append(
            (
                *_named(result, name),
                *(told(cells.get(library)) for library in result["libraries"]),
                "" if found is None else f"{found:.2f}",
            )
        )
    return f"{intro}\n\n{_table(('work', 'network', *shown, 'ratio'), 2, rows)}"


def _epochs_table(result: dict[str, Any]) -> str:
    intro = (
        "What is a matter of passes over all examples, by deel_influence, in epochs of a compiled "
        "forward and backward pass of the same network over the same batches, and of Keras's `fit`."
    )
    rows = []
    for name, work in result["works"].items():
        seconds = best_seconds(_cells(result, name).get(OURS))
        limits = [
            best_seconds(_cells(result, f"{limit}_{work['problem']}").get(OURS))
            for limit in ("step", "fit")
        ]
        if work["is_pass"] and seconds is not None:
            shares = (f"{seconds / limit:.2f}" if limit else "" for limit in limits)
            rows.append((*_named(result, name), _time(seconds), *shares))
    head = ("work", "network", "seconds", "forward and backward", "`fit`")
    return f"{intro}\n\n{_table(head, 2, rows)}"


def _agreement_table(result: dict[str, Any]) -> str:
    intro = (
        "Bounds come from what rounding, draws and another method would give, as is said below, "
        "and from no library's figure. A result outside its bound is refused: it has no time."
    )
    shown = list(result["libraries"].values())
    rows, reasons = [], {}
    for name, work in result["works"].items():
        cells = _cells(result, name)
        values = (
            _number(cells[library]["agreement"]) if "agreement" in cells.get(library, {}) else ""
            for library in result["libraries"]
        )
        sign = "≤" if work["is_error"] else "≥"
        bound = f"{work['measure']} {sign} {_number(work['bound'])}"
        rows.append((*_named(result, name), bound, *values))
        reasons.setdefault(work["reason"], []).append(f"`{name}`")
    table = _table(("work", "network", "asked", *shown), 3, rows)
    why = "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in reasons.items())
    return "\n\n".join([intro, table, "Why these bounds, by the names of `--only`:", why])


def _memory_table(result: dict[str, Any]) -> str:
    intro = (
        "MB at the highest, over what the process had when the library was imported and the "
        "examples were read."
    )
    rows = []
    for name in _compared(result):
        cells = _cells(result, name)
        values = (
            f"{cells[library]['memory_mb']:,.0f}" if "memory_mb" in cells.get(library, {}) else ""
            for library in result["libraries"]
        )
        rows.append((*_named(result, name), *values))
    shown = list(result["libraries"].values())
    return f"{intro}\n\n{_table(('work', 'network', *shown), 2, rows)}"


def _empty_cells(result: dict[str, Any]) -> str:
    lines = []
    for name in _compared(result):
        work, cells = result["works"][name], _cells(result, name)
        reasons: dict[str, list[str]] = {}
        for library, reason in work["empty"].items():
            reasons.setdefault(reason, []).append(result["libraries"][library])
        found = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
        found += [
            f"{result['libraries'][library]} failed: `{cell['message']}`"
            for library, cell in cells.items()
            if cell["status"] == "failed"
        ]
        if found:
            lines.append(f"- {work['title']}, {work['problem']}. {'; '.join(found)}.")
    return "\n".join(lines)


def _named(result: dict[str, Any], name: str) -> tuple[str, str]:
    work = result["works"][name]
    return work["title"], work["problem"]


def _table(head: Sequence[str], texts: int, rows: Iterable[Sequence[str]]) -> str:
    aligned = ("---",) * texts + ("---:",) * (len(head) - texts)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, aligned, *rows))


def _time(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 0.1 else f"{value:.3f}"


if __name__ == "__main__":
    update_page(read_result())
