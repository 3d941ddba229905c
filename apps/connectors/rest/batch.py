"""A batch of changes and what is known of their records: looked up, judged, and told at last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Operation,
    WriteProblem,
    WriteResult,
    WriteStatus,
)
from apps.connectors.rest.looking import (
    Looked,
    Standing,
    look_at,
    look_through,
    look_up,
)
from apps.connectors.rest.reading import DatasetApi
from apps.connectors.rest.records import Record
from apps.connectors.rest.sending import (
    Requests,
    Written,
)
from apps.connectors.returning import Found, standing
from apps.connectors.sql_returning import (
    complete_rows,
    judge_doubtful,
    judge_matches,
    recognise_moved,
    result_of,
)
from apps.connectors.sql_writing import (
    ALREADY,
    STALE,
    PreparedBatch,
    equal_rows,
    judge,
    rejected,
)

IN_DOUBT = WriteProblem(
    WriteStatus.IN_DOUBT,
    "record.in_doubt",
    "The connection broke while the record was created, and it cannot be looked up.",
)
UNTOLD = rejected("record.unreadable", "The record was written, but cannot be read back.")


class Batch:
    """One batch on its way. `final` holds, by change, the record as the API has it at last."""

    def __init__(
        self,
        api: DatasetApi,
        current: DatasetSchema,
        batch: ChangeBatch,
        prepared: PreparedBatch,
    ) -> None:
        self._api = api
        self._definition = api.definition
        self._current = current
        self._batch = batch
        self._prepared = prepared
        self._requests = Requests(api, Written.of(prepared.after, current, prepared.num_rows))
        self._standing: dict[int, Standing] = {}
        self._final: dict[int, Record] = {}
        self._is_insert = batch.operation is Operation.INSERT

    # Looking and judging.

    def look(self) -> None:
        """Settle what needs no write, or must not be written."""
        if self._batch.assigns_key:
            self._look_for_new()
            return
        rows = self._prepared.pending()
        looked = look_up(self._api, self._current, self._prepared.key, rows, self._names())
        for row in looked.found.unreadable:
            self._prepared.settle(row, STALE)
        judge(self._prepared, looked.found.records, self._prepared.after)
        recognise_moved(self._prepared, self._look_for_moved)
        self._keep(looked)

    def _names(self) -> list[str]:
        before, after = self._prepared.before, self._prepared.after
        return [*before.column_names, *after.column_names]

    def _keep(self, looked: Looked) -> None:
        self._standing |= looked.standing
        for row, problem in self._prepared.exceptions.items():
            if problem.status is WriteStatus.ALREADY and row in looked.standing:
                self._final[row] = looked.standing[row].record

    def _look_for_moved(self, rows: list[int], names: Sequence[str]) -> Found:
        moved = self._prepared.after.select(self._prepared.key.column_names)
        looked = look_up(self._api, self._current, moved, rows, names)
        self._final |= {row: each.record for row, each in looked.standing.items()}
        return looked.found

    def _look_for_new(self) -> None:
        prepared = self._prepared
        if self._batch.match:
            rows = complete_rows(prepared, self._batch.match)
            keys = prepared.after.select(list(self._batch.match))
            names = prepared.after.column_names
            looked = look_up(self._api, self._current, keys, rows, names)
            numbers = pa.array(looked.found.numbers, pa.int64())
            same = equal_rows(prepared.after.take(numbers), looked.found.records.select(names))
            hits = list(zip(looked.found.numbers, range(len(same)), same, strict=True))
            hits += [(row, -1, False) for row in looked.found.unreadable]
            judge_matches(prepared, hits)
            self._keep(looked)
        if self._batch.in_doubt:
            rows = prepared.pending()
            through, keys_found = look_through(self._api, self._current, prepared.after, rows)
            numbered = zip(through.found.numbers, keys_found, strict=True)
            judge_doubtful(prepared, [(row, key, True) for row, key in numbered])
            self._keep(through)

    def _outer(self, row: int) -> dict[str, object]:
        if row in self._standing:
            return dict(self._standing[row].record.outer)
        after, parent = self._prepared.after, self._definition.parent
        names = [n for n in (parent.fields if parent else ()) if n in after.column_names]
        return {name: after.column(name)[row].as_py() for name in names}

    def _resolved(self, row: int) -> bool:
        """Find out what became of a request; False: it did nothing, and may be sent again."""
        prepared, names = self._prepared, self._names()
        if self._batch.assigns_key:
            return self._resolved_new(row)
        keys = prepared.key
        looked = look_up(self._api, self._current, keys, [row], names)
        again = replace(prepared, exceptions=dict.fromkeys(range(prepared.num_rows), ALREADY))
        del again.exceptions[row]
        judge(again, looked.found.records, prepared.after)
        recognise_moved(again, self._look_for_moved)
        problem = again.exceptions.get(row)
        if problem is None:
            self._standing |= looked.standing
            return False
        if problem.status is WriteStatus.ALREADY:  # it is what this request was to do
            self._final |= {row: s.record for row, s in looked.standing.items()}
        else:
            prepared.settle(row, problem)
        return True

    def _resolved_new(self, row: int) -> bool:
        """Find a record whose key the API gives by the fields that identify it."""
        search = self._definition.search
        names = self._batch.match or (search.fields if search else ())
        after = self._prepared.after
        complete = bool(names) and set(names) <= set(after.column_names)
        if not complete or any(not after.column(n)[row].is_valid for n in names):
            self._prepared.settle(row, IN_DOUBT)
            return True
        looked = look_up(
            self._api, self._current, after.select(list(names)), [row], after.column_names
        )
        if row not in looked.standing:
            return False
        wanted = after.take(pa.array(looked.found.numbers, pa.int64()))
        same = equal_rows(wanted, looked.found.records.select(after.column_names))
        if same != [True]:
            self._prepared.settle(row, IN_DOUBT)
        else:
            self._final[row] = looked.standing[row].record
        return True

    # What became of it.

    def result(self, returning: Sequence[str]) -> WriteResult:
        """Outcomes, records and keys; what is not told by the answers is read back."""
        assigned = self._batch.assigns_key
        if not returning and not assigned:
            return self._prepared.result()
        key = self._current.key if assigned else ()
        names = list(dict.fromkeys([*key, *returning]))
        rows = standing(
            self._prepared.operation, self._prepared.num_rows, self._prepared.exceptions
        )
        self._read_back([row for row in rows if row not in self._final])
        told = {row: self._final[row] for row in rows if row in self._final}
        looked = look_at(self._api, self._current, told, names)
        readable = set(looked.found.numbers)
        for row in rows:
            if row not in readable:
                self._prepared.exceptions[row] = IN_DOUBT if assigned else UNTOLD
        return result_of(self._prepared, looked.found, self._current, returning=returning, key=key)

    def _read_back(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        if self._batch.assigns_key:
            for row in rows:
                self._resolved_new(row)
            return
        prepared = self._prepared
        keys = pa.table(
            {
                name: (
                    prepared.after if name in prepared.after.column_names else prepared.key
                ).column(name)
                for name in prepared.key.column_names
            }
        )
        looked = look_up(self._api, self._current, keys, rows, [])
        self._final |= {row: each.record for row, each in looked.standing.items()}
