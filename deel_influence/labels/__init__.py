"""Labels that are likely to be wrong: which they are, how many, and why."""

from .issues import LabelIssues
from .refits import CrossFit, cross_fit
from .suspicion import LabelSuspicion, find_label_issues

__all__ = [
    "CrossFit",
    "LabelIssues",
    "LabelSuspicion",
    "cross_fit",
    "find_label_issues",
]
