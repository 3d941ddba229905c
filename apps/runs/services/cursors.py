"""Cursor values as text: reading them, comparing them, setting them back by a lag."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from apps.connectors.base import FieldSchema
from apps.engine.codec import decode_keys
from apps.engine.transform import cursor_maximum
from apps.engine.types_sql import key_text


def cursor_value(field: FieldSchema, cursor: str) -> Any:
    """The cursor text as a Python value of the field's type."""
    table = decode_keys([key_text([cursor])], {field.name: field.type})
    return table.column(0)[0].as_py()


def later_cursor(one: str, other: str) -> str:
    """The greater of two cursor texts of one field; numbers by value, all else by text.

    Dates and timestamps are canonical texts of equal length, so that text order is time order.
    """
    if not one or not other:
        return one or other
    try:
        return one if Decimal(one) >= Decimal(other) else other
    except InvalidOperation:
        return max(one, other)


def with_lag(field: FieldSchema, cursor: str, lag_seconds: int) -> str:
    """The cursor text set back by the declared lag; only points in time have one."""
    value = cursor_value(field, cursor)
    lag = timedelta(seconds=lag_seconds)
    if isinstance(value, datetime):
        value -= lag
    elif isinstance(value, date):
        value = (datetime.combine(value, time.min) - lag).date()
    else:
        return cursor
    column = pa.array([value], field.type.arrow)
    return cursor_maximum(pa.record_batch([column], [field.name]), field.name) or cursor
