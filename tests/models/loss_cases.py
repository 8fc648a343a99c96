"""Rows that differ by their loss, on a small dense network or a small sequence model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.models.case import (
    CLASSES,
    Data,
    ModelCase,
    Refusal,
    classes,
    head,
    normal,
    reals,
    sequential,
)

layers, losses = keras.layers, keras.losses
FEATURES, STEPS = 4, 5
VOID = -1

# The loss is linear almost everywhere in the outputs, and these in the watched last layer. Where
# they are not, the Hessian has a curvature, and the Fisher matrix still has none.
FLAT = {strategy: Refusal("curvature") for strategy in ("exact", "ekfac", "cgd")}


@keras.saving.register_keras_serializable("zoo")
def upper_quantile(y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
    """The pinball loss of the 90 % quantile, as users write it."""
    error = y_true - y_pred
    return tf.reduce_mean(tf.maximum(0.9 * error, -0.1 * error), axis=-1)


def dense(units: int, loss: Any, activation: str | None = None) -> Callable[[], keras.Model]:
    return sequential(
        lambda: layers.Dense(5, activation="tanh"),
        head(units, activation=activation),
        shape=(FEATURES,),
        loss=loss,
    )


def targets(*shape: int) -> Data:
    return lambda generator, n: (reals(generator, n, FEATURES), reals(generator, n, *shape))


def counts(generator: np.random.Generator, n: int) -> tuple:
    return reals(generator, n, FEATURES), generator.poisson(2.0, (n, 1)).astype("float32")


def binary(*shape: int) -> Data:
    return lambda generator, n: (
        reals(generator, n, FEATURES),
        classes(generator, n, *shape, count=2),
    )


def signs(generator: np.random.Generator, n: int) -> tuple:
    return reals(generator, n, FEATURES), 2.0 * classes(generator, n, 1, count=2) - 1.0


def one_hot(generator: np.random.Generator, n: int) -> tuple:
    return reals(generator, n, FEATURES), np.eye(CLASSES)[classes(generator, n)]


def weighted(generator: np.random.Generator, n: int) -> tuple:
    weights = generator.integers(0, 4, n).astype("float32")
    return reals(generator, n, FEATURES), classes(generator, n), weights


def tokens(generator: np.random.Generator, n: int) -> tuple:
    """Sequences with a class at each step, of which some, never all, are void."""
    labels = classes(generator, n, STEPS)
    labels[:, 1:][generator.random((n, STEPS - 1)) < 0.4] = VOID
    return reals(generator, n, STEPS, FEATURES), labels


def weighted_tokens(generator: np.random.Generator, n: int) -> tuple:
    x, y = reals(generator, n, STEPS, FEATURES), classes(generator, n, STEPS)
    return x, y, generator.random((n, STEPS)).astype("float32")


def transcripts(generator: np.random.Generator, n: int) -> tuple:
    return reals(generator, n, STEPS, FEATURES), generator.integers(1, CLASSES, (n, 2))


def tagger(loss: Any, *parts: Callable[[], keras.layers.Layer]) -> Callable[[], keras.Model]:
    hidden = parts or (lambda: layers.Dense(4, activation="tanh"),)
    return sequential(*hidden, head(), shape=(STEPS, FEATURES), loss=loss)


def sparse(**options: Any) -> keras.losses.Loss:
    return losses.SparseCategoricalCrossentropy(from_logits=True, **options)


CASES = [
    ModelCase("mse", dense(2, "mse"), targets(2)),
    ModelCase("mse-of-flat-targets", dense(1, losses.MeanSquaredError()), targets(), ("head/",)),
    ModelCase("huber", dense(2, losses.Huber(delta=0.5)), targets(2), ("head/",)),
    ModelCase("logcosh", dense(1, "log_cosh"), targets(1), ("head/",)),
    ModelCase("mae", dense(1, "mae"), targets(1), ("head/",), refusals=FLAT),
    ModelCase("quantile", dense(1, upper_quantile), targets(1), ("head/",), refusals=FLAT),
    ModelCase("hinge", dense(1, "hinge"), signs, ("head/",), refusals=FLAT),
    ModelCase(
        "categorical-hinge",
        dense(3, "categorical_hinge"),
        one_hot,
        ("dense",),
        refusals={"ekfac": FLAT["ekfac"]},
    ),
    ModelCase("squared-hinge", dense(1, "squared_hinge"), signs, ("head/",)),
    ModelCase("poisson", dense(1, "poisson", "exponential"), counts, ("head/",)),
    ModelCase("cosine-similarity", dense(3, losses.CosineSimilarity()), targets(3), ("head/",)),
    ModelCase("one-logit", dense(1, losses.BinaryCrossentropy(from_logits=True)), binary()),
    ModelCase("sigmoid", dense(1, "binary_crossentropy", "sigmoid"), binary(1), ("head/",)),
    ModelCase(
        "several-sigmoids", dense(3, "binary_crossentropy", "sigmoid"), binary(3), ("head/",)
    ),
    ModelCase(
        "softmax",
        dense(CLASSES, "sparse_categorical_crossentropy", "softmax"),
        normal(FEATURES),
        ("head/",),
    ),
    ModelCase(
        "label-smoothing",
        dense(CLASSES, losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)),
        one_hot,
        ("head/",),
    ),
    ModelCase(
        "binary-focal",
        dense(1, losses.BinaryFocalCrossentropy(from_logits=True, apply_class_balancing=True)),
        binary(1),
        ("head/",),
    ),
    ModelCase(
        "categorical-focal",
        dense(CLASSES, losses.CategoricalFocalCrossentropy(), "softmax"),
        one_hot,
        ("head/",),
    ),
    ModelCase("sample-weights", dense(CLASSES, sparse()), weighted, ("head/",)),
    ModelCase(
        "weights-by-step", tagger(sparse()), weighted_tokens, ("head/",), positions=lambda y: STEPS
    ),
    ModelCase("void-steps-mean", tagger(sparse(ignore_class=VOID)), tokens, ("head/",)),
    ModelCase(
        "void-steps-sum",
        tagger(sparse(ignore_class=VOID)),
        tokens,
        ("head/",),
        positions=lambda y: tf.math.count_nonzero(y != VOID),
    ),
    ModelCase(
        "connectionist-temporal",
        tagger(losses.CTC()),
        transcripts,
        ("head/",),
        refusals={
            strategy: Refusal("derivative|curvature|CTC") for strategy in ("exact", "ekfac", "cgd")
        },
    ),
]
