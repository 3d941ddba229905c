"""JSON, exactly: no duplicate keys, no NaN, numbers as they stand (`int` or `Decimal`)."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from apps.connectors.files.limits import MAX_JSON_DEPTH

_MAX_EXPONENT = 400
_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class NotJson(ValueError):
    """The text is not JSON that every reader understands alike; the message says why."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotJson(f"the name '{twice[:80]}' stands twice in one object")
    return result


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise NotJson("a number's exponent is out of all range") from None
    if number and abs(number.adjusted()) > _MAX_EXPONENT:
        raise NotJson("a number's exponent is out of all range")
    return number


def _constant(name: str) -> None:
    raise NotJson(f"{name} is not a JSON value")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_constant)


def require_shallow(text: str) -> None:
    """Raise NotJson where objects and arrays stand in one another too often."""
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_JSON_DEPTH:
            raise NotJson("the value is nested too deeply")


def parse(text: str) -> Any:
    """The value of a JSON text. Raises NotJson."""
    require_shallow(text)
    try:
        return DECODER.decode(text)
    except NotJson:
        raise
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise NotJson("the value is nested too deeply") from None
    except ValueError:
        raise NotJson("a number has too many digits") from None


def quoted(text: str) -> str:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False)


def dump(value: Any) -> str:
    """JSON text without blanks, names in their order; numbers keep their value exactly."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{quoted(name)}:{dump(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)
