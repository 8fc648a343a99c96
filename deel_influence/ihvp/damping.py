"""What is added to the curvature's diagonal: a number, a rule, or one number for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..model.parameters import ParameterLayout

AUTO = "auto"

AUTO_SHARE = 0.1
"""``damping="auto"`` is this share of the mean eigenvalue of the curvature (Grosse et al. 2023)."""

NEGATIVE_MARGIN = 1.1
"""An automatic damping exceeds the most negative eigenvalue by this factor."""

Damping = float | str | Sequence[float] | Mapping[str, float]


def check_damping(damping: Any, layout: ParameterLayout) -> float | str | tuple[float, ...]:
    """Return a damping as a number, ``"auto"``, or one number for each block of the layout.

    Parameters
    ----------
    damping
        A finite number of at least 0, ``"auto"``, one number for each layer in order, or a dict
        from layer names (paths, or their last parts) to numbers.
    layout
        The watched variables.

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(damping, str) and damping == AUTO:
        return AUTO
    if _is_valid(damping):
        return float(damping)
    names = [block.name for block in layout.blocks]
    if isinstance(damping, Mapping):
        by_end = {name.rpartition("/")[2]: name for name in names}
        by_path = {by_end.get(key, key): value for key, value in damping.items()}
        if set(by_path) == set(names):
            damping = [by_path[name] for name in names]
    listed = isinstance(damping, (Sequence, np.ndarray)) and not isinstance(damping, str)
    if listed and len(damping) == len(names) and all(_is_valid(value) for value in damping):
        return tuple(float(value) for value in damping)
    message = (
        'Argument `damping` must be a finite number >= 0, "auto", or one such number for each of '
        f"the {len(names)} watched layers {names}, as a list or a dict. Received: {damping!r}."
    )
    raise ValueError(message)


def resolve_damping(
    damping: float | str | tuple[float, ...],
    layout: ParameterLayout,
    automatic: Callable[[], float | Sequence[float] | np.ndarray],
) -> np.ndarray:
    """Return the damping of each block of the layout, float64, shape ``(blocks,)``.

    Parameters
    ----------
    damping
        As `check_damping` returns it.
    layout
        The watched variables.
    automatic
        Computes what ``"auto"`` means: a number, or one for each block.
    """
    values = automatic() if damping == AUTO else damping
    return np.broadcast_to(np.asarray(values, np.float64), (len(layout.blocks),)).copy()


def automatic_damping(mean: float, smallest: float = 0.0) -> float:
    """Return what ``"auto"`` means for a curvature of known mean and smallest eigenvalue."""
    return AUTO_SHARE * max(mean, 0.0) + NEGATIVE_MARGIN * max(-smallest, 0.0)


def damping_vector(values: np.ndarray, layout: ParameterLayout) -> np.ndarray:
    """Spread the damping of each block over its parameters, float64, shape ``(p,)``."""
    return np.repeat(values, [block.size for block in layout.blocks])


def _is_valid(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating))
    return number and not isinstance(value, bool) and bool(np.isfinite(value)) and value >= 0
