"""What the iterative strategies share that take a preconditioner."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..linalg.linear_operator import LinearOperator
from .iterative import IterativeIHVP
from .preconditioning import fit_preconditioner, restore_preconditioner


class PreconditionedIHVP(IterativeIHVP):
    """Base class of strategies that fit a preconditioner, once, and keep it on disk."""

    @property
    def preconditioner_name(self) -> str | None:
        """The name of the preconditioner, or None. May be overridden."""
        return self.config["preconditioner"]

    @property
    def preconditioner(self) -> LinearOperator | None:
        """Products with ``P⁻¹``, or None."""
        return self._preconditioner

    def _fit(self) -> None:
        self._preconditioner, self._kept = fit_preconditioner(
            self.preconditioner_name, self, self.config.get("preconditioner_rank")
        )

    def _state(self) -> dict[str, np.ndarray]:
        return {**super()._state(), **self._kept}

    def _restore(self, state: Mapping[str, np.ndarray]) -> None:
        super()._restore(state)
        own = super()._state()
        self._kept = {name: value for name, value in state.items() if name not in own}
        self._preconditioner = restore_preconditioner(self.preconditioner_name, self, self._kept)
