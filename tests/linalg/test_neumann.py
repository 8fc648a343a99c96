"""LiSSA and preconditioned Neumann series against dense solves, and how they fail."""

from __future__ import annotations

import re
from itertools import cycle, islice

import numpy as np
import pytest
import tensorflow as tf

from deel_influence.errors import NonFiniteError
from deel_influence.linalg.linear_operator import DenseOperator, DiagonalOperator, IdentityOperator
from deel_influence.linalg.lissa import lissa
from deel_influence.linalg.neumann import preconditioned_neumann
from tests.linalg.spectra import CountingOperator, damped_solution, matrix_with, rows
from tests.oracles import assert_close, relative_error

P, K, DAMPING = 24, 5, 0.3
MATRIX = matrix_with(np.geomspace(0.01, 8.0, P))
RHS = rows(K, P)
IDENTITY = IdentityOperator(P, tf.float64)


@pytest.mark.parametrize("scale", [None, 5.0, 10.0, 50.0])
@pytest.mark.parametrize("damping", [0.1, np.linspace(0.1, 1.0, P)], ids=["number", "vector"])
def test_lissa_solves_the_damped_system_whatever_the_scale(scale, damping):
    result = lissa(
        DenseOperator(MATRIX), RHS, damping=damping, scale=scale, num_steps=20_000, tolerance=1e-9
    )
    assert result.all_converged
    assert result.reason == ""
    assert_close(result.solution, damped_solution(MATRIX, RHS, damping), 1e-7)


def test_damping_times_scale_is_another_system():
    result = lissa(
        DenseOperator(MATRIX), RHS, damping=DAMPING, scale=10.0, num_steps=5000, tolerance=1e-9
    )
    assert relative_error(result.solution, damped_solution(MATRIX, RHS, 10 * DAMPING)) > 0.3


def test_each_row_stops_for_itself_and_takes_no_more_products():
    vectors = np.linalg.eigh(MATRIX)[1]
    operator = CountingOperator(MATRIX)
    rhs = np.stack([vectors[:, 0], vectors[:, -1], np.zeros(P)])
    result = lissa(operator, rhs, damping=DAMPING, scale=9.0, num_steps=1000, tolerance=1e-6)
    assert result.all_converged
    assert result.num_steps[2] < result.num_steps[1] < result.num_steps[0] < 1000
    assert operator.sizes[0] == 3
    assert operator.sizes[-2:] == [1, 3]
    assert_close(result.solution, damped_solution(MATRIX, rhs, DAMPING), 1e-5)


def test_the_residual_is_measured_and_the_tolerance_decides():
    result = lissa(DenseOperator(MATRIX), RHS, damping=DAMPING, num_steps=12, tolerance=1e-6)
    system = MATRIX + DAMPING * np.eye(P)
    expected = np.linalg.norm(RHS - result.solution @ system, axis=1) / np.linalg.norm(RHS, axis=1)
    assert_close(result.residual_norm, expected, 1e-10)
    assert not result.converged.any()
    assert result.reason == "the relative residual is above 1e-06 after 12 steps"
    np.testing.assert_array_equal(result.num_steps, [12] * K)


def test_a_zero_right_hand_side_gives_zero():
    result = lissa(DenseOperator(MATRIX), np.zeros((2, P)), damping=DAMPING)
    assert result.all_converged
    np.testing.assert_array_equal(result.solution, np.zeros((2, P)))
    np.testing.assert_array_equal(result.residual_norm, [0, 0])


def test_no_right_hand_side_gives_no_solution():
    result = lissa(DenseOperator(MATRIX), np.zeros((0, P)), damping=DAMPING)
    assert result.solution.shape == (0, P)
    assert result.all_converged


def test_the_zero_operator_divides_by_the_damping():
    result = lissa(DiagonalOperator(np.zeros(P)), RHS, damping=DAMPING, tolerance=1e-9)
    assert_close(result.solution, RHS / DAMPING, 1e-8)


def test_without_curvature_and_damping_there_is_no_solution_and_no_nan():
    result = lissa(DiagonalOperator(np.zeros(P)), RHS, damping=0.0, num_steps=5)
    assert not result.converged.any()
    assert np.isfinite(result.solution).all()


@pytest.mark.parametrize(("scale", "num_steps"), [(0.01, 10), (1.0, 10), (3.9, 2000)])
def test_too_small_a_scale_reports_divergence_instead_of_numbers(scale, num_steps):
    result = lissa(DenseOperator(MATRIX), RHS, damping=DAMPING, scale=scale, num_steps=num_steps)
    assert not result.converged.any()
    np.testing.assert_array_equal(result.solution, np.zeros((K, P)))
    np.testing.assert_array_equal(result.residual_norm, np.ones(K))
    assert f"scale={scale:.3g}" in result.reason
    assert "above half of the largest eigenvalue" in result.reason
    # 1.1 times the largest eigenvalue, which is damped.
    assert "up to 9.13" in result.reason


def test_divergence_is_seen_long_before_the_last_step():
    result = lissa(DenseOperator(MATRIX), RHS, damping=DAMPING, scale=1.0, num_steps=100_000)
    assert result.num_steps.max() < 20


def test_negative_curvature_beyond_the_damping_is_named():
    indefinite = matrix_with(np.linspace(-1.0, 8.0, P))
    result = lissa(DenseOperator(indefinite), RHS, damping=DAMPING, num_steps=1000, seed=0)
    assert not result.converged.any()
    assert re.search(r"smallest must be above 0 \(estimated at -0\.\d+\)", result.reason)
    np.testing.assert_array_equal(result.solution, np.zeros((K, P)))


def test_rows_that_diverge_do_not_touch_those_that_converge():
    diagonal = np.array([1.0] * (P - 1) + [100.0])
    rhs = np.eye(P)[[0, P - 1]]
    result = lissa(DiagonalOperator(diagonal), rhs, damping=0.0, scale=2.0, num_steps=500)
    np.testing.assert_array_equal(result.converged, [True, False])
    assert_close(result.solution[0], rhs[0], 1e-3)
    np.testing.assert_array_equal(result.solution[1], np.zeros(P))


def test_float32_overflow_ends_in_a_report_and_not_in_nan():
    operator = DenseOperator((1e18 * MATRIX).astype("float32"))
    result = lissa(operator, RHS, damping=DAMPING, scale=1.0, num_steps=3)
    assert not result.converged.any()
    assert np.isfinite(result.solution).all()
    assert np.isfinite(result.residual_norm).all()


def test_float32_solves_to_single_precision():
    result = lissa(DenseOperator(MATRIX.astype("float32")), RHS, damping=DAMPING, tolerance=1e-4)
    assert result.all_converged
    assert result.solution.dtype == tf.float32
    assert_close(result.solution, damped_solution(MATRIX, RHS, DAMPING), 1e-3)


class MiniBatches:
    """Gauss-Newton matrices of mini-batches of a linear model with features ``(n, P)``."""

    def __init__(self, n: int = 200, size: int = 40, seed: int = 0) -> None:
        self._size = size
        self._generator = np.random.default_rng(seed)
        self._features = self._generator.normal(size=(n, P)) * np.geomspace(1.5, 0.3, P)
        self.matrix = self._features.T @ self._features / n
        self.full = DenseOperator(self.matrix)

    def __iter__(self):
        while True:
            batch = self._features[self._generator.choice(len(self._features), self._size, False)]
            yield DenseOperator(batch.T @ batch / self._size)


def stochastic_error(num_repeats: int, num_steps: int = 100) -> float:
    batches = MiniBatches()
    result = lissa(
        batches,
        RHS,
        damping=DAMPING,
        num_steps=num_steps,
        num_repeats=num_repeats,
        full_operator=batches.full,
        seed=0,
    )
    np.testing.assert_array_equal(result.num_steps, [num_steps * num_repeats] * K)
    return relative_error(result.solution, damped_solution(batches.matrix, RHS, DAMPING))


def test_the_noise_of_mini_batches_averages_out_over_repeats():
    errors = [stochastic_error(repeats) for repeats in (1, 16)]
    assert errors[0] < 0.5
    # The standard error falls to a quarter; half leaves room for chance.
    assert errors[1] < errors[0] / 2


def test_mini_batches_have_the_full_residual_and_no_early_stop():
    batches = MiniBatches()
    result = lissa(
        batches, RHS, damping=DAMPING, num_steps=60, tolerance=0.9, full_operator=batches.full
    )
    system = batches.matrix + DAMPING * np.eye(P)
    expected = np.linalg.norm(RHS - result.solution @ system, axis=1) / np.linalg.norm(RHS, axis=1)
    assert_close(result.residual_norm, expected, 1e-10)
    np.testing.assert_array_equal(result.num_steps, [60] * K)


def test_the_estimated_scale_holds_for_mini_batches_that_exceed_the_mean():
    batches = MiniBatches(size=2)
    result = lissa(batches, RHS, damping=DAMPING, num_steps=400, full_operator=batches.full, seed=0)
    assert "grew" not in result.reason
    assert np.isfinite(result.solution).all()


def test_mini_batches_that_exceed_the_scale_are_reported_as_divergence():
    batches = MiniBatches()
    result = lissa(
        batches, RHS, damping=DAMPING, scale=0.3, num_steps=500, full_operator=batches.full
    )
    assert not result.converged.any()
    assert "on any batch (estimated at up to" in result.reason
    np.testing.assert_array_equal(result.solution, np.zeros((K, P)))


def test_mini_batches_need_the_full_operator():
    with pytest.raises(ValueError, match=r"`full_operator` is needed .* Received: None"):
        lissa(iter(MiniBatches()), RHS, damping=DAMPING)


def test_operators_that_end_too_soon_are_refused_and_just_enough_are_not():
    operators = [DenseOperator(MATRIX)] * 9
    settings = {"damping": DAMPING, "full_operator": operators[0], "scale": 10.0}
    assert lissa(operators, RHS, num_steps=10, **settings).num_steps[0] == 10
    with pytest.raises(ValueError, match=r"an operator for every step.*itertools.cycle"):
        lissa(operators, RHS, num_steps=11, **settings)


def test_the_reason_needs_no_more_operators_than_there_are():
    operators = [DenseOperator(MATRIX)] * 9
    result = lissa(
        operators, RHS, damping=DAMPING, scale=0.1, num_steps=10, full_operator=operators[0]
    )
    assert "estimated at up to" in result.reason


def test_the_first_preconditioned_step_is_the_preconditioners_own_answer():
    inverse = matrix_with(np.linspace(0.1, 0.2, P), seed=3)
    result = preconditioned_neumann(
        DenseOperator(MATRIX), RHS, DenseOperator(inverse), damping=DAMPING, num_steps=1
    )
    assert_close(result.solution, RHS @ inverse, 1e-14)


def test_a_good_preconditioner_needs_few_steps():
    near = np.linalg.inv(MATRIX * 1.2 + 1.1 * DAMPING * np.eye(P))
    settings = {"damping": DAMPING, "tolerance": 1e-8, "num_steps": 2000}
    fast = preconditioned_neumann(DenseOperator(MATRIX), RHS, DenseOperator(near), **settings)
    plain = lissa(DenseOperator(MATRIX), RHS, **settings)
    assert fast.all_converged
    assert_close(fast.solution, damped_solution(MATRIX, RHS, DAMPING), 1e-7)
    assert 10 * fast.num_steps.max() < plain.num_steps.min()


def test_the_damping_of_the_preconditioner_does_not_change_the_solution():
    far = np.linalg.inv(MATRIX + 5 * np.eye(P))
    result = preconditioned_neumann(
        DenseOperator(MATRIX),
        RHS,
        DenseOperator(far),
        damping=DAMPING,
        tolerance=1e-8,
        num_steps=2000,
    )
    assert_close(result.solution, damped_solution(MATRIX, RHS, DAMPING), 1e-6)


def test_lissa_is_the_case_of_the_identity_over_scale():
    settings = {"damping": DAMPING, "num_steps": 30, "tolerance": 1e-9}
    special = lissa(DenseOperator(MATRIX), RHS, scale=10.0, **settings)
    general = preconditioned_neumann(
        DenseOperator(MATRIX), RHS, 0.1 * IDENTITY, learning_rate=1.0, **settings
    )
    assert_close(special.solution, general.solution, 1e-14)


def test_a_learning_rate_of_none_is_lowered_to_where_the_iteration_converges():
    # Jacobi's preconditioner is an underestimate where the entries beside the diagonal are large.
    matrix = np.ones((P, P)) + 0.1 * np.eye(P)
    jacobi = DiagonalOperator(1 / np.diag(matrix + DAMPING * np.eye(P)))
    settings = {"damping": DAMPING, "num_steps": 3000}
    lowered = preconditioned_neumann(
        DenseOperator(matrix), RHS, jacobi, learning_rate=None, **settings
    )
    assert lowered.all_converged
    assert_close(lowered.solution, damped_solution(matrix, RHS, DAMPING), 1e-2)
    kept = preconditioned_neumann(DenseOperator(matrix), RHS, jacobi, **settings)
    assert not kept.converged.any()
    assert "learning_rate=1" in kept.reason
    assert "below 2 over the largest eigenvalue" in kept.reason


def test_a_learning_rate_of_none_stays_one_where_that_converges():
    exact = DenseOperator(np.linalg.inv(MATRIX + 2 * DAMPING * np.eye(P)))
    results = [
        preconditioned_neumann(
            DenseOperator(MATRIX), RHS, exact, damping=DAMPING, learning_rate=rate
        )
        for rate in (None, 1.0)
    ]
    np.testing.assert_array_equal(results[0].solution, results[1].solution)


def test_stochastic_preconditioned_steps_come_near_the_solution():
    batches = MiniBatches()
    inverse = DenseOperator(np.linalg.inv(batches.matrix + DAMPING * np.eye(P)))
    result = preconditioned_neumann(
        batches,
        RHS,
        inverse,
        damping=DAMPING,
        learning_rate=0.2,
        num_steps=60,
        num_repeats=4,
        full_operator=batches.full,
    )
    expected = damped_solution(batches.matrix, RHS, DAMPING)
    assert relative_error(result.solution, expected) < 0.2


def test_a_fixed_cycle_of_operators_is_allowed():
    halves = [DenseOperator(MATRIX * 0.9), DenseOperator(MATRIX * 1.1)]
    result = lissa(
        islice(cycle(halves), 999),
        RHS,
        damping=DAMPING,
        scale=10.0,
        full_operator=DenseOperator(MATRIX),
        tolerance=0.1,
    )
    assert result.all_converged


BAD = {
    "steps": ({"num_steps": 0}, r"`num_steps` must be a whole number >= 1"),
    "tolerance": ({"tolerance": 0.0}, r"`tolerance` must be a finite number > 0"),
    "scale": ({"scale": -1.0}, r"`scale` must be a finite number > 0. Received: scale=-1"),
}


@pytest.mark.parametrize(("settings", "message"), BAD.values(), ids=BAD)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        lissa(DenseOperator(MATRIX), RHS, **{"damping": DAMPING, **settings})


def test_right_hand_sides_of_another_length_or_with_nan_are_refused():
    with pytest.raises(ValueError, match=r"`rhs` must have shape \(k, p\) with p = 24"):
        lissa(DenseOperator(MATRIX), RHS[:, 1:], damping=DAMPING)
    bad = RHS.copy()
    bad[3, 2] = np.nan
    with pytest.raises(NonFiniteError, match=r"`rhs` must be finite. .* first in row 3"):
        lissa(DenseOperator(MATRIX), bad, damping=DAMPING)
