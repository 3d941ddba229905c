"""Lanes: the cheapest way that is correct, and why it was chosen.

relay:     the source's bytes pass into an empty target untouched; the source casts.
stream:    records pass into an empty target through expressions and checks.
reconcile: both sides are compared.

Into an empty target whose platform has transactions, relay and stream *load*: one pass, one
transaction, nothing to be seen before the guards have judged the whole (`loading`).
"""

from __future__ import annotations

from apps.connectors.base import SEEN_KEYS
from apps.engine.spec import Approval, CheckKind, FieldMappingSpec
from apps.ledger.selectors import has_links
from apps.runs.models import Run
from apps.runs.services.context import RunContext


def choose_lane(context: RunContext, right_empty: bool, *, complete: bool) -> tuple[str, str]:
    """The lane of a run, and why it is that one."""
    if context.run.kind == Run.Kind.UNDO:
        return Run.Lane.RECONCILE, "earlier changes are taken back"
    is_first = complete and right_empty and not has_links(context.run.rule_id)
    if context.two_way is not None:
        return _two_way_lane(context, is_first=is_first)
    if is_first:
        return _first_lane(context)
    if complete:
        return Run.Lane.RECONCILE, "the target has records, so both sides are compared"
    return Run.Lane.RECONCILE, "only the changed records are compared"


def _two_way_lane(context: RunContext, *, is_first: bool) -> tuple[str, str]:
    if is_first and not why_no_load(context):
        return Run.Lane.STREAM, "the right side is empty, so there is nothing to merge yet"
    return Run.Lane.RECONCILE, "both sides are merged field by field"


def _first_lane(context: RunContext) -> tuple[str, str]:
    empty = "the target is empty, so there is nothing to compare with"
    why = why_no_load(context)
    if why:
        return Run.Lane.STREAM, f"{empty}; record by record, because {why}"
    why = why_no_relay(context)
    if why:
        return Run.Lane.STREAM, f"{empty}; through expressions, because {why}"
    return Run.Lane.RELAY, "the target is empty and every field is a copy"


def why_no_load(context: RunContext) -> str:
    """Why a first run cannot go in one pass into one transaction; empty where it can."""
    run, rule = context.run, context.rule
    if not context.right_connector.capabilities.load:
        return "the target cannot be loaded whole"
    if run.mode != Run.Mode.APPLY:
        return "nothing is to be written"
    if run.asks_approval or rule.approval in (Approval.ALWAYS, Approval.FIRST):
        return "the plan waits for approval"
    if any(check.kind is CheckKind.UNIQUE for check in rule.checks):
        return "a check compares all records"
    if not _key_is_copied(context):
        return "the target's key is not a copy of the source's"
    if not _key_is_unique(context):
        return "the target does not keep its key unique"
    if context.mapping.match:
        return "records are matched by their fields"
    return _why_assigned(context)


def _why_assigned(context: RunContext) -> str:
    for field in context.mapping.fields:
        schema = context.right_live.field(field.right)
        if schema.server_assigned and field.right not in context.mapping.key:
            return f"the target may assign '{field.right}'"
    return ""


def why_no_relay(context: RunContext) -> str:
    """Why the bytes cannot pass untouched, where the run can load; empty where they can."""
    if context.two_way is not None:
        return "both sides' records are remembered"
    if context.rule.approval is Approval.GUARD:
        return "somebody may have to look at the plan"
    if not context.left_connector.capabilities.exports:
        return "the source does not hand its records on as bytes"
    if context.rule.filter or context.rule.checks:
        return "there is a filter or a check"
    for name in context.mapping.left.key:
        if context.left.field(name).type.kind not in SEEN_KEYS:
            return f"the key '{name}' has to be read"
    for field in context.mapping.fields:
        why = _why_no_copy(context, field)
        if why:
            return why
    return ""


def _why_no_copy(context: RunContext, field: FieldMappingSpec) -> str:
    if not field.left or field.to_right or field.default is not None:
        return f"'{field.right}' is not a plain copy"
    left, right = context.left.field(field.left).type, context.right.field(field.right).type
    same = left.kind is right.kind and context.right_connector.capabilities.exact_load
    if not (same or right.holds(left)):
        return f"'{field.right}' does not hold every value of '{field.left}'"
    return ""


def _key_is_copied(context: RunContext) -> bool:
    """Whether the right key is exactly the left one, so that either is unique if the other is."""
    pairs = {field.right: field for field in context.mapping.fields}
    copies = [pairs.get(name) for name in context.mapping.key]
    plain = all(f is not None and f.left and not f.to_right and f.default is None for f in copies)
    lefts = tuple(field.left for field in copies if field is not None)
    if not plain or lefts != tuple(context.mapping.left.key) or not lefts:
        return False
    return all(
        context.left.field(left).type == context.right.field(right).type
        for left, right in zip(lefts, context.mapping.key, strict=True)
    )


def _key_is_unique(context: RunContext) -> bool:
    key = set(context.mapping.key)
    schema = context.right_live
    required = all(not schema.field(name).nullable for name in key)
    return required and any(set(names) == key for names in (schema.key, *schema.unique_keys))
