"""What the strategies share that solve anew for each batch, and can fail to converge."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from ..errors import ConvergenceError, ConvergenceWarning
from ..linalg.checks import check_count, check_positive
from ..linalg.result import SolveResult
from ..model.influence_model import BaseInfluenceModel
from ..types import Data
from .operator import OperatorIHVP

ON_FAILURE = ("warn", "raise")

TOLERANCE = 1e-4
"""Where none is given. At condition numbers up to 100 scores then rank as exact ones do."""


class IterativeIHVP(OperatorIHVP):
    """Base class of strategies that go over the data for every batch of right-hand sides.

    How long they iterate: where ``n_opt_iters`` is given and ``tolerance`` is not, all these steps
    are taken. Otherwise a right-hand side stops where its relative residual reaches the tolerance,
    after ``n_opt_iters`` steps at the latest. Residuals above the tolerance are reported either
    way.

    To be implemented by subclasses: `_iterate`, `_remedy`, `default_steps` and, where there are
    mini-batches, `default_noise`.

    Attributes
    ----------
    last_result
        What the last solve returned: steps, residuals and convergence of each right-hand side.
    """

    traceable: ClassVar[bool] = False
    needs_data: ClassVar[bool] = True

    default_steps: ClassVar[int]
    """The bound on the steps where no number is given."""

    default_noise: ClassVar[float]
    """The tolerance where none is given with mini-batches, whose noise keeps residuals up."""

    last_result: SolveResult | None = None

    def __init__(
        self,
        model: BaseInfluenceModel,
        train_dataset: Data | None,
        config: Mapping[str, Any],
    ) -> None:
        if config["on_failure"] not in ON_FAILURE:
            message = (
                f"Argument `on_failure` must be one of {ON_FAILURE}. "
                f"Received: {config['on_failure']!r}."
            )
            raise ValueError(message)
        if config["tolerance"] is not None:
            check_positive("tolerance", config["tolerance"])
        if config["n_opt_iters"] is not None:
            check_count("n_opt_iters", config["n_opt_iters"])
        super().__init__(model, train_dataset, config)

    @property
    def num_steps(self) -> int:
        """The steps of a solve, or the bound on them."""
        given = self.config["n_opt_iters"]
        return self.default_steps if given is None else given

    @property
    def tolerance(self) -> float:
        """The relative residual at which a right-hand side has converged."""
        given = self.config["tolerance"]
        if given is not None:
            return given
        whole = self.config.get("batch_size") is None
        return TOLERANCE if whole else self.default_noise

    @property
    def takes_all_steps(self) -> bool:
        """Whether iterations go on past the tolerance."""
        return self.config["n_opt_iters"] is not None and self.config["tolerance"] is None

    @abstractmethod
    def _iterate(self, vectors: tf.Tensor) -> SolveResult:
        """Solve ``H x = v`` for every row v of vectors ``(k, p)``."""

    @abstractmethod
    def _remedy(self, result: SolveResult) -> str:
        """Say what to change where a solve did not converge, in a sentence."""

    def _krylov_settings(self) -> dict[str, Any]:
        """Return the arguments of conjugate gradients that say how long they iterate."""
        return {
            "tolerance": self.tolerance,
            "max_steps": self.num_steps,
            "all_steps": self.takes_all_steps,
        }

    def _series_settings(self) -> dict[str, Any]:
        """Return the arguments that all Neumann series take."""
        return {
            "damping": self.damping_or_vector,
            "num_steps": self.num_steps,
            "num_repeats": self.config["num_repeats"],
            "tolerance": self.tolerance,
            "all_steps": self.takes_all_steps,
            "full_operator": self.undamped_operator,
            "seed": self.config["seed"],
        }

    def solve_with_report(self, vectors: tf.Tensor) -> SolveResult:
        """Solve for every row of ``vectors`` ``(k, p)``, and return how far it can be trusted.

        Unlike `solve` it neither warns nor raises where a right-hand side does not converge.
        """
        self.check_unchanged()  # frozen features are those of the fit
        self.last_result = self._iterate(self._checked(vectors))
        return self.last_result

    def _solve(self, vectors: tf.Tensor) -> tf.Tensor:
        result = self.solve_with_report(vectors)
        if not result.all_converged:
            self._report(result)
        return result.solution

    def _report(self, result: SolveResult) -> None:
        failed = ~result.converged
        message = (
            f"{type(self).__name__}: {int(failed.sum())} of {len(failed)} right-hand sides did "
            f"not converge: {result.reason}. Their relative residuals reach "
            f"{np.max(result.residual_norm[failed]):.2g} after {int(result.num_steps.max())} "
            f"steps, where {self.tolerance:g} was asked for. {self._remedy(result)}"
        )
        if self.config["on_failure"] == "raise":
            raise ConvergenceError(message)
        warnings.warn(message, ConvergenceWarning, stacklevel=4)
