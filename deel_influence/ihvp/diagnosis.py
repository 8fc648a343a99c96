"""What a look at the curvature found, as data and as text."""

from __future__ import annotations

from dataclasses import dataclass

from ..linalg.result import SolveResult
from ..utils.memory import human_bytes
from .costs import Cost

FAR_FROM_MINIMUM = 0.1
"""Share of the examples' gradient norm above which the mean gradient is worth a remark."""


@dataclass(frozen=True)
class StrategyTrial:
    """One strategy, fitted and compared with conjugate gradients.

    Attributes
    ----------
    relative_error
        ``‖x - x*‖ / ‖x*‖`` over all right-hand sides, x* being the reference.
    cosine
        The mean cosine between x and x*; scores that are only compared with each other need the
        direction alone.
    fit_seconds, solve_seconds
        The time of the fit and of the solve.
    """

    relative_error: float
    cosine: float
    fit_seconds: float
    solve_seconds: float


@dataclass(frozen=True, eq=False)
class CurvatureDiagnosis:
    """What `diagnose` found.

    Attributes
    ----------
    num_parameters, num_examples
        p and n.
    curvature
        The name of the curvature.
    gradient_norm
        ``‖∇J(θ)‖``, regularisers included; 0 at a minimum.
    example_gradient_norm
        The root mean square of ``‖∇ℓ(z_i)‖``, to compare it with.
    smallest_eigenvalue, largest_eigenvalue
        Of the undamped curvature, by Lanczos: bounds from inside.
    mean_eigenvalue
        Its trace over p, by Hutchinson's estimate.
    negative_share
        The estimated share of directions with negative curvature.
    recommended_damping
        What ``damping="auto"`` would take.
    damping
        The damping that conditions, costs and errors below refer to.
    condition_number
        That of the damped curvature; infinite if it is not positive definite.
    costs
        What each strategy is expected to cost for 64 right-hand sides, by name.
    trials
        How the strategies that were tried did, by name.
    reference
        The solve by conjugate gradients that they are compared with.
    """

    num_parameters: int
    num_examples: int
    curvature: str
    gradient_norm: float
    example_gradient_norm: float
    smallest_eigenvalue: float
    largest_eigenvalue: float
    mean_eigenvalue: float
    negative_share: float
    recommended_damping: float
    damping: float
    condition_number: float
    costs: dict[str, Cost]
    trials: dict[str, StrategyTrial]
    reference: SolveResult | None

    def __str__(self) -> str:
        """Return the findings as text for a terminal."""
        facts = [
            ("parameters, examples", f"{self.num_parameters:,}, {self.num_examples:,}"),
            (
                "norm of the mean gradient",
                f"{self.gradient_norm:.3g} (single examples: {self.example_gradient_norm:.3g})",
            ),
            (
                f"eigenvalues ({self.curvature})",
                f"{self.smallest_eigenvalue:.3g} to {self.largest_eigenvalue:.3g}, "
                f"mean {self.mean_eigenvalue:.3g}",
            ),
            ("negative curvature", f"{self.negative_share:.1%} of the directions"),
            ("recommended damping", f"{self.recommended_damping:.3g}"),
            (f"condition number at {self.damping:.3g}", f"{self.condition_number:.3g}"),
        ]
        lines = [f"{name:<32}{value}" for name, value in facts]
        lines += [
            "",
            _row("strategy", "fit*", "64 solves*", "memory", "error", "cosine", "seconds"),
        ]
        lines += [self._line(name, cost) for name, cost in self.costs.items()]
        lines += ["* expected, in passes of gradients over the training set"]
        return "\n".join([*lines, *self._remarks()])

    def _line(self, name: str, cost: Cost) -> str:
        trial = self.trials.get(name)
        tried = ("", "", "")
        if trial is not None:
            seconds = trial.fit_seconds + trial.solve_seconds
            tried = (f"{trial.relative_error:.2g}", f"{trial.cosine:.3f}", f"{seconds:.1f}")
        expected = f"{cost.fit_passes:.3g}", f"{cost.solve_passes:.3g}"
        return _row(name, *expected, human_bytes(cost.memory_bytes), *tried)

    def _remarks(self) -> list[str]:
        remarks = []
        if self.gradient_norm > FAR_FROM_MINIMUM * self.example_gradient_norm:
            remarks.append(
                "The weights are not near a minimum: influence refers to one. Train further, or "
                "read scores as local."
            )
        if self.negative_share > 0:
            remarks.append(
                'The curvature is indefinite: use damping="auto" or more, or '
                'curvature="gauss_newton".'
            )
        if self.reference is not None and not self.reference.all_converged:
            remarks.append(
                "The reference did not converge (relative residual "
                f"{self.reference.residual_norm.max():.2g}): take the errors with care."
            )
        return remarks


def _row(*cells: str) -> str:
    widths = (12, 10, 12, 12, 9, 9, 9)
    return "".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
