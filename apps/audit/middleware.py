"""Gives each request an id and says where it comes from; puts refusals on record."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from apps.audit.origin import acting_from, origin_of
from apps.audit.services import record_refusal

REQUEST_ID_HEADER = "X-Request-ID"


class AuditMiddleware:
    """What is recorded during a request carries its address, its program and its id.

    The id is ours, never the client's, and is told in the answer: logs and tickets can name it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with acting_from(origin_of(request)) as origin:
            response = self.get_response(request)
        response[REQUEST_ID_HEADER] = origin.request_id
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Whoever is signed in and tries what they may not do leaves a trace."""
        if isinstance(exception, PermissionDenied):
            record_refusal(request, exception)
