"""Koh & Liang (2017), figure 1: what each term of influence does.

A logistic regression tells ones from sevens. The influence of a training image on a test image is
a product of their pixels, bent by the inverse Hessian and weighted by how wrong the model is on
the training image. The figure plots it against variants without these terms, and claims that

- without the weight (the term of the training loss) many images that hardly matter seem to;
- without the inverse Hessian every image of the test image's digit helps and every other one
  harms, while in fact some images of the same digit harm.

The authors show the scatter plots and one such harmful image. Here every statement is counted, and
retraining without an image says which of the variants is right.

    python benchmarks/reproductions/koh_liang_fig1.py --data-dir FOLDER
"""

from __future__ import annotations

from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
from evidence import Evidence, read_options
from koh_liang_mnist import (
    SOURCE,
    Images,
    largest,
    linear_classifier,
    ones_and_sevens,
    read_mnist,
    six_digits,
)

from deel_influence.evaluation import (
    ConvexTraining,
    QueryOutputs,
    leave_one_out,
    removal_correlation,
    retrain,
)
from deel_influence.ihvp import ConjugateGradientDescentIHVP, IdentityIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"num_validation": 5000, "test_position": 30, "num_largest": 100, "num_harmful": 50},
    "short": {"num_validation": 5000, "test_position": 30, "num_largest": 20, "num_harmful": 10},
    "smoke": {"num_validation": 0, "test_position": 0, "num_largest": 3, "num_harmful": 2},
}
COMMON = {"weight_decay": 0.01, "cg_tolerance": 1e-8, "cg_steps": 1000}

FULL = "all terms"
NO_LOSS = "without the training loss"
NO_HESSIAN = "without the inverse Hessian"
NEITHER = "without either"

LOSS = keras.losses.BinaryCrossentropy(from_logits=True)
"""Of labels 0 and 1."""

SMALL, LARGE = 0.01, 0.1
"""Shares of the largest value: below the first an image hardly matters, above the other it does."""


NO_BOUND = (
    "That all images of the query's digit help without the inverse Hessian, and all others harm, "
    "follows from pixels that are not negative: it has no bound, since it cannot fail."
)


def influences(
    network: keras.Model, train: Images, query: Images, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Return the influence of each training image on the query by each variant, ``(n,)`` each."""
    model = BaseInfluenceModel(network, loss_function=LOSS)
    inverse = ConjugateGradientDescentIHVP(
        model,
        train_dataset=train.batches(),
        n_opt_iters=settings["cg_steps"],
        damping=0.0,
        tolerance=settings["cg_tolerance"],
        on_failure="raise",
    )

    def scores(ihvp: Any) -> np.ndarray:
        calculator = FirstOrderInfluenceCalculator(model, train.batches(), ihvp)
        return calculator.influence_matrix(query.batches(), train.batches(), verbose=0)[0]

    # The gradient of log(1 + exp(-m)) is -(1 - exp(-loss)) times that of the margin m: dividing
    # by the factor leaves out how wrong the model is on the image.
    factors = -np.expm1(-QueryOutputs(*train, loss=LOSS)(network))
    full, no_hessian = scores(inverse), scores(IdentityIHVP(model, train.batches()))
    return {
        FULL: full,
        NO_LOSS: full / factors,
        NO_HESSIAN: no_hessian,
        NEITHER: no_hessian / factors,
    }


def images_to_remove(
    values: dict[str, np.ndarray], harmful: np.ndarray, settings: dict[str, Any]
) -> np.ndarray:
    """Return whom to retrain without: what any variant finds largest, and the harmful images."""
    chosen = [largest(v, settings["num_largest"]) for v in values.values()]
    return np.unique(np.concatenate([*chosen, harmful]))


def add_counts(evidence: Evidence, values: dict[str, np.ndarray], same_digit: np.ndarray) -> None:
    """Add how many images each variant misjudges."""
    full, no_loss, no_hessian = values[FULL], values[NO_LOSS], values[NO_HESSIAN]
    evidence.add(
        "Images of the query's digit that help, without the inverse Hessian (share)",
        np.mean(no_hessian[same_digit] >= 0),
        published="all",
    )
    evidence.add(
        "Images of the other digit that harm, without the inverse Hessian (share)",
        np.mean(no_hessian[~same_digit] <= 0),
        published="all",
    )
    evidence.add(
        "Images of the query's digit that harm, all terms (share)",
        np.mean(full[same_digit] < 0),
        published="some",
    )
    hardly = np.abs(full) < SMALL * np.abs(full).max()
    seem_to = np.abs(no_loss) > LARGE * np.abs(no_loss).max()
    evidence.add(
        f"Images below {SMALL:.0%} of the largest influence that are above {LARGE:.0%} of the "
        "largest without the training loss (share)",
        np.mean(hardly & seem_to),
        published="many",
    )


def add_retraining(
    evidence: Evidence,
    values: dict[str, np.ndarray],
    removed: np.ndarray,
    changes: np.ndarray,
    harmful: np.ndarray,
) -> None:
    """Add what retraining without each image says of the variants."""
    evidence.details["pearson"] = {}
    for name, influence in values.items():
        agreement = removal_correlation(influence[removed][:, None], changes[:, None])
        evidence.details["pearson"][name] = float(agreement.pearson)
        evidence.add(
            f"Pearson correlation with retraining, {name}",
            agreement.pearson,
            at_least=0.99 if name == FULL else None,
        )
    fell = changes[np.isin(removed, harmful)] < 0
    evidence.add(
        f"Of the {len(harmful)} most harmful images of the query's digit: the loss falls on "
        "retraining without (share)",
        np.mean(fell),
        at_least=1.0,
    )


def draw(values: dict[str, np.ndarray], same_digit: np.ndarray, evidence: Evidence) -> Any:
    """Return the figure: influence over each variant of it, coloured by digit."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained", sharey=True)
    for panel, name in zip(axes, (NO_LOSS, NO_HESSIAN, NEITHER), strict=True):
        for is_same, color, label in ((True, "tab:green", "same"), (False, "tab:red", "other")):
            chosen = same_digit == is_same
            panel.scatter(values[name][chosen], values[FULL][chosen], s=4, c=color, label=label)
        panel.axhline(0, color="black", linewidth=0.5)
        panel.axvline(0, color="black", linewidth=0.5)
        panel.set_xlabel(f"influence {name}")
        panel.set_title(f"Pearson with retraining {evidence.details['pearson'][name]:.2f}")
    axes[0].set_ylabel("influence")
    axes[0].legend(title="digit", loc="upper left")
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Count what the variants misjudge, and retrain without the images that they point at."""
    options = read_options(__doc__, arguments)
    settings = {**COMMON, **SETTINGS[options.form]}
    evidence = Evidence(
        "koh_liang_fig1",
        "What each term of influence does",
        f"{SOURCE}, figure 1",
        options,
        settings,
    )
    train_images, test_images = read_mnist(options.data_dir, settings["num_validation"])
    train = ones_and_sevens(train_images)
    query = ones_and_sevens(test_images).one(settings["test_position"])
    same_digit = train.y == query.y[0]
    train, query = (Images(x, (y > 0).astype(np.float64)[:, None]) for x, y in (train, query))

    blank = linear_classifier(train.x.shape[1], 1, settings["weight_decay"])
    training = ConvexTraining(blank, *train, loss=LOSS)
    values = influences(training.full(), train, query, settings)
    of_digit = np.flatnonzero(same_digit)
    harmful = of_digit[np.argsort(values[FULL][of_digit])][: settings["num_harmful"]]
    removed = images_to_remove(values, harmful, settings)
    truth = retrain(
        training,
        QueryOutputs(*query, loss=LOSS),
        leave_one_out(len(train.y), removed),
        verbose=0,
    )
    changes = truth.changes[:, 0]

    add_counts(evidence, values, same_digit)
    add_retraining(evidence, values, removed, changes, harmful)
    evidence.details["num_train"] = len(train.y)
    evidence.details["num_removed"] = len(removed)
    evidence.details["actual"] = six_digits(changes)
    evidence.details["predicted"] = {
        name: six_digits(v[removed] / len(train.y)) for name, v in values.items()
    }
    evidence.notes.append(NO_BOUND)
    evidence.save(draw(values, same_digit, evidence))


if __name__ == "__main__":
    main()
