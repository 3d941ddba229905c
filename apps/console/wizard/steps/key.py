"""Which fields identify a record, and by which unlinked ones find each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest

from apps.console.wizard import draft as drafts
from apps.console.wizard.steps.common import Context, Problems, both_datasets
from apps.engine.spec import FieldMappingSpec, MatchFieldSpec
from apps.mappings.admin.matching import MOST_MATCH_FIELDS, match_lines, posted_match
from apps.mappings.services import (
    suggest,
)
from apps.rules.models import SyncDraft
from apps.rules.services import save_draft
from apps.sources.models import Dataset

MOST_KEY_FIELDS = 4


def show_key(request: HttpRequest, draft: SyncDraft) -> Context:
    left, right = both_datasets(request, draft)
    if request.method == "POST":
        pairs = posted_pairs(request)
        match = posted_match(request.POST, right.schema().field_names)
        partners = posted_partners(request)
    else:
        pairs = draft.data.get("key_pairs") or _proposed_pairs(left, right, request.user)
        match = tuple(drafts.draft_match(draft))
        partners = {field.right: field.left for field in drafts.draft_fields(draft)}
    lines = [*pairs, *[["", ""]] * (MOST_KEY_FIELDS - len(pairs))]
    return {
        "left": left,
        "right": right,
        "lines": list(enumerate(lines)),
        "left_names": left.schema().field_names,
        "right_names": right.schema().field_names,
        "match_lines": match_lines(match, partners),
        "may_save": True,
        "both_ways": drafts.is_two_way(draft),
    }


def keep_key(request: HttpRequest, draft: SyncDraft) -> Problems:
    pairs = posted_pairs(request)
    if not pairs:
        return ["Choose at least one right field that identifies a record."]
    if len({right for _, right in pairs}) < len(pairs):
        return ["A right field stands in two lines: each may be part of the key once."]
    right = both_datasets(request, draft)[1].schema()
    assigned = {field.name for field in right.fields if field.server_assigned or field.has_default}
    one_way = not drafts.is_two_way(draft)
    alone = [name for left, name in pairs if not left and (one_way or name not in assigned)]
    if alone:
        why = "left to right goes by the key" if one_way else "the right side does not assign it"
        return [f"Choose the left field of '{alone[0]}': {why}."]
    match = posted_match(request.POST, right.field_names)
    if match and one_way:
        return ["Match fields are for syncs both ways (step 1): left to right goes by the key."]
    chosen = {name: left for left, name in pairs if left}
    kept = {field.right: field for field in drafts.draft_fields(draft)}
    for spec in match:
        partner = posted_partners(request).get(spec.field, "")
        if partner and spec.field not in chosen:
            chosen[spec.field] = partner
        elif not partner and spec.field not in kept and spec.field not in chosen:
            return [f"Choose the left field of the match field '{spec.field}'."]
    return _keep_pairs(request, draft, pairs, chosen, match)


def _keep_pairs(
    request: HttpRequest,
    draft: SyncDraft,
    pairs: list[list[str]],
    chosen: dict[str, str],
    match: Sequence[MatchFieldSpec],
) -> Problems:
    """chosen: left field by right field, for those that have to be copied plainly."""
    kept = drafts.draft_fields(draft)
    key = [right for _, right in pairs]
    unpaired = {right for left, right in pairs if not left}
    others = [f for f in kept if f.right not in chosen and f.right not in unpaired]
    plain = [FieldMappingSpec(right=right, left=left) for right, left in chosen.items()]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        key_pairs=pairs,
        key=key,
        match=[spec.model_dump(mode="json") for spec in match],
        fields=[field.model_dump(mode="json") for field in [*plain, *others]],
        mapping_begun=bool(kept) and bool(others),
    )
    return []


def posted_pairs(request: HttpRequest) -> list[list[str]]:
    """Pairs of left and right field names; the left one is empty for a key that is assigned."""
    lines = [
        [request.POST.get(f"key-{n}-left", ""), request.POST.get(f"key-{n}-right", "")]
        for n in range(MOST_KEY_FIELDS)
    ]
    return [line for line in lines if line[1]]


def posted_partners(request: HttpRequest) -> dict[str, str]:
    """The left field chosen beside each match field."""
    lines = range(MOST_MATCH_FIELDS)
    return {
        request.POST.get(f"match-{n}-field", ""): request.POST.get(f"match-{n}-left", "")
        for n in lines
    }


def _proposed_pairs(left: Dataset, right: Dataset, actor: Any) -> list[list[str]]:
    """The right dataset's key and the left fields that look like it, else both sides' own keys."""
    partners = {pair.right: pair.left for pair in suggest(left, right, actor=actor)}
    if not set(right.key) <= partners.keys() and len(left.key) == len(right.key):
        return [list(pair) for pair in zip(left.key, right.key, strict=True)][:MOST_KEY_FIELDS]
    return [[partners[name], name] for name in right.key if name in partners][:MOST_KEY_FIELDS]
