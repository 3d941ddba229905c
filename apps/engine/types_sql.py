"""Neutral types in DuckDB's SQL, and the one text that stands for each value.

Canonical texts, so that equal values have equal texts on every platform:

| kind        | text                                                                      |
|-------------|---------------------------------------------------------------------------|
| boolean     | `true`, `false`                                                           |
| integer     | `-12`                                                                     |
| decimal     | plain digits without trailing zeros: `0.5`, `12`                          |
| float       | the shortest that reads back: `0.1`, `1e+20`, `nan`, `inf`, `-inf`        |
| text        | itself                                                                    |
| bytes       | base64                                                                    |
| date        | `2024-02-29`; before year 1 as DuckDB writes it: `0044-03-15 (BC)`        |
| time        | `12:34:56`, `12:34:56.5`                                                  |
| timestamp   | `2024-02-29T12:34:56.000000`                                              |
| timestamptz | the same in UTC with `Z`                                                  |
| uuid        | 36 characters, lower case                                                 |
| json        | canonical JSON text                                                       |
| array       | JSON array of the texts of its items                                      |

The key text of a record is a JSON array of the canonical texts of its key values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from apps.connectors.types import Kind, NeutralType

_DUCKDB: dict[Kind, str] = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.TEXT: "VARCHAR",
    Kind.BYTES: "BLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMP WITH TIME ZONE",
    Kind.UUID: "VARCHAR",
    Kind.JSON: "VARCHAR",
}

TEXT_KINDS = frozenset({Kind.TEXT, Kind.UUID, Kind.JSON})
_ESCAPE = re.compile(r"\\(?:u00[01][0-9a-f]|.)")


def quote(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | None) -> str:
    """A text as an SQL literal."""
    return "NULL" if text is None else "'" + text.replace("'", "''") + "'"


def is_text(neutral: NeutralType) -> bool:
    """Whether values are stored as their canonical text already."""
    return neutral.kind in TEXT_KINDS or neutral.is_wide_decimal


def duckdb_type(neutral: NeutralType) -> str:
    """The DuckDB type of the storage of a neutral type."""
    if neutral.kind is Kind.ARRAY:
        return f"{duckdb_type(item_of(neutral))}[]"
    if neutral.kind is Kind.DECIMAL:
        if neutral.is_wide_decimal:
            return "VARCHAR"
        return f"DECIMAL({neutral.precision},{neutral.scale or 0})"
    return _DUCKDB[neutral.kind]


def item_of(neutral: NeutralType) -> NeutralType:
    """The item type of an array."""
    if neutral.item is None:
        raise ValueError("an array without an item type")
    return neutral.item


def canonical_sql(sql: str, neutral: NeutralType) -> str:
    """SQL of the canonical text of a value; NULL stays NULL."""
    if is_text(neutral):
        return sql
    kind = neutral.kind
    if kind is Kind.DECIMAL:
        return _decimal_text(sql, neutral)
    if kind is Kind.BYTES:
        return f"to_base64({sql})"
    if kind is Kind.TIMESTAMP:
        return _timestamp_text(sql, "%Y-%m-%dT%H:%M:%S.%f", "")
    if kind is Kind.TIMESTAMPTZ:
        return _timestamp_text(f"CAST({sql} AS TIMESTAMP)", "%Y-%m-%dT%H:%M:%S.%fZ", "Z")
    if kind is Kind.ARRAY:
        item = canonical_sql("x", item_of(neutral))
        items = sql if item == "x" else f"list_transform({sql}, lambda x: {item})"
        return f"CAST(to_json({items}) AS VARCHAR)"
    return f"CAST({sql} AS VARCHAR)"


def _decimal_text(sql: str, neutral: NeutralType) -> str:
    text = f"CAST({sql} AS VARCHAR)"
    if not neutral.scale:
        return text
    if neutral.scale == neutral.precision:
        text = f"replace(replace('^' || {text}, '^-.', '-0.'), '^.', '0.')"
        text = f"ltrim({text}, '^')"
    return f"rtrim(rtrim({text}, '0'), '.')"


def _timestamp_text(sql: str, pattern: str, suffix: str) -> str:
    """Years before 1 and the infinities keep DuckDB's own form."""
    return (
        f"CASE WHEN {sql} >= TIMESTAMP '0001-01-01' AND isfinite({sql}) "
        f"THEN strftime({sql}, '{pattern}') ELSE CAST({sql} AS VARCHAR) || '{suffix}' END"
    )


def from_canonical_sql(sql: str, neutral: NeutralType) -> str:
    """SQL of the value that a canonical text stands for; raises on any other text."""
    if is_text(neutral):
        return sql
    kind = neutral.kind
    if kind is Kind.BYTES:
        return f"from_base64({sql})"
    if kind is Kind.TIMESTAMPTZ:
        naive = f"CAST(rtrim({sql}, 'Z') AS TIMESTAMP)"
        return f"CAST({naive} AS TIMESTAMP WITH TIME ZONE)"
    if kind is Kind.ARRAY:
        item = from_canonical_sql("x", item_of(neutral))
        items = f"CAST(CAST({sql} AS JSON) AS VARCHAR[])"
        return items if item == "x" else f"list_transform({items}, lambda x: {item})"
    return f"CAST({sql} AS {duckdb_type(neutral)})"


def json_string_sql(sql: str, neutral: NeutralType) -> str:
    """SQL of the canonical text as a JSON string; NULL stays NULL."""
    text = canonical_sql(sql, neutral)
    if is_text(neutral) or neutral.kind is Kind.ARRAY:
        return f"CAST(to_json({text}) AS VARCHAR)"
    return f"('\"' || {text} || '\"')"


def key_sql(columns: Sequence[tuple[str, NeutralType]]) -> str:
    """SQL of the key text of (SQL of a value, its type) pairs; NULL values become null."""
    parts = []
    for sql, neutral in columns:
        value = f"{sql} + 0.0" if neutral.kind is Kind.FLOAT else sql
        parts.append(f"coalesce({json_string_sql(value, neutral)}, 'null')")
    return "'[' || " + " || ',' || ".join(parts) + " || ']'"


def key_text(values: Sequence[str | None]) -> str:
    """The key text of canonical texts, byte for byte what `key_sql` gives."""
    return json_text(list(values))


def json_text(value: Any) -> str:
    """Compact JSON, byte for byte what DuckDB writes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPE.sub(_upper_escape, text) if "\\u00" in text else text


def _upper_escape(match: re.Match[str]) -> str:
    """`\\u001f` in capitals; what only looks like it behind an escaped backslash stays."""
    return "\\u" + match[0][2:].upper() if match[0][1] == "u" else match[0]


def key_values(text: str) -> list[str | None]:
    """The canonical texts that a key text holds."""
    values: list[str | None] = json.loads(text)
    return values
