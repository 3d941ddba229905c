"""What tables and views a PostgreSQL schema has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from apps.connectors.base import DatasetSchema, FieldSchema, Reference
from apps.connectors.errors import DatasetMissing
from apps.connectors.postgresql.connection import quote
from apps.connectors.postgresql.types import Column, NativeType

_COUNTED_BYTES = 64 * 1024 * 1024
"""Tables up to this size are counted; the server's estimate serves for larger ones."""

_TABLES = """
SELECT c.oid, c.relname, c.relkind, c.reltuples::bigint,
       CASE WHEN c.relkind IN ('r', 'm', 'p') THEN pg_total_relation_size(c.oid) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND has_table_privilege(c.oid, 'SELECT')
  AND (%(table)s::text IS NULL OR c.relname = %(table)s)
ORDER BY c.relname
"""

_COLUMNS = """
WITH RECURSIVE domain AS (
    SELECT oid AS root, typbasetype AS base, typtypmod AS modifier
    FROM pg_type WHERE typtype = 'd'
  UNION ALL
    SELECT d.root, t.typbasetype, coalesce(nullif(t.typtypmod, -1), d.modifier)
    FROM domain d JOIN pg_type t ON t.oid = d.base WHERE t.typtype = 'd'
), resolved AS (
    SELECT d.root, d.base, d.modifier FROM domain d JOIN pg_type t ON t.oid = d.base
    WHERE t.typtype <> 'd'
)
SELECT a.attrelid, a.attname,
       format_type(a.atttypid, a.atttypmod),
       format_type(coalesce(r.base, a.atttypid), coalesce(r.modifier, a.atttypmod)),
       format_type(coalesce(r.base, a.atttypid), -1),
       a.attnotnull OR coalesce(ty.typnotnull, false), a.atthasdef, a.attidentity, a.attgenerated,
       coalesce(pg_get_expr(d.adbin, d.adrelid), '') LIKE 'nextval(%%',
       CASE WHEN a.attcollation <> 0
            THEN quote_ident(cn.nspname) || '.' || quote_ident(co.collname) ELSE '' END,
       CASE WHEN a.attidentity <> ''
            THEN format('nextval(%%L::regclass)',
                        pg_get_serial_sequence(a.attrelid::regclass::text, a.attname::text))
            WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END
FROM pg_attribute a
JOIN pg_type ty ON ty.oid = a.atttypid
LEFT JOIN resolved r ON r.root = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
WHERE a.attrelid = ANY(%(oids)s) AND a.attnum > 0 AND NOT a.attisdropped
  AND has_column_privilege(a.attrelid, a.attnum, 'SELECT')
ORDER BY a.attrelid, a.attnum
"""

_KEYS = """
SELECT i.indrelid, i.indisprimary,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
        WHERE k.place <= i.indnkeyatts),
       bool(i.indexprs IS NULL AND i.indpred IS NULL)
FROM pg_index i
WHERE i.indrelid = ANY(%(oids)s) AND i.indisunique AND i.indisvalid
ORDER BY i.indrelid, i.indexrelid
"""

_REFERENCES = """
SELECT c.conrelid, f.relname, n.nspname,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(c.conkey) WITH ORDINALITY k(number, place)
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number),
       (SELECT array_agg(a.attname::text ORDER BY k.place)
        FROM unnest(c.confkey) WITH ORDINALITY k(number, place)
        JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.number)
FROM pg_constraint c
JOIN pg_class f ON f.oid = c.confrelid JOIN pg_namespace n ON n.oid = f.relnamespace
WHERE c.contype = 'f' AND c.conrelid = ANY(%(oids)s) AND c.conparentid = 0
ORDER BY c.conrelid, c.conname
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset as it is now, with what statements need beside its description."""

    schema: DatasetSchema
    columns: dict[str, Column]

    def column_list(self, names: Sequence[str]) -> list[Column]:
        return [self.columns[name] for name in names]

    def is_unique(self, names: Sequence[str]) -> bool:
        """Whether the database itself allows at most one record per value of these fields."""
        given = set(names)
        keys = (self.schema.key, *self.schema.unique_keys)
        return any(key and set(key) <= given for key in keys)


def load_tables(
    connection: psycopg.Connection[Any], schema: str, table: str | None = None, *, measure: bool
) -> list[Table]:
    """All readable tables and views of a schema, or the one named, sorted by name.

    measure: count the rows of small tables.
    """
    tables = connection.execute(_TABLES, {"schema": schema, "table": table}).fetchall()
    oids = [row[0] for row in tables]
    columns = _grouped(connection, _COLUMNS, oids)
    keys = _grouped(connection, _KEYS, oids)
    references = _grouped(connection, _REFERENCES, oids)
    loaded = []
    for oid, name, kind, estimate, size in tables:
        rows = columns[oid]
        if measure and kind in "rpmf" and (size or 0) <= _COUNTED_BYTES:
            counted = connection.execute(
                f"SELECT count(*) FROM {quote(schema)}.{quote(name)}".encode()
            ).fetchone()
            estimate = counted[0] if counted else None
        described = DatasetSchema(
            name=name,
            fields=tuple(_field(row) for row in rows),
            key=_primary_key(keys[oid]),
            unique_keys=_unique_keys(keys[oid]),
            references=_references(references[oid], schema),
            row_count=estimate if estimate is not None and estimate >= 0 else None,
            size_bytes=size,
            format="view" if kind in "vm" else "table",
            writable=kind in "rp",
        )
        loaded.append(Table(described, {row[1]: _column(row) for row in rows}))
    return loaded


def load_table(connection: psycopg.Connection[Any], schema: str, name: str) -> Table:
    """One table. Raises DatasetMissing."""
    found = load_tables(connection, schema, name, measure=False)
    if not found:
        raise DatasetMissing(
            f"there is no table '{name}' in schema '{schema}' that the user may read", where=name
        )
    return found[0]


def _grouped(
    connection: psycopg.Connection[Any], query: str, oids: list[int]
) -> dict[int, list[tuple[Any, ...]]]:
    grouped: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in connection.execute(query.encode(), {"oids": oids}):
        grouped[row[0]].append(row)
    return grouped


def _field(row: tuple[Any, ...]) -> FieldSchema:
    _, name, native, base, _, not_null, has_default, identity, generated, serial, _, _ = row
    return FieldSchema(
        name=name,
        type=NativeType.parse(base).neutral,
        native_type=native,
        nullable=not not_null,
        has_default=(has_default and not generated) or bool(identity),
        server_assigned=bool(identity) or serial,
        generated=bool(generated),
    )


def _column(row: tuple[Any, ...]) -> Column:
    return Column(
        name=row[1],
        native=NativeType.parse(row[3]),
        cast=row[4],
        collation=row[10],
        identity_always=row[7] == "a",
        default=row[11] or "",
    )


def _primary_key(rows: list[tuple[Any, ...]]) -> tuple[str, ...]:
    return next((tuple(row[2]) for row in rows if row[1]), ())


def _unique_keys(rows: list[tuple[Any, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted({tuple(row[2]) for row in rows if not row[1] and row[3] and row[2]}))


def _references(rows: list[tuple[Any, ...]], schema: str) -> tuple[Reference, ...]:
    return tuple(
        Reference(
            tuple(row[3]), row[1] if row[2] == schema else f"{row[2]}.{row[1]}", tuple(row[4])
        )
        for row in rows
    )
