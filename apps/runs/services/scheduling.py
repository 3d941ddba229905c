"""The scheduler's side: start what is due, and mend what a crash left behind.

Due runs are derived from rows, and a due time can be taken once only, so any number of schedulers
may call `tick`; none of them has to survive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from cronsim import CronSimError
from django.db import IntegrityError, transaction
from django.db.models import OuterRef, Q, Subquery

from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.selectors import platform_state
from apps.rules.models import Rule
from apps.rules.schedule import due_times
from apps.rules.selectors import in_dependency_order
from apps.runs.models import ACTIVE_STATUSES, DueRun, Partition, Run, RunStatus
from apps.runs.services.advancing import advance
from apps.runs.services.approving import expire_plans
from apps.runs.services.dispatching import redispatch_lost
from apps.runs.services.requesting import request_run

logger = logging.getLogger(__name__)
CATCH_UP = (timedelta(days=1), timedelta(days=32), timedelta(days=400))
"""How far back missed times are looked for, the next reach only where the one before has none."""


def tick() -> None:
    """Start what is due, send lost work again, move on what a crash left between two steps."""
    steps = (
        redispatch_lost,
        advance_stranded,
        expire_plans,
        start_due_runs,
        start_due_verifications,
    )
    for step in steps:
        try:
            step()
        except Exception:
            logger.exception("%s failed; the other steps of the tick go on", step.__name__)


def advance_stranded() -> None:
    """Runs that are active while none of their partitions waits for work."""
    waiting = Partition.objects.filter(state__in=Partition.WORKABLE).values("run_id")
    moving = ~Q(pk__in=waiting) & ~Q(status=RunStatus.WAITING)
    stranded = Run.objects.filter(
        Q(cancel_requested_at__isnull=False) | moving, status__in=ACTIVE_STATUSES
    )
    for run_id in stranded.values_list("pk", flat=True)[:100]:
        advance(run_id)


def start_due_runs(moment: datetime | None = None) -> list[Run]:
    """Start one run for each enabled rule that is due; times that were missed are one run.

    Rules start in the order of their dependencies; one whose dependency still runs waits for the
    next tick, with its due time untaken.
    """
    moment = moment or now()
    if platform_state().paused:
        return []
    scheduled = Rule.objects.filter(enabled=True).exclude(schedule_kind=Rule.ScheduleKind.MANUAL)
    due = {
        rule: due_at
        for rule in scheduled.select_related("mapping__left__source", "mapping__right__source")
        if (due_at := _due_or_none(rule, moment)) is not None
    }
    started = []
    for rule in _ordered(due):
        waits_for = rule.depends_on.filter(runs__status__in=ACTIVE_STATUSES)
        run = None if waits_for.exists() else _start_due(rule, due[rule])
        if run is not None:
            started.append(run)
    return started


def _due_or_none(rule: Rule, moment: datetime) -> datetime | None:
    """As `latest_due`; a rule whose schedule cannot be reckoned does not stop the others."""
    try:
        return latest_due(rule, moment)
    except (ValueError, LookupError, ArithmeticError, CronSimError):
        logger.exception("the schedule of rule %s cannot be reckoned", rule.pk)
        return None


def start_due_verifications(moment: datetime | None = None) -> list[Run]:
    """Verify each enabled rule whose last verification, or else its enabling, is too long ago.

    While a run of the rule goes on it stays due.
    """
    moment = moment or now()
    if platform_state().paused:
        return []
    verified = Run.objects.filter(rule=OuterRef("pk"), mode=Run.Mode.VERIFY).order_by("-created_at")
    wanted = (
        Rule.objects.filter(enabled=True, paused=False, verify_hours__isnull=False)
        .exclude(runs__status__in=ACTIVE_STATUSES)
        .annotate(verified_at=Subquery(verified.values("created_at")[:1]))
    )
    started = []
    for rule in wanted:
        last = max(filter(None, (rule.verified_at, rule.schedule_since)), default=rule.created_at)
        if last + timedelta(hours=rule.verify_hours or 0) > moment:
            continue
        try:
            started.append(
                request_run(rule, actor=None, mode=Run.Mode.VERIFY, trigger=Run.Trigger.SCHEDULE)
            )
        except LockstepError as error:
            logger.info("rule %s was not verified: %s", rule.pk, error.message)
    return started


def _ordered(rules: Iterable[Rule]) -> list[Rule]:
    """In the order of dependencies; by name while these form a circle."""
    chosen = list(rules)
    try:
        return in_dependency_order(chosen)
    except LockstepError as error:
        logger.warning("%s", error)
        return sorted(chosen, key=lambda rule: rule.name)


def latest_due(rule: Rule, moment: datetime) -> datetime | None:
    """The last due time that has passed and was not taken yet."""
    last = rule.due_runs.order_by("-due_at").values_list("due_at", flat=True).first()
    since = max(filter(None, (last, rule.schedule_since)), default=None)
    if since is None:
        return None
    for reach in CATCH_UP:
        begin = max(since, moment - reach)
        latest = _last_before(rule, begin, moment)
        if latest is not None or begin == since:
            return latest
    return None


def _last_before(rule: Rule, begin: datetime, moment: datetime) -> datetime | None:
    latest = None
    for due_at in due_times(rule, begin):
        if due_at > moment:
            break
        latest = due_at
    return latest


def _start_due(rule: Rule, due_at: datetime) -> Run | None:
    try:
        with transaction.atomic():  # a crash leaves either both rows or none
            due = DueRun.objects.create(rule=rule, due_at=due_at)
            due.run = _request_due(due)
            due.save(update_fields=["run", "skipped", "updated_at"])
            return due.run
    except IntegrityError:  # another scheduler was first
        return None


def _request_due(due: DueRun) -> Run | None:
    try:
        with transaction.atomic():
            return request_run(due.rule, actor=None, trigger=Run.Trigger.SCHEDULE)
    except LockstepError as error:
        due.skipped = error.message[:100]
        logger.warning("rule %s was due and did not start: %s", due.rule_id, error.message)
        return None
