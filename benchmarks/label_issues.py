"""Measure how well wrong labels are found, beside cleanlab on the same networks and folds.

Run ``python benchmarks/label_issues.py --data FOLDER --cache FOLDER --cleanlab PYTHON``: FOLDER
holds the arrays of `label_networks`, and PYTHON is the interpreter of an environment with
``cleanlab[datalab]`` 2.9. Rows take the place of those of the same problem, seed and network in the
JSON, beside which the others stay, and the tables in the documentation are made of all of them.
``--problems adult_class_10 enron_hard_2 --seeds 0 1 2`` measures these alone. Without
``--cleanlab``, rows that are in the JSON are measured anew but for what cleanlab found, which they
keep; others are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import write_json
from label_networks import FLIPS, NUM_FOLDS, Problem

from deel_influence.evaluation import average_precision
from deel_influence.labels.held_out import EpochMeans, EpochSums
from deel_influence.labels.reading import Evidence
from deel_influence.labels.signals import SIGNALS, Sources, suspicion_of
from deel_influence.training_dynamics import RecordedDynamics

ROOT = Path(__file__).resolve().parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/label_issues.json", ROOT / "docs/labels.md"
NAMES = ("random1", "aggre", "worse")
HUMAN = [f"{kind}_{name}" for kind in ("c10", "sqz") for name in NAMES]
PROBLEMS = [*HUMAN, "spambase", "adult", "mnist"]
FLIPPED = [
    f"{data}_{how}_{percent}"
    for percent in (10, 2, 20)
    for data in ("adult", "spambase", "enron", "dogfish", "mnist", "fashion")
    for how in FLIPS
]

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
DATALAB = "Datalab"
SHOWN = (
    *("loss", "margin", "head", "neighbours", "recorded_margin", "recorded_loss"),
    *(DATALAB, CLEANLAB, CLEANLAB_MEANS, *list(COMBINATIONS)[:4], "refits, neighbours"),
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
    python: Path, cache: Path, evidence: Evidence, probabilities: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what cleanlab makes of held-out probabilities ``(n, c)`` and of the features."""
    source, target = cache / "for_cleanlab.npz", cache / "by_cleanlab.npz"
    given = {"labels": evidence.labels, "features": evidence.features}
    np.savez(source, probabilities=probabilities, **given)
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


def row_of(
    problem: Problem, epochs: int, python: Path | None, before: dict[str, Any]
) -> dict[str, Any]:
    """Measure everything on one network and its refits; without cleanlab, keep what it found."""
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
        suspicion = suspicion_of({signal: SIGNALS[signal](sources) for signal in signals})
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
    if python is None:
        return before | row | {"methods": kept_beside(found, before["methods"], problem.name)}
    by_others(problem, epochs, python, sources, row, found)
    return row | {"methods": found}


def kept_beside(found: dict[str, Any], before: dict[str, Any], problem: str) -> dict[str, Any]:
    """Return what was found of networks, and what others had found of the same networks."""
    if any(rounded(found[name]) != before[name] for name in SIGNALS):
        message = (
            "Argument `--cleanlab` must be given where networks are not those of the row. "
            f"Received: other signals of {problem}."
        )
        raise ValueError(message)
    return before | found


def by_others(
    problem: Problem,
    epochs: int,
    python: Path,
    sources: Sources,
    row: dict[str, Any],
    found: dict[str, Any],
) -> None:
    """Put what cleanlab finds to a row, and how well to what was found."""
    wrong = problem.arrays[2]
    given = {
        CLEANLAB: held_out(problem, epochs),
        CLEANLAB_MEANS: sources.refits.held_out,
    }
    for name, probabilities in given.items():
        theirs = by_cleanlab(python, problem.cache, sources.evidence, probabilities)
        row["cleanlab_version"] = str(theirs.pop("version"))
        row[f"{name}: number"] = int(theirs.pop("number"))
        row[f"{name}: precision_of_issues"] = share_wrong(wrong, theirs.pop("is_issue"))
        if DATALAB in theirs:
            chosen = theirs.pop("Datalab is_issue")
            row[f"{DATALAB}: precision_of_issues"] = share_wrong(wrong, chosen)
            found[DATALAB] = found_by(theirs.pop(DATALAB), wrong)
        for method, scores in theirs.items():
            found[f"{name}: {method}"] = found_by(scores, wrong)


def share_wrong(wrong: np.ndarray, chosen: np.ndarray) -> float | None:
    """Return which share of those chosen is wrong; None where none is chosen."""
    return float(wrong[chosen].mean()) if chosen.any() else None


Measure = Callable[[dict[str, Any], str], float]


def precision(row: dict[str, Any], name: str) -> float:
    """Return the average precision of a method; of cleanlab, that of its best score."""
    if name in (CLEANLAB, CLEANLAB_MEANS):
        scores = [m for n, m in row["methods"].items() if n.startswith(f"{name}: ")]
        return max(score["average_precision"] for score in scores)
    # Rows from before a method was measured have none.
    return row["methods"].get(name, {}).get("average_precision", np.nan)


def network(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the problem, and which of its two networks it is."""
    shortest = min(other["epochs"] for other in rows if other["problem"] == row["problem"])
    name = row["problem"].replace("c10_", "").replace("sqz_", "features ")
    if is_flipped(row):
        data, how, percent = name.split("_")
        name = f"{data}, {'by class' if how == FLIPS[0] else 'hard'} {percent} %"
    return f"{name}, {'short' if row['epochs'] == shortest else 'long'}"


def is_flipped(row: dict[str, Any]) -> bool:
    """Tell whether labels were flipped in some classes more than in others, or on hard examples."""
    return row["problem"] in FLIPPED


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of average precisions, means over seeds."""
    lines = [f"| | seeds | {' | '.join(SHOWN)} |", "|---|---|" + "---|" * len(SHOWN)]
    for name in dict.fromkeys(network(row, rows) for row in rows):
        runs = [row for row in rows if network(row, rows) == name]
        means = [float(np.mean([precision(r, method) for r in runs])) for method in SHOWN]
        values = ["–" if np.isnan(mean) else f"{mean:.3f}" for mean in means]
        best = f"{np.nanmax(means):.3f}"
        cells = [f"**{value}**" if value == best else value for value in values]
        lines.append(f"| {name} | {len(runs)} | {' | '.join(cells)} |")
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
    flipped = [row for row in rows if is_flipped(row)]
    others = [row for row in rows if not is_flipped(row)]
    tables = {"precision": table(others), "flips": table(flipped), "ratios": ratios(rows)}
    for name, lines in tables.items():
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
    parser.add_argument("--cleanlab", type=Path, metavar="PYTHON")
    parser.add_argument("--fashion", type=Path, help="the folder of FashionMNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--problems", nargs="*", default=PROBLEMS)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = stored(options.out, ("problem", "seed", "epochs"))
    for name in options.problems:
        for seed in options.seeds:
            problem = Problem(name, seed, options.data, options.cache, options.fashion)
            told = {"command": f"label_issues.py --problems {name} --seeds {seed}"}
            for epochs in (problem.kind.short, problem.kind.long):
                before = rows.get((name, seed, epochs))
                if options.cleanlab is None and before is None:
                    continue
                row = rounded(row_of(problem, epochs, options.cleanlab, before or {})) | told
                rows[name, seed, epochs] = row
                print(name, seed, epochs, f"{precision(row, 'model + data'):.3f}", flush=True)
            write_json(options.out, {"rows": list(rows.values())})
    if options.out == RESULT:
        update_page(list(rows.values()))


def stored(path: Path, keys: Sequence[str]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows of a result by some of their entries; none where there is no file."""
    found = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return {tuple(row[key] for key in keys): row for row in found}


if __name__ == "__main__":
    main()
