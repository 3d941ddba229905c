"""The audit log."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, operation
from apps.api.errors import Invalid
from apps.api.paging import page_of
from apps.api.serializers.audit import ShownEvent
from apps.api.sparse import list_query, one_query, page_schema
from apps.audit.actions import SUBJECTS, Act
from apps.audit.models import AuditEvent, Outcome
from apps.audit.selectors import EventFilter, event_page, events

FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(9998, 12, 31)  # of what ids can hold
ACTIONS = [(act.value, act.label) for act in Act]
GROUPS = [(f"{subject}.", label) for subject, label in SUBJECTS.items()]


class Audit(Resource):
    resource = "audit"

    @operation(
        "List events",
        scope="audit:read",
        needs=(AuditEvent, "view"),
        answers=page_schema(ShownEvent),
        query=list_query(
            ShownEvent,
            action=serializers.ChoiceField(
                choices=[*ACTIONS, *GROUPS], help_text="One action, or all with this first part."
            ),
            outcome=serializers.ChoiceField(choices=Outcome.choices),
            actor=serializers.CharField(max_length=150),
            object_type=serializers.CharField(max_length=60),
            object_id=serializers.CharField(max_length=60),
            address=serializers.CharField(max_length=45),
            request=serializers.CharField(max_length=32, help_text="Id of a request."),
            since=serializers.DateField(),
            until=serializers.DateField(help_text="This day included."),
            q=serializers.CharField(
                max_length=200, help_text="Words that names and reasons begin with, or an id."
            ),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """The newest first. Reading the log changes nothing in it."""
        for name in asked.keys() & {"since", "until"}:
            asked[name] = min(max(asked[name], FIRST_DAY), LAST_DAY)
        names = set(asked) - {"cursor", "limit", "fields"}
        wanted = EventFilter.of({name: str(asked[name]) for name in names})
        if wanted.problems:
            place = {"place": "", "code": "invalid"}
            raise Invalid([{**place, "message": text} for text in wanted.problems])
        page = event_page(
            wanted, request.user, before=asked.get("cursor"), after=None, limit=asked["limit"]
        )
        return page_of(ShownEvent, page.events, page.older, asked)

    @operation(
        "Read an event",
        scope="audit:read",
        needs=(AuditEvent, "view"),
        answers=ShownEvent,
        query=one_query(ShownEvent),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """One act."""
        event = self.found(events(request.user), id)
        return Response(ShownEvent(event, context={"fields": asked.get("fields")}).data)
