"""Networks on data with wrong labels, trained once each, with all they say kept on disk.

For each set of data and seed one network is trained on everything, under `TrainingDynamics`, and
five on all folds but one. After each epoch they predict all examples, so that what a shorter
training says can be read off the same file. A run that is cut off goes on where it stopped.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from label_flips import class_conditional, hard_examples
from sklearn.model_selection import StratifiedKFold

from deel_influence.datasets import flip_labels
from deel_influence.training_dynamics import TrainingDynamics

layers = keras.layers
NUM_FOLDS = 5
NUM_IMAGES = 6000
IMAGE_SIZE, MEANS = 96, (103.939, 116.779, 123.68)
FLIPPED = 0.1
FILES = {"enron": "enron1_bow", "dogfish": "dogfish_sqznet512"}
"""Files of the folder that have another name than the data."""


@dataclass(frozen=True)
class Kind:
    """How one kind of data is learnt.

    Attributes
    ----------
    short, long
        Epochs of the network that fits too little, and of the one that fits too much.
    hidden
        Layers before the last.
    """

    short: int
    long: int
    hidden: Callable[[], list[keras.layers.Layer]]


def _convolutions() -> list[keras.layers.Layer]:
    return [
        layers.Conv2D(24, 5, strides=2, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(48, 3, padding="same", activation="relu"),
        layers.Conv2D(64, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
    ]


def _dense(size: int) -> Callable[[], list[keras.layers.Layer]]:
    return lambda: [layers.Dense(size, activation="relu")]


KINDS = {
    "c10": Kind(8, 32, _convolutions),
    "sqz": Kind(4, 24, _dense(64)),
    "spambase": Kind(6, 40, _dense(32)),
    "adult": Kind(4, 40, _dense(32)),
    "mnist": Kind(3, 24, _dense(64)),
    "fashion": Kind(3, 24, _dense(64)),
    "enron": Kind(2, 12, _dense(32)),
    "dogfish": Kind(3, 24, _dense(32)),
}
HUMAN = ("c10", "sqz")
NUM_EXAMPLES = {"adult": 6000, "mnist": 5000, "fashion": 6000}
FLIPS = ("class", "hard")


@dataclass(frozen=True)
class Problem:
    """A training set some of whose labels are known to be wrong.

    Attributes
    ----------
    name
        ``c10_`` (images) or ``sqz_`` (features of a pretrained network) with the name of a set of
        human labels, and ``_rest`` for the images after the first 6,000; or ``spambase``,
        ``adult``, ``mnist``, ``fashion``, ``enron`` or ``dogfish`` (features of a pretrained
        network). Of these a tenth of the labels is flipped, evenly; with ``_class_10`` so many
        percent, in some classes more than in others, and with ``_hard_10`` on hard examples.
    seed
        Fixes flips, folds and networks.
    folder
        Where the data are.
    cache
        Where what was trained is kept.
    fashion
        The folder of FashionMNIST as its authors publish it.
    """

    name: str
    seed: int
    folder: Path
    cache: Path
    fashion: Path | None = None

    @property
    def kind(self) -> Kind:
        """How it is learnt."""
        return KINDS[self.name.partition("_")[0]]

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, given labels, and which are wrong."""
        kind, *rest = self.name.split("_")
        if kind in HUMAN:
            data = np.load(self.folder / "cifar10n_10k.npz")
            part = slice(NUM_IMAGES, None) if rest[1:] else slice(NUM_IMAGES)
            given, x = data[rest[0]][part].astype(np.int64), data["x"][part]
            x = self._pretrained(x) if kind == "sqz" else x / np.float32(255) - np.float32(0.5)
            return x.astype(np.float32), given, given != data["clean"][part]
        x, labels = self.right(kind)
        if not rest:
            return x, *flip_labels(labels, FLIPPED, seed=self.seed)
        how, percent = rest
        fraction = int(percent) / 100
        if FLIPS.index(how):
            return x, *hard_examples(x, labels, fraction, self.seed)
        return x, *class_conditional(labels, fraction, self.seed)

    def right(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs, and the labels before any is flipped."""
        n = NUM_EXAMPLES.get(kind)
        if kind == "fashion":
            x, labels = (
                _idx(self.fashion, "train-images-idx3"),
                _idx(self.fashion, "train-labels-idx1"),
            )
            x, labels = x[:n], labels[:n]
        else:
            data = np.load(self.folder / f"{FILES.get(kind, kind)}.npz")
            x, labels = data["x_train"][:n], data["y_train"][:n]
        x, labels = x.astype(np.float32), labels.astype(np.int64)
        if kind in ("mnist", "fashion"):
            return x.reshape(len(x), -1) / 255, labels
        if kind == "enron":
            return np.log1p(x), labels
        return _standardised(np.log1p(np.abs(x)) if kind == "spambase" else x), labels

    def _pretrained(self, images: np.ndarray) -> np.ndarray:
        file = self.cache / f"sqz_features_{len(images)}.npy"
        if not file.exists():
            network = keras.models.load_model(self.folder / "squeezenet_v1_1_notop.keras")

            @tf.function
            def features(batch: tf.Tensor) -> tf.Tensor:
                large = tf.image.resize(tf.cast(batch[..., ::-1], tf.float32), [IMAGE_SIZE] * 2)
                return network(large - MEANS, training=False)

            parts = [features(images[i : i + 200]).numpy() for i in range(0, len(images), 200)]
            np.save(file, np.concatenate(parts))
        return _standardised(np.load(file))

    @cached_property
    def folds(self) -> np.ndarray:
        """The fold of each example."""
        _, labels, _ = self.arrays
        folds = np.zeros(len(labels), np.int64)
        split = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=self.seed)
        for fold, (_, held) in enumerate(split.split(labels, labels)):
            folds[held] = fold
        return folds

    def trained(self, fold: int) -> dict[str, np.ndarray]:
        """Return what the network without a fold said; -1 is the one trained on everything."""
        file = self.cache / f"{self.name}_{self.seed}_{fold}.npz"
        if not file.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            result = self._train(fold)
            np.savez(file, **result)
            print(file.stem, f"{result['seconds']:.0f} s", result["acc"][[-1]], flush=True)
        with np.load(file) as stored:
            return dict(stored)

    def _train(self, fold: int) -> dict[str, Any]:
        x, labels, _ = self.arrays
        rows = np.flatnonzero(self.folds != fold)
        keras.utils.set_random_seed(1000 * self.seed + fold + 1)
        classes = int(labels.max()) + 1
        stack = [keras.Input(x.shape[1:]), *self.kind.hidden(), layers.Dense(classes)]
        network = keras.Sequential(stack)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        told, dynamics = _Told(x, (self.kind.short, self.kind.long)), TrainingDynamics()
        start = time.perf_counter()
        history = network.fit(
            x[rows],
            labels[rows],
            epochs=self.kind.long,
            batch_size=64,
            verbose=0,
            callbacks=[told, dynamics] if fold < 0 else [told],
        )
        result = {
            "logp": np.stack(told.log_probabilities),
            "fold": self.folds,
            "acc": np.array(history.history["accuracy"]),
            "seconds": np.array(time.perf_counter() - start),
            **{f"feat{epoch}": found for epoch, found in told.features.items()},
        }
        if fold < 0:
            record = dynamics.recorded
            result["dyn"] = record.values[:, record.positions_of(record.keys_of(x, labels).numpy())]
            result["names"] = np.array(record.names)
        return result


class _Told(keras.callbacks.Callback):
    """Predict all examples after each epoch, and keep the features after some."""

    def __init__(self, x: np.ndarray, wanted: Sequence[int]) -> None:
        super().__init__()
        self._x, self._wanted, self._both = x, wanted, None
        self.log_probabilities: list[np.ndarray] = []
        self.features: dict[int, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._both is None:
            last = self.model.layers[-1]
            both = keras.Model(self.model.inputs, [last.output, last.input])
            self._both = tf.function(lambda batch: both(batch, training=False))
        parts = [self._both(self._x[i : i + 1000]) for i in range(0, len(self._x), 1000)]
        logits = tf.concat([part[0] for part in parts], axis=0)
        self.log_probabilities.append(tf.nn.log_softmax(logits).numpy())
        if epoch + 1 in self._wanted:
            self.features[epoch + 1] = np.concatenate([part[1] for part in parts])


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=0)) / (x.std(axis=0) + np.float32(1e-6))


def _idx(folder: Path | None, name: str) -> np.ndarray:
    """Return the array of an IDX file: a head of one number, and one for each axis; then bytes."""
    if folder is None:
        message = "Argument `--fashion` must name the folder of FashionMNIST. Received: none."
        raise ValueError(message)
    content = gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes())
    shape = np.frombuffer(content, ">i4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
