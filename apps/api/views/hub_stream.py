"""Events of a hub dataset (server-sent events): numbers only, so that clients know when to pull.

A stream is opened by a bearer token, or by a ticket in the address. It ends by itself after a
while; whoever comes again is asked again for what he may.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from uuid import UUID

import orjson
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from rest_framework.request import Request

from apps.api.authentication import BearerAuthentication, is_in_clear
from apps.api.errors import (
    Forbidden,
    InsufficientScope,
    MethodNotAllowed,
    NotFound,
    Unauthenticated,
)
from apps.api.problems import PROBLEM, problem, status_of
from apps.connectors.errors import LockstepError
from apps.core.selectors import permits
from apps.hub import services
from apps.hub.models import HostedDataset
from apps.hub.selectors import hosted_as, hosted_datasets
from apps.hub.watching import watch

SCOPE = "hub:read"
MOST_SECONDS = 600.0
SILENCE = 20.0  # after that a line is sent that says nothing, so that nobody hangs up
RETRY = 3_000  # milliseconds until a client comes again
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def stream(request: HttpRequest, id: UUID) -> HttpResponseBase:  # noqa: A002
    """The number of the last write, at once and after each further one."""
    try:
        hosted = await sync_to_async(_admitted)(request, id)
    except LockstepError as error:
        return await sync_to_async(_refused)(request, error)
    events = _events(hosted.pk)
    return StreamingHttpResponse(events, content_type="text/event-stream", headers=HEADERS)


def _admitted(request: HttpRequest, dataset_id: UUID) -> HostedDataset:
    """The dataset, if this request may listen to it."""
    if request.method != "GET":
        raise MethodNotAllowed("a stream is read by GET")
    if "ticket" in request.GET and not is_in_clear(request):
        return services.use_ticket(request.GET["ticket"], dataset_id)
    known = BearerAuthentication().authenticate(Request(request))
    if known is None:
        raise Unauthenticated("a stream needs a token or a ticket")
    account, credential = known
    if SCOPE not in credential.scopes:
        raise InsufficientScope(f"this needs a token with the scope {SCOPE}")
    if not permits(account, HostedDataset, "pull"):
        raise Forbidden("this needs the permission hub.pull_hosteddataset")
    hosted = hosted_as(hosted_datasets(account, "pull"), dataset_id)
    if hosted is None:
        raise NotFound("there is no such hub dataset")
    return hosted


def _refused(request: HttpRequest, error: LockstepError) -> JsonResponse:
    status = status_of(error)
    body = problem(error, status, request)
    return JsonResponse(body, status=status, content_type=PROBLEM, headers=HEADERS)


async def _events(hosted_id: UUID) -> AsyncIterator[bytes]:
    end = time.monotonic() + MOST_SECONDS
    number = -1
    yield f"retry: {RETRY}\n\n".encode()
    while (left := end - time.monotonic()) > 0:
        found = await watch().beyond(hosted_id, number, min(SILENCE, left))
        if found == number:
            yield b": still here\n\n"
            continue
        number = found
        yield b"event: change\ndata: " + orjson.dumps({"rev": number}) + b"\n\n"
