"""Each layer rule, and the fallback, against plain automatic differentiation in float64."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import LayerRuleWarning
from deel_influence.gradients import Basis, GradientEngine
from deel_influence.gradients.convolution import ConvolutionGeometry
from deel_influence.model import BaseInfluenceModel
from deel_influence.utils.kernels import Kernel
from tests.cases import FALLBACK_CASES, RULED_CASES, ModelCase
from tests.oracles import assert_close, gradient_rows

# The case of several recurrent layers has an LSTM too.
CASES = [
    pytest.param(case, id=case.id) for case in RULED_CASES + FALLBACK_CASES if case.id != "lstm"
]
pytestmark = pytest.mark.usefixtures("float64")
# Rounding of float64 over the few hundred additions of these models.
RTOL = 1e-10


class Prepared:
    """A case with the oracle's gradients and what the engine gives, computed in one kernel."""

    def __init__(self, case: ModelCase) -> None:
        keras_model = case.build()
        generator = np.random.default_rng(0)
        # Away from the symmetric initial state: zero biases and unit scales hide mistakes.
        for v in keras_model.trainable_variables:
            v.assign(v + 0.3 * generator.normal(size=v.shape))
        self.model = BaseInfluenceModel(keras_model, loss_function="mse")
        self.x, self.y = case.data(keras_model)
        self.engine = GradientEngine(self.model)
        expected = pytest.warns(LayerRuleWarning, match=case.warns) if case.warns else nullcontext()
        with expected:
            self.engine.prepare((self.x, self.y))
        self.rows = gradient_rows(self.model, self.x, self.y)
        self.vectors = generator.normal(size=(3, self.model.nb_params))
        self.weights = generator.normal(size=(2, len(self.x)))
        self.matrix_shapes: list = []
        self.results = Kernel(self._all_operations)((self.x, self.y), (self.x[:3], self.y[:3]))

    def _all_operations(self, batch, other):
        gradients = self.engine.gradients(batch)
        self.matrix_shapes = [(p.parts, p.block.matrix_shape) for p in gradients.blocks]
        # Norms first: they must not lean on rows that another operation has built.
        return {
            "squared_norms": gradients.squared_norms(),
            "inner": gradients.inner(self.engine.gradients(other)),
            "dot": gradients.dot(tf.constant(self.vectors)),
            "weighted_sum": gradients.weighted_sum(tf.constant(self.weights)),
            # A single direction has ways of its own.
            "one_dot": gradients.dot(tf.constant(self.vectors[:1])),
            "one_sum": gradients.weighted_sum(tf.constant(self.weights[0])),
            "rows": gradients.materialize(),
        }


@pytest.fixture(scope="module")
def prepared_cases() -> dict[str, Prepared]:
    return {}


@pytest.fixture
def prepared(request, prepared_cases):
    case = request.param
    if case.id not in prepared_cases:
        prepared_cases[case.id] = Prepared(case)
    return prepared_cases[case.id]


every_case = pytest.mark.parametrize("prepared", CASES, indirect=True)


@every_case
def test_materialized_gradients_equal_plain_autodiff(prepared):
    assert_close(prepared.results["rows"], prepared.rows, RTOL)


@every_case
def test_squared_norms_equal_those_of_the_rows(prepared):
    assert_close(prepared.results["squared_norms"], np.sum(prepared.rows**2, axis=1), RTOL)


@every_case
def test_inner_products_with_another_batch_equal_the_products_of_rows(prepared):
    assert_close(prepared.results["inner"], prepared.rows @ prepared.rows[:3].T, RTOL)


@every_case
def test_dot_with_vectors_equals_the_products_of_rows(prepared):
    expected = prepared.rows @ prepared.vectors.T
    assert_close(prepared.results["dot"], expected, RTOL)
    assert_close(prepared.results["one_dot"], expected[:, :1], RTOL)


@every_case
def test_weighted_sums_equal_the_sums_of_rows(prepared):
    expected = prepared.weights @ prepared.rows
    assert_close(prepared.results["weighted_sum"], expected, RTOL)
    assert_close(prepared.results["one_sum"], expected[0], RTOL)


@every_case
def test_the_rules_serve_exactly_the_variables_that_they_should(prepared, request):
    case = request.node.callspec.params["prepared"]
    paths = [v.path for v in prepared.engine.fallback_variables]
    expected = [
        v.path for v in prepared.model.weights if any(part in v.path for part in case.fallback)
    ]
    assert paths == expected


@pytest.mark.parametrize(
    "prepared", [case for case in CASES if case.id == "gru-and-bidirectional"], indirect=True
)
def test_recurrent_layers_are_vectorised_even_where_tensorflow_cannot_vectorise_their_loop(
    prepared,
):
    assert prepared.engine.plan.fallback_mode != "sequential"
    assert not any(getattr(layer, "unroll", False) for layer in prepared.model.layers)


# Rows from automatic differentiation are turned alike, whatever layer they are of, and so are
# convolutions that differ in strides, padding or dilation alone.
TURNED_ALIKE = (
    "gru-and-bidirectional",
    "conv2d-strides",
    "conv2d-same-strides",
    "conv2d-same-no-bias",
    "conv2d-dilation",
    "conv2d-dilation-same",
    "conv2d-groups-same-strides-no-bias",
    "depthwise1d-no-bias",
    "separable1d-strides",
)


@pytest.mark.parametrize(
    "prepared", [case for case in CASES if case.id not in TURNED_ALIKE], indirect=True
)
def test_rotation_is_a_change_of_basis_of_each_gradient_matrix(prepared):
    """Against the definition ``leftᵀ G right`` on the materialised rows of each block."""
    generator = np.random.default_rng(4)
    bases, scales, expected, norms = [], [], [], 0.0
    for parts, shape in prepared.matrix_shapes:
        slots = [prepared.model.layout.slots[part] for part in parts]
        rows = np.concatenate([prepared.rows[:, a:b] for a, b in slots], axis=1)
        if shape is None:
            left, right = generator.normal(size=(rows.shape[1], 3)), None
            turned, scale = rows @ left, generator.uniform(size=3)
        else:
            r, s = shape
            left, right = generator.normal(size=(r, 2)), generator.normal(size=(s, 3))
            turned = np.einsum("bij,ik,jl->bkl", rows.reshape(-1, r, s), left, right)
            scale = generator.uniform(size=(2, 3))
        turned = turned.reshape(len(rows), -1)
        bases.append(Basis(tf.constant(left), None if right is None else tf.constant(right)))
        scales.append(tf.constant(scale))
        expected.append(turned)
        norms = norms + (turned**2 * scale.ravel()).sum(axis=1)
    kernel = Kernel(
        lambda batch: (
            prepared.engine.gradients(batch).project(bases),
            prepared.engine.gradients(batch).rotate(bases).scaled_squared_norms(scales),
        )
    )
    projected, scaled = kernel((prepared.x, prepared.y))
    assert_close(projected, np.concatenate(expected, axis=1), RTOL)
    assert_close(scaled, norms, RTOL)


@pytest.mark.parametrize("watched", ["kernel", "bias"])
@pytest.mark.parametrize(
    "case_id", ["dense", "conv2d", "depthwise2d", "separable2d-dilated", "dense-on-sequence"]
)
def test_part_of_a_layer_can_be_watched_alone(case_id, watched):
    case = next(c for c in RULED_CASES if c.id == case_id)
    keras_model = case.build()
    weights = [v for v in keras_model.trainable_variables if watched in v.path]
    model = BaseInfluenceModel(keras_model, weights, loss_function="mse")
    x, y = case.data(keras_model)
    engine = GradientEngine(model)
    engine.prepare((x, y))
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())((x, y))
    assert not engine.fallback_variables
    assert_close(rows, gradient_rows(model, x, y), RTOL)


def test_weights_may_be_listed_in_any_order():
    case = RULED_CASES[0]
    keras_model = case.build()
    weights = keras_model.trainable_variables[::-1]
    model = BaseInfluenceModel(keras_model, weights, loss_function="mse")
    x, y = case.data(keras_model)
    engine = GradientEngine(model)
    engine.prepare((x, y))
    rows = engine.kernel("rows", lambda b: engine.gradients(b).materialize())((x, y))
    assert_close(rows, gradient_rows(model, x, y), RTOL)


def test_rules_give_no_warning_for_models_that_they_serve():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Prepared(RULED_CASES[0])


@pytest.mark.parametrize(
    "case", [case for case in RULED_CASES if "conv" in case.id], ids=lambda case: case.id
)
def test_cases_called_sliding_take_that_path(case, monkeypatch):
    """Keeps the cases of `ConvolutionGeometry.slid` from passing by another way."""
    taken = []
    slid = ConvolutionGeometry.slid
    monkeypatch.setattr(
        ConvolutionGeometry, "slid", lambda self, *a: taken.append(1) or slid(self, *a)
    )
    keras_model = case.build()
    model = BaseInfluenceModel(keras_model, loss_function="mse")
    GradientEngine(model).plan.gradients(case.data(keras_model)).squared_norms()
    assert bool(taken) == ("sliding" in case.id)
