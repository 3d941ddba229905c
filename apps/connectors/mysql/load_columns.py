"""How LOAD DATA takes each type of column, so that no value is altered in silence.

LOAD DATA LOCAL stores what it can of a value and warns, in strict mode too, so a warning refuses
the load. This module is about what it alters **without** a warning (MariaDB 10.11): digits of a
second beyond those of the column, trailing blanks of a CHAR, the filling of a BINARY, an ENUM's
value given by its number or in other letters, two digits of a YEAR, NULL where a TIMESTAMP or an
AUTO_INCREMENT has a value of its own, the digits of `'1'` as a BIT. Such columns are assigned by
an expression that puts a value in place of those, which the column takes with a warning only.
Types for which there is no such expression are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.connectors.base import FieldSchema, LoadRefused
from apps.connectors.mysql.types import Column
from apps.connectors.types import Kind

_WHOLE = {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"}
_TEXTS = {"varchar", "tinytext", "text", "mediumtext", "longtext"}
_VARIABLE_BYTES = {"varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_TIMELY = {"datetime": 19, "timestamp": 19, "time": 8}
"""Characters of a value without digits of a second."""

_CHARSETS = {"", "ascii", "latin1", "utf8", "utf8mb3", "utf8mb4"}
"""Character sets that hold a text unaltered or warn."""

_TOO_LONG = "REPEAT('x', 256)"
_NO_TIME = "'x'"


@dataclass(frozen=True, slots=True)
class LoadColumn:
    """A field of a load."""

    field: FieldSchema
    column: Column
    wire: str  # its type in a WireFormat
    expression: str = ""  # assigns the text `{value}`; empty: the server does so itself

    def value(self, variable: str) -> str:
        return self.expression.replace("{value}", variable)


def load_column(column: Column, field: FieldSchema, *, mariadb: bool) -> LoadColumn:
    """How to load a column. Raises LoadRefused when its values might be altered in silence."""
    if field.generated:
        raise LoadRefused(f"the field '{field.name}' is computed")
    if column.charset not in _CHARSETS:
        raise LoadRefused(f"the field '{field.name}' has the character set {column.charset}")
    expression = _expression(column, field, mariadb=mariadb)
    if expression is None:
        raise LoadRefused(
            f"the server may alter values of the field '{field.name}' ({column.base}) in silence"
        )
    may_be_made_up = field.server_assigned or column.base == "timestamp"
    if may_be_made_up and (field.server_assigned or not field.nullable):
        expression = f"COALESCE({expression or '{value}'}, {_NO_TIME})"
    return LoadColumn(field, column, _wire(column), expression)


def _expression(column: Column, field: FieldSchema, *, mariadb: bool) -> str | None:
    """What assigns a text to the column; empty: itself; None: nothing does so exactly."""
    base = column.base
    if column.is_json:
        return ""
    if base in _TIMELY:
        return _timely(column)
    if base in {"float", "double"}:
        return None if column.arguments else ""  # FLOAT(7,2) rounds
    if base == "enum":
        return _enumerated(column)
    if base == "json" and not mariadb:
        return None  # numbers become doubles
    if base == "binary":
        width = column.length or next(iter(column.arguments), 1)
        return f"IF(CHAR_LENGTH({{value}}) < {2 * width}, {_TOO_LONG}, UNHEX({{value}}))"
    plain = base in _WHOLE or base in _TEXTS or base in {"decimal", "date", "uuid"}
    return "" if plain else _EXPRESSIONS.get(base)


_EXPRESSIONS = {
    "bit": "CAST({value} AS UNSIGNED)",
    "year": "IF({value} < 1901, 'x', {value})",
    "char": f"IF({{value}} LIKE '% ', {_TOO_LONG}, {{value}})",
    **dict.fromkeys(_VARIABLE_BYTES, "UNHEX({value})"),
}


def _timely(column: Column) -> str:
    digits = column.fraction_digits or 0
    longest = _TIMELY[column.base] + (1 + digits if digits else 0)
    conditions = [f"CHAR_LENGTH({{value}}) > {longest}"] if digits < 6 else []
    if column.base == "time":
        conditions.append("{value} >= '24'")  # PostgreSQL's 24:00:00, which no day has
    if not conditions:
        return ""
    return f"IF({' OR '.join(conditions)}, {_NO_TIME}, {{value}})"


def _enumerated(column: Column) -> str | None:
    if "\\" in column.declared or "{" in column.declared:
        return None
    members = column.declared[column.declared.index("(") : column.declared.rindex(")") + 1]
    known = f"CAST({{value}} AS BINARY) IN {members} OR {{value}} IS NULL"
    return f"IF({known}, {{value}}, {_TOO_LONG})"


def _wire(column: Column) -> str:
    """The type in a WireFormat: without lengths, but where they tell what the values are."""
    if column.is_json:
        return "json"
    if column.type.kind is Kind.BOOLEAN:
        return f"{column.base}(1)"
    if column.base == "bit" and column.type.kind is Kind.DECIMAL:
        return "bit(64)"
    unsigned = column.base == "bigint" and "unsigned" in column.declared.lower()
    return f"{column.base} unsigned" if unsigned else column.base
