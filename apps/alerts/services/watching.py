"""Keeping incidents in step with what is wrong.

Problems that have no incident get one; incidents whose problem is over are resolved, and those who
were told of them are told so. Any number of watchers may look at once: a constraint of the database
allows one incident of a problem, and whoever comes second finds it.
"""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from apps.alerts.models import Incident, IncidentEvent, IncidentState, Kind, Severity
from apps.alerts.problems import CONDITIONS, Problem
from apps.alerts.selectors import Policies
from apps.alerts.services.escalating import begin_escalation, tell_of_recovery
from apps.alerts.services.timeline import note
from apps.core.clock import now
from apps.core.services import publish

logger = logging.getLogger("lockstep.alerts")
WORSE = 2  # times as much as when it was snoozed


def watch(moment: datetime | None = None) -> None:
    """Look at everything once, and bring incidents up to date."""
    moment = moment or now()
    policies = Policies.read()
    found, looked_at = _find(moment, policies)
    live = {
        incident.fingerprint: incident
        for incident in Incident.objects.filter(state__in=Incident.LIVE, kind__in=looked_at)
    }
    as_before = []
    for problem in found.values():
        incident = live.pop(problem.fingerprint, None)
        if incident is None:
            _open(problem, moment, policies)
        elif _is_as_before(incident, problem) and not _wakes(incident, moment):
            as_before.append(incident.pk)
        else:
            _see_again(incident.pk, problem, moment, policies)
    Incident.objects.filter(pk__in=as_before).update(last_seen_at=moment)
    for incident in live.values():
        _over(incident.pk)


def _find(moment: datetime, policies: Policies) -> tuple[dict[str, Problem], list[Kind]]:
    """All problems, and the kinds that could be looked at: nothing is said of the others."""
    found: dict[str, Problem] = {}
    looked_at: list[Kind] = []
    for condition, kinds in CONDITIONS.items():
        try:
            problems = list(condition(moment, policies))
        except Exception:
            logger.exception("%s failed; the other conditions go on", condition.__name__)
            continue
        found.update((problem.fingerprint, problem) for problem in problems)
        looked_at += kinds
    return found, looked_at


def _open(problem: Problem, moment: datetime, policies: Policies) -> None:
    """A new incident; the same one again where it was over, unless a person said that it is."""
    last = Incident.objects.filter(fingerprint=problem.fingerprint).order_by("-created_at").first()
    if last is not None and last.resolved_by_id and last.evidence == problem.evidence:
        return  # what that person has resolved is not there anew
    try:
        with transaction.atomic():
            incident = Incident(
                fingerprint=problem.fingerprint,
                kind=problem.kind,
                cause_code=problem.cause,
                rule_id=problem.rule_id,
                source_id=problem.source_id,
                state=IncidentState.OPEN if last is None else IncidentState.REGRESSED,
            )
            _describe(incident, problem, moment)
            incident.save(force_insert=True)
            kind = IncidentEvent.Kind.OPENED if last is None else IncidentEvent.Kind.REGRESSED
            note(incident, kind, problem.text)
            begin_escalation(incident, policies)
            publish("incident.opened", incident.pk, {"kind": incident.kind})
    except IntegrityError:
        logger.info("another watcher has opened the incident %s", problem.fingerprint)


def _is_as_before(incident: Incident, problem: Problem) -> bool:
    """Whether nothing is to be said but that it is still there."""
    seen = (incident.evidence, incident.size, incident.severity, incident.title, incident.text)
    return seen == (
        problem.evidence, problem.size, problem.severity, problem.title[:300], problem.text
    )  # fmt: skip


def _describe(incident: Incident, problem: Problem, moment: datetime) -> None:
    incident.severity = problem.severity
    incident.title = problem.title[:300]
    incident.text = problem.text
    incident.remedy = problem.remedy
    incident.run_id = problem.run_id
    incident.evidence = problem.evidence
    incident.size = problem.size
    incident.last_seen_at = moment


@transaction.atomic
def _see_again(incident_id: UUID, problem: Problem, moment: datetime, policies: Policies) -> None:
    """Bring it up to date; nobody is told again, unless it got worse or its snooze is over."""
    incident = _locked(incident_id)
    if incident is None:
        return
    anew = incident.evidence != problem.evidence
    worse = problem.severity > incident.severity
    if anew:
        incident.times_seen += 1
        note(incident, IncidentEvent.Kind.SEEN, problem.text)
    _describe(incident, problem, moment)
    if worse:
        note(incident, IncidentEvent.Kind.WORSE, Severity(problem.severity).label)
    asleep = incident.state == IncidentState.SNOOZED
    if asleep and (worse or _wakes(incident, moment)):
        incident.state = IncidentState.OPEN
        incident.snoozed_until = incident.snoozed_size = None
        note(incident, IncidentEvent.Kind.WOKEN, problem.text)
        begin_escalation(incident, policies)
    elif worse and incident.is_loud:
        begin_escalation(incident, policies)
    incident.save()


def _wakes(incident: Incident, moment: datetime) -> bool:
    """Whether it was snoozed for long enough, or is much worse now."""
    if incident.state != IncidentState.SNOOZED:
        return False
    if incident.snoozed_until is not None and incident.snoozed_until <= moment:
        return True
    before = incident.snoozed_size or 0
    return incident.size > before and incident.size >= before * WORSE


@transaction.atomic
def _over(incident_id: UUID) -> None:
    """Its problem is not there any more."""
    incident = _locked(incident_id)
    if incident is None:
        return
    incident.state = IncidentState.RESOLVED
    incident.resolved_at = now()
    incident.next_step_at = None
    incident.save()
    note(incident, IncidentEvent.Kind.RESOLVED, "It is over by itself.")
    tell_of_recovery(incident)
    publish("incident.resolved", incident.pk, {"kind": incident.kind})


def _locked(incident_id: UUID) -> Incident | None:
    """The incident, if it is still live."""
    rows = Incident.objects.select_for_update().filter(state__in=Incident.LIVE)
    return rows.filter(pk=incident_id).first()
