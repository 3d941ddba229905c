"""What a verification finds, in words for people and in facts for machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from apps.audit.models import AuditEvent
from apps.core.clock import EPOCH

MOST_KEPT = 1_000
MOST_SHOWN = 50


class Kind(StrEnum):
    """What is wrong."""

    CHANGED = "changed"  # an event is not as it was written
    MISSING = "missing"  # an event that was written is gone
    INSERTED = "inserted"  # an event that Lockstep did not write
    UNCOVERED = "uncovered"  # written by Lockstep, but neither sealed nor waiting for it
    SEAL_CHANGED = "seal_changed"
    SEAL_MISSING = "seal_missing"
    CHECKPOINT = "checkpoint"  # a line of the checkpoints says something else, or nothing
    KEY_MISSING = "key_missing"  # not wrong, but not proven right either


OF_ROWS = frozenset({Kind.CHANGED, Kind.MISSING, Kind.INSERTED, Kind.UNCOVERED})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: with an event, a seal, or both."""

    kind: Kind
    text: str
    event_id: UUID | None = None
    seal: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "event": str(self.event_id) if self.event_id else None,
            "seal": self.seal,
            "text": self.text,
        }


@dataclass(slots=True)
class Report:
    """What a verification looked at and found.

    events, seals, waiting (for a seal), checkpoints: how many were looked at.
    """

    started_at: datetime
    events: int = 0
    seals: int = 0
    waiting: int = 0
    checkpoints: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.counts

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep the first thousand."""
        self.counts[finding.kind.value] += 1
        if len(self.findings) < MOST_KEPT:
            self.findings.append(finding)

    @property
    def first(self) -> Finding | None:
        """The first event that was changed, inserted or is missing; else the first finding."""
        ordered = self.in_order()
        return ordered[0] if ordered else None

    def in_order(self) -> list[Finding]:
        """Events first, by time; then seals, by number."""
        return sorted(
            self.findings,
            key=lambda f: (f.kind not in OF_ROWS, f.event_id or UUID(int=0), f.seal or 0),
        )


def describe(event: AuditEvent) -> str:
    """An event as a finding names it."""
    return f"event {event.id} of {_utc(moment_of(event.id))} ({event})"


def describe_id(event_id: UUID) -> str:
    """An event that is gone: its id still says when it was."""
    return f"event {event_id} of {_utc(moment_of(event_id))}"


def moment_of(event_id: UUID) -> datetime:
    """When an id of `clock.id_at` was made, to the millisecond."""
    return EPOCH + timedelta(milliseconds=event_id.int >> 80)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
