"""Neutral types: what a value is, whichever platform holds it.

| kind          | Arrow storage        | notes                                              |
|---------------|----------------------|----------------------------------------------------|
| boolean       | bool                 |                                                    |
| integer       | int64                | unsigned 64 bit is `decimal(20,0)`                 |
| decimal(p,s)  | decimal128(p, s)     | p <= 38; wider or unbounded: canonical text in string |
| float         | float64              |                                                    |
| text          | string               | `length` is the most characters, if bounded        |
| bytes         | binary               |                                                    |
| date          | date32               |                                                    |
| time          | time64[us]           |                                                    |
| timestamp     | timestamp[us]        | wall clock, no zone                                |
| timestamptz   | timestamp[us, UTC]   | an instant                                         |
| uuid          | string               | 36 characters, lower case                          |
| json          | string               | canonical: sorted keys, no blanks, numbers exact   |
| array(item)   | list<item>           | where the platform has no arrays: JSON text        |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa

MAX_DECIMAL_PRECISION = 38
UUID_LENGTH = 36


class Kind(StrEnum):
    BOOLEAN = "boolean"
    INTEGER = "integer"
    DECIMAL = "decimal"
    FLOAT = "float"
    TEXT = "text"
    BYTES = "bytes"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    UUID = "uuid"
    JSON = "json"
    ARRAY = "array"


_SIMPLE_ARROW: dict[Kind, pa.DataType] = {
    Kind.BOOLEAN: pa.bool_(),
    Kind.INTEGER: pa.int64(),
    Kind.FLOAT: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.BYTES: pa.binary(),
    Kind.DATE: pa.date32(),
    Kind.TIME: pa.time64("us"),
    Kind.TIMESTAMP: pa.timestamp("us"),
    Kind.TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
    Kind.UUID: pa.string(),
    Kind.JSON: pa.string(),
}

_PATTERN = re.compile(r"^(?P<kind>[a-z]+)(?:\((?P<args>.*)\))?$")


@dataclass(frozen=True, slots=True)
class NeutralType:
    """One neutral type. Its text form (`decimal(10,2)`, `text(40)`, `array(uuid)`) parses back."""

    kind: Kind
    precision: int | None = None
    scale: int | None = None
    length: int | None = None
    item: NeutralType | None = None

    def __str__(self) -> str:
        if self.kind is Kind.ARRAY:
            return f"array({self.item})"
        if self.kind is Kind.DECIMAL and self.precision is not None:
            return f"decimal({self.precision},{self.scale or 0})"
        if self.kind is Kind.TEXT and self.length is not None:
            return f"text({self.length})"
        return self.kind.value

    @classmethod
    def parse(cls, text: str) -> NeutralType:
        """Read the text form. Raises ValueError, naming the text, when it is none."""
        match = _PATTERN.match(text.strip())
        if match is None or match["kind"] not in set(Kind):
            raise ValueError(f"'{text}' is not a neutral type")
        kind, args = Kind(match["kind"]), match["args"]
        if kind is Kind.ARRAY:
            if not args:
                raise ValueError("an array names its item type, as in array(text)")
            return cls(kind, item=cls.parse(args))
        if args is None:
            return cls(kind)
        try:
            numbers = [int(part) for part in args.split(",")]
        except ValueError:
            raise ValueError(f"'{text}' is not a neutral type") from None
        if kind is Kind.DECIMAL and len(numbers) in (1, 2):
            return cls(kind, precision=numbers[0], scale=numbers[1] if len(numbers) == 2 else 0)
        if kind is Kind.TEXT and len(numbers) == 1:
            return cls(kind, length=numbers[0])
        raise ValueError(f"'{text}' is not a neutral type")

    @property
    def is_wide_decimal(self) -> bool:
        """A decimal that decimal128 cannot hold; it travels as canonical text."""
        return self.kind is Kind.DECIMAL and (
            self.precision is None or self.precision > MAX_DECIMAL_PRECISION
        )

    def holds(self, other: NeutralType) -> bool:
        """Whether every value of the other type is a value of this one, as it is."""
        if self.kind is Kind.TEXT and other.kind is Kind.UUID:
            return self.length is None or self.length >= UUID_LENGTH
        if self.kind is not other.kind:
            return False
        if self.kind is Kind.TEXT:
            return self.length is None or (other.length is not None and other.length <= self.length)
        if self.kind is Kind.DECIMAL and self.precision is not None:
            if other.precision is None:
                return False
            whole = self.precision - (self.scale or 0)
            return (other.scale or 0) <= (self.scale or 0) and (
                other.precision - (other.scale or 0) <= whole
            )
        if self.kind is Kind.ARRAY and self.item is not None and other.item is not None:
            return self.item.holds(other.item)
        return True

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that values of this type are stored in."""
        if self.kind is Kind.ARRAY:
            if self.item is None:
                raise ValueError("an array without an item type")
            return pa.list_(self.item.arrow)
        if self.kind is Kind.DECIMAL:
            if self.is_wide_decimal:
                return pa.string()
            return pa.decimal128(self.precision or MAX_DECIMAL_PRECISION, self.scale or 0)
        return _SIMPLE_ARROW[self.kind]


BOOLEAN = NeutralType(Kind.BOOLEAN)
INTEGER = NeutralType(Kind.INTEGER)
FLOAT = NeutralType(Kind.FLOAT)
TEXT = NeutralType(Kind.TEXT)
BYTES = NeutralType(Kind.BYTES)
DATE = NeutralType(Kind.DATE)
TIME = NeutralType(Kind.TIME)
TIMESTAMP = NeutralType(Kind.TIMESTAMP)
TIMESTAMPTZ = NeutralType(Kind.TIMESTAMPTZ)
UUID = NeutralType(Kind.UUID)
JSON = NeutralType(Kind.JSON)


def decimal(precision: int, scale: int = 0) -> NeutralType:
    return NeutralType(Kind.DECIMAL, precision=precision, scale=scale)


def array(item: NeutralType) -> NeutralType:
    return NeutralType(Kind.ARRAY, item=item)
