"""Losses that have a gradient and no second derivative: what works, and what does not."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import MissingDerivativeError
from deel_influence.ihvp import (
    EKFACIHVP,
    KFACIHVP,
    ArnoldiIHVP,
    ConjugateGradientDescentIHVP,
    IHVPCalculator,
    InverseHessianVectorProduct,
    LissaIHVP,
    NystromIHVP,
)
from deel_influence.influence import FirstOrderInfluenceCalculator
from deel_influence.model import InfluenceModel
from deel_influence.utils.kernels import Kernel
from tests.oracles import assert_close, gradient_rows, mean_hessian

FIRST_ONLY = ("identity", "datainf", "logra")
ITERATIVE = (ArnoldiIHVP, ConjugateGradientDescentIHVP, LissaIHVP, NystromIHVP)
FRAMES, CLASSES = 6, 5


def fused_ctc(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """The operation of TensorFlow's first version, whose gradient says that it has none."""
    labels = tf.sparse.from_dense(tf.cast(targets, tf.int32))
    lengths = tf.fill([tf.shape(outputs)[0]], FRAMES)
    return tf.nn.ctc_loss(
        labels, outputs, None, lengths, logits_time_major=False, blank_index=CLASSES - 1
    )


def normalised(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """A loss with an operation whose gradient is an operation without a gradient."""
    scaled = tf.nn.local_response_normalization(outputs[:, None])[:, 0]
    return tf.reduce_sum(scaled**2, axis=(1, 2)) + 0.0 * tf.reduce_sum(targets, axis=1)


def with_empirical_fisher(
    kind: type, model: InfluenceModel, data: tf.data.Dataset
) -> InverseHessianVectorProduct:
    return kind(model, train_dataset=data, curvature="empirical_fisher")


LOSSES = {"CTC": keras.losses.CTC(), "fused CTC": fused_ctc, "normalised": normalised}


def problem(loss: object) -> tuple[InfluenceModel, tf.data.Dataset]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(6, FRAMES, 4)).astype("float32")
    labels = generator.integers(1, CLASSES - 1, (6, 2))
    model = keras.Sequential([keras.Input((FRAMES, 4)), keras.layers.Dense(CLASSES)])
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
    return InfluenceModel(model, loss_function=loss), data


# Every strategy that needs them, and the quick losses where it is slow to trace the other.
REFUSED = {
    "CTC": ("exact", "cgd", "arnoldi"),
    "fused CTC": ("ekfac", "astra", "lissa"),
    "normalised": ("kfac", "woodbury", "nystrom"),
}


def test_every_strategy_is_among_those_below():
    named = {strategy for strategies in REFUSED.values() for strategy in strategies}
    assert named | set(FIRST_ONLY) == {member.value.name for member in IHVPCalculator}


@pytest.mark.parametrize(
    ("loss", "strategy"), [(loss, name) for loss, names in REFUSED.items() for name in names]
)
def test_a_strategy_of_second_derivatives_says_what_works_without(loss, strategy):
    model, data = problem(LOSSES[loss])
    with pytest.raises(MissingDerivativeError, match=r'Received: .*"identity", "datainf"'):
        FirstOrderInfluenceCalculator(model, data, strategy).score(data, verbose=0)


NAMED = {
    "CTC": ("identity", "datainf", lambda *problem: EKFACIHVP(*problem, fisher="empirical")),
    "normalised": (
        "logra",
        lambda *problem: KFACIHVP(*problem, fisher="empirical"),
        *(functools.partial(with_empirical_fisher, kind) for kind in ITERATIVE),
    ),
}


@pytest.mark.parametrize("loss", NAMED)
def test_what_the_message_names_works(loss):
    model, data = problem(LOSSES[loss])
    for named in NAMED[loss]:
        strategy = named(model, data) if callable(named) else named
        scores = FirstOrderInfluenceCalculator(model, data, strategy).score(data, verbose=0).values
        assert np.all(np.isfinite(scores))
        assert np.all(scores > 0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_first_derivatives_of_such_losses_are_those_of_single_examples(loss):
    model, data = problem(loss)
    x, y = (np.concatenate(parts) for parts in zip(*data.as_numpy_iterator(), strict=True))
    scores = FirstOrderInfluenceCalculator(model, data, "identity").score(data, verbose=0).values
    # float32 over six frames, in another order of summation.
    assert_close(scores, np.sum(gradient_rows(model, x, y) ** 2, axis=1), 1e-5)


def test_a_kernel_with_such_a_derivative_is_refused_before_it_runs():
    loss = keras.losses.CTC()

    def second(outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as outer:
            outer.watch(outputs)
            with tf.GradientTape() as inner:
                inner.watch(outputs)
                value = tf.reduce_sum(loss.call(targets, outputs))
            gradient = inner.gradient(value, outputs)
        return outer.gradient(gradient, outputs)

    kernel = Kernel(second)
    with pytest.raises(MissingDerivativeError, match=r"a loop, such as that of keras\.losses\.CTC"):
        kernel(np.zeros((2, FRAMES, CLASSES), "float32"), np.ones((2, 2), "int32"))
    assert kernel.num_traces == 0


def in_python(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    squares = lambda y, o: tf.reduce_mean((y - o) ** 2, axis=-1)  # noqa: E731
    return tf.ensure_shape(tf.py_function(squares, [targets, outputs], outputs.dtype), [None])


@tf.custom_gradient
def with_own_gradient(targets: tf.Tensor, outputs: tf.Tensor) -> tuple:
    difference = outputs - targets

    def gradient(upstream: tf.Tensor) -> tuple:
        return None, upstream[:, None] * 2 * difference / tf.cast(
            tf.shape(outputs)[1], outputs.dtype
        )

    return tf.reduce_mean(difference**2, axis=-1), gradient


def regression(loss: object) -> tuple[InfluenceModel, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    return InfluenceModel(model, loss_function=loss), *generator.normal(size=(2, 9, 4))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", [in_python, lambda y, o: with_own_gradient(y, o)])
def test_losses_in_python_or_with_a_gradient_of_their_own_have_gradients(loss):
    model, x, y = regression(loss)
    y = y[:, :3]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    scores = FirstOrderInfluenceCalculator(model, data, "identity").score(data, verbose=0).values
    assert_close(scores, np.sum(gradient_rows(model, x, y) ** 2, axis=1), 1e-10)


@pytest.mark.usefixtures("float64")
def test_a_gradient_of_ones_own_is_differentiated_again():
    model, x, y = regression(lambda targets, outputs: with_own_gradient(targets, outputs))
    y = y[:, :3]
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    scores = FirstOrderInfluenceCalculator(model, data, "exact").score(data, verbose=0).values
    squared = InfluenceModel(model.model, loss_function="mse")
    rows, hessian = gradient_rows(squared, x, y), mean_hessian(squared, x, y)
    assert_close(scores, np.sum(rows * np.linalg.solve(hessian, rows.T).T, axis=1), 1e-8)
