"""Reads of record memory; the scoped queryset of each model of this room."""

from apps.ledger.segments.reading import ChangeFilter, Keys
from apps.ledger.selectors.history import (
    applied_sample,
    change_by_id,
    change_counts,
    change_groups,
    change_id,
    change_page,
    changes_by_id,
    changes_of_field,
    field_sets_with,
    record_changes,
    run_changes,
    run_changes_backwards,
    run_keys,
)
from apps.ledger.selectors.inbox import (
    ConflictFilter,
    conflict_counts,
    conflict_page,
    decisions_for,
)
from apps.ledger.selectors.keys import key_candidates, key_hash
from apps.ledger.selectors.link_tables import (
    based_link_batches,
    bases_of,
    has_crossed_links,
    has_links,
    link_batches,
    link_count,
    link_floor,
    link_lookup,
    link_table,
    links_named,
    links_of_left,
    links_of_right,
)
from apps.ledger.selectors.linked import SegmentLinks
from apps.ledger.selectors.masking import masked, rule_masks
from apps.ledger.selectors.plans import PlannedChange, PlanReader, planned_changes
from apps.ledger.selectors.receipts import Receipts, receipts_of
from apps.ledger.selectors.rejected import open_rejection_keys, open_right_rejection_keys
from apps.ledger.selectors.scopes import changes, conflicts, links, rejections
from apps.ledger.selectors.subjects import copies_beyond_subjects, subject_side
from apps.ledger.selectors.unwritten import moved_changes, refused_changes

__all__ = [
    "ChangeFilter",
    "ConflictFilter",
    "Keys",
    "PlanReader",
    "PlannedChange",
    "Receipts",
    "SegmentLinks",
    "applied_sample",
    "based_link_batches",
    "bases_of",
    "change_by_id",
    "change_counts",
    "change_groups",
    "change_id",
    "change_page",
    "changes",
    "changes_by_id",
    "changes_of_field",
    "conflict_counts",
    "conflict_page",
    "conflicts",
    "copies_beyond_subjects",
    "decisions_for",
    "field_sets_with",
    "has_crossed_links",
    "has_links",
    "key_candidates",
    "key_hash",
    "link_batches",
    "link_count",
    "link_floor",
    "link_lookup",
    "link_table",
    "links",
    "links_named",
    "links_of_left",
    "links_of_right",
    "masked",
    "moved_changes",
    "open_rejection_keys",
    "open_right_rejection_keys",
    "planned_changes",
    "receipts_of",
    "record_changes",
    "refused_changes",
    "rejections",
    "rule_masks",
    "run_changes",
    "run_changes_backwards",
    "run_keys",
    "subject_side",
]
