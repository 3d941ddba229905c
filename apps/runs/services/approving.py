"""Approving plans: a person lets exactly the stored changes be applied, or some of them, or none.

Whoever approves decides about the plan that they saw: nothing is planned anew, each change keeps
its precondition, and a record that has moved since is refused and reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.errors import Action, LockstepError
from apps.core.clock import now
from apps.core.selectors import require
from apps.ledger.selectors import ChangeFilter, field_sets_with
from apps.ledger.services import skip_others
from apps.runs.models import Partition, Run, RunStatus
from apps.runs.selectors import first_eyes, runs
from apps.runs.services.context import require_unpaused
from apps.runs.services.ending import sum_counters
from apps.runs.services.errors import NotWaiting
from apps.runs.services.logs import log
from apps.runs.services.reviewing import abandon, begin_apply

if TYPE_CHECKING:
    from apps.accounts.models import User


class PlanRejected(LockstepError):
    """A person decided against a plan."""

    code = "run.rejected"
    action = Action.ASK
    default_remedy = "Correct what the person named, then run the rule again."


class PlanExpired(LockstepError):
    """Nobody decided about a plan in time."""

    code = "run.expired"
    action = Action.ASK
    default_remedy = "Run the rule again and approve its plan before it expires."


@dataclass(frozen=True, slots=True)
class ChangeSelection:
    """Some of a plan's changes: those that fit every condition which is given.

    ids: of changes; operations, sides, causes: any of these; field: changes that write it.
    """

    ids: tuple[int, ...] = ()
    operations: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    field: str = ""

    def as_filter(self, rule_id: UUID) -> ChangeFilter:
        """The same as the ledger takes it."""
        sets = field_sets_with(rule_id, self.field) if self.field else ()
        return ChangeFilter(self.operations, (), self.sides, self.causes, (), (), sets, self.ids)


@transaction.atomic
def approve_run(
    run: Run, *, actor: User | None, selection: ChangeSelection | None = None, note: str = ""
) -> None:
    """Apply exactly the changes of a plan that waits, or those selected; the rest is skipped.

    Raises PermissionDenied (also where four eyes are asked for and the actor's were the first two,
    see `first_eyes`), NotWaiting, and RunRefused while something is paused.
    """
    require(actor, runs, "approve", run)
    run = _waiting(run)
    _require_other_eyes(run, actor)
    require_unpaused(run)
    if selection is not None:
        _skip_others(run, selection)
    _note_decision(run, actor, note)
    _record(Act.RUN_APPROVED, run, actor, note)
    skipped = f", {run.skipped} skipped" if run.skipped else ""
    log(run, f"Approved by {_name(actor)}: {run.planned - run.skipped} changes{skipped}")
    begin_apply(run)


def _require_other_eyes(run: Run, actor: User | None) -> None:
    """Where four eyes are asked for, two of them are another person's.

    A service account has none: whoever makes its tokens would be both persons.
    """
    if actor is None or not run.version.spec().four_eyes:
        return
    if actor.is_service:
        raise PermissionDenied("a person must approve: the rule asks for four eyes")
    if actor.pk in first_eyes(run):
        by_person = run.requested_by is not None and not run.requested_by.is_service
        who = "asked for the run" if by_person else "last changed the rule"
        raise PermissionDenied(f"somebody else than the person who {who} must approve")


@transaction.atomic
def reject_run(run: Run, *, actor: User | None, note: str = "") -> None:
    """End a run whose plan waits; nothing of it is written. Raises as `approve_run`."""
    require(actor, runs, "approve", run)
    run = _waiting(run)
    _note_decision(run, actor, note)
    _record(Act.RUN_REJECTED, run, actor, note)
    why = f": {note}" if note else ""
    error = PlanRejected(f"the plan was rejected by {_name(actor)}{why}")
    abandon(run, RunStatus.REJECTED, error, f"Rejected by {_name(actor)}{why}")


def expire_plans() -> int:
    """End the runs whose plans have waited too long; returns how many."""
    moment = now()
    due = Run.objects.filter(status=RunStatus.WAITING, expires_at__lte=moment)
    ended = 0
    for run_id in list(due.values_list("pk", flat=True)[:100]):
        with transaction.atomic():
            run = Run.objects.select_for_update().get(pk=run_id)
            if run.status == RunStatus.WAITING and run.expires_at <= moment:
                error = PlanExpired("nobody approved the plan in time; nothing was written")
                abandon(run, RunStatus.EXPIRED, error, "The plan expired; nothing was written")
                ended += 1
    return ended


def _waiting(run: Run) -> Run:
    """The run's row, locked. Raises NotWaiting."""
    locked = Run.objects.select_for_update().select_related("version", "rule").get(pk=run.pk)
    if locked.status != RunStatus.WAITING or locked.cancel_requested_at is not None:
        raise NotWaiting(f"this run does not wait for approval, it is {locked.status}")
    if locked.expires_at is not None and locked.expires_at <= now():
        raise NotWaiting("this plan has expired")
    return locked


def _note_decision(run: Run, actor: User | None, note: str) -> None:
    run.decided_by = actor
    run.decided_at = now()
    run.decision_note = note[:500]


def _record(act: Act, run: Run, actor: User | None, note: str) -> None:
    details = {
        "rule": str(run.rule_id),
        "changes": run.planned - run.skipped,
        "skipped": run.skipped,
    }
    record(act, Subject.of(run, run.rule.name), actor=actor, reason=note, details=details)


def _name(actor: User | None) -> str:
    return actor.get_username() if actor is not None else "the system"


def _skip_others(run: Run, selection: ChangeSelection) -> None:
    kept = selection.as_filter(run.rule_id)
    for part in run.partitions.filter(kind=Partition.Kind.RECORDS):
        skipped = skip_others(run.pk, part.pk, kept)
        if skipped:
            run.partitions.filter(pk=part.pk).update(skipped=F("skipped") + skipped)
    sum_counters(run)
    if run.skipped >= run.planned:
        raise NotWaiting(
            "none of the plan's changes is selected", remedy="Select some, or reject the plan."
        )
