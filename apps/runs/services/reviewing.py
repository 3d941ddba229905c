"""Reviewing a plan: the guards judge it, and it passes, waits for a person, or is refused."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.db.models import Q

from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.services import publish
from apps.engine.guards import PlanCounts, is_guard, judge
from apps.engine.spec import Approval, DeletePolicy, RuleSpec
from apps.ledger.selectors import link_count, link_floor
from apps.runs.models import ENDED_WELL, Partition, RestoreRequest, Run, RunLog, RunStatus
from apps.runs.selectors import runs
from apps.runs.services.accuracy import accuracy_of
from apps.runs.services.cutting import plan_whole
from apps.runs.services.dispatching import dispatch_run
from apps.runs.services.ending import end, note_cause, sum_counters
from apps.runs.services.errors import NothingUsable
from apps.runs.services.locations import moved_sources
from apps.runs.services.logs import log

ALWAYS = "the rule asks for approval of every plan"


def review(run: Run, parts: Sequence[Partition]) -> None:
    """Judge the whole plan; then apply it, wait for a person, or stop. parts: all of the run."""
    sum_counters(run, parts)
    if _was_cut_in_vain(run):
        plan_whole(run)
        return
    run.planned_at = run.planned_at or now()
    run.status = RunStatus.REVIEWING
    run.save()
    objection = _objection(run)
    if run.is_dry:
        _end_dry(run, objection)
        return
    waits_for = reason_to_wait(run, objection)
    if waits_for:
        wait(run, waits_for)
    elif objection is not None:
        refuse(run, objection)
    else:
        begin_apply(run)


def _was_cut_in_vain(run: Run) -> bool:
    """Whether one part held deletes back, for a record that may be any, and others did not."""
    if not run.deletes_held_back or not run.partitions.exclude(cut=Partition.Cut.NONE).exists():
        return False
    rule = run.version.spec()
    two_way = rule.two_way
    marks = DeletePolicy.MARK in (rule.on_delete, two_way.on_right_delete if two_way else None)
    return bool(run.planned_deletes or (marks and run.planned_updates))


def passes_review(run_id: UUID) -> bool:
    """Whether a plan that one partition has just completed may be written at once.

    Within the transaction that completes it.
    """
    run = Run.objects.select_for_update().get(pk=run_id)
    sum_counters(run)
    run.save()
    objection = _objection(run)
    return objection is None and not reason_to_wait(run, None)


def _objection(run: Run) -> LockstepError | None:
    """What the guards say against the plan. Undoing is guarded by its preconditions alone."""
    if run.kind == Run.Kind.UNDO:
        return None
    try:
        _judge(run)
    except LockstepError as error:
        return error
    return None


def _judge(run: Run) -> None:
    """Raises what the guards say against the plan."""
    rule, least = run.version.spec(), link_floor(run.rule_id)
    try:
        judge(rule, _counts(run, rule, least))
    except LockstepError:
        judge(rule, _counts(run, rule, link_count(run.rule_id)))
    everything = run.sees_everything
    if everything and run.read and run.rejected >= run.read and not run.planned:
        raise NothingUsable(f"all {run.read} records that were read were rejected")


def _counts(run: Run, rule: RuleSpec, linked: int) -> PlanCounts:
    """What the guards judge. linked: as many links as there are, or fewer, but for none."""
    linked = linked or link_count(run.rule_id)
    empty = run.read == 0 or (rule.two_way is not None and run.read_right == 0)
    return PlanCounts(
        inserts=run.planned_inserts,
        updates=run.planned_updates,
        deletes=run.planned_deletes,
        read=run.read,
        rejected=run.rejected,
        linked=linked,
        source_empty=run.sees_everything and empty,
        target_known=linked > 0 or (rule.two_way is None and run.lane != Run.Lane.STREAM),
    )


def _end_dry(run: Run, objection: LockstepError | None) -> None:
    if objection is not None:
        log(run, f"Would be refused: {objection.message}", level=RunLog.Level.WARNING)
        note_cause(run, objection)
    waits_for = reason_to_wait(run, objection)
    if waits_for and run.mode == Run.Mode.DRY_RUN:
        log(run, f"Would wait for approval: {waits_for}")
    run.partitions.filter(kind=Partition.Kind.RECORDS).update(state=Partition.State.DONE)
    log(run, "Nothing was written")
    if run.mode == Run.Mode.VERIFY:
        run.accuracy = accuracy_of(run)
        differs = run.planned or run.conflicts or run.rejected
        end(run, RunStatus.PARTIAL if differs else RunStatus.SUCCEEDED)
    else:
        end(run, RunStatus.PLANNED)


def reason_to_wait(run: Run, objection: LockstepError | None) -> str:
    """Why a person has to approve the plan; empty where nobody has to.

    objection: what the guards say; only the policy `guard` lets a person decide about that.
    """
    if not run.planned:
        return ""
    rule = run.version.spec()
    if run.kind == Run.Kind.UNDO:
        waits = rule.approval is Approval.ALWAYS and not _is_approved_already(run, rule)
        return ALWAYS if waits else ""
    if objection is not None:
        may_decide = rule.approval is Approval.GUARD and is_guard(objection)
        return objection.message if may_decide else ""
    if run.asks_approval:
        return "it was asked for with approval"
    if rule.approval is Approval.ALWAYS:
        return ALWAYS
    if moved := moved_sources(run.rule):
        return f"{' and '.join(moved)} leads elsewhere than in the rule's last run"
    if rule.approval is Approval.FIRST and not _was_applied(run):
        return "no plan of the rule has been applied yet"
    return ""


def _is_approved_already(run: Run, rule: RuleSpec) -> bool:
    """Whether whoever began an undo may approve it, and a second person was there if need be.

    They have seen its preview. Of a restore request, the one who asked is the other person.
    """
    actor = run.requested_by
    if actor is None:
        return not rule.four_eyes
    if not runs(actor, "approve").filter(pk=run.pk).exists():
        return False
    asked = RestoreRequest.objects.filter(undo=run).exclude(requested_by=None)
    return not rule.four_eyes or asked.exclude(requested_by=actor).exists()


def _was_applied(run: Run) -> bool:
    """Whether a plan about all records was let through whole: some of them say little of the rest.

    Nor does a run that had nothing to write.
    """
    runs = Run.objects.filter(rule_id=run.rule_id, mode=Run.Mode.APPLY, kind=Run.Kind.SYNC)
    whole = runs.filter(status__in=ENDED_WELL, rejection_ids=[], selection=[], skipped=0)
    wrote = Q(planned_inserts__gt=0) | Q(planned_updates__gt=0) | Q(planned_deletes__gt=0)
    return whole.filter(wrote).exclude(pk=run.pk).exists()


def wait(run: Run, waits_for: str) -> None:
    """Let the plan wait for a person until it expires."""
    run.status = RunStatus.WAITING
    run.waits_for = waits_for[:255]
    run.waiting_since = now()
    hours = run.version.spec().approval_hours
    run.expires_at = run.waiting_since + timedelta(hours=hours)
    run.save()
    log(run, f"Waiting for approval, at most {hours} hours: {waits_for}")
    publish("run.waiting", run.pk, {"rule": str(run.rule_id), "reason": waits_for})


def begin_apply(run: Run) -> None:
    """Let workers apply every partition that is planned."""
    run.status = RunStatus.APPLYING
    run.save()
    planned = run.partitions.filter(kind=Partition.Kind.RECORDS, state=Partition.State.PLANNED)
    planned.update(
        state=Partition.State.TO_APPLY,
        lease_until=None,
        not_before=None,
        dispatched_at=None,
        failures=0,
        updated_at=now(),  # from now on they wait for a worker
    )
    dispatch_run(run.pk)


def refuse(run: Run, error: LockstepError) -> None:
    """A guard stopped the plan: nothing is written."""
    abandon(run, RunStatus.REFUSED, error, f"Refused: {error.message}")


def abandon(run: Run, status: RunStatus, error: LockstepError, line: str) -> None:
    """End a run whose plan is not to be applied."""
    note_cause(run, error)
    run.partitions.filter(state=Partition.State.PLANNED).update(state=Partition.State.CANCELLED)
    log(run, line, level=RunLog.Level.ERROR)
    end(run, status)
