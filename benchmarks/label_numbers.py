"""Measure how many labels are estimated to be wrong, with five refits, beside how many are.

Run ``python benchmarks/label_numbers.py --data FOLDER --cache FOLDER``, as for `label_issues`.
Writes JSON with the environment, and the table in the documentation. The annotators ``random2``
and ``random3`` and the images after the first 6,000 had no part in the choice of the rule.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from environment import write_json
from label_issues import COMBINATIONS, PAGE, rounded, sources_of, with_table
from label_networks import NUM_FOLDS, Problem

from deel_influence.labels.signals import SIGNALS, suspicion_of

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks/results/label_numbers.json"
NAMES = ("aggre", "random1", "random2", "random3", "worse")
PROBLEMS = [
    *(f"sqz_{name}{rest}" for rest in ("", "_rest") for name in NAMES),
    *("spambase", "adult", "mnist"),
]


def row_of(problem: Problem, epochs: int) -> dict[str, Any]:
    """Measure one network and its refits."""
    _, labels, wrong = problem.arrays
    sources = sources_of(problem, epochs)
    estimate = sources.estimate()
    asked = COMBINATIONS["+ five refits"]
    suspicion = suspicion_of({name: SIGNALS[name](sources) for name in asked})
    issues = np.argsort(-suspicion, kind="stable")[: estimate.number]
    last = np.stack([problem.trained(fold)["logp"][epochs - 1] for fold in range(NUM_FOLDS)])
    predicted = last[problem.folds, np.arange(len(labels))].argmax(axis=1)
    return {
        "problem": problem.name,
        "seed": problem.seed,
        "epochs": epochs,
        "held_out_agreement": float((predicted == labels).mean()),
        "examples": len(labels),
        "wrong": int(wrong.sum()),
        "estimated": estimate.number,
        "interval": list(estimate.interval),
        "precision_of_issues": float(wrong[issues].mean()),
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| labels | training | held-out predictions equal to the label | wrong | estimated | "
        "ratio | interval | precision of `is_issue` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shortest = min(other["epochs"] for other in rows if other["problem"] == row["problem"])
        name = row["problem"].replace("sqz_", "").replace("_rest", ", the other 4,000 images")
        low, high = row["interval"]
        lines.append(
            f"| {name} | {'short' if row['epochs'] == shortest else 'long'} | "
            f"{row['held_out_agreement']:.2f} | {row['wrong']} | {row['estimated']} | "
            f"{row['estimated'] / row['wrong']:.2f} | {low} to {high} | "
            f"{row['precision_of_issues']:.2f} |"
        )
    return lines


def main() -> None:
    """Train what is not there yet, measure, and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for name in options.problems:
        problem = Problem(name, options.seed, options.data, options.cache)
        for epochs in (problem.kind.short, problem.kind.long):
            rows.append(row_of(problem, epochs))
            print(name, epochs, rows[-1]["wrong"], rows[-1]["estimated"], flush=True)
    write_json(options.out, {"rows": rounded(rows)})
    if options.out == RESULT:
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_table(text, "numbers", table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
