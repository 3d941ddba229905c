"""Writing records: each one read, compared, written, and told.

An API has no transactions, so a batch goes record by record:

1. The records of all changes are looked up and judged as they stand.
2. What is about to be written is noted, and the fence asked: after a crash it is known that these
   changes may have got through.
3. Each is sent. Where the API has ETags, it compares again by itself (If-Match); elsewhere another
   writer may slip in between, which `compare_and_set` of the capabilities says.
4. When nobody knows whether a request got through, the record is looked up again. Only a create
   without an idempotency key, whose record cannot be looked up, stays in doubt.
5. What became of each record comes from the answers, or is read back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    Operation,
    WriteProblem,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.connectors.errors import ConfigurationError
from apps.connectors.rest.client import Answer, Call, Interrupted, RestClient
from apps.connectors.rest.definition import Write
from apps.connectors.rest.looking import (
    Looked,
    Standing,
    look_at,
    look_through,
    look_up,
)
from apps.connectors.rest.reading import DatasetApi
from apps.connectors.rest.records import Record, found
from apps.connectors.rest.sending import (
    NoAddress,
    Requests,
    Written,
    bulk_error,
    no_such_write,
    outcomes_of,
    refused,
)
from apps.connectors.rest.settings import RestSettings
from apps.connectors.returning import Found, standing
from apps.connectors.sql import find_fields
from apps.connectors.sql_returning import (
    complete_rows,
    judge_doubtful,
    judge_matches,
    recognise_moved,
    result_of,
)
from apps.connectors.sql_writing import (
    ALREADY,
    GONE,
    STALE,
    PreparedBatch,
    equal_rows,
    judge,
    prepare,
    rejected,
)

_FENCE_SECONDS = 1.0
_TRIES = 3
BROKEN_OFF = "the API breaks off this request again and again"
IN_DOUBT = WriteProblem(
    WriteStatus.IN_DOUBT,
    "record.in_doubt",
    "The connection broke while the record was created, and it cannot be looked up.",
)
UNTOLD = rejected("record.unreadable", "The record was written, but cannot be read back.")


class RestWriteSession(WriteSession):
    """Writes one dataset. The API knows no lock, so others may write meanwhile."""

    def __init__(
        self, settings: RestSettings, dataset: DatasetSchema, lease_seconds: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._client = RestClient(settings, lease_seconds)

    def __enter__(self) -> RestWriteSession:
        api = DatasetApi(self._client, self._settings.api, self._dataset.name)
        self._api = api
        self._current = api.describe(
            self._settings.sample_records, read_only=self._settings.read_only
        )
        if not self._current.writable:
            raise ConfigurationError("this dataset is read only", where=self._dataset.name)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.__exit__(*exc_info)

    def apply(
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        find_fields(self._current, returning)
        prepared = prepare(batch, self._current)
        work = _Batch(self._api, self._current, batch, prepared, fence)
        work.look()
        if note is not None:
            note(prepared.result())
        fence()
        work.write()
        return work.result(returning)


class _Batch:
    """One batch on its way. `final` holds, by change, the record as the API has it at last."""

    def __init__(
        self,
        api: DatasetApi,
        current: DatasetSchema,
        batch: ChangeBatch,
        prepared: PreparedBatch,
        fence: Fence,
    ) -> None:
        self._api = api
        self._definition = api.definition
        self._current = current
        self._batch = batch
        self._prepared = prepared
        self._fence = fence
        self._fenced_at = time.monotonic()
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

    # Writing.

    def write(self) -> None:
        """Send what is pending."""
        operation = self._batch.operation
        bulk = {
            Operation.INSERT: self._definition.bulk_create,
            Operation.UPDATE: self._definition.bulk_update,
        }.get(operation)
        if bulk is not None:
            pending = self._prepared.pending()
            for start in range(0, len(pending), bulk.most):
                self._check_fence()
                self._send_bulk(pending[start : start + bulk.most])
            return
        for row in self._prepared.pending():
            self._check_fence()
            self._send(row)

    def _check_fence(self) -> None:
        """Ask again, should writing take long."""
        if time.monotonic() - self._fenced_at > _FENCE_SECONDS:
            self._fence()
            self._fenced_at = time.monotonic()

    def _send(self, row: int) -> None:
        write = self._write_of()
        if write is None:
            self._prepared.settle(row, no_such_write(self._batch.operation))
            return
        if write.if_match and row in self._standing and not self._tagged(row):
            self._prepared.settle(row, STALE)
            return
        for _ in range(_TRIES):
            try:
                answer = self._api.client.send(self._call(write, row))
            except NoAddress as error:
                self._prepared.settle(row, rejected("record.invalid", f"{error}."))
                return
            except Interrupted:
                answer = None
            if answer is not None and (answer.status != 412 or self._is_insert):
                self._take(row, answer, write)
                return
            if self._resolved(row):
                return
        raise Interrupted(BROKEN_OFF, where=self._api.name)

    def _write_of(self) -> Write | None:
        return {
            Operation.INSERT: self._definition.create,
            Operation.UPDATE: self._definition.update,
            Operation.DELETE: self._definition.delete,
        }[self._batch.operation]

    def _call(self, write: Write, row: int) -> Call:
        """The request of one change. Raises NoAddress."""
        if self._is_insert:
            return self._requests.create(write, row)
        if self._batch.operation is Operation.UPDATE:
            return self._requests.update(write, row, self._standing[row])
        return self._requests.delete(write, row, self._standing[row])

    def _tagged(self, row: int) -> bool:
        """Get the ETag of a record that was found in a list; False: it has moved since."""
        known = self._standing[row]
        if known.record.etag or not self._definition.item:
            return True
        fresh = self._api.item(dict(known.record.outer), known.texts)
        if fresh is None or fresh.value != known.record.value:
            return False
        self._standing[row] = Standing(fresh, known.texts)
        return True

    def _take(self, row: int, answer: Answer, write: Write | None) -> None:
        if answer.ok:
            self._tell(row, answer, write)
        elif answer.status in (404, 410) and not self._is_insert:
            is_delete = self._batch.operation is Operation.DELETE
            self._prepared.settle(row, ALREADY if is_delete else GONE)
        elif self._is_taken(answer) and self._resolved(row):
            self._prepared.settle(row, ALREADY)  # by another, unless it differs
        else:
            text = self._requests.hidden(row, answer.problem())
            self._prepared.settle(row, refused(answer, text))

    def _is_taken(self, answer: Answer) -> bool:
        """Whether a record of that key was created since it was looked up."""
        return answer.status == 409 and self._is_insert and not self._batch.assigns_key

    def _tell(self, row: int, answer: Answer, write: Write | None) -> None:
        """Keep what the answer tells of the record."""
        if self._batch.operation is Operation.DELETE:
            return
        record = None
        if write is not None and write.record:
            record = self._api.record_of(answer, write.record, self._outer(row))
            if record is not None and write.read_back:
                record = self._api.read_back(record)
        elif self._is_insert and "Location" in answer.headers:
            there = self._api.client.get(answer.headers["Location"], {})
            if there.ok:
                item = self._definition.item_record
                record = self._api.record_of(there, item, self._outer(row))
        if record is not None:
            self._final[row] = record

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

    # Several at once.

    def _send_bulk(self, rows: Sequence[int]) -> None:
        bulk = self._definition.bulk_create if self._is_insert else self._definition.bulk_update
        if bulk is None or not rows:
            return
        known = {row: self._standing[row] for row in rows if row in self._standing}
        try:
            answer = self._api.client.send(self._requests.bulk(bulk, rows, known))
        except NoAddress as error:
            for row in rows:
                self._prepared.settle(row, rejected("record.invalid", f"{error}."))
            return
        except Interrupted:
            self._resolve_bulk(rows)
            return
        if not answer.ok:
            self._halve_bulk(rows, answer)
            return
        outcomes = outcomes_of(answer, bulk, len(rows))
        if outcomes is None:
            self._resolve_bulk(rows)
            return
        for row, outcome in zip(rows, outcomes, strict=True):
            error_text = bulk_error(bulk, outcome)
            if error_text is not None:
                text = self._requests.hidden(row, error_text)
                self._prepared.settle(row, rejected("record.invalid", f"The API says: {text}."))
                continue
            value = found(bulk.record, outcome) if bulk.record else None
            if isinstance(value, dict):
                self._final[row] = Record(value, self._outer(row))

    def _halve_bulk(self, rows: Sequence[int], answer: Answer) -> None:
        """What an API refuses as a whole is refused for some record."""
        if len(rows) == 1:
            self._take(rows[0], answer, None)
            return
        middle = len(rows) // 2
        self._send_bulk(rows[:middle])
        self._send_bulk(rows[middle:])

    def _resolve_bulk(self, rows: Sequence[int]) -> None:
        """Nobody knows which ones got through; those that did not are sent one by one."""
        left = [row for row in rows if not self._resolved(row)]
        if left and len(rows) == 1:
            raise Interrupted(BROKEN_OFF, where=self._api.name)
        for row in left:
            self._send_bulk([row])

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
