"""Writes to record memory: plans, outcomes, links, conflicts, rejections.

Callers hold a lease and wrap these in a transaction that checks its fencing token first.
"""

from apps.ledger.services.compaction import Maintained, maintain
from apps.ledger.services.conflicts import (
    Choice,
    ConflictClosed,
    ConflictMoved,
    Decision,
    DecisionUnfit,
    decide,
    decide_many,
    record_conflicts,
    resolve_conflicts,
    seen_hash,
    withdraw_all_conflicts,
    withdraw_conflicts,
)
from apps.ledger.services.links import Stored, close_links, hold_links, refresh_links, store_links
from apps.ledger.services.plans import discard_plan, skip_others, store_changes, store_plan
from apps.ledger.services.rejections import (
    RejectedRecord,
    dismiss_rejection,
    edit_rejection,
    mark_replaying,
    note_passed,
    record_rejections,
    reopen_replaying,
    resolve_rejections,
)
from apps.ledger.services.removal import forget_rule
from apps.ledger.services.settling import Refusal, settle
from apps.ledger.services.work import WorkIdentity

__all__ = [
    "Choice",
    "ConflictClosed",
    "ConflictMoved",
    "Decision",
    "DecisionUnfit",
    "Maintained",
    "Refusal",
    "RejectedRecord",
    "Stored",
    "WorkIdentity",
    "close_links",
    "decide",
    "decide_many",
    "discard_plan",
    "dismiss_rejection",
    "edit_rejection",
    "forget_rule",
    "hold_links",
    "maintain",
    "mark_replaying",
    "note_passed",
    "record_conflicts",
    "record_rejections",
    "refresh_links",
    "reopen_replaying",
    "resolve_conflicts",
    "resolve_rejections",
    "seen_hash",
    "settle",
    "skip_others",
    "store_changes",
    "store_links",
    "store_plan",
    "withdraw_all_conflicts",
    "withdraw_conflicts",
]
