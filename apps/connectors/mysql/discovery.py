"""What tables and views a MySQL database has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from apps.connectors.base import DatasetSchema, FieldSchema, Reference
from apps.connectors.errors import DatasetMissing
from apps.connectors.mysql.connection import quote
from apps.connectors.mysql.types import Column

_COUNTED_BYTES = 64 * 1024 * 1024
"""Tables up to this size are counted; the server's estimate serves for larger ones."""

_TABLES = """
SELECT t.TABLE_NAME, t.TABLE_TYPE, t.TABLE_ROWS, t.DATA_LENGTH + t.INDEX_LENGTH, e.TRANSACTIONS
FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_TYPE IN ('BASE TABLE', 'VIEW', 'SYSTEM VERSIONED')
"""
_COLUMNS = """
SELECT c.TABLE_NAME, c.COLUMN_NAME, c.COLUMN_TYPE, c.IS_NULLABLE, c.COLUMN_DEFAULT, c.EXTRA,
       c.CHARACTER_MAXIMUM_LENGTH, c.CHARACTER_SET_NAME, c.COLLATION_NAME,
       c.GENERATION_EXPRESSION
FROM information_schema.COLUMNS c WHERE c.TABLE_SCHEMA = DATABASE(){only}
ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION
"""
_KEYS = """
SELECT s.TABLE_NAME, s.INDEX_NAME, s.COLUMN_NAME, s.SUB_PART
FROM information_schema.STATISTICS s
WHERE s.TABLE_SCHEMA = DATABASE() AND s.NON_UNIQUE = 0{only}
ORDER BY s.TABLE_NAME, s.INDEX_NAME, s.SEQ_IN_INDEX
"""
_REFERENCES = """
SELECT k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_NAME,
       k.REFERENCED_COLUMN_NAME
FROM information_schema.KEY_COLUMN_USAGE k
WHERE k.TABLE_SCHEMA = DATABASE() AND k.REFERENCED_TABLE_NAME IS NOT NULL{only}
ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION
"""
_JSON_CHECKS = """
SELECT k.TABLE_NAME, k.CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS k
WHERE k.CONSTRAINT_SCHEMA = DATABASE() AND k.CHECK_CLAUSE LIKE '%%json_valid(%%'{only}
"""
_JSON_VALID = re.compile(r"^json_valid\(`((?:[^`]|``)+)`\)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Table:
    """A dataset as it is now, with what statements need beside its description."""

    schema: DatasetSchema
    columns: dict[str, Column]
    is_transactional: bool

    def column_list(self, names: Sequence[str]) -> list[Column]:
        return [self.columns[name] for name in names]

    def is_unique(self, names: Sequence[str]) -> bool:
        """Whether the database itself allows at most one record per value of these fields."""
        given = set(names)
        keys = (self.schema.key, *self.schema.unique_keys)
        return any(key and set(key) <= given for key in keys)


def server_version(connection: Connection[Any]) -> str:
    return str(getattr(connection, "server_version", ""))


def is_mariadb(connection: Connection[Any]) -> bool:
    return "mariadb" in server_version(connection).lower()


def load_tables(
    connection: Connection[Any], table: str | None = None, *, measure: bool
) -> list[Table]:
    """All readable tables and views, or the one named, sorted by name.

    measure: count the rows of small tables.
    """
    listed = sorted(_rows(connection, _TABLES + "{only}", "t", table))
    columns = _grouped(connection, _COLUMNS, "c", table)
    keys = _grouped(connection, _KEYS, "s", table)
    references = _grouped(connection, _REFERENCES, "k", table)
    json_fields = _json_fields(connection, table) if is_mariadb(connection) else set()
    loaded = []
    for name, kind, estimate, size, transactions in listed:
        if table is not None and name != table:
            continue
        described = [_column(row, json_fields) for row in columns[name]]
        primary, unique = _keys(keys[name])
        is_table = kind != "VIEW"
        if measure and is_table and int(size or 0) <= _COUNTED_BYTES:
            estimate = _rows(connection, f"SELECT COUNT(*) FROM {quote(name)}".replace("%", "%%"))[
                0
            ][0]
        schema = DatasetSchema(
            name=name,
            fields=tuple(
                _field(row, column) for row, column in zip(columns[name], described, strict=True)
            ),
            key=primary,
            unique_keys=unique,
            references=_references(references[name]),
            row_count=int(estimate) if estimate is not None and is_table else None,
            size_bytes=int(size) if size is not None else None,
            format="table" if is_table else "view",
            writable=is_table,
        )
        by_name = {column.name: column for column in described}
        loaded.append(Table(schema, by_name, is_transactional=transactions == "YES"))
    return loaded


def load_table(connection: Connection[Any], name: str) -> Table:
    """One table. Raises DatasetMissing."""
    found = load_tables(connection, name, measure=False)
    if not found:
        raise DatasetMissing(f"there is no table '{name}' that the user may read", where=name)
    return found[0]


def _rows(
    connection: Connection[Any], query: str, alias: str = "", table: str | None = None
) -> list[tuple[Any, ...]]:
    only = f" AND {alias}.TABLE_NAME = %s" if table is not None else ""
    with connection.cursor() as cursor:
        cursor.execute(query.replace("{only}", only), (table,) if table is not None else ())
        return [tuple(row) for row in cursor.fetchall()]


def _grouped(
    connection: Connection[Any], query: str, alias: str, table: str | None
) -> dict[str, list[tuple[Any, ...]]]:
    grouped: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in _rows(connection, query, alias, table):
        grouped[row[0]].append(row)
    return grouped


def _json_fields(connection: Connection[Any], table: str | None) -> set[tuple[str, str]]:
    found = set()
    for name, clause in _rows(connection, _JSON_CHECKS, "k", table):
        match = _JSON_VALID.match(clause.strip())
        if match:
            found.add((name, match[1].replace("``", "`")))
    return found


def _column(row: tuple[Any, ...], json_fields: set[tuple[str, str]]) -> Column:
    table, name, declared, _, _, _, length, charset, collation, _ = row
    return Column(
        name=name,
        declared=declared,
        length=int(length) if length is not None else None,
        charset=charset or "",
        collation=collation or "",
        is_json=(table, name) in json_fields,
    )


def _field(row: tuple[Any, ...], column: Column) -> FieldSchema:
    _, name, declared, nullable, default, extra, _, _, _, generation = row
    flags = (extra or "").lower()
    automatic = "auto_increment" in flags
    return FieldSchema(
        name=name,
        type=column.type,
        native_type=declared,
        nullable=nullable == "YES",
        has_default=automatic or (default is not None and default != "NULL"),
        server_assigned=automatic,
        generated=bool(generation) and "default_generated" not in flags,
    )


def _keys(
    rows: list[tuple[Any, ...]],
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The primary key and the other unique keys; those on expressions or prefixes are none."""
    by_index: dict[str, list[str]] = defaultdict(list)
    partial: set[str] = set()
    for _, index, column, prefix in rows:
        by_index[index].append(column)
        if column is None or prefix is not None:
            partial.add(index)
    primary = tuple(by_index.pop("PRIMARY", ()))
    unique = {tuple(names) for index, names in by_index.items() if index not in partial}
    return primary, tuple(sorted(unique))


def _references(rows: list[tuple[Any, ...]]) -> tuple[Reference, ...]:
    grouped: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        grouped[row[1]].append(row)
    return tuple(
        Reference(tuple(r[2] for r in part), part[0][3], tuple(r[4] for r in part))
        for _, part in sorted(grouped.items())
    )
