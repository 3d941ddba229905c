"""Figures of the platform, reckoned from the rows when somebody asks for them.

Nothing is counted in processes: whichever of them answers says the same, and a restart forgets
nothing. Each figure is an index read; what goes over all history is reckoned for the last hour.
Rules that the asking account does not reach are in none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import Count, Min, OuterRef, Q, Subquery, Sum
from django.db.models.functions import Coalesce, Greatest
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from apps.alerts.models import Incident, Severity
from apps.alerts.selectors import incidents
from apps.core.clock import now
from apps.core.selectors import permits, platform_state
from apps.ledger.models import Conflict, Rejection
from apps.ledger.selectors import conflicts, rejections
from apps.rules.models import Rule
from apps.rules.selectors import rules
from apps.runs.models import ACTIVE_STATUSES, ENDED_BADLY, ENDED_WELL, Partition, Run
from apps.runs.selectors import partitions, runs

ENDED = (*ENDED_WELL, *ENDED_BADLY)
HOUR = timedelta(hours=1)
WRITTEN = ("inserted", "updated", "deleted")
MOVED = ("bytes_read", "bytes_written")
Family = Iterator[GaugeMetricFamily]


def exposition(actor: Any) -> str:
    """All figures in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(actor))
    return generate_latest(registry).decode()


class _Figures(Collector):
    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def collect(self) -> Family:
        yield _gauge(
            "lockstep_paused", "1 while everything is paused.", int(platform_state().paused)
        )
        yield from self._rules()
        yield from self._runs()
        yield from self._partitions()
        yield from self._open("rejections", Rejection, rejections(self.actor))
        yield from self._open("conflicts", Conflict, conflicts(self.actor))
        yield from self._incidents()

    def _rules(self) -> Family:
        """How each rule is: what its last run came to, and when it last succeeded."""
        ended = Run.objects.filter(rule=OuterRef("pk"), mode=Run.Mode.APPLY).order_by("-created_at")
        found = rules(self.actor).annotate(
            last_status=Subquery(ended.filter(status__in=ENDED).values("status")[:1]),
            succeeded_at=Subquery(ended.filter(status__in=ENDED_WELL).values("finished_at")[:1]),
        )
        enabled = _family("lockstep_rule_enabled", "1: its schedule starts runs.", "rule")
        failing = _family("lockstep_rule_failing", "1: its last run failed or was stopped.", "rule")
        success = _family(
            "lockstep_rule_last_success_timestamp_seconds", "When it last succeeded.", "rule"
        )
        for rule in found:
            enabled.add_metric([rule.name], int(rule.enabled and not rule.paused))
            if rule.last_status:
                failing.add_metric([rule.name], int(rule.last_status not in ENDED_WELL))
            if rule.succeeded_at:
                success.add_metric([rule.name], rule.succeeded_at.timestamp())
        yield from (enabled, failing, success)

    def _runs(self) -> Family:
        active = _family("lockstep_runs_active", "Runs that go on, by status.", "status")
        going = runs(self.actor).filter(status__in=ACTIVE_STATUSES).order_by()
        counted = dict(going.values_list("status").annotate(n=Count("pk")))
        for status in ACTIVE_STATUSES:
            active.add_metric([status], counted.get(status, 0))
        yield active
        recent = runs(self.actor).filter(finished_at__gte=now() - HOUR, mode=Run.Mode.APPLY)
        ended = _family(
            "lockstep_runs_last_hour", "Runs that ended in the last hour, by status.", "status"
        )
        counted = dict(recent.order_by().values_list("status").annotate(n=Count("pk")))
        for status in ENDED:
            ended.add_metric([status], counted.get(status, 0))
        yield ended
        sums = recent.aggregate(**{name: Sum(name) for name in (*WRITTEN, *MOVED)})
        records = _family(
            "lockstep_records_last_hour",
            "Written by runs that ended in the last hour.",
            "operation",
        )
        for name in WRITTEN:
            records.add_metric([name], sums[name] or 0)
        yield records
        sizes = _family(
            "lockstep_bytes_last_hour", "Moved by runs that ended in the last hour.", "direction"
        )
        for name in MOVED:
            sizes.add_metric([name.removeprefix("bytes_")], sums[name] or 0)
        yield sizes

    def _partitions(self) -> Family:
        """Work that nobody has taken yet: what tells whether there are enough workers.

        Not what is not due yet, waits for one of a limited number of places, or is to stop.
        """
        moment = now()
        unheld = Q(lease_until=None) | Q(lease_until__lt=moment)
        due = Q(not_before=None) | Q(not_before__lte=moment)
        waiting = partitions(self.actor).filter(
            unheld,
            due,
            state__in=Partition.WORKABLE,
            place_wanted_at=None,
            run__status__in=ACTIVE_STATUSES,
            run__cancel_requested_at=None,
        )
        since = Greatest(
            "updated_at", *(Coalesce(name, "updated_at") for name in ("not_before", "lease_until"))
        )
        found = waiting.aggregate(n=Count("pk"), since=Min(since))
        age = (moment - found["since"]).total_seconds() if found["since"] else 0.0
        yield _gauge("lockstep_partitions_waiting", "Units of work nobody works on.", found["n"])
        yield _gauge(
            "lockstep_partitions_oldest_seconds", "How long the oldest of them waits.", age
        )

    def _open(self, name: str, model: Any, rows: Any) -> Family:
        if not permits(self.actor, model, "view"):
            return
        family = _family(f"lockstep_{name}_open", f"Open {name}, by rule.", "rule")
        open_rows = rows.filter(state=model.State.OPEN).order_by()
        counted = dict(open_rows.values_list("rule_id").annotate(n=Count("pk")))
        for pk, rule in Rule.objects.filter(pk__in=counted).values_list("pk", "name"):
            family.add_metric([rule], counted[pk])
        yield family

    def _incidents(self) -> Family:
        if not permits(self.actor, Incident, "view"):
            return
        live = incidents(self.actor).filter(state__in=Incident.LIVE).order_by()
        counted = {
            (severity, state): number
            for severity, state, number in live.values_list("severity", "state").annotate(
                n=Count("pk")
            )
        }
        family = GaugeMetricFamily(
            "lockstep_incidents", "Incidents that are not over.", labels=["severity", "state"]
        )
        for severity in Severity:
            for state in Incident.LIVE:
                labels = [severity.label.lower(), state.value]
                family.add_metric(labels, counted.get((severity, state), 0))
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=[label])
