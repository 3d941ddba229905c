"""Runs: started, followed, decided, undone; and what they change."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api.base import Resource, operation
from apps.api.errors import NotFound
from apps.api.examples import APPROVE, START_RUN, UNDO
from apps.api.paging import newest_first, number_cursor, page_of
from apps.api.serializers.common import Note, Nothing
from apps.api.serializers.records import ShownChange
from apps.api.serializers.runs import (
    Approval,
    NewRun,
    NewUndo,
    ShownLogLine,
    ShownRun,
    ShownRunWhole,
)
from apps.api.sparse import list_query, numbered_query, one_query, page_schema
from apps.core.selectors import reaches
from apps.ledger.models import Change, Operation, Side
from apps.ledger.selectors import (
    ChangeFilter,
    change_by_id,
    change_id,
    key_candidates,
    masked,
    run_changes,
)
from apps.rules.models import Rule
from apps.runs.models import Run, RunLog, RunStatus
from apps.runs.selectors import log_lines, runs
from apps.runs.services import (
    ChangeSelection,
    UndoScope,
    approve_run,
    cancel_run,
    plan_undo,
    reject_run,
    request_run,
)

FILTERS = ("rule", "status", "mode", "kind", "trigger")
ASK_AGAIN_SECONDS = "2"
CHANGE_FILTERS = {
    "side": serializers.ChoiceField(choices=Side.choices),
    "operation": serializers.ChoiceField(choices=Operation.choices),
    "cause": serializers.ChoiceField(choices=Change.Cause.choices),
    "outcome": serializers.ChoiceField(choices=Change.Outcome.choices),
    "key": serializers.CharField(
        max_length=2_000, help_text="A key of either side: a plain value, or a canonical key text."
    ),
}


class Runs(Resource):
    resource = "runs"

    @operation(
        "List runs",
        scope="runs:read",
        needs=(Run, "view"),
        answers=page_schema(ShownRun),
        query=list_query(
            ShownRun,
            rule=serializers.UUIDField(),
            status=serializers.ChoiceField(choices=RunStatus.choices),
            mode=serializers.ChoiceField(choices=Run.Mode.choices),
            kind=serializers.ChoiceField(choices=Run.Kind.choices),
            trigger=serializers.ChoiceField(choices=Run.Trigger.choices),
            created_since=serializers.DateTimeField(),
            created_before=serializers.DateTimeField(),
        ),
    )
    def list(self, request: Request, asked: dict[str, Any]) -> Response:
        """Those of the rules in your reach, the newest first."""
        exact = {name: asked[name] for name in FILTERS if name in asked}
        spans = {"created_since": "created_at__gte", "created_before": "created_at__lt"}
        exact |= {spans[name]: asked[name] for name in spans if name in asked}
        items, following = newest_first(runs(request.user).filter(**exact), asked)
        return page_of(ShownRun, items, following, asked)

    @operation(
        "Read a run",
        scope="runs:read",
        needs=(Run, "view"),
        answers=ShownRunWhole,
        query=one_query(ShownRunWhole),
    )
    def retrieve(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """With its progress. While it is active, Retry-After says when to ask again."""
        return _shown(self.found(runs(request.user), id), asked)

    @operation(
        "Start a run",
        scope="runs:start",
        needs=(Rule, "run"),
        answers=ShownRunWhole,
        status=202,
        body=NewRun,
        examples=START_RUN,
        unsafe=True,
    )
    def create(self, request: Request, sent: dict[str, Any]) -> Response:
        """Queues it and answers at once; follow it at `Location`. One run of a rule at a time."""
        run = request_run(
            sent["rule"],
            actor=request.user,
            mode=sent["mode"],
            sweep=sent["sweep"],
            asks_approval=sent["asks_approval"],
            keys=[(row["left_key"], row["right_key"]) for row in sent.get("records", ())],
            trigger=Run.Trigger.RECORDS if sent.get("records") else Run.Trigger.MANUAL,
            reason=sent["reason"],
        )
        return _begun(request, run)

    @operation(
        "Read the log of a run",
        scope="runs:read",
        needs=(Run, "view"),
        answers=page_schema(ShownLogLine),
        query=numbered_query(ShownLogLine),
    )
    def log(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """In order. `next` is there as long as the run is active: ask again from there."""
        run = self.found(runs(request.user), id)
        after, limit = number_cursor(asked) or 0, asked["limit"]
        found: list[RunLog] = log_lines(run, after, limit + 1)
        items = found[:limit]
        last = items[-1].pk if items else after
        following = last if len(found) > limit or run.is_active else None
        return page_of(ShownLogLine, items, following, asked)

    @operation(
        "List the changes of a run",
        scope="records:read",
        needs=(Change, "view"),
        answers=page_schema(ShownChange),
        query=numbered_query(ShownChange, **CHANGE_FILTERS),
    )
    def changes(self, request: Request, id: UUID, asked: dict[str, Any]) -> Response:  # noqa: A002
        """What it would write or wrote, in order: one per record, the value before and after."""
        run = Run.objects.filter(pk=id).select_related("rule").first()
        if run is None or not reaches(request.user, "view", run):
            raise NotFound("there is no such run")
        keys = tuple(key_candidates(asked["key"])) if "key" in asked else ()
        wanted = ChangeFilter(
            operations=_one(asked, "operation"),
            outcomes=_one(asked, "outcome"),
            sides=_one(asked, "side"),
            causes=_one(asked, "cause"),
            left_keys=keys,
            right_keys=keys,
        )
        limit = asked["limit"]
        found = run_changes(run.pk, wanted, after_id=number_cursor(asked), limit=limit + 1)
        items = masked(found[:limit])
        following = items[-1].pk if len(found) > limit else None
        return page_of(ShownChange, items, following, asked)

    @operation(
        "Approve a plan",
        scope="runs:approve",
        needs=(Run, "approve"),
        answers=ShownRunWhole,
        body=Approval,
        examples=APPROVE,
        unsafe=True,
    )
    def approve(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Exactly the stored changes are applied, or those selected; the rest is skipped."""
        run = self.found(runs(request.user, "approve"), id)
        selection = _selection(sent["selection"]) if "selection" in sent else None
        approve_run(run, actor=request.user, selection=selection, note=sent["note"])
        return _again(run)

    @operation(
        "Reject a plan",
        scope="runs:approve",
        needs=(Run, "approve"),
        answers=ShownRunWhole,
        body=Note,
        unsafe=True,
    )
    def reject(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Ends a run whose plan waits; nothing of it is written."""
        run = self.found(runs(request.user, "approve"), id)
        reject_run(run, actor=request.user, note=sent["note"])
        return _again(run)

    @operation(
        "Cancel a run",
        scope="runs:start",
        needs=(Run, "cancel"),
        answers=ShownRunWhole,
        body=Nothing,
        unsafe=True,
    )
    def cancel(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """It stops within a batch; what was written stays written."""
        run = self.found(runs(request.user, "cancel"), id)
        cancel_run(run, actor=request.user)
        return _again(run)

    @operation(
        "Undo a run",
        scope="runs:undo",
        needs=(Run, "undo"),
        answers=ShownRunWhole,
        status=202,
        body=NewUndo,
        examples=UNDO,
        unsafe=True,
    )
    def undo(self, request: Request, id: UUID, sent: dict[str, Any]) -> Response:  # noqa: A002
        """Queues a run that puts back what this one wrote; a preview, unless `mode` is apply."""
        run = self.found(runs(request.user, "undo"), id)
        scope = UndoScope(run_id=run.pk)
        undo = plan_undo(
            run.rule, scope, actor=request.user, reason=sent["reason"], mode=sent["mode"]
        )
        return _begun(request, undo)


class Changes(Resource):
    resource = "changes"

    @operation(
        "Read a change",
        scope="records:read",
        needs=(Change, "view"),
        answers=ShownChange,
        query=one_query(ShownChange),
    )
    def retrieve(self, request: Request, id: str, asked: dict[str, Any]) -> Response:  # noqa: A002
        """The value before and after, personal values masked."""
        number = change_id(id)
        change = change_by_id(number) if number is not None else None
        if change is None or not _is_reached(request, change.rule_id):
            raise NotFound("there is no such change")
        body = ShownChange(masked([change])[0], context={"fields": asked.get("fields")}).data
        return Response(body)


def _is_reached(request: Request, rule_id: UUID) -> bool:
    rule = Rule.objects.filter(pk=rule_id).first()
    return reaches(request.user, "view", rule or Rule(pk=rule_id))


def _one(asked: dict[str, Any], name: str) -> tuple[str, ...]:
    return (asked[name],) if name in asked else ()


def _selection(given: dict[str, Any]) -> ChangeSelection:
    return ChangeSelection(
        ids=tuple(given.get("changes", ())),
        operations=tuple(given.get("operations", ())),
        sides=tuple(given.get("sides", ())),
        causes=tuple(given.get("causes", ())),
        field=given.get("field", ""),
    )


def _shown(run: Run, asked: dict[str, Any], status: int = 200) -> Response:
    body = ShownRunWhole(run, context={"fields": asked.get("fields")}).data
    headers = {"Retry-After": ASK_AGAIN_SECONDS} if run.is_active and not run.is_waiting else {}
    return Response(body, status, headers=headers)


def _again(run: Run) -> Response:
    """As it is after what was done."""
    return _shown(Run.objects.select_related("rule", "version", "requested_by").get(pk=run.pk), {})


def _begun(request: Request, run: Run) -> Response:
    answer = _shown(run, {}, 202)
    answer["Location"] = request.build_absolute_uri(f"/api/v1/runs/{run.pk}")
    return answer
