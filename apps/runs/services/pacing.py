"""Pacing: rows and bytes per second of a source, kept by all workers together.

The generic cell rate algorithm (ITU-T I.371, its virtual scheduling form): a rate is used up until
some time. Whoever moves a batch pushes that time back by what the batch is worth at the rate, from
now on where it has passed, and goes on when it is no further away than `BURST_SECONDS`. That is
one row per source and one UPDATE per batch, by the clock of the platform's database.

A batch is paid for when it is there, because nobody knows its size before; what it was too large
is waited for before the next one. So batches are kept to what a few seconds are worth: no server
waits for long in the middle of an answer. A worker sleeps in small steps, so that it notices within
a second that its run was cancelled or its lease lost.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from django.db import connection

from apps.connectors.base import DatasetSchema
from apps.runs.models import SourcePace
from apps.sources.models import Source

BURST_SECONDS = 1.0
BATCH_SECONDS = 5
USUAL_BYTES = 200  # of a record, where the source does not say
STEP_SECONDS = 0.2
CHECK_SECONDS = 0.4

_CLOCK = {
    "postgresql": "extract(epoch FROM clock_timestamp())",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
_GREATER = {"postgresql": "greatest", "sqlite": "max"}


@dataclass(slots=True)
class Pace:
    """What one worker may read from and write to a source per second. None: no limit.

    check: raises where the work is to end. It may be used from several threads, one at a time.
    """

    source_id: UUID | None = None
    rows_per_second: int | None = None
    bytes_per_second: int | None = None
    check: Callable[[], None] = lambda: None
    _due: float = 0.0
    _home: int = field(default_factory=threading.get_ident)

    @property
    def is_limited(self) -> bool:
        return bool(self.rows_per_second or self.bytes_per_second)

    def batch_rows(self, most: int, dataset: DatasetSchema) -> int:
        """How many records of a dataset a batch should hold, which could hold `most`."""
        rows = most
        if self.rows_per_second:
            rows = min(rows, self.rows_per_second * BATCH_SECONDS)
        if self.bytes_per_second:
            size = (dataset.size_bytes or 0) // (dataset.row_count or 1) or USUAL_BYTES
            rows = min(rows, self.bytes_per_second * BATCH_SECONDS // size)
        return max(1, rows)

    def spend(self, rows: int, size: int) -> None:
        """These rows, of so many bytes, have been read or written."""
        if not self.is_limited or self.source_id is None:
            return
        row_cost = rows / self.rows_per_second if self.rows_per_second else 0.0
        byte_cost = size / self.bytes_per_second if self.bytes_per_second else 0.0
        try:
            ahead = _move_on(self.source_id, row_cost, byte_cost)
        finally:
            self._leave_database()
        self._due = time.monotonic() + ahead - BURST_SECONDS

    def wait(self, check: Callable[[], None] | None = None) -> None:
        """Sleep until the next batch may come.

        check: instead of the pace's own; raises where the work is to end.
        """
        check = check or self.check
        checked = time.monotonic()
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, STEP_SECONDS))
            if time.monotonic() - checked > CHECK_SECONDS:
                checked = time.monotonic()
                try:
                    check()
                finally:
                    self._leave_database()

    def _leave_database(self) -> None:
        """Threads that only move records keep no connection to the platform's database."""
        if threading.get_ident() != self._home:
            connection.close()


def pace_of(source: Source, check: Callable[[], None]) -> Pace:
    """The pace of a source's limits, as they are now."""
    pace = Pace(source.pk, source.most_rows_per_second, source.most_bytes_per_second, check)
    if pace.is_limited:
        SourcePace.objects.get_or_create(source=source)
    return pace


def _move_on(source_id: UUID, row_cost: float, byte_cost: float) -> float:
    """Push both times back by so many seconds; returns how far away the later one is."""
    clock, greater = _CLOCK[connection.vendor], _GREATER[connection.vendor]
    table = connection.ops.quote_name(SourcePace._meta.db_table)
    used = (row_cost, byte_cost)
    columns = ("rows_until", "bytes_until")
    moved = ", ".join(
        f"{name} = CASE WHEN %s > 0 THEN {greater}({name}, {clock}) + %s ELSE {name} END"
        for name in columns
    )
    key = SourcePace._meta.pk.get_db_prep_value(source_id, connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {moved} WHERE source_id = %s "  # noqa: S608  # nosec B608  # names of our own model
            f"RETURNING {greater}({', '.join(columns)}) - {clock}",
            [value for cost in used for value in (cost, cost)] + [key],
        )
        row = cursor.fetchone()
    return max(0.0, float(row[0])) if row else 0.0
