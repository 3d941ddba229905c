"""What is wrong now, read from the rows: the one list that incidents follow.

A problem is there as long as its reason is; nobody has to say that it began or ended. So any number
of watchers may look, none has to have been awake when it happened, and what mends itself is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count, F, Min, OuterRef, Subquery

from apps.alerts.models import Channel, Delivery, Kind, Severity
from apps.alerts.selectors import Policies
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.audit.selectors import last_verification
from apps.core.clock import first_id_at
from apps.ledger.models import Conflict, Rejection
from apps.rules.models import Rule
from apps.runs.models import ENDED_BADLY, ENDED_WELL, Run, RunStatus
from apps.runs.selectors import missed_starts
from apps.sources.models import Drift, Source

SIGN_IN_WINDOW = timedelta(hours=1)
SIGN_IN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    cause: what it is known by, beside its kind and object: an error's code, or empty; size: how
    much of it there is, such as records; evidence: what it was last seen by, another value each
    time that it happens anew.
    """

    kind: Kind
    severity: Severity
    title: str
    text: str
    remedy: str = ""
    cause: str = ""
    rule_id: UUID | None = None
    source_id: UUID | None = None
    run_id: UUID | None = None
    size: int = 1
    evidence: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for the same problem of the same object, whenever it is looked at."""
        about = self.rule_id or self.source_id or ""
        return f"{self.kind}|{about}|{self.cause}"


def failed_runs(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Rules whose last real run, or last verification, failed or was stopped by a guard.

    Neither says anything of the other: what compares well may not be written.
    """
    ended = Run.objects.filter(rule=OuterRef("pk"), status__in=(*ENDED_BADLY, *ENDED_WELL))
    last = {
        mode: Subquery(ended.filter(mode=mode).order_by("-created_at").values("pk")[:1])
        for mode in (Run.Mode.VERIFY, Run.Mode.APPLY)
    }
    rules = Rule.objects.order_by().annotate(**last)
    ids = {pk for row in rules.values_list(*last) for pk in row if pk}
    runs = Run.objects.filter(pk__in=ids, status__in=ENDED_BADLY).order_by("created_at")
    for run in runs.select_related("rule"):
        stopped = run.status == RunStatus.REFUSED
        yield Problem(
            Kind.RUN_STOPPED if stopped else Kind.RUN_FAILED,
            Severity.WARNING if stopped else Severity.CRITICAL,
            f"{run.rule.name}: {_how_it_ended(run)}",
            run.cause or run.get_status_display(),
            run.remedy,
            cause=run.cause_code,
            rule_id=run.rule_id,
            run_id=run.pk,
            evidence=str(run.pk),
        )


def _how_it_ended(run: Run) -> str:
    if run.status == RunStatus.REFUSED:
        return "stopped by a guard"
    return "verification failed" if run.mode == Run.Mode.VERIFY else "run failed"


def refused_starts(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Rules that could not start when they were due last, and have not run since."""
    for missed in missed_starts(Rule.objects.filter(enabled=True, paused=False)):
        yield Problem(
            Kind.NOT_STARTED,
            Severity.CRITICAL,
            f"{missed.rule.name}: did not start when it was due",
            missed.reason,
            "Resume what is paused, or correct the rule.",
            rule_id=missed.rule.pk,
            evidence=missed.due_at.isoformat(),
        )


def stale_rules(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Rules whose last success is older than what is promised for them."""
    done = Run.objects.filter(rule=OuterRef("pk"), mode=Run.Mode.APPLY, status__in=ENDED_WELL)
    last = done.order_by("-created_at").values("finished_at")[:1]
    for rule in Rule.objects.filter(enabled=True).annotate(last=Subquery(last)):
        promised = policies.of(rule).fresh_minutes
        since = rule.last or rule.schedule_since or rule.created_at
        if promised and since + timedelta(minutes=promised) < moment:
            late = int((moment - since).total_seconds() // 60)
            said = f"{late:,} minutes" if rule.last else f"{late:,} minutes, since it was enabled"
            yield Problem(
                Kind.STALE,
                Severity.WARNING,
                f"{rule.name}: not fresh",
                f"The last success is older than the {promised:,} minutes promised: {said}.",
                "See why its runs fail, wait or do not start.",
                rule_id=rule.pk,
                size=late,
                evidence=since.isoformat(),
            )


def many_rejections(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Rules with more records kept out than their policy takes."""
    rows = Rejection.objects.filter(state=Rejection.State.OPEN)
    counted = dict(rows.order_by().values_list("rule_id").annotate(n=Count("pk")))
    for rule in Rule.objects.filter(pk__in=counted):
        most = policies.of(rule).most_rejections
        if most is not None and counted[rule.pk] > most:
            yield Problem(
                Kind.REJECTIONS,
                Severity.WARNING,
                f"{rule.name}: many records kept out",
                f"{counted[rule.pk]:,} records are kept out; up to {most:,} are expected.",
                "Look at the rejections, mend their cause, and replay them.",
                rule_id=rule.pk,
                size=counted[rule.pk],
            )


def waiting_conflicts(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Rules with too many conflicts, or with one that waits for too long."""
    rows = Conflict.objects.filter(state=Conflict.State.OPEN)
    counted = {
        rule_id: (count, oldest)
        for rule_id, count, oldest in rows.order_by()
        .values_list("rule_id")
        .annotate(n=Count("pk"), oldest=Min("created_at"))
    }
    for rule in Rule.objects.filter(pk__in=counted):
        policy, (count, oldest) = policies.of(rule), counted[rule.pk]
        hours = (moment - oldest).total_seconds() / 3600
        many = policy.most_conflicts is not None and count > policy.most_conflicts
        if many or (policy.conflict_hours is not None and hours > policy.conflict_hours):
            yield Problem(
                Kind.CONFLICTS,
                Severity.WARNING,
                f"{rule.name}: conflicts wait",
                f"{count:,} conflicts wait for a decision, the oldest for {hours:,.0f} hours.",
                "Decide them, or give the fields a policy.",
                rule_id=rule.pk,
                size=count,
            )


def waiting_plans(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Plans that wait for a person."""
    waiting = Run.objects.filter(status=RunStatus.WAITING, cancel_requested_at=None)
    for run in waiting.select_related("rule"):
        yield Problem(
            Kind.PLAN_WAITS,
            Severity.NOTICE,
            f"{run.rule.name}: a plan waits for approval",
            f"{run.planned:,} changes wait: {run.waits_for}",
            "Look at the plan; approve or reject it.",
            rule_id=run.rule_id,
            run_id=run.pk,
            size=run.planned,
            evidence=str(run.pk),
        )


def failing_sources(moment: datetime, policies: Policies) -> Iterator[Problem]:
    for source in Source.objects.filter(health=Source.Health.FAILING):
        yield Problem(
            Kind.SOURCE_FAILING,
            Severity.CRITICAL,
            f"{source.name}: cannot be reached",
            "The last connection test failed.",
            "Open the source and test the connection: the step that fails says what to do.",
            source_id=source.pk,
        )


def breaking_drift(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Sources with changes of their schema that break mappings, not marked as seen."""
    rows = Drift.objects.filter(breaking=True, acknowledged_at=None)
    counted = rows.order_by().values("source_id", name=F("source__name"))
    for row in counted.annotate(n=Count("pk")):
        yield Problem(
            Kind.DRIFT,
            Severity.WARNING,
            f"{row['name']}: its schema has changed",
            f"{row['n']:,} changes may break mappings.",
            "Review the changes, adapt the mappings, and mark them as seen.",
            source_id=row["source_id"],
            size=row["n"],
        )


def broken_audit_log(moment: datetime, policies: Policies) -> Iterator[Problem]:
    last = last_verification()
    if last is not None and not last.is_sound:
        yield Problem(
            Kind.AUDIT_BROKEN,
            Severity.CRITICAL,
            "The audit log is not as it was written",
            "The last verification found events that were changed, removed or inserted.",
            "Open the audit log: the verification names them. Keep the database as it is.",
            evidence=str(last.pk),
        )


def refused_sign_ins(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Somebody tries many passwords."""
    since = moment - SIGN_IN_WINDOW
    tried = AuditEvent.objects.filter(action=Act.SIGN_IN_FAILED, id__gte=first_id_at(since)).count()
    if tried >= SIGN_IN_FAILURES:
        yield Problem(
            Kind.SIGN_INS,
            Severity.WARNING,
            "Many sign-ins fail",
            f"{tried:,} sign-ins failed within an hour.",
            "Look at them in the audit log: from where, and with which names.",
            size=tried,
        )


def silent_channels(moment: datetime, policies: Policies) -> Iterator[Problem]:
    """Channels whose last message was given up: what should have been told was not."""
    ended = Delivery.objects.filter(
        channel=OuterRef("pk"), state__in=(Delivery.State.SENT, Delivery.State.FAILED)
    )
    last = ended.order_by("-updated_at").values("pk")[:1]
    ids = list(
        Channel.objects.filter(enabled=True)
        .annotate(last=Subquery(last))
        .values_list("last", flat=True)
    )
    given_up = Delivery.objects.filter(pk__in=ids, state=Delivery.State.FAILED)
    for delivery in given_up.select_related("channel"):
        yield Problem(
            Kind.CHANNEL_SILENT,
            Severity.CRITICAL,
            f"{delivery.channel.name}: messages do not arrive",
            delivery.error,
            "Correct the channel, and send a test message.",
            cause=str(delivery.channel_id),
            evidence=str(delivery.pk),
        )


Condition = Callable[[datetime, Policies], Iterator[Problem]]
CONDITIONS: dict[Condition, tuple[Kind, ...]] = {
    failed_runs: (Kind.RUN_FAILED, Kind.RUN_STOPPED),
    refused_starts: (Kind.NOT_STARTED,),
    stale_rules: (Kind.STALE,),
    many_rejections: (Kind.REJECTIONS,),
    waiting_conflicts: (Kind.CONFLICTS,),
    waiting_plans: (Kind.PLAN_WAITS,),
    failing_sources: (Kind.SOURCE_FAILING,),
    breaking_drift: (Kind.DRIFT,),
    broken_audit_log: (Kind.AUDIT_BROKEN,),
    refused_sign_ins: (Kind.SIGN_INS,),
    silent_channels: (Kind.CHANNEL_SILENT,),
}
"""Each condition with the kinds of problems that it finds."""
