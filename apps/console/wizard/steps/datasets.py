"""Which datasets, or a new one on the right."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from apps.connectors.errors import LockstepError
from apps.connectors.registry import connector_class
from apps.console.wizard import draft as drafts
from apps.console.wizard.steps.common import Context, Problems
from apps.core.admin import explain
from apps.core.selectors import permits
from apps.mappings.services import (
    create_target,
)
from apps.rules.models import SyncDraft
from apps.rules.services import save_draft
from apps.sources.models import Dataset, Source


def show_datasets(request: HttpRequest, draft: SyncDraft) -> Context:
    sides = []
    both_ways = drafts.is_two_way(draft)
    titles = ("Left:", "Right:") if both_ways else ("Records come from", "Records go to")
    for side, words in zip(("left", "right"), titles, strict=True):
        source = drafts.draft_source(draft, side, request.user)
        found = source.datasets.filter(missing_since=None) if source else []
        sides.append(
            {
                "side": side,
                "words": words,
                "source": source,
                "datasets": found,
                "is_written": both_ways or side == "right",
            }
        )
    right = sides[1]["source"]
    creates = right and connector_class(right.connector).capabilities.create_dataset
    return {
        "sides": sides,
        "may_create": bool(creates) and permits(request.user, Dataset, "add"),
        "may_discover": permits(request.user, Source, "discover"),
    }


def keep_datasets(request: HttpRequest, draft: SyncDraft) -> Problems:
    left = _chosen_dataset(request, draft, "left")
    if left is None:
        return ["Choose the dataset that records come from."]
    if request.POST.get("right") == "create":
        try:
            right = _created_dataset(request, draft, left)
        except LockstepError as error:
            return [explain(error)]
    else:
        right = _chosen_dataset(request, draft, "right")
    if right is None:
        return ["Choose the dataset that records go to, or have it created."]
    if left == right:
        return ["Both sides are the same dataset: choose another one on the right."]
    if drafts.is_two_way(draft) and not left.writable:
        return [f"{left} is read only: a sync both ways writes to it, too."]
    changes: dict[str, Any] = {"left": str(left.pk), "right": str(right.pk)}
    if any(draft.data.get(side) != changes[side] for side in ("left", "right")):
        changes.update(key=None, fields=None, key_pairs=None, match=None, field_policies=None)
    if draft.data.get("name") in (None, "", _given_name(draft, request)):
        draft.name = changes["name"] = _name_of(draft, left, right)
    save_draft(draft, actor=request.user, **changes)  # type: ignore[arg-type]
    return []


def _name_of(draft: SyncDraft, left: Dataset, right: Dataset) -> str:
    arrow = "↔" if drafts.is_two_way(draft) else "→"
    return f"{left.name} {arrow} {right.source.name} {right.name}"[:150]


def _given_name(draft: SyncDraft, request: HttpRequest) -> str | None:
    """The name that this step gave for the datasets chosen before."""
    left, right = (drafts.draft_dataset(draft, side, request.user) for side in ("left", "right"))
    return _name_of(draft, left, right) if left and right else None


def _chosen_dataset(request: HttpRequest, draft: SyncDraft, side: str) -> Dataset | None:
    source = drafts.draft_source(draft, side, request.user)
    if source is None or not request.POST.get(side):
        return None
    return next((d for d in source.datasets.all() if str(d.pk) == request.POST[side]), None)


def _created_dataset(request: HttpRequest, draft: SyncDraft, left: Dataset) -> Dataset | None:
    source = drafts.draft_source(draft, "right", request.user)
    if source is None or not permits(request.user, Dataset, "add"):
        raise PermissionDenied
    name = request.POST.get("new_name", "").strip() or left.name
    naming = request.POST.get("naming", "same")
    naming = naming if naming == "snake_case" else "same"
    return create_target(left, source, name, naming, actor=request.user)  # type: ignore[arg-type]
