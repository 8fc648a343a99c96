"""What `diagnose` finds, against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest

from deel_influence.ihvp import IHVPCalculator, diagnose
from deel_influence.ihvp.costs import Problem, expected_costs
from tests.ihvp.problems import batches, convex, data, dense, skips
from tests.oracles import assert_close, gradient_rows

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("problem", [convex, skips])
def test_spectrum_gradient_and_damping_are_those_of_the_dense_matrix(problem):
    model = problem()
    found = diagnose(model, batches(), strategies=(), num_steps=200, verbose=0)
    eigenvalues = np.linalg.eigvalsh(dense(model, "hessian"))
    assert abs(found.smallest_eigenvalue - eigenvalues[0]) < 1e-6 * eigenvalues[-1]
    assert_close(found.largest_eigenvalue, eigenvalues[-1], 1e-6)
    assert abs(found.mean_eigenvalue - eigenvalues.mean()) < 0.3 * eigenvalues.std()
    assert abs(found.negative_share - (eigenvalues < 0).mean()) < 0.25
    assert (found.negative_share > 0) == (problem is skips)
    rows = gradient_rows(model, *data())
    gradient = rows.mean(axis=0) + model.regularization_gradient().numpy()
    assert_close(found.gradient_norm, np.linalg.norm(gradient), 1e-9)
    assert_close(found.example_gradient_norm, np.sqrt(np.mean(np.sum(rows**2, axis=1))), 1e-9)
    assert eigenvalues[0] + found.recommended_damping > 0
    damped = eigenvalues + found.damping
    assert_close(found.condition_number, damped[-1] / damped[0], 1e-5)


def test_errors_of_strategies_are_those_against_a_dense_solve():
    model = convex()
    names = ("exact", "nystrom", "ekfac", "identity")
    found = diagnose(model, batches(), strategies=names, damping=0.3, num_vectors=3, verbose=0)
    matrix = dense(model, "hessian") + 0.3 * np.eye(model.nb_params)
    vectors = gradient_rows(model, *(part[:3] for part in data()))
    expected = np.linalg.solve(matrix, vectors.T).T
    error = np.linalg.norm(vectors - expected) / np.linalg.norm(expected)
    assert_close(found.trials["identity"].relative_error, error, 1e-4)
    assert found.trials["exact"].relative_error < 1e-4
    assert found.trials["exact"].cosine > 0.999
    assert found.trials["exact"].relative_error < found.trials["ekfac"].relative_error
    assert found.reference.all_converged


def test_the_table_names_every_strategy_and_what_to_do(capsys):
    found = diagnose(skips(), batches(), strategies=("kfac",))
    text = capsys.readouterr().out
    assert text == f"{found}\n"
    for member in IHVPCalculator:
        assert f"\n{member.value.name} " in text
    assert "not near a minimum" in text
    assert 'damping="auto"' in text


def test_costs_are_known_for_every_strategy_and_grow_with_the_problem():
    small, large = (Problem(100 * s, 50 * s, 3, 10.0 * s, 2.0, 1000 * s) for s in (1, 10))
    cheap, dear = expected_costs(small), expected_costs(large)
    assert set(cheap) == {member.value.name for member in IHVPCalculator}
    for name, cost in cheap.items():
        assert cost.memory_bytes < dear[name].memory_bytes
        assert cost.fit_passes <= dear[name].fit_passes
        assert cost.solve_passes <= dear[name].solve_passes


def test_an_unknown_strategy_is_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match="`ihvp_calculator` must be one of"):
        diagnose(convex(), batches(), strategies=("magic",))
