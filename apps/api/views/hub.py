"""Hub datasets for client apps: pull, push, digest; the protocol is in docs/reference."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts.models import User
from apps.api.base import Resource, operation
from apps.api.errors import NotFound
from apps.api.examples import PUSH
from apps.api.paging import newest_first, page_of
from apps.api.serializers.common import Nothing
from apps.api.serializers.hub import (
    ChangesQuery,
    DigestQuery,
    HubChanges,
    HubDigest,
    HubPush,
    HubPushed,
    HubSchema,
    HubTicket,
    NewReplica,
    ShownReplica,
)
from apps.api.sparse import list_query, page_schema
from apps.hub import services
from apps.hub.bodies import dumped
from apps.hub.models import HostedDataset, Replica
from apps.hub.pulling import digest, pull, require_schema
from apps.hub.selectors import (
    access_of,
    hosted_as,
    hosted_datasets,
    newest_schema,
    replicas,
)
from apps.hub.services import tickets

TICKET_SECONDS = tickets.SECONDS
PULL, PUSH_TO = (HostedDataset, "pull"), (HostedDataset, "push")


class HubDatasets(Resource):
    resource = "hub"

    @operation(
        "Pull changes",
        scope="hub:read",
        needs=PULL,
        answers=HubChanges,
        query=ChangesQuery,
        further=(410, 426),
    )
    def changes(self, request: Request, id: UUID, asked: dict[str, Any]) -> Any:  # noqa: A002
        """Records of a hub dataset that have changed since a token, in pages; without a token, all.

        410 says that the token is too old: begin a new copy. 426: update the app.
        """
        hosted = _hosted(request, id, "pull")
        require_schema(hosted, asked.get("schema_version"))
        account = _account(request)
        known = services.replica_of(account, asked["replica"]) if "replica" in asked else None
        page = pull(hosted, access_of(account, hosted), asked["since"], asked["limit"])
        if known is not None:
            schema = asked.get("schema_version")
            services.note_progress(known, hosted, pulled=page.number, schema=schema)
        return HttpResponse(page.rendered(), content_type="application/json")

    @operation(
        "Push edits",
        scope="hub:write",
        needs=PUSH_TO,
        answers=HubPushed,
        repeatable=HubPush,
        examples=PUSH,
        further=(426,),
    )
    def push(self, request: Request, id: UUID, sent: HubPush) -> Any:  # noqa: A002
        """Edits of a replica, in their order. What was sent before is answered and done no more.

        409 says that an earlier edit did not arrive: send them again from the number it names.
        """
        hosted = _hosted(request, id, "push")
        require_schema(hosted, sent.schema_version)
        account = _account(request)
        replica = services.replica_of(account, sent.replica)
        edits = [mutation.edit() for mutation in sent.mutations]
        outcomes = services.push(hosted, replica, edits, access_of(account, hosted))
        services.note_progress(replica, hosted, pulled=None, schema=sent.schema_version)
        body = dumped({"outcomes": [_outcome(one) for one in outcomes]})
        return HttpResponse(body, content_type="application/json")

    @operation(
        "Compare a copy",
        scope="hub:read",
        needs=PULL,
        answers=HubDigest,
        query=DigestQuery,
        further=(410,),
    )
    def digest(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """Count and digest of the records that you see: those of your copy, if it is up to date."""
        hosted = _hosted(request, id, "pull")
        found = digest(hosted, access_of(_account(request), hosted), asked["since"])
        answer = {
            "count": found.count,
            "digest": found.digest,
            "up_to_date": found.is_current,
        }
        return Response(answer)

    @operation(
        "Ask for a ticket",
        scope="hub:read",
        needs=PULL,
        answers=HubTicket,
        status=201,
        body=Nothing,
        unsafe=True,
    )
    def ticket(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """A browser opens a stream of events with it: an EventSource sends no header."""
        hosted = _hosted(request, id, "pull")
        text = services.issue_ticket(hosted, _account(request))
        return Response({"ticket": text, "seconds": TICKET_SECONDS}, status=201)

    @operation("Read the schema of a hub dataset", scope="hub:read", needs=PULL, answers=HubSchema)
    def describe(self, request: Request, id: UUID) -> Response:  # noqa: A002
        """As JSON Schema, and from which version on clients may be."""
        hosted = _hosted(request, id, "pull")
        newest = newest_schema(hosted)
        answer = {
            "version": newest.number,
            "oldest_accepted": hosted.oldest_schema,
            "key": hosted.key,
            "schema": newest.schema,
        }
        return Response(answer)


class Replicas(Resource):
    resource = "replicas"

    @operation(
        "List replicas",
        scope="hub:read",
        needs=(Replica, "view"),
        answers=page_schema(ShownReplica),
        query=list_query(ShownReplica),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Your own, and those that keep copies of datasets in your reach, the newest first."""
        rows = replicas(request.user).prefetch_related("progress__hosted__sequence")
        items, following = newest_first(rows, asked)
        return page_of(ShownReplica, items, following, asked)

    @operation(
        "Name a replica",
        scope="hub:read",
        needs=(Replica, "view"),
        answers=ShownReplica,
        repeatable=NewReplica,
    )
    def create(self, request: Request, sent: NewReplica) -> Response:
        """What your app is called and which version it has, for those who look after replicas."""
        account = _account(request)
        replica = services.name_replica(account, sent.client_id, sent.name, sent.app_version)
        return Response(ShownReplica(replica).data)


def _account(request: Request) -> User:
    return cast("User", request.user)


def _hosted(request: Request, dataset_id: UUID, action: str) -> HostedDataset:
    hosted = hosted_as(hosted_datasets(request.user, action), dataset_id)
    if hosted is None:
        raise NotFound("there is no such hub dataset")
    return hosted


def _outcome(outcome: services.Outcome) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "mid": outcome.number,
        "status": outcome.status,
        "rev": outcome.revision,
    }
    if outcome.status != "applied":
        shown["record"] = outcome.record
    if outcome.code:
        shown |= {"code": outcome.code, "message": outcome.message, "fields": list(outcome.fields)}
    return shown
