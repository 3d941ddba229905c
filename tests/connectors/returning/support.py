"""What the tests of given back records share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from apps.connectors.base import ChangeBatch, Connector, Operation, WriteResult
from apps.connectors.testing import do_nothing, open_session

Columns = dict[str, list[Any]]


def insert(
    connector: Connector[Any],
    table: str,
    after: Columns,
    returning: Sequence[str] = (),
    *,
    key: str = "",
    **options: Any,
) -> WriteResult:
    """Insert records whose key the target assigns, unless a field is named as the key."""
    rows = _table(connector, table, after)
    keys = rows.select([key]) if key else pa.table({})
    batch = ChangeBatch(Operation.INSERT, keys, None, rows, **options)
    return _apply(connector, table, batch, returning)


def update(
    connector: Connector[Any],
    table: str,
    key: Columns,
    before: Columns,
    after: Columns,
    returning: Sequence[str] = (),
) -> WriteResult:
    images = (_table(connector, table, columns) for columns in (key, before, after))
    return _apply(connector, table, ChangeBatch(Operation.UPDATE, *images), returning)


def _table(connector: Connector[Any], table: str, columns: Columns) -> pa.Table:
    schema = connector.describe(table)
    return pa.table(
        {name: pa.array(values, schema.field(name).type.arrow) for name, values in columns.items()}
    )


def _apply(
    connector: Connector[Any], table: str, batch: ChangeBatch, returning: Sequence[str]
) -> WriteResult:
    with open_session(connector, connector.describe(table)) as session:
        return session.apply(batch, do_nothing, returning=returning)


def stored(result: WriteResult) -> list[tuple[Any, ...]]:
    """The records given back, as tuples of their fields."""
    assert result.stored is not None
    return [tuple(row.values()) for row in result.stored.to_pylist()]


def keys(result: WriteResult) -> list[Any]:
    """The keys given back, of datasets whose key is one field."""
    assert result.keys is not None
    return [row for (row,) in (tuple(values.values()) for values in result.keys.to_pylist())]


def codes(result: WriteResult) -> dict[int, str]:
    """By change the code of what went wrong, or its status."""
    return {row: p.code or p.status.value for row, p in result.exceptions.items()}
