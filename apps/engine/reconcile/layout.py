"""What a two-way plan works on, as columns: names, types and the SQL of their images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from apps.connectors.types import Kind, NeutralType
from apps.engine.codec import image_sql, json_name
from apps.engine.program import CARRIED
from apps.engine.reconcile.programs import (
    backward_mapping,
    expression_fields,
    is_derived,
    right_fields,
    translates,
    two_way_of,
)
from apps.engine.spec import (
    DatasetSpec,
    DeletePolicy,
    LeavePolicy,
    MappingSpec,
    Normalisation,
    RuleSpec,
)
from apps.engine.transform import canonical_value
from apps.engine.types_sql import from_canonical_sql, json_string_sql, literal

Value = tuple[str, str, NeutralType]
"""Name of a field, SQL of its value, its type."""


@dataclass(frozen=True, slots=True)
class Write:
    """A left field that the backward program writes, and the right fields that it comes from."""

    name: str
    place: int
    neutral: NeutralType
    sources: frozenset[str]
    assigned: bool


class Layout:
    """The fields of one mapping and rule, and the columns that hold them.

    f0, f1, ...  right fields of the mapping, in the left view and in the right record;
    e0, e1, ...  other right fields: key, modification time, mark, what only deletes keep;
    c0, c1, ...  left fields that ride along (where they are not equal to a right field anyway);
    b0, b1, ...  left fields that the backward program writes;
    u0, u1, ...  compatibility forms of match fields that are compared in them.
    """

    def __init__(
        self,
        mapping: MappingSpec,
        rule: RuleSpec,
        extra_left: Mapping[str, NeutralType],
        extra_right: Mapping[str, NeutralType],
    ) -> None:
        self.mapping = mapping
        self.rule = rule
        self.two_way = two_way_of(rule)
        self.types = {s.right: mapping.right.field(s.right).neutral_type for s in mapping.fields}
        self.columns = {name: f"f{place}" for place, name in enumerate(self.types)}
        self.names = tuple(self.types)
        self.left_types = {spec.name: spec.neutral_type for spec in mapping.left.fields}
        self.extra_left = tuple(extra_left)
        self._set_extra(extra_right)
        self.derived = frozenset(spec.right for spec in mapping.fields if is_derived(spec))
        self.references = frozenset(
            spec.right
            for spec in mapping.fields
            if spec.to_left and translates(spec.to_left, mapping.right)
        )
        self.writes = _writes(mapping)
        self.settled = self._settled()
        self.raw: dict[str, str] = {}
        self.same_as_right = _plain_copies(mapping)
        self.assigned_left = self._fed_by_assigned()
        self.assigned_right = frozenset(
            name for name in self.types if _assigned(mapping.right, name)
        )
        self.compatible = {
            spec.field: f"u{place}"
            for place, spec in enumerate(mapping.match)
            if Normalisation.UNICODE in spec.normalise and self._is_text(spec.field)
        }
        self.right_mark = self._right_mark()
        self.left_mark = self._left_mark()

    @property
    def right_fields(self) -> tuple[str, ...]:
        """The right fields that a plan needs, mapped and other."""
        return (*self.names, *self.extra)

    def set_carried(self, schema: pa.Schema) -> None:
        """Learn from a batch of left views which left fields ride along."""
        names = [name.removeprefix(CARRIED) for name in schema.names if name.startswith(CARRIED)]
        stored = [name for name in names if name not in self.same_as_right]
        self.raw = {name: f"c{place}" for place, name in enumerate(stored)}
        for name in names:
            if name in self.same_as_right:
                self.raw[name] = self.columns[self.same_as_right[name]]

    @property
    def stored_raw(self) -> dict[str, str]:
        """Columns of the left fields that need their own."""
        return {n: column for n, column in self.raw.items() if n not in self.same_as_right}

    def raw_value(self, name: str, row: str) -> str:
        """SQL of a left field as it was read; NULL where it did not ride along."""
        return f"{row}.{self.raw[name]}" if name in self.raw else "NULL"

    def values(self, prefix: str) -> list[Value]:
        """The mapped right fields, in columns that begin with `prefix` ('r.f')."""
        return [(n, f"{prefix}{place}", self.types[n]) for place, n in enumerate(self.names)]

    def translated(self, right: str, view: str) -> list[Value]:
        """The mapped right fields as a base keeps them beside a left view, in such columns.

        A reference that could not be translated to the left yet is left out: so its field counts
        as edited on the right until it can be.
        """
        return [
            (n, f"CASE WHEN {view}{i} IS NULL THEN NULL ELSE {sql} END", neutral)
            if n in self.references
            else (n, sql, neutral)
            for i, (n, sql, neutral) in enumerate(self.values(right))
        ]

    def raw_values(self, row: str) -> list[Value]:
        """The left fields that ride along."""
        return [(n, f"{row}.{column}", self.left_types[n]) for n, column in self.raw.items()]

    def whole_right(self, row: str) -> list[Value]:
        """Mapped and other right fields of a row of `right_side`."""
        other = [(n, f"{row}.{column}", self.extra_types[n]) for n, column in self.extra.items()]
        return [*self.values(f"{row}.f"), *other]

    def right_value(self, name: str, row: str) -> Value:
        """One right field of a row of `right_side`."""
        if name in self.columns:
            return name, f"{row}.{self.columns[name]}", self.types[name]
        return name, f"{row}.{self.extra[name]}", self.extra_types[name]

    def _is_text(self, name: str) -> bool:
        return name in self.types and self.types[name].kind is Kind.TEXT

    def _set_extra(self, extra_right: Mapping[str, NeutralType]) -> None:
        names = right_fields(self.mapping, self.rule, extra_right)
        other = [name for name in names if name not in self.types]
        self.extra = {name: f"e{place}" for place, name in enumerate(other)}
        self.extra_types = {
            n: extra_right.get(n) or self.mapping.right.field(n).neutral_type for n in other
        }

    def _settled(self) -> frozenset[str]:
        """Right fields that come from nothing but left fields which the backward program writes.

        Of a record that is inserted on the left, only their values are known before.
        """
        written = {write.name for write in self.writes if not write.assigned}
        settled = set()
        for spec in self.mapping.fields:
            sources = {spec.left} if spec.left else set()
            if spec.to_right:
                sources = set(expression_fields(spec.to_right, self.mapping.left))
            if sources <= written:
                settled.add(spec.right)
        return frozenset(settled)

    def _fed_by_assigned(self) -> frozenset[str]:
        """Right fields that hold a copy of a left field which the left side assigns."""
        return frozenset(
            spec.right
            for spec in self.mapping.fields
            if spec.left and not spec.to_left and not spec.to_right
            and _assigned(self.mapping.left, spec.left)
        )  # fmt: skip

    def _right_mark(self) -> str | None:
        rule = self.rule
        if rule.on_delete is not DeletePolicy.MARK and rule.on_leave is not LeavePolicy.MARK:
            return None
        neutral = self.mapping.right.field(rule.mark_field).neutral_type
        return canonical_value(rule.mark_value, neutral, where="rule, mark field")

    def _left_mark(self) -> str | None:
        two_way = self.two_way
        if two_way.on_right_delete is not DeletePolicy.MARK:
            return None
        neutral = self.mapping.left.field(two_way.left_mark_field).neutral_type
        return canonical_value(two_way.left_mark_value, neutral, where="rule, left mark field")


def image_where(values: list[Value], condition: Callable[[str], str]) -> str:
    """SQL of the image of those fields for which `condition(name)` is true."""
    if not values:
        return "'{}'"
    parts = []
    for name, sql, neutral in values:
        label = literal(json_name(name) + ":")
        text = f"coalesce({json_string_sql(sql, neutral)}, 'null')"
        parts.append(f"CASE WHEN {condition(name)} THEN {label} || {text} END")
    return f"'{{' || concat_ws(',', {', '.join(parts)}) || '}}'"


def names_where(names: list[str], condition: Callable[[str], str]) -> str:
    """SQL of the list of those names for which `condition(name)` is true."""
    if not names:
        return "CAST([] AS VARCHAR[])"
    cases = ", ".join(f"CASE WHEN {condition(n)} THEN {literal(n)} END" for n in names)
    return f"list_filter([{cases}], lambda x: x IS NOT NULL)"


def whole_image(values: list[Value]) -> str:
    """SQL of the image of all these fields."""
    return image_sql(values)


def typed(text: str, neutral: NeutralType) -> str:
    """SQL of the value of a canonical text, NULL where it is none."""
    return f"TRY({from_canonical_sql(text, neutral)})"


def _assigned(dataset: DatasetSpec, name: str) -> bool:
    return dataset.field(name).server_assigned


def _plain_copies(mapping: MappingSpec) -> dict[str, str]:
    """Right field by left field, where the left view holds exactly the left value."""
    same: dict[str, str] = {}
    for spec in mapping.fields:
        if not spec.left or spec.to_right or spec.default is not None:
            continue
        kinds = (mapping.left.field(spec.left).type, mapping.right.field(spec.right).type)
        if kinds[0] == kinds[1]:
            same.setdefault(spec.left, spec.right)
    return same


def _writes(mapping: MappingSpec) -> tuple[Write, ...]:
    writes = []
    for place, spec in enumerate(backward_mapping(mapping).fields):
        sources = frozenset({spec.left})
        if spec.to_right:
            sources = expression_fields(spec.to_right, mapping.right)
        field = mapping.left.field(spec.right)
        writes.append(Write(spec.right, place, field.neutral_type, sources, field.server_assigned))
    return tuple(writes)
