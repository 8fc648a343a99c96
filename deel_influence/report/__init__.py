"""Triage of a training set, and the page that shows its most suspicious examples."""

from .contents import Curve, Table
from .page import write_report
from .triage import Triage, run_triage

__all__ = ["Curve", "Table", "Triage", "run_triage", "write_report"]
