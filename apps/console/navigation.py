"""What the sidebar and the header show beside plain links."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest

from apps.alerts.models import Incident
from apps.alerts.selectors import incidents
from apps.audit.selectors import last_verification
from apps.core.selectors import platform_state
from apps.ledger.models import Conflict, Rejection
from apps.ledger.selectors import conflicts, rejections
from apps.runs.models import RestoreRequest, RunStatus
from apps.runs.selectors import restore_requests, runs
from apps.sources.models import Source


def once_per_request(badge: Callable[[HttpRequest], str]) -> Callable[[HttpRequest], str]:
    """The theme asks for each badge twice a page; the database is asked once."""

    @wraps(badge)
    def remembered(request: HttpRequest) -> str:
        known = request.__dict__.setdefault("_lockstep_badges", {})
        if badge.__name__ not in known:
            known[badge.__name__] = badge(request)
        return str(known[badge.__name__])

    return remembered


@once_per_request
def open_rejections(request: HttpRequest) -> str:
    """Number on the sidebar; counts to a hundred, so that it stays an index read."""
    return _badge(rejections(request.user).filter(state=Rejection.State.OPEN))


@once_per_request
def open_conflicts(request: HttpRequest) -> str:
    """Likewise."""
    return _badge(conflicts(request.user).filter(state=Conflict.State.OPEN))


@once_per_request
def loud_incidents(request: HttpRequest) -> str:
    """Incidents that nobody has taken up; likewise."""
    return _badge(incidents(request.user).filter(state__in=Incident.LOUD))


@once_per_request
def waiting_runs(request: HttpRequest) -> str:
    """Plans that wait for approval; likewise."""
    return _badge(runs(request.user).filter(status=RunStatus.WAITING))


@once_per_request
def open_restore_requests(request: HttpRequest) -> str:
    """Likewise."""
    return _badge(restore_requests(request.user).filter(state=RestoreRequest.State.OPEN))


@once_per_request
def audit_alarm(request: HttpRequest) -> str:
    """A mark where the last verification found that the audit log is not as it was written."""
    if not request.user.has_perm("audit.view_auditevent"):
        return ""
    last = last_verification()
    return "!" if last is not None and not last.is_sound else ""


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
