"""The order in which the changes of one batch respect a table's references to itself.

A database may check a foreign key with each record, so a parent must be inserted before its
children and deleted after them. Records that refer to one another in a circle have no such order:
they are kept together, because they can only be written by one statement, where at all.

The circles are the strongly connected components of the graph of references.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from apps.connectors.base import DatasetSchema, Operation, WriteResult
from apps.connectors.components import Parents, components_of
from apps.connectors.sql_writing import PreparedBatch


def ordered(
    prepared: PreparedBatch, current: DatasetSchema
) -> tuple[PreparedBatch, Callable[[WriteResult], WriteResult]]:
    """The batch in the order in which it is to be written, and how to undo that in its outcome.

    As it is where its records do not refer to one another.
    """
    parents = _parents(prepared, current)
    if not parents:
        return prepared, lambda result: result
    components = list(components_of(parents, prepared.num_rows))
    generations = _generations(components, parents)
    by_generation = sorted(range(len(components)), key=generations.__getitem__)
    if prepared.operation is Operation.DELETE:
        by_generation.reverse()
    parts = [components[number] for number in by_generation]
    rows = [row for part in parts for row in part]
    levels: list[list[int]] = []
    circles: list[tuple[int, ...]] = []
    place, level = 0, -1
    for number, part in zip(by_generation, parts, strict=True):
        places = tuple(range(place, place + len(part)))
        if generations[number] != level:
            levels.append([])
            level = generations[number]
        levels[-1].extend(places)
        if len(part) > 1:
            circles.append(places)
        place += len(part)
    return _taken(prepared, rows, circles, levels), lambda result: _restored(result, rows)


def _parents(prepared: PreparedBatch, current: DatasetSchema) -> Parents:
    parents: Parents = {}
    if prepared.operation is Operation.UPDATE or prepared.num_rows < 2:
        return parents
    known = {
        name: table.column(name)
        for table in (prepared.key, prepared.before, prepared.after)
        for name in table.column_names
    }
    for reference in current.references:
        own = reference.dataset == current.name
        if own and known.keys() >= {*reference.fields, *reference.target_fields}:
            targets = _values([known[name] for name in reference.target_fields])
            places = {values: row for row, values in enumerate(targets)}
            for row, values in enumerate(_values([known[name] for name in reference.fields])):
                parent = None if None in values else places.get(values)
                if parent is not None and parent != row:
                    parents.setdefault(row, []).append(parent)
    return parents


def _values(columns: Sequence[pa.ChunkedArray]) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _generations(components: Sequence[Sequence[int]], parents: Parents) -> list[int]:
    """How many references lead at most from each component to one that has none."""
    component_of = {row: number for number, part in enumerate(components) for row in part}
    generations: list[int] = []
    for number, part in enumerate(components):
        above = {component_of[parent] for row in part for parent in parents.get(row, ())}
        generations.append(max((generations[n] + 1 for n in above - {number}), default=0))
    return generations


def _taken(
    prepared: PreparedBatch,
    rows: Sequence[int],
    circles: Sequence[tuple[int, ...]],
    levels: Sequence[Sequence[int]],
) -> PreparedBatch:
    indices = pa.array(rows, pa.int64())
    places = {row: place for place, row in enumerate(rows)}

    def taken(table: pa.Table) -> pa.Table:
        return table.take(indices) if table.num_columns else table

    return replace(
        prepared,
        key=taken(prepared.key),
        before=taken(prepared.before),
        after=taken(prepared.after),
        exceptions={places[row]: problem for row, problem in prepared.exceptions.items()},
        circles=tuple(circles),
        levels=tuple(tuple(level) for level in levels),
    )


def _restored(result: WriteResult, rows: Sequence[int]) -> WriteResult:
    places = [0] * len(rows)
    for place, row in enumerate(rows):
        places[row] = place
    indices = pa.array(places, pa.int64())
    exceptions = {rows[place]: problem for place, problem in result.exceptions.items()}
    return replace(
        result,
        exceptions=dict(sorted(exceptions.items())),
        stored=None if result.stored is None else result.stored.take(indices),
        keys=None if result.keys is None else result.keys.take(indices),
    )
