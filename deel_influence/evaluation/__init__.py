"""How good are the answers? Comparisons with a known truth."""

from .mislabel import average_precision, detection_curve, recall_at_budget, roc_auc

__all__ = ["average_precision", "detection_curve", "recall_at_budget", "roc_auc"]
