"""What an API's records hold: values by field, types from a sample, and rows in neutral storage."""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jmespath

from apps.connectors.base import DatasetSchema, FieldSchema, RawRejection
from apps.connectors.files.conversion import Converted, from_json, from_text
from apps.connectors.files.inference import infer_json, infer_text
from apps.connectors.files.json_text import dump
from apps.connectors.files.rows import RAW_LIMIT, Rows, collect
from apps.connectors.rest.definition import DatasetDefinition
from apps.connectors.rest.parts import FieldDefinition
from apps.connectors.rest.templates import PlainPath
from apps.connectors.types import JSON, NeutralType

import pyarrow as pa  # isort: skip

REMEDY = "Correct the value, or the field's type in the source's datasets."


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the API gives it. outer: the fields that its path takes from the parent."""

    value: dict[str, Any]
    outer: Mapping[str, Any] = field(default_factory=dict)
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Records that came with one answer. where: which one, for people."""

    records: list[Record]
    where: str
    rejected: tuple[RawRejection, ...] = ()


Getter = Callable[[Record], Any]


def found(expression: str, value: Any) -> Any:
    """What a JMESPath expression finds; None where it does not apply."""
    try:
        return jmespath.search(expression, value)
    except jmespath.exceptions.JMESPathError:
        return None


def getter(name: str, definition: DatasetDefinition) -> Getter:
    """How a field is read from a record."""
    if definition.parent and name in definition.parent.fields:
        return lambda record: record.outer.get(name)
    path = definition.fields[name].path if name in definition.fields else ""
    if not path:
        return lambda record: record.value.get(name)
    plain = PlainPath.parse(path)
    if plain is not None:
        return lambda record: plain.read(record.value)
    return lambda record: found(path, record.value)


def rows_of(page: Page, definition: DatasetDefinition, fields: Sequence[FieldSchema]) -> Rows:
    """A page with these fields converted."""
    records = page.records
    convert = from_json if definition.format == "json" else _from_texts
    columns, misfits = collect(
        fields,
        lambda f: convert([getter(f.name, definition)(r) for r in records], f.type),
    )
    return Rows(
        num_rows=len(records),
        columns=columns,
        misfits=misfits,
        position=lambda row: f"record {row + 1} of {page.where}",
        raw=lambda row: dump(records[row].value)[:RAW_LIMIT],
        address=lambda row: (row, row + 1),
        rejected=page.rejected,
        source=records,
        remedy=REMEDY,
    )


def _from_texts(values: Sequence[Any], type_: NeutralType) -> Converted:
    """Values of CSV and XML; an empty one is NULL. What is inside an element is JSON."""
    texts = [
        value if isinstance(value, str) else dump(value) if value else None for value in values
    ]
    return from_text(pa.array([text or None for text in texts], pa.string()), type_)


def rejected(position: str, value: Any) -> RawRejection:
    """Something in a list of records that is none."""
    return RawRejection(
        position,
        "record.malformed",
        f"{position}: this is not a JSON object. Check the path of the records.",
        dump(value)[:RAW_LIMIT],
    )


def key_texts(definition: DatasetDefinition, records: Sequence[Record]) -> list[str | None]:
    """One text per record that tells its key from others; None where a part of it is missing."""
    getters = [getter(name, definition) for name in definition.key]
    keys = ([get(record) for get in getters] for record in records)
    return [None if None in key else dump(key) for key in keys]


def describe_fields(
    definition: DatasetDefinition,
    sample: Sequence[Record],
    outer: Mapping[str, NeutralType],
) -> tuple[FieldSchema, ...]:
    """Declared fields, else those of a sample. outer: types of the parent's fields."""
    fields = [
        FieldSchema(name, type_, "parent", nullable=False)
        for name, type_ in outer.items()
        if name not in definition.fields
    ]
    for name, declared in definition.fields.items():
        fields.append(_declared(name, declared))
    if not definition.fields:
        fields += _inferred(definition, sample)
    return tuple(fields)


def _declared(name: str, declared: FieldDefinition) -> FieldSchema:
    return FieldSchema(
        name,
        declared.neutral,
        "declared",
        nullable=not declared.required,
        has_default=declared.assigned,
        server_assigned=declared.assigned,
        generated=declared.read_only and not declared.assigned,
    )


def _inferred(definition: DatasetDefinition, sample: Sequence[Record]) -> list[FieldSchema]:
    names = dict.fromkeys(name for record in sample for name in record.value)
    fields = []
    for name in names:
        values = [record.value.get(name) for record in sample]
        is_text = all(isinstance(value, str | None) for value in values)
        if definition.format != "json" and is_text:
            table = pa.table({"value": pa.array(values, pa.string())})
            type_ = infer_text([table], ["value"])["value"]
        else:
            type_ = infer_json(values) if definition.format == "json" else JSON
        nullable = name not in definition.key
        fields.append(FieldSchema(name, type_, "inferred", nullable=nullable))
    return fields


def schema_of(
    name: str, definition: DatasetDefinition, fields: tuple[FieldSchema, ...], *, read_only: bool
) -> DatasetSchema:
    """The dataset as the interface wants it."""
    return DatasetSchema(
        name=name,
        fields=fields,
        key=definition.key,
        unique_keys=definition.unique,
        format=definition.format,
        writable=definition.writable and not read_only,
    )


class SeenKeys:
    """Which keys were there before, at 16 to 32 bytes each.

    Open addressing over digests of 64 bits under a key of its own for each reading, so that two
    records that are taken for one (one chance in some millions for a million records) are never
    the same two the next time.
    """

    def __init__(self) -> None:
        self._salt = secrets.token_bytes(16)
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, text: str) -> bool:
        """Note a key; whether it is new."""
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._salt).digest()
        added = self._put(int.from_bytes(digest, "big") or 1)
        if added:
            self._count += 1
            if 2 * self._count > len(self._slots):
                self._grow()
        return added

    def _put(self, number: int) -> bool:
        slots = self._slots
        mask = len(slots) - 1
        place = number & mask
        while slots[place]:
            if slots[place] == number:
                return False
            place = (place + 1) & mask
        slots[place] = number
        return True

    def _grow(self) -> None:
        old = self._slots
        self._slots = array("Q", bytes(2 * 8 * len(old)))
        for number in old:
            if number:
                self._put(number)
