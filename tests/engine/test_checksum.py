"""Differences found by digests: exactly those that there are, in few statements."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    CursorWindow,
    FieldSchema,
    Operation,
    ReadRequest,
)
from apps.connectors.digests import neutral_forms
from apps.connectors.testing import Harness, open_session, read_all
from apps.connectors.types import Kind, NeutralType
from apps.engine import checksum
from apps.engine.checksum import (
    DIFFERS,
    ONLY_LEFT,
    ONLY_RIGHT,
    ComparedKeys,
    Costs,
    DigestComparison,
    Statistics,
)
from apps.engine.codec import encode_keys
from tests.conformance.harnesses import mariadb, postgresql, sqlite
from tests.digests import digest_session
from tests.servers import postgresql_connection

PLATFORMS = {"postgresql": postgresql, "mariadb": mariadb, "sqlite": sqlite}
PAIRS = [
    ("postgresql", "postgresql"),
    ("postgresql", "mariadb"),
    ("mariadb", "mariadb"),
    ("sqlite", "postgresql"),
    ("mariadb", "sqlite"),
]
TEXT_KEY = NeutralType(Kind.TEXT, length=40)
KEYS: dict[str, tuple[list[NeutralType], Callable[[int], tuple[Any, ...]]]] = {
    "integer with gaps": ([neutral.INTEGER], lambda n: (n * n,)),
    "text": ([TEXT_KEY], lambda n: (f"{'aAbBäé '[n % 7]}{n // 2:05d}{' ' * (n % 2)}",)),
    "uuid": ([neutral.UUID], lambda n: (f"{n * 7919 % 65536:08x}-0000-4000-8000-{n:012x}",)),
    "timestamp": (
        [neutral.TIMESTAMP],
        lambda n: (datetime(2024, 1, 1) + timedelta(microseconds=n * n),),  # noqa: DTZ001
    ),
    "composite": ([TEXT_KEY, neutral.INTEGER], lambda n: (f"Group {n % 3}", n)),
}


def marks(names: tuple[str, ...]) -> list[pytest.MarkDecorator]:
    return [mark for name in names for mark in PLATFORMS[name].MARKS]


@pytest.fixture(params=[pytest.param(pair, marks=marks(pair), id="-".join(pair)) for pair in PAIRS])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Harness, Harness]]:
    with ExitStack() as stack:
        sides = []
        for side, name in zip(("left", "right"), request.param, strict=True):
            folder = tmp_path / side
            folder.mkdir()
            sides.append(stack.enter_context(PLATFORMS[name].harness(folder)))
        yield sides[0], sides[1]


class Twins:
    """The same records on two sides, and what was done to the right ones since."""

    def __init__(self, pair: tuple[Harness, Harness], key: str, count: int) -> None:
        self.types, self.make_key = KEYS[key]
        self.names = [f"k{place}" for place in range(len(self.types))]
        self.sides = [harness.connector for harness in pair]
        rows = self.rows(range(0, count * 2, 2))
        self.datasets = [harness.make(self.fields, tuple(self.names), rows) for harness in pair]

    @property
    def fields(self) -> list[FieldSchema]:
        keys = [
            FieldSchema(name, kind, nullable=False)
            for name, kind in zip(self.names, self.types, strict=True)
        ]
        value = FieldSchema("value", neutral.TEXT)
        return [*keys, value, FieldSchema("changed", neutral.TIMESTAMPTZ)]

    def rows(self, numbers: Any, value: str = "as it was", **columns: Any) -> pa.Table:
        keys = [self.make_key(number) for number in numbers]
        values = {
            name: pa.array([key[place] for key in keys], kind.arrow)
            for place, (name, kind) in enumerate(zip(self.names, self.types, strict=True))
        }
        values["value"] = pa.array([f"{value} {key[-1]}" for key in keys], pa.string())
        moment = columns.get("changed", datetime(2024, 1, 1, tzinfo=UTC))
        values["changed"] = pa.array([moment] * len(keys), neutral.TIMESTAMPTZ.arrow)
        return pa.table(values)

    def insert(self, numbers: Any, side: int = 1, **columns: Any) -> None:
        rows = self.rows(numbers, **columns)
        self._apply(ChangeBatch(Operation.INSERT, rows.select(self.names), None, rows), side)

    def edit(self, numbers: Any, side: int = 1) -> None:
        read = self._read(numbers, side)
        after = pa.table({"value": [f"edited {n}" for n in range(read.num_rows)]})
        key, before = read.select(self.names), read.select(["value"])
        self._apply(ChangeBatch(Operation.UPDATE, key, before, after), side)

    def delete(self, numbers: Any, side: int = 1) -> None:
        read = self._read(numbers, side)
        key, before = read.select(self.names), read.select(["value"])
        self._apply(ChangeBatch(Operation.DELETE, key, before), side)

    def _read(self, numbers: Any, side: int) -> pa.Table:
        dataset, keys = self.datasets[side], self.rows(numbers).select(self.names)
        return read_all(self.sides[side], ReadRequest(dataset, (*self.names, "value"), keys=keys))

    def _apply(self, batch: ChangeBatch, side: int) -> None:
        with open_session(self.sides[side], self.datasets[side]) as session:
            result = session.apply(batch, lambda: None)
        assert not result.exceptions

    def compare(
        self, costs: Costs | None = None, lag: CursorWindow | None = None
    ) -> tuple[set[tuple[str, str, str]], Statistics]:
        order = tuple(range(len(self.names)))
        keys = ComparedKeys(tuple(self.types), order, order)
        forms = [(f.name, neutral_forms(f.type)[0]) for f in self.fields]
        with ExitStack() as stack:
            left, right = (
                stack.enter_context(digest_session(connector, dataset, forms, lag=lag))
                for connector, dataset in zip(self.sides, self.datasets, strict=True)
            )
            comparison = DigestComparison(left, right, keys, costs=costs)
            rows = [row for table in comparison.candidates() for row in table.to_pylist()]
        found = {(row["left_key"], row["right_key"], row["kind"]) for row in rows}
        assert len(found) == len(rows)
        return found, comparison.statistics

    def expected(self, numbers: Any, kind: str) -> set[tuple[str, str, str]]:
        types = dict(zip(self.names, self.types, strict=True))
        texts = encode_keys(self.rows(numbers).select(self.names), types)
        return {(text, text, kind) for text in texts}


@pytest.mark.parametrize("key", list(KEYS))
def test_what_differs_is_found_and_nothing_else(pair: tuple[Harness, Harness], key: str) -> None:
    twins = Twins(pair, key, 5_000)
    assert twins.compare()[0] == set()
    changed, gone, new = [10, 4_000, 9_998], [0, 5_000], [1, 7_777, 10_001]
    twins.edit(changed)
    twins.delete(gone)
    twins.insert(new)
    found, statistics = twins.compare()
    assert found == (
        twins.expected(changed, DIFFERS)
        | twins.expected(gone, ONLY_LEFT)
        | twins.expected(new, ONLY_RIGHT)
    )
    assert statistics.statements <= 4
    assert statistics.fetched_rows < 3_000


SLOW = Costs(round_trip=0.001, byte=1e-3, digest=1e-9)
"""Every byte counts: spans are cut as far as it goes."""


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Callable[[str, int], Twins]]:
    with ExitStack() as stack:
        left, right = (stack.enter_context(postgresql.harness(tmp_path)) for _ in range(2))
        yield lambda key, count: Twins((left, right), key, count)


@pytest.mark.postgresql
class TestPostgresql:
    """What does not depend on the platform."""

    def test_an_empty_side_lacks_everything(self, twins: Callable[[str, int], Twins]) -> None:
        sides = twins("integer with gaps", 0)
        sides.insert(range(3_000), side=0)
        found, _ = sides.compare()
        assert found == sides.expected(range(3_000), ONLY_LEFT)

    def test_two_empty_sides_are_equal(self, twins: Callable[[str, int], Twins]) -> None:
        assert twins("text", 0).compare()[0] == set()

    def test_values_that_changed_places_within_a_span_differ(
        self, twins: Callable[[str, int], Twins]
    ) -> None:
        sides = twins("integer with gaps", 100)
        sides.delete([2, 4])
        ours = sides.rows([2, 4])
        swapped = ours.set_column(1, "value", ours.column("value").take([1, 0]))
        key = swapped.select(["k0"])
        sides._apply(ChangeBatch(Operation.INSERT, key, None, swapped), 1)
        assert sides.compare()[0] == sides.expected([2, 4], DIFFERS)

    def test_large_spans_are_cut_until_few_records_are_fetched(
        self, twins: Callable[[str, int], Twins], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checksum, "SMALL_ROWS", 20)
        monkeypatch.setattr(checksum, "FIRST_SPANS", 8)
        sides = twins("text", 20_000)
        sides.edit([20_000])
        found, statistics = sides.compare(SLOW)
        assert found == sides.expected([20_000], DIFFERS)
        assert statistics.fetched_rows <= 2 * 20
        assert statistics.statements <= 1 + 2 * 4 + 1

    def test_many_differing_spans_are_fetched_at_once(
        self, twins: Callable[[str, int], Twins], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checksum, "SMALL_ROWS", 10)
        sides = twins("integer with gaps", 5_000)
        sides.edit(range(0, 10_000, 50))
        found, statistics = sides.compare()
        assert found == sides.expected(range(0, 10_000, 50), DIFFERS)
        assert statistics.statements == 4

    def test_memory_is_bounded_by_fetching_in_parts(
        self, twins: Callable[[str, int], Twins], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checksum, "CHUNK_ROWS", 500)
        sides = twins("composite", 3_000)
        sides.edit(range(0, 6_000, 20))
        found, statistics = sides.compare()
        assert found == sides.expected(range(0, 6_000, 20), DIFFERS)
        assert statistics.statements >= 8

    def test_what_changed_after_the_lag_is_left_to_the_next_run(
        self, twins: Callable[[str, int], Twins]
    ) -> None:
        sides = twins("integer with gaps", 300)
        now = datetime(2024, 6, 1, tzinfo=UTC)
        sides.insert([1], changed=now - timedelta(seconds=20))
        sides.insert([3], changed=now - timedelta(seconds=2))
        lag = CursorWindow("changed", now - timedelta(seconds=10))
        found, statistics = sides.compare(lag=lag)
        assert found == sides.expected([1], ONLY_RIGHT)
        assert statistics.young == 1

    def test_a_key_that_one_side_has_twice_differs(
        self, twins: Callable[[str, int], Twins]
    ) -> None:
        sides = twins("integer with gaps", 50)
        connector, dataset = sides.sides[1], sides.datasets[1]
        with postgresql_connection(connector.settings.model_dump()) as connection:
            connection.execute(
                f'ALTER TABLE "{dataset.name}" DROP CONSTRAINT "{dataset.name}_pkey"'
            )
            connection.execute(
                f'INSERT INTO "{dataset.name}" SELECT * FROM "{dataset.name}" LIMIT 1'
            )
        assert len(sides.compare()[0]) == 1


def test_writers_during_a_comparison_hide_nothing_that_was_there_before(
    pair: tuple[Harness, Harness],
) -> None:
    """Each side answers from one snapshot: what differed before is found, and what one
    transaction changed on a side is seen whole or not at all.
    """
    twins = Twins(pair, "integer with gaps", 4_000)
    twins.edit([100, 200])
    stop = threading.Event()

    def write() -> None:
        number = 1
        while not stop.is_set():
            twins.insert([number, number + 2_000])
            number += 2

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found, _ = twins.compare()
    finally:
        stop.set()
        writer.join()
    assert twins.expected([100, 200], DIFFERS) <= found
    new = {key for key, _, kind in found if kind == ONLY_RIGHT}
    assert found == twins.expected([100, 200], DIFFERS) | {(k, k, ONLY_RIGHT) for k in new}
    assert len(new) % 2 == 0
