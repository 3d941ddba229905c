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
from urllib.parse import urljoin

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    Operation,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import ConfigurationError
from apps.connectors.rest.answers import Answer
from apps.connectors.rest.batch import Batch
from apps.connectors.rest.client import Call, Interrupted, RestClient
from apps.connectors.rest.looking import (
    Standing,
)
from apps.connectors.rest.parts import Write
from apps.connectors.rest.reading import DatasetApi
from apps.connectors.rest.records import Record, found
from apps.connectors.rest.sending import (
    NoAddress,
    bulk_error,
    no_such_write,
    outcomes_of,
    refused,
)
from apps.connectors.rest.settings import RestSettings
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import (
    ALREADY,
    GONE,
    STALE,
    PreparedBatch,
    prepare,
    rejected,
)

_FENCE_SECONDS = 1.0
_TRIES = 3
BROKEN_OFF = "the API breaks off this request again and again"


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
        work = _Writing(self._api, self._current, batch, prepared, fence)
        work.look()
        if note is not None:
            note(prepared.result())
        fence()
        work.write()
        return work.result(returning)


class _Writing(Batch):
    """Sends what is pending. fence: see `WriteSession.apply`."""

    def __init__(
        self,
        api: DatasetApi,
        current: DatasetSchema,
        batch: ChangeBatch,
        prepared: PreparedBatch,
        fence: Fence,
    ) -> None:
        super().__init__(api, current, batch, prepared)
        self._fence = fence
        self._fenced_at = time.monotonic()

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
            address = urljoin(answer.url, answer.headers["Location"])
            there = self._api.client.get(address, {})
            if there.ok:
                item = self._definition.item_record
                record = self._api.record_of(there, item, self._outer(row))
        if record is not None:
            self._final[row] = record

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
