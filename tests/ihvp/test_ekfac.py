"""The strategy with corrected eigenvalues, and its low-rank queries, in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.curvature.kronecker_basis import EigenbasisCurvature, EigenBlock
from deel_influence.curvature.kronecker_low_rank import chosen_ranks, truncated
from deel_influence.curvature.sampling import summed_gradients
from deel_influence.errors import CurvatureWarning
from deel_influence.ihvp.ekfac import EKFACIHVP
from deel_influence.ihvp.kfac import KFACIHVP
from deel_influence.influence.first_order import FirstOrderInfluenceCalculator
from deel_influence.model.influence_model import BaseInfluenceModel
from deel_influence.utils.kernels import Kernel
from tests.ihvp.kronecker_oracle import (
    CASES,
    arrays_of,
    auto_damping_of,
    dense_curvature_of,
    problem,
    small_classifier,
)
from tests.oracles import assert_close, gradient_rows, relative_error

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
# Vectors, positions, and a layer that is called twice.
OF_EACH_KIND = [
    case for case in CASES if case.id in ("dense", "conv2d-strides", "shared-convolution")
]


# How a Fisher matrix is gathered is tested with the curvature; products are the same for each.
@pytest.mark.parametrize(
    ("case", "fisher"),
    [*((case, "true") for case in CASES), (CASES[2], "empirical")],
    ids=lambda value: getattr(value, "id", value),
)
def test_products_equal_those_of_the_assembled_matrix(case, fisher):
    model, dataset, _ = problem(case)
    ihvp = EKFACIHVP(model, dataset, fisher=fisher, seed=0, verbose=0)
    dense = dense_curvature_of(ihvp, auto_damping_of(ihvp))
    vectors = np.random.default_rng(1).normal(size=(5, model.nb_params))
    assert_close(ihvp.multiply(vectors), vectors @ dense, 1e-10)
    assert_close(ihvp.multiply(ihvp.solve(vectors)), vectors, 1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_scores_without_the_gradient_matrix_equal_those_with_it(case):
    model, dataset, queries = problem(case)
    ihvp = EKFACIHVP(model, dataset, damping=0.1, seed=0, verbose=0)
    inverse = np.linalg.inv(dense_curvature_of(ihvp, np.full(model.nb_params, 0.1)))
    rows, of_queries = (gradient_rows(model, *arrays_of(d)) for d in (dataset, queries))
    calculator = FirstOrderInfluenceCalculator(model, dataset, ihvp)
    matrix = calculator.influence_matrix(queries, dataset, verbose=0)
    assert_close(matrix, of_queries @ inverse @ rows.T, 1e-8)
    values = np.concatenate([v for _, v in calculator.compute_influence_values(dataset)])
    assert_close(values, np.einsum("ip,pq,iq->i", rows, inverse, rows), 1e-8)
    own = calculator.influence_matrix(dataset, dataset, verbose=0)
    assert_close(values, np.diag(own), 1e-8)


@pytest.mark.parametrize("case", OF_EACH_KIND, ids=lambda case: case.id)
def test_products_within_an_example_equal_those_of_its_rows(case):
    """``g_ikᵀ H⁻¹ g_il`` of sets that were sent back through one forward pass, by block."""
    model, dataset, _ = problem(case)
    ihvp = EKFACIHVP(model, dataset, damping=0.1, seed=0, verbose=0)
    batch = next(iter(dataset))

    def grams(examples):
        sets = summed_gradients(ihvp.engine, examples)
        return ihvp.gram(sets), tf.stack([part.materialize() for part in sets], axis=1)

    found, rows = ihvp.engine.kernel("grams", grams)(batch)
    inverse = np.linalg.inv(dense_curvature_of(ihvp, np.full(model.nb_params, 0.1)))
    assert_close(found, np.einsum("bkp,pq,blq->bkl", rows, inverse, rows), 1e-8)


def test_only_the_diagonal_of_a_large_embedding_is_kept_and_scores_stay_exact():
    parts = [layers.Embedding(300, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    keras_model = keras.Sequential([keras.Input((6,), dtype="int32"), *parts])
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    generator = np.random.default_rng(0)
    # Few indices, so that one example looks up the same row more than once.
    data = generator.integers(0, 5, (7, 6)), generator.normal(size=(7, 2))
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(3)
    with pytest.warns(CurvatureWarning, match="more than 1024 parameters.*embeddings"):
        ihvp = EKFACIHVP(model, dataset, damping=0.1, fisher="empirical", verbose=0)
    rows = gradient_rows(model, *data)
    dense = dense_curvature_of(ihvp, np.full(model.nb_params, 0.1))
    assert_close(np.diag(dense)[:1200], np.mean(rows[:, :1200] ** 2, axis=0) + 0.1, 1e-10)
    gradients = ihvp.engine.gradients(data)
    expected = np.einsum("ip,pq,iq->i", rows, np.linalg.inv(dense), rows)
    assert_close(ihvp.self_influence(gradients), expected, 1e-9)


@pytest.mark.parametrize("case", OF_EACH_KIND, ids=lambda case: case.id)
def test_a_query_rank_that_saves_nothing_changes_nothing(case):
    model, dataset, _ = problem(case)
    whole, kept = (
        EKFACIHVP(model, dataset, seed=0, query_rank=rank, verbose=0) for rank in (None, 40)
    )
    gradients = whole.engine.gradients(next(iter(dataset)))
    factors = kept.query_factors(gradients)
    assert_close(
        kept.scores(factors, gradients),
        whole.scores(whole.query_factors(gradients), gradients),
        1e-12,
    )
    assert kept.query_truncation_error(dataset) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("case", "rank"),
    [*((case, 2) for case in CASES), *((case, 1) for case in OF_EACH_KIND)],
    ids=lambda value: getattr(value, "id", value),
)
def test_low_rank_queries_score_as_their_truncated_matrices_do(case, rank):
    model, dataset, queries = problem(case)
    ihvp = EKFACIHVP(model, dataset, seed=0, query_rank=rank, verbose=0)
    exact = ihvp.compute_ihvp(queries).numpy()
    kernel = Kernel(lambda b: ihvp.query_factors(ihvp.engine.gradients(b)))
    factors = tf.concat([kernel(batch) for batch in queries], axis=0)
    kept = ihvp.products(factors, tf.eye(model.nb_params, dtype=tf.float64)).numpy()
    expected = truncated_by_svd(ihvp, exact, chosen_ranks(ihvp.curvature, rank))
    # The random range finder comes close to the best matrices of that rank.
    assert relative_error(kept, exact) <= 1.05 * relative_error(expected, exact) + 1e-9
    error = pytest.approx(relative_error(kept, exact), rel=1e-6, abs=1e-12)
    assert ihvp.query_truncation_error(queries) == error
    rows = gradient_rows(model, *arrays_of(dataset))
    calculator = FirstOrderInfluenceCalculator(model, dataset, ihvp)
    matrix = calculator.influence_matrix(queries, dataset, verbose=0)
    assert_close(matrix, kept @ rows.T, 1e-9)


def truncated_by_svd(
    ihvp: EKFACIHVP, vectors: np.ndarray, ranks: tuple[int | None, ...]
) -> np.ndarray:
    """Cut the matrices of layers to their best forms of some ranks; None leaves a layer."""
    result = vectors.copy()
    for block, rank in zip(ihvp.curvature.blocks, ranks, strict=True):
        if rank is None:
            continue
        slots = [ihvp.model.layout.slots[part] for part in block.parts]
        entries = np.concatenate([np.arange(*slot) for slot in slots])
        matrices = vectors[:, entries].reshape(-1, *block.values.shape)
        u, s, v = np.linalg.svd(matrices, full_matrices=False)
        best = (u[:, :, :rank] * s[:, None, :rank]) @ v[:, :rank]
        result[:, entries] = best.reshape(len(vectors), -1)
    return result


def curvature_of(*values: np.ndarray, is_outer: bool = True) -> EigenbasisCurvature:
    """Return a curvature with those eigenvalues and a damping of one."""
    blocks = [
        EigenBlock((i,), v, *(np.eye(n) for n in v.shape), is_outer) for i, v in enumerate(values)
    ]
    return EigenbasisCurvature(None, blocks, np.ones(len(values)), tf.float64)


def test_ranks_are_lowered_where_that_loses_nothing():
    generator = np.random.default_rng(0)
    rough = generator.uniform(1, 2, size=(40, 30))
    product = np.outer(generator.uniform(1, 2, 40), generator.uniform(1, 2, 30))
    smooth = product / (product.max() * 1e6)  # W is then of rank one but for rounding
    assert chosen_ranks(curvature_of(rough, smooth), 8)[1] == 1
    assert chosen_ranks(curvature_of(smooth), 8) == (1,)
    assert chosen_ranks(curvature_of(rough), 20) == (None,)
    assert chosen_ranks(curvature_of(smooth, is_outer=False), 8) == (8,)


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_the_chosen_ranks_foresee_at_most_a_tenth_more_error(rank):
    generator = np.random.default_rng(0)
    values = [np.exp(generator.normal(size=(40, 30))), 9 * generator.uniform(size=(35, 25)) ** 9]
    sizes = [np.sqrt(v) / (v + 1) for v in values]
    tails = [np.cumsum(np.linalg.svd(w, compute_uv=False)[::-1] ** 2)[::-1] for w in sizes]
    ranks = chosen_ranks(curvature_of(*values), rank)
    assert max(ranks) <= rank
    losses = [
        sum(tail[k] for tail, k in zip(tails, chosen, strict=True))
        for chosen in (ranks, (rank, rank))
    ]
    assert losses[1] <= losses[0] <= 1.1**2 * losses[1]


@pytest.mark.parametrize("shape", [(9, 6), (6, 9)])
def test_truncation_is_exact_for_matrices_of_that_rank(shape):
    generator = np.random.default_rng(0)
    matrices = generator.normal(size=(5, shape[0], 2)) @ generator.normal(size=(5, 2, shape[1]))
    left, right = truncated(tf.constant(matrices), 2, (0, 0))
    assert left.shape == (5, 2, shape[0])
    assert right.shape == (5, 2, shape[1])
    assert_close(tf.matmul(left, right, transpose_a=True), matrices, 1e-10)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_matrices_whose_squares_leave_the_range_of_floats_are_truncated(scale):
    generator = np.random.default_rng(0)
    factors = generator.normal(size=(3, 6, 2)), generator.normal(size=(3, 2, 4))
    matrices = (np.matmul(*factors) * scale).astype("float32")
    left, right = truncated(tf.constant(matrices), 2, (0, 0))
    product = np.matmul(np.swapaxes(left, 1, 2), right)
    np.testing.assert_allclose(product / scale, matrices / scale, atol=1e-5)


def test_truncation_of_zero_is_zero():
    left, right = truncated(tf.zeros((2, 5, 4), tf.float64), 2, (0, 0))
    assert_close(tf.matmul(left, right, transpose_a=True), np.zeros((2, 5, 4)), 0)


def test_the_truncation_is_fixed_by_the_seed_whatever_the_batch():
    model, dataset = small_classifier()
    ihvp = EKFACIHVP(model, dataset, seed=0, query_rank=1, verbose=0)
    x, y = arrays_of(dataset)
    both = ihvp.query_factors(ihvp.engine.gradients((x[:8], y[:8])))
    single = ihvp.query_factors(ihvp.engine.gradients((x[:1], y[:1])))
    assert_close(single, both[:1], 1e-9)


def test_whole_queries_lose_nothing():
    model, dataset = small_classifier()
    assert EKFACIHVP(model, dataset, seed=0, verbose=0).query_truncation_error(dataset) == 0


def test_eigenvectors_are_those_of_kfac_and_eigenvalues_differ():
    model, dataset = small_classifier()
    kfac, ekfac = (
        strategy(model, dataset, seed=0, verbose=0).curvature for strategy in (KFACIHVP, EKFACIHVP)
    )
    for one, other in zip(kfac.blocks, ekfac.blocks, strict=True):
        assert_close(one.left, other.left, 0)
        assert relative_error(one.values, other.values) > 1e-3


def test_a_saved_fit_is_loaded_as_it_was(tmp_path):
    model, dataset = small_classifier()
    ihvp = EKFACIHVP(model, dataset, seed=0, query_rank=1, damping=[0.1, 0.2], verbose=0)
    loaded = EKFACIHVP.load(ihvp.save(tmp_path / "fit"), model)
    assert loaded.get_config() == ihvp.get_config()
    gradients = ihvp.engine.gradients(next(iter(dataset)))
    factors = [strategy.query_factors(gradients) for strategy in (ihvp, loaded)]
    assert_close(factors[0], factors[1], 0)


def test_float32_models_score_as_float64_ones_do():
    model, dataset = small_classifier()
    keras.config.set_dtype_policy("float32")
    parts = [layers.Dense(5, "tanh", name="hidden"), layers.Dense(3, name="head")]
    single = keras.Sequential([keras.Input((4,), dtype="float32"), *parts])
    single.set_weights(model.model.get_weights())
    small = BaseInfluenceModel(single, loss_function=model.loss_function.loss)
    batch = next(iter(dataset))
    results = []
    for wrapped in (model, small):
        ihvp = EKFACIHVP(wrapped, dataset, fisher="empirical", verbose=0)
        results.append(ihvp.self_influence(ihvp.engine.gradients(batch)))
    assert results[1].dtype == tf.float32
    assert_close(results[1], results[0], 1e-4)


def test_without_a_seed_that_of_keras_fixes_the_draw_and_copies_repeat_it():
    model, dataset, _ = problem(CASES[0])
    vectors = np.random.default_rng(1).normal(size=(2, model.nb_params))
    products = []
    for seed in (3, 3, 4):
        keras.utils.set_random_seed(seed)
        ihvp = EKFACIHVP(model, dataset, verbose=0)
        products.append(ihvp.multiply(vectors).numpy())
    np.testing.assert_array_equal(products[0], products[1])
    assert relative_error(products[2], products[0]) > 1e-3
    assert_close(ihvp.with_dataset(dataset).multiply(vectors), products[2], 1e-12)
