"""The objective that Keras minimised: decay, reductions and class weights, against closed forms.

The problem is linear regression, whose minimum and whose leave-one-out minima have closed forms.
That a closed form is what Keras trains to is checked by `fit` itself: it does not move from there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import IgnoredTermWarning
from deel_influence.influence import (
    FirstOrderInfluenceCalculator,
    NewtonStepInfluenceCalculator,
    SecondOrderInfluenceCalculator,
)
from deel_influence.model import BaseInfluenceModel, InfluenceModel
from tests.oracles import assert_close

layers, optimizers = keras.layers, keras.optimizers
N, D, M = 24, 3, 5

# A Newton step is leave-one-out retraining for ridge regression, but for rounding in float64. Some
# factors of Keras pass through float32.
EXACT = 1e-6


class Ridge:
    """``(1/n) Σ w ℓ + (λ/2) ‖θ‖²`` for squared errors: data, minimum, changes without each."""

    def __init__(self, decay: float = 0.3, weights: np.ndarray | None = None) -> None:
        generator = np.random.default_rng(0)
        self.x, self.queries = generator.normal(size=(N, D)), generator.normal(size=(M, D))
        self.truth = np.array([1.0, -2.0, 0.5])
        self.y = self.x @ self.truth + generator.normal(size=N)
        self.decay = decay
        self.weights = np.ones(N) if weights is None else weights
        self.divisor: Callable[[np.ndarray], float] = len

    def minimum(self, kept: np.ndarray) -> np.ndarray:
        x, y, w = self.x[kept], self.y[kept], self.weights[kept]
        scale = 2 / self.divisor(kept)
        hessian = scale * (x.T * w) @ x + self.decay * np.eye(D)
        return np.linalg.solve(hessian, scale * (x.T * w) @ y)

    def changes(self) -> np.ndarray:
        """Return the changes ``(m, n)`` of the queries' losses without each example."""
        losses = lambda theta: (self.queries @ (theta - self.truth)) ** 2  # noqa: E731
        before = losses(self.minimum(np.arange(N)))
        each = [self.minimum(np.delete(np.arange(N), i)) for i in range(N)]
        return np.stack([losses(theta) - before for theta in each], axis=1)

    def model(self, **compile_options: object) -> keras.Model:
        dense = layers.Dense(1, use_bias=False, kernel_regularizer=compile_options.pop("l2", None))
        model = keras.Sequential([keras.Input((D,)), dense])
        model.set_weights([self.minimum(np.arange(N))[:, None]])
        model.compile(**{"loss": "mse", **compile_options})
        return model

    def data(self, weighted: bool = False) -> tf.data.Dataset:
        parts = (self.x, self.y[:, None]) + ((self.weights,) if weighted else ())
        return tf.data.Dataset.from_tensor_slices(parts).batch(10)

    def query_data(self) -> tf.data.Dataset:
        parts = (self.queries, (self.queries @ self.truth)[:, None])
        return tf.data.Dataset.from_tensor_slices(parts).batch(3)

    def predicted(self, model: InfluenceModel, weighted: bool = False) -> np.ndarray:
        calculator = NewtonStepInfluenceCalculator(model, self.data(weighted))
        return calculator.predict_loss_change(self.query_data(), self.data(weighted), verbose=0)

    def rests(self, model: keras.Model, **fit_options: object) -> None:
        """Check that a few full-batch steps of Keras do not move the weights."""
        before = model.get_weights()[0]
        model.fit(self.x, self.y[:, None], batch_size=N, epochs=3, verbose=0, **fit_options)
        assert_close(model.get_weights()[0], before, EXACT)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda decay: optimizers.SGD(0.1, weight_decay=decay),
        lambda decay: optimizers.SGD(0.1, momentum=0.6, weight_decay=decay / 0.4),
        lambda decay: optimizers.SGD(0.1, momentum=0.6, nesterov=True, weight_decay=decay / 0.4),
        lambda decay: optimizers.LossScaleOptimizer(optimizers.SGD(0.1, weight_decay=decay)),
    ],
    ids=["sgd", "momentum", "nesterov", "loss-scaled"],
)
def test_the_weight_decay_of_sgd_is_a_regulariser(optimizer):
    ridge = Ridge()
    model = ridge.model(optimizer=optimizer(ridge.decay))
    wrapped = InfluenceModel(model)
    assert_close(ridge.predicted(wrapped), ridge.changes(), EXACT)
    if not isinstance(model.optimizer, optimizers.LossScaleOptimizer):
        # Momentum that has come to rest is not zero: let it gather first, then look.
        x, y = tf.constant(ridge.x), tf.constant(ridge.y[:, None])
        for _ in range(150):
            model.train_on_batch(x, y)
        assert_close(model.get_weights()[0][:, 0], ridge.minimum(np.arange(N)), 1e-5)


@pytest.mark.usefixtures("float64")
def test_weight_decay_adds_to_a_regulariser_and_to_nothing_that_is_excluded():
    ridge = Ridge(decay=0.5)
    l2 = keras.regularizers.L2(0.1)  # 0.1 ‖θ‖² = 0.2/2 ‖θ‖²
    both = ridge.model(optimizer=optimizers.SGD(0.1, weight_decay=0.3), l2=l2)
    assert_close(ridge.predicted(InfluenceModel(both)), ridge.changes(), EXACT)
    optimizer = optimizers.SGD(0.1, weight_decay=0.3)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    excluded = ridge.model(optimizer=optimizer, l2=keras.regularizers.L2(0.25))
    assert_close(ridge.predicted(InfluenceModel(excluded)), ridge.changes(), EXACT)
    ridge.rests(excluded)


@pytest.mark.usefixtures("float64")
def test_a_decay_that_is_given_stands_in_for_that_of_the_optimizer():
    ridge = Ridge()
    model = ridge.model(optimizer=optimizers.AdamW(weight_decay=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = ridge.predicted(InfluenceModel(model, weight_decay=ridge.decay))
    assert_close(predicted, ridge.changes(), EXACT)


@pytest.mark.parametrize(
    ("optimizer", "named"),
    [
        (optimizers.AdamW(), "weight_decay=0.004 of the optimizer AdamW"),
        (optimizers.Adam(weight_decay=0.01), "weight_decay=0.01 of the optimizer Adam"),
        (optimizers.RMSprop(weight_decay=0.01), "weight_decay=0.01 of the optimizer RMSprop"),
        (optimizers.Adafactor(weight_decay=0.01), "weight_decay=0.01 of the optimizer Adafactor"),
        (optimizers.Lion(weight_decay=0.01), "weight_decay=0.01 of the optimizer Lion"),
        (optimizers.Ftrl(l2_regularization_strength=0.1), "l2_regularization_strength=0.1"),
    ],
    ids=["adamw", "adam", "rmsprop", "adafactor", "lion", "ftrl"],
)
def test_decay_that_is_no_regulariser_is_left_out_by_name_where_r_is_needed(optimizer, named):
    ridge = Ridge()
    wrapped = InfluenceModel(ridge.model(optimizer=optimizer))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FirstOrderInfluenceCalculator(wrapped, ridge.data(), "identity").score(ridge.data())
    with pytest.warns(IgnoredTermWarning, match=named):
        ridge.predicted(wrapped)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "optimizer", [optimizers.Adam, optimizers.RMSprop, optimizers.Nadam, optimizers.SGD]
)
def test_without_decay_any_optimizer_rests_at_the_minimum_of_losses_and_regularisers(optimizer):
    ridge = Ridge()
    model = ridge.model(optimizer=optimizer(1e-3), l2=keras.regularizers.L2(ridge.decay / 2))
    # A gradient of rounding alone is scaled up by the adaptive ones: by no more than a step.
    before = model.get_weights()[0]
    model.fit(ridge.x, ridge.y[:, None], batch_size=N, epochs=2, verbose=0)
    assert np.abs(model.get_weights()[0] - before).max() <= 2e-3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_close(ridge.predicted(InfluenceModel(model)), ridge.changes(), 2e-2)


@pytest.mark.usefixtures("float64")
def test_decay_has_its_part_in_first_and_second_order_and_in_every_curvature():
    ridge = Ridge()
    decayed = InfluenceModel(ridge.model(optimizer=optimizers.SGD(weight_decay=ridge.decay)))
    l2 = InfluenceModel(ridge.model(l2=keras.regularizers.L2(ridge.decay / 2)))
    data, queries = ridge.data(), ridge.query_data()
    for strategy, rtol in (
        ("exact", EXACT),
        ("nystrom", EXACT),
        ("woodbury", EXACT),
        ("cgd", 1e-2),
    ):
        one, other = (
            FirstOrderInfluenceCalculator(m, data, strategy, seed=0).predict_loss_change(
                queries, data, verbose=0
            )
            for m in (decayed, l2)
        )
        assert_close(one, other, rtol)
    one, other = (
        SecondOrderInfluenceCalculator(m, data, "exact").predict_loss_change(
            queries, data, verbose=0
        )
        for m in (decayed, l2)
    )
    assert_close(one, other, EXACT)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", "none"])
def test_a_reduction_that_weighs_r_in_another_way_is_named(reduction):
    model = Ridge().model(
        loss=keras.losses.MeanSquaredError(reduction=reduction), l2=keras.regularizers.L2(0.1)
    )
    wrapped = InfluenceModel(model)
    with pytest.warns(IgnoredTermWarning, match=f"reduction='{reduction}'.*regularizer_weight"):
        wrapped.regularization()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped.regularization()  # said once
        InfluenceModel(model, regularizer_weight=0.5).regularization()
        InfluenceModel(
            Ridge().model(loss=keras.losses.MeanSquaredError(reduction=reduction))
        ).regularization()


@pytest.mark.usefixtures("float64")
def test_the_sum_over_batches_of_b_counts_r_once_for_b_examples():
    """Mini-batches of b: in the mean over batches the objective is ``(b/n) Σ ℓ + R``."""
    b, ridge = 8, Ridge(decay=2.0)
    ridge.divisor = lambda kept: len(kept) / b
    loss = keras.losses.MeanSquaredError(reduction="sum")
    model = ridge.model(loss=loss, l2=keras.regularizers.L2(ridge.decay / 2))
    wrapped = InfluenceModel(model, regularizer_weight=1 / b)
    assert_close(ridge.predicted(wrapped), ridge.changes(), EXACT)


@pytest.mark.usefixtures("float64")
def test_r_goes_with_the_sample_weight_where_keras_divided_by_their_sum():
    weights = np.random.default_rng(1).uniform(1, 3, N)
    ridge = Ridge(decay=0.3, weights=weights)
    ridge.divisor = lambda kept: weights[kept].sum()
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    l2 = keras.regularizers.L2(ridge.decay / 2)
    model = ridge.model(loss=loss, optimizer=optimizers.SGD(0.1), l2=l2)
    ridge.rests(model, sample_weight=weights)
    predicted = ridge.predicted(InfluenceModel(model, regularizer_weight=weights.mean()), True)
    # The Newton step takes 1/n of R'' out with an example, and not its share: second order in 1/n.
    assert_close(predicted, ridge.changes(), 1e-2)


@pytest.mark.usefixtures("float64")
def test_sample_weights_are_those_of_fit():
    weights = np.random.default_rng(1).uniform(1, 3, N)
    ridge = Ridge(decay=0.3, weights=weights)
    model = ridge.model(optimizer=optimizers.SGD(0.1, weight_decay=ridge.decay))
    ridge.rests(model, sample_weight=weights)
    assert_close(ridge.predicted(InfluenceModel(model), True), ridge.changes(), EXACT)


@pytest.mark.parametrize("name", ["compute_loss", "train_step"])
def test_a_training_of_its_own_beside_a_compiled_loss_is_named(name):
    own = {name: lambda self, *args, **kwargs: getattr(super(kind, self), name)(*args, **kwargs)}
    kind = type("Own", (keras.Sequential,), own)
    model = kind([keras.Input((2,)), layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.warns(IgnoredTermWarning, match=f"Own has a {name} of its own"):
        InfluenceModel(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InfluenceModel(model, loss_function="mse")


def test_constraints_are_named_where_r_is_needed():
    dense = layers.Dense(1, kernel_constraint="non_neg", name="bounded")
    wrapped = InfluenceModel(keras.Sequential([keras.Input((2,)), dense]), loss_function="mse")
    with pytest.warns(IgnoredTermWarning, match="constraints of the weights.*bounded/kernel"):
        wrapped.regularization_gradient()


def sequence_model(**loss_options: object) -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    embedded = layers.Embedding(7, 5, mask_zero=True)(tokens)
    dense = layers.Dense(3, kernel_regularizer="l2")
    model = keras.Model(tokens, dense(embedded))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **loss_options)
    model.compile(loss=loss)
    return model


@pytest.mark.parametrize(
    ("how", "said"), [("sum", "number of positions"), ("mean", "masked positions")]
)
def test_positions_that_weigh_r_in_another_way_than_keras_are_named(how, said):
    x, y = np.array([[1, 2, 0, 0], [3, 4, 5, 6]]), np.zeros((2, 4), int)
    wrapped = InfluenceModel(sequence_model(), loss_over_positions=how)
    wrapped.per_example_losses((x, y))
    with pytest.warns(IgnoredTermWarning, match=said):
        wrapped.regularization()


IGNORING = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)


@pytest.mark.parametrize(
    "loss", [IGNORING, [IGNORING], lambda y, o: IGNORING.call(y, o)], ids=["object", "list", "call"]
)
@pytest.mark.parametrize("is_masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("is_weighted", [False, True], ids=["unweighted", "weighted"])
def test_ignored_classes_are_no_positions(loss, is_masked, is_weighted):
    """With the mean over positions the loss of an example is Keras's own objective for it."""
    generator = np.random.default_rng(0)
    x = generator.integers(1, 7, (6, 4))
    if is_masked:
        x[[0, 3], 3:] = 0
    y = generator.integers(0, 3, (6, 4))
    y[[1, 2, 5], 2:] = -1
    model = sequence_model()
    model.layers[-1].kernel.regularizer = None
    model.layers[-1].kernel_regularizer = None
    model.compile(loss=loss)
    weights = generator.uniform(1, 2, (6, 4)).astype("float32") if is_weighted else None
    batch = (x, y) if weights is None else (x, y, weights)
    found = InfluenceModel(model, loss_over_positions="mean").per_example_losses(batch)
    expected = [
        model.evaluate(
            x[i : i + 1],
            y[i : i + 1],
            sample_weight=None if weights is None else weights[i : i + 1],
            verbose=0,
        )
        for i in range(6)
    ]
    assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("name", ["weight_decay", "regularizer_weight"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), "much", True])
def test_factors_of_r_that_are_no_numbers_are_refused(name, value):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    with pytest.raises(ValueError, match=f"Argument `{name}` must be .* finite number >= 0"):
        BaseInfluenceModel(model, loss_function="mse", **{name: value})
