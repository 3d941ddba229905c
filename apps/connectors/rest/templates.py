"""Values put into paths, parameters and bodies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_PART = re.compile(r'"([^"\\]+)"|([A-Za-z_][A-Za-z0-9_]*)')
_NO_SEGMENTS = ("", ".", "..")


class NoAddress(ValueError):
    """A value cannot be a part of a path: the path would lead to something else."""


def placeholders(text: str) -> tuple[str, ...]:
    """The names in braces. Raises ValueError where braces do not pair."""
    found = tuple(_PLACEHOLDER.findall(text))
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        raise ValueError("braces stand in pairs around the name of a field")
    return found


def fill_path(path: str, values: Mapping[str, str | None]) -> str:
    """A path with values in place of names, each one segment or a part of one.

    Raises NoAddress for values that would change where the path leads.
    """

    def put(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None or value in _NO_SEGMENTS:
            raise NoAddress(f"field '{match[1]}' has no value that a path can hold")
        return quote(value, safe="")

    return _PLACEHOLDER.sub(put, path)


def is_address(path: str, values: Mapping[str, str | None]) -> bool:
    """Whether a path can hold these values."""
    return all(values.get(name) not in (None, *_NO_SEGMENTS) for name in placeholders(path))


def fill_text(text: str, values: Mapping[str, str | None]) -> str:
    """A text with values in place of names; what has none is left out."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1]) or "", text)


def fill_body(template: Any, values: Mapping[str, Any]) -> Any:
    """A body with values in place of names; a text that is one name becomes the value itself.

    values: parsed JSON by name. A member whose only name has no value here is left out.
    """
    if isinstance(template, dict):
        return {
            name: fill_body(item, values)
            for name, item in template.items()
            if not _is_left_out(item, values)
        }
    if isinstance(template, list):
        return [fill_body(item, values) for item in template]
    if not isinstance(template, str):
        return template
    whole = _PLACEHOLDER.fullmatch(template)
    if whole:
        return values.get(whole[1])
    return _PLACEHOLDER.sub(lambda match: plain_text(values.get(match[1])), template)


def _is_left_out(item: Any, values: Mapping[str, Any]) -> bool:
    whole = _PLACEHOLDER.fullmatch(item) if isinstance(item, str) else None
    return whole is not None and whole[1] not in values


def plain_text(value: Any) -> str:
    """A JSON scalar as the text of a parameter or a form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def form_pairs(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A body as the fields of a form: `address[city]`, `items[0][id]`."""
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = ((str(place), item) for place, item in enumerate(value))  # type: ignore[assignment]
    else:
        return [(prefix, plain_text(value))]
    return [
        pair
        for name, item in parts
        for pair in form_pairs(item, f"{prefix}[{name}]" if prefix else str(name))
    ]


@dataclass(frozen=True, slots=True)
class PlainPath:
    """A JMESPath of names and dots alone, along which a value can be written as well."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, name: str, path: str) -> PlainPath | None:
        """Where a field stands: under its name, unless it has a path."""
        return cls.parse(path) if path else cls((name,))

    @classmethod
    def parse(cls, text: str) -> PlainPath | None:
        """None where the expression is anything else."""
        parts: list[str] = []
        position = 0
        while match := _PART.match(text, position):
            parts.append(match[1] or match[2])
            position = match.end()
            if position == len(text):
                return cls(tuple(parts))
            if text[position] != ".":
                return None
            position += 1
        return None

    def read(self, record: Any) -> Any:
        """The value in a record; None where there is none."""
        for part in self.parts:
            if not isinstance(record, dict):
                return None
            record = record.get(part)
        return record

    def write(self, record: dict[str, Any], value: Any) -> None:
        """Put a value into a record."""
        for part in self.parts[:-1]:
            record = record.setdefault(part, {})
        record[self.parts[-1]] = value
