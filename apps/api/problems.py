"""Errors as `application/problem+json` (RFC 9457), with the stable codes of Lockstep."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError
from django.http import Http404, HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from apps.accounts.services import TokenRefused
from apps.api import errors
from apps.audit.origin import current_origin
from apps.audit.services import record_refusal
from apps.connectors.errors import Action, LockstepError
from apps.hub.errors import ReplicaRevoked, SchemaOutdated, TicketRefused, TokenExpired

logger = logging.getLogger("lockstep.api")
PROBLEM = "application/problem+json"
STATUS_BY_CODE = {
    "run.refused": 409,
    "run.not_waiting": 409,
    "conflict.decision_unfit": 422,
    TokenRefused.code: 401,
    TokenExpired.code: 410,
    SchemaOutdated.code: 426,
    ReplicaRevoked.code: 403,
    TicketRefused.code: 403,
}
STATUS_BY_ACTION = {
    Action.RETRY: 503,
    Action.FIX_CONFIGURATION: 422,
    Action.FIX_RECORD: 422,
    Action.ASK: 409,
    Action.BUG: 500,
}
TITLES = {
    400: "The request is not as expected",
    401: "No valid token",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Not possible now",
    410: "It is not remembered any more",
    412: "It has changed meanwhile",
    413: "Too large",
    415: "Unsupported media type",
    422: "Cannot be done as asked for",
    426: "An update is needed",
    428: "A precondition is needed",
    429: "Too many requests",
    500: "A fault of Lockstep",
    503: "Try again later",
}
_BY_FRAMEWORK: tuple[tuple[type[Exception], type[errors.ApiError]], ...] = (
    (exceptions.NotAuthenticated, errors.Unauthenticated),
    (exceptions.AuthenticationFailed, errors.Unauthenticated),
    (exceptions.PermissionDenied, errors.Forbidden),
    (PermissionDenied, errors.Forbidden),
    (exceptions.NotFound, errors.NotFound),
    (Http404, errors.NotFound),
    (exceptions.MethodNotAllowed, errors.MethodNotAllowed),
    (exceptions.NotAcceptable, errors.NotAcceptable),
    (exceptions.UnsupportedMediaType, errors.UnsupportedMediaType),
    (exceptions.Throttled, errors.Throttled),
    (exceptions.ParseError, errors.Malformed),
    (RequestDataTooBig, errors.TooLarge),
    (SuspiciousOperation, errors.Malformed),
    (UnicodeError, errors.Malformed),
    (IntegrityError, errors.Conflicting),
)


def answer(error: Exception, context: dict[str, Any]) -> Response:
    """What an exception is answered with; the framework calls it outside the transaction."""
    request: HttpRequest = context["request"]._request
    set_rollback()
    known = _known(error)
    if known is None:
        logger.exception("request %s failed", current_origin().request_id)
        known = LockstepError("something went wrong that should not")
    if isinstance(known, errors.Forbidden | errors.InsufficientScope):
        record_refusal(request, error)
    status = status_of(known)
    body = problem(known, status, request)
    return Response(body, status, headers=_headers(error, status), content_type=PROBLEM)


def status_of(error: LockstepError) -> int:
    if isinstance(error, errors.ApiError):
        return error.status
    return STATUS_BY_CODE.get(error.code, STATUS_BY_ACTION[error.action])


def problem(error: LockstepError, status: int, request: HttpRequest) -> dict[str, Any]:
    """The document. `type` leads to what `docs/reference/error-codes.md` says of the code."""
    body: dict[str, Any] = {
        "type": request.build_absolute_uri(reverse("api:problem", args=(error.code,))),
        "title": TITLES.get(status, TITLES[400]),
        "status": status,
        "code": error.code,
        "detail": error.message,
        "remedy": error.remedy,
        "request_id": current_origin().request_id,
    }
    if error.where:
        body["where"] = error.where
    if isinstance(error, errors.Invalid):
        body["errors"] = error.problems
    return body


@csrf_exempt
def not_there(request: HttpRequest) -> JsonResponse:
    """Addresses below /api/ that lead nowhere."""
    error = errors.NotFound("there is nothing at this address")
    return JsonResponse(
        problem(error, 404, request),
        status=404,
        content_type=PROBLEM,
        headers={"Cache-Control": "no-store"},
    )


def _known(error: Exception) -> LockstepError | None:
    if isinstance(error, LockstepError):
        return error
    if isinstance(error, exceptions.ValidationError):
        return errors.Invalid(list(_places(error.detail, "")))
    for kind, ours in _BY_FRAMEWORK:
        if isinstance(error, kind):
            return ours(_sentence(error, ours))
    return None


def _sentence(error: Exception, ours: type[errors.ApiError]) -> str:
    if ours in (errors.Conflicting, errors.NotFound):  # texts of databases and of Django
        return "it is not there" if ours is errors.NotFound else "somebody did the same meanwhile"
    return str(getattr(error, "detail", error)) or "this is not possible"


def _places(detail: Any, place: str) -> Iterator[dict[str, str]]:
    """Each mistake with the path to it, such as `checks.0.kind`."""
    if isinstance(detail, dict):
        for name, inner in detail.items():
            is_whole = name in ("non_field_errors", "__all__")
            yield from _places(inner, place if is_whole else _joined(place, str(name)))
    elif isinstance(detail, list):
        for number, inner in enumerate(detail):
            is_nested = isinstance(inner, dict | list)
            yield from _places(inner, _joined(place, str(number)) if is_nested else place)
    else:
        code = str(getattr(detail, "code", "invalid"))
        yield {"place": place, "code": code, "message": str(detail)}


def _joined(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _headers(error: Exception, status: int) -> dict[str, str]:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="lockstep"'
    if isinstance(error, errors.InsufficientScope):
        headers["WWW-Authenticate"] = 'Bearer realm="lockstep", error="insufficient_scope"'
    if status == 503:
        headers["Retry-After"] = "10"
    wait = getattr(error, "wait", None)
    if wait is not None:
        headers["Retry-After"] = str(int(wait) + 1)
    return headers
