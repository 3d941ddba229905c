"""Reads of the audit log: what a filter shows, a page at a time, by index alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from functools import reduce
from operator import and_, or_
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import connection
from django.db.models import BooleanField, Func, Q, QuerySet, Value
from django.utils import timezone
from django.utils.dateparse import parse_date

from apps.audit.actions import SUBJECTS, Act, actions_of
from apps.audit.canonical import unpacked_ids
from apps.audit.models import (
    AuditEvent,
    AuditPending,
    AuditSeal,
    AuditVerification,
    Outcome,
    SavedFilter,
)
from apps.audit.origin import plain_address
from apps.core.clock import first_id_at
from apps.core.selectors import scoped, without_grants

# The stream is about everything: whoever may read it reads it whole.
without_grants(AuditEvent, SavedFilter)

SEARCHED = ("actor_label", "object_label", "reason")
LABELS = {
    "action": "Action",
    "outcome": "Outcome",
    "actor": "Actor",
    "actor_id": "Actor's id",
    "object_type": "Kind of object",
    "object_id": "Object's id",
    "address": "Address",
    "request": "Request",
    "since": "From",
    "until": "To",
    "q": "Search",
}
WHOLE_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
EXPORT_CHUNK = 1_000
NEAREST_SEALS = 10


class TextMatches(Func):
    """Whether the words of an event begin with all of these; the migration indexes the same."""

    output_field = BooleanField()
    document = "actor_label || ' ' || object_label || ' ' || reason"
    template = f"to_tsvector('simple', {document}) @@ to_tsquery('simple', %(expressions)s)"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What somebody looks for; lives in the address. Empty: everything.

    action: a dotted name, or a first part with a dot, such as `rule.`; actor, object_id, address
    and request: whole values; since, until: dates, both included, in the person's time zone; q:
    words that names and reasons begin with, or the whole id of an object, a request or an event.
    """

    action: str = ""
    outcome: str = ""
    actor: str = ""
    actor_id: str = ""
    object_type: str = ""
    object_id: str = ""
    address: str = ""
    request: str = ""
    since: str = ""
    until: str = ""
    q: str = ""

    @classmethod
    def of(cls, params: Mapping[str, str]) -> EventFilter:
        """From an address or a form."""
        names = [field.name for field in fields(cls)]
        return cls(**{n: params.get(n, "").replace("\x00", "").strip()[:200] for n in names})

    @property
    def narrows(self) -> bool:
        return self != EventFilter()

    @property
    def problems(self) -> list[str]:
        """What makes no sense in it, a sentence each: nothing is shown then."""
        found = []
        if self.action and not self._actions():
            found.append(f"There is no action “{self.action}”. Choose one from the list.")
        if self.outcome and self.outcome not in Outcome.values:
            found.append(f"There is no outcome “{self.outcome}”. Choose one from the list.")
        for name in ("since", "until"):
            if getattr(self, name) and _date(getattr(self, name)) is None:
                label = LABELS[name].lower()
                found.append(f"“{getattr(self, name)}” ({label}) is no date. Write YYYY-MM-DD.")
        return found

    def as_query(self) -> str:
        """The same as part of an address."""
        return urlencode(self.given)

    def words(self) -> list[tuple[str, str]]:
        """What narrows, for people."""
        return [(LABELS[name], self._words_of(name, value)) for name, value in self.given]

    @property
    def given(self) -> list[tuple[str, str]]:
        """What narrows, by name."""
        values = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return [(name, value) for name, value in values.items() if value]

    @staticmethod
    def _words_of(name: str, value: str) -> str:
        if name == "action":
            return SUBJECTS.get(value.rstrip("."), value)
        return value

    def _actions(self) -> list[Act]:
        if self.action.endswith("."):
            return actions_of(self.action[:-1])
        return [Act(self.action)] if self.action in Act.values else []

    def conditions(self) -> Q | None:
        """The filter as a condition; None where it can match nothing."""
        if self.problems:
            return None
        found = [*self._exact(), *self._span()]
        if self.action:
            found.append(Q(action__in=[action.value for action in self._actions()]))
        if self.q:
            found.append(_search(self.q))
        return reduce(and_, found, Q())

    def _exact(self) -> Iterator[Q]:
        columns = {
            "outcome": "outcome",
            "actor": "actor_label",
            "actor_id": "actor_id",
            "object_type": "object_type",
            "object_id": "object_id",
            "request": "request_id",
        }
        for name, column in columns.items():
            if getattr(self, name):
                yield Q(**{column: getattr(self, name)})
        if self.address:
            yield Q(address=plain_address(self.address) or self.address)

    def _span(self) -> Iterator[Q]:
        """Ids sort by time, so dates are a range of ids."""
        since, until = _date(self.since), _date(self.until)
        if since:
            yield Q(id__gte=first_id_at(_midnight(since)))
        if until:
            yield Q(id__lt=first_id_at(_midnight(until + timedelta(days=1))))


def _date(text: str) -> date | None:
    try:
        found = parse_date(text) if text else None
    except ValueError:
        return None
    # Ids hold times since 1970; a day is added to the last one.
    return found if found and 1970 <= found.year < 9999 else None


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, datetime.min.time()))


def _search(text: str) -> Q:
    if WHOLE_ID.fullmatch(text):
        one = UUID(text)
        return Q(pk=one) | Q(request_id=one.hex) | Q(object_id=str(one))
    words = re.findall(r"\w+", text)
    if not words:
        return Q(pk__in=[])
    if connection.vendor == "postgresql":
        return Q(TextMatches(Value(" & ".join(f"'{word}':*" for word in words))))
    return reduce(and_, [_contains(word) for word in words])


def _contains(word: str) -> Q:
    return reduce(or_, [Q(**{f"{column}__icontains": word}) for column in SEARCHED])


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, newest first, and the ids to go on from; None where there are no more."""

    events: list[AuditEvent]
    older: UUID | None
    newer: UUID | None


def events(actor: Any, action: str = "view") -> QuerySet[AuditEvent]:
    return scoped(AuditEvent.objects.all(), actor, action)


def matching(wanted: EventFilter, actor: Any) -> QuerySet[AuditEvent]:
    """The events that a filter shows to this person."""
    condition = wanted.conditions()
    return events(actor).none() if condition is None else events(actor).filter(condition)


def event_page(
    wanted: EventFilter, actor: Any, *, before: UUID | None, after: UUID | None, limit: int
) -> EventPage:
    """One page: the newest events before an id, or the oldest after one. Nothing is counted."""
    rows = matching(wanted, actor)
    if after is not None:
        found = list(rows.filter(id__gt=after).order_by("id")[: limit + 1])
        shown = found[:limit][::-1]
        newer = shown[0].id if len(found) > limit else None
        return EventPage(shown, shown[-1].id if shown else None, newer)
    if before is not None:
        rows = rows.filter(id__lt=before)
    found = list(rows.order_by("-id")[: limit + 1])
    shown = found[:limit]
    newer = shown[0].id if shown and before is not None else None
    return EventPage(shown, shown[-1].id if len(found) > limit else None, newer)


def exported_events(wanted: EventFilter, actor: Any, before: UUID) -> Iterator[AuditEvent]:
    """Everything that a filter shows and that is older than `before`, newest first."""
    rows = matching(wanted, actor).order_by("-id")
    chunk = list(rows.filter(id__lt=before)[:EXPORT_CHUNK])
    while chunk:
        yield from chunk
        chunk = list(rows.filter(id__lt=chunk[-1].id)[:EXPORT_CHUNK])


def seal_of(event: AuditEvent) -> AuditSeal | None:
    """The seal that covers an event, None while it waits for one.

    Nearly always it is one of the last that begin before the event; an event that committed late
    may be in any that ends after it.
    """
    if AuditPending.objects.filter(event_id=event.id).exists():
        return None
    begun = AuditSeal.objects.filter(first_event_id__lte=event.id).order_by("-first_event_id")
    for rows in (begun[:NEAREST_SEALS], begun.filter(last_event_id__gte=event.id)):
        for seal in rows.iterator(chunk_size=NEAREST_SEALS):
            if seal.last_event_id >= event.id and event.id in unpacked_ids(seal.event_ids):
                return seal
    return None


def last_verification() -> AuditVerification | None:
    return AuditVerification.objects.order_by("-id").first()


def saved_filters(actor: Any) -> QuerySet[SavedFilter]:
    """The person's own."""
    return SavedFilter.objects.filter(owner_id=actor.pk)
