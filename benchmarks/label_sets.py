"""Measure how well wrong sets of classes are found, beside the loss and cleanlab.

Run ``python benchmarks/label_sets.py --data FOLDER --fashion FOLDER --cleanlab PYTHON --work
FOLDER``, as for `label_issues`. Sets are made of digits, five properties of one digit or the digits
of two pictures side by side, and of five properties of clothes. Some entries are flipped: a part of
all, one in a tenth of the examples, or a class that a tenth of them has is left out. Writes JSON
with the environment, and the table in the documentation; rows take the place of those of the same
data, flips, training and seed.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
from pathlib import Path
from typing import Any

import keras
import numpy as np
from environment import write_json
from label_issues import PAGE, ROOT, found_by, rounded, share_wrong, stored, with_table
from label_networks import Problem
from scipy.special import expit
from sklearn.datasets import load_digits

from deel_influence.baselines import LossScore
from deel_influence.labels import find_label_issues
from deel_influence.labels.head import held_out_log_odds, standardised, stratified_folds
from deel_influence.labels.sets import SET_SIGNALS
from deel_influence.model import BaseInfluenceModel

RESULT = ROOT / "benchmarks/results/label_sets.json"
DATA = ("digits", "two digits", "mnist", "two of mnist", "clothes")
FLIPS = ("entries", "one", "missing")
SHARE_OF_ENTRIES, SHARE_OF_EXAMPLES = 0.03, 0.1
EPOCHS = {"short": 5, "long": 40}
KEYS = ("data", "flips", "training", "seed")
NUM_FOLDS, NUM_PAIRS = 5, 3000
PROPERTIES = ((0, 2, 4, 6, 8), (5, 6, 7, 8, 9), (0, 6, 8, 9), (2, 3, 5, 7), (1, 4, 7))
"""Even, above four, with a loop, prime, of straight lines: the digits that are so."""

CLOTHES = ((0, 2, 3, 4, 6), (5, 7, 9), (2, 4, 6), (0, 3, 5), (1, 2, 3, 4))
"""Worn above the waist, on feet, with long sleeves, in summer, as long as an arm or longer."""


def right_sets(name: str, seed: int, folder: Path, fashion: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs ``(n, d)``, and which classes the examples have, bool, ``(n, c)``."""
    if name.endswith("digits"):
        images, labels = load_digits(return_X_y=True)
        images = (images / 16).astype(np.float32)
    else:
        kind = "fashion" if name == "clothes" else "mnist"
        images, labels = Problem(kind, 0, folder, folder, fashion).right(kind)
    if name.startswith("two"):
        generator = np.random.default_rng(seed)
        pairs = generator.integers(0, len(images), (2, NUM_PAIRS))
        members = np.zeros((NUM_PAIRS, 10), bool)
        for one in pairs:
            members[np.arange(NUM_PAIRS), labels[one]] = True
        return np.concatenate([images[one] for one in pairs], axis=1), members
    groups = CLOTHES if name == "clothes" else PROPERTIES
    return images, np.stack([np.isin(labels, group) for group in groups], axis=1)


def flipped(members: np.ndarray, how: str, seed: int) -> np.ndarray:
    """Return the sets with wrong entries, bool, ``(n, c)``."""
    generator, (n, c) = np.random.default_rng(seed), members.shape
    result = members.copy()
    if how == "entries":
        return result ^ (generator.random((n, c)) < SHARE_OF_ENTRIES)
    candidates = np.flatnonzero(members.any(axis=1) | (how == "one"))
    for row in generator.choice(candidates, round(SHARE_OF_EXAMPLES * n), replace=False):
        classes = np.flatnonzero(members[row]) if how == "missing" else np.arange(c)
        result[row, generator.choice(classes)] ^= True
    return result


def network(num_inputs: int, num_classes: int, seed: int) -> keras.Model:
    """Return a network that has not been trained."""
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(64, "relu")
    stack = [keras.Input((num_inputs,)), hidden, keras.layers.Dense(num_classes, "sigmoid")]
    model = keras.Sequential(stack)
    model.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    return model


def fit(model: keras.Model, x: np.ndarray, given: np.ndarray, epochs: int) -> None:
    """Train a network on."""
    model.fit(x, given.astype(np.float32), epochs=epochs, batch_size=64, verbose=0)


class Trained:
    """A network and five more without a fold each, trained for more and more epochs.

    Parameters
    ----------
    x, given
        Inputs ``(n, d)``, and which classes the examples are said to have, ``(n, c)``.
    seed
        Fixes folds and networks.
    """

    def __init__(self, x: np.ndarray, given: np.ndarray, seed: int) -> None:
        self.x, self.given, self._epochs = x, given, 0
        _, numbers = np.unique(given, axis=0, return_inverse=True)
        self.folds = stratified_folds(numbers.reshape(-1), NUM_FOLDS, seed)
        seeds = (10 * seed + fold for fold in range(NUM_FOLDS + 1))
        *self._others, self.model = (network(x.shape[1], given.shape[1], one) for one in seeds)

    def train(self, epochs: int) -> None:
        """Train on, up to so many epochs."""
        for fold, model in enumerate([*self._others, self.model]):
            rows = self.folds != fold  # of no fold is the last model
            fit(model, self.x[rows], self.given[rows], epochs - self._epochs)
        self._epochs = epochs

    def probabilities(self) -> dict[str, np.ndarray]:
        """Return what is said of each class, ``(n, c)``, by three kinds of models."""
        held_out = np.empty(self.given.shape)
        for fold, model in enumerate(self._others):
            held = self.folds == fold
            held_out[held] = model.predict(self.x[held], verbose=0)
        last = self.model.layers[-1].input
        features = keras.Model(self.model.inputs, last).predict(self.x, verbose=0)
        log_odds = held_out_log_odds(standardised(features), self.given, self.folds)
        model = self.model.predict(self.x, verbose=0)
        return {"five trainings": held_out, "the model": model, "our head": expit(log_odds)}


def row_of(trained: Trained, right: np.ndarray, work: Path, python: Path) -> dict[str, Any]:
    """Measure one network and its refits."""
    given, data = trained.given, (trained.x, trained.given.astype(np.float32))
    wrong, wrapped = (given != right).any(axis=1), BaseInfluenceModel(trained.model)
    issues = find_label_issues(wrapped, data, verbose=0)
    asked = find_label_issues(wrapped, data, signals=list(SET_SIGNALS), verbose=0).signals
    scores = {"loss, added up": LossScore(wrapped).score(data, verbose=0).values}
    scores |= asked | {"model + data": issues.suspicion}
    probabilities = trained.probabilities()
    source, target = work / "for_cleanlab.npz", work / "by_cleanlab.npz"
    np.savez(source, members=given, **probabilities)
    script = ROOT / "benchmarks/label_sets_cleanlab.py"
    subprocess.run([python, script, source, target], check=True)
    with np.load(target) as theirs:
        scores |= {f"cleanlab, {name}": theirs[name] for name in probabilities}
        chosen, version = theirs["is_issue"], str(theirs["version"])
    return {
        "examples": len(wrong),
        "wrong": int(wrong.sum()),
        "wrong_entries": (given != right).sum(axis=0).tolist(),
        "estimated": issues.estimated_number,
        "estimated_entries": issues.wrong_entries.tolist(),
        "interval": list(issues.interval),
        "precision_of_issues": share_wrong(wrong, issues.is_issue),
        "suggested_right": float((issues.suggested_sets == right).all(axis=1)[wrong].mean()),
        "cleanlab_version": version,
        "cleanlab: number": int(chosen.sum()),
        "cleanlab: precision_of_issues": share_wrong(wrong, chosen),
        "methods": {name: found_by(values, wrong) for name, values in scores.items()},
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table of average precisions, means over seeds."""
    methods = list(rows[0]["methods"])
    lines = [
        f"| | seeds | {' | '.join(methods)} | wrong | estimated | suggestion right |",
        "|---|---|" + "---|" * (len(methods) + 3),
    ]
    for kind in dict.fromkeys((row["data"], row["flips"], row["training"]) for row in rows):
        runs = [row for row in rows if (row["data"], row["flips"], row["training"]) == kind]
        means = [
            f"{np.mean([run['methods'][name]['average_precision'] for run in runs]):.3f}"
            for name in methods
        ]
        cells = [f"**{mean}**" if mean == max(means) else mean for mean in means]
        rest = [f"{np.mean([run[name] for run in runs]):.0f}" for name in ("wrong", "estimated")]
        rest.append(f"{np.mean([run['suggested_right'] for run in runs]):.2f}")
        lines.append(f"| {', '.join(kind)} | {len(runs)} | {' | '.join([*cells, *rest])} |")
    return lines


def main() -> None:
    """Train, measure, and write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fashion", type=Path, required=True)
    parser.add_argument("--cleanlab", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--sets", nargs="*", choices=DATA, default=DATA)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = stored(options.out, KEYS)
    for name, seed, how in itertools.product(options.sets, options.seeds, FLIPS):
        x, right = right_sets(name, seed, options.data, options.fashion)
        trained = Trained(x, flipped(right, how, seed), seed)
        for training, epochs in EPOCHS.items():
            trained.train(epochs)
            told = dict(zip(KEYS, (name, how, training, seed), strict=True))
            row = rounded(row_of(trained, right, options.work, options.cleanlab))
            rows[tuple(told.values())] = told | row
            found = {m: f["average_precision"] for m, f in row["methods"].items()}
            print(*told.values(), found, flush=True)
        write_json(options.out, {"rows": list(rows.values())})
    if options.out == RESULT:
        lines = table(list(rows.values()))
        text = with_table(PAGE.read_text(encoding="utf-8"), "sets", lines)
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
