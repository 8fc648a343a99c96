"""A logistic regression on a frozen network's features of dogs and fish, and its retraining."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from evidence import load_data
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from deel_influence.evaluation import ConvexTraining
from deel_influence.model import InfluenceModel

NETWORK_FILE = "squeezenet_v1_1_notop.keras"
# Of the blue, green and red of the images that the network was trained on.
MEAN = np.array([103.939, 116.779, 123.68], np.float32)
DOG, FISH = 0, 1

# A gradient that is far below what the smallest step of an attack changes.
TOLERANCE = 1e-8
MAX_STEPS, LEAST_SIZE = 50, 1e-6


class LastLayer:
    """A logistic regression without intercept on features that change little by little.

    It minimises ``(1/n) Σ log(1 + exp(-y_i wᵀφ_i)) + ½ λ ‖w‖²`` in float64.

    Parameters
    ----------
    features
        φ, shape ``(n, r)``; rows may be replaced at any time.
    signs
        Labels 1 and -1, shape ``(n,)``.
    weight_decay
        λ.
    """

    def __init__(self, features: np.ndarray, signs: np.ndarray, weight_decay: float) -> None:
        self.features = features.astype(np.float64)
        self.signs = signs.astype(np.float64)
        self.weight_decay = weight_decay
        penalty = keras.regularizers.L2(weight_decay / 2)
        dense = keras.layers.Dense(1, use_bias=False, kernel_regularizer=penalty)
        model = keras.Sequential([keras.Input((features.shape[1],)), dense])
        training = ConvexTraining(model, self.features, self.signs[:, None], loss=logistic_loss)
        kernel = training.full().trainable_variables[0]
        self.weights: np.ndarray = tf.convert_to_tensor(kernel).numpy()[:, 0]

    def gradient(self) -> np.ndarray:
        """Return the gradient of the objective, shape ``(r,)``."""
        slopes = self.signs * expit(-self.signs * (self.features @ self.weights))
        return -(slopes @ self.features) / len(slopes) + self.weight_decay * self.weights

    def hessian(self) -> np.ndarray:
        """Return the Hessian of the objective, shape ``(r, r)``."""
        outputs = self.features @ self.weights
        rows = self.features * np.sqrt(expit(outputs) * expit(-outputs) / len(outputs))[:, None]
        return rows.T @ rows + self.weight_decay * np.eye(len(self.weights))

    def refit(self) -> None:
        """Go to the minimum from the weights at hand, by Newton steps.

        A changed example may be far on the wrong side, where its loss is straight and a whole step
        goes too far: steps are halved until the gradient becomes smaller.

        Raises
        ------
        RuntimeError
            If the gradient stays above the tolerance.
        """
        gradient = self.gradient()
        for _ in range(MAX_STEPS):
            if np.linalg.norm(gradient) <= TOLERANCE:
                return
            start, size = self.weights, 1.0
            step = cho_solve(cho_factor(self.hessian()), gradient)
            before = np.linalg.norm(gradient)
            while True:
                self.weights = start - size * step
                gradient = self.gradient()
                if np.linalg.norm(gradient) < (1 - size / 4) * before or size < LEAST_SIZE:
                    break
                size /= 2
        message = (
            f"The last layer did not reach a gradient of {TOLERANCE:g}. Received: "
            f"{np.linalg.norm(gradient):.3g}. Take smaller steps of the images."
        )
        raise RuntimeError(message)

    def sensitivity(self, query: np.ndarray) -> np.ndarray:
        """Return how far each example's features move the output for a query, up to a factor.

        It is the norm of the derivative in φ_i of ``g_iᵀ H⁻¹ φ``, shape ``(n,)``, with g_i the
        gradient of the loss of example i.

        Parameters
        ----------
        query
            φ of the query, shape ``(r,)``.
        """
        direction = cho_solve(cho_factor(self.hessian()), query)
        outputs = self.features @ self.weights
        slopes = -self.signs * expit(-self.signs * outputs)
        bends = expit(outputs) * expit(-outputs) * (self.features @ direction)
        moves = slopes[:, None] * direction + bends[:, None] * self.weights
        return np.linalg.norm(moves, axis=1)


def logistic_loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Return ``log(1 + exp(-y f))`` of labels 1 and -1, shape ``(b,)``.

    Its gradient keeps all its digits where the prediction is sure of itself; that of cross-entropy
    is the difference of a probability and one.
    """
    outputs = tf.reshape(outputs, (-1,))
    signs = tf.cast(tf.reshape(targets, (-1,)), outputs.dtype)
    return tf.nn.softplus(-signs * outputs)


class Problem:
    """Images, the frozen network, and the last layer trained on its features.

    Parameters
    ----------
    images
        RGB from 0 to 255 by split, uint8, shape ``(n, size, size, 3)``.
    labels
        0 for a dog and 1 for a fish, by split.
    network
        Takes BGR less the mean, and gives features ``(b, r)``.
    weight_decay
        Of the last layer.
    """

    def __init__(
        self,
        images: dict[str, np.ndarray],
        labels: dict[str, np.ndarray],
        network: keras.Model,
        weight_decay: float,
    ) -> None:
        self.train_images, self.test_images = images["train"], images["test"]
        self.test_signs = np.where(labels["test"] == FISH, 1.0, -1.0)
        network.trainable = False
        inputs = keras.Input(images["train"].shape[1:])
        features = network(inputs[..., ::-1] - MEAN)
        extractor = keras.Model(inputs, features)
        signature = tf.TensorSpec((None, *inputs.shape[1:]), tf.float32)
        self._extract = tf.function(
            lambda x: extractor(x, training=False), input_signature=[signature]
        )
        train_signs = np.where(labels["train"] == FISH, 1.0, -1.0)
        self.test_features = self.features_of(self.test_images).astype(np.float64)
        self._original = self.features_of(self.train_images).astype(np.float64)
        self.last_layer = LastLayer(self._original.copy(), train_signs, weight_decay)
        self._weights = self.last_layer.weights
        self._dense = keras.layers.Dense(1, use_bias=False, dtype="float64")
        self.model = InfluenceModel(
            keras.Model(inputs, self._dense(features)), loss_function=logistic_loss
        )
        self.assign()

    def features_of(self, images: np.ndarray) -> np.ndarray:
        """Return the features ``(b, r)`` of images ``(b, size, size, 3)``."""
        parts = [
            self._extract(images[start : start + 64].astype(np.float32)).numpy()
            for start in range(0, len(images), 64)
        ]
        return np.concatenate(parts)

    def assign(self) -> None:
        """Give the model the weights of the last layer."""
        self._dense.kernel.assign(self.last_layer.weights[:, None])

    def restore(self) -> None:
        """Go back to the training images as they were."""
        self.last_layer.features[:] = self._original
        self.last_layer.weights = self._weights
        self.assign()


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """Return 8-bit images of another size, by bicubic interpolation."""
    parts = [
        tf.image.resize(images[start : start + 64], (size, size), "bicubic").numpy()
        for start in range(0, len(images), 64)
    ]
    return np.clip(np.rint(np.concatenate(parts)), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def load_problem(
    data_dir: Path | None, per_class: tuple[int, int], size: int, weight_decay: float
) -> Problem:
    """Return the problem on the first images of both classes, ``per_class`` for each split.

    Raises
    ------
    FileNotFoundError
        If there is no folder with the images and the network.
    """
    data = load_data("dogfish64", data_dir)
    network = keras.models.load_model(Path(data_dir or "") / NETWORK_FILE)
    images, labels = {}, {}
    for name, number in zip(("train", "test"), per_class, strict=True):
        y = data[f"y_{name}"]
        chosen = np.sort(
            np.concatenate([np.flatnonzero(y == label)[:number] for label in (DOG, FISH)])
        )
        images[name], labels[name] = enlarged(data[f"x_{name}"][chosen], size), y[chosen]
    return Problem(images, labels, network, weight_decay)
