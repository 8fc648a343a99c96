"""Kronecker factors against NumPy in float64, and where theory says that they are exact."""

from __future__ import annotations

import re
from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.dense import dense_curvature
from deel_influence.curvature.draws import Draws
from deel_influence.curvature.kronecker import correct_eigenvalues, fit_kronecker
from deel_influence.curvature.kronecker_basis import EigenbasisCurvature, EigenBlock
from deel_influence.curvature.kronecker_passes import FisherPass, HeldFactors
from deel_influence.curvature.sampling import sampled_gradients
from deel_influence.errors import CurvatureWarning, EmptyDatasetError, NonFiniteError
from deel_influence.gradients.blocks import FactoredBlock
from deel_influence.gradients.engine import GradientEngine
from deel_influence.model.influence_model import BaseInfluenceModel
from deel_influence.utils.datasets import numbered_batches
from tests.cases import RULED_CASES, ModelCase, sequential
from tests.oracles import assert_close, gradient_rows, relative_error

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
SEED = 7
FACTORED = [case for case in RULED_CASES if "group" not in case.id and "depthwise" not in case.id]
SOME = [
    case
    for case in RULED_CASES
    if case.id
    in ("dense", "dense-on-sequence", "conv2d-strides", "transformer", "shared-convolution")
]


def fresh(case: ModelCase, n: int = 7) -> tuple[BaseInfluenceModel, np.ndarray, np.ndarray]:
    model = BaseInfluenceModel(case.build(), loss_function="mse")
    return (model, *case.data(model.model, n))


# Made once: the probe of an engine costs more than most of the tests.
wrapped = cache(fresh)


def fisher_pass(
    model: BaseInfluenceModel, x: np.ndarray, y: np.ndarray, fisher: str = "true", size: int = 3
) -> FisherPass:
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(size)
    return FisherPass(GradientEngine.of(model), dataset, fisher, SEED, 0)


def gradients_of(fisher: FisherPass) -> np.ndarray:
    """Return the gradients ``(n, p)`` that the passes see."""
    rows = []
    for batch, ids in numbered_batches(fisher.dataset):
        gradients = (
            sampled_gradients(fisher.engine, batch, Draws(SEED, tf.constant(ids)))
            if fisher.fisher == "true"
            else fisher.engine.gradients(batch)
        )
        rows.append(gradients.materialize().numpy())
    return np.concatenate(rows)


def dense_block(block: EigenBlock) -> np.ndarray:
    """Return a block ``(q, q)`` from its eigenvalues and eigenvectors."""
    if block.left is None:
        return np.diag(block.values)
    basis = block.left if block.right is None else np.kron(block.left, block.right)
    return basis @ np.diag(block.values.ravel()) @ basis.T


def entries_of(model: BaseInfluenceModel, block: EigenBlock) -> np.ndarray:
    """Return the places of a block's entries in the parameter vector, ``(q,)``."""
    return np.concatenate([np.arange(*model.layout.slots[part]) for part in block.parts])


def exact_block(model: BaseInfluenceModel, block: EigenBlock, matrix: np.ndarray) -> np.ndarray:
    entries = entries_of(model, block)
    return matrix[np.ix_(entries, entries)]


def linear(*parts: keras.layers.Layer, shape: tuple[int, ...]) -> BaseInfluenceModel:
    return BaseInfluenceModel(sequential(*parts, shape=shape)(), loss_function="mse")


def random_data(model: BaseInfluenceModel, n: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    keras_model = model.model
    x = generator.normal(size=(n, *keras_model.input_shape[1:]))
    return x, generator.normal(size=(n, *keras_model.output_shape[1:]))


def assert_blocks_equal_gauss_newton(model: BaseInfluenceModel, approximation: str) -> None:
    x, y = random_data(model)
    blocks = fit_kronecker(fisher_pass(model, x, y, "expected"), approximation)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    exact = dense_curvature(model, dataset, "gauss_newton", verbose=0).matrix
    for block in blocks:
        assert_close(dense_block(block), exact_block(model, block, exact), 1e-9)


@pytest.mark.parametrize("case", FACTORED, ids=lambda case: case.id)
def test_inputs_and_output_gradients_multiply_to_the_gradients(case):
    model, x, y = wrapped(case)
    engine = GradientEngine.of(model)
    engine.prepare((x, y))
    found = [b.block for b in engine.gradients((x, y)).blocks if b.block.matrix_shape is not None]
    assert found
    for block in found:
        assert isinstance(block, FactoredBlock)
        inputs, deltas = block.positions()
        matrices = np.einsum("bti,bto->bio", inputs, deltas)
        assert_close(matrices.reshape(len(x), -1), block.rows(), 1e-12)


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_factors_of_the_empirical_fisher_are_the_stated_means(case, approximation):
    model, x, y = wrapped(case)
    fisher = fisher_pass(model, x, y, "empirical")
    blocks = fit_kronecker(fisher, approximation)
    placed = {p.parts: p.block for p in fisher.engine.gradients((x, y)).blocks}
    expected = []
    for block in blocks:
        if block.right is None:
            rows = placed[block.parts].rows().numpy()
            expected.append(rows.T @ rows / len(x))
            continue
        a, d = (np.asarray(t) for t in placed[block.parts].positions())
        if approximation == "reduce":
            a, d = a.mean(axis=1, keepdims=True), d.sum(axis=1, keepdims=True)
        inputs = np.einsum("bti,btj->ij", a, a) / (len(x) * a.shape[1])
        deltas = np.einsum("bti,btj->ij", d, d) / len(x)
        expected.append(np.kron(inputs, deltas))
    # All blocks together: those of attention keys vanish under 'reduce'.
    found = [dense_block(block).ravel() for block in blocks]
    assert_close(np.concatenate(found), np.concatenate([e.ravel() for e in expected]), 1e-9)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_one_example_and_one_dense_layer_are_reproduced_exactly(fisher):
    model = linear(lambda: layers.Dense(3), shape=(4,))
    passes = fisher_pass(model, *random_data(model, n=1), fisher)
    (block,) = fit_kronecker(passes, "expand")
    rows = gradients_of(passes)
    assert_close(dense_block(block), rows.T @ rows, 1e-12)


def test_one_example_has_its_gauss_newton_matrix_whatever_the_loss():
    keras_model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model = BaseInfluenceModel(keras_model, loss_function="categorical_crossentropy")
    x, y = np.random.default_rng(0).normal(size=(1, 4)), np.eye(3)[:1]
    (block,) = fit_kronecker(fisher_pass(model, x, y, "expected"), "expand")
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(1)
    exact = dense_curvature(model, dataset, "gauss_newton", verbose=0).matrix
    # Keras keeps probabilities 1e-7 away from 0 and 1.
    assert_close(dense_block(block), exact, 1e-6)


@pytest.mark.parametrize("shape", [(4,), (5, 4)], ids=["vectors", "positions"])
def test_expand_is_exact_for_deep_linear_networks(shape):
    parts = [lambda: layers.Dense(5), lambda: layers.Dense(2, use_bias=False)]
    model = linear(*parts, lambda: layers.Dense(3), shape=shape)
    assert_blocks_equal_gauss_newton(model, "expand")


@pytest.mark.parametrize(
    "first",
    [
        lambda: layers.Dense(4),
        lambda: layers.Conv1D(4, 3, strides=2, padding="same"),
        lambda: layers.EinsumDense("btx,xy->bty", (6, 4), bias_axes="y"),
    ],
    ids=["dense", "convolution", "einsum"],
)
def test_reduce_is_exact_where_a_mean_over_positions_follows_linear_layers(first):
    parts = [first, lambda: layers.Dense(3), layers.GlobalAveragePooling1D]
    model = linear(*parts, lambda: layers.Dense(2), shape=(6, 5))
    assert_blocks_equal_gauss_newton(model, "reduce")


def test_neither_is_exact_where_theory_does_not_say_so():
    model = linear(lambda: layers.Dense(5, "tanh"), lambda: layers.Dense(3), shape=(4,))
    with pytest.raises(AssertionError, match="relative error"):
        assert_blocks_equal_gauss_newton(model, "expand")
    parts = [lambda: layers.Dense(4), layers.GlobalAveragePooling1D, lambda: layers.Dense(2)]
    with pytest.raises(AssertionError, match="relative error"):
        assert_blocks_equal_gauss_newton(linear(*parts, shape=(6, 5)), "expand")


@pytest.mark.parametrize("approximation", ["expand", "reduce"])
def test_layers_that_are_applied_once_are_known(approximation):
    parts = [lambda: layers.Dense(4), layers.Flatten, lambda: layers.Dense(2)]
    model = linear(*parts, shape=(6, 5))
    blocks = fit_kronecker(fisher_pass(model, *random_data(model)), approximation)
    assert [block.is_outer for block in blocks] == [False, True]


def test_a_true_fisher_converges_to_its_expectation():
    case = SOME[0]
    model, x, y = wrapped(case)
    draws = 400
    repeated = [np.tile(a, (draws, 1)) for a in (x, y)]
    sampled = fit_kronecker(fisher_pass(model, *repeated, "true", size=500), "expand")
    expected = fit_kronecker(fisher_pass(model, x, y, "expected"), "expand")
    for one, other in zip(sampled, expected, strict=True):
        # 2,800 draws of two targets each: about 1/√2800 = 2 %.
        assert relative_error(dense_block(one), dense_block(other)) < 0.06


# The correction sees the factors alone, whatever they were made of: all pairs for one case.
@pytest.mark.parametrize(
    ("case", "approximation", "fisher"),
    [
        *((case, "expand", "true") for case in SOME),
        *((SOME[1], approximation, "empirical") for approximation in ("expand", "reduce")),
        *((case, "reduce", "true") for case in SOME[1:3]),
    ],
    ids=lambda value: getattr(value, "id", value),
)
def test_corrected_eigenvalues_are_never_farther_from_the_exact_block(case, approximation, fisher):
    model, x, y = wrapped(case)
    passes = fisher_pass(model, x, y, fisher)
    kfac = fit_kronecker(passes, approximation)
    ekfac = correct_eigenvalues(passes, kfac)
    rows = gradients_of(passes)
    exact = rows.T @ rows / len(rows)
    strictly = 0
    for before, after in zip(kfac, ekfac, strict=True):
        assert after.left is before.left
        block = exact_block(model, before, exact)
        errors = [relative_error(dense_block(b), block) for b in (before, after)]
        assert errors[1] <= errors[0] + 1e-12
        strictly += errors[1] < 0.999 * errors[0]
    assert strictly > 0


@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_corrected_eigenvalues_are_the_diagonal_in_the_eigenbasis(case):
    model, x, y = wrapped(case)
    passes = fisher_pass(model, x, y, "empirical")
    blocks = correct_eigenvalues(passes, fit_kronecker(passes, "expand"))
    rows = gradient_rows(model, x, y)
    for block in blocks:
        if block.right is None:
            continue
        turned = rows[:, entries_of(model, block)] @ np.kron(block.left, block.right)
        assert_close(block.values.ravel(), np.mean(turned**2, axis=0), 1e-9)


@pytest.mark.parametrize(
    ("case", "fisher"),
    [*((case, "true") for case in SOME), (SOME[1], "empirical"), (SOME[1], "expected")],
    ids=lambda value: getattr(value, "id", value),
)
def test_held_factors_give_the_eigenvalues_of_a_second_pass(case, fisher):
    model, x, y = wrapped(case)
    passes = fisher_pass(model, x, y, fisher)
    held = HeldFactors()
    blocks = fit_kronecker(passes, "expand", held)
    assert held.is_complete
    streamed = correct_eigenvalues(passes, blocks)
    for one, other in zip(correct_eigenvalues(passes, blocks, held), streamed, strict=True):
        assert_close(one.values, other.values, 1e-10)


def test_factors_that_do_not_fit_are_let_go_and_the_data_gone_over_again():
    model, x, y = fresh(SOME[0])
    passes = fisher_pass(model, x, y)
    held = HeldFactors(max_bytes=1200)  # two of the three batches
    blocks = fit_kronecker(passes, "expand", held)
    assert not held.is_complete
    assert list(held) == []
    streamed = correct_eigenvalues(passes, blocks)
    for one, other in zip(correct_eigenvalues(passes, blocks, held), streamed, strict=True):
        assert_close(one.values, other.values, 0)


@pytest.mark.parametrize("fisher", ["true", "expected", "empirical"])
def test_the_sizes_of_the_batches_do_not_matter(fisher):
    model, x, y = wrapped(SOME[1])
    results = [
        fit_kronecker(fisher_pass(model, x, y, fisher, size), "expand") for size in (1, 3, 7)
    ]
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert_close(dense_block(one), dense_block(two), 1e-9)


def test_layers_beyond_the_size_of_exact_blocks_get_the_diagonal_and_are_named(monkeypatch):
    case = next(case for case in RULED_CASES if case.id == "transformer")
    model, x, y = fresh(case)
    passes = fisher_pass(model, x, y, "empirical")
    monkeypatch.setattr("deel_influence.curvature.kronecker.MAX_DENSE", 20)
    with pytest.warns(CurvatureWarning, match="more than 20 parameters.*embedding.*embeddings"):
        blocks = fit_kronecker(passes, "expand")
    (diagonal,) = (block for block in blocks if block.left is None)
    rows = gradient_rows(model, x, y)[:, entries_of(model, diagonal)]
    assert_close(diagonal.values, np.mean(rows**2, axis=0), 1e-10)


def test_exact_blocks_are_logged_by_name(caplog):
    model, x, y = fresh(SOME[1])
    with caplog.at_level("INFO", logger="deel_influence.curvature.kronecker"):
        fit_kronecker(fisher_pass(model, x, y), "expand")
    assert re.search("exact block: .*layer_normalization.*gamma, .*beta", caplog.text)


def test_a_partial_last_batch_needs_no_second_trace():
    calls = []

    def loss(targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        calls.append(1)
        return tf.reduce_sum(tf.square(targets - outputs), axis=-1)

    model = BaseInfluenceModel(SOME[0].build(), loss_function=loss)
    x, y = random_data(model)
    passes = fisher_pass(model, x, y, size=3)
    passes.engine.prepare((x, y))
    calls.clear()
    correct_eigenvalues(passes, fit_kronecker(passes, "expand"))
    assert len(calls) == 2  # one for each pass
    correct_eigenvalues(passes, fit_kronecker(passes, "expand"))
    assert len(calls) == 2


def test_nan_is_reported_with_the_batch_that_gave_it():
    model = linear(lambda: layers.Dense(2), shape=(4,))
    x, y = random_data(model)
    x[5, 0] = np.nan
    with pytest.raises(NonFiniteError, match="batch 1 .*example 5"):
        fit_kronecker(fisher_pass(model, x, y), "expand")


def test_a_gradient_that_overflows_is_reported_with_its_batch():
    model = linear(lambda: layers.Dense(2), shape=(4,))
    x, y = random_data(model)
    y[5] = 1e200
    with pytest.raises(
        NonFiniteError, match=r"must be finite.*batch 1 \(counting from 0\), examples 3 to 5"
    ):
        fit_kronecker(fisher_pass(model, x, y, "empirical"), "expand")


def test_an_empty_dataset_is_refused():
    model = linear(lambda: layers.Dense(2), shape=(4,))
    x, y = random_data(model)
    with pytest.raises(EmptyDatasetError, match="`train_dataset`"):
        fit_kronecker(fisher_pass(model, x[:0], y[:0]), "expand")


def test_without_damping_the_inverse_is_the_pseudo_inverse():
    model = linear(lambda: layers.Dense(2), shape=(4,))
    x, y = random_data(model, n=3)  # fewer examples than inputs
    blocks = fit_kronecker(fisher_pass(model, x, y, "empirical"), "expand")
    curvature = EigenbasisCurvature(model.layout, blocks, np.zeros(1), model.dtype)
    expected = np.linalg.pinv(dense_block(blocks[0]), rcond=1e-12, hermitian=True)
    assert_close(curvature.solve(tf.eye(10, dtype=tf.float64)), expected, 1e-6)
