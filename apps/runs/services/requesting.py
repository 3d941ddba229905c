"""Starting, cancelling and replaying: what people and schedules ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction

from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.core.clock import now
from apps.core.selectors import require
from apps.ledger.models import Rejection
from apps.ledger.selectors import rejections as scoped_rejections
from apps.ledger.services import mark_replaying
from apps.rules.models import Rule
from apps.rules.selectors import rules as scoped_rules
from apps.rules.services import publish
from apps.runs.models import ACTIVE_STATUSES, Partition, Run
from apps.runs.selectors import runs
from apps.runs.services.advancing import advance
from apps.runs.services.context import require_unpaused
from apps.runs.services.dispatching import dispatch
from apps.runs.services.errors import RunRefused
from apps.runs.services.logs import log

if TYPE_CHECKING:
    from apps.accounts.models import User

OF_THEMSELVES = frozenset({Run.Trigger.SCHEDULE, Run.Trigger.DEPENDENCY, Run.Trigger.FOLLOW_UP})


def request_run(
    rule: Rule,
    *,
    actor: User | None,
    mode: str = Run.Mode.APPLY,
    trigger: str = Run.Trigger.MANUAL,
    sweep: bool = False,
    rejections: Sequence[Rejection] = (),
    keys: Sequence[tuple[str, str]] = (),
    asks_approval: bool = False,
    reason: str = "",
) -> Run:
    """Queue a run of the rule's present version. `actor` None is the system itself.

    keys: (left key, right key) of the only records to look at, one of the two may be empty;
    asks_approval: its plan waits for a person, whatever the rule says.
    Raises RunRefused when something is paused or a run of the rule goes on, PermissionDenied,
    and the errors of `rules.services.publish`.
    """
    if actor is not None and not scoped_rules(actor, "run").filter(pk=rule.pk).exists():
        raise PermissionDenied(f"you may not start runs of rule '{rule.name}'")
    require_unpaused(rule)
    return queue_run(
        rule,
        actor=actor,
        rejections=[rejection.pk for rejection in rejections],
        mode=mode,
        trigger=trigger,
        sweep=sweep,
        selection=[list(pair) for pair in keys],
        asks_approval=asks_approval,
        reason=reason[:500],
    )


def queue_run(
    rule: Rule, *, actor: User | None, rejections: Sequence[UUID] = (), **facts: Any
) -> Run:
    """Store a run with these facts and let a worker prepare it. Asks for no permission."""
    version = publish(rule, actor=None)
    try:
        with transaction.atomic():
            run = Run.objects.create(
                rule=rule,
                version=version,
                requested_by=actor,
                rejection_ids=[str(pk) for pk in rejections],
                **facts,
            )
            first = Partition.objects.create(run=run, number=0, kind=Partition.Kind.PREPARE)
            mark_replaying(rejections)
            _record_request(run, len(rejections))
            dispatch([first.pk])
    except IntegrityError:
        active = Run.objects.filter(rule=rule, status__in=ACTIVE_STATUSES).first()
        if active is None:
            raise
        raise _goes_on(active) from None
    log(run, f"Requested: {run.get_trigger_display().lower()}, version {version.number}")
    return run


def _record_request(run: Run, rejections: int) -> None:
    """What somebody asked for; the runs of schedules are told by the runs themselves."""
    if run.trigger in OF_THEMSELVES:
        return
    act = Act.RUN_REQUESTED
    if run.kind == Run.Kind.UNDO:
        act = Act.UNDO_REQUESTED if run.mode == Run.Mode.APPLY else Act.UNDO_PREVIEWED
    details: dict[str, Any] = {
        "rule": str(run.rule_id),
        "version": run.version.number,
        "mode": run.mode,
        "trigger": run.trigger,
    }
    counts = {"records": len(run.selection), "rejections": rejections}
    details |= {name: count for name, count in counts.items() if count}
    subject = Subject.of(run, run.rule.name)
    record(act, subject, actor=run.requested_by, reason=run.reason, details=details)


def unsaved_run(rule: Rule) -> Run:
    """A run that is never stored: what reads of single records take their version from."""
    return Run(rule=rule, version=rule.current_version or publish(rule, actor=None))


def _goes_on(active: Run) -> RunRefused:
    """Why no other run of the rule can start."""
    if active.is_waiting:
        return RunRefused(
            f"a plan of rule '{active.rule.name}' waits for approval since "
            f"{active.waiting_since:%Y-%m-%d %H:%M} UTC",
            remedy="Approve or reject that plan, or cancel its run.",
        )
    return RunRefused(f"a run of rule '{active.rule.name}' goes on already")


def cancel_run(run: Run, *, actor: User | None) -> None:
    """Ask a run to stop; it does so within a batch. What was written stays written."""
    require(actor, runs, "cancel", run)
    with transaction.atomic():
        asked = Run.objects.filter(
            pk=run.pk, status__in=ACTIVE_STATUSES, cancel_requested_at=None
        ).update(cancel_requested_at=now(), cancelled_by=actor)
        if asked:
            record(Act.RUN_CANCELLED, Subject.of(run, run.rule.name), actor=actor)
    if asked:
        log(run, "Cancel was requested")
        advance(run.pk)


def replay_rejections(rejections: Iterable[Rejection], *, actor: User | None) -> list[Run]:
    """Run the rules of these rejections again for just these records, corrected or not.

    Only open rejections whose record is known can be replayed; the next run reads the others.
    """
    require(actor, scoped_rejections, "replay")
    by_rule: dict[UUID, list[Rejection]] = defaultdict(list)
    for rejection in rejections:
        require(actor, scoped_rejections, "replay", rejection)
        waits = rejection.state == Rejection.State.OPEN
        if waits and (rejection.left_key or rejection.sealed_record or rejection.sealed_edit):
            by_rule[rejection.rule_id].append(rejection)
    started, refused = [], []
    for rule_id, chosen in by_rule.items():
        rule = Rule.objects.get(pk=rule_id)
        try:
            started.append(
                request_run(rule, actor=actor, trigger=Run.Trigger.REPLAY, rejections=chosen)
            )
        except RunRefused as error:
            refused.append((rule, error))
    if refused:
        rule, error = refused[0]
        begun = f"{len(started)} of {len(by_rule)} replays were started; " if started else ""
        raise RunRefused(f"{begun}{rule}: {error.message}", remedy=error.remedy) from error
    if not started:
        raise RunRefused(
            "none of these rejections is open and knows its record",
            remedy="Correct the source and run the rule again.",
        )
    return started
