"""What the sidebar and the header show beside plain links."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from apps.core.selectors import platform_state
from apps.ledger.models import Conflict, Rejection
from apps.runs.models import RestoreRequest, Run, RunStatus
from apps.sources.models import Source


def open_rejections(request: HttpRequest) -> str:
    """Number on the sidebar; counts to a hundred, so that it stays an index read."""
    if not request.user.has_perm("ledger.view_rejection"):
        return ""
    return _badge(Rejection.objects.filter(state=Rejection.State.OPEN))


def open_conflicts(request: HttpRequest) -> str:
    """Likewise."""
    if not request.user.has_perm("ledger.view_conflict"):
        return ""
    return _badge(Conflict.objects.filter(state=Conflict.State.OPEN))


def waiting_runs(request: HttpRequest) -> str:
    """Plans that wait for approval; likewise."""
    if not request.user.has_perm("runs.view_run"):
        return ""
    return _badge(Run.objects.filter(status=RunStatus.WAITING))


def open_restore_requests(request: HttpRequest) -> str:
    """Likewise."""
    if not request.user.has_perm("runs.view_restorerequest"):
        return ""
    return _badge(RestoreRequest.objects.filter(state=RestoreRequest.State.OPEN))


def _badge(rows: QuerySet[Any]) -> str:
    count = rows.values("pk")[:100].count()
    return "99+" if count > 99 else str(count) if count else ""


def environment_label(request: HttpRequest) -> list[str] | None:
    """A label in the header: everything paused, or demo data present."""
    if platform_state().paused:
        return ["Everything paused", "danger"]
    if Source.objects.filter(is_demo=True).exists():
        return ["Demo data", "warning"]
    return None
