"""Temporary tables of rows to write or to look up, in types that keep every value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.mysql.reading import literals
from apps.connectors.mysql.target import Target
from apps.connectors.mysql.types import Column

_STATEMENT_BYTES = 4 * 1024 * 1024


class Stage:
    """One temporary table: `n`, the row number, and columns named by a letter and a number."""

    def __init__(self, target: Target, name: str, columns: Sequence[tuple[str, Column]]) -> None:
        """Make it anew. Outside of a transaction."""
        self._target = target
        self.name = name
        lines = "".join(f", {place} {column.staged_type}" for place, column in columns)
        target.run(f"DROP TEMPORARY TABLE IF EXISTS {name}")
        target.run(f"CREATE TEMPORARY TABLE {name} (n INT PRIMARY KEY{lines}) ENGINE=InnoDB")

    def fill(self, numbers: Sequence[int], columns: Sequence[pa.ChunkedArray]) -> list[int]:
        """Put rows in; gives the numbers of those that are larger than the server takes."""
        if not numbers:
            return []
        values = [pa.array(numbers, pa.int64()).cast(pa.string())]
        values.extend(literals(column) for column in columns)
        joined = pc.binary_join_element_wise(
            *values, ",", null_handling="replace", null_replacement="NULL"
        )
        too_large: list[int] = []
        for statement in self._statements(joined.to_pylist(), numbers, too_large):
            self._target.run(statement)
        return too_large

    def _statements(
        self, texts: list[str], numbers: Sequence[int], too_large: list[int]
    ) -> Iterator[bytes]:
        """Multi-row inserts into the stage, each well below the server's largest packet."""
        head = f"INSERT INTO {self.name} VALUES ".encode()
        largest = self._target.largest_packet - len(head) - 64
        bound = min(_STATEMENT_BYTES, largest)
        parts: list[bytes] = []
        size = 0
        for number, text in zip(numbers, texts, strict=True):
            part = b"(" + text.encode() + b")"
            if len(part) > largest:
                too_large.append(number)
                continue
            if parts and size + len(part) > bound:
                yield head + b",".join(parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
        if parts:
            yield head + b",".join(parts)

    def discard(self, numbers: Sequence[int]) -> None:
        """Take rows out again, before a statement that must not see them."""
        if numbers:
            listed = ", ".join(map(str, numbers))
            self._target.run(f"DELETE FROM {self.name} WHERE n IN ({listed})")

    def empty(self) -> None:
        self._target.run(f"DELETE FROM {self.name}")
