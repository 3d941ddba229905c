"""A mutation of a replica against the record as it is: field by field, three ways.

Of each field there are three values: what the replica had before its edit (the base), what it
wants, and what the hub holds. Where only one of the two has changed it, that one counts; where both
have, the field's policy decides, as in the rules of two-way sync (`engine.reconcile.merging`). The
base is what the mutation says it was, else what the record held at the revision that the replica
had seen. Where that is not known any more, both count as changed.

`increment`, `add` and `remove` say what to do, not what comes of it, and so never clash. A member
that others have added since the base is not removed: it is not the one that was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any

from apps.connectors.canonical import canonical_decimal
from apps.connectors.types import JSON, Kind
from apps.engine.reconcile.merging import ASK, IN_DOUBT, Ask, Values, merge_value
from apps.engine.spec import EditDelete, FieldPolicy
from apps.hub.bodies import dumped, loaded
from apps.hub.errors import MutationRefused
from apps.hub.schemas import FieldShape, Record, Shape

_EXACT = Context(prec=3_000)


class Status(StrEnum):
    """What came of a mutation."""

    APPLIED = "applied"  # the record is as the replica expects
    MERGED = "merged"  # it is not, take it as it is
    CONFLICT = "conflict"  # likewise, and somebody will decide on values that were set aside
    REJECTED = "rejected"  # nothing was done


@dataclass(frozen=True, slots=True)
class Edit:
    """What a replica did to one record, while it had seen the record at `base_revision`."""

    number: int
    key: str
    base_revision: int | None = None
    assigned: Mapping[str, Any] = field(default_factory=dict)
    increments: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, list[Any]] = field(default_factory=dict)
    removed: Mapping[str, list[Any]] = field(default_factory=dict)
    is_delete: bool = False
    base: Mapping[str, Any] = field(default_factory=dict)
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """What the replica had seen. values: None where that is not known any more.

    is_foreign: whether others have written since, or may have.
    """

    values: Record | None
    is_foreign: bool


@dataclass(slots=True)
class Merged:
    """The record that comes of it (None: none), the fields that were changed, and what was not."""

    status: Status
    record: Record | None
    changed: list[str] = field(default_factory=list)
    lost: Record = field(default_factory=dict)
    clocks: dict[str, str] = field(default_factory=dict)
    is_delete_lost: bool = False
    asks: list[str] = field(default_factory=list)


def merge_into_nothing(
    shape: Shape, edit: Edit, was: Record | None, policy: EditDelete, *, created: Record
) -> Merged:
    """An edit where no record lives. was: the record before it was deleted, None: not known.

    created: the record with its key, for an edit that makes one. Raises MutationRefused.
    """
    if edit.is_delete:
        return Merged(Status.APPLIED, None)
    if not edit.base_revision:
        record = _operated(shape, edit, {**created, **edit.assigned}, Base({}, is_foreign=False))
        return _checked_whole(shape, edit, record, Status.APPLIED)
    wanted = {**edit.assigned}
    if policy is EditDelete.EDIT:
        record = _operated(shape, edit, {**(was or created), **wanted}, Base(was, is_foreign=True))
        return _checked_whole(shape, edit, record, Status.MERGED)
    if policy is EditDelete.ASK:
        return Merged(Status.CONFLICT, None, lost=wanted, asks=sorted(wanted))
    return Merged(Status.MERGED, None, lost=wanted)


def merge_into(
    shape: Shape,
    edit: Edit,
    record: Record,
    clocks: Mapping[str, str],
    base: Base,
    policy: EditDelete,
) -> Merged:
    """An edit of a record that lives. Raises MutationRefused."""
    if edit.is_delete:
        if not base.is_foreign or policy is EditDelete.DELETE:
            return Merged(Status.APPLIED, None, changed=sorted(record))
        status = Status.CONFLICT if policy is EditDelete.ASK else Status.MERGED
        return Merged(status, record, is_delete_lost=True)
    after = dict(record)
    merged = Merged(Status.MERGED if base.is_foreign else Status.APPLIED, after)
    for name, wanted in edit.assigned.items():
        _assign(shape.field(name), edit, wanted, clocks, base, merged)
    merged.record = _operated(shape, edit, after, base)
    merged.changed = [
        name
        for name in sorted({*edit.assigned, *edit.increments, *edit.added, *edit.removed})
        if not same(merged.record.get(name), record.get(name))
    ]
    if any(name in shape.key for name in merged.changed):
        raise MutationRefused("the key of a record does not change", shape.key[0])
    shape.check(merged.record, merged.changed)
    merged.clocks = {
        **clocks,
        **{name: max(edit.stamp, _clock(clocks, name)) for name in merged.changed},
    }
    if merged.asks:
        merged.status = Status.CONFLICT
    elif merged.lost:
        merged.status = Status.MERGED
    return merged


def _checked_whole(shape: Shape, edit: Edit, record: Record, status: Status) -> Merged:
    record = {name: value for name, value in record.items() if value is not None}
    shape.check(record, list(record))
    return Merged(status, record, sorted(record), clocks={"": edit.stamp})


def _assign(
    shape: FieldShape,
    edit: Edit,
    wanted: Any,
    clocks: Mapping[str, str],
    base: Base,
    merged: Merged,
) -> None:
    """One field that the replica has set: into the record, or aside."""
    name, record = shape.name, merged.record if merged.record is not None else {}
    held = record.get(name)
    if same(held, wanted):
        return
    shape.check(wanted)
    is_known = name in edit.base or base.values is not None
    before = edit.base[name] if name in edit.base else (base.values or {}).get(name)
    if not is_known and not base.is_foreign:
        is_known, before = True, held
    if is_known and same(before, wanted):
        return  # the replica has not changed it
    if is_known and same(before, held):
        _put(record, name, wanted)
        return
    won = _decided(shape, edit, wanted, held, (is_known, before), _clock(clocks, name))
    if won is ASK:
        merged.asks.append(name)
        merged.lost[name] = wanted
        return
    _put(record, name, won)
    if not same(won, wanted):
        merged.lost[name] = wanted


def _decided(
    shape: FieldShape, edit: Edit, wanted: Any, held: Any, base: tuple[bool, Any], clock: str
) -> Any:
    """Both have changed the field: its value, or ASK."""
    policy = shape.policy.policy
    if policy is FieldPolicy.LEFT:
        return held
    if policy is FieldPolicy.RIGHT:
        return wanted
    if policy is FieldPolicy.NEWEST:
        return wanted if edit.stamp > clock else held
    is_known, before = base
    text = _text(shape, before) if is_known else None
    if not is_known and policy is FieldPolicy.COUNTER:
        text = IN_DOUBT
    # Members of arrays are merged as JSON, which keeps their types.
    neutral = JSON if shape.type.kind is Kind.ARRAY else shape.type
    found = merge_value(
        shape.policy, neutral, Values(_text(shape, held), _text(shape, wanted), text)
    )
    return found if isinstance(found, Ask) else _value(shape, found)


def _operated(shape: Shape, edit: Edit, record: Record, base: Base) -> Record:
    """The record after what is to be done to its values."""
    for name, delta in edit.increments.items():
        record[name] = _incremented(shape.field(name), record.get(name), delta)
    for name, members in edit.added.items():
        held = _members(shape.field(name), record.get(name))
        record[name] = held + [m for m in _unique(members) if not _contains(held, m)]
    for name, members in edit.removed.items():
        held = _members(shape.field(name), record.get(name))
        seen = _seen(shape.field(name), edit, base, held)
        gone = [member for member in members if _contains(seen, member)]
        record[name] = [member for member in held if not _contains(gone, member)]
    return record


def _seen(shape: FieldShape, edit: Edit, base: Base, held: list[Any]) -> list[Any]:
    """The members that the replica may have seen."""
    if shape.name in edit.base:
        return _members(shape, edit.base[shape.name])
    if base.values is None or not base.is_foreign:
        return held
    return _members(shape, base.values.get(shape.name))


def _incremented(shape: FieldShape, held: Any, delta: Any) -> Any:
    if isinstance(delta, bool) or not isinstance(delta, int | float | Decimal | str):
        raise MutationRefused("an increment is a number", shape.name)
    try:
        if shape.type.kind is Kind.INTEGER and isinstance(delta, int):
            return (held or 0) + delta
        if shape.type.kind is Kind.FLOAT:
            return float(held or 0) + float(delta)
        if shape.type.kind is Kind.DECIMAL:
            return canonical_decimal(_EXACT.add(Decimal(held or 0), Decimal(str(delta))))
    except (ArithmeticError, ValueError):
        pass
    raise MutationRefused(f"a {shape.type} cannot be incremented by that", shape.name)


def _members(shape: FieldShape, held: Any) -> list[Any]:
    if shape.type.kind not in (Kind.ARRAY, Kind.JSON) or not isinstance(held, list | None):
        raise MutationRefused("members are added to and removed from lists", shape.name)
    return list(held or ())


def _unique(members: list[Any]) -> list[Any]:
    found: list[Any] = []
    for member in members:
        if not _contains(found, member):
            found.append(member)
    return found


def _contains(members: list[Any], member: Any) -> bool:
    return any(same(each, member) for each in members)


def _put(record: Record, name: str, value: Any) -> None:
    """A field without a value is left out."""
    if value is None:
        record.pop(name, None)
    else:
        record[name] = value


def _clock(clocks: Mapping[str, str], name: str) -> str:
    return clocks.get(name, clocks.get("", ""))


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: true is not 1, 1.0 is."""
    if type(one) is type(other) and isinstance(one, str | int | bool | None):
        return bool(one == other)
    return dumped({"v": one}) == dumped({"v": other})


def _text(shape: FieldShape, value: Any) -> str | None:
    """A value as the engine merges it."""
    if value is None or isinstance(value, str):
        return value if shape.type.kind is not Kind.JSON else _json_text(value)
    return _json_text(value)


def _json_text(value: Any) -> str | None:
    if value is None:
        return None
    return dumped({"v": value})[5:-1]


def _value(shape: FieldShape, text: str | None) -> Any:
    """And back."""
    if text is None:
        return None
    if shape.type.kind in (Kind.ARRAY, Kind.JSON, Kind.INTEGER, Kind.FLOAT):
        return loaded(text)
    return text
