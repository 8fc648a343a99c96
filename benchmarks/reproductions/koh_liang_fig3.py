"""Koh & Liang (2017), figure 3: influence on a loss without second derivatives.

A linear support vector machine tells ones from sevens. The hinge has no curvature, so that
influence has nothing to go by; computed on a smooth version of the hinge, at the same weights, it
tells what retraining with the hinge itself does. Published are the Pearson correlations of the
predicted with the actual change of loss on one test image, over 100 training images: 0.632 for
the hinge (temperature 0), 0.950 for temperature 0.001 and 0.914 for 0.1.

Here as there the machine is trained with LIBLINEAR, to a smaller tolerance. All else is in
float64: the images at the margin, whose hinge has a kink there, then fall on a side by the
solver's rounding instead of that of float32.

    python benchmarks/reproductions/koh_liang_fig3.py --data-dir FOLDER
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from evidence import Evidence, read_options
from koh_liang_mnist import (
    SOURCE,
    Images,
    largest,
    linear_classifier,
    ones_and_sevens,
    plot_prediction,
    read_mnist,
    six_digits,
)
from sklearn.svm import LinearSVC

from deel_influence.evaluation import leave_one_out, removal_correlation, retrain
from deel_influence.ihvp import ConjugateGradientDescentIHVP
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

PUBLISHED = {0.0: 0.632, 0.001: 0.950, 0.1: 0.914}
"""Pearson correlations by temperature, as the authors' notebook prints them."""

MARGIN = 0.03
"""How far below the published figure a correlation may lie."""

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {"num_validation": 5000, "multiple_of": 100, "test_position": 1597, "num_removed": 100},
    "short": {"num_validation": 5000, "multiple_of": 100, "test_position": 1597, "num_removed": 30},
    "smoke": {"num_validation": 0, "multiple_of": 1, "test_position": 0, "num_removed": 4},
}
COMMON = {"weight_decay": 0.01, "svm_tolerance": 1e-10, "cg_tolerance": 1e-6, "cg_steps": 1000}


def smooth_hinge(temperature: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the loss ``t log(1 + exp((1 - m) / t))`` of the margin m, the hinge for t = 0.

    Parameters
    ----------
    temperature
        The t. The loss of labels +1 and -1 ``(b,)`` and outputs ``(b, 1)`` has shape ``(b,)``.
    """

    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.reshape(outputs, (-1,))
        missing = 1 - tf.cast(tf.reshape(targets, (-1,)), outputs.dtype) * outputs
        if temperature == 0:
            return tf.nn.relu(missing)
        return temperature * tf.nn.softplus(missing / temperature)

    return loss


def hinge_training(images: Images, settings: dict[str, Any]) -> Callable[..., np.ndarray]:
    """Return what trains the machine on some of the images, and returns its weights ``(784,)``."""
    x = images.x.astype(np.float64)

    def train(positions: np.ndarray, seed: int) -> np.ndarray:
        # LIBLINEAR minimises C times the sum of the losses, plus half the squared norm.
        solver = LinearSVC(
            C=1 / (len(positions) * settings["weight_decay"]),
            loss="hinge",
            fit_intercept=False,
            tol=settings["svm_tolerance"],
            max_iter=100_000,
            random_state=seed,
        )
        return solver.fit(x[positions], images.y[positions]).coef_[0]

    return train


def predicted_changes(
    svm: keras.Model, temperature: float, train: Images, query: Images, settings: dict[str, Any]
) -> np.ndarray:
    """Return the predicted change of the smooth loss on the query, for each image ``(n,)``."""
    model = BaseInfluenceModel(svm, loss_function=smooth_hinge(temperature))
    ihvp = ConjugateGradientDescentIHVP(
        model,
        train_dataset=train.batches(),
        n_opt_iters=settings["cg_steps"],
        damping=0.0,
        tolerance=settings["cg_tolerance"],
        on_failure="raise",
    )
    calculator = FirstOrderInfluenceCalculator(model, train.batches(), ihvp)
    return calculator.predict_loss_change(query.batches(), train.batches(), verbose=0)[0]


def actual_changes(
    train: Images, query: Images, removed: np.ndarray, settings: dict[str, Any]
) -> np.ndarray:
    """Return the change of the hinge on the query when each image is left out ``(s,)``."""

    def hinge_of_query(weights: np.ndarray) -> np.ndarray:
        return np.maximum(1 - query.y * (query.x @ weights), 0)

    truth = retrain(
        hinge_training(train, settings),
        hinge_of_query,
        leave_one_out(len(train.y), removed),
        verbose=0,
    )
    return truth.changes[:, 0]


def add_agreement(
    evidence: Evidence, predicted: dict[float, np.ndarray], actual: np.ndarray
) -> None:
    """Add the correlation and the slope of each temperature."""
    agreements = {t: removal_correlation(c[:, None], actual[:, None]) for t, c in predicted.items()}
    evidence.details["pearson"] = {str(t): float(one.pearson) for t, one in agreements.items()}
    for temperature, agreement in agreements.items():
        evidence.add(
            f"Pearson correlation, temperature {temperature:g}",
            agreement.pearson,
            published=PUBLISHED[temperature],
            at_least=round(PUBLISHED[temperature] - MARGIN, 3),
        )
    for temperature, agreement in agreements.items():
        evidence.add(
            f"Slope of actual over predicted changes, temperature {temperature:g}", agreement.slope
        )


def draw(predicted: dict[float, np.ndarray], actual: np.ndarray, evidence: Evidence) -> Any:
    """Return the figure: one scatter for each temperature."""
    figure, axes = plt.subplots(1, len(predicted), figsize=(11, 3.6), layout="constrained")
    for panel, (temperature, changes) in zip(axes, predicted.items(), strict=True):
        pearson = evidence.details["pearson"][str(temperature)]
        title = f"temperature {temperature:g}: {pearson:.3f} ({PUBLISHED[temperature]:.3f})"
        plot_prediction(panel, changes, actual, title)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Compare influence on hinges of three temperatures with retraining."""
    options = read_options(__doc__, arguments)
    settings = {**COMMON, **SETTINGS[options.form]}
    evidence = Evidence(
        "koh_liang_fig3",
        "Influence on a smooth hinge against retraining with the hinge",
        f"{SOURCE}, figure 3",
        options,
        settings,
    )
    train_images, test_images = read_mnist(options.data_dir, settings["num_validation"])
    train = ones_and_sevens(train_images, settings["multiple_of"])
    query = ones_and_sevens(test_images).one(settings["test_position"])

    svm = linear_classifier(train.x.shape[1], 1, settings["weight_decay"], "float64")
    weights = hinge_training(train, settings)(np.arange(len(train.y)), seed=0)
    svm.set_weights([weights[:, None]])
    predicted = {t: predicted_changes(svm, t, train, query, settings) for t in PUBLISHED}

    # As the authors do: the images that the hinge itself takes for the most influential.
    removed = largest(predicted[0.0], settings["num_removed"])
    actual = actual_changes(train, query, removed, settings)
    predicted = {t: changes[removed] for t, changes in predicted.items()}

    add_agreement(evidence, predicted, actual)
    margins = train.y * (train.x.astype(np.float64) @ weights)
    evidence.details["images_at_the_margin"] = int(np.sum(np.abs(margins - 1) < 1e-6))
    evidence.details["num_train"] = len(train.y)
    evidence.details["predicted"] = {str(t): six_digits(c) for t, c in predicted.items()}
    evidence.details["actual"] = six_digits(actual)
    evidence.notes.append(
        "At temperature 0 the Hessian is the weight decay alone: the predicted changes are far too "
        "large, which is in the slope and not in the correlation."
    )
    evidence.save(draw(predicted, actual, evidence))


if __name__ == "__main__":
    main()
