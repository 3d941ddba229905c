"""Records across all systems, conflicts and rejections."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, operation
from apps.api.errors import NotFound
from apps.api.examples import DECIDE, REPLAY
from apps.api.paging import newest_first, page_of
from apps.api.serializers.common import Note
from apps.api.serializers.records import (
    GivenDecision,
    Replay,
    ShownConflict,
    ShownDecided,
    ShownRecord,
    ShownRejection,
)
from apps.api.serializers.runs import ShownRun
from apps.api.sparse import list_query, one_query, page_schema
from apps.core.selectors import reached
from apps.ledger.models import Change, Conflict, Rejection
from apps.ledger.selectors import ConflictFilter, conflict_page, conflicts, masked, rejections
from apps.ledger.selectors.record_family import find_addresses, record_family, record_life
from apps.ledger.services import Choice, Decision, dismiss_rejection
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services import decide_and_sync, replay_rejections


class RecordQuery(serializers.Serializer):
    """Which record."""

    dataset = serializers.UUIDField()
    key = serializers.CharField(
        max_length=2_000,
        help_text="A plain value, several with commas, or a canonical key text.",
    )


class Records(Resource):
    resource = "records"

    @operation(
        "Look a record up",
        scope="records:read",
        needs=(Change, "view"),
        answers=ShownRecord,
        query=RecordQuery,
    )
    def retrieve(self, request: Request, asked: dict[str, Any]) -> Response:
        """By its key in one dataset: where else it is, and the last 200 changes of its life."""
        sides = ("mapping__left", "mapping__right")
        every = list(reached(Rule.objects.select_related(*sides), request.user))
        dataset = asked["dataset"]
        own = [r for r in every if dataset in (r.mapping.left_id, r.mapping.right_id)]
        found = [a for a in find_addresses(own, asked["key"]) if a.dataset_id == dataset]
        if not found:
            raise NotFound("no rule in your reach has met such a record")
        family = record_family(every, found[0])
        life = masked(record_life(family))
        return Response(
            ShownRecord(
                {"addresses": family.addresses, "rules": family.memberships, "changes": life}
            ).data
        )


class Conflicts(Resource):
    resource = "conflicts"

    @operation(
        "List conflicts",
        scope="conflicts:read",
        needs=(Conflict, "view"),
        answers=page_schema(ShownConflict),
        query=list_query(
            ShownConflict,
            rule=serializers.UUIDField(),
            kind=serializers.ChoiceField(choices=Conflict.Kind.choices),
            state=serializers.ChoiceField(
                choices=Conflict.State.choices, default=Conflict.State.OPEN
            ),
            key=serializers.CharField(max_length=2_000, help_text="A key of either side."),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those that wait for a person, unless you ask for others; the newest first."""
        wanted = ConflictFilter(
            state=asked["state"],
            rule_ids=[asked["rule"]] if "rule" in asked else (),
            kind=asked.get("kind", ""),
            search=asked.get("key", ""),
        )
        limit = asked["limit"]
        found = conflict_page(request.user, wanted, after=asked.get("cursor"), limit=limit + 1)
        items = masked(found[:limit])
        following = items[-1].pk if len(found) > limit else None
        return page_of(ShownConflict, items, following, asked)

    @operation(
        "Read a conflict",
        scope="conflicts:read",
        needs=(Conflict, "view"),
        answers=ShownConflict,
        query=one_query(ShownConflict),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """Both sides as the last run has met them."""
        conflict = masked([self.found(conflicts(request.user), id)])[0]
        return Response(ShownConflict(conflict, context={"fields": asked.get("fields")}).data)

    @operation(
        "Decide a conflict",
        scope="conflicts:decide",
        needs=(Conflict, "decide"),
        answers=ShownDecided,
        body=GivenDecision,
        examples=DECIDE,
        unsafe=True,
    )
    def decide(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Holds for exactly the values that `seen` stands for; a run of the record writes it."""
        conflict = self.found(conflicts(request.user, "decide"), id)
        choices = {
            name: Choice(choice["take"], choice.get("value"))
            for name, choice in sent.get("choices", {}).items()
        }
        decision = Decision(
            record=sent.get("record", ""), fields=choices, match=sent.get("match", "")
        )
        decided = decide_and_sync(
            {conflict.pk: sent["seen"]}, decision, actor=request.user, note=sent["note"]
        )
        if conflict.pk in decided.failed:
            raise decided.failed[conflict.pk]
        now = masked([Conflict.objects.get(pk=conflict.pk)])[0]
        answer = {
            "conflict": now,
            "run": decided.runs[0].pk if decided.runs else None,
            "written_later": decided.later.get(conflict.rule_id, ""),
        }
        return Response(ShownDecided(answer).data)


class Rejections(Resource):
    resource = "rejections"

    @operation(
        "List rejections",
        scope="rejections:read",
        needs=(Rejection, "view"),
        answers=page_schema(ShownRejection),
        query=list_query(
            ShownRejection,
            rule=serializers.UUIDField(),
            run=serializers.UUIDField(),
            state=serializers.ChoiceField(
                choices=Rejection.State.choices, default=Rejection.State.OPEN
            ),
            code=serializers.CharField(max_length=60),
            field=serializers.CharField(max_length=255),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those that are open, unless you ask for others; the newest first."""
        names = {"rule": "rule_id", "run": "run_id", "code": "code", "field": "field"}
        exact = {names[name]: asked[name] for name in names if name in asked}
        rows = rejections(request.user).filter(state=asked["state"], **exact)
        items, following = newest_first(rows, asked)
        return page_of(ShownRejection, masked(items), following, asked)

    @operation(
        "Read a rejection",
        scope="rejections:read",
        needs=(Rejection, "view"),
        answers=ShownRejection,
        query=one_query(ShownRejection),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """The record, what is wrong with it, and where it was read."""
        rejection = masked([self.found(rejections(request.user), id)])[0]
        return Response(ShownRejection(rejection, context={"fields": asked.get("fields")}).data)

    @operation(
        "Replay rejections",
        scope="rejections:replay",
        needs=(Rejection, "replay"),
        answers=ShownRun(many=True),
        status=202,
        body=Replay,
        examples=REPLAY,
        unsafe=True,
    )
    def replay(self, request: Request, sent: dict[str, Any]) -> Response:
        """Runs their rules again for just these records; answers with the runs, one per rule."""
        wanted = set(sent["rejections"])
        found = list(rejections(request.user, "replay").filter(pk__in=wanted))
        if len(found) < len(wanted):
            raise NotFound("there is no such rejection")
        started = replay_rejections(found, actor=request.user)
        rows = Run.objects.select_related("rule", "version", "requested_by")
        runs = rows.filter(pk__in=[run.pk for run in started]).order_by("pk")
        return Response(ShownRun(runs, many=True).data, 202)

    @operation(
        "Dismiss a rejection",
        scope="rejections:replay",
        needs=(Rejection, "replay"),
        answers=ShownRejection,
        body=Note,
        unsafe=True,
    )
    def dismiss(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Closes it without doing anything about the record."""
        rejection = self.found(rejections(request.user, "replay"), id)
        dismiss_rejection(rejection, actor=request.user, note=sent["note"])
        return Response(ShownRejection(masked([rejection])[0]).data)
