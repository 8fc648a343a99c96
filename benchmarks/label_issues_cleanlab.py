"""What cleanlab says of held-out probabilities: run by a Python that has cleanlab, nothing else.

``python label_issues_cleanlab.py IN.npz OUT.npz``: reads ``probabilities (n, c)``,
``features (n, d)`` and ``labels (n,)``; writes its version, its scores (larger is more suspicious),
the labels that it takes for issues, and its estimate of their number. Datalab is given the features
alone: of probabilities it makes the scores that are here by self-confidence.
"""

import sys
from itertools import product

import cleanlab
import numpy as np
from cleanlab import Datalab
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


def main(source: str, target: str) -> None:
    """Score, and write what was found."""
    data = np.load(source)
    labels, probabilities = data["labels"], data["probabilities"].astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = {"version": np.array(cleanlab.__version__)}
    for method, adjusted in product(METHODS, (False, True)):
        if adjusted and method == METHODS[2]:
            continue  # which cleanlab refuses
        quality = get_label_quality_scores(
            labels, probabilities, method=method, adjust_pred_probs=adjusted
        )
        found[f"{method}{' adjusted' if adjusted else ''}"] = -quality
    lab = Datalab({"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(features=data["features"], issue_types={"label": {}})
    try:
        by_features = lab.get_issues("label")
    except ValueError as error:
        # Where an example has more copies than Datalab takes neighbours, it finds no probabilities.
        print(f"Datalab found nothing: {error}".splitlines()[0], file=sys.stderr)
    else:
        found["Datalab"] = -by_features["label_score"].to_numpy()
        found["Datalab is_issue"] = by_features["is_label_issue"].to_numpy()
    found["is_issue"] = find_label_issues(labels, probabilities)
    found["number"] = np.array(num_label_issues(labels, probabilities))
    np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
