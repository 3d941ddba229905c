"""The schema of a file: declared by its schema file or by Parquet, else inferred."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.errors import SchemaMismatch
from apps.connectors.files import sidecar
from apps.connectors.files.inference import infer_json, infer_text
from apps.connectors.files.limits import require_field_count
from apps.connectors.files.parquet_format import fields_of
from apps.connectors.files.paths import FileRef
from apps.connectors.files.reading import OpenFile
from apps.connectors.files.settings import FilesSettings

_JSON_SAMPLE_SHARE = 4
"""Parsed JSON takes several times the room of its text."""


def describe(ref: FileRef, settings: FilesSettings) -> DatasetSchema:
    """The file as it is now. Raises DatasetMissing, PermissionRefused or SchemaMismatch."""
    declared = None if settings.schema_source == "inferred" else sidecar.load(ref)
    with OpenFile(ref, settings) as file:
        if settings.schema_source == "sidecar" and declared is None and ref.format != "parquet":
            raise SchemaMismatch(
                "the file has no schema file",
                where=ref.dataset,
                remedy=f"Put '{ref.sidecar.name}' beside it, or let types be inferred.",
            )
        found, row_count = _found(file, settings, declared)
        fields = _merged(ref, found, declared)
        return DatasetSchema(
            name=ref.dataset,
            fields=fields,
            key=declared.key if declared else (),
            row_count=row_count,
            size_bytes=file.fingerprint.size,
            format=ref.format,
        )


def _found(
    file: OpenFile, settings: FilesSettings, declared: sidecar.Sidecar | None
) -> tuple[tuple[FieldSchema, ...], int | None]:
    limit = settings.sample_mib << 20
    if file.ref.format == "parquet":
        parquet = file.parquet()
        return fields_of(parquet.schema), parquet.file.metadata.num_rows
    if file.ref.format == "csv":
        return _found_in_csv(file, limit, declared)
    return _found_in_json(file, limit // _JSON_SAMPLE_SHARE, declared)


def _found_in_csv(
    file: OpenFile, limit: int, declared: sidecar.Sidecar | None
) -> tuple[tuple[FieldSchema, ...], int | None]:
    reader = file.csv()
    known = {f.name for f in declared.fields} if declared else set()
    unknown = [name for name in reader.names if name not in known]
    if not unknown:
        return tuple(FieldSchema(name, _TEXT.type, "text") for name in reader.names), None
    progress = _Progress(limit)

    def parts() -> Iterator[pa.Table]:
        for rows in reader.rows((), with_source=True):
            progress.rows += rows.num_rows + len(rows.rejected)
            if rows.source is not None:
                progress.size += rows.source.nbytes
                yield rows.source
            if progress.is_over:
                return
        progress.is_complete = True

    inferred = infer_text(parts(), unknown)
    fields = tuple(
        FieldSchema(name, inferred.get(name, _TEXT.type), "text") for name in reader.names
    )
    return fields, progress.rows if progress.is_complete else None


_TEXT = FieldSchema("", infer_json(()), "text")


class _Progress:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.rows = 0
        self.size = 0
        self.is_complete = False

    @property
    def is_over(self) -> bool:
        return self.size >= self._limit


def _found_in_json(
    file: OpenFile, limit: int, declared: sidecar.Sidecar | None
) -> tuple[tuple[FieldSchema, ...], int | None]:
    if declared is not None:
        return (), None
    progress = _Progress(limit)
    values: dict[str, list[Any]] = {}
    for records, rejected in file.json().records():
        for record in records:
            progress.size += len(record.text)
            for name, value in record.value.items():
                values.setdefault(name, []).append(value)
        require_field_count(len(values), file.ref.dataset)
        progress.rows += len(records) + len(rejected)
        if progress.is_over:
            break
    else:
        progress.is_complete = True
    fields = tuple(FieldSchema(name, infer_json(seen), "json") for name, seen in values.items())
    return fields, progress.rows if progress.is_complete else None


def _merged(
    ref: FileRef, found: Sequence[FieldSchema], declared: sidecar.Sidecar | None
) -> tuple[FieldSchema, ...]:
    if declared is None:
        return tuple(found)
    if ref.format in ("jsonl", "json"):
        return declared.fields
    by_name = {f.name: f for f in declared.fields}
    missing = set(by_name) - {f.name for f in found}
    if missing:
        raise SchemaMismatch(
            f"the schema file names the field '{min(missing)}', which the file lacks",
            where=ref.dataset,
            remedy="Correct the schema file or the file.",
        )
    return tuple(
        replace(f, type=by_name[f.name].type, nullable=by_name[f.name].nullable)
        if f.name in by_name
        else f
        for f in found
    )


def united(name: str, schemas: Sequence[DatasetSchema]) -> DatasetSchema:
    """The schema of a group: the fields that all files have; types that differ become text."""
    first = schemas[0]
    fields = []
    for candidate in first.fields:
        others = [f for schema in schemas for f in schema.fields if f.name == candidate.name]
        if len(others) < len(schemas):
            continue
        same = all(f.type == candidate.type for f in others)
        fields.append(candidate if same else replace(candidate, type=_TEXT.type))
    counts = [schema.row_count for schema in schemas]
    keys = {schema.key for schema in schemas}
    return DatasetSchema(
        name=name,
        fields=tuple(fields),
        key=keys.pop() if len(keys) == 1 else (),
        row_count=None if None in counts else sum(count or 0 for count in counts),
        size_bytes=sum(schema.size_bytes or 0 for schema in schemas),
        format=first.format,
        writable=False,
    )
