"""What a flock of histories is played on: datasets, mappings, rules, and sides that alter values.

Every dataset has the same fields, so that any two of them can be joined by a rule:
`a`, `b`, `low` texts; `n` a number; `tags` a set; `note` is mapped by no rule; `edited` is when a
person wrote the record last, by the clock of that side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from apps.engine.reconcile import TwoWayPrograms, compile_two_way
from apps.engine.spec import (
    DatasetSpec,
    FieldMappingSpec,
    FieldPolicySpec,
    FieldSpec,
    MappingSpec,
    RuleSpec,
    TwoWaySpec,
)

Record = dict[str, str | None]
"""A record as canonical texts by field."""

TYPES = {
    "id": "integer",
    "a": "text",
    "b": "text",
    "low": "text",
    "n": "integer",
    "tags": "text",
    "story": "text",
    "joined": "text",
    "note": "text",
    "stamp": "text",
    "edited": "timestamp",
}
EDITABLE = ("a", "b", "low", "n", "tags", "story", "note")
"""What people write; `joined` is what a rule derives, `stamp` what a trigger writes."""

CUT_TO = 6
NO_SKEW = timedelta(0)
A_DAY = timedelta(days=1)
HIDDEN = "hidden"


def dataset(name: str) -> DatasetSpec:
    fields = [FieldSpec(name=n, type=t, nullable=n != "id") for n, t in TYPES.items()]
    return DatasetSpec(name=name, key=("id",), fields=tuple(fields))


def mapping(left: str, right: str, *, plain: bool = False) -> MappingSpec:
    """plain: all fields are copied; else one text changes its case, and one field is derived."""
    copied = ["id", "a", "b", "n", "tags", "story", *(["low"] if plain else [])]
    fields = [FieldMappingSpec(right=name, left=name) for name in copied]
    if not plain:
        fields.append(
            FieldMappingSpec(right="low", left="low", to_right="upper(low)", to_left="lower(low)")
        )
        derived = "coalesce(a, '') || '/' || coalesce(b, '')"
        fields.append(FieldMappingSpec(right="joined", to_right=derived))
    return MappingSpec(left=dataset(left), right=dataset(right), fields=tuple(fields), key=("id",))


@dataclass(frozen=True)
class Alters:
    """What a platform makes of values that anybody writes to it, people and Lockstep alike.

    cut: text fields that it keeps no more than CUT_TO characters of; upper: those that it keeps
    in capitals; touches: a trigger writes `stamp`, which no rule maps.
    """

    cut: tuple[str, ...] = ()
    upper: tuple[str, ...] = ()
    touches: bool = False

    @property
    def is_lossy(self) -> bool:
        return bool(self.cut or self.upper)

    def stored(self, record: Record) -> Record:
        """The record as the platform keeps it."""
        found = dict(record)
        for name in self.cut:
            found[name] = _first(found[name])
        for name in self.upper:
            value = found[name]
            found[name] = value.upper() if value is not None else None
        if self.touches:
            found["stamp"] = f"stamp of {found['a']}"
        return found


def _first(text: str | None) -> str | None:
    return text if text is None else text[:CUT_TO]


EXACT = Alters()


@dataclass(frozen=True)
class Setup:
    """A world's shape: platforms by number, and the rules that join them (left, right, mapping).

    skew: how far each platform's clock is off.
    """

    name: str
    rules: tuple[tuple[int, int, MappingSpec, RuleSpec], ...]
    alters: tuple[Alters, ...] = (EXACT, EXACT)
    skew: tuple[timedelta, ...] = (NO_SKEW, NO_SKEW)

    @property
    def platforms(self) -> int:
        return len(self.alters)

    def same(self, name: str, one: str | None, other: str | None) -> bool:
        """Whether two values are equal as far as all platforms can keep them."""
        if any(name in alters.cut for alters in self.alters):
            one, other = _first(one), _first(other)
        if name == "low" or any(name in alters.upper for alters in self.alters):
            one, other = one and one.upper(), other and other.upper()
        return one == other


def rule(policy: str, *, fields: Mapping[str, str] | None = None, **options: Any) -> RuleSpec:
    """A two-way rule whose own policy is `policy`; `fields` have one of their own."""
    chosen = {"n": "counter", "tags": "set", "story": "text", **(fields or {})}
    specs = [
        FieldPolicySpec(
            field=name,
            policy=own,
            expression="coalesce(left_value, '') || coalesce(right_value, '')"
            if own == "expression"
            else "",
        )
        for name, own in chosen.items()
    ]
    of_rule = {n: options.pop(n) for n in ("filter", "on_leave", "on_delete", "mark_field",
                                           "mark_value") if n in options}  # fmt: skip
    two_way = TwoWaySpec(
        policy=policy,
        fields=tuple(specs),
        left_modified="edited",
        right_modified="edited",
        **{"first_contact": "left", "tie": "right", **options},
    )
    return RuleSpec(direction="two_way", two_way=two_way, **of_rule)


@lru_cache(maxsize=64)
def programs(mapped: MappingSpec, ruled: RuleSpec) -> TwoWayPrograms:
    return compile_two_way(mapped, ruled)


def two_sides(name: str, ruled: RuleSpec, **options: Any) -> Setup:
    return Setup(name, ((0, 1, mapping("l", "r"), ruled),), **options)


def three_sides(name: str, first: RuleSpec, second: RuleSpec, **options: Any) -> Setup:
    """Two rules share the dataset in the middle."""
    rules = (
        (0, 1, mapping("l", "m", plain=True), first),
        (1, 2, mapping("m", "r", plain=True), second),
    )
    return Setup(name, rules, **{"alters": (EXACT,) * 3, "skew": (NO_SKEW,) * 3, **options})


LOSSY = (Alters(touches=True), Alters(cut=("b",), upper=("a",), touches=True))
SETUPS = (
    two_sides("left wins", rule("left")),
    two_sides("right wins, a deletion wins", rule("right", edit_delete="delete")),
    two_sides("a person decides", rule("ask", first_contact="ask", edit_delete="ask")),
    two_sides(
        "the newest wins, clocks are off by a day",
        rule("newest", first_contact="newest"),
        skew=(NO_SKEW, A_DAY),
    ),
    two_sides(
        "the newest wins, else a person decides",
        rule("newest", first_contact="newest", tie="ask"),
        skew=(-A_DAY, NO_SKEW),
    ),
    two_sides(
        "the highest and an expression",
        rule("highest", fields={"n": "highest", "b": "expression", "story": "lowest"}),
    ),
    two_sides(
        "the lowest, deletions wait for a person",
        rule("lowest", on_delete="approve", on_right_delete="approve", fields={"n": "lowest"}),
    ),
    two_sides("lossy types and triggers", rule("left"), alters=LOSSY),
    two_sides(
        "lossy types and triggers on the left, a person decides",
        rule("ask", edit_delete="ask"),
        alters=LOSSY[::-1],
    ),
    two_sides(
        "deletions are ignored, a filter keeps records",
        rule(
            "right",
            on_delete="ignore",
            on_right_delete="ignore",
            filter=f"b IS DISTINCT FROM '{HIDDEN}'",
        ),
    ),
    two_sides(
        "deletions are marked, a filter deletes records",
        rule(
            "left",
            on_delete="mark",
            mark_field="note",
            mark_value="deleted",
            on_right_delete="mark",
            left_mark_field="note",
            left_mark_value="deleted",
            filter=f"b IS DISTINCT FROM '{HIDDEN}'",
            on_leave="delete",
        ),
    ),
    three_sides("three sides", rule("left"), rule("right")),
    three_sides(
        "three sides, a person decides, lossy in the middle",
        rule("ask", edit_delete="ask"),
        rule("ask", edit_delete="ask"),
        alters=(EXACT, Alters(cut=("b",), touches=True), EXACT),
    ),
    three_sides(
        "three sides, the newest wins, clocks are off by a day",
        rule("newest", first_contact="newest"),
        rule("newest", first_contact="newest", edit_delete="delete"),
        skew=(A_DAY, NO_SKEW, -A_DAY),
    ),
)
