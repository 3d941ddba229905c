"""What the overview shows: is anything wrong, and what do I do?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.alerts.models import Incident, Kind, Severity
from apps.alerts.selectors import live_incidents
from apps.console import services
from apps.core.clock import now
from apps.core.selectors import permits, platform_state, reached, scoped
from apps.ledger.models import Conflict, Rejection
from apps.ledger.selectors import conflicts, rejections
from apps.rules.models import Rule
from apps.rules.schedule import next_due
from apps.rules.selectors import rules
from apps.runs.models import ACTIVE_STATUSES, ENDED_BADLY, RestoreRequest, Run, RunStatus
from apps.runs.selectors import missed_starts, restore_requests, run_progress, runs
from apps.sources.models import Source
from apps.sources.selectors import drifts, sources

GOOD = (RunStatus.SUCCEEDED,)
ISSUES = (RunStatus.PARTIAL,)
BAD = ENDED_BADLY
CHART_DAYS = 14
TICKS = 40
MOST_RULES = 12
MOST_LINES = 8
ONLY_INCIDENTS = (Kind.STALE, Kind.AUDIT_BROKEN, Kind.SIGN_INS, Kind.CHANNEL_SILENT)


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that needs a person, with the one action that helps."""

    title: str
    text: str
    label: str
    url: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Kpi:
    label: str
    value: str
    note: str
    url: str
    tone: str = ""
    needs: tuple[str, ...] = ()  # permissions to see it and what it links to


# Without all of these, "all clear" would say nothing.
WATCHED = (
    "rules.view_rule",
    "runs.view_run",
    "ledger.view_rejection",
    "ledger.view_conflict",
    "sources.view_source",
    "alerts.view_incident",
)


def context(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The theme's dashboard callback."""
    actor = request.user
    moment = now()
    visible = list(rules(actor)[:200])
    recent = _recent_runs(actor, visible)
    last = {rule.pk: recent[rule.pk][-1] for rule in visible if recent.get(rule.pk)}
    state = platform_state()
    chart = runs_per_day(actor, moment)
    return {
        **context,
        "title": "Overview",
        "has_demo": Source.objects.filter(is_demo=True).exists(),
        "may_remove_demo": services.may_remove_demo(actor),
        "built_on_demo": scoped(services.rules_on_demo(), actor).filter(is_demo=False)[:MOST_LINES],
        "platform": state,
        "may_pause": actor.has_perm("core.pause_platform"),
        "checklist": checklist(actor),
        "kpis": kpis(actor, visible, last, moment),
        "attention": attention(actor, visible, last),
        "sees_all": actor.has_perms(WATCHED),
        "sees_any": any(actor.has_perm(permission) for permission in WATCHED),
        "running": [(run, run_progress(run)) for run in _running(actor)],
        "due": due_next(visible, moment) if not state.paused else [],
        "chart": chart,
        "chart_sentence": _chart_sentence(chart),
        "tick_rows": [(rule, _ticks(recent.get(rule.pk, []))) for rule in visible[:MOST_RULES]],
    }


def checklist(actor: Any) -> list[dict[str, Any]] | None:
    """The way to the first real run of own data; None once it is gone."""
    own_runs = reached(Run.objects.filter(rule__is_demo=False), actor)
    first_run = own_runs.filter(mode=Run.Mode.APPLY, status__in=(*GOOD, *ISSUES)).exists()
    if first_run or not permits(actor, Rule, "add"):
        return None
    own_sources = reached(Source.objects.filter(is_demo=False), actor)
    own_rules = reached(Rule.objects.filter(is_demo=False), actor)
    first_rule = own_rules.first()
    rule_url = (
        reverse("admin:rules_rule_change", args=(first_rule.pk,))
        if first_rule
        else reverse("admin:new_sync")
    )
    steps = [
        ("Connect a source", own_sources.exists(), reverse("admin:sources_source_add")),
        ("Map two datasets", first_rule is not None, reverse("admin:new_sync")),
        ("Look at a dry run", own_runs.filter(status=RunStatus.PLANNED).exists(), rule_url),
        ("Have the first real run", first_run, rule_url),
    ]
    current = next((i for i, (_, done, _) in enumerate(steps) if not done), None)
    return [
        {"title": title, "done": done, "url": url, "current": number == current}
        for number, (title, done, url) in enumerate(steps)
    ]


def kpis(actor: Any, visible: list[Rule], last: dict[Any, Run], moment: datetime) -> list[Kpi]:
    """Up to five numbers, each linked to what it counts; none that this person may not see."""
    failing = [rule for rule in visible if rule.pk in last and last[rule.pk].status in BAD]
    paused = sum(1 for rule in visible if rule.paused)
    day = runs(actor).filter(created_at__gte=moment - timedelta(hours=24), mode=Run.Mode.APPLY)
    totals = day.aggregate(
        n=Count("pk"),
        look=Count("pk", filter=Q(status__in=(*ISSUES, *BAD))),
        **{name: Sum(name) for name in ("inserted", "updated", "deleted")},
    )
    open_count = rejections(actor).filter(state=Rejection.State.OPEN).count()
    asking = conflicts(actor).filter(state=Conflict.State.OPEN).count()
    run_list = reverse("admin:runs_run_changelist")
    since = (moment - timedelta(hours=24)).strftime("%Y-%m-%dT%H:%M:%SZ")
    written = sum(totals[name] or 0 for name in ("inserted", "updated", "deleted"))
    healthy = len(visible) - len(failing)
    all_kpis = [
        Kpi(
            "Rules healthy",
            f"{healthy} of {len(visible)}",
            f"{len(failing)} failing, {paused} paused",
            reverse("admin:rules_rule_changelist"),
            "bad" if failing else "",
            ("rules.view_rule",),
        ),
        Kpi(
            "Runs in 24 hours",
            str(totals["n"]),
            f"{totals['look']} need a look",
            f"{run_list}?mode__exact=apply&created_at__gte={since}",
            "warn" if totals["look"] else "",
            ("runs.view_run",),
        ),
        Kpi(
            "Rejections open",
            f"{open_count:,}",
            "records kept out" if open_count else "all clear",
            f"{reverse('admin:ledger_rejection_changelist')}?state__exact=open",
            "warn" if open_count else "",
            ("ledger.view_rejection",),
        ),
        Kpi(
            "Conflicts open",
            f"{asking:,}",
            "records wait for a decision" if asking else "all clear",
            reverse("admin:ledger_conflict_changelist"),
            "warn" if asking else "",
            ("ledger.view_conflict",),
        ),
        Kpi(
            "Rows written in 24 hours",
            f"{written:,}",
            f"{totals['inserted'] or 0:,} new, {totals['updated'] or 0:,} changed, "
            f"{totals['deleted'] or 0:,} deleted",
            f"{reverse('admin:ledger_change_changelist')}?outcome__exact=applied",
            needs=("runs.view_run", "ledger.view_change"),
        ),
    ]
    return [kpi for kpi in all_kpis if actor.has_perms(kpi.needs)]


def attention(actor: Any, visible: list[Rule], last: dict[Any, Run]) -> list[Attention]:
    """Worst first: what failed, what waits for a person, what was kept out, what is paused."""
    found = [*_failed_rules(visible, last), *_refused_starts(visible)]
    found += [*_incidents(actor), *_failing_sources(actor), *_breaking_drift(actor)]
    found += [*_waiting_plans(actor), *_restore_requests(actor)]
    found += _open_by_rule(
        visible,
        conflicts(actor).filter(state=Conflict.State.OPEN),
        "{} conflicts wait for a decision",
        "Decide them",
        reverse("admin:ledger_conflict_changelist") + "?rule={}",
    )
    found += _open_by_rule(
        visible,
        rejections(actor).filter(state=Rejection.State.OPEN),
        "{} records kept out",
        "Look at them",
        reverse("admin:ledger_rejection_changelist") + "?rule={}&state__exact=open",
    )
    found += _unsearchable(visible, runs(actor))
    found += [
        Attention(rule.name, "Paused: it does not run", "Open the rule", _rule_url(rule))
        for rule in visible
        if rule.paused
    ]
    return found[:MOST_LINES]


def _open_by_rule(
    visible: list[Rule], rows: QuerySet[Any], text: str, label: str, url: str
) -> list[Attention]:
    """One line per rule that has some of these rows; text and url take number and rule."""
    counted = dict(rows.order_by().values_list("rule_id").annotate(n=Count("pk")))
    return [
        Attention(rule.name, text.format(f"{counted[rule.pk]:,}"), label, url.format(rule.pk))
        for rule in visible
        if counted.get(rule.pk)
    ]


def _unsearchable(visible: list[Rule], seen: QuerySet[Run]) -> list[Attention]:
    """Rules with runs whose old values could not be read, so that searches do not find them.

    Once is not enough: that may be the moment's fault.
    """
    failing = seen.filter(former_values_kept=False, finished_at__isnull=False)
    failing = failing.filter(former_values_failures__gt=1).order_by("finished_at")
    last = {run.rule_id: run for run in failing[:TICKS]}
    return [
        Attention(
            rule.name,
            "Old values cannot be found by searching: a run's changes cannot be read",
            "See the run's log",
            reverse("admin:runs_run_change", args=(last[rule.pk].pk,)),
        )
        for rule in visible
        if rule.pk in last
    ]


def _waiting_plans(actor: Any) -> list[Attention]:
    waiting = runs(actor).filter(status=RunStatus.WAITING, cancel_requested_at=None)
    return [
        Attention(
            run.rule.name,
            f"{run.planned:,} changes wait for approval: {run.waits_for}",
            "Look at the plan",
            reverse("admin:runs_run_change", args=(run.pk,)),
        )
        for run in waiting.order_by("expires_at")[:MOST_LINES]
    ]


def _restore_requests(actor: Any) -> list[Attention]:
    count = restore_requests(actor).filter(state=RestoreRequest.State.OPEN).count()
    if not count:
        return []
    listing = reverse("admin:runs_restorerequest_changelist")
    text = f"{count:,} wait{'s' if count == 1 else ''} for an answer"
    return [Attention("Restore requests", text, "Answer them", f"{listing}?state__exact=open")]


def _incidents(actor: Any) -> list[Attention]:
    """Those that nobody has taken up and that no other line tells of."""
    loud = live_incidents(actor).filter(state__in=Incident.LOUD, kind__in=ONLY_INCIDENTS)
    return [
        Attention(
            incident.title,
            incident.text,
            "Open the incident",
            reverse("admin:alerts_incident_change", args=(incident.pk,)),
            bad=incident.severity >= Severity.CRITICAL,
        )
        for incident in loud[:MOST_LINES]
    ]


def _rule_url(rule: Rule) -> str:
    return reverse("admin:rules_rule_change", args=(rule.pk,))


def _failed_rules(visible: list[Rule], last: dict[Any, Run]) -> list[Attention]:
    lines = []
    for rule in visible:
        run = last.get(rule.pk)
        if run is not None and run.status in BAD:
            url = reverse("admin:runs_run_change", args=(run.pk,))
            text = run.cause or run.get_status_display()
            lines.append(Attention(rule.name, text[:200], "See cause and remedy", url, bad=True))
    return lines


def _refused_starts(visible: list[Rule]) -> list[Attention]:
    """Rules that could not start when they were due last, and have not run since."""
    live = [rule.pk for rule in visible if rule.enabled and not rule.paused]
    return [
        Attention(
            missed.rule.name,
            f"Did not start when it was due: {missed.reason}",
            "Open the rule",
            _rule_url(missed.rule),
            bad=True,
        )
        for missed in missed_starts(Rule.objects.filter(pk__in=live))
    ]


def _failing_sources(actor: Any) -> list[Attention]:
    return [
        Attention(
            source.name,
            "The last connection test failed",
            "Fix the source",
            reverse("admin:sources_source_change", args=(source.pk,)),
            bad=True,
        )
        for source in sources(actor).filter(health=Source.Health.FAILING)[:MOST_LINES]
    ]


def _breaking_drift(actor: Any) -> list[Attention]:
    waiting = drifts(actor).filter(breaking=True, acknowledged_at=None)
    return [
        Attention(
            f"{drift.source.name}: {drift.dataset_name}",
            str(drift),
            "Review the change",
            reverse("admin:sources_drift_change", args=(drift.pk,)),
            bad=True,
        )
        for drift in waiting[:MOST_LINES]
    ]


def due_next(visible: list[Rule], moment: datetime) -> list[tuple[datetime, Rule]]:
    """The next times at which rules are due, soonest first."""
    live = [rule for rule in visible if rule.enabled and not rule.paused]
    times = [(next_due(rule, moment, 1), rule) for rule in live]
    return sorted(((found[0], rule) for found, rule in times if found), key=lambda p: p[0])[:6]


def runs_per_day(actor: Any, moment: datetime) -> dict[str, Any]:
    """Real runs by day and outcome, as Chart.js takes them."""
    first = timezone.localtime(moment).date() - timedelta(days=CHART_DAYS - 1)
    rows = (
        runs(actor)
        .filter(mode=Run.Mode.APPLY, created_at__date__gte=first)
        .order_by()
        .annotate(day=TruncDate("created_at"))
        .values("day", "status")
        .annotate(n=Count("pk"))
    )
    counts = {(row["day"], row["status"]): row["n"] for row in rows}
    days = [first + timedelta(days=n) for n in range(CHART_DAYS)]
    series = (
        ("Succeeded", GOOD, "#15803d"),
        ("With rejections", ISSUES, "#d97706"),
        ("Failed or refused", BAD, "#dc2626"),
    )
    return {
        "labels": [f"{day.day} {day:%b}" for day in days],
        "datasets": [
            {
                "label": label,
                "data": [sum(counts.get((day, s), 0) for s in statuses) for day in days],
                "backgroundColor": colour,
            }
            for label, statuses, colour in series
        ],
    }


def _chart_sentence(chart: dict[str, Any]) -> str:
    totals = [f"{sum(series['data'])} {series['label'].lower()}" for series in chart["datasets"]]
    return f"Runs per day over the last {CHART_DAYS} days: {', '.join(totals)}."


def _running(actor: Any) -> list[Run]:
    working = runs(actor).filter(status__in=ACTIVE_STATUSES).exclude(status=RunStatus.WAITING)
    return list(working[:MOST_LINES])


def _recent_runs(actor: Any, visible: list[Rule]) -> dict[Any, list[Run]]:
    """The last real runs that ended, oldest first, by rule; one query for all rules."""
    ended = runs(actor).filter(
        mode=Run.Mode.APPLY,
        status__in=(*GOOD, *ISSUES, *BAD),
        rule_id__in=[rule.pk for rule in visible],
    )
    found: dict[Any, list[Run]] = {}
    for run in ended.order_by("-created_at")[: TICKS * max(1, min(len(visible), 25))]:
        found.setdefault(run.rule_id, []).append(run)
    return {pk: ended[:TICKS][::-1] for pk, ended in found.items()}


def _ticks(ended: list[Run]) -> list[tuple[Run, str]]:
    tones = {**dict.fromkeys(GOOD, "good"), **dict.fromkeys(ISSUES, "warn")}
    return [(run, tones.get(RunStatus(run.status), "bad")) for run in ended]
