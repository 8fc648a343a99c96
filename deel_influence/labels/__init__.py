"""Labels that are likely to be wrong: which they are, how many, and the data corrected."""

from typing import TYPE_CHECKING

from ..utils.on_demand import on_demand

if TYPE_CHECKING:
    from ..utils.digests import run_digest
    from ..utils.label_sets import LabelSets
    from .decisions import Decisions
    from .decisions_applied import apply_decisions
    from .exports import (
        argilla_records,
        cleanlab_columns,
        label_studio_config,
        label_studio_tasks,
        read_argilla,
        read_label_studio,
        set_fiftyone_fields,
        write_projector,
    )
    from .held_out import CrossFit
    from .issues import LabelIssues
    from .refits import cross_fit
    from .suspicion import LabelSuspicion, find_label_issues

__all__ = [
    "CrossFit",
    "Decisions",
    "LabelIssues",
    "LabelSets",
    "LabelSuspicion",
    "apply_decisions",
    "argilla_records",
    "cleanlab_columns",
    "cross_fit",
    "find_label_issues",
    "label_studio_config",
    "label_studio_tasks",
    "read_argilla",
    "read_label_studio",
    "run_digest",
    "set_fiftyone_fields",
    "write_projector",
]

__getattr__ = on_demand(
    __name__,
    CrossFit=".held_out",
    Decisions=".decisions",
    LabelIssues=".issues",
    LabelSets="..utils.label_sets",
    LabelSuspicion=".suspicion",
    apply_decisions=".decisions_applied",
    argilla_records=".exports",
    cleanlab_columns=".exports",
    cross_fit=".refits",
    find_label_issues=".suspicion",
    label_studio_config=".exports",
    label_studio_tasks=".exports",
    read_argilla=".exports",
    read_label_studio=".exports",
    run_digest="..utils.digests",
    set_fiftyone_fields=".exports",
    write_projector=".exports",
)
