"""How well every method finds flipped labels: MNIST, CIFAR-10, spambase and adult, five seeds each.

A tenth of the labels is flipped, uniformly to another class; a small network is trained on them
once, under the recorders of all methods, and each method of the command line orders the training
set with its default settings. The seed draws the subset, the flips, the starting weights and what
is random in the methods. dattri (Deng et al. 2024) published areas for MNIST with another network
and another share of noise, which stand beside ours as context only.

    python benchmarks/reproductions/mislabel_detection.py --data-dir FOLDER --workers 16
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from evidence import Evidence, load_data, read_options
from keras import layers
from matplotlib.figure import Figure
from method_scores import detection_measures, scores_by_method
from pieces import Piece, Task, compute_pieces, pieces_folder, split_workers

from deel_influence.datasets.label_noise import flip_labels

FRACTION, BUDGETS = 0.1, (0.1, 0.2)
L2_PENALTY, DROPOUT, LEARNING_RATE, BATCH_SIZE = 1e-3, 0.3, 1e-3, 64
RANDOM = "random (mean)"

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {
        "seeds": 5,
        "sizes": {"mnist": 5000, "cifar10_12k": 8000, "spambase": 3680, "adult": 8000},
        "epochs": 20,
    },
    "short": {"seeds": 2, "sizes": {"mnist": 2000, "spambase": 2000}, "epochs": 20},
    "smoke": {
        "seeds": 1,
        "sizes": {"spambase": 120},
        "epochs": 2,
        "methods": ["influence", "tracin", "aum", "loss"],
    },
}

PUBLISHED_ON_MNIST = {
    "influence": 0.863,
    "arnoldi": 0.842,
    "tracin": 0.855,
    "grad-cos": 0.504,
    "representer-l2": 0.968,
    "trak": 0.976,
}
"""Areas under the ROC curve of dattri, for MNIST and an MLP, read off its bar charts."""

WELL_KNOWN = ("influence", "tracin", "trak", "representer-l2", "aum", "loss", RANDOM)


@dataclass(frozen=True)
class Problem:
    """A data set with the network that is trained on it.

    Attributes
    ----------
    title
        How tables call it.
    num_classes
        Number of classes.
    prepare
        Makes the network's inputs of the file's, float32.
    hidden
        Makes the hidden layers.
    """

    title: str
    num_classes: int
    prepare: Callable[[np.ndarray], np.ndarray]
    hidden: Callable[[], list[keras.layers.Layer]]


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255


def _standardised(table: np.ndarray) -> np.ndarray:
    """Return columns of mean 0 and variance 1, the long tails of counts and amounts cut first."""
    table = np.log1p(table.astype(np.float64))
    deviations = table.std(axis=0)
    centred = table - table.mean(axis=0)
    return (centred / np.where(deviations > 0, deviations, 1.0)).astype("float32")


def _decay() -> keras.regularizers.Regularizer:
    return keras.regularizers.L2(L2_PENALTY)


def _dense(units: int) -> keras.layers.Layer:
    return layers.Dense(units, "relu", kernel_regularizer=_decay())


def _convolution(filters: int) -> keras.layers.Layer:
    return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_regularizer=_decay())


def _image_mlp() -> list[keras.layers.Layer]:
    return [layers.Flatten(), _dense(128), layers.Dropout(DROPOUT), _dense(64)]


def _table_mlp() -> list[keras.layers.Layer]:
    return [_dense(64), layers.Dropout(DROPOUT), _dense(32)]


def _cnn() -> list[keras.layers.Layer]:
    stages = [layer for f in (16, 32, 32) for layer in (_convolution(f), layers.MaxPooling2D())]
    return [*stages, layers.Flatten(), layers.Dropout(DROPOUT), _dense(64)]


PROBLEMS = {
    "mnist": Problem("MNIST", 10, _pixels, _image_mlp),
    "cifar10_12k": Problem("CIFAR-10", 10, _pixels, _cnn),
    "spambase": Problem("spambase", 2, _standardised, _table_mlp),
    "adult": Problem("adult", 2, _standardised, _table_mlp),
}


def train_network(
    problem: Problem,
    inputs: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> keras.Model:
    """Return the network of a problem, trained on labels of which some are wrong."""
    keras.utils.set_random_seed(seed)
    last = layers.Dense(problem.num_classes, kernel_regularizer=_decay())
    network = keras.Sequential([keras.Input(inputs.shape[1:]), *problem.hidden(), last])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(LEARNING_RATE), loss)
    network.fit(
        inputs,
        labels,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=list(callbacks),
    )
    return network


def one_training(task: Task) -> Piece:
    """Return how well each method finds the flipped labels of one data set with one seed."""
    keras.backend.clear_session()
    problem, seed = PROBLEMS[task["data"]], task["seed"]
    data = load_data(task["data"], task["data_dir"])
    chosen = np.random.default_rng(seed).permutation(len(data["y_train"]))[: task["size"]]
    inputs = problem.prepare(data["x_train"][chosen])
    true_labels = data["y_train"][chosen].astype(np.int64)
    labels, flipped = flip_labels(true_labels, FRACTION, problem.num_classes, seed)
    epochs = task["epochs"]
    accuracies = {}

    def train(callbacks: Sequence[keras.callbacks.Callback]) -> keras.Model:
        network = train_network(problem, inputs, labels, epochs, seed, callbacks)
        predicted = network.predict(inputs, batch_size=256, verbose=0).argmax(axis=1)
        accuracies["right_labels"] = float(np.mean((predicted == labels)[~flipped]))
        accuracies["flipped_labels"] = float(np.mean((predicted == labels)[flipped]))
        return network

    scores, seconds = scores_by_method(
        train, inputs, labels, epochs=epochs, seed=seed, methods=task["methods"]
    )
    scores[RANDOM] = np.zeros(len(labels))
    measured = {
        name: detection_measures(values, flipped, BUDGETS) for name, values in scores.items()
    }
    return {"measured": measured, "seconds": seconds, "learnt": accuracies}


def summary(pieces: dict[str, Piece], sizes: dict[str, int]) -> dict[str, Any]:
    """Return mean, lowest and highest of each measure, by data set and method."""
    table: dict[str, Any] = {}
    for data in sizes:
        found = [piece for name, piece in pieces.items() if name.startswith(f"{data}-seed")]
        table[data] = {}
        for method in found[0]["measured"]:
            runs = [piece["measured"][method] for piece in found]
            columns = {
                "roc_auc": [run["roc_auc"] for run in runs],
                "average_precision": [run["average_precision"] for run in runs],
                **{
                    f"recall at {budget:.0%}": [run["recall"][position] for run in runs]
                    for position, budget in enumerate(BUDGETS)
                },
            }
            table[data][method] = {
                name: [float(np.mean(values)), min(values), max(values)]
                for name, values in columns.items()
            }
    return table


def report(evidence: Evidence, table: dict[str, Any]) -> None:
    """Add, by data set, the best method, well-known ones, and those that were published."""
    for data, methods in table.items():
        title = PROBLEMS[data].title
        published = PUBLISHED_ON_MNIST if data == "mnist" else {}
        best = max(methods, key=lambda name: methods[name]["roc_auc"][0])
        measures = methods[best]
        evidence.add(f"{title}, {best} (the best method): ROC AUC", measures["roc_auc"][0])
        for budget in BUDGETS:
            found = measures[f"recall at {budget:.0%}"][0]
            evidence.add(f"{title}, {best}: flips found when {budget:.0%} are read", found)
        for method in dict.fromkeys((*WELL_KNOWN, *published)):
            if method in methods:
                area = methods[method]["roc_auc"][0]
                label = f"{title}, {method}: ROC AUC"
                evidence.add(label, area, published=published.get(method))


def area_table(table: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the mean areas of all methods as the head and the rows of a table, the best first."""
    rows = []
    for method in next(iter(table.values())):
        areas = [methods[method]["roc_auc"] for methods in table.values()]
        cells = [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in areas]
        rows.append((float(np.mean([area[0] for area in areas])), [method, *cells]))
    ordered = [cells for _, cells in sorted(rows, key=lambda row: -row[0])]
    return {"head": ["method", *(PROBLEMS[data].title for data in table)], "rows": ordered}


def draw(table: dict[str, Any]) -> Figure:
    """Return the areas as a map of methods and data sets, the best methods on top."""
    order = [cells[0] for cells in area_table(table)["rows"]]
    values = np.array([[table[data][name]["roc_auc"][0] for data in table] for name in order])
    figure = Figure(figsize=(6.5, 7.5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="YlGn", vmin=0.4, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.8 else "black"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(table)), [PROBLEMS[data].title for data in table])
    axes.set_yticks(range(len(order)), order)
    axes.set_title("Area under the ROC curve, mean of the seeds")
    figure.colorbar(image, ax=axes)
    return figure


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write table and picture."""
    num_workers, arguments = split_workers(arguments)
    options = read_options(__doc__, arguments)
    settings = {
        **SETTINGS[options.form],
        "fraction": FRACTION,
        "budgets": list(BUDGETS),
        "weight_decay": L2_PENALTY,
        "dropout": DROPOUT,
        "learning_rate": LEARNING_RATE,
        "batch_size": BATCH_SIZE,
    }
    evidence = Evidence(
        "mislabel_detection",
        "A tenth of the labels flipped: how well every method finds them",
        "https://arxiv.org/abs/2410.04555",
        options,
        settings,
        num_workers,
    )
    tasks = {
        f"{data}-seed{seed}": _task(settings, options.data_dir, data, seed)
        # The data set that takes longest comes first, so that no process ends with it alone.
        for data in sorted(settings["sizes"], key=lambda name: name != "cifar10_12k")
        for seed in range(settings["seeds"])
    }
    folder = pieces_folder(evidence.name, options, settings)
    pieces = compute_pieces(one_training, tasks, folder, num_workers)
    table = summary(pieces, settings["sizes"])
    report(evidence, table)
    evidence.notes += _notes(settings)
    evidence.details["table"] = area_table(table)
    evidence.details["mean_lowest_highest"] = table
    evidence.details["learnt"] = {name: piece["learnt"] for name, piece in pieces.items()}
    evidence.details["seconds"] = {name: piece["seconds"] for name, piece in pieces.items()}
    evidence.save(draw(table))


def _task(settings: dict[str, Any], data_dir: Path | None, data: str, seed: int) -> Task:
    return {
        "data": data,
        "seed": seed,
        "data_dir": data_dir,
        "size": settings["sizes"][data],
        "epochs": settings["epochs"],
        "methods": settings.get("methods"),
    }


def _notes(settings: dict[str, Any]) -> list[str]:
    return [
        f"Means of {settings['seeds']} seeds; the picture has the areas of all methods, the JSON "
        "file average precision, recall when 10 and 20 % are read, lowest and highest seed, and "
        "what each method took.",
        "Nothing was tuned: one network for images of digits, one for photographs, one for "
        "tables, the same epochs, L2 penalty and dropout for all, methods at their defaults.",
        "The published figures are for another network, training and draw of the noise: they tell "
        "what others found, and are no target.",
        "The cosine of a vector with itself is one, so that grad-cos and similarity order "
        "nothing but rounding errors; they are there because the command line has them.",
    ]


if __name__ == "__main__":
    main()
