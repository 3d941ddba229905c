"""How many wrong guesses lock what."""

from __future__ import annotations

from typing import Any

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from apps.audit.services import name_digest

# An address may stand for a whole office, so it may fail as often as ten people.
PEOPLE_PER_ADDRESS = 10


def name_for_locks(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str:
    """What failures are counted under: a keyed hash, because people type passwords there, too."""
    typed = (credentials or {}).get("username") or request.POST.get("username") or ""
    return name_digest(str(typed))


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None
) -> HttpResponse:
    """The answer to who is locked, and when it is worth trying again."""
    seconds = int(settings.AXES_COOLOFF_TIME.total_seconds())
    page = render(request, "lockstep/sign_in/locked.html", status=429)
    page["Retry-After"] = str(seconds)
    return page


class SignInHandler(AxesDatabaseHandler):  # type: ignore[misc]
    """Locks a name for an address after `AXES_FAILURE_LIMIT` failures, an address after ten times.

    Without the second, one address could try the same few passwords on every name.
    """

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        of_the_pair = super().get_failures(request, credentials)
        attempts = AccessAttempt.objects.filter(
            ip_address=request.axes_ip_address,  # type: ignore[attr-defined]
            attempt_time__gte=get_cool_off_threshold(request),
        )
        of_the_address = attempts.aggregate(sum=Sum("failures_since_start"))["sum"] or 0
        return int(max(of_the_pair, of_the_address // PEOPLE_PER_ADDRESS))
