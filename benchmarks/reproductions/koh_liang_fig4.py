"""What a kernel machine and a network see in an image: Koh & Liang (2017), figure 4.

A support vector machine with a Gaussian kernel on the pixels, and a logistic regression on the
features of a network, tell dogs from fish. For an image of a fish that both get right, influence
tells how they do it: to the kernel machine the training images nearby matter, where fish help and
dogs harm; to the network the distance in pixels means nothing, and some of the images that help the
fish most are dogs.

The paper shows one test image; here the statements are measured on all fish of the test set that
both models get right, and one of them is drawn. Images are 64 x 64 instead of 299 x 299, and the
network is SqueezeNet 1.1 instead of Inception-v3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from evidence import Evidence, load_data, read_options
from matplotlib.figure import Figure
from sklearn.metrics.pairwise import rbf_kernel

from deel_influence.evaluation import ConvexTraining, pearson
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import InfluenceModel

NAME = "koh_liang_fig4"
COMMON: dict[str, Any] = {
    "weight_decay": 1e-3,
    "temperature": 1e-3,
    "num_largest": 20,
    "num_helpful": 10,
    "least_loss": 1e-6,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": {**COMMON, "per_class": [900, 300]},
    "short": {**COMMON, "per_class": [900, 300]},
    "smoke": {**COMMON, "per_class": [30, 12]},
}
DOG, FISH = 0, 1
# The paper's gamma is 0.05 / 1800 for 299 x 299 x 3 values; distances grow with the number of
# values, and the same kernel on smaller images needs a gamma larger by that ratio.
PAPER_GAMMA, PAPER_VALUES = 0.05 / 1800, 299 * 299 * 3

KERNEL, NETWORK = "Gaussian kernel on pixels", "features of a network"
# What is measured, in words, with bounds for the kernel machine and for the network: that the
# one sees distances and classes, and the other does not.
QUANTITIES: dict[str, tuple[str, dict[str, dict[str, float]]]] = {
    "correlation": (
        "correlation of |influence| with the distance",
        {KERNEL: {"at_most": -0.2}, NETWORK: {"at_least": -0.1, "at_most": 0.1}},
    ),
    "near": (
        "share of all |influence| that the nearest tenth of the images has",
        {KERNEL: {"at_least": 0.25}, NETWORK: {"at_most": 0.2}},
    ),
    "rank": (
        "median place by distance of the 20 of largest |influence| (0 nearest, 1 farthest)",
        {KERNEL: {"at_most": 0.1}, NETWORK: {"at_least": 0.3}},
    ),
    "by_class": (
        "share of |influence| in the nearest hundredth by which fish help and dogs harm",
        {KERNEL: {"at_least": 0.95}, NETWORK: {"at_most": 0.9}},
    ),
    "by_class_anywhere": (
        "share of |influence| at all distances by which fish help and dogs harm",
        {KERNEL: {}, NETWORK: {}},
    ),
    "dogs": (
        "dogs among the 10 images that help the fish most",
        {KERNEL: {"at_most": 1.0}, NETWORK: {"at_least": 1.0}},
    ),
}


def smooth_hinge(temperature: float) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Return the loss ``t log(1 + exp((1 - m) / t))`` with m the margin of labels 1 and -1."""

    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        missing = 1 - tf.cast(targets, outputs.dtype) * outputs
        return tf.reduce_sum(temperature * tf.nn.softplus(missing / temperature), axis=-1)

    return loss


def first_of_each_class(y: np.ndarray, number: int) -> np.ndarray:
    """Return the positions of the first examples of both classes, in their order."""
    chosen = [np.flatnonzero(y == label)[:number] for label in (DOG, FISH)]
    return np.sort(np.concatenate(chosen))


def kernel_features(
    x_train: np.ndarray, x_test: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return features whose inner products are the Gaussian kernel.

    The kernel machine is the linear one on them: they are rows of the Cholesky factor of the
    kernel matrix. What is left out for the test images has no product with a training image.

    Parameters
    ----------
    x_train, x_test
        Pixels from -1 to 1, shapes ``(n, d)`` and ``(m, d)``.

    Returns
    -------
    Shapes ``(n, n)`` and ``(m, n)``.
    """
    kernel = rbf_kernel(np.concatenate([x_train, x_test]), gamma=gamma)
    factor = np.linalg.cholesky(kernel + 1e-10 * np.eye(len(kernel)))
    n = len(x_train)
    return factor[:n, :n], factor[n:, :n]


def trained(
    features: np.ndarray, labels: np.ndarray, loss: Any, weight_decay: float
) -> keras.Model:
    """Return the linear model without intercept that minimises the mean loss plus ``½ λ ‖w‖²``."""
    penalty = keras.regularizers.L2(weight_decay / 2)
    dense = keras.layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((features.shape[1],)), dense])
    model.compile(loss=loss)
    return ConvexTraining(model, features, labels[:, None]).full()


def influences(
    model: keras.Model, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return the influence of n training on m test examples, divided by n, shape ``(m, n)``."""
    sets = [
        tf.data.Dataset.from_tensor_slices((x, y[:, None].astype(np.float64))).batch(256)
        for x, y in (train, test)
    ]
    calculator = FirstOrderInfluenceCalculator(InfluenceModel(model), sets[0], "exact")
    return calculator.influence_matrix(sets[1], sets[0], verbose=0) / len(train[0])


def outputs_of(model: keras.Model, features: np.ndarray) -> np.ndarray:
    """Return the model's outputs, shape ``(m,)``; positive for a fish."""
    return tf.convert_to_tensor(model(features, training=False)).numpy()[:, 0]


def measures(
    values: np.ndarray, distances: np.ndarray, is_fish: np.ndarray, settings: dict[str, Any]
) -> dict[str, float]:
    """Return what the figure shows, for one test fish.

    Parameters
    ----------
    values
        The influence of the n training images, shape ``(n,)``.
    distances
        Their distances from the test image, shape ``(n,)``.
    is_fish
        Which of them are fish, shape ``(n,)``.
    """
    sizes = np.abs(values)
    order = np.argsort(distances)
    tenth, hundredth = order[: len(order) // 10], order[: max(len(order) // 100, 1)]
    ranks = np.argsort(order)
    largest = np.argsort(-sizes)[: settings["num_largest"]]
    most_helpful = np.argsort(-values)[: settings["num_helpful"]]
    by_class = (values > 0) == is_fish
    return {
        "correlation": pearson(sizes, distances),
        "near": float(sizes[tenth].sum() / sizes.sum()),
        "rank": float(np.median(ranks[largest]) / len(ranks)),
        "by_class": float(sizes[hundredth][by_class[hundredth]].sum() / sizes[hundredth].sum()),
        "by_class_anywhere": float(sizes[by_class].sum() / sizes.sum()),
        "dogs": float((~is_fish[most_helpful]).sum()),
    }


def draw(by_model: dict[str, np.ndarray], distances: np.ndarray, is_fish: np.ndarray) -> Figure:
    """Draw the influence of training images on one test fish against their distances from it."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, (name, values) in zip(axes, by_model.items(), strict=True):
        for label, chosen, colour in (
            ("fish", is_fish, "tab:green"),
            ("dogs", ~is_fish, "tab:red"),
        ):
            axis.plot(distances[chosen], values[chosen], ".", ms=4, color=colour, label=label)
        axis.axhline(0, color="black", lw=0.5)
        axis.set(title=name, xlabel="distance in pixel space")
    axes[0].set_ylabel("influence / n (positive: helps the fish)")
    axes[0].legend()
    return figure


@dataclass(frozen=True)
class Split:
    """The pixels from -1 to 1 ``(n, d)``, network features ``(n, 512)`` and labels ``(n,)``."""

    pixels: np.ndarray
    features: np.ndarray
    is_fish: np.ndarray


def read_split(data_dir: Path | None, name: str, per_class: int) -> Split:
    """Return the first images of both classes of the training ("train") or test set."""
    images = load_data("dogfish64", data_dir)
    features = load_data("dogfish_sqznet512", data_dir)
    labels = images[f"y_{name}"]
    chosen = first_of_each_class(labels, per_class)
    pixels = images[f"x_{name}"][chosen].reshape(len(chosen), -1) / 127.5 - 1
    network = features[f"x_{name}"][chosen].astype(np.float64)
    return Split(pixels, network, labels[chosen] == FISH)


def explained(
    evidence: Evidence, train: Split, test: Split
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Train both models, and return the influences on the test fish that both get right.

    Returns
    -------
    The influences ``(m, n)`` by model, and the m test fish.
    """
    settings = evidence.settings
    gamma = PAPER_GAMMA * PAPER_VALUES / train.pixels.shape[1]
    kernel_train, kernel_test = kernel_features(train.pixels, test.pixels, gamma)
    signs, labels = np.where(train.is_fish, 1.0, -1.0), train.is_fish.astype(np.float64)
    hinge = smooth_hinge(settings["temperature"])
    log_loss = keras.losses.BinaryCrossentropy(from_logits=True)
    machine = trained(kernel_train, signs, hinge, settings["weight_decay"])
    network = trained(train.features, labels, log_loss, settings["weight_decay"])

    margins, logits = outputs_of(machine, kernel_test), outputs_of(network, test.features)
    for name, outputs, published in ((KERNEL, margins, None), (NETWORK, logits, 0.985)):
        accuracy = ((outputs > 0) == test.is_fish).mean()
        evidence.add(f"{name}: test accuracy", accuracy, published=published)
    # Beyond the margin the hinge has no slope, and neither has a logistic loss of nothing.
    has_loss = (margins < 1) & (np.log1p(np.exp(-logits)) > settings["least_loss"])
    fish = np.flatnonzero(test.is_fish & (margins > 0) & (logits > 0) & has_loss)
    evidence.add("fish of the test set that both get right, not without loss", len(fish))
    ones = np.ones(len(fish))
    by_model = {
        KERNEL: influences(machine, (kernel_train, signs), (kernel_test[fish], ones)),
        NETWORK: influences(network, (train.features, labels), (test.features[fish], ones)),
    }
    # The median by loss under the network comes first: it is the one that is drawn.
    order = np.argsort(logits[fish])
    order = np.roll(order, -(len(order) // 2))
    return {name: values[order] for name, values in by_model.items()}, fish[order]


def main(arguments: list[str] | None = None) -> None:
    """Run the reproduction."""
    options = read_options(__doc__, arguments)
    settings = SETTINGS[options.form]
    evidence = Evidence(
        NAME,
        "Dog against fish: what a kernel machine and a network go by",
        "P. W. Koh, P. Liang, ICML 2017, figure 4",
        options,
        settings,
    )
    train = read_split(options.data_dir, "train", settings["per_class"][0])
    test = read_split(options.data_dir, "test", settings["per_class"][1])
    by_model, fish = explained(evidence, train, test)
    distances = np.stack([np.linalg.norm(train.pixels - test.pixels[i], axis=1) for i in fish])
    measured = {
        name: [
            measures(row, far, train.is_fish, settings)
            for row, far in zip(values, distances, strict=True)
        ]
        for name, values in by_model.items()
    }
    for key, (quantity, bounds) in QUANTITIES.items():
        for name, per_fish in measured.items():
            mean = np.mean([one[key] for one in per_fish])
            evidence.add(f"{name}: {quantity}", mean, **bounds[name])
    evidence.details = {"drawn_test_image": int(fish[0]), "per_fish": measured}
    evidence.notes = [
        "The paper shows this for one test image, without figures. The bounds are ours, set after "
        "the figures were seen: they put what the paper says in words into numbers.",
        "The authors train the kernel machine with the hinge itself and load its weights into the "
        "smooth one; here it is trained with the smooth hinge.",
        "Images of 64 x 64, with the kernel's width adapted, and SqueezeNet in place of Inception.",
    ]
    drawn = {name: values[0] for name, values in by_model.items()}
    evidence.save(draw(drawn, distances[0], train.is_fish))


if __name__ == "__main__":
    main()
