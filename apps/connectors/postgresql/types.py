"""PostgreSQL's types against the neutral ones: how each is read, staged, cast and compared.

What has a neutral type of its own is read in it; everything else (enumerations, ranges, network
addresses, intervals, XML, types of extensions) is text through the server's own casts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from apps.connectors import types as neutral
from apps.connectors.postgresql.connection import quote
from apps.connectors.types import Kind, NeutralType

_FORMATTED = re.compile(
    r"^(?P<name>[^(\[]+?)\s*(?:\((?P<args>[-0-9, ]+)\))?"
    r"(?P<zone> with(?:out)? time zone)?(?P<array>\[\])?$"
)

_SIMPLE: dict[str, NeutralType] = {
    "boolean": neutral.BOOLEAN,
    "smallint": neutral.INTEGER,
    "integer": neutral.INTEGER,
    "bigint": neutral.INTEGER,
    "real": neutral.FLOAT,
    "double precision": neutral.FLOAT,
    "text": neutral.TEXT,
    "bytea": neutral.BYTES,
    "date": neutral.DATE,
    "time without time zone": neutral.TIME,
    "timestamp without time zone": neutral.TIMESTAMP,
    "timestamp with time zone": neutral.TIMESTAMPTZ,
    "uuid": neutral.UUID,
    "json": neutral.JSON,
    "jsonb": neutral.JSON,
}
_READ_AS_IT_IS = {
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "text",
    "character varying",
    "bytea",
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
}


@dataclass(frozen=True, slots=True)
class NativeType:
    """A column's type without its domain, taken apart."""

    name: str  # as PostgreSQL spells it, without modifiers and brackets
    arguments: tuple[int, ...] = ()
    is_array: bool = False

    @classmethod
    def parse(cls, formatted: str) -> NativeType:
        """Read what `format_type` gives."""
        match = _FORMATTED.match(formatted)
        if match is None:
            return cls(formatted.removesuffix("[]"), (), formatted.endswith("[]"))
        arguments = tuple(int(part) for part in match["args"].split(",")) if match["args"] else ()
        return cls(match["name"] + (match["zone"] or ""), arguments, bool(match["array"]))

    @property
    def neutral(self) -> NeutralType:
        item = self._scalar()
        return neutral.array(item) if self.is_array else item

    def _scalar(self) -> NeutralType:
        if self.name in _SIMPLE:
            return _SIMPLE[self.name]
        if self.name == "numeric":
            return self._decimal()
        if self.name in {"character varying", "character"}:
            return NeutralType(Kind.TEXT, length=self.arguments[0] if self.arguments else None)
        return neutral.TEXT

    def _decimal(self) -> NeutralType:
        if not self.arguments:
            return NeutralType(Kind.DECIMAL)
        precision, scale = self.arguments
        return (
            neutral.decimal(precision, scale)
            if 0 <= scale <= precision
            else NeutralType(Kind.DECIMAL)
        )

    @property
    def fraction_digits(self) -> int | None:
        """Digits of a second that the type keeps; None when that is all six or no matter."""
        timely = self.name.startswith("time")
        return self.arguments[0] if timely and self.arguments else None

    @property
    def rounds_unseen(self) -> bool:
        """Whether the modifiers round values in a way that the neutral type does not tell."""
        if self.name.startswith(("time", "interval")):
            return bool(self.arguments) or self.name.startswith("interval ")
        return self.name == "numeric" and bool(self.arguments) and self._scalar().precision is None


@dataclass(frozen=True, slots=True)
class Column:
    """One column as statements need it."""

    name: str
    native: NativeType
    cast: str  # type to cast staged text to: without modifiers, so that nothing is cut in silence
    collation: str = ""  # qualified, for columns that have one
    identity_always: bool = False
    default: str = ""  # the expression that gives a value where an insert does not

    @property
    def type(self) -> NeutralType:
        return self.native.neutral

    @property
    def _is_text(self) -> bool:
        return self.type.kind is Kind.TEXT

    def read(self, alias: str = "t") -> str:
        """The expression to read the column with."""
        column = f"{alias}.{quote(self.name)}"
        if self.native.name in _READ_AS_IT_IS:
            return column
        if self.native.is_array:
            return f"{column}::text[]"
        if self.type.is_wide_decimal:
            return f"trim_scale({column})::text"
        return f"{column}::text"

    @property
    def is_read_canonical(self) -> bool:
        """Whether what `read` gives is neutral storage as it is, for every value."""
        return not self.native.is_array and self.type.kind in {Kind.UUID, Kind.TEXT}

    def text(self, alias: str = "t") -> str:
        """The expression to read the column as text, or as an array of texts; bytes as hex."""
        column = f"{alias}.{quote(self.name)}"
        suffix = "[]" if self.native.is_array else ""
        if self.native.name == "real":
            column = f"{column}::float8{suffix}"  # as exact as it is read otherwise
        if self.type.is_wide_decimal:
            column = f"trim_scale({column})"
        return f"{column}::text{suffix}"

    def staged(self, value: str) -> str:
        """A staged text in the column's type."""
        if self._is_text and self.native.name in {"text", "character varying"}:
            return value
        return f"{value}::{self.cast}"

    def match(self, value: str, alias: str = "t") -> str:
        """The condition that the column has exactly this key: by its index, then to the byte."""
        column = f"{alias}.{quote(self.name)}"
        if not self._is_text:
            return f"{column} = {self.staged(value)}"
        collation = f" COLLATE {self.collation}" if self.collation else ""
        return (
            f"{column} = {value}::{self.cast}{collation} "
            f'AND {column}::text COLLATE "C" = {value} COLLATE "C"'
        )

    def same(self, value: str, alias: str = "t") -> str:
        """The condition that the column holds exactly this staged value, NULL included."""
        column = f"{alias}.{quote(self.name)}"
        if self.native.is_array:
            if self.native.neutral.item == neutral.JSON:
                return f"to_jsonb({column}) IS NOT DISTINCT FROM to_jsonb({value}::{self.cast})"
            if self._item_is_other:
                return f"{column}::text[] IS NOT DISTINCT FROM {value}::text[]"
            return f"{column} IS NOT DISTINCT FROM {value}::{self.cast}"
        if self.native.name == "character":
            value = f"rtrim({value}, ' ')"
        if self._is_text:
            return f'{column}::text COLLATE "C" IS NOT DISTINCT FROM {value} COLLATE "C"'
        if self.type.kind is Kind.JSON:
            return f"{column}::jsonb IS NOT DISTINCT FROM {value}::jsonb"
        return f"{column} IS NOT DISTINCT FROM {value}::{self.cast}"

    @property
    def _item_is_other(self) -> bool:
        return self.native.neutral.item == neutral.TEXT and self.native.name != "text"


_CREATED = {
    Kind.BOOLEAN: "boolean",
    Kind.INTEGER: "bigint",
    Kind.FLOAT: "double precision",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.TIMESTAMPTZ: "timestamptz",
    Kind.UUID: "uuid",
    Kind.JSON: "jsonb",
}


def created_type(kind: NeutralType) -> str:
    """The type to create so that values of a neutral type are kept exactly."""
    if kind.kind is Kind.ARRAY and kind.item is not None:
        return f"{created_type(kind.item)}[]"
    if kind.kind is Kind.TEXT:
        return f"varchar({kind.length})" if kind.length else "text"
    if kind.kind is Kind.DECIMAL:
        precise = kind.precision is not None and kind.precision <= 1000
        return f"numeric({kind.precision},{kind.scale or 0})" if precise else "numeric"
    return _CREATED[kind.kind]
