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
    Tried,
    decide,
    decide_many,
    keep_decided,
    record_conflicts,
    resolve_conflicts,
    resolve_matches,
    seen_hash,
    tried_decisions,
    withdraw_all_conflicts,
    withdraw_conflicts,
)
from apps.ledger.services.former_values import forget_former_values, keep_former_values
from apps.ledger.services.found_links import store_found_links
from apps.ledger.services.links import Stored, close_links, hold_links, refresh_links, store_links
from apps.ledger.services.loads import LoadPlan
from apps.ledger.services.plans import discard_plan, skip_others, store_changes, store_plan
from apps.ledger.services.receipts import forget_receipts, keep_receipt
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
from apps.ledger.services.revealing import ReasonMissing, may_reveal, reveal
from apps.ledger.services.settling import Refusal, settle, settle_load
from apps.ledger.services.work import WorkIdentity

__all__ = [
    "Choice",
    "ConflictClosed",
    "ConflictMoved",
    "Decision",
    "DecisionUnfit",
    "LoadPlan",
    "Maintained",
    "ReasonMissing",
    "Refusal",
    "RejectedRecord",
    "Stored",
    "Tried",
    "WorkIdentity",
    "close_links",
    "decide",
    "decide_many",
    "discard_plan",
    "dismiss_rejection",
    "edit_rejection",
    "forget_former_values",
    "forget_receipts",
    "forget_rule",
    "hold_links",
    "keep_decided",
    "keep_former_values",
    "keep_receipt",
    "maintain",
    "mark_replaying",
    "may_reveal",
    "note_passed",
    "record_conflicts",
    "record_rejections",
    "refresh_links",
    "reopen_replaying",
    "resolve_conflicts",
    "resolve_matches",
    "resolve_rejections",
    "reveal",
    "seen_hash",
    "settle",
    "settle_load",
    "skip_others",
    "store_changes",
    "store_found_links",
    "store_links",
    "store_plan",
    "tried_decisions",
    "withdraw_all_conflicts",
    "withdraw_conflicts",
]
