"""Reads of record memory; the scoped queryset of each model of this room."""

from apps.ledger.segments.reading import ChangeFilter
from apps.ledger.selectors.history import (
    applied_sample,
    change_by_id,
    change_counts,
    change_groups,
    change_id,
    change_page,
    changes_of_field,
    field_sets_with,
    record_changes,
    run_changes,
    stale_left_keys,
)
from apps.ledger.selectors.inbox import (
    ConflictFilter,
    conflict_counts,
    conflict_page,
    decisions_for,
)
from apps.ledger.selectors.keys import key_candidates, key_hash
from apps.ledger.selectors.link_tables import (
    bases_of,
    has_crossed_links,
    has_links,
    link_batches,
    link_count,
    link_lookup,
    link_table,
    links_of_left,
    links_of_right,
)
from apps.ledger.selectors.plans import PlannedChange, PlanReader, planned_changes
from apps.ledger.selectors.rejected import open_rejection_keys
from apps.ledger.selectors.scopes import changes, conflicts, links, rejections

__all__ = [
    "ChangeFilter",
    "ConflictFilter",
    "PlanReader",
    "PlannedChange",
    "applied_sample",
    "bases_of",
    "change_by_id",
    "change_counts",
    "change_groups",
    "change_id",
    "change_page",
    "changes",
    "changes_of_field",
    "conflict_counts",
    "conflict_page",
    "conflicts",
    "decisions_for",
    "field_sets_with",
    "has_crossed_links",
    "has_links",
    "key_candidates",
    "key_hash",
    "link_batches",
    "link_count",
    "link_lookup",
    "link_table",
    "links",
    "links_of_left",
    "links_of_right",
    "open_rejection_keys",
    "planned_changes",
    "record_changes",
    "rejections",
    "run_changes",
    "stale_left_keys",
]
