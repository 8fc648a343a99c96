"""Losses without curvature, whose inverse would be that of nothing."""

from __future__ import annotations

import warnings

from ..errors import CurvatureWarning, NoCurvatureError


def check_curved(largest: float, owner: str, is_damped: bool) -> None:
    """Refuse a curvature that is zero, or warn where something else keeps H invertible.

    Parameters
    ----------
    largest
        The largest absolute eigenvalue of the curvature of the losses, or the trace of a positive
        semi-definite one.
    owner
        What the curvature was computed for.
    is_damped
        Whether damping or a regulariser adds to it.

    Raises
    ------
    NoCurvatureError
        If it is zero, and nothing is added.

    Warns
    -----
    CurvatureWarning
        If it is zero, and something is added.
    """
    if largest > 0:
        return
    remedy = (
        "Use a loss that bends (Huber or log-cosh for the absolute error, squared hinge), a "
        "strategy of the gradients themselves (fisher='empirical', ihvp_calculator='datainf'), or "
        "ihvp_calculator='identity'."
    )
    received = (
        f"The curvature that {owner} inverts must not be zero. Received: a loss without curvature "
        "at any example, as the absolute error, the quantile loss and the hinge are but for their "
        "kinks"
    )
    if not is_damped:
        message = f"{received}, and nothing added to it: all scores would be 0. {remedy}"
        raise NoCurvatureError(message)
    message = (
        f"{received}. What is inverted is the damping, or the regulariser, alone: scores come in "
        f"the order that gradients give. {remedy}"
    )
    warnings.warn(message, CurvatureWarning, stacklevel=3)
