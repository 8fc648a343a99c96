"""Short runs, and their derivatives by one tape around the whole training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from deel_influence.model.moments import exact_moments
from deel_influence.unrolled import RecordedRun, record_fit

layers, optimizers = keras.layers, keras.optimizers
N, M, EPOCHS, BATCH = 11, 3, 3, 4


def arrays(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n, 4)).astype(keras.config.floatx())
    x[:, 3] = 0.0  # a column without a gradient
    return x, generator.integers(0, 3, n)


def plain() -> keras.Model:
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, activation="gelu"), layers.Dense(3)]
    )


def penalised() -> keras.Model:
    hidden = layers.Dense(
        5,
        activation="tanh",
        kernel_regularizer="l2",
        activity_regularizer=keras.regularizers.L2(0.02),
    )
    return keras.Sequential([keras.Input((4,)), hidden, layers.Dense(3)])


def with_statistics() -> keras.Model:
    """A model whose examples see each other, and with dropout."""
    hidden = layers.Dense(6, activation="gelu")
    norm = layers.BatchNormalization(momentum=0.7)
    return keras.Sequential(
        [keras.Input((4,)), hidden, norm, layers.Dropout(0.3, seed=5), layers.Dense(3)]
    )


@dataclass(frozen=True)
class Recipe:
    """A training: model and optimizer, and what the latter does, written out."""

    build: Callable[[], keras.Model]
    optimizer: Callable[[], keras.optimizers.Optimizer]
    rate: Callable[[int], float]
    rule: str
    momentum: float = 0.0
    decay: float = 0.0
    norm: float | None = None
    norm_of_each: float | None = None
    epsilon: float = 1e-3
    eps_root: float = 0.0


RECIPES = {
    "descent": Recipe(plain, lambda: optimizers.SGD(0.3), lambda _: 0.3, "sgd"),
    "momentum, schedule, decay": Recipe(
        plain,
        lambda: optimizers.SGD(
            optimizers.schedules.ExponentialDecay(0.2, 2, 0.7), momentum=0.8, weight_decay=0.05
        ),
        lambda step: 0.2 * 0.7 ** (step / 2),
        "momentum",
        momentum=0.8,
        decay=0.05,
    ),
    "Nesterov, clipped": Recipe(
        penalised,
        lambda: optimizers.SGD(0.2, momentum=0.9, nesterov=True, clipnorm=0.1),
        lambda _: 0.2,
        "nesterov",
        momentum=0.9,
        norm_of_each=0.1,
    ),
    "statistics and dropout": Recipe(
        with_statistics,
        lambda: optimizers.SGD(0.2, momentum=0.5),
        lambda _: 0.2,
        "momentum",
        momentum=0.5,
    ),
    "Adam": Recipe(plain, lambda: optimizers.Adam(0.05, epsilon=1e-3), lambda _: 0.05, "adam"),
    "Adam, smooth root": Recipe(
        plain, lambda: optimizers.Adam(0.05), lambda _: 0.05, "adam", epsilon=1e-7, eps_root=0.01
    ),
    "AdamW, clipped": Recipe(
        with_statistics,
        lambda: optimizers.AdamW(0.05, weight_decay=0.1, epsilon=1e-3, global_clipnorm=0.2),
        lambda _: 0.05,
        "adam",
        decay=0.1,
        norm=0.2,
    ),
}


def compiled(recipe: Recipe) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = recipe.build()
    # Made here, because a loss keeps the float type that it was made under.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(recipe.optimizer(), loss, run_eagerly=True)
    return model


def recorded(recipe: Recipe, **settings: object) -> RecordedRun:
    given = {"epochs": EPOCHS, "batch_size": BATCH, "seed": 1, "verbose": 0, **settings}
    given["eps_root"] = recipe.eps_root
    return record_fit(compiled(recipe), arrays(N, 0), **given)


def trained_on_tape(
    recipe: Recipe, run: RecordedRun, weights: tf.Tensor
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Train step by step, as in a textbook, and return trainable and other variables."""
    model = compiled(recipe)
    x, y = (tf.constant(part) for part in arrays(N, 0))
    theta = [tf.identity(v.value) for v in model.trainable_variables]
    rest = [tf.identity(v.value) for v in model.non_trainable_variables]
    first, second = ([tf.zeros_like(t) for t in theta] for _ in range(2))
    for step in range(run.num_steps):
        rows = run.order.of_step(step)
        batch, given = tf.gather(x, rows), tf.gather(weights, rows)
        with tf.GradientTape() as tape:
            tape.watch(theta)
            outputs, rest, penalties = model.stateless_call(
                theta, rest, batch, training=True, return_losses=True
            )
            chosen = tf.gather(tf.nn.log_softmax(outputs), tf.gather(y, rows), batch_dims=1)
            objective = -tf.reduce_sum(given * chosen) / len(rows)
            for penalty in penalties:
                objective += penalty
        gradients = clipped(recipe, tape.gradient(objective, theta))
        rate = recipe.rate(step)
        # Keras takes these numbers, and below the powers, by way of float32.
        decay, mu = (float(np.float32(value)) for value in (recipe.decay, recipe.momentum))
        theta = [t - rate * decay * t for t in theta]
        if recipe.rule == "adam":
            first = [0.9 * m + 0.1 * g for m, g in zip(first, gradients, strict=True)]
            second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradients, strict=True)]
            beta_1, beta_2 = (float(np.float32(beta)) ** (step + 1) for beta in (0.9, 0.999))
            alpha = rate * np.sqrt(1 - beta_2) / (1 - beta_1)
            # Where v is zero, so are all gradients there, and the root has no part in it.
            under = [v + recipe.eps_root * (1 - beta_2) for v in second]
            roots = [tf.sqrt(tf.where(v == 0, 1.0, v)) * tf.cast(v != 0, v.dtype) for v in under]
            moves = [-alpha * m / (r + recipe.epsilon) for m, r in zip(first, roots, strict=True)]
        else:
            first = [mu * m - rate * g for m, g in zip(first, gradients, strict=True)]
            moves = first
            if recipe.rule == "nesterov":
                moves = [mu * m - rate * g for m, g in zip(first, gradients, strict=True)]
        theta = [t + move for t, move in zip(theta, moves, strict=True)]
    return theta, rest


def clipped(recipe: Recipe, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    if recipe.norm is not None:
        return tf.clip_by_global_norm(gradients, recipe.norm)[0]
    if recipe.norm_of_each is not None:
        return [tf.clip_by_norm(gradient, recipe.norm_of_each) for gradient in gradients]
    return gradients


def influence_on_tape(recipe: Recipe, run: RecordedRun) -> np.ndarray:
    """Return ``-n dℓ(z)/dw`` of M queries, ``(M, N)``, by one tape around the whole run."""
    x, y = arrays(M, 9)
    weights = tf.ones(N, keras.config.floatx())
    # That the second derivatives of these are right is for finite differences to tell.
    with exact_moments(), tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        theta, rest = trained_on_tape(recipe, run, weights)
        outputs, _ = compiled(recipe).stateless_call(theta, rest, tf.constant(x), training=False)
        losses = -tf.gather(tf.nn.log_softmax(outputs), y, batch_dims=1)
    return -N * tape.jacobian(losses, weights, experimental_use_pfor=False).numpy()
