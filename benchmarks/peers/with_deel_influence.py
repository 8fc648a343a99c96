"""The works with deel_influence, as its documentation shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from problems import STRIDES, Problem
from settings import (
    ARNOLDI_RANK,
    ARNOLDI_STEPS,
    BATCH,
    CG_DAMPING,
    CG_EXAMPLES,
    CG_QUERIES,
    CG_TOLERANCE,
    EKFAC_DAMPING,
    EKFAC_QUERIES,
    HEAD_DAMPING,
    KNN,
    KNN_QUERIES,
    SEED,
    TOP_K,
    TRAK_DIM,
    TRAK_EXAMPLES,
    TRAK_QUERIES,
)

import deel_influence
from deel_influence.baselines import KNNShapley
from deel_influence.ihvp import EKFACIHVP, ConjugateGradientDescentIHVP, ExactIHVP
from deel_influence.influence import ArnoldiInfluenceCalculator, FirstOrderInfluenceCalculator
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from deel_influence.trac_in import GradientDot
from deel_influence.trak import TRAK

Call = Callable[[], dict[str, Any]]

VERSION = f"{deel_influence.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__}"


def network(problem: Problem) -> keras.Model:
    """Return the network of a problem, compiled."""
    layers = keras.layers
    *hidden, last = problem.layers
    model = keras.Sequential([keras.Input(problem.x.shape[1:])])
    for i, (kernel, _) in enumerate(hidden):
        if kernel.ndim == 4:
            model.add(layers.Conv2D(kernel.shape[3], 3, STRIDES[i], "same", activation="relu"))
        else:
            model.add(layers.Dense(kernel.shape[1], problem.activation))
    if problem.x.ndim == 4:
        model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(last[0].shape[1]))
    model.set_weights([part for layer in problem.layers for part in layer])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss)
    return model


def whole(problem: Problem) -> BaseInfluenceModel:
    """Return the network with all weights watched."""
    return BaseInfluenceModel(network(problem))


def train_set(problem: Problem) -> tf.data.Dataset:
    """Return the training examples in batches."""
    return tf.data.Dataset.from_tensor_slices((problem.x, problem.y)).batch(BATCH)


def query_set(problem: Problem) -> tf.data.Dataset:
    """Return the queries in batches."""
    return tf.data.Dataset.from_tensor_slices((problem.queries, problem.query_labels)).batch(BATCH)


def norms(problem: Problem) -> Call:
    """Take the self-influence without curvature."""
    calculator, train = GradientDot(whole(problem)), train_set(problem)
    return lambda: {"scores": calculator.score(train, verbose=0).values}


def influence_values(problem: Problem) -> Call:
    """Read all batches of the lazy result."""
    calculator, train = GradientDot(whole(problem)), train_set(problem)

    def call() -> dict[str, np.ndarray]:
        batches = calculator.compute_influence_values(train)
        return {"scores": np.concatenate([scores.numpy() for _, scores in batches])}

    return call


def step(problem: Problem) -> Call:
    """Run forward and backward over all examples, compiled, and add the gradients up."""
    model, train = network(problem), train_set(problem)
    count = len(problem.x)

    @tf.function
    def gradients(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_sum(keras.losses.sparse_categorical_crossentropy(y, logits, True))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    def call() -> dict[str, np.ndarray]:
        loss, total = 0.0, None
        for x, y in train:
            of_batch, found = gradients(x, y)
            loss += of_batch
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        return {"scores": np.array([loss / count, tf.linalg.global_norm(total) / count])}

    return call


def fit(problem: Problem) -> Call:
    """Train for an epoch of ``fit`` at a learning rate of 0, which keeps the weights."""
    model, train = network(problem), train_set(problem)

    def call() -> dict[str, np.ndarray]:
        history = model.fit(train, verbose=0).history
        return {"scores": np.array(history["loss"])}

    return call


def ekfac_fit(problem: Problem) -> Call:
    """Fit anew each time; the scores are taken afterwards, from the last fit."""
    problem = problem.first(queries=EKFAC_QUERIES)
    model, train, queries = whole(problem), train_set(problem), query_set(problem)

    def call() -> dict[str, Any]:
        ihvp = EKFACIHVP(model, train, damping=EKFAC_DAMPING, seed=SEED, verbose=0)
        calculator = FirstOrderInfluenceCalculator(model, train, ihvp)
        return {"scores": lambda: calculator.influence_matrix(queries, train, verbose=0)}

    return call


def _with_ekfac(problem: Problem) -> FirstOrderInfluenceCalculator:
    model, train = whole(problem), train_set(problem)
    ihvp = EKFACIHVP(model, train, damping=EKFAC_DAMPING, seed=SEED, verbose=0)
    return FirstOrderInfluenceCalculator(model, train, ihvp)


def ekfac_self(problem: Problem) -> Call:
    """Take the self-influence after the fit."""
    calculator, train = _with_ekfac(problem), train_set(problem)
    return lambda: {"scores": calculator.score(train, verbose=0).values}


def ekfac_pairs(problem: Problem) -> Call:
    """Take the matrix of scores after the fit."""
    problem = problem.first(queries=EKFAC_QUERIES)
    calculator, train, queries = _with_ekfac(problem), train_set(problem), query_set(problem)
    return lambda: {"scores": calculator.influence_matrix(queries, train, verbose=0)}


def _head(model: InfluenceModel, train: tf.data.Dataset) -> FirstOrderInfluenceCalculator:
    ihvp = ExactIHVP(model, train, damping=HEAD_DAMPING)
    return FirstOrderInfluenceCalculator(model, train, ihvp)


def exact_head(problem: Problem) -> Call:
    """Fit and take the matrix of scores, each time anew; the last layer is watched by default."""
    model, train, queries = InfluenceModel(network(problem)), train_set(problem), query_set(problem)
    return lambda: {"scores": _head(model, train).influence_matrix(queries, train, verbose=0)}


def top_k(problem: Problem) -> Call:
    """Find the best examples after the fit."""
    train, queries = train_set(problem), query_set(problem)
    calculator = _head(InfluenceModel(network(problem)), train)

    def call() -> dict[str, np.ndarray]:
        found = calculator.find_top_k(queries, train, TOP_K, verbose=0)
        return {"scores": found.values, "ids": found.train_ids}

    return call


def cg(problem: Problem) -> Call:
    """Solve for the gradients of the queries."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    queries = query_set(problem)
    ihvp = ConjugateGradientDescentIHVP(
        whole(problem),
        train_dataset=train_set(problem),
        damping=CG_DAMPING,
        tolerance=CG_TOLERANCE,
    )
    return lambda: {"solutions": ihvp.compute_ihvp(queries).numpy()}


def arnoldi(problem: Problem) -> Call:
    """Fit and take the matrix of scores, each time anew."""
    problem = problem.first(CG_EXAMPLES, CG_QUERIES)
    model, train, queries = whole(problem), train_set(problem), query_set(problem)

    def call() -> dict[str, np.ndarray]:
        calculator = ArnoldiInfluenceCalculator(
            model, train, ARNOLDI_STEPS, k_largest_eig_vals=ARNOLDI_RANK, seed=SEED
        )
        return {"scores": calculator.influence_matrix(queries, train, verbose=0)}

    return call


def trak(problem: Problem) -> Call:
    """Fit and take the matrix of scores, each time anew, with the default projection."""
    problem = problem.first(TRAK_EXAMPLES, TRAK_QUERIES)
    model, train, queries = whole(problem), train_set(problem), query_set(problem)

    def call() -> dict[str, np.ndarray]:
        calculator = TRAK(model, train, projection_dim=TRAK_DIM, seed=SEED, verbose=0)
        return {"scores": calculator.influence_matrix(queries, train, verbose=0)}

    return call


def knn_shapley(problem: Problem) -> Call:
    """Take minus the mean values for the queries; the features are computed within."""
    problem = problem.first(queries=KNN_QUERIES)
    calculator = KNNShapley(InfluenceModel(network(problem)), KNN, reference_set=query_set(problem))
    train = train_set(problem)
    return lambda: {"scores": -calculator.score(train, verbose=0).values}
