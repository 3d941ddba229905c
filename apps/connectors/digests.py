"""Digests of records: one text for each value and each record, whichever database writes it.

A field's text has one of these forms. Equal values have equal texts on every platform that offers
the form, and no two values of one type share a text, so that records whose digests are equal are
equal; those whose digests differ may still be (a text may be finer than equality), and are
compared by value afterwards.

| form          | of                        | text                                          |
|---------------|---------------------------|-----------------------------------------------|
| `number`      | boolean, integer, decimal | plain digits, no trailing zeros: `1`, `-0.5`  |
| `ieee754`     | float                     | its 64 bits in hexadecimal, without -0        |
| `text`        | text, uuid, integer,      | itself in UTF-8, unnormalised; blanks count,  |
|               | decimal                   | but for those that pad a CHAR                 |
| `hex`         | bytes                     | `x` and lower-case hexadecimal                |
| `date`        | date                      | `2024-02-29`                                  |
| `time`        | time                      | `12:34:56`, `12:34:56.5`                      |
| `timestamp`   | timestamp                 | `2024-02-29 12:34:56.5`                       |
| `timestamptz` | timestamptz               | the same in UTC with `+00`                    |
| `uuid`        | uuid                      | 36 characters, lower case                     |
| `<name>:json`, `<name>:array`, `<name>:float` | | what that platform itself writes, for two |
|               |                           | sides of one kind                             |

No database writes JSON with sorted keys and exact numbers, and MySQL has no way to the bits of a
float: such fields are compared by digests between two databases of one kind only.

A record's encoding is the sequence of its fields. Texts of the forms `text` and `<name>:...` are
written as their length in bytes, `:` and themselves, NULL as `:`; of the others, which are never
empty and have no `|`, as themselves and `|`, NULL as `|`. So each field ends where a reader that
knows the forms sees it end, and two different records never have the same encoding.

The digest is the MD5 of the encoding: no defence against people who build collisions, as its
128 bits are against chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    DatasetSchema,
    DigestRequest,
    DigestSession,
    DigestsRefused,
    FieldSchema,
    Key,
    KeyBounds,
    KeyRange,
    KeySpan,
    SpanDigest,
)
from apps.connectors.sql import find_fields
from apps.connectors.sql_values import decode
from apps.connectors.types import Kind, NeutralType

SUM_MODULUS = 2**64
DIGEST, YOUNG = "digest", "young"


class Form(StrEnum):
    """The forms that mean the same on every platform."""

    NUMBER = "number"
    IEEE754 = "ieee754"
    TEXT = "text"
    HEX = "hex"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    UUID = "uuid"


_FORMS: dict[Kind, tuple[Form, ...]] = {
    Kind.BOOLEAN: (Form.NUMBER,),
    Kind.INTEGER: (Form.NUMBER, Form.TEXT),
    Kind.DECIMAL: (Form.NUMBER, Form.TEXT),
    Kind.FLOAT: (Form.IEEE754,),
    Kind.TEXT: (Form.TEXT,),
    Kind.BYTES: (Form.HEX,),
    Kind.DATE: (Form.DATE,),
    Kind.TIME: (Form.TIME,),
    Kind.TIMESTAMP: (Form.TIMESTAMP,),
    Kind.TIMESTAMPTZ: (Form.TIMESTAMPTZ,),
    Kind.UUID: (Form.UUID, Form.TEXT),
}

ORDERED_KINDS = frozenset(
    {
        Kind.BOOLEAN,
        Kind.INTEGER,
        Kind.DECIMAL,
        Kind.TEXT,
        Kind.BYTES,
        Kind.DATE,
        Kind.TIME,
        Kind.TIMESTAMP,
        Kind.TIMESTAMPTZ,
        Kind.UUID,
    }
)
"""Kinds of which all platforms order values alike; key fields are of these."""


def neutral_forms(neutral: NeutralType) -> tuple[str, ...]:
    """The forms of a neutral type that mean the same everywhere, best first."""
    return tuple(_FORMS.get(neutral.kind, ()))


def native_form(connector: str, neutral: NeutralType) -> str:
    """The form that a platform itself gives to values of a type."""
    return f"{connector}:{neutral.kind.value}"


def has_length(form: str) -> bool:
    """Whether the encoding writes a text of this form with its length before it."""
    return form == Form.TEXT or ":" in form


def encode_texts(texts: Sequence[str | None], forms: Sequence[str]) -> str:
    """The encoding of one record, as every dialect's SQL writes it."""
    return "".join(
        f"{'' if text is None else len(text.encode())}:{text or ''}"
        if has_length(form)
        else f"{text or ''}|"
        for text, form in zip(texts, forms, strict=True)
    )


def key_fields(request: DigestRequest, current: DatasetSchema) -> list[FieldSchema]:
    """The key's fields as they are now.

    Raises DigestsRefused where they do not cut into spans, FieldMissing.
    """
    if not request.key:
        raise DigestsRefused(f"'{current.name}' has no key")
    found = find_fields(current, request.key)
    for field in found:
        if field.nullable:
            raise DigestsRefused(f"the key field '{field.name}' may be empty")
        if field.type.kind not in ORDERED_KINDS or field.type.is_wide_decimal:
            raise DigestsRefused(
                f"the key field '{field.name}' is of type {field.type}, "
                "which databases do not order alike"
            )
    return found


SHARE_DIGITS = 7
"""Hexadecimal digits of the MD5 that choose a share: no database takes 28 bits for negative."""

SHARE_SEPARATOR = "|"
SAMPLES_PER_PART = 100  # parts are then of equal size within some 10 %


def share_text(texts: Sequence[str | None]) -> str:
    """What is hashed to find a record's share; the MD5's first digits modulo the shares are it.

    Two keys may have one text without harm: they are in the same share.
    """
    return SHARE_SEPARATOR.join(text or "" for text in texts)


def key_bounds(session: DigestSession, dataset: DatasetSchema, parts: int) -> KeyBounds:
    """Keys that cut the session's dataset into so many parts of about equal numbers of rows."""
    if parts < 2:
        return KeyBounds((), session.indexed)
    rows = dataset.row_count or 0
    share = min(1.0, parts * SAMPLES_PER_PART / rows) if rows else 1.0
    return KeyBounds(session.sample_bounds([KeySpan()], parts, share)[0], session.indexed)


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A key field in a dialect. order: SQL that the dialect compares as `KeySpan` says;
    value: SQL of the value to give back; literal: the SQL of a value, to compare with `order`.
    """

    field: FieldSchema
    order: str
    value: str
    literal: Callable[[Any], str]


def below(key: Sequence[KeyColumn], bound: Key) -> str:
    """SQL of whether a key is less than a bound; an index on the first field can serve it."""
    column, value = key[0], key[0].literal(bound[0])
    if len(key) == 1:
        return f"{column.order} < {value}"
    rest = below(key[1:], bound[1:])
    return f"({column.order} <= {value} AND ({column.order} < {value} OR {rest}))"


def not_below(key: Sequence[KeyColumn], bound: Key) -> str:
    """SQL of whether a key is the bound or greater."""
    column, value = key[0], key[0].literal(bound[0])
    if len(key) == 1:
        return f"{column.order} >= {value}"
    rest = not_below(key[1:], bound[1:])
    return f"({column.order} >= {value} AND ({column.order} > {value} OR {rest}))"


def condition_sql(key: Sequence[KeyColumn], spans: Sequence[KeySpan]) -> str:
    """SQL of whether a record lies in one of the spans."""
    parts = []
    for span in _joined(spans):
        conditions = []
        if span.lower is not None:
            conditions.append(not_below(key, span.lower))
        if span.upper is not None:
            conditions.append(below(key, span.upper))
        if not conditions:
            return "true"
        parts.append(" AND ".join(conditions))
    return f"({' OR '.join(f'({part})' for part in parts)})" if parts else "false"


def _joined(spans: Sequence[KeySpan]) -> Iterator[KeySpan]:
    """The same keys in as few spans as can be."""
    current: KeySpan | None = None
    for span in spans:
        if current is not None and current.upper is not None and current.upper == span.lower:
            current = KeySpan(current.lower, span.upper)
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current


def range_sql(key: Sequence[KeyColumn], part: KeyRange) -> list[str]:
    """SQL of whether a record lies in a range; NULL, of a key of one field, is in the first."""
    conditions = []
    if part.lower is not None:
        conditions.append(not_below(key, part.lower))
    if part.upper is not None:
        inside = below(key, part.upper)
        nullable = part.lower is None and len(key) == 1 and key[0].field.nullable
        conditions.append(f"({inside} OR {key[0].order} IS NULL)" if nullable else inside)
    return conditions


def number_sql(key: Sequence[KeyColumn], spans: Sequence[KeySpan]) -> str:
    """SQL of the number of the span, among these, that a record of one of them lies in.

    A binary search, so that a thousand spans cost ten comparisons per record.
    """

    def search(first: int, last: int) -> str:
        if first == last:
            return str(first)
        middle = (first + last) // 2
        upper = spans[middle].upper
        if upper is None:
            raise ValueError("the spans are not ascending")
        condition = below(key, upper)
        return (
            f"CASE WHEN {condition} THEN {search(first, middle)} "
            f"ELSE {search(middle + 1, last)} END"
        )

    return search(0, max(len(spans) - 1, 0))


def sample_sql(
    key: Sequence[KeyColumn],
    spans: Sequence[KeySpan],
    *,
    table: str,
    parts: int,
    chosen: str,
    divided: str,
) -> str:
    """A query of (number of the span, values of the key), in order: where each part begins.

    chosen: SQL of whether a record is in the sample; divided: how the dialect divides integers.
    """
    places = range(len(key))
    inner = "".join(
        f", {column.order} AS o{i}, {column.value} AS v{i}"
        for i, column in zip(places, key, strict=True)
    )
    order = ", ".join(f"o{i}" for i in places)
    values = ", ".join(f"v{i}" for i in places)
    sample = (
        f"SELECT {number_sql(key, spans)} AS b{inner} FROM {table} AS t "
        f"WHERE {condition_sql(key, spans)} AND {chosen}"
    )
    numbered = (
        f"SELECT b, {values}, ROW_NUMBER() OVER (PARTITION BY b ORDER BY {order}) AS n, "
        f"COUNT(*) OVER (PARTITION BY b) AS c FROM ({sample}) s"
    )
    return (
        f"SELECT b, {values} FROM ({numbered}) q "
        f"WHERE n > 1 AND (n - 1) * {parts} {divided} c <> (n - 2) * {parts} {divided} c "
        f"ORDER BY b, n"
    )


def decoded_keys(values: Sequence[Any], fields: Sequence[FieldSchema]) -> list[pa.Array]:
    """Key values in neutral storage; what their types cannot hold is NULL."""
    return [decode(each, field.type).values for each, field in zip(values, fields, strict=True)]


def sampled_bounds(
    numbers: pa.ChunkedArray, keys: Sequence[pa.Array], spans: int
) -> list[tuple[Key, ...]]:
    """Bounds per span from the answer to `sample_sql`; without repeats, NULLs and NULs."""
    bounds: list[list[Key]] = [[] for _ in range(spans)]
    columns = [column.to_pylist() for column in keys]
    for number, *values in zip(numbers.to_pylist(), *columns, strict=True):
        key = tuple(values)
        unusable = any(v is None or (isinstance(v, str) and "\0" in v) for v in key)
        if not unusable and (not bounds[number] or bounds[number][-1] != key):
            bounds[number].append(key)
    return [tuple(found) for found in bounds]


def row_digest_batch(
    fields: Sequence[FieldSchema], values: Sequence[Any], digests: pa.Array, young: pa.Array
) -> pa.RecordBatch:
    """One batch of `DigestSession.row_digests`; records whose key is unreadable are left out."""
    columns = [*decoded_keys(values, fields), digests.cast(pa.binary()), young.cast(pa.bool_())]
    names = [*(field.name for field in fields), DIGEST, YOUNG]
    batch = pa.RecordBatch.from_arrays(columns, names)
    for field in fields:
        if batch.column(field.name).null_count:
            batch = batch.filter(pc.is_valid(batch.column(field.name)))
    return batch


def span_digests(
    answer: Sequence[Sequence[Any]], spans: int, too_large: str = ""
) -> list[SpanDigest]:
    """Digests per span from rows of (number, records, their digests, both sums).

    Raises DigestsRefused, saying `too_large`, when a record has no digest.
    """
    found = [SpanDigest()] * spans
    for number, rows, digests, first, second in answer:
        if int(rows) != int(digests):
            raise DigestsRefused(too_large)
        found[int(number)] = SpanDigest(
            int(rows), int(first) % SUM_MODULUS, int(second) % SUM_MODULUS
        )
    return found
