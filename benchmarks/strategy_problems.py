"""Trained models of digits, small enough for the exact answer, on which strategies are measured."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize
from sklearn.datasets import load_digits

from deel_influence.model import InfluenceModel

PENALTY = 1e-3
"""Every watched parameter w adds ``PENALTY · w²`` to the objective, so that R'' = 2·PENALTY·I."""

NUM_TRAIN = 1024
NUM_QUERIES = 64
NUM_SELF = 256


@dataclass(frozen=True)
class Problem:
    """A trained model with its data.

    Attributes
    ----------
    title
        What the documentation calls it.
    model
        The wrapped model, all of whose weights are watched.
    train, queries, scored
        The training set, the queries, and the training examples whose self-influence is timed.
    gradient
        Largest entry of the objective's gradient at the weights.
    """

    title: str
    model: InfluenceModel
    train: tf.data.Dataset
    queries: tf.data.Dataset
    scored: tf.data.Dataset
    gradient: float


def logistic_regression() -> Problem:
    """Return softmax regression, 650 parameters."""
    return _problem("Logistic regression 64-10", [])


def mlp() -> Problem:
    """Return a network with one hidden layer, 2,410 parameters."""
    return _problem("Network 64-32-10, tanh", [32])


PROBLEMS = {"logistic_regression": logistic_regression, "mlp": mlp}


def _problem(title: str, hidden: list[int]) -> Problem:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x = (digits.data / 16).astype("float32")
    y = digits.target
    model = keras.Sequential(
        [keras.Input((64,)), *(_dense(units, "tanh") for units in hidden), _dense(10)]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    gradient = train_to_convergence(model, x[:NUM_TRAIN], y[:NUM_TRAIN])
    end = NUM_TRAIN + NUM_QUERIES
    return Problem(
        title,
        InfluenceModel(model, start_layer=0, last_layer=-1),
        _batched(x[:NUM_TRAIN], y[:NUM_TRAIN]),
        _batched(x[NUM_TRAIN:end], y[NUM_TRAIN:end]),
        _batched(x[:NUM_SELF], y[:NUM_SELF]),
        gradient,
    )


def _dense(units: int, activation: str | None = None) -> keras.layers.Layer:
    penalty = keras.regularizers.L2(PENALTY)
    return keras.layers.Dense(
        units, activation, kernel_regularizer=penalty, bias_regularizer=penalty
    )


def _batched(x: np.ndarray, y: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(256).cache()


def train_to_convergence(model: keras.Model, x: np.ndarray, y: np.ndarray) -> float:
    """Minimise the training objective by L-BFGS on all examples at once.

    Returns
    -------
    The largest entry of the gradient at the end.
    """
    variables = model.trainable_variables
    ends = np.cumsum([int(np.prod(v.shape)) for v in variables])
    x, y = tf.constant(x), tf.constant(y)

    @tf.function
    def value_and_gradients() -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            objective = model.loss(y, model(x)) + tf.add_n(model.losses)
        return objective, tape.gradient(objective, [v.value for v in variables])

    def assign(parameters: np.ndarray) -> None:
        for variable, part in zip(variables, np.split(parameters, ends[:-1]), strict=True):
            variable.assign(part.reshape(variable.shape).astype("float32"))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        assign(parameters)
        value, gradients = value_and_gradients()
        flat = np.concatenate([g.numpy().ravel() for g in gradients])
        return float(value), flat.astype(np.float64)

    start = np.concatenate([np.ravel(v.numpy()) for v in variables]).astype(np.float64)
    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-14, "gtol": 1e-7, "maxcor": 50}
    result = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    assign(result.x)
    return float(np.abs(objective(result.x)[1]).max())
