"""What a format hands over: a run of records, with where each one stands in the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from apps.connectors.base import FieldSchema, RawRejection
from apps.connectors.files.conversion import Converted, Misfit

RAW_LIMIT = 10_000


def raw_text(data: bytes) -> str:
    """Bytes of a record for a person to look at."""
    return data[: 4 * RAW_LIMIT].decode("utf-8", "backslashreplace")[:RAW_LIMIT]


@dataclass(slots=True)
class Rows:
    """Records of one part of a file.

    columns:   the requested fields in neutral storage, NULL where a value did not fit;
    misfits:   for each row with such a value, the first field and why;
    position:  where a row stands, for people ("line 17");
    raw:       a row's text;
    address:   where a row starts and ends, for the format's own rewriting;
    source:    what the format needs to render a row again;
    remedy:    what helps against a misfit.
    """

    num_rows: int
    columns: dict[str, pa.Array]
    misfits: dict[int, tuple[str, Misfit]]
    position: Callable[[int], str]
    raw: Callable[[int], str]
    address: Callable[[int], tuple[int, int]]
    rejected: tuple[RawRejection, ...] = ()
    source: Any = field(default=None, repr=False)
    remedy: str = "Correct the value, or the field's type in the schema file."


def collect(
    fields: Sequence[FieldSchema], convert: Callable[[FieldSchema], Converted]
) -> tuple[dict[str, pa.Array], dict[int, tuple[str, Misfit]]]:
    """Convert each field; the first misfit of a row stands for the row."""
    columns: dict[str, pa.Array] = {}
    misfits: dict[int, tuple[str, Misfit]] = {}
    for schema in fields:
        converted = convert(schema)
        columns[schema.name] = converted.values
        for row, misfit in converted.misfits.items():
            misfits.setdefault(row, (schema.name, misfit))
    return columns, misfits


def rejection_of(rows: Rows, row: int, key: Mapping[str, Any] | None) -> RawRejection:
    """The rejection of a row with a misfit."""
    name, misfit = rows.misfits[row]
    position = rows.position(row)
    return RawRejection(
        position=position,
        code=misfit.code,
        message=f"{position}, field '{name}': {misfit.message}. {rows.remedy}",
        raw=rows.raw(row),
        key=dict(key) if key is not None else None,
        field=name,
    )
