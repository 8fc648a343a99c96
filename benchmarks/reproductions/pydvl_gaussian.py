"""pyDVL's synthetic notebook: influences of flipped labels on two Gaussians.

The notebook draws 10,000 points of two Gaussians in the plane (means (0, 0) and (1, 1), covariance
0.2 times the identity), for which the best boundary is known, trains logistic regression on seven
tenths of them, takes the first hundred, flips the labels of the first ten, and prints their mean
influence on the test set of 2,000, by the exact inverse of the Hessian of the hundred. The points
are redrawn here from its seed. Other seeds show what depends on the draw, another batch size and
the minimum of the loss what depends on the training.

    python benchmarks/reproductions/pydvl_gaussian.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from evidence import Evidence, read_options
from matplotlib.figure import Figure
from pydvl_training import CosineWaves, dense_layer, fit_in_order
from sklearn.model_selection import train_test_split

from deel_influence.evaluation import ConvexTraining, roc_auc
from deel_influence.ihvp import (
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    InverseHessianVectorProduct,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

SETTINGS = {
    "full": {"points": 10_000, "epochs": 50, "other_draws": 10},
    "short": {"points": 10_000, "epochs": 50, "other_draws": 5},
    "smoke": {"points": 1_000, "epochs": 5, "other_draws": 0},
}
NOTEBOOK_SEED, NUM_SCORED, NUM_FLIPPED = 24, 100, 10
GROUPS = ("flipped", "other")
MEANS = np.array([[0.0, 0.0], [1.0, 1.0]])
VARIANCE = 0.2
BATCH_SIZE, LARGER_BATCH_SIZE = 128, 256
LEARNING_RATE, WEIGHT_DECAY, WAVE_LENGTH = 0.05, 0.05, 50
LOSS = keras.losses.BinaryCrossentropy(from_logits=True)

SHARE = 0.72
"""How far a decay would have to shrink the weights of the minimum to give the published means."""

PUBLISHED = {"exact inverse": (-0.8618, 0.0116), "conjugate gradients": (-0.3017, 0.0)}
"""Mean influence of the flipped and of the other points, as the notebook prints them."""

STRATEGIES: dict[str, Callable[..., InverseHessianVectorProduct]] = {
    "exact inverse": lambda model, data: ExactIHVP(model, data, verbose=0),
    "conjugate gradients": lambda model, data: ConjugateGradientDescentIHVP(
        model, data, damping=0.0
    ),
}


@dataclass(frozen=True)
class Points:
    """Points ``(n, 2)`` with labels 0 and 1, ``(n, 1)``, float32, for training and test."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def draw_points(number: int, seed: int) -> Points:
    """Return the points that the notebook draws from a seed."""
    # The notebook seeds NumPy's global generator, which gives the numbers of this one.
    generator = np.random.RandomState(seed)
    y = generator.randint(2, size=number)
    x = np.sqrt(VARIANCE) * generator.normal(size=(number, 2)) + MEANS[y]
    rest, x_test, y_rest, y_test = train_test_split(x, y, train_size=0.8, random_state=generator)
    x_train, _, y_train, _ = train_test_split(
        rest, y_rest, train_size=0.7 / 0.8, random_state=generator
    )
    inputs = (part.astype("float32") for part in (x_train, x_test))
    labels = (part.astype("float32")[:, None] for part in (y_train, y_test))
    return Points(*(array for pair in zip(inputs, labels, strict=True) for array in pair))


def train_regression(
    points: Points, epochs: int, seed: int, batch_size: int = BATCH_SIZE
) -> keras.Model:
    """Return logistic regression trained on the labels as they were drawn, none of them flipped."""
    keras.utils.set_random_seed(seed)
    # Unlike in the wine notebook, the decay is apart from the gradient.
    optimizer = keras.optimizers.AdamW(
        CosineWaves(LEARNING_RATE, WAVE_LENGTH), weight_decay=WEIGHT_DECAY
    )
    return fit_in_order(
        _regression(), points.x, points.y, optimizer, LOSS, batch_size=batch_size, epochs=epochs
    )


def minimise_loss(points: Points, share: float = 1.0) -> keras.Model:
    """Return logistic regression at the minimum of the training loss, without any decay.

    Parameters
    ----------
    points
        What is trained on.
    share
        What the weights of the minimum are multiplied with, as a decay would shrink them.
    """
    network = _regression()
    full = ConvexTraining(network, points.x, points.y, loss=LOSS).full()
    network.set_weights([share * weights for weights in full.get_weights()])
    return network


def _regression() -> keras.Model:
    return keras.Sequential([keras.Input((2,)), dense_layer(2, 1)])


def boundary(network: keras.Model) -> tuple[float, float]:
    """Return how far the boundary of a regression is from the best one.

    The best one holds the points that are equally far from both means.

    Returns
    -------
    The angle between the two in degrees, and the distance of the point halfway between the means
    from the boundary.
    """
    normal, offset = (weights.astype(np.float64) for weights in network.get_weights())
    normal = normal[:, 0] / np.linalg.norm(normal)
    best = (MEANS[1] - MEANS[0]) / np.linalg.norm(MEANS[1] - MEANS[0])
    angle = np.degrees(np.arccos(np.clip(normal @ best, -1.0, 1.0)))
    scale = np.linalg.norm(network.get_weights()[0])
    return float(angle), float(abs(normal @ MEANS.mean(axis=0) + offset[0] / scale))


def flip_first(labels: np.ndarray) -> np.ndarray:
    """Return labels ``(n, 1)`` of which the first ten are flipped."""
    flipped = labels.copy()
    flipped[:NUM_FLIPPED] = 1 - flipped[:NUM_FLIPPED]
    return flipped


def mean_influences(
    points: Points, network: keras.Model, strategy: str = "exact inverse"
) -> np.ndarray:
    """Return the mean influences on the test set of the first hundred points, ``(100,)``.

    They are ``g(z)ᵀ H⁻¹ g(zᵢ)``, without 1/n and with no sign before them, as in the notebook:
    positive for a point that lowers the loss on the test set.
    """
    # The notebook's curvature is that of the losses alone.
    model = BaseInfluenceModel(network, loss_function=LOSS, weight_decay=0.0)
    labels = flip_first(points.y[:NUM_SCORED])
    scored = tf.data.Dataset.from_tensor_slices((points.x[:NUM_SCORED], labels)).batch(BATCH_SIZE)
    test_set = tf.data.Dataset.from_tensor_slices((points.x_test, points.y_test)).batch(BATCH_SIZE)

    calculator = FirstOrderInfluenceCalculator(model, scored, STRATEGIES[strategy](model, scored))
    return calculator.influence_matrix(test_set, scored, verbose=0).mean(axis=0)


def run(seed: int, settings: dict[str, int]) -> dict[str, Any]:
    """Return what one draw of points gives."""
    points = draw_points(settings["points"], seed)
    network = train_regression(points, settings["epochs"], seed)
    influences = {name: mean_influences(points, network, name) for name in STRATEGIES}
    flipped = np.arange(NUM_SCORED) < NUM_FLIPPED
    angle, distance = boundary(network)
    return {
        "seed": seed,
        "means": {
            name: [float(values[flipped].mean()), float(values[~flipped].mean())]
            for name, values in influences.items()
        },
        "influences": {name: values.tolist() for name, values in influences.items()},
        "roc_auc": roc_auc(-influences["exact inverse"], flipped),
        "angle": angle,
        "distance": distance,
        "weights": [weights.ravel().tolist() for weights in network.get_weights()],
    }


def other_trainings(settings: dict[str, int]) -> dict[str, list[float]]:
    """Return the mean influences of the two groups for other trainings on the notebook's points."""
    points = draw_points(settings["points"], NOTEBOOK_SEED)
    network = train_regression(points, settings["epochs"], NOTEBOOK_SEED, LARGER_BATCH_SIZE)
    networks = {
        f"batches of {LARGER_BATCH_SIZE}": network,
        "at the minimum of the loss": minimise_loss(points),
        f"at {SHARE} of the minimum's weights": minimise_loss(points, SHARE),
    }
    return {
        name: [float(part.mean()) for part in np.split(mean_influences(points, one), [NUM_FLIPPED])]
        for name, one in networks.items()
    }


def report(evidence: Evidence, same: dict[str, Any], trainings: dict[str, list[float]]) -> None:
    """Add the figures of the notebook's own points."""
    for name, published in PUBLISHED.items():
        for group, measured, theirs in zip(GROUPS, same["means"][name], published, strict=True):
            label = f"mean influence of the {group} points, {name}"
            within = _around(theirs) if name == "exact inverse" else {}
            evidence.add(label, measured, published=theirs, **within)
    for name, means in trainings.items():
        for group, measured in zip(GROUPS, means, strict=True):
            evidence.add(f"mean influence of the {group} points, {name}", measured)
    exact, solved = (np.array(same["influences"][name]) for name in PUBLISHED)
    evidence.add(
        "largest difference of conjugate gradients from the exact inverse, relative",
        np.abs(solved - exact).max() / np.abs(exact).max(),
        at_most=0.001,
    )
    evidence.add("flipped against other points, ROC AUC", same["roc_auc"])
    evidence.add("angle between the boundaries, degrees", same["angle"], at_most=3)
    evidence.add("distance between the boundaries halfway", same["distance"], at_most=0.05)


def _around(published: float) -> dict[str, float]:
    """Return the bounds of a twentieth to either side of a published figure."""
    low, high = sorted([published * 0.95, published * 1.05])
    return {"at_least": round(low, 5), "at_most": round(high, 5)}


def report_others(evidence: Evidence, others: list[dict[str, Any]]) -> None:
    """Add what other draws of points give."""
    for position, group in enumerate(GROUPS):
        values = [one["means"]["exact inverse"][position] for one in others]
        evidence.add(f"mean influence of the {group} points, other draws, median", _median(values))
    for key, measure in (("roc_auc", "ROC AUC"), ("angle", "angle"), ("distance", "distance")):
        evidence.add(f"{measure}, other draws, median", _median([one[key] for one in others]))
    evidence.add("ROC AUC, other draws, lowest", min(one["roc_auc"] for one in others))


def _median(values: list[float]) -> float:
    return float(np.median(values))


def draw(one: dict[str, Any], points: Points) -> Figure:
    """Return the hundred points in the colours of their influences, with both boundaries."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    values = np.array(one["influences"]["exact inverse"])
    x = points.x[:NUM_SCORED]
    limit = np.abs(values).max()
    dots = axes.scatter(*x.T, c=values, cmap="coolwarm_r", vmin=-limit, vmax=limit, s=30)
    axes.scatter(
        *x[:NUM_FLIPPED].T, s=90, facecolors="none", edgecolors="black", label="flipped label"
    )
    normal, offset = np.array(one["weights"][0]), one["weights"][1][0]
    first = np.array([x[:, 0].min(), x[:, 0].max()])
    axes.plot(first, MEANS[1].sum() / 2 - first, color="black", label="best boundary")
    axes.plot(first, -(normal[0] * first + offset) / normal[1], "--C1", label="learned boundary")
    axes.set(title="Mean influence on the test set", xlabel="first feature", ylabel="second")
    axes.set_ylim(x[:, 1].min() - 0.1, x[:, 1].max() + 0.1)
    figure.colorbar(dots, ax=axes, label="influence (positive: helps)")
    axes.legend(fontsize="small")
    return figure


def notes(num_others: int) -> list[str]:
    """Return what a reader of the figures must know."""
    return [
        "To come nearer to the published means, batches of "
        f"{LARGER_BATCH_SIZE}, the minimum of the training loss, and weights of {SHARE} times "
        "those of the minimum were tried, a share chosen to that end. The last gives both means to "
        "within a twentieth, which is consistent with a difference in training alone, and does "
        "not prove it.",
        "At the minimum of the training loss the mean gradient over a test set from the same "
        "distribution is close to zero, and with it every mean influence: what the notebook shows "
        "is how far the weight decay holds the weights from that minimum, which is why the means "
        "depend on the batch size.",
        "The published means of conjugate gradients are not those of the exact inverse beside "
        "them, in the same notebook; here the two solvers agree.",
        "Some points lie beyond the best boundary with their label as drawn, and flipped ones "
        "close to the boundary do no harm: an area of 1 is not to be had on every draw. The area "
        "of one draw of ten flipped points says little, and is given no bound.",
        f"Other draws: {num_others} of other seeds, points and starting weights.",
    ]


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write table and picture."""
    options = read_options(__doc__, arguments)
    settings = SETTINGS[options.form]
    evidence = Evidence(
        "pydvl_gaussian",
        "Flipped labels on two Gaussians with a known best boundary (pyDVL)",
        "https://pydvl.org/stable/examples/influence_synthetic/",
        options,
        {
            **settings,
            "seed": NOTEBOOK_SEED,
            "scored": NUM_SCORED,
            "flipped": NUM_FLIPPED,
            "variance": VARIANCE,
            "batch_size": BATCH_SIZE,
            "share_of_minimum": SHARE,
            "larger_batch_size": LARGER_BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
        },
    )
    same = run(NOTEBOOK_SEED, settings)
    others = [run(seed, settings) for seed in range(settings["other_draws"])]
    trainings = other_trainings(settings)
    report(evidence, same, trainings)
    if others:
        report_others(evidence, others)
    evidence.notes += notes(len(others))
    evidence.details["other_trainings"] = trainings
    evidence.details["notebook_draw"] = same
    evidence.details["other_draws"] = [
        {key: value for key, value in one.items() if key != "influences"} for one in others
    ]
    evidence.save(draw(same, draw_points(settings["points"], NOTEBOOK_SEED)))


if __name__ == "__main__":
    main()
