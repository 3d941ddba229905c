"""Exact conversion between neutral types, as DuckDB SQL.

A conversion is the SQL of the converted value, which never raises, and the problems that it can
have, in the order in which they are judged. What cannot be represented exactly is a problem of
the record, never a silent change. What can never be right is refused when the mapping is
compiled, with the expression that would say what is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apps.connectors.errors import ConfigurationError
from apps.connectors.types import (
    BOOLEAN,
    BYTES,
    DATE,
    FLOAT,
    INTEGER,
    JSON,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    Kind,
    NeutralType,
    array,
    decimal,
)
from apps.engine.types_sql import canonical_sql, duckdb_type, item_of

CONVERSION = "record.conversion"
OUT_OF_RANGE = "record.out_of_range"
TOO_LONG = "record.too_long"
LOSSY = "record.lossy"

UNBOUNDED_DECIMAL = NeutralType(Kind.DECIMAL)


@dataclass(frozen=True, slots=True)
class Problem:
    """`condition` is SQL that is true for a record with this problem.

    The message is a template: {value} is the offending value as text.
    """

    condition: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Conversion:
    sql: str
    problems: tuple[Problem, ...] = ()
    canonical_json: bool = False  # the text is JSON that still needs its canonical form


def convert(sql: str, source: NeutralType, target: NeutralType, where: str = "") -> Conversion:
    """Convert the value of `sql`. Raises ConfigurationError where no conversion makes sense."""
    if source.kind is target.kind and source.kind not in _SAME_KIND:
        return Conversion(sql)
    converter = _CONVERTERS.get((source.kind, target.kind))
    if converter is None:
        hint = _HINTS.get((source.kind, target.kind), "Use an expression that says how.")
        raise ConfigurationError(
            f"a value of type {source} cannot be copied to type {target}", where=where, remedy=hint
        )
    return converter(sql, source, target)


def neutral_of(sql: str, duck: str, where: str = "") -> tuple[str, NeutralType]:
    """The result of an expression, by its DuckDB type, as (SQL, neutral type)."""
    duck = duck.strip()
    if duck.endswith("[]"):
        inner_sql, inner = neutral_of("x", duck[:-2], where)
        items = sql if inner_sql == "x" else f"list_transform({sql}, lambda x: {inner_sql})"
        return items, array(inner)
    if duck.startswith("DECIMAL("):
        precision, scale = (int(part) for part in duck[8:-1].split(","))
        return sql, decimal(precision, scale)
    if duck in _DUCKDB_TYPES:
        kind, cast = _DUCKDB_TYPES[duck]
        return (f"CAST({sql} AS {cast})" if cast else sql), kind
    remedy = "Cast the result to a type, as in cast(... as text)."
    if duck == "INTERVAL":
        remedy = "Add the interval to a date, or take a number with date_diff or epoch."
    raise ConfigurationError(
        f"the expression gives a value of type {duck.lower()}, which no field can hold",
        where=where,
        remedy=remedy,
    )


_DUCKDB_TYPES: dict[str, tuple[NeutralType, str]] = {
    "BOOLEAN": (BOOLEAN, ""),
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"),
        (INTEGER, "BIGINT"),
    ),
    "BIGINT": (INTEGER, ""),
    **dict.fromkeys(("HUGEINT", "UHUGEINT", "UBIGINT"), (UNBOUNDED_DECIMAL, "VARCHAR")),
    "FLOAT": (FLOAT, "DOUBLE"),
    "DOUBLE": (FLOAT, ""),
    "VARCHAR": (TEXT, ""),
    "BLOB": (BYTES, ""),
    "DATE": (DATE, ""),
    "TIME": (TIME, ""),
    "TIMESTAMP": (TIMESTAMP, ""),
    "TIMESTAMP_S": (TIMESTAMP, "TIMESTAMP"),
    "TIMESTAMP_MS": (TIMESTAMP, "TIMESTAMP"),
    "TIMESTAMP WITH TIME ZONE": (TIMESTAMPTZ, ""),
    "UUID": (UUID, "VARCHAR"),
    "JSON": (JSON, "VARCHAR"),
    '"NULL"': (TEXT, "VARCHAR"),
    "NULL": (TEXT, "VARCHAR"),
}  # fmt: skip


def _fails(result: str, sql: str, code: str, message: str) -> Problem:
    return Problem(f"({sql}) IS NOT NULL AND ({result}) IS NULL", code, message)


def _matches(sql: str, pattern: str) -> str:
    return f"regexp_full_match(trim({sql}), '{pattern}')"


def _parsed(pattern: str, duck: str, noun: str) -> Callable[..., Conversion]:
    """A text that must look like `pattern` and be valid as `duck`."""

    def converter(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
        result = f"CASE WHEN {_matches(sql, pattern)} THEN TRY_CAST(trim({sql}) AS {duck}) END"
        if duck == "UUID":
            result = f"CAST({result} AS VARCHAR)"
        return Conversion(result, (_fails(result, sql, CONVERSION, f"'{{value}}' is not {noun}"),))

    return converter


def _cast(duck: str) -> Callable[..., Conversion]:
    def converter(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
        return Conversion(f"CAST({sql} AS {duck})")

    return converter


def _text_limit(result: str, target: NeutralType) -> tuple[Problem, ...]:
    if target.length is None:
        return ()
    message = f"the text is longer than {target.length} characters"
    return (Problem(f"length({result}) > {target.length}", TOO_LONG, message),)


def _to_text(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    text = canonical_sql(sql, source)
    fits = source.kind is Kind.TEXT and source.length is not None
    if fits and target.length is not None and (source.length or 0) <= target.length:
        return Conversion(text)
    return Conversion(text, _text_limit(text, target))


def _integer_to_boolean(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    result = f"CASE {sql} WHEN 0 THEN FALSE WHEN 1 THEN TRUE END"
    return Conversion(
        result, (_fails(result, sql, CONVERSION, "{value} is neither 0 (false) nor 1 (true)"),)
    )


def _text_to_boolean(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    result = (
        f"CASE WHEN lower(trim({sql})) IN ('true','t','yes','y','on','1') THEN TRUE "
        f"WHEN lower(trim({sql})) IN ('false','f','no','n','off','0') THEN FALSE END"
    )
    return Conversion(
        result, (_fails(result, sql, CONVERSION, "'{value}' is neither true nor false"),)
    )


def _text_to_integer(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    looks = _matches(sql, "[+-]?[0-9]+")
    result = f"CASE WHEN {looks} THEN TRY_CAST(trim({sql}) AS BIGINT) END"
    return Conversion(
        result,
        (
            Problem(f"NOT {looks}", CONVERSION, "'{value}' is not an integer"),
            _fails(result, sql, OUT_OF_RANGE, "{value} does not fit into 64 bits"),
        ),
    )


def _decimal_to_integer(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    text = canonical_sql(sql, source)
    result = f"TRY_CAST(split_part({text}, '.', 1) AS BIGINT)"
    out = _fails(result, sql, OUT_OF_RANGE, "{value} does not fit into 64 bits")
    if not source.scale and not source.is_wide_decimal:
        return Conversion(f"TRY_CAST({sql} AS BIGINT)", (out,))
    fraction = Problem(
        f"contains({text}, '.')", LOSSY, "{value} has decimals: use round() or trunc()"
    )
    return Conversion(result, (fraction, out))


def _float_to_integer(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    result = f"TRY_CAST({sql} AS BIGINT)"
    return Conversion(
        result,
        (
            Problem(f"NOT isfinite({sql})", CONVERSION, "{value} is not an integer"),
            Problem(
                f"{sql} <> trunc({sql})", LOSSY, "{value} has decimals: use round() or trunc()"
            ),
            _fails(result, sql, OUT_OF_RANGE, "{value} does not fit into 64 bits"),
        ),
    )


def _integer_to_float(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    lossy = f"CAST(CAST({sql} AS DOUBLE) AS HUGEINT) <> {sql}"
    return Conversion(
        f"CAST({sql} AS DOUBLE)", (Problem(lossy, LOSSY, "{value} has too many digits"),)
    )


def _decimal_to_float(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    """Up to 15 significant digits survive the way to a float and back."""
    text = canonical_sql(sql, source)
    digits = f"length(ltrim(replace(replace({text}, '-', ''), '.', ''), '0'))"
    return Conversion(
        f"CAST({sql} AS DOUBLE)",
        (Problem(f"{digits} > 15", LOSSY, "{value} has more digits than a float holds"),),
    )


def _float_to_decimal(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    bounded = decimal(38, 15) if target.is_wide_decimal else target
    value = f"TRY_CAST({sql} AS {duckdb_type(bounded)})"
    problems = (
        Problem(f"NOT isfinite({sql})", CONVERSION, "{value} is not a decimal number"),
        _fails(value, sql, OUT_OF_RANGE, f"{{value}} does not fit into {target}"),
        Problem(
            f"CAST({value} AS DOUBLE) <> {sql}", LOSSY, f"{{value}} would be rounded: {_ROUND}"
        ),
    )
    if not target.is_wide_decimal:
        return Conversion(value, problems)
    text = canonical_sql(value, bounded)
    return Conversion(text, problems + _wide_limits(text, target))


_ROUND = "use round() to say that this is meant"


def _to_decimal(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    """From an integer or a decimal."""
    whole = source.kind is Kind.INTEGER
    precision, scale = (19, 0) if whole else (source.precision or 0, source.scale or 0)
    text = f"CAST({sql} AS VARCHAR)" if whole else canonical_sql(sql, source)
    if target.is_wide_decimal:
        if target.precision is None or (source.precision, scale) == (
            target.precision,
            target.scale,
        ):
            return Conversion(text)
        return Conversion(text, _wide_limits(text, target))
    room, wanted = (target.precision or 0) - (target.scale or 0), precision - scale
    fits = not source.is_wide_decimal and (target.scale or 0) >= scale and room >= wanted
    if fits:
        same = (source.precision, source.scale) == (target.precision, target.scale)
        return Conversion(sql if same and not whole else f"CAST({sql} AS {duckdb_type(target)})")
    return _exact_decimal(sql, text, target)


def _exact_decimal(sql: str, text: str, target: NeutralType) -> Conversion:
    """Cast the plain decimal `text`; lossy when the result reads otherwise."""
    result = f"TRY_CAST({text} AS {duckdb_type(target)})"
    rounded = f"({result}) IS NOT NULL AND {canonical_sql(f'({result})', target)} <> {text}"
    return Conversion(
        result,
        (
            _fails(result, sql, OUT_OF_RANGE, f"{{value}} does not fit into {target}"),
            Problem(rounded, LOSSY, f"{{value}} would be rounded: {_ROUND}"),
        ),
    )


def _wide_limits(text: str, target: NeutralType) -> tuple[Problem, ...]:
    if target.precision is None:
        return ()
    scale = target.scale or 0
    whole = f"length(ltrim(split_part(ltrim({text}, '-'), '.', 1), '0'))"
    return (
        Problem(
            f"{whole} > {target.precision - scale}",
            OUT_OF_RANGE,
            f"{{value}} does not fit into {target}",
        ),
        Problem(
            f"length(split_part({text}, '.', 2)) > {scale}",
            LOSSY,
            f"{{value}} would be rounded: {_ROUND}",
        ),
    )


def _text_to_decimal(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    looks = _matches(sql, r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)")
    wrong = Problem(f"NOT {looks}", CONVERSION, "'{value}' is not a decimal number")
    plain = f"CASE WHEN {looks} THEN {_plain_decimal(f'trim({sql})')} END"
    if target.is_wide_decimal:
        return Conversion(plain, (wrong, *_wide_limits(plain, target)))
    exact = _exact_decimal(sql, plain, target)
    return Conversion(exact.sql, (wrong, *exact.problems))


def _plain_decimal(text: str) -> str:
    """A number without leading or trailing zeros, without '+' and without a negative zero."""
    digits = f"ltrim({text}, '+-')"
    whole = f"ltrim(split_part({digits}, '.', 1), '0')"
    fraction = f"rtrim(split_part({digits}, '.', 2), '0')"
    zero = f"{whole} = '' AND {fraction} = ''"
    return (
        f"(CASE WHEN starts_with({text}, '-') AND NOT ({zero}) THEN '-' ELSE '' END "
        f"|| CASE WHEN {whole} = '' THEN '0' ELSE {whole} END "
        f"|| CASE WHEN {fraction} = '' THEN '' ELSE '.' || {fraction} END)"
    )


def _text_to_float(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    looks = _matches(
        sql, r"(?i)[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)"
    )
    result = f"CASE WHEN {looks} THEN TRY_CAST(trim({sql}) AS DOUBLE) END"
    return Conversion(
        result,
        (
            Problem(f"NOT {looks}", CONVERSION, "'{value}' is not a number"),
            _fails(result, sql, OUT_OF_RANGE, "{value} does not fit into a float"),
        ),
    )


def _timestamp_to_date(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    result = f"CAST({sql} AS DATE)"
    lossy = f"CAST({result} AS TIMESTAMP) <> {sql}"
    message = "{value} has a time of day: use cast(... as date)"
    return Conversion(result, (Problem(lossy, LOSSY, message),))


def _text_to_json(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    problem = Problem(f"NOT json_valid({sql})", CONVERSION, "the text is not JSON")
    return Conversion(sql, (problem,), canonical_json=True)


def _array_to_json(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    return Conversion(f"CAST(to_json({sql}) AS VARCHAR)", canonical_json=True)


def _to_array(sql: str, source: NeutralType, target: NeutralType) -> Conversion:
    """From JSON text (each item by its text) or from an array of another item type."""
    items, item_type = sql, source.item
    problems: tuple[Problem, ...] = ()
    if item_type is None:
        items, item_type = f"TRY_CAST(TRY_CAST({sql} AS JSON) AS VARCHAR[])", TEXT
        problems = (_fails(items, sql, CONVERSION, "the text is not a JSON array"),)
    inner = convert("x", item_type, item_of(target))
    if inner.sql == "x" and not inner.problems:
        return Conversion(items, problems)
    for problem in inner.problems:
        found = f"len(list_filter({items}, lambda x: {problem.condition})) > 0"
        message = problem.message.replace("{value}", "an item of {value}")
        problems += (Problem(found, problem.code, message),)
    return Conversion(f"list_transform({items}, lambda x: {inner.sql})", problems)


_DAY = "[0-9]{4,6}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_SAME_KIND = frozenset({Kind.TEXT, Kind.DECIMAL, Kind.ARRAY})

_CONVERTERS: dict[tuple[Kind, Kind], Callable[[str, NeutralType, NeutralType], Conversion]] = {
    **{(kind, Kind.TEXT): _to_text for kind in Kind if kind is not Kind.BYTES},
    (Kind.INTEGER, Kind.BOOLEAN): _integer_to_boolean,
    (Kind.TEXT, Kind.BOOLEAN): _text_to_boolean,
    (Kind.BOOLEAN, Kind.INTEGER): _cast("BIGINT"),
    (Kind.TEXT, Kind.INTEGER): _text_to_integer,
    (Kind.DECIMAL, Kind.INTEGER): _decimal_to_integer,
    (Kind.FLOAT, Kind.INTEGER): _float_to_integer,
    (Kind.INTEGER, Kind.FLOAT): _integer_to_float,
    (Kind.DECIMAL, Kind.FLOAT): _decimal_to_float,
    (Kind.TEXT, Kind.FLOAT): _text_to_float,
    (Kind.FLOAT, Kind.DECIMAL): _float_to_decimal,
    (Kind.INTEGER, Kind.DECIMAL): _to_decimal,
    (Kind.DECIMAL, Kind.DECIMAL): _to_decimal,
    (Kind.TEXT, Kind.DECIMAL): _text_to_decimal,
    (Kind.TEXT, Kind.DATE): _parsed(_DAY, "DATE", "a date like 2024-12-31"),
    (Kind.TIMESTAMP, Kind.DATE): _timestamp_to_date,
    (Kind.TEXT, Kind.TIME): _parsed(_CLOCK, "TIME", "a time like 23:59:59"),
    (Kind.DATE, Kind.TIMESTAMP): _cast("TIMESTAMP"),
    (Kind.TEXT, Kind.TIMESTAMP): _parsed(
        f"{_DAY}([ T]{_CLOCK})?", "TIMESTAMP", "a timestamp like 2024-12-31T23:59:59"
    ),
    (Kind.TEXT, Kind.TIMESTAMPTZ): _parsed(
        f"{_DAY}[ T]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)",
        "TIMESTAMP WITH TIME ZONE",
        "a timestamp with a zone like 2024-12-31T23:59:59Z",
    ),
    (Kind.TEXT, Kind.UUID): _parsed("[0-9a-fA-F-]{32,36}", "UUID", "a UUID"),
    (Kind.TEXT, Kind.JSON): _text_to_json,
    (Kind.ARRAY, Kind.JSON): _array_to_json,
    (Kind.ARRAY, Kind.ARRAY): _to_array,
    (Kind.JSON, Kind.ARRAY): _to_array,
    (Kind.TEXT, Kind.ARRAY): _to_array,
}

_HINTS: dict[tuple[Kind, Kind], str] = {
    (Kind.BYTES, Kind.TEXT): "Say how with an expression: decode(...) or to_base64(...).",
    (Kind.TEXT, Kind.BYTES): "Say how with an expression: encode(...) or from_base64(...).",
    (Kind.TIMESTAMPTZ, Kind.TIMESTAMP): "Say which zone: Field at time zone 'UTC'.",
    (Kind.TIMESTAMP, Kind.TIMESTAMPTZ): "Say which zone it is in: Field at time zone 'UTC'.",
    (Kind.TIMESTAMPTZ, Kind.DATE): "Say which zone: cast(Field at time zone 'UTC' as date).",
    (Kind.DATE, Kind.TIMESTAMPTZ): "Say which zone: cast(Field as timestamp) at time zone 'UTC'.",
    **{(Kind.JSON, kind): "Say which part: json_extract_string(Field, '$.name')." for kind in Kind},
}
