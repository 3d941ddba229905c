"""Updates that pass unique values on: a record takes the value that another one gives up.

Databases look at a unique key with each record that a statement touches, so what is right as a
whole is refused in parts. What was refused for a value that is taken is therefore looked at again:

1. Who waits for whom: a record waits for those of the refused ones whose old value it takes.
2. They are written one after the other, each after those that it waits for.
3. Some wait for one another in a circle (two records swap their values). There one record gives its
   value up first: the field is emptied, or gets a value that nobody has. Then the others move up,
   and it takes its own new value last. That is all or nothing, within the batch's transaction.

A record whose value is truly taken stays refused.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.components import Parents, components_of
from apps.connectors.sql_writing import DUPLICATE, PreparedBatch, RowRefused, isolated
from apps.connectors.types import Kind

Write = Callable[[Sequence[int]], None]
_SHORTEST = 16  # characters of a random text that nobody else has


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A row whose field makes room. value: what it holds meanwhile; None: nothing."""

    row: int
    field: FieldSchema
    value: str | int | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """How a connector makes room for a moment.

    scope: undoes what is done inside when an exception leaves it; vacate: writes a vacancy over
    the row's old value, if that is still there. Raises RowRefused.
    """

    scope: Callable[[], AbstractContextManager[None]]
    vacate: Callable[[Vacancy], None]


def write_updates(
    prepared: PreparedBatch,
    current: DatasetSchema,
    write: Write,
    exchange: Exchange,
    rows: Sequence[int],
) -> None:
    """Write updates as `write_isolating` does; rows that pass unique values on get through."""
    refused = isolated(prepared, write, rows)
    taken = [row for row, problem in refused.items() if problem.code == DUPLICATE.code]
    for row, problem in refused.items():
        if problem.code != DUPLICATE.code:
            prepared.settle(row, problem)
    if taken:
        _pass_on(prepared, current, write, exchange, taken)


def _pass_on(
    prepared: PreparedBatch,
    current: DatasetSchema,
    write: Write,
    exchange: Exchange,
    rows: Sequence[int],
) -> None:
    waiting = _waiting(prepared, current, rows)
    for part in components_of(waiting, len(rows)):
        chosen = [rows[place] for place in part]
        try:
            if len(part) == 1:
                write(chosen)
            else:
                order = [rows[place] for place in (*_without_first(waiting, part), part[0])]
                _rotate(write, exchange, _vacancies(prepared, current, chosen), order)
        except RowRefused as refusal:
            for row in chosen:
                prepared.settle(row, refusal.problem)


def _rotate(
    write: Write, exchange: Exchange, vacancies: Sequence[Vacancy], order: Sequence[int]
) -> None:
    if not vacancies:
        raise RowRefused(DUPLICATE)
    with exchange.scope():
        for vacancy in vacancies:
            exchange.vacate(vacancy)
        for row in order:
            write([row])


def _waiting(prepared: PreparedBatch, current: DatasetSchema, rows: Sequence[int]) -> Parents:
    """By place in `rows` the places of those whose old value the row takes."""
    waiting: Parents = {}
    for names in _exchanged_keys(prepared, current):
        old = _values(prepared.before, names, rows)
        giver = {values: place for place, values in enumerate(old) if None not in values}
        for place, values in enumerate(_values(prepared.after, names, rows)):
            if giver.get(values, place) != place:
                waiting.setdefault(place, []).append(giver[values])
    return waiting


def _without_first(waiting: Parents, circle: Sequence[int]) -> list[int]:
    """The others of a circle in their order, once its first has made room.

    Where they are in circles among themselves, they will be refused.
    """
    others = set(circle[1:])
    left = {place: [p for p in waiting[place] if p in others] for place in others}
    parts = components_of(left, max(circle) + 1)
    return [place for part in parts for place in part if place in others]


def _exchanged_keys(prepared: PreparedBatch, current: DatasetSchema) -> Iterator[tuple[str, ...]]:
    """The unique keys all of whose fields are written, and known as they were."""
    known = set(prepared.before.column_names) & set(prepared.after.column_names)
    yield from (names for names in current.unique_keys if known.issuperset(names))


def _values(image: pa.Table, names: Sequence[str], rows: Sequence[int]) -> list[tuple[object, ...]]:
    columns = image.select(list(names)).take(pa.array(rows, pa.int64())).columns
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _vacancies(
    prepared: PreparedBatch, current: DatasetSchema, circle: Sequence[int]
) -> list[Vacancy]:
    """How the first row of a circle gives up what the others take; empty where it cannot."""
    found: dict[str, Vacancy] = {}
    for names in _exchanged_keys(prepared, current):
        old = _values(prepared.before, names, circle[:1])[0]
        if old not in _values(prepared.after, names, circle[1:]):
            continue
        fields = sorted((current.field(name) for name in names), key=lambda f: not f.nullable)
        room = (field for field in fields if field.nullable or _nobodys(field) is not None)
        field = next(room, None)
        if field is None:
            return []
        value = None if field.nullable else _nobodys(field)
        found[field.name] = Vacancy(circle[0], field, value)
    return list(found.values())


def _nobodys(field: FieldSchema) -> str | int | None:
    """A value that no record has; None where the type leaves no room for one."""
    kind, length = field.type.kind, field.type.length
    if kind is Kind.TEXT and (length is None or length >= _SHORTEST):
        return secrets.token_hex(32)[: length or 64]
    if kind is Kind.UUID:
        return str(uuid.uuid4())
    if kind is Kind.INTEGER:
        return -secrets.randbelow(2**31 - 1) - 1
    return None
