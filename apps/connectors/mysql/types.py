"""MySQL's types against the neutral ones: how each is read, staged, matched and stored."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors import types as neutral
from apps.connectors.mysql.connection import quote
from apps.connectors.types import Kind, NeutralType

MAX_PRECISION, MAX_SCALE = 65, 30

_SIMPLE: dict[str, NeutralType] = {
    "tinyint": neutral.INTEGER,
    "smallint": neutral.INTEGER,
    "mediumint": neutral.INTEGER,
    "int": neutral.INTEGER,
    "integer": neutral.INTEGER,
    "bigint": neutral.INTEGER,
    "year": neutral.INTEGER,
    "float": neutral.FLOAT,
    "double": neutral.FLOAT,
    "date": neutral.DATE,
    "time": neutral.TIME,
    "datetime": neutral.TIMESTAMP,
    "timestamp": neutral.TIMESTAMPTZ,
    "json": neutral.JSON,
    "uuid": neutral.UUID,
}
_BYTES = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "geometry"}
_DECLARED = re.compile(r"^(?P<name>\w+)(?:\((?P<args>[0-9, ]+)\))?(?P<rest>.*)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Column:
    """One column as statements need it."""

    name: str
    declared: str  # such as `bigint(20) unsigned`
    length: int | None = None  # characters
    charset: str = ""
    collation: str = ""
    is_json: bool = False  # text that a check keeps to JSON, as MariaDB has it

    @property
    def base(self) -> str:
        match = _DECLARED.match(self.declared.lower())
        return match["name"] if match else self.declared.lower()

    @property
    def arguments(self) -> tuple[int, ...]:
        match = _DECLARED.match(self.declared.lower())
        text = match["args"] if match else None
        return tuple(int(part) for part in text.split(",")) if text else ()

    @property
    def type(self) -> NeutralType:
        if self.is_json:
            return neutral.JSON
        base, arguments = self.base, self.arguments
        if base == "tinyint" and arguments == (1,):
            return neutral.BOOLEAN
        if base == "bit":
            return self._bit(arguments[0] if arguments else 1)
        if base == "bigint" and "unsigned" in self.declared.lower():
            return neutral.decimal(20, 0)
        if base == "decimal":
            precision, scale = (*arguments, 0)[:2] if arguments else (10, 0)
            return neutral.decimal(precision, scale)
        if base in _SIMPLE:
            return _SIMPLE[base]
        if base in _BYTES:
            return neutral.BYTES
        bounded = base in {"char", "varchar"}
        return NeutralType(Kind.TEXT, length=self.length if bounded else None)

    @staticmethod
    def _bit(width: int) -> NeutralType:
        if width == 1:
            return neutral.BOOLEAN
        return neutral.INTEGER if width < 64 else neutral.decimal(20, 0)

    @property
    def fraction_digits(self) -> int | None:
        """Digits of a second that the column keeps; None where that is no matter."""
        if self.base not in {"datetime", "timestamp", "time"}:
            return None
        return self.arguments[0] if self.arguments else 0

    def read(self, alias: str = "t.") -> str:
        """The expression to read the column with: exact, where the text protocol rounds."""
        column = f"{alias}{quote(self.name)}"
        if self.base == "float":
            return f"({column} + 0e0)"
        if self.base == "bit" or "zerofill" in self.declared.lower():
            return f"({column} + 0)"
        return column

    @property
    def staged_type(self) -> str:
        """The type of a temporary column that keeps every value of the neutral type."""
        kind = self.type
        if kind.kind is Kind.DECIMAL and not kind.is_wide_decimal:
            scale = kind.scale or 0
            return f"DECIMAL({kind.precision},{scale})" if scale <= MAX_SCALE else _LONG_TEXT
        return _STAGED.get(kind.kind, _LONG_TEXT)

    def staged(self, value: str) -> str:
        """The expression that assigns a staged value.

        MariaDB 10.11 copies a LONGTEXT column into a shorter one without a look at its length, in
        strict mode too; an expression it does check.
        """
        return f"CONCAT({value})" if self.staged_type in {_LONG_TEXT, "LONGBLOB"} else value

    def match(self, value: str) -> str:
        """The condition that `t`'s column is exactly this key: by its index, then to the byte."""
        column = f"t.{quote(self.name)}"
        if self.charset:
            converted = f"CONVERT({value} USING {self.charset}) COLLATE {self.collation}"
            return f"{column} = {converted} AND {binary(column)} = CAST({value} AS BINARY)"
        if self.base == "float":
            return f"{self.read()} = {value}"
        return f"{column} = {value}"

    def may_be(self, value: str, *, nullable: bool) -> str:
        """A condition that holds at least where the column keeps this value, NULL included."""
        if self.type.kind is Kind.JSON or self.base in {"float", "char", "binary"}:
            return "true"  # what is kept is not what was sent, letter by letter
        if not nullable:
            return self.match(value)
        return f"(({self.match(value)}) OR (t.{quote(self.name)} IS NULL AND {value} IS NULL))"

    def match_any(self) -> str:
        """The column as compared to the byte, or nothing where `=` is exact already."""
        column = f"t.{quote(self.name)}"
        return binary(column) if self.charset else column

    def stored(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        """What these values read back as, once stored in the column."""
        if self.base == "float":
            return values.cast(pa.float32(), safe=False).cast(pa.float64())
        if self.base == "char" and not self.is_json:
            return pc.utf8_rtrim(values, " ")
        if self.base == "binary" and self.arguments:
            width = self.arguments[0]
            padded = [None if v is None else v.ljust(width, b"\0") for v in values.to_pylist()]
            return pa.chunked_array([pa.array(padded, pa.binary())])
        return values


def binary(expression: str) -> str:
    """A text expression as the bytes of its UTF-8."""
    return f"CAST(CONVERT({expression} USING utf8mb4) AS BINARY)"


_LONG_TEXT = "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_STAGED = {
    Kind.BOOLEAN: "TINYINT",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.BYTES: "LONGBLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME(6)",
    Kind.TIMESTAMP: "DATETIME(6)",
    Kind.TIMESTAMPTZ: "DATETIME(6)",
    Kind.UUID: "CHAR(36) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
}
_CREATED = {
    Kind.BOOLEAN: "TINYINT(1)",
    Kind.INTEGER: "BIGINT",
    Kind.FLOAT: "DOUBLE",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME(6)",
    Kind.TIMESTAMP: "DATETIME(6)",
    Kind.TIMESTAMPTZ: "TIMESTAMP(6)",
    Kind.JSON: "JSON",
    Kind.ARRAY: "JSON",
}
_KEY_CHARACTERS = 255
_VARCHAR_CHARACTERS = 4_000


def exact_collation(*, mariadb: bool) -> str:
    """A collation that tells every two texts apart, also those that differ in trailing blanks."""
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"


def created_type(kind: NeutralType, *, in_key: bool, mariadb: bool) -> str:
    """The type to create so that values of a neutral type are kept exactly.

    Raises ValueError for decimals beyond 65 digits or 30 decimals.
    """
    if kind.kind is Kind.TEXT:
        length = kind.length or (_KEY_CHARACTERS if in_key else None)
        exact = f"CHARACTER SET utf8mb4 COLLATE {exact_collation(mariadb=mariadb)}"
        if length and length <= _VARCHAR_CHARACTERS:
            return f"VARCHAR({length}) {exact}"
        return f"LONGTEXT {exact}"
    if kind.kind is Kind.BYTES:
        return f"VARBINARY({_KEY_CHARACTERS})" if in_key else "LONGBLOB"
    if kind.kind is Kind.UUID:
        return "UUID" if mariadb else "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"
    if kind.kind is Kind.DECIMAL:
        precision, scale = kind.precision or MAX_PRECISION, kind.scale or 0
        if kind.precision is None:
            scale = MAX_SCALE
        if precision > MAX_PRECISION or scale > MAX_SCALE:
            raise ValueError(f"MySQL has no {kind}")
        return f"DECIMAL({precision},{scale})"
    return _CREATED[kind.kind]
