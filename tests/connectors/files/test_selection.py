from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from apps.connectors.base import CursorWindow, KeyRange, ReadRequest
from apps.connectors.errors import ConfigurationError, FieldMissing
from tests.connectors.files.conftest import Connect
from tests.connectors.files.support import read


@pytest.fixture
def orders(tmp_path: Path) -> str:
    (tmp_path / "orders.csv").write_text(
        "id,region,at\n1,a,2024-01-01T00:00:00Z\n2,b,2024-01-02T00:00:00Z\n"
        "3,a,\n4,b,2024-01-03T00:00:00Z\n"
    )
    return "orders.csv"


def test_a_cursor_reads_from_its_value_on_and_what_has_none(connect: Connect, orders: str) -> None:
    window = CursorWindow("at", dt.datetime(2024, 1, 2, tzinfo=dt.UTC))
    assert [r["id"] for r in read(connect(), orders, "id", cursor=window)[0]] == [2, 3, 4]
    assert len(read(connect(), orders, "id", cursor=CursorWindow("at"))[0]) == 4


def test_a_cursor_of_another_type_is_refused(connect: Connect, orders: str) -> None:
    with pytest.raises(ConfigurationError, match="cursor"):
        read(connect(), orders, "id", cursor=CursorWindow("id", "x"))


def test_keys_of_several_fields_choose_records(connect: Connect, orders: str) -> None:
    keys = pa.table({"region": ["a", "b", "c"], "id": [1, 4, 1]})
    assert [r["id"] for r in read(connect(), orders, "id", keys=keys)[0]] == [1, 4]


def test_a_range_is_half_open(connect: Connect, orders: str) -> None:
    wanted = KeyRange(("id",), (2,), (4,))
    assert [r["id"] for r in read(connect(), orders, "id", part=wanted)[0]] == [2, 3]


def test_a_limit_and_a_batch_size_hold(connect: Connect, orders: str) -> None:
    connector = connect()
    schema = connector.describe(orders)
    batches = list(connector.read(ReadRequest(schema, ("id",), limit=3, batch_rows=2)))
    assert [b.records.num_rows for b in batches] == [2, 1]


def test_fields_come_in_the_order_asked_for(connect: Connect, orders: str) -> None:
    records, _ = read(connect(), orders, "region", "id", limit=1)
    assert list(records[0]) == ["region", "id"]


def test_an_unknown_field_is_missing(connect: Connect, orders: str) -> None:
    with pytest.raises(FieldMissing):
        read(connect(), orders, "nobody")


def test_batches_of_wide_records_stay_small(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("t\n" + ("x" * 500_000 + "\n") * 100)
    connector = connect()
    schema = connector.describe("a.csv")
    sizes = [b.records.nbytes for b in connector.read(ReadRequest(schema, ("t",)))]
    assert max(sizes) <= 32 << 20
    assert sum(sizes) > 50_000_000


def test_a_group_is_one_read_only_dataset(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "part-1.csv").write_text("id,t\n1,a\n")
    (tmp_path / "part-2.csv").write_text("t,id\nb,2\nc\n")
    connector = connect(groups=("part-*.csv",))
    assert [d.name for d in connector.discover()] == ["part-*.csv", "part-1.csv", "part-2.csv"]
    schema = connector.describe("part-*.csv")
    records, rejected = read(connector, schema)
    assert [r["id"] for r in records] == [1, 2]
    assert [r.position for r in rejected] == ["line 3 of part-2.csv"]
    assert not schema.writable
    assert connector.count(schema) == 3
    with pytest.raises(ConfigurationError, match="read-only"):
        connector.write_session(schema, lock="x", lease_seconds=lambda: 1.0)
