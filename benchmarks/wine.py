"""How close each strategy comes to exact influence on scikit-learn's wine data.

The experiment of pyDVL's wine notebook: 106 training examples of which the first ten have a wrong
label, a tanh network 13-16-16-3 whose softmax goes into a cross-entropy that takes it for logits,
Adam with weight decay 0.01, damping 0.1, low ranks of 30. The notebook has one split and prints
the correlation of mean influences over the test set with those of the exact inverse; here it is
repeated over several splits.

    python benchmarks/wine.py
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from environment import write_json
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler

from deel_influence.ihvp import (
    EKFACIHVP,
    ArnoldiIHVP,
    ConjugateGradientDescentIHVP,
    ExactIHVP,
    InverseHessianVectorProduct,
    LissaIHVP,
    NystromIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel

DAMPING, RANK, EPOCHS, NUM_WRONG = 0.1, 30, 300, 10
RESULTS = Path(__file__).parent / "results" / "wine.json"

PUBLISHED = {"cgd": 0.9975, "lissa": 0.9941, "arnoldi": 0.9876, "nystrom": 0.9949, "ekfac": 0.958}
"""Pearson correlations that the notebook prints."""

STRATEGIES: dict[str, Callable[..., InverseHessianVectorProduct]] = {
    "cgd": lambda m, d: ConjugateGradientDescentIHVP(m, d, damping=DAMPING, regularizer=False),
    "lissa": lambda m, d: LissaIHVP(m, d, damping=DAMPING, regularizer=False, seed=0),
    "arnoldi": lambda m, d: ArnoldiIHVP(
        m, d, 100, RANK, damping=DAMPING, keep_orthogonal=True, regularizer=False, seed=0
    ),
    "arnoldi, projected": lambda m, d: ArnoldiIHVP(
        m, d, 100, RANK, damping=DAMPING, regularizer=False, seed=0
    ),
    "nystrom": lambda m, d: NystromIHVP(m, d, RANK, damping=DAMPING, regularizer=False, seed=0),
    "ekfac": lambda m, d: EKFACIHVP(m, d, damping=DAMPING, seed=0, verbose=0),
    "ekfac, expected": lambda m, d: EKFACIHVP(
        m, d, damping=DAMPING, fisher="expected", seed=0, verbose=0
    ),
}


class Waves(keras.optimizers.schedules.LearningRateSchedule):
    """A cosine that falls and rises again every 300 steps, as the notebook's steps do."""

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return 0.0025 * (1 + tf.cos(np.pi * tf.cast(step, tf.float32) / 300))


def softmax_taken_for_logits(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy of the softmax of a softmax."""
    labels = tf.cast(tf.reshape(targets, (-1,)), tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)


def split(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training inputs and labels, the first ten of them wrong, and those of the test."""
    x, y = load_wine(return_X_y=True)
    rest, x_test, rest_y, y_test = train_test_split(x, y, train_size=0.7, random_state=seed)
    x_train, _, y_train, _ = train_test_split(rest, rest_y, train_size=0.6 / 0.7, random_state=seed)
    scaler = MinMaxScaler().fit(x_train)
    y_train = y_train.copy()
    y_train[:NUM_WRONG] = (y_train[:NUM_WRONG] + 1) % 3
    x_train, x_test = (scaler.transform(part).astype("float32") for part in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def train(x: np.ndarray, y: np.ndarray, epochs: int = EPOCHS) -> keras.Model:
    """Return the trained network."""
    decay = keras.regularizers.L2(0.005)
    options = {"kernel_regularizer": decay, "bias_regularizer": decay}
    model = keras.Sequential(
        [
            keras.Input((13,)),
            keras.layers.Dense(16, activation="tanh", **options),
            keras.layers.Dense(16, activation="tanh", **options),
            keras.layers.Dense(3, activation="softmax", **options),
        ]
    )
    model.compile(keras.optimizers.Adam(Waves()), softmax_taken_for_logits)
    model.fit(x, y, batch_size=32, epochs=epochs, shuffle=False, verbose=0)
    return model


def correlations(seed: int, epochs: int = EPOCHS) -> dict[str, float]:
    """Return, for each strategy, the correlation of its mean influences with the exact ones."""
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = split(seed)
    network = train(x, y, epochs)
    model = BaseInfluenceModel(network, loss_function=softmax_taken_for_logits)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    test = tf.data.Dataset.from_tensor_slices((x_test, y_test)).batch(32)

    def mean_influences(ihvp: InverseHessianVectorProduct) -> np.ndarray:
        calculator = FirstOrderInfluenceCalculator(model, data, ihvp)
        return calculator.influence_matrix(test, data, verbose=0).mean(axis=0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the network is no minimum, which is beside the point
        exact = ExactIHVP(model, data, damping=DAMPING, regularizer=False, verbose=0)
        expected = mean_influences(exact)
        found = {name: mean_influences(make(model, data)) for name, make in STRATEGIES.items()}
    return {name: float(np.corrcoef(v, expected)[0, 1]) for name, v in found.items()}


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = [correlations(seed) for seed in range(arguments.splits)]
    summary = {}
    for name in STRATEGIES:
        values = np.array([run[name] for run in runs])
        summary[name] = {
            "published": PUBLISHED.get(name.partition(",")[0]),
            "median": float(np.median(values)),
            "mean": float(values.mean()),
            "smallest": float(values.min()),
            "largest": float(values.max()),
        }
        print(name, {key: value and round(value, 4) for key, value in summary[name].items()})
    command = f"python benchmarks/wine.py --splits {arguments.splits}"
    write_json(arguments.out, {"command": command, "pearson": summary, "runs": runs})


if __name__ == "__main__":
    main()
