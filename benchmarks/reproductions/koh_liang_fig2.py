"""Koh & Liang (2017), figure 2, left and middle: predicted against actual changes of a loss.

A logistic regression of ten classes and 7,840 weights is trained on 55,000 images of MNIST. For
one test image on which it is wrong, influence predicts how the loss changes when a training image
is left out; the 500 images of largest prediction are left out in turn, each with a retraining to
the minimum. Published are scatter plots on the diagonal, with H⁻¹ by conjugate gradients (left)
and by LiSSA (middle), without figures.

The authors' LiSSA takes one example in each step: depth 5,000, scale 25, mean of ten runs. Both
that and steps of more examples are measured here.

    python benchmarks/reproductions/koh_liang_fig2.py --data-dir FOLDER
"""

from __future__ import annotations

import warnings
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
    plot_prediction,
    read_mnist,
    six_digits,
)
from pieces import pieces_folder

from deel_influence.errors import ConvergenceWarning
from deel_influence.evaluation import (
    ConvexTraining,
    QueryOutputs,
    RemovalCorrelation,
    leave_one_out,
    removal_correlation,
    retrain,
)
from deel_influence.ihvp import (
    ConjugateGradientDescentIHVP,
    LissaIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

CG = "conjugate gradients"
LISSA = "LiSSA"
LISSA_OF_PAPER = "LiSSA, one example in a step"

NUM_CLASSES = 10
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {
        "num_validation": 5000,
        "num_train": 55_000,
        "stride": 1,
        "test_position": 8,
        "num_removed": 500,
        LISSA: {"n_opt_iters": 5000, "batch_size": 100, "scale": 25.0, "num_repeats": 1},
        LISSA_OF_PAPER: {"n_opt_iters": 5000, "batch_size": 1, "scale": 25.0, "num_repeats": 10},
    },
    "short": {
        "num_validation": 5000,
        "num_train": 10_000,
        "stride": 2,
        "test_position": 8,
        "num_removed": 50,
        LISSA: {"n_opt_iters": 2000, "batch_size": 100, "scale": 25.0, "num_repeats": 1},
        LISSA_OF_PAPER: {"n_opt_iters": 2000, "batch_size": 1, "scale": 25.0, "num_repeats": 4},
    },
    "smoke": {
        "num_validation": 0,
        "num_train": 60,
        "stride": 7,
        "test_position": 0,
        "num_removed": 5,
        LISSA: {"n_opt_iters": 50, "batch_size": 20, "scale": 5.0, "num_repeats": 1},
        LISSA_OF_PAPER: {"n_opt_iters": 50, "batch_size": 1, "scale": 5.0, "num_repeats": 2},
    },
}
COMMON = {"weight_decay": 0.01, "cg_tolerance": 1e-6, "cg_steps": 2000, "seed": 0}


def make_strategy(
    name: str, model: BaseInfluenceModel, train: Images, settings: dict[str, Any]
) -> ConjugateGradientDescentIHVP | LissaIHVP:
    """Return a way to H⁻¹, which is not damped: the weight decay suffices."""
    common = {"train_dataset": train.batches(), "damping": 0.0}
    if name == CG:
        return ConjugateGradientDescentIHVP(
            model,
            n_opt_iters=settings["cg_steps"],
            tolerance=settings["cg_tolerance"],
            on_failure="raise",
            **common,
        )
    return LissaIHVP(model, seed=settings["seed"], **settings[name], **common)


def predict(
    name: str, network: keras.Model, train: Images, query: Images, evidence: Evidence
) -> np.ndarray:
    """Return the change of the query's loss that a strategy predicts without each image ``(n,)``.

    The relative residual at which it ended goes to the details.
    """
    model = BaseInfluenceModel(network, loss_function=LOSS)
    ihvp = make_strategy(name, model, train, evidence.settings)
    calculator = FirstOrderInfluenceCalculator(model, train.batches(), ihvp)
    with warnings.catch_warnings():
        # LiSSA is stopped where the authors stop it: how good that is, is the question here.
        warnings.simplefilter("ignore", ConvergenceWarning)
        changes = calculator.predict_loss_change(query.batches(), train.batches(), verbose=0)
    residuals = evidence.details.setdefault("relative_residual", {})
    residuals[name] = float(ihvp.last_result.residual_norm.max())
    return changes[0]


def add_agreement(evidence: Evidence, name: str, agreement: RemovalCorrelation) -> None:
    """Add correlation and slope of a strategy."""
    published = "on the diagonal"
    at_least = {CG: 0.99, LISSA: 0.95, LISSA_OF_PAPER: 0.95}[name]
    evidence.add(
        f"Pearson correlation, {name}", agreement.pearson, published=published, at_least=at_least
    )
    bounds = {"at_least": 0.95, "at_most": 1.05} if name == CG else {}
    evidence.add(
        f"Slope of actual over predicted changes, {name}",
        agreement.slope,
        published=published,
        **bounds,
    )


def draw(
    predicted: dict[str, np.ndarray], actual: np.ndarray, pearson: dict[str, float]
) -> plt.Figure:
    """Return the figure: one scatter for each strategy."""
    figure, axes = plt.subplots(1, len(predicted), figsize=(11, 3.6), layout="constrained")
    for panel, (name, changes) in zip(axes, predicted.items(), strict=True):
        plot_prediction(panel, changes, actual, f"{name}: {pearson[name]:.3f}")
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Compare predicted changes of a loss with those that retraining brings."""
    options = read_options(__doc__, arguments)
    settings = {**COMMON, **SETTINGS[options.form]}
    evidence = Evidence(
        "koh_liang_fig2",
        "Leaving one out of 55,000 images, logistic regression",
        f"{SOURCE}, figure 2",
        options,
        settings,
    )
    train, test = read_mnist(options.data_dir, settings["num_validation"], settings["stride"])
    train = Images(*(part[: settings["num_train"]] for part in train))
    query = test.one(settings["test_position"])

    blank = linear_classifier(train.x.shape[1], NUM_CLASSES, settings["weight_decay"])
    training = ConvexTraining(blank, *train, loss=LOSS)
    network = training.full()
    by_cg = predict(CG, network, train, query, evidence)
    removed = largest(by_cg, settings["num_removed"])
    truth = retrain(
        training,
        QueryOutputs(*query, loss=LOSS),
        leave_one_out(len(train.y), removed),
        folder=pieces_folder(evidence.name, options, settings),
        settings=settings,
    )
    actual = truth.changes[:, 0]

    predicted = {CG: by_cg[removed]}
    for name in (LISSA, LISSA_OF_PAPER):
        predicted[name] = predict(name, network, train, query, evidence)[removed]
    pearson = {}
    for name, changes in predicted.items():
        agreement = removal_correlation(changes, actual)
        pearson[name] = float(agreement.pearson)
        add_agreement(evidence, name, agreement)
    evidence.details["loss_of_query"] = float(truth.full_outputs[0, 0])
    evidence.details["predicted"] = {name: six_digits(c) for name, c in predicted.items()}
    evidence.details["actual"] = six_digits(actual)
    evidence.save(draw(predicted, actual, pearson))


if __name__ == "__main__":
    main()
