"""Which platforms, and which way the records go."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest

from apps.connectors.errors import LockstepError
from apps.connectors.registry import connector_class
from apps.console.wizard import draft as drafts
from apps.console.wizard.steps.common import Context, Problems
from apps.core.admin import explain
from apps.core.selectors import permits
from apps.rules.models import Rule, SyncDraft
from apps.rules.services import save_draft
from apps.sources.models import Source
from apps.sources.selectors import sources
from apps.sources.services import discover


def show_sources(request: HttpRequest, draft: SyncDraft) -> Context:
    known = list(sources(request.user))
    return {
        "known_sources": known,
        "both_ways": drafts.is_two_way(draft),
        "writable": {
            source.pk for source in known if connector_class(source.connector).capabilities.write
        },
        "may_add": permits(request.user, Source, "add"),
    }


def keep_sources(request: HttpRequest, draft: SyncDraft) -> Problems:
    chosen = {side: request.POST.get(f"{side}_source", "") for side in ("left", "right")}
    known = {str(source.pk): source for source in sources(request.user)}
    if not all(pk in known for pk in chosen.values()):
        return ["Choose a source for each side; both sides may be the same one."]
    both_ways = request.POST.get("direction") == Rule.Direction.TWO_WAY
    sides = ("left", "right") if both_ways else ("right",)
    for side in sides:
        source = known[chosen[side]]
        if not connector_class(source.connector).capabilities.write:
            return [f"{source} can only be read: it cannot be the {side} side of this sync."]
    changes: dict[str, Any] = {f"{side}_source": pk for side, pk in chosen.items()}
    changes["direction"] = "two_way" if both_ways else "left_to_right"
    for side, pk in chosen.items():
        if draft.data.get(f"{side}_source") != pk:
            changes[side] = None
    save_draft(draft, actor=request.user, **changes)  # type: ignore[arg-type]
    for source in {known[pk] for pk in chosen.values()}:
        _discover_once(request, source)
    return []


def _discover_once(request: HttpRequest, source: Source) -> None:
    """Find out what a source holds of which nothing is known yet; the next step shows it."""
    if source.discovered_at is not None or not permits(request.user, Source, "discover"):
        return
    try:
        discover(source, actor=request.user)  # type: ignore[arg-type]
    except LockstepError as error:
        messages.error(request, f"{source}: {explain(error)}")
