"""Random projections, as linear maps and on the gradients of a model."""

from __future__ import annotations

import itertools
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_influence.gradients import GradientEngine
from deel_influence.gradients.blocks import OuterBlock
from deel_influence.gradients.projections import (
    FactGraSSProjection,
    GaussianProjection,
    IdentityProjection,
    LoGraProjection,
    MaskProjection,
    Projection,
    RademacherProjection,
    SJLTProjection,
    dense,
    resolve_projection,
    sparse,
)
from deel_influence.model import BaseInfluenceModel
from deel_influence.utils.kernels import Kernel
from tests.cases import RULED_CASES
from tests.gradients.projection_kinds import (
    KINDS,
    MAKERS,
    Make,
    batch,
    in_slices,
    matrix_of,
    prepared,
    two_layers,
)
from tests.oracles import assert_close

layers = keras.layers
pytestmark = pytest.mark.usefixtures("float64")
CHOSEN = ("conv2d-groups", "transformer", "shared-dense")
CASES = [case for case in RULED_CASES if case.id in CHOSEN]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_projected_gradients_are_the_map_applied_to_the_rows(case, monkeypatch):
    net = case.build()
    model, data = BaseInfluenceModel(net, loss_function="mse"), case.data(net)
    engine = GradientEngine.of(model)
    engine.prepare(data)
    monkeypatch.setattr(dense, "DRAWN_ENTRIES", 200)
    monkeypatch.setattr(sparse, "PIECE", 50)
    kinds = {name: make(model, seed=3) for name, make in MAKERS.items()}

    def project(batch) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        gradients = engine.gradients(batch)
        features = {name: kind.project(gradients) for name, kind in kinds.items()}
        for name in ("held", "drawn"):
            again = in_slices(MAKERS["gaussian"](model, seed=3), name == "held", monkeypatch)
            features[name] = again.project(gradients)
        return gradients.materialize(), features

    rows, features = Kernel(project)(data)
    held, drawn = features.pop("held"), features.pop("drawn")
    np.testing.assert_array_equal(held, drawn)
    assert_close(held, features["gaussian"], 1e-12)
    monkeypatch.undo()
    for name, kind in kinds.items():
        assert features[name].shape == (len(rows), kind.size)
        assert_close(features[name], kind.apply(rows), 1e-12)


@pytest.mark.parametrize("name", ["sjlt", "mask", "logra", "factgrass"])
def test_a_rule_that_is_set_aside_changes_no_feature(name):
    model = two_layers()
    engine, projection = prepared(model), MAKERS[name](model)
    before = projection.project(engine.gradients(batch()))
    engine.plan = engine.plan.without(model.model.layers[:1])
    assert engine.fallback_variables
    assert_close(projection.project(engine.gradients(batch())), before, 1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_pieces_of_a_dense_layer_are_columns_of_its_rows(bias):
    a, delta = np.random.default_rng(0).normal(size=(2, 3, 4))
    block = OuterBlock(tf.constant(a), tf.constant(delta[:, :3]), bias)
    piece, rows = block.in_pieces(), block.rows().numpy()
    for start, end in itertools.combinations(range(rows.shape[1] + 1), 2):
        np.testing.assert_array_equal(piece(start, end - start), rows[:, start:end].T)


@KINDS
def test_the_adjoint_is_the_transpose(make):
    projection = make(two_layers(), seed=1)
    coordinates = np.random.default_rng(0).normal(size=(3, projection.size))
    matrix = matrix_of(projection)
    assert matrix.shape == (projection.size, 42)
    assert_close(projection.adjoint(tf.constant(coordinates)), coordinates @ matrix, 1e-13)


def inner_products(make: Make, rows: np.ndarray, count: int = 40) -> np.ndarray:
    """Return the inner products of projected rows, for each of some seeds."""
    model = two_layers()
    features = [make(model, seed=seed).apply(tf.constant(rows)).numpy() for seed in range(count)]
    return np.array([values @ values.T for values in features])


@KINDS
def test_inner_products_are_unbiased_over_the_seeds(make):
    rows = np.random.default_rng(0).normal(size=(30, 42))
    gram = rows @ rows.T
    products = inner_products(make, rows)
    slopes = np.sum(products * gram, axis=(1, 2)) / np.sum(gram**2)
    # Five standard errors of the mean, against luck; the whole maps' slopes are exactly one.
    error = slopes.std() / np.sqrt(len(slopes))
    assert abs(slopes.mean() - 1) < 5 * error + 1e-12
    assert error < 0.05


@pytest.mark.parametrize("make", [GaussianProjection, RademacherProjection, SJLTProjection])
def test_inner_products_vary_as_theory_says(make):
    k = 20
    rows = np.random.default_rng(0).normal(size=(30, 42))
    gram = rows @ rows.T
    found = inner_products(partial(make, projection_dim=k), rows).var(axis=0, ddof=1)
    expected = (np.outer(np.diag(gram), np.diag(gram)) + gram**2) / k
    if make is not GaussianProjection:
        expected -= 2 * (rows**2 @ rows.T**2) / k
    # 435 variances of 40 values, each off by √(2/39), a quarter.
    pairs = np.triu_indices(30, 1)
    assert 0.9 < found[pairs].sum() / expected[pairs].sum() < 1.1


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sjlt"])
def test_distances_are_kept_as_by_johnson_and_lindenstrauss(name):
    model, k, n = two_layers(300), 512, 20
    points = np.random.default_rng(0).normal(size=(n, model.nb_params))
    features = resolve_projection(name, k, 0, model).apply(tf.constant(points)).numpy()
    first, second = np.triu_indices(n, 1)
    before = np.sum((points[first] - points[second]) ** 2, axis=1)
    after = np.sum((features[first] - features[second]) ** 2, axis=1)
    # P(|after/before - 1| > ε) ≤ 2 exp(-k ε²/8); a union bound over the pairs at one in a thousand.
    assert np.max(np.abs(after / before - 1)) < np.sqrt(8 * np.log(2000 * len(first)) / k)


@KINDS
def test_a_seed_gives_one_map_on_every_device_and_another_seed_another(make):
    model = two_layers()
    with tf.device("/CPU:1"):
        elsewhere = matrix_of(make(model, seed=5))
    assert_close(elsewhere, matrix_of(make(model, seed=5)), 1e-14)
    other = make(model, seed=6)
    assert not np.allclose(matrix_of(other), elsewhere)


PINNED = {
    "gaussian": [-12.187085, 78.739491, -35.636386],
    "rademacher": [-230.362757, -80.251687, 57.157677],
    "sjlt": [42.0, -195.0, -18.0],
    "mask": [18.708287, 123.474694, 149.666295],
    "logra": [-1.22485840, 0.0535356516, 0.209341340],
    "factgrass": [8.21583836, -10.9544512, 2.73861279],
}


@pytest.mark.parametrize("name", PINNED)
def test_a_seed_gives_the_same_map_in_every_process(name):
    found = matrix_of(resolve_projection(name, 3, 11, two_layers())) @ np.arange(42.0)
    np.testing.assert_allclose(found[:3], PINNED[name], rtol=1e-5)


@pytest.mark.parametrize("name", ["gaussian", "sjlt", "mask", "logra", "factgrass"])
def test_features_do_not_depend_on_the_batch(name):
    model, (x, y) = two_layers(), batch()
    engine, projection = prepared(model), MAKERS[name](model)
    kernel = Kernel(lambda batch: projection.project(engine.gradients(batch)))
    whole = kernel((x, y))
    parts = [kernel((x[rows], y[rows])) for rows in (slice(0, 4), slice(4, None))]
    assert kernel.num_traces == 1
    assert_close(tf.concat(parts, axis=0), whole, 1e-13)


@pytest.mark.parametrize(
    ("make", "built"),
    [(partial(LoGraProjection, projection_dim=(2, 1)), [2, 2]), (MAKERS["factgrass"], [])],
)
def test_no_gradient_row_of_a_dense_layer_is_built(make, built, monkeypatch):
    model = two_layers()
    engine = prepared(model)
    sizes, build = [], OuterBlock._build_rows

    def watched(self: OuterBlock) -> tf.Tensor:
        sizes.append(np.prod(self.matrix_shape))
        return build(self)

    monkeypatch.setattr(OuterBlock, "_build_rows", watched)
    make(model).project(engine.gradients(batch()))
    assert sizes == built


def test_logra_is_a_kronecker_product_for_each_layer():
    projection = LoGraProjection(two_layers(), (3, 2))
    matrix = matrix_of(projection)
    np.testing.assert_array_equal(projection.layer_of_feature, [0] * 6 + [1] * 6)
    assert not matrix[:6, 30:].any()
    assert not matrix[6:, :30].any()
    # As columns (k_i·r, k_o·s) a Kronecker product has rank one.
    block = matrix[:6, :30].reshape(3, 2, 6, 5).transpose(0, 2, 1, 3).reshape(18, 10)
    assert np.linalg.matrix_rank(block) == 1
    assert_close(matrix[:6] @ matrix[:6].T, np.eye(6) * (6 / 3) * (5 / 2), 1e-12)
    # The second layer has two outputs, which stay as they are.
    assert_close(matrix[6:] @ matrix[6:].T, np.eye(6) * (6 / 3), 1e-12)


def test_factgrass_adds_signed_entries_of_the_outer_product_of_masked_factors():
    model = two_layers()
    projection = FactGraSSProjection(model, 5, mask_dim=(4, 3))
    np.testing.assert_array_equal(projection.layer_of_feature, [0] * 5 + [1] * 5)
    inputs, outputs, *first, rows = (t.numpy() for t in projection.tensors[:5])
    second = [t.numpy() for t in projection.tensors[5:]]
    blocks = prepared(model).gradients(batch()).blocks
    features = []
    kept = ((inputs, outputs, *first), (rows, np.arange(2), *second))
    for (rows, columns, order, signs), placed in zip(kept, blocks, strict=True):
        a, delta = placed.block.inputs.numpy(), placed.block.deltas.numpy()
        scale = np.sqrt(a.shape[1] / len(rows) * delta.shape[1] / len(columns))
        entries = np.einsum("bi,bj->bij", a[:, rows], delta[:, columns]).reshape(len(a), -1)
        # Of 12 and of 8 entries each is a term of one of the 5 features, which have 3 or 2 at most.
        matrix = np.zeros((entries.shape[1], 5))
        for place, (entry, sign) in enumerate(zip(order, signs, strict=True)):
            matrix[entry, place % 5] += sign
        assert (np.abs(matrix).sum(axis=1) == 1).all()
        assert np.ptp(np.abs(matrix).sum(axis=0)) == 1
        features.append(scale * entries @ matrix)
    found = projection.project(prepared(model).gradients(batch()))
    assert_close(found, np.concatenate(features, axis=1), 1e-13)
    again = resolve_projection(projection.get_config(), None, 0, model)
    assert_close(matrix_of(again), matrix_of(projection), 1e-15)


def test_logra_serves_variables_in_any_order_and_apart_from_each_other():
    net = two_layers().model
    hidden, last = net.layers
    watched = [last.bias, last.kernel, hidden.kernel]
    model = BaseInfluenceModel(net, watched, "mse")
    projection = LoGraProjection(model, (3, 1))
    gradients = prepared(model).gradients(batch())
    assert projection.size == 2 + 3 + 3
    assert_close(projection.project(gradients), projection.apply(gradients.materialize()), 1e-13)


def test_a_long_vector_goes_through_signs_under_logra():
    net = keras.Sequential([keras.Input((3, 20)), layers.LayerNormalization(), layers.Dense(1)])
    projection = LoGraProjection(BaseInfluenceModel(net, loss_function="mse"), (3, 2))
    matrix = matrix_of(projection)
    assert matrix.shape == (6 + 6 + 3, 20 + 20 + 21)
    assert set(np.unique(matrix[:12])) == {-1.0, 0.0, 1.0}
    assert (np.count_nonzero(matrix[:12, :40], axis=0) == 1).all()


def test_sjlt_has_its_entries_in_different_stretches_of_each_column():
    matrix = matrix_of(SJLTProjection(two_layers(), 7, nonzeros=3))
    for rows in (slice(0, 2), slice(2, 4), slice(4, 7)):
        assert (np.count_nonzero(matrix[rows], axis=0) == 1).all()
    assert_close(np.sum(matrix**2, axis=0), np.ones(42), 1e-14)


def test_a_mask_keeps_entries_and_tells_their_layers():
    projection = MaskProjection(two_layers(), 12, seed=2)
    matrix = matrix_of(projection)
    places = np.argmax(matrix, axis=1)
    assert (np.diff(places) > 0).all()
    assert_close(matrix @ matrix.T, np.eye(12) * 42 / 12, 1e-14)
    np.testing.assert_array_equal(projection.layer_of_feature, places >= 30)


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sjlt", "mask", "logra"])
def test_a_projection_is_made_by_name_and_again_by_its_settings(name):
    model = two_layers()
    projection = resolve_projection(name, 4, 9, model)
    again = resolve_projection(projection.get_config(), None, 0, model)
    assert type(again) is type(projection)
    assert_close(matrix_of(again), matrix_of(projection), 1e-14)
    assert resolve_projection(projection, None, 0, model) is projection


@pytest.mark.parametrize("name", ["gaussian", "sjlt", "mask"])
def test_as_many_features_as_parameters_keep_the_gradients_as_they_are(name):
    model = two_layers()
    projection = resolve_projection(name, 42, 0, model)
    assert type(projection) is IdentityProjection
    assert_close(matrix_of(projection), np.eye(42), 1e-15)
    assert type(resolve_projection(name, None, 0, model)) is IdentityProjection
    whole = resolve_projection("logra", None, 0, model)
    assert_close(matrix_of(whole), np.eye(42), 1e-15)
    assert resolve_projection(None, 5, 0, model) is None


def test_a_projection_of_ones_own_needs_two_hooks():
    class FirstEntries(Projection):
        name = "first"

        @property
        def size(self) -> int:
            return int(self.projection_dim)

        def apply(self, vectors: tf.Tensor) -> tf.Tensor:
            return vectors[:, : self.size]

        def adjoint(self, coordinates: tf.Tensor) -> tf.Tensor:
            return tf.pad(coordinates, [[0, 0], [0, self.layout.size - self.size]])

    model = two_layers()
    gradients = prepared(model).gradients(batch())
    projection = resolve_projection(FirstEntries(model, 3), None, 0, model)
    assert_close(projection.project(gradients), gradients.materialize()[:, :3], 1e-15)
    assert isinstance(resolve_projection(projection.get_config(), None, 0, model), FirstEntries)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: resolve_projection("fourier", 4, 0, m), r"one of .*'sjlt'.*'fourier'"),
        (lambda m: resolve_projection({"name": "x"}, 4, 0, m), r"one of .* Received: 'x'"),
        (lambda m: resolve_projection("sjlt", 0, 0, m), r"`projection_dim` must be a whole"),
        (lambda m: resolve_projection("sjlt", 4, -1, m), r"`seed` must be a whole number >= 0"),
        (lambda m: resolve_projection("logra", (1, 2, 3), 0, m), r"a pair \(inputs, outputs\)"),
        (lambda m: SJLTProjection(m, 4, nonzeros=5), r"`nonzeros` must not exceed .*5 of 4"),
        (lambda m: MaskProjection(m, 43), r"number of watched parameters, 42. Received: 43"),
        (
            lambda m: resolve_projection(SJLTProjection(two_layers(6), 4), None, 0, m),
            r"the same shapes.*50 float64 parameters where the model watches 42",
        ),
    ],
)
def test_what_gives_no_projection_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(two_layers())
