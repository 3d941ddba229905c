"""Replicas: how far they are, and whether they may go on."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from unfold.decorators import display

from apps.core.admin import (
    NextStep,
    ObjectAction,
    ReadOnlyAdmin,
)
from apps.core.templatetags.lockstep import ago, number, status
from apps.hub import services
from apps.hub.models import Replica, ReplicaProgress


@admin.register(Replica)
class ReplicaAdmin(ReadOnlyAdmin):
    """Installations of client apps, how far they are, and whether they may go on."""

    list_display = ("label", "account", "app_version", "lag", "schema", "seen", "state")
    list_select_related = ("account",)
    search_fields = ("name", "client_id", "account__username")
    fields = ("label", "client_id", "account", "app_version", "seen", "clock", "state", "datasets")
    readonly_fields = fields
    nothing_yet = NextStep(
        "No client app has come yet. Each is known from its first pull or push on.", icon="devices"
    )
    object_actions = (
        ObjectAction(
            "revoke",
            "Revoke access",
            "block",
            "revoke",
            "do_revoke",
            confirm="Revoke the access of {obj}? It gets nothing more, and cannot push any more.",
            variant="danger",
            shown=lambda replica: replica.revoked_at is None,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Replica]:
        rows = super().get_queryset(request).prefetch_related("progress__hosted__sequence")
        oldest = Min("progress__schema_number")
        return rows.annotate(oldest_schema=oldest, last_pull=Max("progress__pulled"))

    @display(description="Replica", ordering="name")
    def label(self, replica: Replica) -> str:
        return str(replica)

    @display(description="Lag")
    def lag(self, replica: Replica) -> str:
        lags = [_lag(row) for row in replica.progress.all()]
        known = [lag for lag in lags if lag is not None]
        return f"{number(max(known))} writes" if known else "–"

    @display(description="Schema")
    def schema(self, replica: Any) -> str:
        return f"version {replica.oldest_schema}" if replica.oldest_schema else "–"

    @display(description="Last seen", ordering="last_seen_at")
    def seen(self, replica: Replica) -> str:
        return ago(replica.last_seen_at)

    @display(description="Clock")
    def clock(self, replica: Replica) -> str:
        if replica.skew is None or abs(replica.skew) < 1_000:
            return "in step"
        way = "ahead" if replica.skew > 0 else "behind"
        return f"{number(abs(replica.skew) // 1_000)} s {way}"

    @display(description="State")
    def state(self, replica: Replica) -> str:
        if replica.revoked_at:
            return status("failing", "Revoked")
        return status("ok", "May sync")

    @display(description="Datasets")
    def datasets(self, replica: Replica) -> str:
        rows = [
            (row.hosted.name, row.last_mutation, "–" if _lag(row) is None else _lag(row))
            for row in replica.progress.all()
        ]
        return format_html_join("", "<div>{}: {} edits pushed, lag {}</div>", rows)

    def do_revoke(self, request: HttpRequest, replica: Replica) -> None:
        services.revoke_replica(replica, actor=request.user)
        messages.success(request, f"{replica} gets nothing more.")


def _lag(row: ReplicaProgress) -> int | None:
    """Writes of the dataset that the replica has not asked for."""
    return None if row.pulled is None else max(row.hosted.sequence.last - row.pulled, 0)
