"""Keeping incidents in step with what is wrong.

Problems that have no incident get one; incidents whose problem is over are resolved, and those who
were told of them are told so. Any number of watchers may look at once: a constraint of the database
allows one incident of a problem, and whoever comes second finds it. Incidents are read before
problems are: what another watcher ends in between is not opened again by what was true before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any
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
WORSE = 2  # times as much as when it was snoozed, or resolved
SHOWN = ("title", "text", "remedy", "run_id", "size", "last_seen_at")


def watch(moment: datetime | None = None) -> None:
    """Look at everything once, and bring incidents up to date."""
    moment = moment or now()
    policies = Policies.read()
    rows = Incident.objects.filter(over_at=None).order_by("created_at")
    known = {incident.fingerprint: incident for incident in rows}
    found, looked_at = _find(moment, policies)
    as_before = []
    for problem in found.values():
        incident = known.pop(problem.fingerprint, None)
        if incident is None or (not incident.is_live and _is_anew(incident, problem)):
            _try(_open, problem, moment, policies)
        elif not incident.is_live:
            continue  # what a person has resolved is not there anew
        elif _is_quiet(incident, problem, moment):
            _describe(incident, problem, moment)
            as_before.append(incident)
        else:
            _try(_see_again, incident.pk, problem, moment, policies)
    _try(_update, as_before)
    for incident in known.values():
        if incident.kind in looked_at:
            _try(_over, incident.pk, moment, policies)


def _try(act: Callable[..., None], *arguments: Any) -> None:
    """One incident that cannot be brought up to date does not keep the others."""
    try:
        act(*arguments)
    except Exception:
        logger.exception("%s failed; the other incidents go on", act.__name__)


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
    """A new incident; the same one again where there was one before."""
    same = Incident.objects.filter(fingerprint=problem.fingerprint)
    last = same.order_by("-created_at").first()
    try:
        with transaction.atomic():
            same.filter(state=IncidentState.RESOLVED, over_at=None).update(over_at=moment)
            incident = Incident(
                fingerprint=problem.fingerprint,
                kind=problem.kind,
                cause_code=problem.cause,
                rule_id=problem.rule_id,
                source_id=problem.source_id,
                state=IncidentState.OPEN if last is None else IncidentState.REGRESSED,
            )
            _describe(incident, problem, moment)
            begin_escalation(incident, policies)
            incident.save(force_insert=True)
            kind = IncidentEvent.Kind.OPENED if last is None else IncidentEvent.Kind.REGRESSED
            note(incident, kind, problem.text)
            publish("incident.opened", incident.pk, {"kind": incident.kind})
    except IntegrityError:
        logger.info("another watcher has opened the incident %s", problem.fingerprint)


def _is_anew(resolved: Incident, problem: Problem) -> bool:
    """Whether what a person has resolved, and was there ever since, has happened once more."""
    if resolved.evidence != problem.evidence:
        return True
    return not problem.evidence and _is_much_more(resolved.size, problem.size)


def _is_much_more(before: int, size: int) -> bool:
    return size > before and size >= before * WORSE


def _is_quiet(incident: Incident, problem: Problem, moment: datetime) -> bool:
    """Whether there is nothing to tell of it, though its numbers may be others."""
    seen = (incident.evidence, incident.severity)
    if seen != (problem.evidence, problem.severity):
        return False
    if incident.state != IncidentState.SNOOZED:
        return True
    grown = _is_much_more(incident.snoozed_size or 0, problem.size)
    return not (grown or _wakes(incident, moment))


def _update(incidents: list[Incident]) -> None:
    """Write down what is shown of them, for all in one statement."""
    incidents.sort(key=lambda incident: incident.pk)
    Incident.objects.bulk_update(incidents, SHOWN, batch_size=500)


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
    return _is_much_more(incident.snoozed_size or 0, incident.size)


@transaction.atomic
def _over(incident_id: UUID, moment: datetime, policies: Policies) -> None:
    """Its problem is not there any more; a person may have resolved it before."""
    Incident.objects.filter(pk=incident_id, over_at=None).update(over_at=moment)
    incident = _locked(incident_id)
    if incident is None:
        return
    incident.state = IncidentState.RESOLVED
    incident.resolved_at = now()
    incident.next_step_at = None
    incident.save()
    note(incident, IncidentEvent.Kind.RESOLVED, "It is over by itself.")
    tell_of_recovery(incident, policies)
    publish("incident.resolved", incident.pk, {"kind": incident.kind})


def _locked(incident_id: UUID) -> Incident | None:
    """The incident, if it is still live."""
    rows = Incident.objects.select_for_update().filter(state__in=Incident.LIVE)
    return rows.filter(pk=incident_id).first()
