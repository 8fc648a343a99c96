"""Make the table of strategies in the documentation from what was measured.

It needs neither TensorFlow nor the library, so that a test can compare the page with the JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "strategies.json"
PAGE = ROOT / "docs" / "strategies" / "index.md"

BEGIN = "<!-- made by benchmarks/strategies.py: begin -->"
END = "<!-- made by benchmarks/strategies.py: end -->"


def read_result(path: Path = RESULTS) -> dict[str, Any]:
    """Return the measurements."""
    return json.loads(path.read_text(encoding="utf-8"))


def markdown(result: dict[str, Any]) -> str:
    """Return the part of the page that the measurements make."""
    machine = result["environment"]
    intro = (
        f"Measured on {machine['cpus']} CPU cores ({machine['machine']}), TensorFlow "
        f"{machine['tensorflow']}, on {machine['date'][:10]}. A star: not converged in the default "
        "number of steps."
    )
    return "\n\n".join([intro, *(_of_problem(p) for p in result["problems"].values())])


def update_page(result: dict[str, Any], page: Path = PAGE) -> None:
    """Put the table between its two markers."""
    before, found, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        message = f"The page must have the lines {BEGIN!r} and {END!r}. Received: {page}."
        raise ValueError(message)
    text = f"{before}{BEGIN}\n\n{markdown(result)}\n\n{END}{after}"
    page.write_text(text, encoding="utf-8")


def table_on_page(page: Path = PAGE) -> str:
    """Return what stands between the markers."""
    text = page.read_text(encoding="utf-8")
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def _of_problem(problem: dict[str, Any]) -> str:
    low, high = problem["eigenvalues"]
    facts = (
        f"{problem['parameters']:,} parameters, {problem['examples']:,} examples, "
        f"{problem['queries']} queries; eigenvalues of the Hessian from {low:.1e} to {high:.1e}; "
        f"an epoch of training takes {_seconds(problem['epoch_seconds'])}."
    )
    columns = (
        "strategy",
        "settings",
        "fit",
        "matrix",
        "self",
        "error",
        "Spearman",
        "Pearson, self",
        *(f"Pearson, {damping:g}" for damping in sorted(problem["dampings"])),
    )
    aligned = ("---", "---", *("---:",) * (len(columns) - 2))
    rows = [columns, aligned, *(_row(row) for row in problem["strategies"])]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    return "\n".join([f"**{problem['title']}.** {facts}", "", *lines])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    name, settings = row["strategy"], row["settings"]
    first, by_damping = row["at"][0], sorted(row["at"], key=lambda at: at["damping"])
    return (
        f"[{name}]({name}.md)",
        f"`{settings}`" if settings else "",
        *(_seconds(row[key]) for key in ("fit_seconds", "matrix_seconds")),
        _seconds(row["self_influence_seconds"]),
        f"{first['error']:.2g}" if first["error"] >= 5e-4 else "0",
        f"{first['spearman']:.3f}",
        f"{row['self_influence_pearson']:.3f}",
        *(f"{at['pearson']:.3f}" + _unless_converged(at) for at in by_damping),
    )


def _unless_converged(at: dict[str, Any]) -> str:
    return "" if at.get("converged", True) else "*"


def _seconds(value: float) -> str:
    if value < 5e-4:
        return "0"
    return f"{value:.3f} s" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


if __name__ == "__main__":
    update_page(read_result())
