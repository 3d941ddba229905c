"""One change as a request, and what its answer means."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from apps.connectors.base import DatasetSchema, Operation, WriteProblem
from apps.connectors.files.conversion import to_json_fragments, to_text
from apps.connectors.files.json_text import parse
from apps.connectors.rest.answers import Answer, AnswerUnusable
from apps.connectors.rest.client import Call
from apps.connectors.rest.definition import DatasetDefinition
from apps.connectors.rest.looking import Standing
from apps.connectors.rest.parts import BulkWrite, Write
from apps.connectors.rest.reading import DatasetApi, KeyRow
from apps.connectors.rest.records import Record, found
from apps.connectors.rest.templates import (
    NoAddress,
    PlainPath,
    fill_body,
    fill_path,
    plain_text,
)
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import rejected

_SHORTEST_HIDDEN = 3


@dataclass(frozen=True, slots=True)
class Written:
    """The fields that each change writes, as JSON and as the texts of paths."""

    values: list[KeyRow]
    texts: list[dict[str, str | None]]

    @classmethod
    def of(cls, after: pa.Table, current: DatasetSchema, num_rows: int) -> Written:
        values: list[KeyRow] = [{} for _ in range(num_rows)]
        texts: list[dict[str, str | None]] = [{} for _ in range(num_rows)]
        for field in find_fields(current, after.column_names):
            column = after.column(field.name)
            array = pa.concat_arrays(column.chunks) if column.num_chunks else None
            if array is None:
                continue
            fragments = to_json_fragments(array, field.type)
            plain = to_text(array, field.type).cast(pa.string()).to_pylist()
            for row, (fragment, text) in enumerate(zip(fragments, plain, strict=True)):
                values[row][field.name] = parse(fragment)
                texts[row][field.name] = text
        return cls(values, texts)


class Requests:
    """Makes the requests of one batch. nonce: what tells its creates from all others."""

    def __init__(self, api: DatasetApi, written: Written) -> None:
        self._api = api
        self._definition: DatasetDefinition = api.definition
        self._written = written
        self._nonce = secrets.token_hex(12)

    def create(self, write: Write, row: int) -> Call:
        """Raises NoAddress."""
        texts = self._written.texts[row]
        record = self.record(row, leave_out_empty=True)
        return self._call(write, row, texts, record, self._written.values[row])

    def update(self, write: Write, row: int, standing: Standing) -> Call:
        """Raises NoAddress."""
        record = self._whole(standing.record) if write.whole else {}
        self._put(record, self._written.values[row])
        values = {**standing.record.value, **self._written.values[row]}
        call = self._call(write, row, standing.texts, record, values)
        return _only_if(call, write, standing)

    def delete(self, write: Write, row: int, standing: Standing) -> Call:
        """Raises NoAddress."""
        path = fill_path(write.path, standing.texts)
        return _only_if(Call(write.method, path, write.params, repeatable=False), write, standing)

    def bulk(self, write: BulkWrite, rows: Sequence[int], standing: Mapping[int, Standing]) -> Call:
        """Several records at once; updates carry their keys. Raises NoAddress."""
        records = []
        for row in rows:
            record = self.record(row, leave_out_empty=row not in standing)
            if row in standing:
                record = {**self._key_of(standing[row].record), **record}
            records.append(record)
        return Call(
            write.method,
            fill_path(write.path, self._written.texts[rows[0]]),
            headers=self._idempotency(write.idempotency_header, rows[0]),
            body=fill_body(write.body, {"records": records}),
            form=self._definition.body == "form",
            repeatable=bool(write.idempotency_header),
        )

    def record(self, row: int, *, leave_out_empty: bool = False) -> dict[str, Any]:
        """The written fields in the shape that the API has them."""
        record: dict[str, Any] = {}
        self._put(record, self._written.values[row], leave_out_empty=leave_out_empty)
        return record

    def hidden(self, row: int, text: str) -> str:
        """A text of the API without the values that it was sent."""
        values = {plain_text(v) for v in self._written.values[row].values() if v is not None}
        for value in sorted(values, key=len, reverse=True):
            if len(value) >= _SHORTEST_HIDDEN:
                text = text.replace(value, "•••")
        return text

    def _put(
        self, record: dict[str, Any], values: KeyRow, *, leave_out_empty: bool = False
    ) -> None:
        for name, value in values.items():
            field = self._definition.fields.get(name)
            path = PlainPath.of(name, field.path) if field is not None else None
            if path is not None and not (leave_out_empty and value is None):
                path.write(record, value)

    def _whole(self, current: Record) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name, field in self._definition.fields.items():
            path = PlainPath.of(name, field.path)
            if path is not None and not field.read_only:
                path.write(record, path.read(current.value))
        return record

    def _key_of(self, current: Record) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name in self._definition.key:
            field = self._definition.fields.get(name)
            path = PlainPath.of(name, field.path) if field is not None else None
            if path is not None:
                path.write(record, path.read(current.value))
        return record

    def _call(
        self,
        write: Write,
        row: int,
        texts: Mapping[str, str | None],
        record: dict[str, Any],
        values: Mapping[str, Any],
    ) -> Call:
        headers = self._idempotency(write.idempotency_header, row)
        return Call(
            write.method,
            fill_path(write.path, texts),
            write.params,
            headers,
            fill_body(write.body, {**values, "record": record}),
            form=self._definition.body == "form",
            repeatable=bool(headers),
        )

    def _idempotency(self, header: str, row: int) -> dict[str, str]:
        return {header: f"lockstep-{self._nonce}-{row}"} if header else {}


def _only_if(call: Call, write: Write, standing: Standing) -> Call:
    etag = standing.record.etag
    if not write.if_match or not etag or etag.startswith("W/"):  # weak ones match nothing
        return call
    headers = {**call.headers, "If-Match": etag}
    return Call(call.method, call.path, call.params, headers, call.body, call.form, False)


def refused(answer: Answer, text: str) -> WriteProblem:
    """Why the API did not take a record."""
    if answer.status == 409:
        return rejected("record.duplicate", f"The API refuses the record ({text}).")
    return rejected("record.invalid", f"The API refuses the record ({text}).")


def outcomes_of(answer: Answer, write: BulkWrite, count: int) -> list[Any] | None:
    """The outcomes of a bulk request, one per record; None where they cannot be told apart."""
    try:
        results = found(write.results, answer.json()) if answer.data else None
    except AnswerUnusable:
        return None
    return results if isinstance(results, list) and len(results) == count else None


def bulk_error(write: BulkWrite, outcome: Any) -> str | None:
    """What an outcome says of a refusal; None: the record was taken."""
    told = found(write.error, outcome) if write.error else None
    return None if told in (None, "", False, [], {}) else plain_text(told)[:300]


def no_such_write(operation: Operation) -> WriteProblem:
    """The API's definition lacks this kind of write."""
    word = {Operation.INSERT: "create"}.get(operation, operation.value)
    return rejected("record.not_written", f"The source's definition has no '{word}' here.")


__all__ = [
    "NoAddress",
    "Requests",
    "Written",
    "bulk_error",
    "no_such_write",
    "outcomes_of",
    "refused",
]
