"""Streams of events for tests, and changes to them behind the code's back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.test import override_settings

from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.audit.origin import Channel, Origin, acting_from
from apps.audit.services import Subject, record

ACTIONS = list(Act)


def write_events(count: int, start: int = 0) -> list[AuditEvent]:
    """Events of many kinds, people and addresses."""
    made = []
    with transaction.atomic():
        for number in range(start, start + count):
            origin = Origin(Channel.WEB, f"10.0.0.{number % 250}", f"{number:032x}", "Browser")
            with acting_from(origin):
                made.append(
                    record(
                        ACTIONS[number % len(ACTIONS)],
                        Subject("rules.rule", str(number % 100), f"Rule {number % 100}"),
                        actor=None,
                        reason=f"reason {number}",
                        details={"number": number},
                    )
                )
    return made


@contextmanager
def checkpoints_in(folder: Path) -> Iterator[Path]:
    """A file of checkpoints of its own."""
    path = folder / "checkpoints.log"
    changed = {**settings.LOCKSTEP, "AUDIT_CHECKPOINT_FILE": path}
    with override_settings(LOCKSTEP=changed):
        yield path


def sql(statement: str, *values: Any) -> int:
    """A statement past the models; returns how many rows it touched. UUIDs as the database's."""
    native = connection.features.has_native_uuid_field
    given = [v.hex if isinstance(v, UUID) and not native else v for v in values]
    with connection.cursor() as cursor:
        cursor.execute(statement, given)
        return int(cursor.rowcount)
