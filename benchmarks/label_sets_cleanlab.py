"""What cleanlab says where examples have several labels: run by a Python that has cleanlab.

``python label_sets_cleanlab.py IN.npz OUT.npz``: reads ``members (n, c)`` and probabilities
``(n, c)``, those of ``five trainings`` among others; writes its version, for each array its score,
larger for more suspicious, and the examples that it takes for issues by the five trainings, bool.
"""

import sys

import cleanlab
import numpy as np
from cleanlab.multilabel_classification.filter import find_label_issues
from cleanlab.multilabel_classification.rank import get_label_quality_scores


def main(source: str, target: str) -> None:
    """Score, and write what was found."""
    data = np.load(source)
    labels = [np.flatnonzero(row).tolist() for row in data["members"]]
    found = {"version": np.array(cleanlab.__version__)}
    for name in set(data.files) - {"members"}:
        probabilities = data[name].astype(np.float64)
        found[name] = -get_label_quality_scores(labels, probabilities)
    found["is_issue"] = find_label_issues(labels, data["five trainings"].astype(np.float64))
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
