"""Parts of a key that both sides of a mapping read alike: ranges, or shares by a hash.

A record and what belongs to it (its counterpart, their link) must fall into the same part, or a
plan of one part would take a record for missing. So a key is cut only where the right one is a
copy of the left one, and

- into *ranges* where both sides order its values alike (`digests.ORDERED_KINDS`);
- into *shares* by a hash of its texts where they do not, but have the same texts: the key may be
  empty, or one side keeps the numbers or UUIDs of the other one as text. (Not the other way: the
  text '007' becomes the number 7, which is another text.)

Links lie in the part of their right key, whose canonical text they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from apps.connectors.base import (
    DatasetSchema,
    DigestField,
    DigestsRefused,
    FieldSchema,
    Key,
    KeyRange,
    KeyShare,
    KeySpan,
)
from apps.connectors.digests import (
    ORDERED_KINDS,
    SHARE_DIGITS,
    SHARE_SEPARATOR,
    Form,
    KeyColumn,
    below,
    not_below,
)
from apps.connectors.types import Kind, NeutralType
from apps.engine.checksum_plan import shared_type
from apps.engine.codec import decode_keys, encode_keys, masked
from apps.engine.reading_digests import value_literal
from apps.engine.spec import FieldMappingSpec, MappingSpec
from apps.engine.types_sql import from_canonical_sql, literal

Forms = Callable[[FieldSchema], tuple[str, ...]]

_CANONICAL_FORMS = {
    Kind.INTEGER: (Form.NUMBER, Form.TEXT),
    Kind.DECIMAL: (Form.NUMBER,),
    Kind.TEXT: (Form.TEXT,),
    Kind.UUID: (Form.UUID, Form.TEXT),
    Kind.DATE: (Form.DATE,),
}
"""Forms that write a value's canonical text, which links hold."""

_KEPT_AS_TEXT = {Kind.INTEGER, Kind.UUID}


@dataclass(frozen=True, slots=True)
class SharedKey:
    """A key that the right side copies, field by field in the order of the right one.

    left, right: names; left_fields, right_fields: as the sides have them now.
    """

    left: tuple[str, ...]
    right: tuple[str, ...]
    left_fields: tuple[FieldSchema, ...]
    right_fields: tuple[FieldSchema, ...]

    def ordered_types(self) -> tuple[NeutralType, ...]:
        """Types that hold the values of both sides. Raises DigestsRefused: not ordered alike."""
        types = tuple(map(shared_type, self.left_fields, self.right_fields))
        for field, neutral in zip(self.right_fields, types, strict=True):
            if neutral.kind not in ORDERED_KINDS:
                raise DigestsRefused(f"databases do not order the key '{field.name}' alike")
        return types

    def forms(self, left: Forms, right: Forms, *, both_ways: bool) -> tuple[str, ...]:
        """A form per field of which both sides write the same text. Raises DigestsRefused."""
        found = []
        for ours, theirs in zip(self.left_fields, self.right_fields, strict=True):
            kinds = ours.type.kind, theirs.type.kind
            as_text = kinds[1] is Kind.TEXT and kinds[0] in _KEPT_AS_TEXT and not both_ways
            offered = set(left(ours)) & set(right(theirs))
            shared = [f for f in _CANONICAL_FORMS.get(kinds[0], ()) if f in offered]
            wide = ours.type.is_wide_decimal or theirs.type.is_wide_decimal
            if not shared or wide or not (kinds[0] is kinds[1] or as_text):
                raise DigestsRefused(f"the two sides do not write the key '{theirs.name}' alike")
            found.append(str(shared[0]))
        return tuple(found)


def shared_key(
    mapping: MappingSpec, left: DatasetSchema, right: DatasetSchema, *, both_ways: bool
) -> SharedKey:
    """The key of both sides. Raises DigestsRefused where the right one is no copy of the left.

    both_ways: the left one has to be a copy of the right one as well.
    """
    copies = {spec.right: spec.left for spec in mapping.fields if _is_copy(spec, both_ways)}
    names = tuple(copies.get(name, "") for name in mapping.key)
    if not names or sorted(names) != sorted(mapping.left.key):
        raise DigestsRefused("the keys of both sides are not copies of each other")
    return SharedKey(
        left=names,
        right=tuple(mapping.key),
        left_fields=tuple(left.field(name) for name in names),
        right_fields=tuple(right.field(name) for name in mapping.key),
    )


def _is_copy(spec: FieldMappingSpec, both_ways: bool) -> bool:
    changed = spec.to_right or (both_ways and spec.to_left)
    return bool(spec.left) and not changed and spec.default is None


def encode_bound(bound: Key | None, types: Sequence[NeutralType]) -> str:
    """A bound as a key text; empty for an open end."""
    if bound is None:
        return ""
    columns = {f"k{i}": pa.array([v], t.arrow) for i, (v, t) in enumerate(zip(bound, types))}  # noqa: B905
    return encode_keys(pa.table(columns), _named(types))[0]


def decode_bound(text: str, types: Sequence[NeutralType]) -> Key | None:
    """The bound that a text stands for. Raises MalformedRecord."""
    if not text:
        return None
    row = decode_keys([text], _named(types)).to_pylist()[0]
    return tuple(row.values())


def _named(types: Sequence[NeutralType]) -> dict[str, NeutralType]:
    return {f"k{place}": neutral for place, neutral in enumerate(types)}


@dataclass(frozen=True, slots=True)
class KeyPart:
    """What one partition covers: how either side reads it, and which links belong to it.

    left, right: None for all records; links: SQL of whether the link of a right key text `key`
    belongs to it, empty for all.
    """

    left: KeyRange | KeyShare | None = None
    right: KeyRange | KeyShare | None = None
    links: str = ""

    def of_links(self, links: pa.Table) -> pa.Table:
        """Those of these links (a column `right_key`, among others) that belong to this part."""
        if not self.links or not links.num_rows:
            return links
        return links.filter(masked(links.column("right_key"), self.links))


def range_part(key: SharedKey, lower: Key | None, upper: Key | None) -> KeyPart:
    """The part between two bounds, which are values of `ordered_types`."""
    return KeyPart(
        KeyRange(key.left, lower, upper),
        KeyRange(key.right, lower, upper),
        _links_in_span(key, KeySpan(lower, upper)),
    )


def share_part(key: SharedKey, forms: Sequence[str], number: int, shares: int) -> KeyPart:
    """One of the shares by the hash of the key's texts in these forms."""
    left, right = (
        KeyShare(tuple(map(DigestField, names, forms)), number, shares)
        for names in (key.left, key.right)
    )
    texts = ", ".join(f"coalesce({_text(place)}, '')" for place in range(len(key.right)))
    digits = f"substr(md5(concat_ws({literal(SHARE_SEPARATOR)}, {texts})), 1, {SHARE_DIGITS})"
    links = f"CAST('0x' || {digits} AS UBIGINT) % {shares} = {number}"
    return KeyPart(left, right, links)


def _links_in_span(key: SharedKey, span: KeySpan) -> str:
    """SQL; a link whose key is of another kind by now, or empty, belongs to the first range."""
    types = key.ordered_types()
    columns = [
        KeyColumn(field, _value(place, neutral, len(types)), "", value_literal)
        for place, (field, neutral) in enumerate(zip(key.right_fields, types, strict=True))
    ]
    conditions = []
    if span.lower is not None:
        conditions.append(f"coalesce({not_below(columns, span.lower)}, false)")
    if span.upper is not None:
        missing = "true" if span.lower is None else "false"
        conditions.append(f"coalesce({below(columns, span.upper)}, {missing})")
    return " AND ".join(conditions)


def _text(place: int) -> str:
    return f"json_extract_string(key, '/{place}')"


def _value(place: int, neutral: NeutralType, width: int) -> str:
    if neutral.kind is Kind.INTEGER and width == 1:  # most keys: far faster than reading JSON
        return "TRY_CAST(substr(key, 3, length(key) - 4) AS BIGINT)"
    return f"TRY({from_canonical_sql(_text(place), neutral)})"
