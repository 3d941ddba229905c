"""Types from values, conservatively: a type is chosen only if every value seen fits it exactly.

Numbers with leading zeros or plus signs are text; whole numbers beyond 64 bits are decimals.
Decimals get room (18 or 38 digits), so that a larger amount tomorrow is no new type; their scale
is the largest seen. Dates and times are ISO 8601 only. A locale is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors import types
from apps.connectors.files.conversion import from_text
from apps.connectors.types import NeutralType

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_SHAPES: dict[str, str] = {
    "boolean": "^(true|false|True|False|TRUE|FALSE)$",
    "integer": "^(0|-?[1-9][0-9]{0,18})$",
    "decimal": r"^(0|-?[1-9][0-9]{0,37}|-?(0|[1-9][0-9]{0,37})\.[0-9]{1,38})$",
    "float": r"^(0|-?[1-9][0-9]{0,14}|-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?"
    r"([eE][+-]?[0-9]{1,3})|-?(0|[1-9][0-9]{0,14})\.[0-9]{1,17})$",
    "date": f"^{_DATE}$",
    "timestamp": f"^{_DATE}[T ]{_CLOCK}$",
    "timestamptz": f"^{_DATE}[T ]{_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$",
    "time": f"^{_TIME}$",
    "uuid": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
}
_IN_JSON_TEXT = ("date", "timestamp", "timestamptz", "time", "uuid")
_PARSED = ("integer", "float", "date", "timestamp", "timestamptz", "time")
_MAX_FLOAT_DIGITS = 15


@dataclass(slots=True)
class TextColumn:
    """What a column of texts can be, narrowed with each part seen."""

    candidates: list[str] = field(default_factory=lambda: list(_SHAPES))
    seen: bool = False
    integer_digits: int = 0
    scale: int = 0

    def see(self, column: pa.Array) -> None:
        """Narrow by these values; empty and NULL ones say nothing."""
        values = column.filter(pc.fill_null(pc.not_equal(column, ""), False))
        if not len(values) or (self.seen and not self.candidates):
            return
        self.seen = True
        first = values[0].as_py()
        self.candidates = [
            name
            for name in self.candidates
            if re.match(_SHAPES[name], first)
            and pc.all(pc.match_substring_regex(values, _SHAPES[name])).as_py()
            and (name not in _PARSED or not from_text(values, NeutralType.parse(name)).misfits)
        ]
        if "decimal" in self.candidates:
            self._measure(values)

    def _measure(self, values: pa.Array) -> None:
        whole = pc.utf8_length(pc.replace_substring_regex(values, r"^-|\..*$", ""))
        part = pc.utf8_length(pc.replace_substring_regex(values, r"^[^.]*\.?", ""))
        self.integer_digits = max(self.integer_digits, pc.max(whole).as_py())
        self.scale = max(self.scale, pc.max(part).as_py())

    @property
    def type(self) -> NeutralType:
        """The narrowest type that holds every value seen."""
        if not self.seen or not self.candidates:
            return types.TEXT
        best = self.candidates[0]
        if best == "decimal":
            return decimal_for(self.integer_digits, self.scale) or types.TEXT
        return NeutralType.parse(best)


def decimal_for(integer_digits: int, scale: int) -> NeutralType | None:
    """A decimal with room for these digits; None beyond 38."""
    for precision in (18, types.MAX_DECIMAL_PRECISION):
        if integer_digits + scale <= precision:
            return types.decimal(precision, scale)
    return None


def infer_text(parts: Iterable[pa.Table], names: Sequence[str]) -> dict[str, NeutralType]:
    """Types of the text columns of a CSV file."""
    columns = {name: TextColumn() for name in names}
    for part in parts:
        for name in names:
            columns[name].see(part.column(name).combine_chunks())
    return {name: column.type for name, column in columns.items()}


def infer_json(values: Sequence[Any]) -> NeutralType:
    """The type of a JSON member from its values; mixed ones stay JSON."""
    present = [value for value in values if value is not None]
    kinds = set(map(type, present))
    if not kinds:
        return types.TEXT
    if kinds == {bool}:
        return types.BOOLEAN
    if kinds <= {int, Decimal}:
        return _infer_numbers(present)
    if kinds == {str}:
        return _infer_strings(present)
    if kinds == {list}:
        return _infer_lists(present)
    return types.JSON


def _infer_numbers(values: list[int | Decimal]) -> NeutralType:
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        return types.INTEGER
    numbers = [Decimal(value).as_tuple() for value in values]
    exponents = [int(n.exponent) for n in numbers]
    if any(exponent > 0 for exponent in exponents):
        exact = all(len(n.digits) <= _MAX_FLOAT_DIGITS for n in numbers)
        return types.FLOAT if exact else types.JSON
    scale = max(-exponent for exponent in exponents)
    digits = max(len(n.digits) + int(n.exponent) for n in numbers)
    return decimal_for(max(digits, 1), scale) or _wide(numbers)


def _wide(numbers: Sequence[Any]) -> NeutralType:
    is_float = all(len(n.digits) <= _MAX_FLOAT_DIGITS + 2 for n in numbers)
    return types.FLOAT if is_float else NeutralType(types.Kind.DECIMAL)


def _infer_strings(values: list[str]) -> NeutralType:
    try:
        column = pa.array(values, pa.string())
    except UnicodeEncodeError:
        return types.TEXT
    if "" in values:
        return types.TEXT
    text = TextColumn(candidates=list(_IN_JSON_TEXT))
    text.see(column)
    return text.type


def _infer_lists(values: list[list[Any]]) -> NeutralType:
    items = [item for value in values for item in value]
    inner = infer_json(items)
    if not items or inner.kind in (types.Kind.JSON, types.Kind.ARRAY):
        return types.JSON
    return types.array(inner)
