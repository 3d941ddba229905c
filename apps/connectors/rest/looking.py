"""Looking changes' records up, as they are now, with what addresses each one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from apps.connectors.base import DatasetSchema
from apps.connectors.files.conversion import identity, to_text
from apps.connectors.rest.reading import DatasetApi
from apps.connectors.rest.records import Page, Record
from apps.connectors.rest.templates import placeholders
from apps.connectors.returning import Found, numbered
from apps.connectors.sql import find_fields

Texts = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Standing:
    """A record as it stands. texts: what addresses it in paths."""

    record: Record
    texts: Texts


@dataclass(slots=True)
class Looked:
    """What was found: the records by change, in neutral storage and as the API gave them.

    Of a change for which several records were found, `standing` holds one of them.
    """

    found: Found
    standing: dict[int, Standing] = field(default_factory=dict)


def address_names(api: DatasetApi) -> list[str]:
    """The fields that paths of single records are made of."""
    definition = api.definition
    paths = [definition.item]
    paths += [w.path for w in (definition.update, definition.delete) if w is not None]
    return list(dict.fromkeys([*definition.key, *(n for p in paths for n in placeholders(p))]))


def look_up(
    api: DatasetApi,
    current: DatasetSchema,
    keys: pa.Table,
    rows: Sequence[int],
    names: Sequence[str],
) -> Looked:
    """The records that have the keys of these changes, with the fields `names`."""
    chosen = keys.take(pa.array(rows, pa.int64()))
    key_fields = find_fields(current, keys.column_names)
    kinds = [each.type for each in key_fields]
    columns = [_flat(chosen.column(each.name)) for each in key_fields]
    rows_by_key: dict[str, list[int]] = {}
    for row, text in zip(rows, identity(columns, kinds).to_pylist(), strict=True):
        rows_by_key.setdefault(text, []).append(row)

    def changes(part: Mapping[str, pa.Array]) -> list[list[int]]:
        texts = identity([part[each.name] for each in key_fields], kinds).to_pylist()
        return [rows_by_key.get(text, []) for text in texts]

    writes = (api.definition.update, api.definition.delete)
    tagged = any(write.if_match for write in writes if write is not None)
    pages = api.find(chosen, key_fields, tagged=tagged) if rows else iter(())
    return _collect(api, current, pages, [*keys.column_names, *names], changes)


def look_at(
    api: DatasetApi, current: DatasetSchema, records: Mapping[int, Record], names: Sequence[str]
) -> Looked:
    """Records that are known already, by change, in neutral storage."""
    page = Page(list(records.values()), api.name)
    numbers = list(records)
    return _collect(api, current, iter([page]), names, lambda _: [[row] for row in numbers])


def look_through(
    api: DatasetApi,
    current: DatasetSchema,
    after: pa.Table,
    rows: Sequence[int],
) -> tuple[Looked, list[str]]:
    """Every record that equals what one of these changes writes, and its own key per finding."""
    wanted = after.take(pa.array(rows, pa.int64()))
    fields = find_fields(current, after.column_names)
    kinds = [each.type for each in fields]
    texts = identity([_flat(wanted.column(each.name)) for each in fields], kinds).to_pylist()
    rows_by_text: dict[str, list[int]] = {}
    for row, text in zip(rows, texts, strict=True):
        rows_by_text.setdefault(text, []).append(row)
    key_fields = find_fields(current, api.definition.key)
    own_keys: list[str] = []

    def changes(part: Mapping[str, pa.Array]) -> list[list[int]]:
        same = identity([part[each.name] for each in fields], kinds).to_pylist()
        keys = identity([part[f.name] for f in key_fields], [f.type for f in key_fields])
        hits = [rows_by_text.get(text, []) for text in same]
        for key, hit in zip(keys.to_pylist(), hits, strict=True):
            own_keys.extend([key] * len(hit))
        return hits

    pages = api.everything() if rows else iter(())
    names = [*after.column_names, *api.definition.key]
    return _collect(api, current, pages, names, changes), own_keys


def _collect(
    api: DatasetApi,
    current: DatasetSchema,
    pages: Iterator[Page],
    names: Sequence[str],
    changes: Callable[[Mapping[str, pa.Array]], list[list[int]]],
) -> Looked:
    """The records of these pages that belong to changes. changes: the changes of each record."""
    addresses = address_names(api)
    fields = find_fields(current, dict.fromkeys([*names, *addresses]))
    schema = pa.schema([(each.name, each.type.arrow) for each in fields])
    parts = [numbered(pa.RecordBatch.from_pylist([], schema=schema), [])]
    looked = Looked(Found(parts[0]))
    unreadable: list[int] = []
    for page in pages:
        if not page.records:
            continue
        part = api.rows(page, fields)
        hits = [(place, row) for place, of in enumerate(changes(part.columns)) for row in of]
        unreadable += [row for place, row in hits if place in part.misfits]
        good = [(place, row) for place, row in hits if place not in part.misfits]
        places = pa.array([place for place, _ in good], pa.int64())
        columns = [part.columns[each.name].take(places) for each in fields]
        batch = pa.RecordBatch.from_arrays(columns, schema=schema)
        parts.append(numbered(batch, [row for _, row in good]))
        texts = {
            each.name: to_text(column, each.type).cast(pa.string()).to_pylist()
            for each, column in zip(fields, columns, strict=True)
            if each.name in addresses
        }
        for number, (place, row) in enumerate(good):
            address = {name: values[number] for name, values in texts.items()}
            looked.standing[row] = Standing(page.records[place], address)
    looked.found = Found(pa.concat_tables(parts), tuple(unreadable))
    return looked


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
