"""Updates that pass unique values on: a record takes the value that another one gives up.

Databases look at a unique key with each record that a statement touches, so what is right as a
whole is refused in parts. What was refused for a value that is taken is therefore looked at again:

1. Who waits for whom: a record waits for those of the refused ones whose old value it takes.
2. They are written one after the other, each after those that it waits for.
3. Some wait for one another in a circle (two records swap their values). There one record gives its
   value up first, and holds a value for a moment that nobody has. Then the others move up, and it
   takes its own new value last. That is all or nothing, within the batch's transaction. What a
   target does not let be opened at one record, or with one value, is tried with others, and with
   no value at all in the end.
4. Where nobody was found who gives a value up, values are compared once more, without regard to
   case, accents and blanks at their ends, also in the fields of keys that hold for some records
   only or for what is made of fields: so may the target have compared them.

What foreign keys of other records do when a value changes decides what it may be for a moment.
They may follow (ON UPDATE CASCADE, or a trigger): then their records go to that value and come
back, but from NULL they would not, so it is no NULL. They may forget (SET NULL, SET DEFAULT): then
it must not change for a moment only. Where they forbid it, the target refuses.

A record whose value is truly taken stays refused.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import pyarrow as pa

from apps.connectors.base import DatasetSchema, FieldSchema, WriteProblem
from apps.connectors.components import Parents, components_of
from apps.connectors.errors import SchemaMismatch
from apps.connectors.placeholders import placeholders
from apps.connectors.sql_writing import (
    DUPLICATE,
    NOT_WRITTEN,
    PreparedBatch,
    RowRefused,
    isolated,
)

Write = Callable[[Sequence[int]], None]

NO_ROOM = replace(
    DUPLICATE,
    message="Records pass unique values on in a circle, and the target lets none of them give its "
    "value up for a moment.",
)
HELD_UP = replace(
    DUPLICATE,
    message="The record that has these values was to give them up, and was refused.",
)
_MOST_OPENED = 32  # records of a circle of which it is tried
_MOST_ROTATIONS = 3  # attempts to write all records of a circle, and as many with fields emptied
_MOST_GIVERS = 64  # records that give the same value up, as far as can be told


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A row whose field makes room. value: what it holds meanwhile; None: nothing."""

    row: int
    field: FieldSchema
    value: Any

    @property
    def column(self) -> pa.ChunkedArray:
        """The value as a column of one row, in the field's storage."""
        return pa.chunked_array([pa.array([self.value], self.field.type.arrow)])


@dataclass(frozen=True, slots=True)
class Exchange:
    """How a connector makes room for a moment.

    scope:  undoes what is done inside when an exception leaves it; a scope may hold others;
    vacate: writes a vacancy over the row's old value, if that is still there;
    holds:  whether the row has the vacancy's value;
    write:  writes one row, and nothing less: raises RowRefused where a trigger kept it as it was;
    loose_keys: gives the fields of unique keys that hold for some records only, or for what is
            made of fields (partial indexes, expressions, prefixes), and perhaps of all others;
    on_update: gives the fields that foreign keys of any table refer to, each with its ON UPDATE;
            all fields as with CASCADE where triggers may do the same.
    vacate raises RowRefused as well.
    """

    scope: Callable[[], AbstractContextManager[None]]
    vacate: Callable[[Vacancy], None]
    holds: Callable[[Vacancy], bool]
    write: Callable[[int], None]
    loose_keys: Callable[[], Iterable[Sequence[str]]]
    on_update: Callable[[], Iterable[tuple[str, str]]]


class _NoRoom(Exception):
    """A record cannot give its value up."""


class _Stuck(Exception):
    """The target refused a row of a circle."""

    def __init__(self, row: int, problem: WriteProblem) -> None:
        super().__init__(problem.code)
        self.row, self.problem = row, problem


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
    if taken:
        left = _Passing(prepared, current, write, exchange).on(taken)
        refused = {row: refused[row] for row in refused.keys() - set(taken)} | left
    for row in sorted(refused):
        prepared.settle(row, refused[row])


@dataclass(frozen=True, slots=True)
class _Key:
    """Fields that are unique together, as far as their values before and after are known.

    is_loose: the target may take values for equal that differ.
    """

    names: tuple[str, ...]
    is_loose: bool = False

    def values(self, image: pa.Table, rows: Sequence[int]) -> list[tuple[Any, ...]]:
        columns = image.select(list(self.names)).take(pa.array(rows, pa.int64())).columns
        comparable = _folded if self.is_loose else _hashable
        found = zip(*(column.to_pylist() for column in columns), strict=True)
        return [tuple(map(comparable, values)) for values in found]


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _folded(value: Any) -> Any:
    """What a target may compare text by: without case, accents and blanks at its ends."""
    if not isinstance(value, str):
        return _hashable(value)
    letters = unicodedata.normalize("NFKD", value.strip())
    return "".join(each for each in letters if not unicodedata.combining(each)).casefold()


class _Passing:
    """The second look at the updates of a batch that were refused for values that are taken."""

    def __init__(
        self, prepared: PreparedBatch, current: DatasetSchema, write: Write, exchange: Exchange
    ) -> None:
        self._prepared = prepared
        self._current = current
        self._write = write
        self._exchange = exchange
        self._known = set(prepared.before.column_names) & set(prepared.after.column_names)
        self._opened: set[int] = set()

    def on(self, rows: Sequence[int]) -> dict[int, WriteProblem]:
        """Write what can be written of these rows. Returns why the others were refused."""
        refused = self._pass_on(rows, self._exact_keys)
        left = [row for row in refused if refused[row].code == DUPLICATE.code]
        left = sorted(set(left) - self._opened)
        linked = self._linked(left) if len(left) > 1 else []
        if linked:
            again = self._pass_on(linked, self._loose_keys)
            refused = {row: refused[row] for row in refused.keys() - set(linked)} | again
        return refused

    def _pass_on(self, rows: Sequence[int], keys: Sequence[_Key]) -> dict[int, WriteProblem]:
        refused: dict[int, WriteProblem] = {}
        waiting = self._waiting(rows, keys)
        for part in components_of(waiting, len(rows)):
            if len(part) == 1:
                chosen = [rows[part[0]]]
                try:
                    self._write(chosen)
                except RowRefused as refusal:
                    refused[chosen[0]] = refusal.problem
            else:
                refused |= self._rotate(rows, keys, waiting, part)
        return refused

    def _linked(self, rows: Sequence[int]) -> list[int]:
        """Those of the rows that wait for one another, by what a target may compare."""
        waiting = self._waiting(rows, self._loose_keys)
        places = {place for givers in waiting.values() for place in givers} | waiting.keys()
        return [rows[place] for place in sorted(places)]

    def _waiting(self, rows: Sequence[int], keys: Sequence[_Key]) -> Parents:
        """By place in `rows` the places of those whose old value the row takes."""
        waiting: Parents = {}
        for key in keys:
            old = key.values(self._prepared.before, rows)
            new = key.values(self._prepared.after, rows)
            givers: dict[tuple[Any, ...], list[int]] = defaultdict(list)
            for place, values in enumerate(old):
                if None not in values and new[place] != values:
                    givers[values].append(place)
            for place, values in enumerate(new):
                found = givers.get(values, ())
                if old[place] != values and len(found) <= _MOST_GIVERS:
                    waiting.setdefault(place, []).extend(found)
        return waiting

    def _rotate(
        self, rows: Sequence[int], keys: Sequence[_Key], waiting: Parents, part: Sequence[int]
    ) -> dict[int, WriteProblem]:
        """Write a circle, opened at one record or at another. Returns why it was refused."""
        circle = [rows[place] for place in part]
        self._opened.update(circle)
        stuck: list[_Stuck] = []
        for empties, first in product((False, True), part[:_MOST_OPENED]):
            if len(stuck) >= _MOST_ROTATIONS * (1 + empties):
                continue
            opened, order = _opening(waiting, part, first)
            try:
                with self._exchange.scope():
                    made = self._make_room([rows[place] for place in opened], keys, circle, empties)
                    self._write_each([rows[place] for place in order])
                    self._require_gone(made)
            except _NoRoom:
                continue
            except _Stuck as reason:
                stuck.append(reason)
            else:
                return {}
        if not stuck:
            return dict.fromkeys(circle, NO_ROOM)
        return dict.fromkeys(circle, HELD_UP) | {stuck[0].row: stuck[0].problem}

    def _make_room(
        self, opened: Sequence[int], keys: Sequence[_Key], circle: Sequence[int], empties: bool
    ) -> list[Vacancy]:
        """Let rows give up what others of their circle take. Raises _NoRoom."""
        made: list[Vacancy] = []
        for row, key in product(opened, keys):
            others = [other for other in circle if other != row]
            old = key.values(self._prepared.before, [row])[0]
            if None in old or old not in key.values(self._prepared.after, others):
                continue
            if not any(each.row == row and each.field.name in key.names for each in made):
                made.append(self._vacated(row, key, empties))
        return made

    def _vacated(self, row: int, key: _Key, empties: bool) -> Vacancy:
        for vacancy in self._vacancies(row, key, empties):
            try:
                with self._exchange.scope():
                    self._exchange.vacate(vacancy)
                    if not self._exchange.holds(vacancy):  # a trigger has made another one of it
                        raise RowRefused(NO_ROOM)
            except (RowRefused, SchemaMismatch):  # a trigger's own error may be no record's
                continue
            return vacancy
        raise _NoRoom

    def _vacancies(self, row: int, key: _Key, empties: bool) -> Iterator[Vacancy]:
        """What is most likely let in comes first. empties: a field may hold nothing."""
        kept = {*self._prepared.key.column_names, *self._fields_on_update("SET ")}
        names = [name for name in self._prepared.written(row) if name in key.names]
        fields = [self._current.field(name) for name in names if name not in kept]
        referring = {name for each in self._current.references for name in each.fields}
        fields.sort(key=lambda field: field.name in referring)
        followed = self._fields_on_update("CASCADE")
        for field in fields if empties else ():
            if field.nullable and field.name not in followed:
                yield Vacancy(row, field, None)
        for field in fields:
            old = self._prepared.before.column(field.name)[row].as_py()
            for value in placeholders(field.type, old):
                yield Vacancy(row, field, value)

    def _write_each(self, rows: Sequence[int]) -> None:
        for row in rows:
            try:
                self._exchange.write(row)
            except RowRefused as refusal:
                raise _Stuck(row, refusal.problem) from None

    def _require_gone(self, vacancies: Sequence[Vacancy]) -> None:
        """Raises _Stuck where a row still holds what it was to hold for a moment only."""
        for vacancy in vacancies:
            new = self._prepared.after.column(vacancy.field.name)[vacancy.row].as_py()
            if new != vacancy.value and self._exchange.holds(vacancy):
                raise _Stuck(vacancy.row, NOT_WRITTEN)

    def _fields_on_update(self, action: str) -> set[str]:
        """Those that foreign keys refer to with such an ON UPDATE."""
        return {name for name, does in self._on_update if does.upper().startswith(action)}

    @cached_property
    def _on_update(self) -> list[tuple[str, str]]:
        return list(self._exchange.on_update())

    @cached_property
    def _exact_keys(self) -> list[_Key]:
        """The unique keys all of whose fields are written, and known as they were."""
        return [_Key(names) for names in self._current.unique_keys if self._known.issuperset(names)]

    @cached_property
    def _loose_keys(self) -> list[_Key]:
        """All unique keys, by those of their fields that are known."""
        keys = (*self._current.unique_keys, *self._exchange.loose_keys())
        known = (tuple(name for name in names if name in self._known) for names in keys)
        return [_Key(names, is_loose=True) for names in dict.fromkeys(known) if names]


def _opening(waiting: Parents, part: Sequence[int], first: int) -> tuple[list[int], list[int]]:
    """Which rows of a circle make room so that no circle is left, and the order to write all in.

    One is enough where the circle is a simple one.
    """
    opened = [first]
    while True:
        left = set(part) - set(opened)
        graph = {place: [p for p in waiting.get(place, ()) if p in left] for place in left}
        parts = [found for found in components_of(graph, max(part) + 1) if found[0] in left]
        circles = [found[0] for found in parts if len(found) > 1]
        if not circles:
            return opened, [*(found[0] for found in parts), *opened]
        opened += circles
