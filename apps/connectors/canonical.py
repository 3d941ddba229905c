"""One text for each value: canonical JSON and canonical decimals.

Two documents that say the same have the same canonical text, so that comparing bytes compares
values. Keys are sorted by code point, there are no blanks, text is not escaped more than it must
be, and numbers keep every digit: `1.0`, `1` and `1e0` are all `1`, and a number of forty digits
stays one. Of a repeated key the last one counts, as in PostgreSQL's jsonb.
"""

from __future__ import annotations

import json
import re
from decimal import Context, Decimal, InvalidOperation
from typing import Any, NoReturn

import orjson

_PLAIN_DIGITS = 40
"""Numbers whose first digit stands further from the point than this keep an exponent."""

NEEDS_EXACT = r"[0-9][.eE]|[0-9]{16}|-0|\\u[dD]"
"""What orjson would read as a float, round or refuse; a match inside text only costs time."""

_NEEDS_EXACT = re.compile(NEEDS_EXACT.encode())

_EXACT = Context(prec=100_000)


def canonical_decimal(value: Decimal) -> str:
    """Plain digits: no exponent, no trailing zeros, no negative zero.

    Raises ValueError for NaN and infinity.
    """
    if not value.is_finite():
        raise ValueError("not a finite number")
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def canonical_number(text: str) -> str:
    """The canonical text of a number written in any common way. Raises ValueError."""
    try:
        return canonical_decimal(Decimal(text.strip()))
    except InvalidOperation:
        raise ValueError("not a number") from None


def canonical_json(text: str | bytes) -> str:
    """The canonical text of a JSON document. Raises ValueError when it is none."""
    data = text.encode() if isinstance(text, str) else text
    if _NEEDS_EXACT.search(data) is None:
        return canonical_plain_json(data)
    return dump_json(load_json(data))


def canonical_plain_json(text: str | bytes) -> str:
    """The same, faster, for a document in which `NEEDS_EXACT` finds nothing."""
    try:
        return orjson.dumps(orjson.loads(text), None, orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # Too deep for orjson, or really wrong: the exact reader decides.
        return dump_json(load_json(text))


def load_json(text: str | bytes) -> Any:
    """A JSON document with its numbers as Decimal. Raises ValueError when it is none."""
    try:
        return json.loads(
            text,
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except InvalidOperation:
        raise ValueError("a number is out of every range") from None


def dump_json(value: Any) -> str:
    """Canonical text of what `load_json` gives. Raises ValueError for lone surrogates."""
    parts: list[str] = []
    try:
        _write(value, parts)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair") from None
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, dict):
        parts.append("{")
        for index, key in enumerate(sorted(value)):
            parts.append("," if index else "")
            parts.append(_quote(key))
            parts.append(":")
            _write(value[key], parts)
        parts.append("}")
    elif isinstance(value, list):
        parts.append("[")
        for index, item in enumerate(value):
            parts.append("," if index else "")
            _write(item, parts)
        parts.append("]")
    else:
        parts.append(_scalar(value))


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    number = value if isinstance(value, Decimal) else Decimal(value)
    if number and abs(number.adjusted()) > _PLAIN_DIGITS:
        return str(number.normalize(_EXACT)).replace("E+", "e").replace("E", "e")
    return canonical_decimal(number)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
