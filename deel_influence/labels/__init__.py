"""Labels that are to be decided about: the decisions, and the data that come of them."""

from typing import TYPE_CHECKING

from ..utils.on_demand import on_demand

if TYPE_CHECKING:
    from ..utils.digests import run_digest
    from .decisions import Decisions
    from .decisions_applied import apply_decisions

__all__ = ["Decisions", "apply_decisions", "run_digest"]

__getattr__ = on_demand(
    __name__,
    Decisions=".decisions",
    apply_decisions=".decisions_applied",
    run_digest="..utils.digests",
)
