"""JSON Schemas of hub datasets: what they may say, what a record must be, what a change breaks.

A schema describes an object; its properties are the fields. A field that is not `required` may be
missing, and null says the same. `x-type` names the neutral type where JSON Schema has no words for
it; `x-merge` says who wins where two edits of a field meet. There is no `pattern` and no `$ref`:
whoever writes a schema must not be able to keep the server busy.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from jsonschema import Draft202012Validator

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.canonical import canonical_decimal
from apps.connectors.types import Kind, NeutralType
from apps.engine.spec import FieldPolicy, FieldPolicySpec
from apps.hub.errors import MutationRefused, SchemaRefused

Schema = dict[str, Any]
Record = dict[str, Any]

MOST_FIELDS = 500
_MOST_DIGITS = 1_000
_INTEGERS = range(-(2**63), 2**63)
_WORDS = frozenset({"title", "description", "default", "examples"})
_LIMITS_BELOW = frozenset({"minLength", "minimum", "exclusiveMinimum", "minItems"})
_LIMITS_ABOVE = frozenset({"maxLength", "maximum", "exclusiveMaximum", "maxItems"})
_NESTED = frozenset({"items", "properties", "required", "additionalProperties"})
_FIELD = (
    _WORDS
    | _LIMITS_BELOW
    | _LIMITS_ABOVE
    | _NESTED
    | {"type", "format", "enum", "uniqueItems", "contentEncoding"}
)
_OWN = frozenset({"x-type", "x-merge", "x-separator"})
_TOP = _WORDS | {"type", "properties", "required", "additionalProperties", "$schema"}

MERGES = {
    "newest": FieldPolicy.NEWEST,
    "hub": FieldPolicy.LEFT,
    "client": FieldPolicy.RIGHT,
    "highest": FieldPolicy.HIGHEST,
    "lowest": FieldPolicy.LOWEST,
    "counter": FieldPolicy.COUNTER,
    "set": FieldPolicy.SET,
    "text": FieldPolicy.TEXT,
    "ask": FieldPolicy.ASK,
}
"""What `x-merge` may say; the hub is the left side, the client the right one."""

_NUMBERS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT})
_MERGED_KINDS = {
    FieldPolicy.COUNTER: _NUMBERS,
    FieldPolicy.HIGHEST: _NUMBERS,
    FieldPolicy.LOWEST: _NUMBERS,
    FieldPolicy.SET: frozenset({Kind.ARRAY, Kind.JSON, Kind.TEXT}),
    FieldPolicy.TEXT: frozenset({Kind.TEXT}),
}


@dataclass(frozen=True, slots=True)
class FieldShape:
    """A field: its type, who wins, and whether a value fits."""

    name: str
    type: NeutralType
    policy: FieldPolicySpec
    required: bool
    fits: Callable[[Any], bool]

    def check(self, value: Any) -> None:
        """Raise MutationRefused where this is no value of the field; None is the lack of one."""
        if value is None:
            if self.required:
                raise MutationRefused("the field is required", self.name)
        elif not (is_of_type(value, self.type) and self.fits(value)):
            raise MutationRefused(f"the value is no {self.type} as the schema wants it", self.name)


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema, ready to be used."""

    key: tuple[str, ...]
    fields: Mapping[str, FieldShape]
    required: tuple[str, ...]

    def field(self, name: str) -> FieldShape:
        """Raises MutationRefused where there is none of that name."""
        found = self.fields.get(name)
        if found is None:
            raise MutationRefused("there is no such field", name)
        return found

    def check(self, record: Record, changed: Sequence[str]) -> None:
        """Raise MutationRefused unless a record is as it should be, having been so before."""
        for name in changed:
            self.field(name).check(record.get(name))
        for name in self.required:
            if record.get(name) is None:
                raise MutationRefused("the field is required", name)

    def described(self, name: str, row_count: int | None = None) -> DatasetSchema:
        """As connectors describe datasets."""
        return DatasetSchema(
            name=name,
            key=self.key,
            fields=tuple(
                FieldSchema(f.name, f.type, str(f.type), nullable=not f.required)
                for f in self.fields.values()
            ),
            row_count=row_count,
            format="hub",
        )


def shape_of(schema: Schema, key: Sequence[str]) -> Shape:
    """Read a schema. Raises SchemaRefused, naming the place."""
    _require_known(schema, _TOP, "")
    if schema.get("type") != "object":
        raise SchemaRefused("a record is an object: `type` must be `object`")
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not 0 < len(properties) <= MOST_FIELDS:
        raise SchemaRefused(f"`properties` must name 1 to {MOST_FIELDS} fields")
    if not isinstance(required, list) or not {*required, *key} <= properties.keys():
        raise SchemaRefused("`required` and the key must name properties")
    if not key:
        raise SchemaRefused("a dataset has a key")
    needed = tuple(dict.fromkeys([*key, *required]))
    fields = {name: _field(name, said, name in needed) for name, said in properties.items()}
    return Shape(tuple(key), fields, needed)


def _field(name: str, said: Any, required: bool) -> FieldShape:
    if not isinstance(said, dict) or not 0 < len(name) <= 255:
        raise SchemaRefused("a property is an object with a name of 1 to 255 characters")
    _require_known(said, _FIELD | _OWN, name)
    plain = {word: value for word, value in said.items() if word not in _OWN}
    _require_nested(plain, name)
    neutral = neutral_of(said, name)
    merge = said.get("x-merge", "newest")
    if merge not in MERGES:
        raise SchemaRefused(f"`x-merge` is one of {', '.join(MERGES)}", where=name)
    kinds = _MERGED_KINDS.get(MERGES[merge])
    if kinds is not None and neutral.kind not in kinds:
        raise SchemaRefused(f"`x-merge` cannot be {merge} for a {neutral}", where=name)
    policy = FieldPolicySpec(
        field=name, policy=MERGES[merge], separator=str(said.get("x-separator", ","))
    )
    try:
        Draft202012Validator.check_schema(plain)
    except Exception as error:
        raise SchemaRefused("this is no JSON Schema", where=name) from error
    said_more = plain.keys() - _WORDS - {"type", "format", "contentEncoding"}
    fits = Draft202012Validator(plain).is_valid if said_more else _anything
    return FieldShape(name, neutral, policy, required, fits)


def _anything(value: Any) -> bool:
    return True


def _require_known(said: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(said.keys() - known)
    if unknown:
        raise SchemaRefused(f"the keyword `{unknown[0]}` cannot be used", where=where)


def _require_nested(said: Any, where: str) -> None:
    """Nested schemas use the same keywords."""
    if isinstance(said, dict):
        _require_known(said, _FIELD, where)
        for inner in (said.get("items"), *_values(said.get("properties"))):
            _require_nested(inner, where)


def _values(mapping: Any) -> list[Any]:
    return list(mapping.values()) if isinstance(mapping, dict) else []


# Types

_BY_FORMAT = {
    "date": Kind.DATE,
    "time": Kind.TIME,
    "date-time": Kind.TIMESTAMPTZ,
    "local-date-time": Kind.TIMESTAMP,
    "uuid": Kind.UUID,
    "decimal": Kind.DECIMAL,
}
_BY_TYPE = {"boolean": Kind.BOOLEAN, "integer": Kind.INTEGER, "number": Kind.FLOAT}


def neutral_of(said: Mapping[str, Any], where: str = "") -> NeutralType:
    """The neutral type of a property."""
    if "x-type" in said:
        try:
            return NeutralType.parse(str(said["x-type"]))
        except ValueError as error:
            raise SchemaRefused(str(error), where=where) from None
    kind = said.get("type")
    if kind == "string":
        return _neutral_of_string(said)
    if kind == "array" and isinstance(said.get("items"), dict):
        item = neutral_of(_without_null(said["items"]), where)
        if item.kind not in (Kind.JSON, Kind.ARRAY):
            return NeutralType(Kind.ARRAY, item=item)
    if isinstance(kind, list):
        raise SchemaRefused("a field has one type; null needs no mention", where=where)
    return NeutralType(_BY_TYPE.get(str(kind), Kind.JSON))


def _without_null(said: dict[str, Any]) -> dict[str, Any]:
    """The items of a list may be null: `"type": ["integer", "null"]`."""
    kinds = said.get("type")
    if isinstance(kinds, list) and len(kinds) == 2 and "null" in kinds:
        return {**said, "type": next(kind for kind in kinds if kind != "null")}
    return said


def _neutral_of_string(said: Mapping[str, Any]) -> NeutralType:
    if said.get("contentEncoding") == "base64":
        return NeutralType(Kind.BYTES)
    kind = _BY_FORMAT.get(said.get("format", ""))
    return NeutralType(kind) if kind else NeutralType(Kind.TEXT, length=said.get("maxLength"))


def property_of(neutral: NeutralType) -> dict[str, Any]:
    """The property that holds values of a neutral type."""
    said: dict[str, Any] = {}
    if neutral.kind is Kind.TEXT:
        said = {"type": "string"} | ({"maxLength": neutral.length} if neutral.length else {})
    elif neutral.kind is Kind.BYTES:
        said = {"type": "string", "contentEncoding": "base64"}
    elif neutral.kind is Kind.ARRAY and neutral.item is not None:
        item = {n: v for n, v in property_of(neutral.item).items() if n != "x-type"}
        said = {"type": "array", "items": {**item, "type": [item["type"], "null"]}}
    else:
        formats = [name for name, kind in _BY_FORMAT.items() if kind is neutral.kind]
        types = [name for name, kind in _BY_TYPE.items() if kind is neutral.kind]
        said = {"type": "string", "format": formats[0]} if formats else {}
        said |= {"type": types[0]} if types else {}
    if neutral_of(said) != neutral:
        said["x-type"] = str(neutral)
    return said


def schema_of(described: DatasetSchema) -> Schema:
    """The schema of a dataset that is described as connectors do."""
    return {
        "type": "object",
        "properties": {field.name: property_of(field.type) for field in described.fields},
        "required": [field.name for field in described.fields if not field.nullable],
    }


def is_of_type(value: Any, neutral: NeutralType) -> bool:
    """Whether a JSON value can be one of this type."""
    kind = neutral.kind
    if kind is Kind.JSON:
        return True
    if kind is Kind.BOOLEAN:
        return isinstance(value, bool)
    if kind is Kind.INTEGER:
        return type(value) is int and value in _INTEGERS
    if kind is Kind.FLOAT:
        return type(value) in (int, float, Decimal) and math.isfinite(value)
    if kind is Kind.ARRAY:
        item = neutral.item
        return isinstance(value, list) and all(
            each is None or (item is not None and is_of_type(each, item)) for each in value
        )
    return isinstance(value, str) and _text_is(value, neutral)


def _text_is(text: str, neutral: NeutralType) -> bool:
    if neutral.kind is Kind.TEXT:
        return neutral.length is None or len(text) <= neutral.length
    try:
        if neutral.kind is Kind.DECIMAL:
            return _decimal_is(Decimal(text), neutral)
        return _READERS[neutral.kind](text)
    except (ValueError, InvalidOperation, binascii.Error):
        return False


def _decimal_is(number: Decimal, neutral: NeutralType) -> bool:
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        return False
    if neutral.precision is None:
        return True
    scale = neutral.scale or 0
    whole, _, fraction = canonical_decimal(number.copy_abs()).partition(".")
    return len(fraction) <= scale and len(whole.lstrip("0")) <= neutral.precision - scale


_READERS: dict[Kind, Callable[[str], bool]] = {
    Kind.DATE: lambda text: date.fromisoformat(text) is not None and len(text) == 10,
    Kind.TIME: lambda text: time.fromisoformat(text).tzinfo is None,
    Kind.TIMESTAMP: lambda text: datetime.fromisoformat(text).tzinfo is None,
    Kind.TIMESTAMPTZ: lambda text: datetime.fromisoformat(text).tzinfo is not None,
    Kind.UUID: lambda text: str(UUID(text)) == text,
    Kind.BYTES: lambda text: base64.b64decode(text, validate=True) is not None,
}


# Changes of a schema


def breaks(old: Schema, new: Schema) -> list[str]:
    """Why clients that know the old schema could not live with the new one; none: it only adds."""
    before, after = old["properties"], new["properties"]
    reasons = [f"'{name}' is gone" for name in before if name not in after]
    had, has = set(old.get("required", [])), set(new.get("required", []))
    reasons += [f"'{name}' is required now" for name in sorted(has - had)]
    reasons += [f"'{name}' need not be there any more" for name in sorted(had - has & after.keys())]
    for name in before.keys() & after.keys():
        reasons += [f"'{name}': {reason}" for reason in _narrower(before[name], after[name])]
    return sorted(reasons)


def _narrower(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """How values that fitted before fit no more, or are read in another way."""
    reasons = []
    for word in sorted((old.keys() | new.keys()) - _WORDS):
        before, after = old.get(word), new.get(word)
        if before == after or (word == "x-type" and neutral_of(old) == neutral_of(new)):
            continue
        if after is None and word in _LIMITS_BELOW | _LIMITS_ABOVE | {"uniqueItems"}:
            continue
        is_wider = before is not None and (
            (word in _LIMITS_ABOVE and after >= before)
            or (word in _LIMITS_BELOW and after <= before)
        )
        if not is_wider and word not in ("x-merge", "x-separator"):
            reasons.append(f"`{word}` is another")
    return reasons
