"""Two-way reconciliation: three-way, field by field, in bounded memory (decision 3)."""

from apps.engine.reconcile.outputs import CHANGES, CONFLICTS, REFRESHES
from apps.engine.reconcile.programs import (
    TwoWayPrograms,
    backward_mapping,
    compile_two_way,
)
from apps.engine.reconcile.reconciler import Reconciler
from apps.engine.reconcile.summary import ReconcileSummary, SideCounts

__all__ = [
    "CHANGES",
    "CONFLICTS",
    "REFRESHES",
    "ReconcileSummary",
    "Reconciler",
    "SideCounts",
    "TwoWayPrograms",
    "backward_mapping",
    "compile_two_way",
]
