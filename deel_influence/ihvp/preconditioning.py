"""Preconditioners by name, fitted for a strategy, and kept with it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ..linalg.estimation import hutchinson_diagonal
from ..linalg.linear_operator import LinearOperator
from ..linalg.low_rank import LowRank
from ..linalg.nystrom import nystrom
from ..linalg.preconditioners import JacobiPreconditioner, NystromPreconditioner
from .base import InverseHessianVectorProduct
from .damping import damping_vector
from .ekfac import EKFACIHVP
from .operator import OperatorIHVP

PRECONDITIONERS = ("jacobi", "nystrom", "ekfac")

DEFAULT_RANK = 64

SMALLEST_SHARE = 1e-3
"""What an estimate of the diagonal leaves below this share of its mean is raised to it."""

Fitted = tuple[LinearOperator | None, dict[str, np.ndarray]]


class StrategyOperator(LinearOperator):
    """``v ↦ H⁻¹ v`` of a strategy.

    Parameters
    ----------
    strategy
        Any whose solves are cheap.
    """

    def __init__(self, strategy: InverseHessianVectorProduct) -> None:
        super().__init__(strategy.model.nb_params, strategy.model.dtype)
        self._strategy = strategy
        self._run = tf.function(
            strategy.solve, input_signature=[tf.TensorSpec((None, self.size), self.dtype)]
        )

    def _apply(self, vectors: tf.Tensor) -> tf.Tensor:
        return self._run(vectors)


def check_preconditioner(name: Any) -> str | None:
    """Return the name of a preconditioner, or None.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name is None or name in PRECONDITIONERS:
        return name
    message = (
        f"Argument `preconditioner` must be None or one of {PRECONDITIONERS}. Received: {name!r}."
    )
    raise ValueError(message)


def fit_preconditioner(name: str | None, strategy: OperatorIHVP, rank: int | None) -> Fitted:
    """Return products with ``P⁻¹``, and the arrays that `restore_preconditioner` takes.

    Parameters
    ----------
    name
        As `check_preconditioner` returns it.
    strategy
        Whose H is to be approximated.
    rank
        The rank of the Nyström sketch, the number of probes of the Jacobi estimate; None takes
        `DEFAULT_RANK`.
    """
    rank = DEFAULT_RANK if rank is None else rank
    if name is None:
        return None, {}
    seed = strategy.config.get("seed") or 0
    if name == "jacobi":
        diagonal = hutchinson_diagonal(strategy.undamped_operator, rank, seed=seed)
        kept = {"jacobi": diagonal.numpy()}
    elif name == "nystrom":
        sketch = nystrom(
            strategy.undamped_operator, min(rank, strategy.model.nb_params), seed=seed
        ).low_rank
        kept = {"nystrom_vectors": sketch.vectors.numpy(), "nystrom_values": sketch.values}
    else:
        fitted = EKFACIHVP(strategy.model, strategy.train_dataset, **_ekfac_config(strategy))
        kept = {f"ekfac_{key}": value for key, value in fitted.state().items()}
    return restore_preconditioner(name, strategy, kept), kept


def restore_preconditioner(
    name: str | None, strategy: OperatorIHVP, kept: Mapping[str, np.ndarray]
) -> LinearOperator | None:
    """Return products with ``P⁻¹`` from the arrays of a fit."""
    if name is None:
        return None
    damping = damping_vector(strategy.damping_values, strategy.model.layout)
    if name == "jacobi":
        diagonal = kept["jacobi"] + damping
        floor = SMALLEST_SHARE * np.abs(diagonal).mean()
        raised = np.maximum(diagonal, floor)
        return JacobiPreconditioner(tf.constant(raised, strategy.model.dtype))
    if name == "nystrom":
        vectors = tf.constant(kept["nystrom_vectors"])
        sketch = LowRank(vectors, kept["nystrom_values"])
        return NystromPreconditioner(sketch, float(damping.mean()))
    state = {key.removeprefix("ekfac_"): value for key, value in kept.items()}
    config = _ekfac_config(strategy)
    return StrategyOperator(EKFACIHVP.restored(strategy.model, None, config, state))


def _ekfac_config(strategy: OperatorIHVP) -> dict[str, Any]:
    """Return the settings with which EKFAC approximates the strategy's H."""
    return {
        "damping": strategy.damping_values.tolist(),
        "fisher": "empirical" if strategy.curvature == "empirical_fisher" else "true",
        "n_samples_for_hessian": strategy.config.get("n_samples_for_hessian"),
        "seed": strategy.config.get("seed"),
    }
