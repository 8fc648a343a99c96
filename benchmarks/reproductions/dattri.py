"""What the two reproductions of dattri's benchmark share: data, training, truth and measurement.

The settings are those of dattri's code (``benchmark/datasets/mnist``, ``model_util/retrain.py`` and
``script/dattri_retrain.py``): the first 5,000 training and 500 test images, normalised; plain SGD;
50 models trained on random halves, each from a seed of its own and each half once; leaving one out
with one seed and a fixed order of the images.
"""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from dattri_methods import METHODS
from evidence import load_data
from pieces import Piece, Task

from deel_influence.errors import ConvergenceWarning, CurvatureWarning
from deel_influence.evaluation import (
    GroundTruth,
    NetworkTraining,
    QueryOutputs,
    leave_one_out,
    linear_datamodelling_score,
    predicted_changes,
    random_subsets,
    removal_correlation,
    retrain,
    retrain_shard,
    roc_auc,
)
from deel_influence.evaluation.subsets import sums_of_kept
from deel_influence.model import BaseInfluenceModel

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MEAN_PIXEL, PIXEL_DEVIATION = 0.1307, 0.3081
"""Of MNIST, as dattri normalises it."""

SUBSETS_SEED, HALVES_SEED, NOISE_SEED = 0, 1, 2


class OwnSeeds:
    """Train each subset from a seed of its own, as dattri does, and not all from the same.

    Parameters
    ----------
    training
        Trains on rows of the training set from a seed.
    """

    def __init__(self, training: NetworkTraining) -> None:
        self.training = training

    def in_place(self, positions: np.ndarray, seed: int) -> keras.Model:
        """Return the model trained on some rows, until the next call; see `NetworkTraining`."""
        return self.training.in_place(positions, own_seed(positions, seed))


def own_seed(positions: np.ndarray, seed: int) -> int:
    """Return a seed that depends on the subset, below 2³¹."""
    rows = np.array([seed, *positions], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.sha256(rows).digest()[:4], "little") % 2**31


def uniform_dense(size: int, inputs: int, activation: str | None = None) -> keras.layers.Dense:
    """Return a dense layer with PyTorch's initial weights, uniform in ``± 1/√inputs``."""
    bound = inputs**-0.5
    kernel, bias = (keras.initializers.RandomUniform(-bound, bound) for _ in range(2))
    return keras.layers.Dense(
        size, activation=activation, kernel_initializer=kernel, bias_initializer=bias
    )


class Bench:
    """Data, models and ground truth of one of the two settings.

    Parameters
    ----------
    settings
        What everything depends on.
    data_dir
        Folder of ``.npz`` files, or None.
    folder
        Where models and outputs are kept.
    """

    def __init__(self, settings: dict[str, Any], data_dir: str | None, folder: str) -> None:
        self.settings, self.folder = settings, Path(folder)
        data = load_data("mnist", None if data_dir is None else Path(data_dir))
        n, m = settings["num_train"], settings["num_test"]
        self.x, self.y = _normalised(data["x_train"][:n]), data["y_train"][:n].astype(np.int64)
        self.x_test = _normalised(data["x_test"][:m])
        self.y_test = data["y_test"][:m].astype(np.int64)
        self.subsets = random_subsets(n, settings["num_subsets"], seed=SUBSETS_SEED)
        self.queries = self.dataset(self.x_test, self.y_test)
        self._trainings: dict[tuple[Any, ...], NetworkTraining] = {}

    def dataset(self, x: np.ndarray, y: np.ndarray) -> tf.data.Dataset:
        """Return images and labels in batches, held in memory."""
        batched = tf.data.Dataset.from_tensor_slices((x, y)).batch(self.settings["batch"])
        return batched.cache()

    def labels(self, noise: int | None = None) -> np.ndarray:
        """Return the labels ``(n,)``, with a share of them wrong under the seed ``noise``."""
        if noise is None:
            return self.y
        wrong, generator = self.mislabelled(noise), np.random.default_rng([NOISE_SEED, noise, 1])
        # One of the nine others.
        others = (self.y + generator.integers(1, 10, len(self.y))) % 10
        return np.where(wrong, others, self.y)

    def mislabelled(self, noise: int) -> np.ndarray:
        """Return which labels are wrong, shape ``(n,)``."""
        n = len(self.y)
        chosen = np.random.default_rng([NOISE_SEED, noise]).permutation(n)
        return chosen < round(self.settings["mislabelled"] * n)

    def train_set(self, noise: int | None = None) -> tf.data.Dataset:
        """Return the training set, in batches."""
        return self.dataset(self.x, self.labels(noise))

    def network(self) -> keras.Model:
        """Return the network with initial weights."""
        settings, width = self.settings, self.x.shape[1]
        layers: list[keras.layers.Layer] = [keras.Input((width,))]
        for size in settings["hidden"]:
            layers.append(uniform_dense(size, width, "relu"))
            layers.append(keras.layers.Dropout(settings["dropout"]))
            width = size
        return keras.Sequential([*layers, uniform_dense(10, width)])

    def make_model(self) -> keras.Model:
        """Return the network, compiled."""
        model, settings = self.network(), self.settings
        model.compile(
            keras.optimizers.SGD(settings["learning_rate"], momentum=settings["momentum"]), LOSS
        )
        return model

    def training(
        self, epochs: int | None = None, noise: int | None = None, shuffle: bool = True
    ) -> NetworkTraining:
        """Return the training of the network on rows of the training set, compiled once."""
        key = epochs or self.settings["epochs"], noise, shuffle
        if key not in self._trainings:
            self._trainings[key] = NetworkTraining(
                self.make_model,
                self.x,
                self.labels(noise),
                epochs=key[0],
                batch_size=self.settings["training_batch"],
                shuffle=shuffle,
            )
        return self._trainings[key]

    def retraining(self, kind: str) -> dict[str, Any]:
        """Return the arguments of `retrain` for the truth of a kind, ``"lds"`` or ``"loo"``."""
        settings = self.settings
        names = ("epochs", "training_batch", "learning_rate", "momentum", "dropout", "hidden")
        described = {"truth": kind, **{name: settings[name] for name in names}}
        if kind == "lds":
            # The loss of a query falls as its margin rises, which keeps its digits where the loss
            # is 0 in float32. Correlations by rank are the same.
            return {
                "train": OwnSeeds(self.training()),
                "measure": QueryOutputs(self.x_test, self.y_test, "margin"),
                "kept": self.subsets,
                "seeds": range(settings["truth_seeds"]),
                "settings": described,
                "folder": self.folder / kind,
            }
        left_out = np.arange(settings["num_left_out"])
        return {
            "train": self.training(shuffle=False),
            "measure": QueryOutputs(self.x_test, self.y_test, "loss"),
            "kept": leave_one_out(len(self.y), left_out),
            "settings": described,
            "folder": self.folder / kind,
        }

    @cached_property
    def lds_truth(self) -> GroundTruth:
        """The margins after training on each half."""
        return retrain(**self.retraining("lds"), higher_is_better=True, verbose=0)

    @cached_property
    def loo_truth(self) -> GroundTruth | None:
        """The losses after training without each example, or None."""
        if not self.settings["num_left_out"]:
            return None
        return retrain(**self.retraining("loo"), verbose=0)

    def path(self, kind: str, number: int, epochs: int | None, noise: int | None = None) -> Path:
        """Return where a checkpoint is.

        Parameters
        ----------
        kind
            ``"full"``, trained on everything, or ``"half"``, on a half that no truth is about.
        number
            Of the training, which is its seed.
        epochs
            After how many epochs; None for the end.
        noise
            Which labels are wrong; None for none.
        """
        epochs = epochs or self.settings["epochs"]
        labels = "right" if noise is None else f"noise{noise}"
        name = f"{labels}-{kind}-{number}-epoch{epochs}.weights.h5"
        return self.folder / "checkpoints" / name

    def wrapped(self, path: Path) -> BaseInfluenceModel:
        """Return a checkpoint with all its weights watched."""
        model = self.network()
        model.load_weights(path)
        return BaseInfluenceModel(model, loss_function=LOSS)


def _normalised(images: np.ndarray) -> np.ndarray:
    pixels = images.reshape(len(images), -1) / 255
    return ((pixels - MEAN_PIXEL) / PIXEL_DEVIATION).astype(np.float32)


def bench_of(task: Task) -> Bench:
    """Return the setting that a task belongs to, made once in a process."""
    return _bench(json.dumps(task["bench"], sort_keys=True))


@lru_cache(maxsize=1)
def _bench(described: str) -> Bench:
    return Bench(**json.loads(described))


def truth_piece(task: Task) -> Piece:
    """Do a share of the retrainings of a truth."""
    bench = bench_of(task)
    num_shares = bench.settings["shares"]
    retrain_shard(**bench.retraining(task["truth"]), shard=task["share"], num_shards=num_shares)
    return {}


def checkpoint_piece(task: Task) -> Piece:
    """Train a model, and keep it after some numbers of epochs."""
    bench, kind, number, noise = bench_of(task), task["kind"], task["number"], task["noise"]
    positions = np.arange(len(bench.y))
    if kind == "half":
        halves = random_subsets(len(positions), number + 1, seed=HALVES_SEED)
        positions = np.flatnonzero(halves[number])
    for epochs in bench.settings["checkpoints"]:
        # A shorter training from the same seed is the beginning of the longer one.
        # Without the optimizer, whose state is no part of a checkpoint.
        model = bench.network()
        trained = bench.training(epochs, noise).in_place(positions, number)
        model.set_weights(trained.get_weights())
        path = bench.path(kind, number, epochs, noise)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save_weights(path)
    return {}


def scores_piece(task: Task) -> Piece:
    """Score all pairs with a method, and compare with the truths.

    Returns
    -------
    ``predictions``, the sums of the scores over each subset, ``(s, m)``; for leaving one out the
    correlation of each query; and the seconds.
    """
    bench = bench_of(task)
    scores, seconds = _timed(METHODS[task["method"]].pairs, bench, task)
    piece: Piece = {
        "predictions": sums_of_kept(scores, bench.subsets).tolist(),
        "seconds": seconds,
    }
    truth = bench.loo_truth
    if truth is not None:
        correlation = removal_correlation(predicted_changes(scores, truth.kept), truth.changes)
        piece["loo"] = correlation.per_query_pearson.tolist()
    return piece


def detection_piece(task: Task) -> Piece:
    """Score each example on its own, and tell how well wrong labels are found."""
    bench = bench_of(task)
    scores, seconds = _timed(METHODS[task["method"]].single, bench, task)
    return {"auc": roc_auc(scores, bench.mislabelled(task["noise"])), "seconds": seconds}


def _timed(function: Any, bench: Bench, task: Task) -> tuple[np.ndarray, float]:
    keras.utils.set_random_seed(0)
    start = time.perf_counter()
    with warnings.catch_warnings():
        # What does not converge, or has negative curvature, is judged by its scores like the rest.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", CurvatureWarning)
        scores = function(bench, task)
    return np.asarray(scores, np.float64), round(time.perf_counter() - start, 2)


def datamodelling(
    predictions: np.ndarray, outputs: np.ndarray, num_resamples: int = 1
) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the datamodelling score of each query, and the interval of their mean.

    Parameters
    ----------
    predictions
        Sums of scores over each subset, shape ``(s, m)``.
    outputs
        Margins, shape ``(s, m)``.
    num_resamples
        Of the bootstrap.
    """
    # The sum over a subset is the score of one example that no other subset has.
    subsets = np.eye(len(predictions), dtype=bool)
    found = linear_datamodelling_score(
        predictions.T, subsets, outputs, higher_is_better=True, num_resamples=num_resamples
    )
    return found.per_query, found.interval
