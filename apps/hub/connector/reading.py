"""Reading hub records as columns: what files do with the objects of JSON is done with these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

import pyarrow as pa

from apps.connectors.base import DatasetSchema, FieldSchema, ReadBatch, ReadRequest
from apps.connectors.canonical import canonical_decimal
from apps.connectors.errors import DatasetMissing
from apps.connectors.files.conversion import from_json, to_json_fragments
from apps.connectors.files.rows import Rows, collect
from apps.connectors.files.selection import Selection
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind, NeutralType
from apps.hub.bodies import key_of, loaded
from apps.hub.errors import MutationRefused
from apps.hub.models import HostedDataset, HostedRecord
from apps.hub.schemas import Record, Shape
from apps.hub.selectors import shape_of_hosted
from apps.hub.services.storing import STORED_COLUMNS, Stored, load_records, stored_of

PART = 2_000


def hosted_named(name: str) -> HostedDataset:
    """Raises DatasetMissing."""
    found = HostedDataset.objects.filter(name=name).first()
    if found is None:
        raise DatasetMissing("the hub has no dataset of this name", where=name)
    return found


def read_batches(
    hosted: HostedDataset, request: ReadRequest, current: DatasetSchema
) -> Iterator[ReadBatch]:
    """The records that were asked for; all of them as one statement shows them."""
    find_fields(current, request.fields)
    selection = Selection(request)
    for part in _parts(hosted, request):
        if selection.exhausted:
            return
        yield from selection.batches(rows_of(part, selection.needed))


def _parts(hosted: HostedDataset, request: ReadRequest) -> Iterator[list[Stored]]:
    keys = request.keys
    if keys is not None and set(keys.column_names) == set(hosted.key):
        wanted = {key for key in keys_of(shape_of_hosted(hosted), keys) if key is not None}
        found = load_records(hosted, wanted, lock=False).values()
        yield from _cut([one for one in found if not one.is_deleted])
        return
    yield from _cut(_living(hosted.pk))


def _living(hosted_id: UUID) -> Iterator[Stored]:
    """Records from one statement's view, without holding them all."""
    rows = HostedRecord.objects.filter(hosted_id=hosted_id, is_deleted=False)
    for row in rows.values_list(*STORED_COLUMNS).iterator(chunk_size=PART):
        yield stored_of(hosted_id, row)


def _cut(stored: Iterable[Stored]) -> Iterator[list[Stored]]:
    iterator = iter(stored)
    while part := list(islice(iterator, PART)):
        yield part


def rows_of(stored: Sequence[Stored], fields: Sequence[FieldSchema]) -> Rows:
    """Records as rows; the address of each is its place among these."""
    records = [one.record for one in stored]
    columns, misfits = collect(
        fields, lambda field: from_json([r.get(field.name) for r in records], field.type)
    )
    return Rows(
        num_rows=len(stored),
        columns=columns,
        misfits=misfits,
        position=lambda row: f"record {stored[row].key}",
        raw=lambda row: "",
        address=lambda row: (row, row),
        remedy="Correct the value.",
    )


def records_of(table: pa.Table, fields: Sequence[FieldSchema]) -> list[Record]:
    """A table as records; what is NULL is left out."""
    columns = [
        (
            field.name,
            [_value(text, field.type) for text in _fragments(table.column(field.name), field)],
        )
        for field in fields
    ]
    return [
        {name: values[row] for name, values in columns if values[row] is not None}
        for row in range(table.num_rows)
    ]


def _fragments(column: Any, field: FieldSchema) -> list[str]:
    flat = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return to_json_fragments(flat, field.type)


def _value(text: str, neutral: NeutralType) -> Any:
    """A value of JSON; decimals are texts there, so that no client rounds them."""
    if text == "null":
        return None
    value = loaded(text)
    if neutral.kind is Kind.DECIMAL:
        return _decimal_text(value)
    if neutral.item is not None and neutral.item.kind is Kind.DECIMAL:
        return [None if item is None else _decimal_text(item) for item in value]
    return value


def _decimal_text(value: Any) -> str:
    return canonical_decimal(Decimal(value))


def keys_of(shape: Shape, table: pa.Table) -> list[str | None]:
    """The key of each row of a table of key fields; None where it is none."""
    described = shape.described("")
    fields = find_fields(described, table.column_names)
    typed = table.cast(pa.schema([(field.name, field.type.arrow) for field in fields]))
    found: list[str | None] = []
    for record in records_of(typed, fields):
        try:
            found.append(key_of(shape, record))
        except MutationRefused:
            found.append(None)
    return found
