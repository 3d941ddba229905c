"""Asking for an undo: people who may do so themselves, and those who send a request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied
from django.db import transaction

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.errors import Action, LockstepError
from apps.core.clock import now
from apps.core.selectors import require, require_reach
from apps.core.services import publish
from apps.rules.models import Rule
from apps.rules.selectors import rules
from apps.runs.models import RestoreRequest, Run
from apps.runs.selectors import restore_requests, runs
from apps.runs.services.errors import RunRefused
from apps.runs.services.requesting import queue_run, require_unpaused
from apps.runs.services.written import UndoScope

if TYPE_CHECKING:
    from apps.accounts.models import User


_ACTS = {
    RestoreRequest.State.APPROVED: Act.RESTORE_APPROVED,
    RestoreRequest.State.DECLINED: Act.RESTORE_DECLINED,
    RestoreRequest.State.WITHDRAWN: Act.RESTORE_WITHDRAWN,
}


class RequestClosed(LockstepError):
    """Somebody decides about a restore request that is decided already."""

    code = "restore.closed"
    action = Action.ASK
    default_remedy = "Nothing to do: look at the request."


def plan_undo(
    rule: Rule,
    scope: UndoScope,
    *,
    actor: User | None,
    reason: str,
    mode: str = Run.Mode.DRY_RUN,
) -> Run:
    """Queue a run that takes back the applied changes of the scope.

    mode: a dry run is the preview; `apply_preview` writes what it showed. Raises PermissionDenied;
    RunRefused where there is nothing to take back, where the keys of the rule are others now, or
    where a run of the rule goes on.
    """
    _require_undo(rule, scope, actor)
    require_unpaused(rule)
    undone = _undone_run(rule, scope)
    return queue_run(
        rule,
        actor=actor,
        mode=mode,
        trigger=Run.Trigger.UNDO,
        kind=Run.Kind.UNDO,
        undoes=undone,
        undo_scope=scope.as_json(),
        reason=reason[:500],
    )


def apply_preview(preview: Run, *, actor: User | None, reason: str) -> Run:
    """Queue the run that takes back what a preview showed, and nothing written after it.

    Raises as `plan_undo`.
    """
    scope = replace(UndoScope.from_json(preview.undo_scope), until=preview.created_at)
    return plan_undo(preview.rule, scope, actor=actor, reason=reason, mode=Run.Mode.APPLY)


def _require_undo(rule: Rule, scope: UndoScope, actor: User | None) -> None:
    require(actor, runs, "undo", Run.objects.get(pk=scope.run_id) if scope.run_id else None)
    require(actor, rules, "view", rule)
    require_reach(actor, "undo", rule)


def _undone_run(rule: Rule, scope: UndoScope) -> Run | None:
    """The run that is undone, if it is one. Raises RunRefused."""
    first = next(scope.newest_first(rule.pk), None)
    if first is None:
        raise RunRefused(
            "nothing was written that could be taken back",
            remedy="Choose a run, changes or a version after which something was written.",
        )
    made = Run.objects.select_related("version__mapping_version").get(pk=first.run_id)
    latest = rule.current_version
    keys = [
        (spec.left.key, spec.key)
        for spec in (v.mapping_version.spec() for v in (made.version, latest) if v is not None)
    ]
    if len(set(keys)) > 1:
        raise RunRefused(
            "the mapping knows records by another key since then",
            remedy="Put the key of the mapping back, then undo.",
        )
    return made if scope.run_id else None


@transaction.atomic
def request_restore(
    rule: Rule, scope: UndoScope, *, actor: User | None, reason: str
) -> RestoreRequest:
    """Ask an approver to put a record, some changes or a run back. Raises as `plan_undo`."""
    require(actor, restore_requests, "add")
    require(actor, rules, "view", rule)
    if not reason.strip():
        raise RunRefused("a restore request needs a reason", remedy="Say why it is needed.")
    undone = _undone_run(rule, scope)
    request = RestoreRequest.objects.create(
        rule=rule,
        run=undone,
        scope=replace(scope, until=now()).as_json(),
        reason=reason.strip()[:500],
        requested_by=actor,
    )
    publish("restore.requested", request.pk, {"rule": str(rule.pk)})
    subject = Subject.of(request, rule.name)
    record(Act.RESTORE_REQUESTED, subject, actor=actor, reason=request.reason)
    return request


@transaction.atomic
def approve_restore(request: RestoreRequest, *, actor: User | None, note: str = "") -> Run:
    """Begin the undo that was asked for. Raises PermissionDenied (also for one's own request)."""
    locked = _open_request(request, actor)
    if actor is not None and locked.requested_by_id == actor.pk:
        raise PermissionDenied("somebody else than the person who asked must approve")
    run = plan_undo(
        locked.rule,
        UndoScope.from_json(locked.scope),
        actor=actor,
        reason=locked.reason,
        mode=Run.Mode.APPLY,
    )
    _decide(locked, RestoreRequest.State.APPROVED, actor, note, run)
    return run


@transaction.atomic
def decline_restore(request: RestoreRequest, *, actor: User | None, note: str = "") -> None:
    """Say no to a restore request."""
    _decide(_open_request(request, actor), RestoreRequest.State.DECLINED, actor, note)


@transaction.atomic
def withdraw_restore(request: RestoreRequest, *, actor: User | None) -> None:
    """Take back one's own request."""
    locked = RestoreRequest.objects.select_for_update().get(pk=request.pk)
    if actor is not None and locked.requested_by_id != actor.pk:
        raise PermissionDenied("only the person who asked can take the request back")
    _require_open(locked)
    _decide(locked, RestoreRequest.State.WITHDRAWN, actor, "")


def _open_request(request: RestoreRequest, actor: User | None) -> RestoreRequest:
    require(actor, restore_requests, "decide", request)
    rows = RestoreRequest.objects.select_for_update().select_related("rule")
    locked = rows.get(pk=request.pk)
    _require_open(locked)
    return locked


def _require_open(request: RestoreRequest) -> None:
    if request.state != RestoreRequest.State.OPEN:
        raise RequestClosed(f"this request is {request.get_state_display().lower()} already")


def _decide(
    request: RestoreRequest,
    state: RestoreRequest.State,
    actor: User | None,
    note: str,
    undo: Run | None = None,
) -> None:
    request.state = state
    request.decided_by = actor
    request.decided_at = now()
    request.note = note[:500]
    request.undo = undo
    request.save()
    publish("restore.decided", request.pk, {"state": state.value})
    subject = Subject.of(request, request.rule.name)
    record(_ACTS[state], subject, actor=actor, reason=request.note)
