"""The plan of a load: inserts into an empty dataset, kept as they are on their way there.

A load writes nothing that anybody can see before its whole plan is here (`connectors.base.
LoadSession`), so that the plan may be written while the records flow. Its segments are linked:
they serve as the rule's links, and, for a two-way rule, as its bases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from apps.connectors.types import NeutralType
from apps.core.clock import now
from apps.ledger.models import Change, Operation, Side
from apps.ledger.segments.files import CHANGES, SEGMENT_ROWS, Typed, constant
from apps.ledger.segments.writing import write_segment
from apps.ledger.services.field_sets import field_set_ids
from apps.ledger.services.work import WorkIdentity

NO_IMAGES: Mapping[str, NeutralType] = {}


class LoadPlan:
    """Takes the records of one partition in the order in which they are loaded.

    fields: the right fields that the load writes; types: of those whose values are kept (none for
    a relay, which does not see them); based: they are the base of two-way links as well;
    transaction: what each write is wrapped in (a lease's).
    """

    def __init__(
        self,
        work: WorkIdentity,
        fields: tuple[str, ...],
        *,
        types: Mapping[str, NeutralType] = NO_IMAGES,
        based: bool = False,
        transaction: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.work = work
        self.rows = 0
        self._typed = Typed(types, based) if types else None
        self._schema = self._typed.schema() if self._typed else CHANGES
        self._transaction = transaction
        self._waiting: list[pa.Table] = []
        self._field_set = field_set_ids(work.rule_id, {fields})[fields]
        self._moment = now()

    def add(
        self, left_keys: pa.ChunkedArray, right_keys: pa.ChunkedArray, values: pa.Table
    ) -> None:
        """Records by their key texts; values: the fields of `types`, in neutral storage."""
        columns = [values.column(name) for name in self._typed.types] if self._typed else []
        names = self._typed.columns if self._typed else []
        self._waiting.append(
            pa.table([left_keys, right_keys, *columns], names=["left_key", "right_key", *names])
        )
        while sum(table.num_rows for table in self._waiting) >= SEGMENT_ROWS:
            self._write(SEGMENT_ROWS)

    def finish(self) -> int:
        """Write what is left; returns how many changes the plan has."""
        if self._waiting:
            self._write(SEGMENT_ROWS)
        return self.rows

    def _write(self, most: int) -> None:
        waiting = pa.concat_tables(self._waiting)
        batch, rest = waiting.slice(0, most), waiting.slice(most)
        self._waiting = [rest] if rest.num_rows else []
        if not batch.num_rows:
            return
        with self._transaction():
            write_segment(self.work.rule_id, self._as_file(batch), linked=True, filtered=False)
        self.rows += batch.num_rows

    def _as_file(self, batch: pa.Table) -> pa.Table:
        rows = batch.num_rows
        same: dict[str, Any] = {
            "id": 0,
            "run_id": str(self.work.run_id),
            "partition_id": str(self.work.partition_id),
            "side": Side.RIGHT.value,
            "operation": Operation.INSERT.value,
            "cause": Change.Cause.NEW.value,
            "field_set": self._field_set,
            "planned_at": self._moment,
        }
        columns: list[Any] = []
        for field in self._schema:
            if field.name in same:
                columns.append(constant(same[field.name], field.type, rows))
            elif field.name == "sequence":
                columns.append(pa.arange(self.rows + 1, self.rows + rows + 1))
            elif field.name in batch.column_names:
                columns.append(batch.column(field.name).cast(field.type))
            else:
                columns.append(pa.nulls(rows, field.type))
        table = pa.table(columns, names=self._schema.names)
        return table.replace_schema_metadata(self._schema.metadata)
