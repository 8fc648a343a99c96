"""Labels that are likely to be wrong: which they are, how many, and the data corrected."""

from typing import TYPE_CHECKING

from ..utils.on_demand import on_demand

if TYPE_CHECKING:
    from ..utils.digests import run_digest
    from .decisions import Decisions
    from .decisions_applied import apply_decisions
    from .held_out import CrossFit
    from .issues import LabelIssues
    from .refits import cross_fit
    from .suspicion import LabelSuspicion, find_label_issues

__all__ = [
    "CrossFit",
    "Decisions",
    "LabelIssues",
    "LabelSuspicion",
    "apply_decisions",
    "cross_fit",
    "find_label_issues",
    "run_digest",
]

__getattr__ = on_demand(
    __name__,
    CrossFit=".held_out",
    Decisions=".decisions",
    LabelIssues=".issues",
    LabelSuspicion=".suspicion",
    apply_decisions=".decisions_applied",
    cross_fit=".refits",
    find_label_issues=".suspicion",
    run_digest="..utils.digests",
)
