"""Sending what is to be told, again and again for half a day; then it is given up, and said so."""

from __future__ import annotations

import json
import logging
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F
from django.urls import reverse

from apps.alerts.models import Channel, Delivery, Incident
from apps.alerts.services.channels import send_mail, send_webhook
from apps.alerts.services.errors import NotDelivered
from apps.connectors.errors import Action, LockstepError
from apps.core.clock import now

logger = logging.getLogger("lockstep.alerts")
AT_ONCE = 100
LEASE = timedelta(minutes=2)
MOST_ATTEMPTS = 12
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 2 * 3600.0


def deliver_due() -> int:
    """Send what is due; how many arrived."""
    due = Delivery.objects.filter(state=Delivery.State.PENDING, next_attempt_at__lte=now())
    sent = 0
    for pk in list(due.order_by("next_attempt_at").values_list("pk", flat=True)[:AT_ONCE]):
        if not _claim(pk):
            continue
        delivery = Delivery.objects.select_related("incident", "channel").filter(pk=pk).first()
        if delivery is None:
            continue  # deleted meanwhile, with its channel or its rule
        if delivery.attempts > MOST_ATTEMPTS:  # whoever sent it died each time
            _not_sent(delivery, NotDelivered("it was tried too often, and nobody knows the result"))
        elif delivery.incident_id and not delivery.channel.enabled:
            _facts(delivery, state=Delivery.State.DROPPED, next_attempt_at=None)
        else:
            sent += _send(delivery)
    return sent


def _claim(pk: UUID) -> bool:
    """Whether this process sends it: others leave it alone for a while."""
    moment = now()
    rows = Delivery.objects.filter(pk=pk, state=Delivery.State.PENDING, next_attempt_at__lte=moment)
    claimed = rows.update(
        next_attempt_at=moment + LEASE, attempts=F("attempts") + 1, updated_at=moment
    )
    return bool(claimed)


def _send(delivery: Delivery) -> bool:
    channel = delivery.channel
    try:
        if channel.kind == Channel.Kind.MAIL:
            send_mail(delivery.recipient, subject_of(delivery), text_of(delivery))
        else:
            body = json.dumps(content_of(delivery), ensure_ascii=False).encode()
            send_webhook(channel, str(delivery.pk), body)
    except LockstepError as error:
        _not_sent(delivery, error)
        return False
    except Exception as error:
        logger.exception("delivery %s failed", delivery.pk)
        _not_sent(delivery, NotDelivered(f"something went wrong ({type(error).__name__})"))
        return False
    Delivery.objects.filter(pk=delivery.pk).update(
        state=Delivery.State.SENT, sent_at=now(), next_attempt_at=None, error="", updated_at=now()
    )
    return True


def _not_sent(delivery: Delivery, error: LockstepError) -> None:
    """Later again, with growing pauses; never where trying again does not help."""
    facts: dict[str, Any] = {"error": f"{error.message}. {error.remedy}"[:300]}
    if error.action is not Action.RETRY or delivery.attempts >= MOST_ATTEMPTS:
        facts |= {"state": Delivery.State.FAILED, "next_attempt_at": None}
    else:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (delivery.attempts - 1))
        spread = random.uniform(0.8, 1.2)  # noqa: S311  # nosec B311  # only spreads retries
        facts["next_attempt_at"] = now() + timedelta(seconds=pause * spread)
    _facts(delivery, **facts)


def _facts(delivery: Delivery, **facts: Any) -> None:
    """What became of it, unless somebody has dropped it meanwhile."""
    rows = Delivery.objects.filter(pk=delivery.pk, state=Delivery.State.PENDING)
    rows.update(**facts, updated_at=now())


def url_of(incident: Incident) -> str:
    """Where people handle it."""
    path = reverse("admin:alerts_incident_change", args=(incident.pk,))
    return f"{settings.LOCKSTEP['PUBLIC_URL']}{path}"


def subject_of(delivery: Delivery) -> str:
    incident = delivery.incident
    if incident is None:
        return "Lockstep: a test message"
    word = "Over" if delivery.occasion == "over" else incident.get_severity_display()
    return f"[{word}] {incident.title}"


def text_of(delivery: Delivery) -> str:
    """A mail: what happened, what helps, where to go. No value of a record is in it."""
    incident = delivery.incident
    if incident is None:
        return f"This is a test of the channel '{delivery.channel.name}'. It works.\n"
    if delivery.occasion == "over":
        ended = f"Resolved by {incident.resolved_by}" if incident.resolved_by else "Over by itself"
        lines = [f"{ended}.", incident.fix]
    else:
        code = f"({incident.error_code})" if incident.error_code else ""
        seen = f"Seen {incident.times_seen} times." if incident.times_seen > 1 else ""
        lines = [f"{incident.text} {code}".strip(), incident.remedy, seen]
    parts = [incident.title, *(line for line in lines if line), url_of(incident)]
    return "\n\n".join(parts) + "\n"


def content_of(delivery: Delivery) -> dict[str, Any]:
    """The JSON of a webhook."""
    incident = delivery.incident
    if incident is None:
        return {
            "type": "channel.test",
            "timestamp": now().isoformat(),
            "data": {"channel": delivery.channel.name},
        }
    return {
        "type": "incident.resolved" if delivery.occasion == "over" else "incident.told",
        "timestamp": now().isoformat(),
        "data": {
            "id": str(incident.pk),
            "kind": incident.kind,
            "severity": incident.get_severity_display().lower(),
            "state": incident.state,
            "title": incident.title,
            "text": incident.text,
            "remedy": incident.remedy,
            "code": incident.error_code,
            "rule": str(incident.rule_id) if incident.rule_id else None,
            "source": str(incident.source_id) if incident.source_id else None,
            "run": str(incident.run_id) if incident.run_id else None,
            "times_seen": incident.times_seen,
            "size": incident.size,
            "began_at": incident.created_at.isoformat(),
            "resolved_at": incident.resolved_at.isoformat() if incident.resolved_at else None,
            "url": url_of(incident),
        },
    }
