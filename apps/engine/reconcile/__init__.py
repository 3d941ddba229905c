"""Two-way reconciliation: three-way, field by field, in bounded memory (decision 3)."""

from apps.engine.reconcile.merging import IN_DOUBT
from apps.engine.reconcile.outputs import CHANGES, CONFLICTS, REFRESHES
from apps.engine.reconcile.plain import BASE, DECISIONS, Reconciled, reconcile
from apps.engine.reconcile.programs import (
    TwoWayPrograms,
    backward_mapping,
    compile_two_way,
)
from apps.engine.reconcile.reconciler import Reconciler
from apps.engine.reconcile.summary import ReconcileSummary, SideCounts

__all__ = [
    "BASE",
    "CHANGES",
    "CONFLICTS",
    "DECISIONS",
    "IN_DOUBT",
    "REFRESHES",
    "ReconcileSummary",
    "Reconciled",
    "Reconciler",
    "SideCounts",
    "TwoWayPrograms",
    "backward_mapping",
    "compile_two_way",
    "reconcile",
]
