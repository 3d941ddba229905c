"""Actions on many chosen rows: permission asked, number and consequence confirmed first."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from apps.connectors.errors import LockstepError
from apps.core.admin.errors import explain
from apps.core.selectors import scoped

MOST_ROWS = 1_000


def bulk_action(description: str, permission: str, question: str) -> Callable[..., Any]:
    """Make a model admin's method an action over chosen rows.

    permission: action part of a model permission; the method gets only rows it is held for.
    question: shown before anything happens; `{count}` is the number of rows.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def action(
            admin: Any, request: HttpRequest, queryset: QuerySet[Any]
        ) -> HttpResponse | None:
            allowed = scoped(queryset, request.user, permission)
            if not allowed.exists():
                raise PermissionDenied
            chosen = list(allowed[:MOST_ROWS])
            if "confirmed" not in request.POST:
                return admin.render_page(  # type: ignore[no-any-return]
                    request,
                    "lockstep/confirm_bulk.html",
                    title=description,
                    question=question.format(count=len(chosen)),
                    rows=chosen[:10],
                    more=max(0, len(chosen) - 10),
                    ids=[row.pk for row in chosen],
                    checkbox_name=ACTION_CHECKBOX_NAME,
                    action_name=request.POST.get("action", method.__name__),
                    description=description,
                )
            try:
                return method(admin, request, chosen)  # type: ignore[no-any-return]
            except LockstepError as error:
                messages.error(request, explain(error))
                return None

        action.short_description = description  # type: ignore[attr-defined]
        action.allowed_permissions = (permission,)  # type: ignore[attr-defined]
        action.question = question  # type: ignore[attr-defined]
        return action

    return decorate
