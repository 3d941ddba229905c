"""Edits set aside, and decisions on those that wait."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html_join
from unfold.decorators import display

from apps.core.admin import (
    Chip,
    NextStep,
    ObjectAction,
    ReadOnlyAdmin,
)
from apps.core.templatetags.lockstep import ago, status
from apps.hub import services
from apps.hub.merging import same
from apps.hub.models import Mutation
from apps.hub.selectors import datasets_of
from apps.hub.services.storing import load_records
from apps.mappings.masking import MASKED
from apps.sources.models import Field


def _waits(mutation: Mutation) -> bool:
    return mutation.state == Mutation.State.OPEN


@admin.register(Mutation)
class MutationAdmin(ReadOnlyAdmin):
    """Pushed edits that did not simply get through, and decisions on those that wait."""

    list_display = ("key", "hosted", "outcome", "names", "replica", "made")
    list_select_related = ("replica", "hosted")
    list_filter = ("hosted", "status", "state")
    search_fields = ("key",)
    fields = ("key", "hosted", "replica", "outcome", "message", "made", "values")
    readonly_fields = fields
    nothing_yet = NextStep("No edit was set aside: all that was pushed got through.", icon="done")
    object_actions = (
        ObjectAction(
            "take",
            "Take the pushed values",
            "done",
            "decide",
            "do_take",
            confirm="Write the pushed values over what is there?",
            variant="primary",
            shown=_waits,
        ),
        ObjectAction("keep", "Keep what is there", "close", "decide", "do_keep", shown=_waits),
    )

    def chips(self, request: HttpRequest) -> list[Chip]:
        is_open = request.GET.get("state__exact") == Mutation.State.OPEN
        return [Chip("All", "", not is_open), Chip("Waiting", "state__exact=open", is_open)]

    @display(description="Outcome", ordering="status")
    def outcome(self, mutation: Mutation) -> str:
        if _waits(mutation):
            return status("waiting", "Waits for a decision")
        kinds = {"merged": "ok", "conflict": "done", "rejected": "failing"}
        return status(kinds[mutation.status], mutation.get_status_display())

    @display(description="Fields")
    def names(self, mutation: Mutation) -> str:
        return "the deletion" if mutation.wants_delete else ", ".join(mutation.fields) or "–"

    @display(description="Pushed", ordering="id")
    def made(self, mutation: Mutation) -> str:
        return ago(mutation.created_at)

    @display(description="Values")
    def values(self, mutation: Mutation) -> str:
        """What was pushed, and what is there; personal values masked."""
        datasets = datasets_of(mutation.hosted).values("pk")
        marked = Field.objects.filter(dataset__in=datasets).exclude(personal_data="")
        masked = set(marked.values_list("name", flat=True))
        stored = load_records(mutation.hosted, [mutation.key], lock=False).get(mutation.key)
        held = (stored.living if stored else None) or {}
        rows = [
            (name, _shown(name, value, masked), _shown(name, held.get(name), masked))
            for name, value in sorted(services.values_aside(mutation).items())
            if not same(value, held.get(name))
        ]
        line = "<div>{}: <code>{}</code>, there: <code>{}</code></div>"
        return format_html_join("", line, rows) or "–"

    def do_take(self, request: HttpRequest, mutation: Mutation) -> None:
        services.decide(mutation, take_pushed=True, actor=request.user)
        messages.success(request, f"The pushed values of {mutation.key} are there now.")

    def do_keep(self, request: HttpRequest, mutation: Mutation) -> None:
        services.decide(mutation, take_pushed=False, actor=request.user)
        messages.success(request, f"{mutation.key} stays as it is.")


def _shown(name: str, value: Any, masked: set[str]) -> str:
    if value is None:
        return "nothing"
    return MASKED if name in masked else json.dumps(value, ensure_ascii=False, default=str)
