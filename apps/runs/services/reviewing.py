"""Reviewing a plan: the guards judge it, and it passes, waits for a person, or is refused."""

from __future__ import annotations

from datetime import timedelta

from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.services import publish
from apps.engine.guards import PlanCounts, is_guard, judge
from apps.engine.spec import Approval
from apps.ledger.selectors import has_links, link_count
from apps.runs.models import Partition, Run, RunLog, RunStatus
from apps.runs.services.accuracy import accuracy_of
from apps.runs.services.dispatching import dispatch
from apps.runs.services.ending import end, note_cause, sum_counters
from apps.runs.services.errors import NothingUsable
from apps.runs.services.logs import log


def review(run: Run) -> None:
    """Judge the whole plan; then apply it, wait for a person, or stop."""
    sum_counters(run)
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
    everything, rule = run.sees_everything, run.version.spec()
    linked = has_links(run.rule_id)
    empty = run.read == 0 or (rule.two_way is not None and run.read_right == 0)
    judge(
        rule,
        PlanCounts(
            inserts=run.planned_inserts,
            updates=run.planned_updates,
            deletes=run.planned_deletes,
            read=run.read,
            rejected=run.rejected,
            linked=link_count(run.rule_id),
            source_empty=everything and empty,
            target_known=linked or (rule.two_way is None and run.lane != Run.Lane.STREAM),
        ),
    )
    if everything and run.read and run.rejected >= run.read and not run.planned:
        raise NothingUsable(f"all {run.read} records that were read were rejected")


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
    if not run.planned or run.kind == Run.Kind.UNDO:
        return ""
    rule = run.version.spec()
    if objection is not None:
        may_decide = rule.approval is Approval.GUARD and is_guard(objection)
        return objection.message if may_decide else ""
    if run.asks_approval:
        return "it was asked for with approval"
    if rule.approval is Approval.ALWAYS:
        return "the rule asks for approval of every plan"
    if rule.approval is Approval.FIRST and not _was_applied(run):
        return "no plan of the rule has been applied yet"
    return ""


def _was_applied(run: Run) -> bool:
    done = (RunStatus.SUCCEEDED, RunStatus.PARTIAL)
    runs = Run.objects.filter(rule_id=run.rule_id, mode=Run.Mode.APPLY, kind=Run.Kind.SYNC)
    return runs.filter(status__in=done).exclude(pk=run.pk).exists()


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
    ids = list(planned.values_list("pk", flat=True))
    planned.update(state=Partition.State.TO_APPLY, lease_until=None, not_before=None, failures=0)
    dispatch(ids)


def refuse(run: Run, error: LockstepError) -> None:
    """A guard stopped the plan: nothing is written."""
    abandon(run, RunStatus.REFUSED, error, f"Refused: {error.message}")


def abandon(run: Run, status: RunStatus, error: LockstepError, line: str) -> None:
    """End a run whose plan is not to be applied."""
    note_cause(run, error)
    run.partitions.filter(state=Partition.State.PLANNED).update(state=Partition.State.CANCELLED)
    log(run, line, level=RunLog.Level.ERROR)
    end(run, status)
