"""Measure how well wrong labels are found, beside cleanlab on the same networks and folds.

Run ``python benchmarks/label_issues.py --data FOLDER --cache FOLDER --cleanlab PYTHON``: FOLDER
holds the arrays of `label_networks`, and PYTHON is the interpreter of an environment with
cleanlab 2.9. Writes JSON with the environment, and the tables in the documentation.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from environment import write_json
from label_networks import NUM_FOLDS, Problem

from deel_influence.evaluation import average_precision
from deel_influence.labels.held_out import EpochMeans, EpochSums
from deel_influence.labels.reading import Evidence
from deel_influence.labels.signals import SIGNALS, Sources, mean_rank
from deel_influence.training_dynamics import RecordedDynamics

ROOT = Path(__file__).resolve().parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/label_issues.json", ROOT / "docs/labels.md"
NAMES = ("random1", "aggre", "worse")
HUMAN = [f"{kind}_{name}" for kind in ("c10", "sqz") for name in NAMES]
PROBLEMS = [*HUMAN, "spambase", "adult", "mnist"]

MODEL = ("head", "neighbours")
RECORD, REFITS = ("recorded_loss",), ("in_sample", "held_out")
COMBINATIONS = {
    "model + data": MODEL,
    "+ record of the training": (*MODEL, *RECORD),
    "+ five refits": (*MODEL, *REFITS),
    "+ record + five refits": (*MODEL, *RECORD, *REFITS),
    "loss, head, neighbours": ("loss", *MODEL),
    "head margin, neighbours": ("head_margin", "neighbours"),
    "recorded loss, neighbours": (*RECORD, "neighbours"),
    "recorded margin, head, neighbours": ("recorded_margin", *MODEL),
    "refits, neighbours": (*REFITS, "neighbours"),
    "refits alone": REFITS,
}
CLEANLAB, CLEANLAB_MEANS = "cleanlab", "cleanlab, mean over epochs"
SHOWN = (
    *("loss", "margin", "head", "neighbours", "recorded_margin", "recorded_loss"),
    *(CLEANLAB, CLEANLAB_MEANS, *list(COMBINATIONS)[:4], "refits, neighbours"),
)


def sources_of(problem: Problem, epochs: int) -> Sources:
    """Return what is known after some epochs, as `find_label_issues` would find it."""
    _, labels, _ = problem.arrays
    whole, ids = problem.trained(-1), np.arange(len(labels))
    log_probabilities = whole["logp"][epochs - 1].astype(np.float64)
    evidence = Evidence(ids, labels, log_probabilities, whole[f"feat{epochs}"], ids)
    names = tuple(whole["names"].tolist())
    record = RecordedDynamics(names, np.arange(epochs), ids, whole["dyn"][:epochs], epochs)
    num_classes = log_probabilities.shape[1]
    means = EpochMeans(labels, problem.folds, NUM_FOLDS, num_classes)
    for fold in range(NUM_FOLDS):
        sums = EpochSums(labels, num_classes, fold)
        for after in problem.trained(fold)["logp"][:epochs]:
            sums.add(after.astype(np.float64))
        means.add(sums)
    return Sources(evidence, record, means.finished(ids, epochs))


def by_cleanlab(
    python: Path, cache: Path, labels: np.ndarray, probabilities: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what cleanlab makes of held-out probabilities ``(n, c)``."""
    source, target = cache / "for_cleanlab.npz", cache / "by_cleanlab.npz"
    np.savez(source, labels=labels, probabilities=probabilities)
    script = ROOT / "benchmarks/label_issues_cleanlab.py"
    subprocess.run([python, script, source, target], check=True)
    with np.load(target) as found:
        return dict(found)


def held_out(problem: Problem, epochs: int) -> np.ndarray:
    """Return the probabilities of the last epoch by the network without the example."""
    last = np.stack([problem.trained(fold)["logp"][epochs - 1] for fold in range(NUM_FOLDS)])
    return np.exp(last[problem.folds, np.arange(len(problem.folds))])


def found_by(scores: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Return average precision, and recall after as many reads as mistakes."""
    first = np.argsort(-scores, kind="stable")[: int(wrong.sum())]
    return {
        "average_precision": float(average_precision(scores, wrong)),
        "recall": float(wrong[first].mean()),
    }


def row_of(problem: Problem, epochs: int, python: Path) -> dict[str, Any]:
    """Measure everything on one network and its refits."""
    _, labels, wrong = problem.arrays
    sources = sources_of(problem, epochs)
    found: dict[str, Any] = {}
    start = time.perf_counter()
    for name in MODEL:
        SIGNALS[name](sources)
    seconds = time.perf_counter() - start
    for name, signal in SIGNALS.items():
        found[name] = found_by(signal(sources), wrong)
    for name, signals in COMBINATIONS.items():
        suspicion = mean_rank([SIGNALS[signal](sources) for signal in signals])
        found[name] = found_by(suspicion, wrong)
    suggested = sources.log_probabilities.argmax(axis=1)
    row = {
        "problem": problem.name,
        "seed": problem.seed,
        "epochs": epochs,
        "training_accuracy": float(problem.trained(-1)["acc"][epochs - 1]),
        "examples": len(wrong),
        "wrong": int(wrong.sum()),
        "disputed_of_wrong": float((suggested != labels)[wrong].mean()),
        "seconds_model_and_data": seconds,
    }
    given = {
        CLEANLAB: held_out(problem, epochs),
        CLEANLAB_MEANS: sources.refits.held_out,
    }
    for name, probabilities in given.items():
        theirs = by_cleanlab(python, problem.cache, labels, probabilities)
        row["cleanlab_version"] = str(theirs.pop("version"))
        row[f"{name}: number"] = int(theirs.pop("number"))
        row[f"{name}: precision_of_issues"] = float(wrong[theirs.pop("is_issue")].mean())
        for method, scores in theirs.items():
            found[f"{name}: {method}"] = found_by(scores, wrong)
    return row | {"methods": found}


Measure = Callable[[dict[str, Any], str], float]


def precision(row: dict[str, Any], name: str) -> float:
    """Return the average precision of a method; of cleanlab, that of its best score."""
    if name in (CLEANLAB, CLEANLAB_MEANS):
        scores = [m for n, m in row["methods"].items() if n.startswith(f"{name}: ")]
        return max(score["average_precision"] for score in scores)
    return row["methods"][name]["average_precision"]


def network(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the problem, and which of its two networks it is."""
    shortest = min(other["epochs"] for other in rows if other["problem"] == row["problem"])
    name = row["problem"].replace("c10_", "").replace("sqz_", "features ")
    return f"{name}, {'short' if row['epochs'] == shortest else 'long'}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of average precisions, means over seeds."""
    lines = [f"| | {' | '.join(SHOWN)} |", "|---|" + "---|" * len(SHOWN)]
    for name in dict.fromkeys(network(row, rows) for row in rows):
        runs = [row for row in rows if network(row, rows) == name]
        values = [f"{np.mean([precision(r, method) for r in runs]):.3f}" for method in SHOWN]
        cells = [f"**{value}**" if value == max(values) else value for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def ratios(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of ratios to the loss and to cleanlab."""
    human = [row for row in rows if row["problem"] in HUMAN]
    compared = [
        ("model + data", "loss"),
        ("model + data", CLEANLAB),
        ("+ record of the training", CLEANLAB),
        ("+ five refits", CLEANLAB),
        ("+ five refits", CLEANLAB_MEANS),
        ("+ record + five refits", CLEANLAB),
        ("+ record + five refits", CLEANLAB_MEANS),
    ]
    lines = ["| ours | beside | mean, human mistakes | lowest, human mistakes | lowest of all |"]
    lines.append("|---|---|---|---|---|")
    for ours, theirs in compared:
        mine = [precision(row, ours) / precision(row, theirs) for row in human]
        every = [precision(row, ours) / precision(row, theirs) for row in rows]
        lines.append(
            f"| {ours} | {theirs} | {np.mean(mine):.3f} | {min(mine):.3f} | {min(every):.3f} |"
        )
    return lines


def update_page(rows: list[dict[str, Any]]) -> None:
    """Put the tables into the page, each between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in (("precision", table(rows)), ("ratios", ratios(rows))):
        text = with_table(text, name, lines)
    PAGE.write_text(text, encoding="utf-8")


def with_table(text: str, name: str, lines: list[str]) -> str:
    """Return the text of a page with lines between the marks of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    block = "\n".join([begin, "", *lines, "", end])
    return re.sub(f"{begin}.*?{end}", lambda _: block, text, flags=re.S)


def rounded(nest: Any) -> Any:
    """Return numbers with the four digits that a second run would agree on."""
    if isinstance(nest, dict):
        return {name: rounded(part) for name, part in nest.items()}
    if isinstance(nest, list):
        return [rounded(part) for part in nest]
    return round(nest, 4) if isinstance(nest, float) else nest


def main() -> None:
    """Train what is not there yet, measure, and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--cleanlab", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for name in options.problems:
        for seed in range(options.seeds):
            problem = Problem(name, seed, options.data, options.cache)
            for epochs in (problem.kind.short, problem.kind.long):
                rows.append(row_of(problem, epochs, options.cleanlab))
                print(name, seed, epochs, f"{precision(rows[-1], 'model + data'):.3f}", flush=True)
    write_json(options.out, {"rows": rounded(rows)})
    if options.out == RESULT:
        update_page(rows)


if __name__ == "__main__":
    main()
